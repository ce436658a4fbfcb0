//! The checker against real listeners on loopback.

use std::{
    io::Write as _,
    net::{SocketAddr, TcpListener},
    num::{NonZeroU16, NonZeroU32},
};

use socket2::{Domain, Socket, Type};
use tokio::time::timeout;

use super::*;
use crate::{
    PATIENCE,
    base::{BackendName, ServerName, ServerState},
    config::{AgentCheck, Backend, Check, Config, HealthCheck, InitialState, PassiveCheck},
    pools::Override,
    snapshot::testing::{backend_mut, config},
};

/// A checker, its configuration, and what it reports.
struct Site {
    config: Config,
    pools: Pools,
    health: HashMap<ServerKey, Health>,
    checker: Checker,
    updates: mpsc::Receiver<HealthUpdate>,
    /// Servers that updates were about.
    heard: Vec<ServerKey>,
}

impl Site {
    /// A backend `web` with servers `s1` to `s4` at most, at these addresses.
    fn new(addrs: &[SocketAddr], check: &Option<HealthCheck>) -> Self {
        let names = ["s1", "s2", "s3", "s4"];
        let servers: Vec<_> = names.iter().take(addrs.len()).map(|name| (*name, 1, 1)).collect();
        let mut config = config(&servers);
        let (tx, updates) = mpsc::channel(64);
        for backend in config.backends.values_mut().map(Arc::make_mut) {
            backend.health_check.clone_from(check);
            for (server, addr) in backend.servers.values_mut().zip(addrs) {
                server.addr = ServerAddr::new(*addr);
            }
        }
        let mut site = Self {
            config,
            pools: Pools::default(),
            health: HashMap::new(),
            checker: Checker::new(tx),
            updates,
            heard: Vec::new(),
        };
        site.apply();
        site
    }

    fn apply(&mut self) {
        let changed = self.pools.apply(&self.config);
        let known = self.checker.apply(&self.pools, &changed, Trial::default());
        take(&mut self.health, known);
    }

    fn backend(&mut self) -> &mut Backend {
        backend_mut(&mut self.config)
    }

    fn admin(&mut self, server: &str, admin: Option<AdminState>) {
        self.apply();
        let overridden = Override { admin, weight: None };
        assert!(self.pools.set_override(&key(server), overridden));
        let pool = self.pools.get("web").unwrap();
        let server = pool.server(server).unwrap();
        let known = self.checker.apply_override(pool, server);
        take(&mut self.health, known);
    }

    fn state(&self, server: &str) -> Option<ServerState> {
        self.health.get(&key(server)).map(|health| health.state)
    }

    /// Takes updates as the daemon does until a server is in a state; the update that said so.
    async fn until(&mut self, server: &str, state: ServerState) -> HealthUpdate {
        timeout(PATIENCE, async {
            loop {
                let update = self.updates.recv().await.unwrap();
                self.heard.push(update.key.clone());
                self.health.insert(update.key.clone(), update.health.clone());
                if update.key == key(server) && update.health.state == state && update.changed {
                    return update;
                }
            }
        })
        .await
        .unwrap_or_else(|_| panic!("{server} is not {state}: {:?}", self.health))
    }

    /// A server that was not there before is checked and goes down, comes up and goes down again; whom updates were
    /// about meanwhile.
    async fn heard_beside(&mut self, name: &str) -> Vec<ServerKey> {
        let port = Port::new();
        let mut server = config(&[(name, 1, 1)]).backends["web"].servers[name].clone();
        server.addr = ServerAddr::new(port.addr);
        self.backend().servers.insert(server.name.clone(), server);
        self.backend().health_check = check(InitialState::Check);
        self.apply();
        self.heard.clear();
        self.until(name, ServerState::Down).await;
        let alive = port.listen();
        self.until(name, ServerState::Up).await;
        drop(alive);
        self.until(name, ServerState::Down).await;
        self.heard.dedup();
        std::mem::take(&mut self.heard)
    }
}

fn take(health: &mut HashMap<ServerKey, Health>, known: Known) {
    for (key, known) in known {
        match known {
            Some(known) => health.insert(key, known),
            None => health.remove(&key),
        };
    }
}

fn key(server: &str) -> ServerKey {
    ServerKey {
        backend: BackendName::new("web").unwrap(),
        server: ServerName::new(server).unwrap(),
    }
}

fn check(initial: InitialState) -> Option<HealthCheck> {
    Some(HealthCheck {
        check: Check::Tcp,
        port: None,
        source_addr: None,
        tls: None,
        interval: Duration::from_millis(20),
        timeout: Duration::from_secs(2),
        rise: NonZeroU32::new(2).unwrap(),
        fall: NonZeroU32::new(3).unwrap(),
        fast_interval: Duration::from_millis(10),
        send_proxy: false,
        share: false,
        initial,
    })
}

/// A port of our own at which a server may listen or not; nobody else gets it meanwhile.
struct Port {
    _reserved: Socket,
    addr: SocketAddr,
}

impl Port {
    fn new() -> Self {
        let reserved = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        reserved.set_reuse_address(true).unwrap();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        reserved.bind(&any.into()).unwrap();
        let addr = reserved.local_addr().unwrap().as_socket().unwrap();
        Self {
            _reserved: reserved,
            addr,
        }
    }

    fn listen(&self) -> TcpListener {
        TcpListener::bind(self.addr).unwrap()
    }
}

#[tokio::test]
async fn a_killed_server_goes_down_and_comes_back_when_it_listens_again() {
    let port = Port::new();
    let alive = port.listen();
    let mut site = Site::new(&[port.addr], &check(InitialState::Check));
    assert_eq!(site.state("s1"), Some(ServerState::Checking));
    site.until("s1", ServerState::Up).await;

    drop(alive);
    let down = site.until("s1", ServerState::Down).await;
    assert!(
        down.health
            .reason
            .is_some_and(|r| r.starts_with("connection refused"))
    );
    assert_eq!(down.addr, ServerAddr::new(port.addr));

    let _alive = port.listen();
    let up = site.until("s1", ServerState::Up).await;
    assert_eq!(up.health.ramp_from, Some(up.health.since), "a slow start begins");
}

#[tokio::test]
async fn each_initial_state_is_what_it_says_before_the_first_check() {
    let port = Port::new();
    let _alive = port.listen();
    for (initial, state) in [
        (InitialState::Up, ServerState::Up),
        (InitialState::Down, ServerState::Down),
        (InitialState::Check, ServerState::Checking),
    ] {
        let mut site = Site::new(&[port.addr], &check(initial));
        assert_eq!(site.state("s1"), Some(state));
        if state != ServerState::Up {
            site.until("s1", ServerState::Up).await;
        }
    }
}

#[tokio::test]
async fn the_first_round_is_over_when_every_server_has_a_result() {
    let port = Port::new();
    let _alive = port.listen();
    let dead = Port::new();
    let mut site = Site::new(&[port.addr, dead.addr, dead.addr], &check(InitialState::Check));
    timeout(PATIENCE, site.checker.first_round()).await.unwrap();
    let mut states = HashMap::new();
    while let Ok(update) = site.updates.try_recv() {
        states.insert(update.key.server.to_string(), update.health.state.label());
    }
    let wanted = [("s1", "up"), ("s2", "down"), ("s3", "down")];
    assert_eq!(
        states,
        wanted.map(|(name, state)| (name.to_owned(), state)).into()
    );
}

#[tokio::test]
async fn the_first_round_without_checks_is_over_at_once() {
    let dead = Port::new();
    let site = Site::new(&[dead.addr], &None);
    timeout(PATIENCE, site.checker.first_round()).await.unwrap();
}

#[tokio::test]
async fn an_update_tells_which_address_was_checked() {
    let port = Port::new();
    let _alive = port.listen();
    let dead = Port::new();
    let mut site = Site::new(&[dead.addr], &check(InitialState::Check));
    let stale = site.until("s1", ServerState::Down).await;
    let server = ServerName::new("s1").unwrap();
    site.backend().servers.get_mut(&server).unwrap().addr = ServerAddr::new(port.addr);
    site.apply();
    assert_eq!(
        site.state("s1"),
        Some(ServerState::Checking),
        "another address is another server"
    );
    let fresh = site.until("s1", ServerState::Up).await;
    assert!(site.checker.is_current(&fresh) && !site.checker.is_current(&stale));
    assert_eq!(fresh.addr, ServerAddr::new(port.addr));
}

#[tokio::test]
async fn a_reload_keeps_states_even_if_the_check_changes() {
    let port = Port::new();
    let _alive = port.listen();
    let dead = Port::new();
    let mut site = Site::new(&[port.addr, dead.addr], &check(InitialState::Check));
    site.until("s2", ServerState::Down).await;
    site.backend().health_check.as_mut().unwrap().interval = Duration::from_millis(30);
    let before = site.health.clone();
    for _ in 0..50 {
        site.apply();
    }
    assert_eq!(site.health, before);
}

#[tokio::test]
async fn many_reloads_in_a_row_do_not_put_checks_off() {
    let port = Port::new();
    let alive = port.listen();
    let mut site = Site::new(&[port.addr], &check(InitialState::Up));
    site.backend().health_check.as_mut().unwrap().fast_interval = Duration::from_millis(50);
    site.backend().health_check.as_mut().unwrap().interval = Duration::from_millis(50);
    drop(alive);
    let deadline = Instant::now() + PATIENCE;
    let mut is_down = false;
    // each reload changes the check and comes sooner than the next check would
    for turn in 0_u64.. {
        if is_down || Instant::now() > deadline {
            break;
        }
        site.backend().health_check.as_mut().unwrap().timeout = Duration::from_secs(1 + turn % 2);
        site.apply();
        tokio::time::sleep(Duration::from_millis(5)).await;
        while let Ok(update) = site.updates.try_recv() {
            is_down |= update.health.state == ServerState::Down;
        }
    }
    assert!(is_down);
}

#[tokio::test]
async fn a_server_in_maintenance_is_not_checked() {
    let port = Port::new();
    let alive = port.listen();
    let mut site = Site::new(&[port.addr], &check(InitialState::Check));
    site.until("s1", ServerState::Up).await;
    site.admin("s1", Some(AdminState::Maintenance));
    assert_eq!(site.state("s1"), None);
    drop(alive);
    assert_eq!(site.heard_beside("s2").await, [key("s2")], "a check went on");

    let _alive = port.listen();
    site.admin("s1", None);
    assert_eq!(site.state("s1"), Some(ServerState::Checking));
    let up = site.until("s1", ServerState::Up).await;
    assert!(
        up.health.ramp_from.is_some(),
        "it comes back, so its slow start applies"
    );
}

#[tokio::test]
async fn what_an_agent_has_said_outlives_its_servers_maintenance() {
    let (port, agent) = (Port::new(), Port::new());
    let _alive = port.listen();
    let listener = agent.listen();
    // says it once, and is gone
    let agent_ends = std::thread::spawn(move || {
        let (mut asked, _) = listener.accept().unwrap();
        asked.write_all(b"drain 50%\n").unwrap();
    });
    let mut site = Site::new(&[port.addr], &check(InitialState::Check));
    let agent_at = |port: u16| {
        Some(AgentCheck {
            port: NonZeroU16::new(port).unwrap(),
            send: None,
            interval: Duration::from_millis(200),
            timeout: Duration::from_secs(1),
        })
    };
    site.backend().agent_check = agent_at(agent.addr.port());
    site.apply();
    let says = |site: &Site| site.health.get(&key("s1")).map(|health| health.agent.clone());
    let drains = |site: &Site| says(site).is_some_and(|says| says.admin == Some(AdminState::Draining));
    let heard = async {
        while !drains(&site) {
            let update = site.updates.recv().await.unwrap();
            site.health.insert(update.key, update.health);
        }
    };
    timeout(PATIENCE, heard).await.unwrap();
    agent_ends.join().unwrap();

    site.admin("s1", Some(AdminState::Maintenance));
    assert_eq!(says(&site), None);
    site.admin("s1", None);
    assert!(drains(&site));
    site.until("s1", ServerState::Up).await;
    assert!(drains(&site), "the checks say nothing of that");
    assert_eq!(says(&site).unwrap().weight_percent, Some(50));

    // another agent has said nothing yet
    site.admin("s1", Some(AdminState::Maintenance));
    site.backend().agent_check = agent_at(port.addr.port());
    site.admin("s1", None);
    assert!(!drains(&site));
}

#[tokio::test]
async fn a_draining_server_is_checked_further() {
    let port = Port::new();
    let alive = port.listen();
    let mut site = Site::new(&[port.addr], &check(InitialState::Check));
    site.until("s1", ServerState::Up).await;
    site.admin("s1", Some(AdminState::Draining));
    drop(alive);
    site.until("s1", ServerState::Down).await;
}

#[tokio::test]
async fn a_removed_servers_health_is_forgotten_and_its_checks_end() {
    let port = Port::new();
    let _alive = port.listen();
    let dead = Port::new();
    let mut site = Site::new(&[port.addr, dead.addr], &check(InitialState::Check));
    site.until("s2", ServerState::Down).await;
    site.backend().servers.clear();
    site.apply();
    assert!(site.health.is_empty());
    tokio::task::yield_now().await;
    while site.updates.try_recv().is_ok() {}
    assert_eq!(site.heard_beside("s3").await, [key("s3")]);
}

#[tokio::test]
async fn without_checks_failing_connects_take_a_server_out_for_the_ejection_time() {
    let dead = Port::new();
    let mut site = Site::new(&[dead.addr], &None);
    let ejection_time = Duration::from_millis(80);
    site.backend().passive_check = Some(PassiveCheck {
        max_failures: NonZeroU32::new(3).unwrap(),
        ejection_time,
        max_ejection_time: PATIENCE,
    });
    site.apply();
    assert_eq!(
        site.state("s1"),
        Some(ServerState::Up),
        "nothing checks it, so it is up"
    );
    site.checker.passive_failure(&key("s1"), None);
    let down = site.until("s1", ServerState::Down).await;
    assert_eq!(
        down.health.reason.as_deref(),
        Some("3 consecutive connection failures; ejected for 80ms")
    );
    let up = site.until("s1", ServerState::Up).await;
    assert!(up.health.since - down.health.since >= ejection_time);
}

#[tokio::test]
async fn a_connect_failure_of_an_unknown_server_is_ignored() {
    let dead = Port::new();
    let mut site = Site::new(&[dead.addr], &None);
    site.checker.passive_failure(&key("s4"), None);
    // there is no passive check
    site.checker.passive_failure(&key("s1"), None);
    tokio::task::yield_now().await;
    site.backend().passive_check = Some(PassiveCheck {
        max_failures: NonZeroU32::new(3).unwrap(),
        ejection_time: PATIENCE,
        max_ejection_time: PATIENCE,
    });
    site.apply();
    let later = Instant::now();
    site.checker.passive_failure(&key("s1"), None);
    let down = site.until("s1", ServerState::Down).await;
    assert!(down.health.since >= later && site.heard == [key("s1")]);
}

#[tokio::test]
async fn the_first_round_of_many_servers_ends_even_with_a_small_channel() {
    let names: Vec<String> = (0..250).map(|i| format!("s{i}")).collect();
    let servers: Vec<_> = names.iter().map(|name| (name.as_str(), 1, 1)).collect();
    let mut config = config(&servers);
    let dead = Port::new();
    for backend in config.backends.values_mut().map(Arc::make_mut) {
        backend.health_check = check(InitialState::Check);
        for server in backend.servers.values_mut() {
            server.addr = ServerAddr::new(dead.addr);
        }
    }
    let (tx, mut updates) = mpsc::channel(8);
    let mut checker = Checker::new(tx);
    let pools = Pools::of(&config);
    let mut health = HashMap::new();
    take(
        &mut health,
        checker.apply(&pools, config.backends.keys(), Trial::default()),
    );
    let receive = async {
        while let Some(update) = updates.recv().await {
            health.insert(update.key, update.health);
        }
    };
    tokio::select! {
        () = checker.first_round() => {}
        () = receive => unreachable!("the checker lives"),
        () = tokio::time::sleep(PATIENCE) => panic!("no end of the first round"),
    }
    while let Ok(update) = updates.try_recv() {
        health.insert(update.key, update.health);
    }
    let is_down = |name: &str| health[&key(name)].state == ServerState::Down;
    assert!(names.iter().all(|name| is_down(name)));
}
