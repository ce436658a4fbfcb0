//! Files of Convey 0.3.5.

use convey::{
    base::PortRanges,
    config::{Mode, Options},
};

use crate::{
    machine::Machine,
    packets::{MANY, assert_direct},
    site::{Site, assert_shares},
    tests,
};

/// Tests of `convey-0.3.5.toml`.
pub const PLAIN: &[crate::Test] = tests![servers_of_this_host_are_chosen_by_weight_and_counted];

/// Tests of `convey-0.3.5-pools.toml`.
pub const POOLS: &[crate::Test] = tests![each_port_has_its_pool_and_weight_0_gets_nothing];

/// Tests of `convey-0.3.5-packets.toml`.
pub const PACKETS: &[crate::Test] = tests![
    without_a_flag_it_is_a_proxy,
    with_p_it_is_passthrough,
    with_d_it_is_dsr,
];

/// The load balancer of the last file, as it calls itself.
const LISTEN: &str = "192.168.1.197:3000";

/// Its servers and weights.
const SERVERS: &[(&str, usize)] = &[("server1", 10), ("server2", 20)];

fn servers_of_this_host_are_chosen_by_weight_and_counted() {
    let site = Site::new("convey-0.3.5.toml", &[], Options::default());
    let _convey = site.convey();
    let addr = site.lb.host().addr(8080).to_string();
    assert_shares(&site.shares(&addr, 60), SERVERS);
    expect_stats(&site.lb, 3000, "tcp_8080");
    let output = site.client.try_run(&format!(
        "curl --silent --max-time 60 http://{}/stats",
        site.lb.host().addr(3000)
    ));
    assert_eq!(
        output.status.code(),
        Some(7),
        "others cannot read them, as `convey check` warns"
    );
}

fn each_port_has_its_pool_and_weight_0_gets_nothing() {
    let site = Site::new(
        "convey-0.3.5-pools.toml",
        &["192.168.1.2/24", "fd00::2/64"],
        Options::default(),
    );
    let _convey = site.convey();
    let lb = site.lb.host();
    assert_eq!(
        site.shares(&lb.addr(8080).to_string(), 20),
        [("web1".to_owned(), 20)].into()
    );
    for addr in [lb.addr6(8081), lb.addr(8081)] {
        assert_shares(&site.shares(&addr.to_string(), 60), &[("api1", 1), ("api2", 2)]);
    }
    expect_stats(&site.lb, 7000, "web");
}

fn without_a_flag_it_is_a_proxy() {
    let site = packets(None);
    let _convey = site.convey();
    assert_shares(&site.shares(LISTEN, 60), SERVERS);
    assert_eq!(site.lb.status().frontends["tcp_3000"].mode, Mode::Proxy);
    expect_stats(&site.lb, 3000, "tcp_3000");
}

fn with_p_it_is_passthrough() {
    let site = packets(Some(Mode::Passthrough));
    let _convey = site.lb.convey("-p");
    assert_shares(&site.shares(LISTEN, MANY), SERVERS);
    let seen = site.meet(LISTEN).seen;
    assert_eq!(seen.ip().to_string(), "192.168.1.197");
    assert!(PortRanges::STOCK.contains(seen.port()), "from a NAT port: {seen}");
}

fn with_d_it_is_dsr() {
    let site = packets(Some(Mode::Dsr));
    site.set_up_servers("tcp_3000", "-d", "");
    let _convey = site.lb.convey("-d");
    assert_shares(&site.shares(LISTEN, MANY), SERVERS);
    assert_direct(&site.meet(LISTEN));
}

fn packets(default_mode: Option<Mode>) -> Site {
    Site::new(
        "convey-0.3.5-packets.toml",
        &["192.168.1.197/24"],
        Options {
            default_mode,
            ..Options::default()
        },
    )
}

/// The counters of 0.3.5 are served on this host, and know the frontend.
#[track_caller]
pub fn expect_stats(lb: &Machine, port: u16, frontend: &str) {
    let text = lb.run(&format!(
        "curl --silent --fail --max-time 60 http://127.0.0.1:{port}/stats"
    ));
    let stats: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert!(text.contains(frontend) && stats.is_object(), "{text}");
}
