//! Who is next on the link.

use std::{
    net::UdpSocket,
    time::{Duration, Instant},
};

use convey::flow::Resolution;

use crate::{
    Test,
    eye::{Eye, index, ip, mac, servers_wanted},
    lab::{Lab, PATIENCE, wait_until},
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    servers_on_the_link_are_resolved_without_anybody_talking_to_them,
    a_server_that_becomes_wanted_is_resolved_and_one_that_is_not_is_forgotten,
    a_server_that_is_not_there_is_asked_for_ever_more_seldom,
    a_server_that_comes_late_is_found,
    a_firewall_in_the_way_is_counted_and_its_going_is_enough,
    a_neighbour_that_the_kernel_forgot_is_resolved_again,
    a_server_that_speaks_from_a_new_link_address_is_followed,
    a_server_that_changed_its_link_address_without_a_word_is_noticed,
];

fn servers_on_the_link_are_resolved_without_anybody_talking_to_them() {
    let lab = Lab::new("on-link");
    let (lb, web) = (lab.host("lb"), lab.host("web"));
    let eye = Eye::on_servers(&lb, &[web.ip4().into(), web.ip6().into()]);
    for (server, local) in [
        (web.ip4().into(), lb.ip4().into()),
        (web.ip6().into(), lb.ip6().into()),
    ] {
        let (hop, link) = eye.sees_hop(server, &mac(&web, "eth0"));
        assert_eq!((hop.mtu, &*hop.locals), (1500, [local].as_slice()));
        assert_eq!(
            (link.ifindex, link.source.to_string()),
            (index(&lb, "eth0"), mac(&lb, "eth0"))
        );
        assert_eq!(eye.network_state().server_interfaces[&server], "eth0");
    }
    assert_eq!(eye.counters().probes_failed, 0);
}

fn a_server_that_becomes_wanted_is_resolved_and_one_that_is_not_is_forgotten() {
    let lab = Lab::new("wanted");
    let (lb, a, b) = (lab.host("lb"), lab.host("a"), lab.host("b"));
    let eye = Eye::on_servers(&lb, &[a.ip4().into()]);
    eye.sees_hop(a.ip4().into(), &mac(&a, "eth0"));
    eye.want(servers_wanted(&[b.ip4().into()]));
    eye.sees_hop(b.ip4().into(), &mac(&b, "eth0"));
    assert!(!eye.network_state().hops.servers.contains_key(&a.ip4().into()));
}

fn a_server_that_is_not_there_is_asked_for_ever_more_seldom() {
    let lab = Lab::new("absent");
    let lb = lab.host("lb");
    let start = Instant::now();
    let eye = Eye::on_servers(&lb, &[ip("10.77.0.250")]);
    // at 0, 0.2, 0.6 and 1.4 s, or later
    for (probes, earliest) in [(1, 0), (2, 200), (3, 600), (4, 1400)] {
        wait_until(&format!("{probes} datagrams"), PATIENCE, || {
            eye.counters().probes >= probes
        });
        let waited = start.elapsed();
        assert!(
            waited >= Duration::from_millis(earliest),
            "{probes} datagrams after {waited:?}"
        );
    }
    let network_state = eye.network_state();
    let hop = &network_state.hops.servers[&ip("10.77.0.250")];
    assert!(matches!(hop.resolution, Resolution::Unresolved { .. }));
}

fn a_server_that_comes_late_is_found() {
    let lab = Lab::new("late");
    let (lb, web) = (lab.host("lb"), lab.host("web"));
    let late = ip("10.77.0.99");
    let eye = Eye::on_servers(&lb, &[late]);
    wait_until("it is asked for in vain", PATIENCE, || eye.counters().probes >= 2);
    assert!(matches!(
        eye.network_state().hops.servers[&late].resolution,
        Resolution::Unresolved { .. }
    ));
    web.run("ip addr add 10.77.0.99/24 dev eth0");
    eye.sees_hop(late, &mac(&web, "eth0"));
}

fn a_firewall_in_the_way_is_counted_and_its_going_is_enough() {
    let lab = Lab::new("firewall");
    let (lb, web) = (lab.host("lb"), lab.host("web"));
    lb.run("iptables -w -A OUTPUT -p udp --dport 9 -j DROP");
    let eye = Eye::on_servers(&lb, &[web.ip4().into()]);
    wait_until("a refused datagram", PATIENCE, || {
        eye.counters().probes_failed > 0
    });
    let network_state = eye.network_state();
    let hop = &network_state.hops.servers[&web.ip4().into()];
    assert!(matches!(hop.resolution, Resolution::Unresolved { .. }));
    lb.run("iptables -w -F OUTPUT");
    eye.sees_hop(web.ip4().into(), &mac(&web, "eth0"));
}

fn a_neighbour_that_the_kernel_forgot_is_resolved_again() {
    let lab = Lab::new("forgotten");
    let (lb, web) = (lab.host("lb"), lab.host("web"));
    let servers = [web.ip4().into(), web.ip6().into()];
    let eye = Eye::on_servers(&lb, &servers);
    for server in servers {
        eye.sees_hop(server, &mac(&web, "eth0"));
    }
    web.run("ip link set eth0 address 02:00:00:00:77:01");
    lb.run("ip neigh flush dev eth0");
    for server in servers {
        eye.sees_hop(server, "02:00:00:00:77:01");
    }
}

fn a_server_that_speaks_from_a_new_link_address_is_followed() {
    let lab = Lab::new("new-mac");
    let (lb, web) = (lab.host("lb"), lab.host("web"));
    let eye = Eye::on_servers(&lb, &[web.ip4().into(), web.ip6().into()]);
    for server in [web.ip4().into(), web.ip6().into()] {
        eye.sees_hop(server, &mac(&web, "eth0"));
    }
    web.run("ip link set eth0 address 02:00:00:00:77:02");
    // whatever it sends, it first asks for us, and so tells who it is
    web.inside(|| {
        for (own, to) in [("0.0.0.0:0", lb.addr(9)), ("[::]:0", lb.addr6(9))] {
            let socket = UdpSocket::bind(own).expect("a socket");
            socket.send_to(b"hello", to).expect("sent");
        }
    });
    for server in [web.ip4().into(), web.ip6().into()] {
        eye.sees_hop(server, "02:00:00:00:77:02");
    }
}

fn a_server_that_changed_its_link_address_without_a_word_is_noticed() {
    let lab = Lab::new("silent");
    let (lb, web) = (lab.host("lb"), lab.host("web"));
    // what takes the kernel half a minute by default, in a second
    for family in ["ipv4", "ipv6"] {
        lb.run(&format!(
            "cd /proc/sys/net/{family}/neigh/eth0
             echo 300 >base_reachable_time_ms; echo 100 >retrans_time_ms
             echo 1 >delay_first_probe_time; echo 1 >ucast_solicit"
        ));
    }
    let servers = [web.ip4().into(), web.ip6().into()];
    let eye = Eye::on_servers(&lb, &servers);
    for server in servers {
        eye.sees_hop(server, &mac(&web, "eth0"));
    }
    web.run("ip link set eth0 address 02:00:00:00:77:03");
    for server in servers {
        eye.sees_hop(server, "02:00:00:00:77:03");
    }
}
