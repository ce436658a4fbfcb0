//! `full.toml`: every key, and frontends as people have them.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use convey::{base::ServerState, config::Options};

use crate::{
    classic::expect_stats,
    packets::{MANY, assert_direct},
    site::{Site, assert_shares},
    tests,
};

/// Tests of this module.
pub const TESTS: &[crate::Test] = tests![
    web_and_mail_are_proxied_and_the_log_is_json,
    the_database_is_one_server_at_a_time,
    queries_leave_from_the_nat_addresses_and_files_come_directly,
];

fn site() -> Site {
    let site = Site::new(
        "full.toml",
        &[
            "10.0.0.2/24",
            "10.0.0.3/24",
            "203.0.113.2/24",
            "203.0.113.3/24",
            "2001:db8::2/64",
        ],
        Options::default(),
    );
    site.lb
        .write("/etc/convey/balancers.list", "# the pair's other one\n10.0.0.5\n");
    site.lb
        .write("/etc/convey/blocked.list", "# nobody here\n198.51.100.0/24\n");
    site
}

fn web_and_mail_are_proxied_and_the_log_is_json() {
    let site = site();
    let convey = site.convey();
    assert_shares(&site.shares("203.0.113.10:80", 60), &[("web1", 3), ("web2", 1)]);
    // one client comes to one server, by its address
    for addr in ["203.0.113.10:443", "[2001:db8::10]:443"] {
        assert_eq!(site.shares(addr, 10).len(), 1);
    }
    let lb: IpAddr = [10, 0, 0, 2].into();
    assert_eq!(site.meet("203.0.113.10:443").seen.ip(), lb, "source_addr");
    // the server's greeting comes first
    assert_eq!(site.shares("203.0.113.10:25", 40).len(), 2);
    expect_stats(&site.lb, 7000, "smtp");
    for line in convey.log().lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
}

fn the_database_is_one_server_at_a_time() {
    let mut site = site();
    let _convey = site.convey();
    let witness = site.meet("10.0.0.2:5432");
    assert_eq!(
        (witness.server.as_str(), witness.seen.ip()),
        ("db1", [10, 0, 0, 3].into())
    );
    assert_eq!(site.shares("10.0.0.2:5432", 10), [("db1".to_owned(), 10)].into());
    site.stop("database", "db1");
    site.lb.wait_status("db1 is down", |status| {
        status.backends["database"].servers["db1"].state == ServerState::Down
    });
    assert_eq!(site.shares("10.0.0.2:5432", 10), [("db2".to_owned(), 10)].into());
}

fn queries_leave_from_the_nat_addresses_and_files_come_directly() {
    let site = site();
    for server in ["10.0.0.41", "10.0.0.42"] {
        let ip: IpAddr = server.parse().expect("an address");
        site.servers[&ip].run("ip route add 203.0.113.2/31 dev eth0");
    }
    site.set_up_servers("files", "", "");
    let _convey = site.convey();
    let mut asked = [0, 0];
    // 133 of 200 expected, and five standard deviations more than half
    for _ in 0..200 {
        let (server, _) = site.ask("203.0.113.11:53");
        asked[usize::from(server == "ns2")] += 1;
    }
    assert!(
        asked[0] > asked[1] && asked[1] > 0,
        "ns1 has weight 2, ns2 has 1: {asked:?}"
    );
    let senders: BTreeSet<IpAddr> = site.udp_senders().iter().map(SocketAddr::ip).collect();
    assert_eq!(senders, [2, 3].map(|last| [203, 0, 113, last].into()).into());
    assert_shares(
        &site.shares("203.0.113.20:80", MANY),
        &[("files1", 1), ("files2", 1)],
    );
    assert_direct(&site.meet("203.0.113.20:80"));
}
