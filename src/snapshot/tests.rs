//! What operators rely on when states, weights and configurations change.

use std::{collections::BTreeSet, num::NonZeroU32, time::Duration};

use super::{
    testing::{backend_mut, config, frontend_mut},
    *,
};
use crate::{
    balance::{HashKey, Pick, PickState},
    base::{Endpoint, Protocol},
    config::{Algorithm, Check, Config, HashSeed, Mode, Server},
    pools::{AdminState, Pools},
};

/// A site with one backend, its circumstances, and the snapshots made of them.
struct Site {
    config: Config,
    pools: Pools,
    builder: Builder,
    start: Instant,
    seconds: f64,
}

impl Site {
    /// A backend `web` without health checks; each server's name, priority and weight.
    fn new(servers: &[(&str, u16, u16)]) -> Self {
        Self {
            config: config(servers),
            pools: Pools::default(),
            builder: Builder::new(2, Arc::default()),
            start: Instant::now(),
            seconds: 0.0,
        }
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_secs_f64(self.seconds)
    }

    fn backend(&mut self) -> &mut config::Backend {
        backend_mut(&mut self.config)
    }

    fn server(&mut self, name: &str) -> &mut Server {
        self.backend().servers.get_mut(name).unwrap()
    }

    fn health(&mut self, name: &str, state: ServerState) {
        let since = self.now();
        let health = Health {
            ramp_from: (state == ServerState::Up).then_some(since),
            reason: (state == ServerState::Down).then(|| "connection refused".into()),
            ..Health::new(state, since)
        };
        self.builder.set_health(&key(name), Some(health));
    }

    /// Down by failing connects of real traffic alone.
    fn eject(&mut self, name: &str) {
        self.health(name, ServerState::Down);
        let health = self.builder.health(&key(name)).unwrap().clone();
        let ejected = Health {
            is_ejected: true,
            ..health
        };
        self.builder.set_health(&key(name), Some(ejected));
    }

    fn set(&mut self, name: &str, overridden: Override) {
        self.take_config();
        assert!(self.pools.set_override(&key(name), overridden));
        self.builder.pool_changed(&key(name).backend);
    }

    fn admin(&mut self, name: &str, admin: Option<AdminState>) {
        self.set(name, Override { admin, weight: None });
    }

    /// As a reload does.
    fn take_config(&mut self) {
        let changed = self.pools.apply(&self.config);
        self.builder.config_changed(&self.config, changed);
    }

    fn build(&mut self) -> Built {
        self.take_config();
        self.builder.build(&self.config, &self.pools, self.now())
    }

    fn view(&mut self) -> Arc<BackendView> {
        Arc::clone(&self.build().snapshot.backends["web"])
    }

    /// The names of the servers that get connections.
    fn in_use(&mut self) -> Vec<String> {
        let view = self.view();
        let used = view.servers.iter().filter(|s| s.is_eligible());
        used.map(|s| s.name.to_string()).collect()
    }
}

fn key(server: &str) -> ServerKey {
    ServerKey {
        backend: BackendName::new("web").unwrap(),
        server: ServerName::new(server).unwrap(),
    }
}

#[test]
fn a_backend_of_two_frontends_is_one() {
    let mut site = Site::new(&[("s1", 1, 1)]);
    let snapshot = site.build().snapshot;
    let backend = &snapshot.backends["web"];
    assert!(Arc::ptr_eq(&snapshot.frontends["a"].backend, backend));
    assert!(Arc::ptr_eq(&snapshot.frontends["b"].backend, backend));
}

#[test]
fn without_any_check_a_server_is_up_with_its_whole_weight() {
    let mut site = Site::new(&[("s1", 1, 3), ("s2", 1, 0)]);
    let snapshot = site.build().snapshot;
    let s1 = snapshot.server(&key("s1")).unwrap();
    assert_eq!(
        (s1.state, s1.effective_weight),
        (ServerState::Up, 3 * WEIGHT_UNIT)
    );
    assert_eq!((s1.effective_percent(), s1.max_connections), (100, Some(10)));
    let s2 = snapshot.server(&key("s2")).unwrap();
    assert_eq!(
        (s2.state, s2.effective_weight, s2.effective_percent()),
        (ServerState::Up, 0, 0)
    );
    assert_eq!(snapshot.server(&key("s3")).map(|s| &s.name), None);
    assert_eq!(snapshot.servers().count(), 2);
}

#[test]
fn a_server_without_health_yet_is_in_its_checks_initial_state() {
    let mut site = Site::new(&[("s1", 1, 1)]);
    for (initial, state) in [
        (InitialState::Up, ServerState::Up),
        (InitialState::Down, ServerState::Down),
        (InitialState::Check, ServerState::Checking),
    ] {
        site.backend().health_check = Some(config::HealthCheck {
            check: Check::Tcp,
            port: None,
            source_addr: None,
            tls: None,
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            rise: NonZeroU32::MIN,
            fall: NonZeroU32::MIN,
            fast_interval: Duration::from_secs(1),
            send_proxy: false,
            share: false,
            initial,
        });
        let server = &site.view().servers[0];
        assert_eq!(server.state, state);
        assert_eq!(server.effective_weight > 0, state == ServerState::Up);
    }
}

#[test]
fn only_the_lowest_priority_group_with_a_usable_server_is_used() {
    let mut site = Site::new(&[("a1", 1, 1), ("a2", 1, 1), ("b1", 2, 1), ("c1", 7, 1)]);
    assert_eq!(site.in_use(), ["a1", "a2"]);
    site.health("a1", ServerState::Down);
    assert_eq!(site.in_use(), ["a2"], "one of a group is enough");
    site.admin("a2", Some(AdminState::Draining));
    assert_eq!(site.in_use(), ["b1"], "the next group takes over");
    site.server("b1").weight = 0;
    assert_eq!(
        site.in_use(),
        ["c1"],
        "a group whose weights are all 0 is passed over"
    );
    site.health("a1", ServerState::Up);
    assert_eq!(site.in_use(), ["a1"], "and the first takes back");
}

#[test]
fn servers_that_are_down_checking_draining_or_in_maintenance_get_nothing() {
    let mut site = Site::new(&[
        ("s1", 1, 1),
        ("s2", 1, 1),
        ("s3", 1, 1),
        ("s4", 1, 1),
        ("s5", 1, 1),
    ]);
    site.health("s1", ServerState::Down);
    site.health("s2", ServerState::Checking);
    site.admin("s3", Some(AdminState::Draining));
    site.admin("s4", Some(AdminState::Maintenance));
    assert_eq!(site.in_use(), ["s5"]);
    let view = site.view();
    let states: Vec<_> = view.servers.iter().map(|s| s.state.label()).collect();
    assert_eq!(states, ["down", "checking", "draining", "maintenance", "up"]);
    assert_eq!(
        view.servers[0].state_reason.as_deref(),
        Some("connection refused")
    );
}

#[test]
fn an_operators_state_goes_before_health_and_ready_takes_it_back() {
    let mut site = Site::new(&[("s1", 1, 1)]);
    site.health("s1", ServerState::Up);
    site.admin("s1", Some(AdminState::Draining));
    let view = site.view();
    assert_eq!(
        (view.servers[0].state, view.servers[0].overridden.is_none()),
        (ServerState::Draining, false)
    );
    site.admin("s1", None);
    let view = site.view();
    assert_eq!(
        (view.servers[0].state, view.servers[0].overridden.is_none()),
        (ServerState::Up, true)
    );
}

#[test]
fn an_override_survives_a_change_of_the_configuration() {
    let mut site = Site::new(&[("s1", 1, 1), ("s2", 1, 1)]);
    let heavy = Override {
        admin: None,
        weight: Some(9),
    };
    site.set("s1", heavy);
    assert_eq!(site.view().servers[0].weight, 9);
    site.server("s1").weight = 4;
    site.backend().balance = Algorithm::Random;
    let view = site.view();
    assert_eq!((view.servers[0].weight, view.servers[0].overridden), (9, heavy));
    assert_eq!(
        (view.servers[0].configured_weight, view.servers[1].weight),
        (4, 1)
    );
}

#[test]
fn the_time_in_an_operators_state_counts_from_its_beginning() {
    let mut site = Site::new(&[("s1", 1, 1)]);
    site.build();
    site.seconds = 5.0;
    let drained_at = site.now();
    site.admin("s1", Some(AdminState::Draining));
    site.build();
    site.seconds = 60.0;
    assert_eq!(site.view().servers[0].state_since, Some(drained_at));
}

#[test]
fn a_slow_start_gives_the_weight_linearly_from_the_moment_of_coming_up() {
    let mut site = Site::new(&[("s1", 1, 2)]);
    site.backend().slow_start = Duration::from_secs(10);
    site.health("s1", ServerState::Up);
    let mut seen = Vec::new();
    for seconds in [0.0, 0.001, 2.5, 5.0, 9.9, 10.0, 100.0] {
        site.seconds = seconds;
        let server = &site.view().servers[0];
        seen.push((server.effective_weight, server.effective_percent()));
    }
    assert_eq!(
        seen,
        [
            (1, 1),
            (1, 1),
            (128, 25),
            (256, 50),
            (506, 98),
            (512, 100),
            (512, 100)
        ]
    );
}

#[test]
fn a_slow_start_tells_when_to_build_anew_until_it_is_over() {
    let mut site = Site::new(&[("s1", 1, 1), ("s2", 1, 1)]);
    site.backend().slow_start = Duration::from_secs(10);
    let step = |site: &mut Site| {
        site.build();
        let next = site.builder.next_ramp_step();
        next.map(|at| at.duration_since(site.now()).as_millis())
    };
    assert_eq!(step(&mut site), None);
    site.health("s1", ServerState::Up);
    assert_eq!(step(&mut site), Some(200));
    site.seconds = 9.95;
    assert_eq!(step(&mut site), Some(50), "the last step is at the end");
    site.seconds = 10.0;
    assert_eq!(step(&mut site), None);
    site.health("s1", ServerState::Up);
    site.admin("s1", Some(AdminState::Maintenance));
    assert_eq!(step(&mut site), None, "a server that gets nothing needs no steps");
}

#[test]
fn a_balancer_is_kept_while_algorithm_servers_and_weights_stay() {
    let mut site = Site::new(&[("s1", 1, 1), ("s2", 1, 1)]);
    let first = site.view();
    site.server("s1").max_connections = None;
    site.backend().retries = 7;
    let second = site.view();
    assert!(Arc::ptr_eq(&first.balancer, &second.balancer));
    assert_eq!(
        (second.balancer_generation, second.servers[0].max_connections),
        (1, None)
    );

    site.server("s1").weight = 2;
    let third = site.view();
    assert!(!Arc::ptr_eq(&first.balancer, &third.balancer));
    assert_eq!(third.balancer_generation, 3);
    site.backend().balance = Algorithm::Maglev;
    assert_eq!(site.view().balancer_generation, 4);
    site.health("s2", ServerState::Down);
    assert_eq!(site.view().balancer_generation, 5);
    assert_eq!(site.view().balancer_generation, 5);
}

#[test]
fn the_balancers_indexes_point_at_the_servers_in_the_order_of_their_names() {
    let mut site = Site::new(&[("s2", 1, 2), ("s10", 1, 10), ("s1", 1, 1)]);
    let view = site.view();
    for (server, candidate) in view.servers.iter().zip(view.balancer.candidates()) {
        assert_eq!(server.name, candidate.name);
        assert_eq!(server.effective_weight, candidate.weight);
    }
    assert_eq!(view.balancer.candidates().len(), 3);
    assert!(view.servers.is_sorted_by_key(|s| s.name.as_str()));
    assert_eq!(view.server("s10").map(|s| s.weight), Some(10));
}

#[test]
fn counters_and_slots_outlive_a_change_but_not_another_address() {
    let mut site = Site::new(&[("s1", 1, 1), ("s2", 1, 1)]);
    let first = site.view();
    site.server("s1").weight = 5;
    site.server("s2").addr = ServerAddr::new("192.0.2.99:80".parse().unwrap());
    let second = site.view();
    assert!(Arc::ptr_eq(&first.live, &second.live));
    assert!(Arc::ptr_eq(&first.servers[0].live, &second.servers[0].live));
    assert!(!Arc::ptr_eq(&first.servers[1].live, &second.servers[1].live));
}

#[test]
fn what_is_removed_goes_on_counting_while_a_connection_holds_it() {
    let mut site = Site::new(&[("s1", 1, 1), ("s2", 1, 1)]);
    let connection = Arc::clone(&site.view().servers[1].live);
    let s2 = ServerName::new("s2").unwrap();
    let removed = site.backend().servers.remove(&s2).unwrap();
    site.build();
    site.build();
    assert_eq!(Arc::strong_count(&connection), 1, "only the connection holds it");

    site.backend().servers.insert(s2.clone(), removed.clone());
    assert!(
        Arc::ptr_eq(&site.view().servers[1].live, &connection),
        "back, it goes on counting"
    );

    connection.counters.shard(crate::base::WorkerId(0)).opened.add(1);
    site.backend().servers.remove(&s2);
    drop(connection);
    site.build();
    site.backend().servers.insert(s2, removed);
    assert_eq!(
        site.view().servers[1].live.counters.totals().opened,
        0,
        "what nobody held begins anew"
    );
}

#[test]
fn a_server_that_comes_up_starts_without_failures_in_a_row() {
    let mut site = Site::new(&[("s1", 1, 1)]);
    let live = Arc::clone(&site.view().servers[0].live);
    live.failures_in_a_row
        .store(3, std::sync::atomic::Ordering::Relaxed);
    site.build();
    assert_eq!(
        live.failures_in_a_row.load(std::sync::atomic::Ordering::Relaxed),
        3
    );
    site.health("s1", ServerState::Down);
    site.build();
    site.health("s1", ServerState::Up);
    site.build();
    assert_eq!(
        live.failures_in_a_row.load(std::sync::atomic::Ordering::Relaxed),
        0
    );
}

#[tokio::test(flavor = "current_thread")]
async fn connections_that_wait_for_a_server_are_woken_by_a_new_snapshot() {
    let mut site = Site::new(&[("s1", 1, 1)]);
    let view = site.view();
    let waits = [
        view.live.server_freed.notified(),
        view.live.server_freed.notified(),
    ];
    site.config.frontends.clear();
    site.config.backends.clear();
    site.build().wake_queues();
    for wait in waits {
        wait.await;
    }
}

/// A site whose frontend `a` forwards packets.
fn packet_site(servers: &[(&str, u16, u16)]) -> Site {
    let mut site = Site::new(servers);
    frontend_mut(&mut site.config, "a").mode = Mode::Dsr;
    site
}

#[test]
fn a_datagram_frontend_on_the_same_address_takes_no_connections() {
    // frontends `a` and `b` have one address; whichever of them is the packet one, the other is proxied
    for (packets, proxied) in [("a", "b"), ("b", "a")] {
        let mut site = Site::new(&[("s", 1, 1)]);
        let frontend = frontend_mut(&mut site.config, packets);
        (frontend.mode, frontend.protocol) = (Mode::Dsr, Protocol::Udp);
        let addr = frontend.listen[0].first().0;
        let snapshot = site.build().snapshot;
        let found = snapshot.frontend_at(Endpoint::tcp(addr).into()).unwrap();
        assert_eq!(found.config.name.as_str(), proxied);
        assert!(snapshot.frontend_at(Endpoint::udp(addr).into()).is_none());
    }
}

#[test]
fn a_lender_lends_choosers_and_no_counters() {
    let mut lender = packet_site(&[("s1", 1, 1)]);
    let lent = lender.build().snapshot;
    let mut site = packet_site(&[("s1", 1, 1)]);
    site.builder = Builder::new(2, Arc::clone(&lent));
    let (view, before) = (site.view(), &lent.backends["web"]);
    let table = |view: &BackendView| Arc::clone(view.maglev.as_ref().unwrap());
    assert!(Arc::ptr_eq(&table(&view), &table(before)));
    assert!(!Arc::ptr_eq(&view.live, &before.live));
    assert!(!Arc::ptr_eq(&view.servers[0].live, &before.servers[0].live));
}

mod discovered;
mod eligible;
mod maglev;
mod random;
mod routes;
