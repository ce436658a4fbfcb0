//! Which way it goes.

use std::net::IpAddr;

use convey::engine::network::{NoWay, Wanted};

use crate::{
    Test,
    eye::{Eye, index, ip, mac, servers_wanted},
    lab::{Host, Lab},
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    a_server_behind_a_gateway_is_reached_by_the_gateways_link_address,
    an_ipv4_server_may_be_behind_an_ipv6_gateway,
    a_changed_route_moves_the_next_hop,
    a_rule_moves_the_next_hop,
    the_routes_mtu_and_source_count,
    nat_addresses_are_our_addresses_towards_servers_of_their_family,
    no_vip_is_our_address_towards_servers_where_there_is_another,
    a_rule_by_source_looks_at_nat_address,
    a_route_that_goes_and_comes_back_is_followed,
    why_there_is_no_way_is_told,
    a_server_beyond_a_tunnel_without_ethernet_has_no_way,
];

fn a_server_behind_a_gateway_is_reached_by_the_gateways_link_address() {
    let (_lab, lb, router) = lb_and_router("gateway");
    lb.run(&format!(
        "ip route add 192.0.2.0/24 via {}; ip route add 2001:db8::/64 via {}",
        router.ip4(),
        router.ip6()
    ));
    let servers = [ip("192.0.2.10"), ip("2001:db8::10")];
    let eye = Eye::on_servers(&lb, &servers);
    for server in servers {
        let (_, link) = eye.sees_hop(server, &mac(&router, "eth0"));
        assert_eq!(link.ifindex, index(&lb, "eth0"));
    }
}

fn an_ipv4_server_may_be_behind_an_ipv6_gateway() {
    let (_lab, lb, router) = lb_and_router("via6");
    // without a link-local address the kernel cannot ask for an IPv6 neighbour on behalf of IPv4
    lb.run(&format!(
        "ip addr add fe80::77/64 dev eth0 nodad; ip route add 192.0.2.0/24 via inet6 {} dev eth0",
        router.ip6()
    ));
    let eye = Eye::on_servers(&lb, &[ip("192.0.2.10")]);
    let (hop, _) = eye.sees_hop(ip("192.0.2.10"), &mac(&router, "eth0"));
    assert_eq!(*hop.locals, [IpAddr::from(lb.ip4())]);
}

fn a_changed_route_moves_the_next_hop() {
    let (lab, lb, a) = lb_and_router("reroute");
    let b = lab.host("b");
    let servers = [ip("192.0.2.10"), ip("2001:db8::10")];
    let way_by = |router: &Host| {
        lb.run(&format!(
            "ip route replace 192.0.2.0/24 via {}; ip route replace 2001:db8::/64 via {}",
            router.ip4(),
            router.ip6()
        ));
    };
    way_by(&a);
    let eye = Eye::on_servers(&lb, &servers);
    for router in [&a, &b, &a] {
        way_by(router);
        for server in servers {
            eye.sees_hop(server, &mac(router, "eth0"));
        }
    }
}

fn a_rule_moves_the_next_hop() {
    let (lab, lb, a) = lb_and_router("rule");
    let b = lab.host("b");
    lb.run(&format!(
        "ip route add 192.0.2.0/24 via {}; ip route add 192.0.2.0/24 via {} table 7",
        a.ip4(),
        b.ip4()
    ));
    let eye = Eye::on_servers(&lb, &[ip("192.0.2.10")]);
    eye.sees_hop(ip("192.0.2.10"), &mac(&a, "eth0"));
    lb.run("ip rule add to 192.0.2.10 table 7");
    eye.sees_hop(ip("192.0.2.10"), &mac(&b, "eth0"));
    lb.run("ip rule del to 192.0.2.10 table 7");
    eye.sees_hop(ip("192.0.2.10"), &mac(&a, "eth0"));
}

fn the_routes_mtu_and_source_count() {
    let (_lab, lb, router) = lb_and_router("metrics");
    lb.run(&format!(
        "ip addr add 10.77.0.99/24 dev eth0
         ip route add 192.0.2.0/24 via {} mtu 1400 src 10.77.0.99
         ip route add 2001:db8::/64 via {} mtu 1300",
        router.ip4(),
        router.ip6()
    ));
    let eye = Eye::on_servers(&lb, &[ip("192.0.2.10"), ip("2001:db8::10")]);
    let (hop, _) = eye.sees_hop(ip("192.0.2.10"), &mac(&router, "eth0"));
    assert_eq!((hop.mtu, &*hop.locals), (1400, [ip("10.77.0.99")].as_slice()));
    let (hop, _) = eye.sees_hop(ip("2001:db8::10"), &mac(&router, "eth0"));
    assert_eq!((hop.mtu, &*hop.locals), (1300, [lb.ip6().into()].as_slice()));
    lb.run("ip link set eth0 mtu 1350");
    let mtu_of = |server: &'static str| {
        move |network_state: &convey::engine::network::NetworkState| {
            network_state.hops.servers[&ip(server)].mtu
        }
    };
    eye.sees("no MTU above the interface's", |network_state| {
        mtu_of("192.0.2.10")(network_state) == 1350 && mtu_of("2001:db8::10")(network_state) == 1300
    });
}

fn nat_addresses_are_our_addresses_towards_servers_of_their_family() {
    let (_lab, lb, web) = lb_and_router("nat-address");
    lb.run("ip addr add 10.77.0.98/24 dev eth0");
    let eye = Eye::open(
        &lb,
        Wanted {
            nat_addresses: vec![ip("10.77.0.98"), ip("10.77.0.97")],
            ..servers_wanted(&[web.ip4().into(), web.ip6().into()])
        },
    );
    let (hop, _) = eye.sees_hop(web.ip4().into(), &mac(&web, "eth0"));
    assert_eq!(*hop.locals, [ip("10.77.0.98"), ip("10.77.0.97")]);
    let (hop, _) = eye.sees_hop(web.ip6().into(), &mac(&web, "eth0"));
    assert_eq!(*hop.locals, [IpAddr::from(lb.ip6())]);
}

/// IPv6 takes the address that was added last: with keepalived that is the VIP.
fn no_vip_is_our_address_towards_servers_where_there_is_another() {
    let (_lab, lb, web) = lb_and_router("no-vip");
    let vip = ip("fd77::80");
    let wanted = |vips: &[IpAddr]| Wanted {
        natted: [web.ip6().into()].into(),
        vips: vips.iter().copied().collect(),
        ..servers_wanted(&[web.ip6().into()])
    };
    let eye = Eye::open(&lb, wanted(&[vip]));
    let source_is = |source: IpAddr, moving: bool| {
        eye.sees(&format!("source {source}"), |network_state| {
            let hop = network_state.hops.servers.get(&web.ip6().into());
            hop.is_some_and(|hop| *hop.locals == [source])
                && network_state.moving.contains_key(&web.ip6().into()) == moving
        });
    };
    source_is(lb.ip6().into(), false);
    lb.run(&format!("ip addr add {vip}/64 dev eth0 nodad"));
    // the kernel has changed its mind before we say anything
    let chosen = lb.run(&format!("ip route get {}", web.ip6()));
    assert!(chosen.contains(&format!("src {vip} ")), "{chosen}");
    eye.sees("the VIP", |network_state| network_state.vips.contains_key(&vip));
    source_is(lb.ip6().into(), false);
    lb.run(&format!("ip addr del {}/64 dev eth0", lb.ip6()));
    source_is(vip, true);
}

fn a_rule_by_source_looks_at_nat_address() {
    let (lab, lb, a) = lb_and_router("source-rule");
    let b = lab.host("b");
    lb.run(&format!(
        "ip route add 192.0.2.0/24 via {}; ip route add 192.0.2.0/24 via {} table 7
         ip rule add from 10.77.0.98 table 7",
        a.ip4(),
        b.ip4()
    ));
    let eye = Eye::open(
        &lb,
        Wanted {
            nat_addresses: vec![ip("10.77.0.98")],
            ..servers_wanted(&[ip("192.0.2.10")])
        },
    );
    // it is not ours yet, and the kernel routes for none but its own addresses
    eye.sees_hop(ip("192.0.2.10"), &mac(&a, "eth0"));
    lb.run("ip addr add 10.77.0.98/24 dev eth0");
    eye.sees_hop(ip("192.0.2.10"), &mac(&b, "eth0"));
}

fn a_route_that_goes_and_comes_back_is_followed() {
    let (_lab, lb, router) = lb_and_router("flap");
    let (add, del) = (
        format!(
            "ip route add default via {}; ip route add default via {}",
            router.ip4(),
            router.ip6()
        ),
        "ip -4 route del default; ip -6 route del default",
    );
    let servers = [ip("192.0.2.10"), ip("2001:db8::10")];
    let eye = Eye::on_servers(&lb, &servers);
    for server in servers {
        eye.sees_no_way(server, &NoWay::Unreachable);
    }
    for _ in 0..2 {
        lb.run(&add);
        for server in servers {
            eye.sees_hop(server, &mac(&router, "eth0"));
        }
        lb.run(del);
        for server in servers {
            eye.sees_no_way(server, &NoWay::Unreachable);
        }
    }
}

fn why_there_is_no_way_is_told() {
    let lab = Lab::new("no-way");
    let lb = lab.host("lb");
    lb.run(
        "ip route add blackhole 192.0.2.1; ip route add prohibit 192.0.2.2; ip route add unreachable 192.0.2.3
         ip route add blackhole 2001:db8::1; ip route add prohibit 2001:db8::2",
    );
    let expected = [
        (ip("192.0.2.1"), NoWay::Blackhole),
        (ip("192.0.2.2"), NoWay::Prohibited),
        (ip("192.0.2.3"), NoWay::Unreachable),
        (ip("192.0.2.4"), NoWay::Unreachable),
        (ip("2001:db8::1"), NoWay::Blackhole),
        (ip("2001:db8::2"), NoWay::Prohibited),
        (ip("2001:db8::4"), NoWay::Unreachable),
        (lb.ip4().into(), NoWay::OwnAddress),
        (lb.ip6().into(), NoWay::OwnAddress),
        (ip("127.0.0.5"), NoWay::OwnAddress),
        (ip("10.77.0.255"), NoWay::NotUnicast),
    ];
    let servers: Vec<_> = expected.iter().map(|(server, _)| *server).collect();
    let eye = Eye::on_servers(&lb, &servers);
    for (server, reason) in &expected {
        eye.sees_no_way(*server, reason);
    }
    assert_eq!(eye.counters().probes, 0, "nobody is asked for in vain");
}

fn a_server_beyond_a_tunnel_without_ethernet_has_no_way() {
    let lab = Lab::new("tunnel");
    let lb = lab.host("lb");
    lb.run("ip tuntap add tun7 mode tun; ip addr add 10.9.0.1/24 dev tun7; ip link set tun7 up");
    let eye = Eye::on_servers(&lb, &[ip("10.9.0.2")]);
    eye.sees_no_way(ip("10.9.0.2"), &NoWay::NotEthernet("tun7".to_owned()));
}

fn lb_and_router(name: &str) -> (Lab, Host, Host) {
    let lab = Lab::new(name);
    let (lb, router) = (lab.host("lb"), lab.host("router"));
    (lab, lb, router)
}
