//! Whatever changes in whatever order: an incremental snapshot is the one that would be made from scratch, and costs what
//! changed.

use proptest::prelude::*;

use super::*;

/// Backends and servers of each; `f0` and `f1` use the first, `f2` the second …
const BACKENDS: usize = 4;
const SERVERS: usize = 3;

#[derive(Debug, Clone)]
enum Event {
    Health(usize, usize, u8),
    Override(usize, usize, u8),
    Weight(usize, usize, u16),
    Algorithm(usize, bool),
    Mode(usize, bool),
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
        1 => (backend.clone(), any::<bool>()).prop_map(|(b, remove)| Event::Remove(b, remove)),
        1 => (backend, server, any::<bool>()).prop_map(|(b, s, remove)| Event::RemoveServer(b, s, remove)),
        2 => (0..3_000_u64).prop_map(Event::Time),
        1 => Just(Event::Nothing),
    ]
}

fn text(removed: &[bool], gone: &[[bool; SERVERS]], dsr: &[bool]) -> String {
    let mut text = String::new();
    for (f, dsr) in dsr.iter().enumerate() {
        let backend = f.saturating_sub(1);
        if removed[backend] {
            continue;
        }
        let mode = if *dsr { "dsr" } else { "proxy" };
        text += &format!(
            "[frontends.f{f}]\nlisten_addr = \"192.0.2.{}:80\"\nmode = \"{mode}\"\nbackend = \"b{backend}\"\n",
            f + 1
        );
    }
    for b in (0..BACKENDS).filter(|b| !removed[*b]) {
        text += &format!("[backends.b{b}]\nslow_start = \"2s\"\nhealth_check.initial = \"down\"\n");
        for s in (0..SERVERS).filter(|s| !gone[b][*s]) {
            let priority = 1 + s / 2;
            text += &format!(
                "servers.s{s} = {{ addr = \"10.0.{b}.{}:80\", priority = {priority} }}\n",
                s + 1
            );
        }
    }
    text
}

fn load(text: &str) -> Config {
    let source = config::Source {
        name: "random.toml".to_owned(),
        bytes: text.into(),
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

/// Everything of a snapshot that readers act on or show.
fn shape(snapshot: &Snapshot) -> Vec<String> {
    let mut lines = vec![format!("{:?} {:?}", snapshot.counts, snapshot.nat_ports)];
    for (name, backend) in &snapshot.backends {
        let maglev = backend.maglev.as_ref().map(|maglev| maglev.candidates().to_vec());
        lines.push(format!(
            "{name} {:?} {:?} {maglev:?}",
            backend.config, backend.counts
        ));
        assert!(
            backend
                .balancer
                .is_of(backend.config.balance, backend.balancer.candidates())
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

/// A snapshot from scratch.
fn anew(config: &Config, pools: &Pools, health: &HashMap<ServerKey, Health>, now: Instant) -> Built {
    let mut builder = Builder::new(1, Arc::default());
    builder.config_changed(config, config.backends.keys().cloned());
    for (key, health) in health {
        builder.set_health(key, Some(health.clone()));
    }
    builder.build(config, pools, now)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn each_snapshot_is_as_if_made_from_scratch_and_shares_what_did_not_change(
        events in prop::collection::vec(prop::collection::vec(event(), 0..4), 1..40),
    ) {
        let (mut removed, mut gone) = (vec![false; BACKENDS], [[false; SERVERS]; BACKENDS]);
        let mut dsr = vec![false; BACKENDS + 1];
        let mut config = load(&text(&removed, &gone, &dsr));
        let mut pools = Pools::default();
        let mut builder = Builder::new(1, Arc::default());
        builder.config_changed(&config, pools.apply(&config));
        let mut health: HashMap<ServerKey, Health> = HashMap::new();
        let (start, mut ms) = (Instant::now(), 0);
        let mut last = builder.build(&config, &pools, start).snapshot;
        let mut algorithms = [false; BACKENDS];

        for batch in events {
            let mut touched: BTreeSet<String> = BTreeSet::new();
            let mut reload = false;
            let now = start + Duration::from_millis(ms);
            for event in batch {
                match event {
                    Event::Health(b, s, state) if !removed[b] && !gone[b][s] => {
                        let is_up = state == 0;
                        let known = Health {
                            state: if is_up { ServerState::Up } else { ServerState::Down },
                            since: now,
                            ramp_from: is_up.then_some(now),
                            is_ejected: state == 1,
                            reason: (!is_up).then(|| format!("reason {state}").into()),
                        };
                        health.insert(key_of(b, s), known.clone());
                        builder.set_health(&key_of(b, s), Some(known));
                        touched.insert(format!("b{b}"));
                    }
                    Event::Override(b, s, admin) => {
                        let overridden = Override {
                            admin: [None, Some(AdminState::Draining), Some(AdminState::Maintenance)]
                                .get(usize::from(admin)).copied().flatten(),
                            weight: (admin > 2).then_some(u16::from(admin) - 3),
                        };
                        if pools.set_override(&key_of(b, s), overridden) {
                            builder.pool_changed(&key_of(b, s).backend);
                            touched.insert(format!("b{b}"));
                        }
                    }
                    Event::Weight(b, s, weight) => {
                        let changed = config.backends.get_mut(&key_of(b, s).backend).map(Arc::make_mut);
                        if let Some(server) = changed.and_then(|b| b.servers.get_mut(&key_of(0, s).server)) {
                            server.weight = weight;
                        }
                        touched.insert(format!("b{b}"));
                        reload = true;
                    }
                    Event::Algorithm(b, random) => {
                        algorithms[b] = random;
                        touched.insert(format!("b{b}"));
                        reload = true;
                    }
                    Event::Mode(f, packet) => {
                        dsr[f] = packet;
                        touched.insert(format!("b{}", f.saturating_sub(1)));
                        reload = true;
                    }
                    Event::Remove(b, remove) => {
                        removed[b] = remove;
                        touched.insert(format!("b{b}"));
                        reload = true;
                    }
                    Event::RemoveServer(b, s, remove) => {
                        gone[b][s] = remove;
                        touched.insert(format!("b{b}"));
                        reload = true;
                    }
                    Event::Time(more) => ms += more,
                    Event::Health(..) | Event::Nothing => {}
                }
            }
            if reload {
                let mut next = load(&text(&removed, &gone, &dsr));
                for (b, random) in algorithms.iter().enumerate().filter(|(_, random)| **random) {
                    let backend = next.backends.get_mut(&key_of(b, 0).backend).map(Arc::make_mut);
                    if let Some(backend) = backend {
                        backend.balance = if *random { Algorithm::Random } else { backend.balance };
                    }
                }
                for (name, backend) in &config.backends {
                    // weights are set above
                    if let Some(next) = next.backends.get_mut(name).map(Arc::make_mut) {
                        for (name, server) in &mut next.servers {
                            if let Some(before) = backend.servers.get(name) {
                                server.weight = before.weight;
                            }
                        }
                    }
                }
                next.keep(&config);
                config = next;
                let changed = pools.apply(&config);
                for b in 0..BACKENDS {
                    for s in 0..SERVERS {
                        if removed[b] || gone[b][s] {
                            health.remove(&key_of(b, s));
                            builder.set_health(&key_of(b, s), None);
                        }
                    }
                }
                builder.config_changed(&config, changed);
            }

            let now = start + Duration::from_millis(ms);
            let ramping = builder.next_ramp_step().is_some_and(|at| at <= now);
            let built = builder.build(&config, &pools, now);
            let scratch = anew(&config, &pools, &health, now).snapshot;
            prop_assert_eq!(shape(&built.snapshot), shape(&scratch));

            for (name, backend) in &built.snapshot.backends {
                let same = last.backends.get(name).is_some_and(|before| Arc::ptr_eq(before, backend));
                let is_gone = (0..SERVERS).any(|s| gone[usize::from(name.as_str().as_bytes()[1] - b'0')][s]);
                prop_assert!(
                    same || touched.contains(name.as_str()) || ramping || is_gone,
                    "{} was made anew", name
                );
            }
            for (name, frontend) in &built.snapshot.frontends {
                if let Some(before) = last.frontends.get(name) {
                    let same = Arc::ptr_eq(before, frontend);
                    let untouched = Arc::ptr_eq(&before.backend, &frontend.backend)
                        && Arc::ptr_eq(&before.config, &frontend.config);
                    prop_assert_eq!(same, untouched);
                }
            }
            let named = built.backends.iter().flat_map(|b| [&b.before, &b.after]).flatten();
            let named: BTreeSet<_> = named.map(|view| view.config.name.clone()).collect();
            for (name, view) in &last.backends {
                let now = built.snapshot.backends.get(name);
                let differs = now.is_none_or(|now| !Arc::ptr_eq(now, view));
                prop_assert_eq!(differs, named.contains(name), "what is said to be replaced is");
            }
            last = built.snapshot;
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

#[test]
fn a_servers_health_remakes_its_backend_and_the_frontends_of_that_and_nothing_else() {
    let (config, pools, mut builder, keys) = large(50, 4);
    let now = Instant::now();
    builder.build(&config, &pools, now);
    let mut views = 0;
    for key in &keys {
        let down = Health {
            state: ServerState::Down,
            since: now,
            ramp_from: None,
            is_ejected: false,
            reason: None,
        };
        builder.set_health(key, Some(down));
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
        let down = Health {
            state: ServerState::Down,
            since: now,
            ramp_from: None,
            is_ejected: false,
            reason: None,
        };
        builder.set_health(key, Some(down));
    }
    let built = builder.build(&config, &pools, now);
    assert_eq!((built.backends.len(), built.frontends.len()), (1, 1));
    assert_eq!(built.snapshot.counts.eligible, 0);
}
