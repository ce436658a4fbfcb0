//! Where NAT ports come from when the configuration names none: from the host as it is now.

use std::{net::SocketAddr, process::Command};

use crate::{
    Test,
    kept::witnesses,
    lab::{Convey, Host, servers::Witness},
    site::{PASSTHROUGH, Plan, Port, Site, Transport, vip},
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    Convey: a_reload_takes_nat_ports_from_the_ephemeral_range_of_that_moment,
    Convey: beside_kube_proxy_no_node_port_is_a_nat_port,
    Convey: check_names_who_takes_source_ports_as_it_likes,
];

const WITNESS: Port = Port::same("witness", Transport::Tcp, 9);
const DNS: Port = Port::same("dns", Transport::Udp, 53);
const STOCK: &str = "10000-32767,61000-65535";

fn a_reload_takes_nat_ports_from_the_ephemeral_range_of_that_moment() {
    let site = Site::new("range", 1);
    let _witnesses = witnesses(&site);
    let config = config(&site, WITNESS);
    let convey = site.lab.convey(&site.lb, &config);
    assert_eq!(nat_ports(&convey), STOCK);
    let met = || {
        PASSTHROUGH
            .map(|way| Witness::meet(&site.client, SocketAddr::new(vip(way), 9)).expect("a connection"))
    };
    let mut before = met();
    set_ephemeral(&site.lb, "10000 62000");
    // few are left, so that what comes from another range is seen
    convey.reload(&config);
    assert_eq!(
        nat_ports(&convey),
        "10000-32767,61000-65535",
        "3,535 ports are too few"
    );
    set_ephemeral(&site.lb, "10000 59999");
    convey.reload(&config);
    assert_eq!(nat_ports(&convey), "60000-65535");
    for witness in &mut before {
        witness
            .talk(b"still here")
            .expect("a flow of the old ports goes on");
    }
    for witness in &mut met() {
        assert!(witness.seen.port() >= 60_000, "{}", witness.seen);
        witness.talk(b"here too").expect("and one of the new ones");
    }
    // what is watched is the file: without a reload nothing changes
    set_ephemeral(&site.lb, "32768 60999");
    assert_eq!(nat_ports(&convey), "60000-65535");
}

fn beside_kube_proxy_no_node_port_is_a_nat_port() {
    let site = Site::new("node-ports", 1);
    let config = config(&site, WITNESS);
    let convey = site.lab.convey(&site.lb, &config);
    assert_eq!(nat_ports(&convey), STOCK);
    for (set_up, take_down) in [
        (
            "iptables-nft -t nat -N KUBE-SERVICES",
            "iptables-nft -t nat -X KUBE-SERVICES",
        ),
        (
            "ip6tables-nft -t nat -N KUBE-SERVICES",
            "ip6tables-nft -t nat -X KUBE-SERVICES",
        ),
        ("nft add table ip kube-proxy", "nft delete table ip kube-proxy"),
    ] {
        site.lb.run(set_up);
        convey.reload(&config);
        assert_eq!(nat_ports(&convey), "10000-29999,61000-65535", "{set_up}");
        let printed = convey.tool("check --print");
        assert!(printed.stdout.contains("10000-29999,61000-65535"), "{printed:?}");
        site.lb.run(take_down);
        convey.reload(&config);
        assert_eq!(nat_ports(&convey), STOCK, "{take_down}");
    }
}

fn check_names_who_takes_source_ports_as_it_likes() {
    let site = Site::new("neighbours", 1);
    let convey = site.lab.convey(&site.lb, &config(&site, DNS));
    let notes = || {
        let checked = convey.tool("check");
        assert!(checked.status.success(), "{checked:?}");
        checked.stderr
    };
    assert!(!notes().contains("takes NAT ports too"), "{}", notes());
    let unbound = site.lb.dir().join("unbound");
    // by another process: what this one has open for writing, those that other tests are just starting have, too, and a
    // program that is open for writing cannot be started
    site.lb.run(&format!("cp /bin/sleep {}", unbound.display()));
    // elsewhere it is no business of this host's
    let start = |host: &Host| {
        let mut resolver = Command::new(&unbound);
        resolver.arg("1000");
        host.spawn(resolver)
    };
    let mut far = start(&site.client);
    assert!(!notes().contains("unbound"), "{}", notes());
    let mut resolver = start(&site.lb);
    assert!(notes().contains("unbound runs on this host"), "{}", notes());
    resolver.kill();
    far.kill();
    assert!(!notes().contains("unbound"), "{}", notes());
    site.lb
        .run("iptables -t nat -A POSTROUTING -o eth0 -j MASQUERADE --random-fully");
    assert!(notes().contains("masquerades with --random-fully"), "{}", notes());
}

/// Without `nat_ports`.
fn config(site: &Site, port: Port) -> String {
    let plan = Plan::new(&[port], &site.servers).by(&PASSTHROUGH);
    let named = format!("nat_ports = \"{}\"\n", plan.nat_ports);
    let config = plan.config();
    assert!(config.contains(&named));
    config.replace(&named, "")
}

fn nat_ports(convey: &Convey) -> String {
    let status = convey.status_json();
    status["packet"]["nat_ports"].as_str().expect("a text").to_owned()
}

fn set_ephemeral(host: &Host, range: &str) {
    host.run(&format!("echo {range} > /proc/sys/net/ipv4/ip_local_port_range"));
}
