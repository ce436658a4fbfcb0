//! `proxy.toml`.

use std::net::IpAddr;

use convey::{base::ServerState, config::Options};

use crate::{
    lab::PATIENCE,
    site::{Site, keep_trying},
    tests,
};

/// Tests of this module.
pub const TESTS: &[crate::Test] = tests![
    web1_gets_twice_the_share_over_ipv4_and_ipv6,
    the_spare_serves_only_when_both_others_are_down,
];

const OWN: &[&str] = &["10.0.0.2/24"];

fn site() -> Site {
    Site::new("proxy.toml", OWN, Options::default())
}

fn web1_gets_twice_the_share_over_ipv4_and_ipv6() {
    let site = site();
    let _convey = site.convey();
    let lb = site.lb.host();
    for addr in [lb.addr(80), lb.addr6(80)] {
        // the ones before have ended, or they would count
        site.lb.wait_status("nothing is open", |status| {
            status.backends["web"].traffic.connections_current == 0
        });
        let shares = site.shares(&addr.to_string(), 30);
        assert_eq!(
            shares,
            [("web1".to_owned(), 20), ("web2".to_owned(), 10)].into(),
            "by least connections"
        );
    }
    let own: IpAddr = [10, 0, 0, 2].into();
    assert_eq!(
        site.meet(&lb.addr(80).to_string()).seen.ip(),
        own,
        "servers see the load balancer"
    );
}

fn the_spare_serves_only_when_both_others_are_down() {
    let mut site = site();
    let _convey = site.convey();
    let addr = site.lb.host().addr(80).to_string();
    site.stop("web", "web1");
    site.lb.wait_status("web1 is down", |status| {
        status.backends["web"].servers["web1"].state == ServerState::Down
    });
    assert_eq!(site.shares(&addr, 5), [("web2".to_owned(), 5)].into());
    site.stop("web", "web2");
    let spare = keep_trying(&site.client, &addr, PATIENCE);
    assert_eq!(spare.server, "spare");
    site.start("web", "web1");
    site.lb.wait_status("web1 is up", |status| {
        status.backends["web"].servers["web1"].state == ServerState::Up
    });
    assert_eq!(site.shares(&addr, 5), [("web1".to_owned(), 5)].into());
}
