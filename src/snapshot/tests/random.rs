//! Whatever changes in whatever order: an incremental snapshot is the one that would be made from scratch, and costs what
//! changed.

use proptest::prelude::*;

use super::*;

/// Backends and servers of each; `f0` and `f1` use the first, `f2` the second …
const BACKENDS: usize = 4;
const SERVERS: usize = 3;

/// Between two snapshots of a slow start of 2 s.
const STEP: Duration = Duration::from_millis(100);

#[derive(Debug, Clone)]
enum Event {
    Health(usize, usize, u8),
    Override(usize, usize, u8),
    Weight(usize, usize, u16),
    Algorithm(usize, bool),
    Mode(usize, bool),
    Seed(bool),
    Remove(usize, bool),
    RemoveServer(usize, usize, bool),
    Time(u64),
    Nothing,
}

fn event() -> impl Strategy<Value = Event> {
    let (backend, server) = (0..BACKENDS, 0..SERVERS);
    prop_oneof![
        6 => (backend.clone(), server.clone(), 0..4_u8).prop_map(|(b, s, state)| Event::Health(b, s, state)),
        3 => (backend.clone(), server.clone(), 0..5_u8).prop_map(|(b, s, admin)| Event::Override(b, s, admin)),
        1 => (backend.clone(), server.clone(), 0..3_u16).prop_map(|(b, s, weight)| Event::Weight(b, s, weight)),
        1 => (backend.clone(), any::<bool>()).prop_map(|(b, random)| Event::Algorithm(b, random)),
        1 => (0..=BACKENDS, any::<bool>()).prop_map(|(f, dsr)| Event::Mode(f, dsr)),
        1 => any::<bool>().prop_map(Event::Seed),
        1 => (backend.clone(), any::<bool>()).prop_map(|(b, remove)| Event::Remove(b, remove)),
        1 => (backend, server, any::<bool>()).prop_map(|(b, s, remove)| Event::RemoveServer(b, s, remove)),
        2 => (0..3_000_u64).prop_map(Event::Time),
        1 => Just(Event::Nothing),
    ]
}

/// A site as a schedule has made it, and the snapshot that was last made of it.
struct World {
    file: File,
    config: Config,
    pools: Pools,
    health: HashMap<ServerKey, Health>,
    builder: Builder,
    start: Instant,
    now: Instant,
    /// Backends that something has happened to since the last snapshot.
    touched: BTreeSet<String>,
    last: Arc<Snapshot>,
    last_built: Instant,
}

/// What the configuration file says.
#[derive(Clone)]
struct File {
    removed: [bool; BACKENDS],
    gone: [[bool; SERVERS]; BACKENDS],
    weights: [[u16; SERVERS]; BACKENDS],
    random: [bool; BACKENDS],
    dsr: [bool; BACKENDS + 1],
    seeded: bool,
}

impl File {
    fn text(&self) -> String {
        let mut text = String::new();
        if self.seeded {
            text += "hash_seed = \"secret\"\n";
        }
        for (f, dsr) in self.dsr.iter().enumerate() {
            let backend = f.saturating_sub(1);
            if self.removed[backend] {
                continue;
            }
            let mode = if *dsr { "dsr" } else { "proxy" };
            let host = f + 1;
            text += &format!(
                "[frontends.f{f}]\nlisten_addr = \"192.0.2.{host}:80\"\nmode = \"{mode}\"\nbackend = \"b{backend}\"\n"
            );
        }
        for b in (0..BACKENDS).filter(|b| !self.removed[*b]) {
            let balance = if self.random[b] { "random" } else { "round_robin" };
            text += &format!(
                "[backends.b{b}]\nbalance = \"{balance}\"\nslow_start = \"2s\"\nhealth_check.initial = \"down\"\n"
            );
            for s in (0..SERVERS).filter(|s| !self.gone[b][*s]) {
                let (host, priority, weight) = (s + 1, 1 + s / 2, self.weights[b][s]);
                text += &format!(
                    "servers.s{s} = {{ addr = \"10.0.{b}.{host}:80\", priority = {priority}, weight = {weight} }}\n"
                );
            }
        }
        text
    }

    fn has(&self, backend: usize, server: usize) -> bool {
        !self.removed[backend] && !self.gone[backend][server]
    }
}

impl World {
    fn new() -> Self {
        let file = File {
            removed: [false; BACKENDS],
            gone: [[false; SERVERS]; BACKENDS],
            weights: [[1; SERVERS]; BACKENDS],
            random: [false; BACKENDS],
            dsr: [false; BACKENDS + 1],
            seeded: false,
        };
        let config = load(&file.text());
        let mut pools = Pools::default();
        let mut builder = Builder::new(1, Arc::default());
        builder.config_changed(&config, pools.apply(&config));
        let start = Instant::now();
        let last = builder.build(&config, &pools, start).snapshot;
        Self {
            file,
            config,
            pools,
            health: HashMap::new(),
            builder,
            start,
            now: start,
            touched: BTreeSet::new(),
            last,
            last_built: start,
        }
    }

    fn happen(&mut self, event: &Event) {
        match *event {
            Event::Health(b, s, state) if self.file.has(b, s) => self.checked(b, s, state),
            Event::Override(b, s, admin) => self.overridden(b, s, admin),
            Event::Weight(b, s, weight) => self.reload(b, |file| file.weights[b][s] = weight),
            Event::Algorithm(b, random) => self.reload(b, |file| file.random[b] = random),
            Event::Mode(f, dsr) => self.reload(f.saturating_sub(1), |file| file.dsr[f] = dsr),
            Event::Seed(seeded) => {
                if seeded != self.file.seeded {
                    self.touched.extend((0..BACKENDS).map(|b| format!("b{b}")));
                }
                self.reload(0, |file| file.seeded = seeded);
            }
            Event::Remove(b, removed) => self.reload(b, |file| file.removed[b] = removed),
            Event::RemoveServer(b, s, gone) => self.reload(b, |file| file.gone[b][s] = gone),
            Event::Time(ms) => self.now += Duration::from_millis(ms),
            Event::Health(..) | Event::Nothing => {}
        }
    }

    fn checked(&mut self, b: usize, s: usize, state: u8) {
        let is_up = state == 0;
        let known = Health {
            ramp_from: is_up.then_some(self.now),
            is_ejected: state == 1,
            reason: (!is_up).then(|| format!("reason {state}").into()),
            ..Health::new(if is_up { ServerState::Up } else { ServerState::Down }, self.now)
        };
        self.health.insert(key_of(b, s), known.clone());
        self.builder.set_health(&key_of(b, s), Some(known));
        self.touched.insert(format!("b{b}"));
    }

    fn overridden(&mut self, b: usize, s: usize, admin: u8) {
        let states = [None, Some(AdminState::Draining), Some(AdminState::Maintenance)];
        let overridden = Override {
            admin: states.get(usize::from(admin)).copied().flatten(),
            weight: (admin > 2).then(|| u16::from(admin) - 3),
        };
        if self.pools.set_override(&key_of(b, s), overridden) {
            self.builder.pool_changed(&key_of(b, s).backend);
            self.touched.insert(format!("b{b}"));
        }
    }

    fn reload(&mut self, b: usize, change: impl FnOnce(&mut File)) {
        change(&mut self.file);
        self.touched.insert(format!("b{b}"));
        let mut config = load(&self.file.text());
        config.keep(&self.config);
        self.config = config;
        let changed = self.pools.apply(&self.config);
        // as the checks do
        let file = &self.file;
        let all = (0..SERVERS).filter(|s| !file.has(b, *s));
        for key in all.map(|s| key_of(b, s)) {
            self.health.remove(&key);
            self.builder.set_health(&key, None);
        }
        self.builder.config_changed(&self.config, changed);
    }

    /// A snapshot from scratch.
    fn anew(&self) -> Arc<Snapshot> {
        let mut builder = Builder::new(1, Arc::default());
        builder.config_changed(&self.config, self.config.backends.keys().cloned());
        for (key, health) in &self.health {
            builder.set_health(key, Some(health.clone()));
        }
        builder.build(&self.config, &self.pools, self.now).snapshot
    }

    /// Whether a slow start of one of a backend's servers runs, or has run until the last step.
    fn ramps(&self, backend: &BackendName) -> bool {
        let of_it = self.health.iter().filter(|(key, _)| key.backend == *backend);
        let mut starts = of_it.filter_map(|(_, health)| health.ramp_from);
        starts.any(|from| self.last_built.saturating_duration_since(from) <= Duration::from_secs(2))
    }

    /// Makes the next snapshot, and looks at it and at what it shares with the last one.
    fn build(&mut self) -> Result<(), TestCaseError> {
        // one step of a slow start of 2 s: each that runs is due
        self.now += STEP;
        let built = self.builder.build(&self.config, &self.pools, self.now);
        let key = HashKey::of(self.config.global.hash_seed.as_ref());
        prop_assert_eq!(
            shape(&built.snapshot, key),
            shape(&self.anew(), key),
            "after {:?}",
            self.now - self.start
        );
        for (name, backend) in &built.snapshot.backends {
            let before = self.last.backends.get(name);
            let same = before.is_some_and(|before| Arc::ptr_eq(before, backend));
            prop_assert!(
                same || self.ramps(name) || self.touched.contains(name.as_str()),
                "{} was made anew",
                name
            );
        }
        for (name, frontend) in &built.snapshot.frontends {
            if let Some(before) = self.last.frontends.get(name) {
                let untouched = Arc::ptr_eq(&before.backend, &frontend.backend)
                    && Arc::ptr_eq(&before.config, &frontend.config);
                prop_assert_eq!(Arc::ptr_eq(before, frontend), untouched);
            }
        }
        let named = built.backends.iter().flat_map(|b| [&b.before, &b.after]);
        let named: BTreeSet<_> = named.flatten().map(|view| view.config.name.clone()).collect();
        for (name, view) in &self.last.backends {
            let now = built.snapshot.backends.get(name);
            let differs = now.is_none_or(|now| !Arc::ptr_eq(now, view));
            prop_assert_eq!(differs, named.contains(name), "what is said to be replaced is");
        }
        (self.last, self.last_built) = (built.snapshot, self.now);
        self.touched.clear();
        Ok(())
    }
}

fn load(text: &str) -> Config {
    let source = config::Source {
        name: "random.toml".to_owned(),
        // without a backend the rest may be empty, which is no configuration
        bytes: format!("[global]\n{text}").into(),
    };
    let loaded = config::load(&source, config::Options::default());
    loaded
        .map_err(|findings| config::render(&findings, &source, false))
        .unwrap()
        .config
}

fn key_of(backend: usize, server: usize) -> ServerKey {
    ServerKey {
        backend: BackendName::new(&format!("b{backend}")).unwrap(),
        server: ServerName::new(&format!("s{server}")).unwrap(),
    }
}

/// What a Maglev table chooses for some flows.
fn chosen(maglev: &Balancer) -> Vec<Option<usize>> {
    let listen = ([192, 0, 2, 1], 80).into();
    let choose = |port: u16| {
        let pick = Pick {
            client_hash: 0,
            flow_hash: maglev.flow_hash(([198, 51, 100, 1], port).into(), listen),
            random: 0,
            load: &|_| 0,
            usable: &|_| true,
        };
        maglev.pick(&mut PickState::default(), &pick)
    };
    (0..16).map(choose).collect()
}

/// Everything of a snapshot that readers act on or show.
fn shape(snapshot: &Snapshot, key: HashKey) -> Vec<String> {
    let mut lines = vec![format!("{:?} {:?}", snapshot.counts, snapshot.nat_ports)];
    for (name, backend) in &snapshot.backends {
        let maglev = backend
            .maglev
            .as_ref()
            .map(|maglev| (maglev.candidates().to_vec(), chosen(maglev)));
        lines.push(format!(
            "{name} {:?} {:?} {maglev:?}",
            backend.config, backend.counts
        ));
        assert!(
            backend
                .balancer
                .is_of(backend.config.balance, backend.balancer.candidates(), key)
        );
        for (server, candidate) in backend.servers.iter().zip(backend.balancer.candidates()) {
            lines.push(format!(
                "{} {} {:?} {} {} {} {} {:?} {:?} {:?} {candidate:?}",
                server.name,
                server.addr,
                server.max_connections,
                server.priority,
                server.weight,
                server.configured_weight,
                server.effective_weight,
                server.state,
                server.state_reason,
                server.overridden,
            ));
        }
    }
    let mut frontends: Vec<_> = (snapshot.frontends.iter())
        .map(|(name, frontend)| {
            let backend = &snapshot.backends[&frontend.config.backend];
            assert!(
                Arc::ptr_eq(&frontend.backend, backend),
                "{name} has an old backend"
            );
            format!("{name} {:?}", frontend.config)
        })
        .collect();
    frontends.sort();
    lines.extend(frontends);
    lines
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_snapshot_is_as_if_made_from_scratch_and_shares_what_did_not_change(
        schedule in prop::collection::vec(prop::collection::vec(event(), 0..4), 1..40),
    ) {
        let mut world = World::new();
        for events in schedule {
            for event in &events {
                world.happen(event);
            }
            world.build()?;
        }
    }
}

/// A site of that many backends with as many servers each.
fn large(backends: usize, servers: usize) -> (Config, Pools, Builder, Vec<ServerKey>) {
    let mut text = String::new();
    for b in 0..backends {
        text += &format!(
            "[frontends.f{b}]\nlisten_addr = \"192.0.2.1:{}\"\nbackend = \"b{b}\"\n",
            b + 1
        );
        for s in 0..servers {
            text += &format!(
                "[backends.b{b}.servers.s{s}]\naddr = \"10.0.{}.{}:80\"\n",
                s / 250,
                s % 250 + 1
            );
        }
    }
    let config = load(&text);
    let mut pools = Pools::default();
    let mut builder = Builder::new(1, Arc::default());
    builder.config_changed(&config, pools.apply(&config));
    let keys = (0..backends).flat_map(|b| (0..servers).map(move |s| key_of(b, s)));
    (config, pools, builder, keys.collect())
}

fn down_since(since: Instant) -> Health {
    Health::new(ServerState::Down, since)
}

#[test]
fn a_servers_health_remakes_its_backend_and_the_frontends_of_that_and_nothing_else() {
    let (config, pools, mut builder, keys) = large(50, 4);
    let now = Instant::now();
    builder.build(&config, &pools, now);
    let mut views = 0;
    for key in &keys {
        builder.set_health(key, Some(down_since(now)));
        let built = builder.build(&config, &pools, now);
        views += built.backends.len() + built.frontends.len();
    }
    assert_eq!(
        views,
        2 * keys.len(),
        "one backend and one frontend for each server"
    );
    assert_eq!(builder.last().counts.eligible, 0);
    let built = builder.build(&config, &pools, now);
    assert_eq!(
        (built.backends.len(), built.frontends.len()),
        (0, 0),
        "nothing changed"
    );
}

#[test]
fn servers_that_go_down_together_remake_their_backend_once() {
    let (config, pools, mut builder, keys) = large(1, 1_000);
    let now = Instant::now();
    builder.build(&config, &pools, now);
    for key in &keys {
        builder.set_health(key, Some(down_since(now)));
    }
    let built = builder.build(&config, &pools, now);
    assert_eq!((built.backends.len(), built.frontends.len()), (1, 1));
    assert_eq!(built.snapshot.counts.eligible, 0);
}
