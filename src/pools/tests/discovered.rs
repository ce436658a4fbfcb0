//! What operators rely on when servers come by themselves.

use super::*;

const DISCOVERING: &str = r#"
    [frontends.web]
    listen_addr = "192.0.2.100:80"
    backend = "web"
    [backends.web]
    servers.a = { addr = "10.0.0.1:80", weight = 3 }
    discovery = { kind = "file", path = "/w", max_servers = 3 }
"#;

fn web() -> BackendName {
    BackendName::new("web").unwrap()
}

/// Servers by `name address`, sorted by name.
fn found(servers: &[(&str, &str)]) -> Arc<[config::Server]> {
    let server = |(name, addr): &(&str, &str)| config::Server {
        name: ServerName::new(name).unwrap(),
        addr: addr.parse().unwrap(),
        weight: 1,
        priority: 1,
        max_connections: None,
        sni: Vec::new(),
        check_addr: None,
    };
    servers.iter().map(server).collect()
}

fn pool(pools: &Pools) -> Vec<String> {
    let servers = pools.get("web").unwrap().servers().iter();
    servers
        .map(|s| format!("{} {} {}", s.name, s.addr, s.is_discovered))
        .collect()
}

#[test]
fn a_server_of_the_file_goes_before_a_discovered_one_of_its_name_or_address() {
    let config = load(DISCOVERING);
    let mut pools = Pools::of(&config);
    let answer = found(&[("a", "10.0.0.7:80"), ("b", "10.0.0.1:80"), ("c", "10.0.0.3:80")]);
    assert!(pools.discover(&config, &web(), answer));
    assert_eq!(pool(&pools), ["a 10.0.0.1:80 false", "c 10.0.0.3:80 true"]);
    assert_eq!(pools.get("web").unwrap().server("a").unwrap().weight(), 3);
}

#[test]
fn the_same_answer_again_changes_nothing_and_a_backend_without_discovery_takes_none() {
    let config = load(DISCOVERING);
    let mut pools = Pools::of(&config);
    let one = || found(&[("b", "10.0.0.2:80")]);
    assert!(pools.discover(&config, &web(), one()));
    let before = Arc::clone(pools.get("web").unwrap());
    assert!(!pools.discover(&config, &web(), one()));
    assert!(Arc::ptr_eq(&before, pools.get("web").unwrap()));
    assert!(pools.discover(&config, &web(), found(&[])));

    let without = load(SITE);
    let mut pools = Pools::of(&without);
    assert!(!pools.discover(&without, &web(), one()));
    assert!(!pools.discover(&without, &BackendName::new("other").unwrap(), one()));
}

#[test]
fn discovered_servers_stay_through_a_reload_and_go_with_their_section() {
    let config = load(DISCOVERING);
    let mut pools = Pools::of(&config);
    pools.discover(&config, &web(), found(&[("b", "10.0.0.2:80")]));
    let heavier = load(&DISCOVERING.replace("weight = 3", "weight = 4"));
    assert_eq!(names(&pools.apply(&heavier)), ["web"]);
    assert_eq!(pool(&pools), ["a 10.0.0.1:80 false", "b 10.0.0.2:80 true"]);
    let other_source = load(&DISCOVERING.replace("/w", "/v"));
    pools.apply(&other_source);
    assert_eq!(pool(&pools).len(), 2, "until the new source has answered");
    let without = load(&DISCOVERING.replace("discovery = ", "# "));
    assert_eq!(names(&pools.apply(&without)), ["web"]);
    assert_eq!(pool(&pools), ["a 10.0.0.1:80 false"]);
    pools.apply(&config);
    assert_eq!(pool(&pools), ["a 10.0.0.1:80 false"]);
}

#[test]
fn a_reload_lets_in_no_discovered_server_that_its_frontends_cannot_use_and_not_more_than_wanted() {
    let config = load(DISCOVERING);
    let mut pools = Pools::of(&config);
    let answer = found(&[("b", "10.0.0.2:80"), ("c", "10.0.0.3:8080")]);
    pools.discover(&config, &web(), answer);
    let mut dsr = load(&DISCOVERING.replace("backend = \"web\"", "backend = \"web\"\nmode = \"dsr\""));
    dsr.keep(&config);
    assert_eq!(names(&pools.apply(&dsr)), ["web"]);
    assert_eq!(pool(&pools), ["a 10.0.0.1:80 false", "b 10.0.0.2:80 true"]);
    pools.apply(&config);
    assert_eq!(pool(&pools).len(), 3, "it is let in again");
    let fewer = load(&DISCOVERING.replace("max_servers = 3", "max_servers = 1"));
    pools.apply(&fewer);
    assert_eq!(pool(&pools), ["a 10.0.0.1:80 false", "b 10.0.0.2:80 true"]);
}

#[test]
fn an_override_of_a_discovered_server_waits_for_it_to_come_back() {
    let config = load(DISCOVERING);
    let mut pools = Pools::of(&config);
    let both = || found(&[("b", "10.0.0.2:80"), ("c", "10.0.0.3:80")]);
    pools.discover(&config, &web(), both());
    pools.set_override(&key("web", "b"), DRAINING);
    pools.discover(&config, &web(), found(&[("c", "10.0.0.3:80")]));
    let saved = Saved::default().follow(&pools, 7);
    assert!(saved.has(&key("web", "b")), "over a restart too");
    pools.discover(&config, &web(), both());
    let overridden = |pools: &Pools| pools.get("web").unwrap().server("b").unwrap().overridden;
    assert_eq!(overridden(&pools), DRAINING);
    pools.set_override(&key("web", "b"), Override::default());
    pools.discover(&config, &web(), found(&[]));
    pools.discover(&config, &web(), both());
    assert!(overridden(&pools).is_none(), "it was cleared");

    let mut restarted = Pools::of(&config);
    saved.restore(&mut restarted);
    assert_eq!(pool(&restarted).len(), 1);
    restarted.discover(&config, &web(), both());
    assert_eq!(overridden(&restarted), DRAINING);
}

#[test]
fn overrides_of_servers_that_never_come_back_are_bounded() {
    let config = load(&DISCOVERING.replace("max_servers = 3", "max_servers = 10000"));
    let mut pools = Pools::of(&config);
    for number in 0..1_500 {
        let name = format!("s{number}");
        pools.discover(&config, &web(), found(&[(&name, "10.0.0.2:80")]));
        pools.set_override(&key("web", &name), DRAINING);
    }
    pools.discover(&config, &web(), found(&[]));
    assert_eq!(pools.absent().count(), 1_000);
    pools.discover(&config, &web(), found(&[("s1499", "10.0.0.2:80")]));
    assert_eq!(
        pools.get("web").unwrap().server("s1499").unwrap().overridden,
        DRAINING
    );
    pools.discover(&config, &web(), found(&[("s0", "10.0.0.2:80")]));
    assert!(
        pools
            .get("web")
            .unwrap()
            .server("s0")
            .unwrap()
            .overridden
            .is_none()
    );
}

#[test]
fn packet_services_have_the_discovered_servers() {
    let config = load(&DISCOVERING.replace("backend = \"web\"", "backend = \"web\"\nmode = \"passthrough\""));
    let mut pools = Pools::of(&config);
    pools.discover(
        &config,
        &web(),
        found(&[("b", "10.0.0.2:80"), ("six", "[2001:db8::1]:80")]),
    );
    let services = pools.packet_services(&config);
    let servers: Vec<_> = services[0].servers.iter().map(ToString::to_string).collect();
    assert_eq!(
        servers,
        ["10.0.0.1:80", "10.0.0.2:80"],
        "of the family of the VIP"
    );
}
