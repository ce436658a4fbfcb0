//! Servers that the file does not name one by one: the policy is a bound.

use super::*;

/// A passthrough and a DSR frontend whose servers are discovered, beside those of [`PACKETS`].
fn discovering(more: &str) -> String {
    format!(
        "{PACKETS}\n[backends.web.discovery]\nkind = \"file\"\npath = \"/w\"\nmax_servers = 3\n{more}\n\
         [backends.named.discovery]\nkind = \"file\"\npath = \"/n\"\n"
    )
}

/// `web` with its configured servers and these.
fn web(policy: &Policy, servers: &[&str]) -> PacketService {
    let mut web = policy
        .configured
        .iter()
        .find(|s| s.vip.first().port() == 80)
        .unwrap()
        .clone();
    web.servers
        .extend(servers.iter().map(|addr| addr.parse::<IpServerAddr>().unwrap()));
    web.servers.sort_unstable();
    web
}

#[test]
fn a_backend_with_discovery_may_have_any_servers_within_its_bound_and_others_only_their_own() {
    let policy = policy_of(&discovering(""));
    let host: BTreeSet<IpAddr> = ["10.0.0.254".parse().unwrap()].into();
    let may = |servers: &[&str]| policy.may_serve(&[web(&policy, servers)], &host);
    may(&["10.1.0.9:80", "203.0.113.7:8080"]).unwrap();
    for odd in [
        "127.0.0.1:80",
        "224.0.0.1:80",
        "0.0.0.0:80",
        "169.254.0.1:80",
        "10.0.0.254:80",
        "10.0.0.1:8080",
        "[2001:db8::1]:80",
    ] {
        let refused = may(&["10.1.0.9:80", odd]).unwrap_err();
        assert!(refused.contains(odd), "{refused}");
    }
    let exact = policy_of(PACKETS);
    assert!(exact.may_serve(&[web(&exact, &["10.1.0.9:80"])], &host).is_err());
    assert!(!exact.has_bounds() && policy.has_bounds());

    let within = policy_of(&discovering("servers_within = \"10.1.0.0/16\""));
    within
        .may_serve(&[web(&within, &["10.1.0.9:80"])], &host)
        .unwrap();
    assert!(
        within
            .may_serve(&[web(&within, &["10.2.0.9:80"])], &host)
            .is_err()
    );
}

#[test]
fn discovered_servers_of_dsr_have_the_frontends_port_and_nobody_moves_the_vip() {
    let policy = policy_of(&discovering(""));
    let named = policy
        .configured
        .iter()
        .find(|s| s.vip.first().port() == 53)
        .unwrap();
    let may = |server: &str| {
        let mut named = named.clone();
        named.servers.push(server.parse().unwrap());
        policy.may_serve(&[named], &BTreeSet::new())
    };
    may("10.2.0.9:53").unwrap();
    assert!(may("10.2.0.9:54").is_err());
    let mut moved = web(&policy, &["10.1.0.9:80"]);
    moved.nat_ports = None;
    assert!(
        policy.may_serve(&[moved], &BTreeSet::new()).is_err(),
        "another mode"
    );
}

#[test]
fn discovered_servers_are_at_most_twice_as_many_for_their_flows_outlive_them() {
    let policy = policy_of(&discovering(""));
    let some = [
        "10.1.1.1:80",
        "10.1.1.2:80",
        "10.1.1.3:80",
        "10.1.1.4:80",
        "10.1.1.5:80",
        "10.1.1.6:80",
        "10.1.1.7:80",
    ];
    policy
        .may_serve(&[web(&policy, &some[..6])], &BTreeSet::new())
        .unwrap();
    let refused = policy
        .may_serve(&[web(&policy, &some)], &BTreeSet::new())
        .unwrap_err();
    assert!(refused.contains("max_servers"), "{refused}");
}

#[test]
fn discovered_servers_go_on_when_a_reload_takes_discovery_away_and_new_ones_do_not_come() {
    let mut policy = policy_of(&discovering(""));
    let found = web(&policy, &["10.1.0.9:80"]);
    policy
        .may_serve(std::slice::from_ref(&found), &BTreeSet::new())
        .unwrap();
    policy.served(vec![found.clone()]);
    policy.adopt(load(PACKETS));
    policy.may_serve(&[found], &BTreeSet::new()).unwrap();
    assert!(
        policy
            .may_serve(&[web(&policy, &["10.1.0.8:80"])], &BTreeSet::new())
            .is_err()
    );
}

#[test]
fn a_discovered_passthrough_server_opens_the_interface_by_which_it_is_reached() {
    let mut policy = policy_of(&discovering(""));
    assert!(open(&policy, "eth3", "10.9.0.1", "10.1.7.").is_err());
    let found = web(&policy, &["10.1.7.9:80"]);
    policy.served(vec![found]);
    open(&policy, "eth3", "10.9.0.1", "10.1.7.").unwrap();
}
