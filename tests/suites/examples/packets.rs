//! `passthrough.toml`, `dsr.toml` and `mixed.toml`.

use std::{collections::BTreeSet, net::IpAddr};

use convey::config::{Mode, Options};

use crate::{
    lab::servers::Witness,
    site::{Site, assert_shares},
    tests,
};

/// Tests of `passthrough.toml`.
pub const PASSTHROUGH: &[crate::Test] = tests![
    connections_go_to_other_ports_by_weight_and_leave_from_the_nat_ports,
    queries_are_answered_and_forgotten_after_10_seconds,
];

/// Tests of `dsr.toml`.
pub const DSR: &[crate::Test] = tests![servers_set_up_by_the_printed_script_answer_clients_directly,];

/// Tests of `mixed.toml`.
pub const MIXED: &[crate::Test] = tests![each_address_has_its_mode];

/// The load balancer among the servers.
const LB: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

/// Connections enough to see weights in a choice by hash: the tenth that is allowed is five standard deviations.
pub const MANY: usize = 600;

fn connections_go_to_other_ports_by_weight_and_leave_from_the_nat_ports() {
    let site = Site::new("passthrough.toml", &["10.0.0.2/24"], Options::default());
    let _convey = site.convey();
    assert_shares(&site.shares("192.0.2.80:443", MANY), &[("web1", 2), ("web2", 1)]);
    let witness = site.meet("192.0.2.80:443");
    assert_eq!(witness.seen.ip(), LB, "servers see the load balancer");
    assert!(witness.seen.port() >= 40_000, "{}", witness.seen);
    let flows = site.lb.run("convey connections --frontend web --json");
    assert!(flows.contains("passthrough"), "{flows}");
}

fn queries_are_answered_and_forgotten_after_10_seconds() {
    let site = Site::new("passthrough.toml", &["10.0.0.2/24"], Options::default());
    let _convey = site.convey();
    let servers: BTreeSet<String> = (0..40).map(|_| site.ask("192.0.2.53:53").0).collect();
    assert_eq!(servers, ["ns1".to_owned(), "ns2".to_owned()].into());
    let senders = site.udp_senders();
    assert!(
        senders
            .iter()
            .all(|from| from.ip() == LB && from.port() >= 40_000),
        "{senders:?}"
    );
    let flows: convey::admin::views::Connections =
        serde_json::from_str(&site.lb.run("convey connections --frontend dns --json")).expect("flows");
    // two queries may leave from one port of the client, and on a slow host the first are forgotten by now
    assert!((1..=40).contains(&flows.total), "{}", flows.total);
    let flows = flows.connections.iter().filter_map(|flow| flow.flow.as_ref());
    assert!(flows.map(|flow| flow.expires_in_seconds).all(|left| left <= 10.0));
}

fn servers_set_up_by_the_printed_script_answer_clients_directly() {
    let site = Site::new("dsr.toml", &["10.0.0.2/24", "fd00::2/64"], Options::default());
    for frontend in ["web", "web6", "mail"] {
        site.set_up_servers(frontend, "", "");
    }
    let _convey = site.convey();
    assert_shares(&site.shares("192.0.2.80:80", MANY), &[("web1", 2), ("web2", 1)]);
    assert_shares(
        &site.shares("[2001:db8::80]:80", MANY),
        &[("web1", 1), ("web2", 1)],
    );
    assert_shares(&site.shares("192.0.2.90:25", MANY), &[("mail1", 1), ("mail2", 1)]);
    for vip in ["192.0.2.80:80", "[2001:db8::80]:80", "192.0.2.90:25"] {
        assert_direct(&site.meet(vip));
    }
    for (name, frontend) in site.lb.status().frontends {
        assert!(frontend.traffic.bytes_in > 0, "{name} takes packets of clients");
        assert_eq!(frontend.traffic.bytes_out, 0, "answers do not pass {name}");
    }
}

fn each_address_has_its_mode() {
    let site = Site::new("mixed.toml", &["10.0.0.2/24"], Options::default());
    site.set_up_servers("video", "", "");
    let _convey = site.convey();
    let lb = site.lb.host();

    let admin = site.meet(&lb.addr(2222).to_string());
    assert_eq!((admin.server.as_str(), admin.seen.ip()), ("jump1", LB));
    let web = site.shares(&lb.addr(80).to_string(), 20);
    // each worker has a turn of its own, so an odd number on both may leave the shares two apart
    assert!(web["web1"].abs_diff(web["web2"]) <= 2, "in turn: {web:?}");
    let shop = site.shares("192.0.2.80:80", MANY);
    assert_shares(&shop, &[("web1", 1), ("web2", 1)]);
    let shopper = site.meet("192.0.2.80:80");
    assert!(
        shopper.seen.ip() == LB && convey::base::PortRanges::STOCK.contains(shopper.seen.port()),
        "{}",
        shopper.seen
    );
    assert_shares(
        &site.shares("192.0.2.90:8000", MANY),
        &[("video1", 3), ("video2", 1)],
    );
    assert_direct(&site.meet("192.0.2.90:8000"));

    let status = site.lb.status();
    let seen: Vec<(&str, Option<Mode>, u64)> = (status.frontends.iter())
        .map(|(name, frontend)| {
            (
                name.as_str(),
                frontend.mode.known(),
                frontend.traffic.connections_total,
            )
        })
        .collect();
    let many = MANY as u64;
    assert_eq!(
        seen,
        [
            ("admin", Some(Mode::Proxy), 1),
            ("shop", Some(Mode::Passthrough), many + 1),
            ("video", Some(Mode::Dsr), many + 1),
            ("web", Some(Mode::Proxy), 20)
        ],
        "what is for the VIP is not proxied"
    );
}

/// The server talks to the client itself.
#[track_caller]
pub fn assert_direct(witness: &Witness) {
    assert_eq!(Some(witness.seen), witness.stream().local_addr().ok());
}
