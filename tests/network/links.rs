//! Interfaces that go, come and change.

use convey::engine::network::NoWay;

use crate::{
    Test,
    eye::{Eye, index, ip, mac},
    lab::{Host, Lab},
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    interfaces_are_told_with_their_addresses,
    an_interface_that_is_down_leads_nowhere_until_it_is_up,
    an_interface_without_a_carrier_leads_nowhere,
    an_interface_that_comes_back_with_another_index_is_used_again,
    a_renamed_interface_is_known_by_its_new_name,
    our_own_link_address_is_followed,
    a_port_that_leaves_a_bridge_is_still_an_interface,
];

/// A load balancer and a server with a cable of their own: eth1 of both, 10.78.0.1 and .2, fd78::1 and ::2.
fn cable(lab: &Lab) -> (Host, Host) {
    let (lb, web) = (lab.host("lb"), lab.host("web"));
    connect(&lb, &web);
    (lb, web)
}

fn connect(lb: &Host, web: &Host) {
    lb.run(&format!(
        "ip link add eth1 type veth peer name eth1 netns {}",
        web.namespace()
    ));
    for (host, last) in [(web, 2), (lb, 1)] {
        host.run("ip link set eth1 addrgenmode none; ip link set eth1 up");
        address(host, last);
    }
}

fn address(host: &Host, last: u8) {
    host.run(&format!(
        "ip addr replace 10.78.0.{last}/24 dev eth1; ip addr replace fd78::{last}/64 dev eth1 nodad"
    ));
}

fn interfaces_are_told_with_their_addresses() {
    let lab = Lab::new("interfaces");
    let lb = lab.host("lb");
    lb.run("ip addr add 169.254.7.7/16 scope link dev eth0; ip addr add 10.0.0.1/32 dev eth0");
    let eye = Eye::open(&lb, crate::eye::vips_wanted(&[ip("10.0.0.1")]));
    let network_state = eye.network_state();
    let names: Vec<_> = network_state
        .links
        .iter()
        .map(|(name, link)| (name.as_str(), link.is_loopback))
        .collect();
    assert_eq!(names, [("eth0", false), ("lo", true)]);
    assert_eq!(network_state.links["eth0"].ifindex, index(&lb, "eth0"));
    assert_eq!(
        network_state.hops.interfaces.len(),
        1,
        "only those that carry Ethernet"
    );
    let interface = network_state.hops.interfaces[&index(&lb, "eth0")];
    assert_eq!(
        (interface.mac.to_string(), interface.mtu),
        (mac(&lb, "eth0"), 1500)
    );
    // neither the VIP, which may move away, nor one that is valid on the link only
    assert_eq!(interface.address4, Some(lb.ip4()));
    assert_eq!(interface.address6, Some(lb.ip6()));
}

fn an_interface_that_is_down_leads_nowhere_until_it_is_up() {
    let lab = Lab::new("down");
    let (lb, web) = cable(&lab);
    let servers = [ip("10.78.0.2"), ip("fd78::2")];
    let eye = Eye::on_servers(&lb, &servers);
    for _ in 0..2 {
        for server in servers {
            eye.sees_hop(server, &mac(&web, "eth1"));
        }
        lb.run("ip link set eth1 down");
        for server in servers {
            eye.sees_no_way(server, &NoWay::Unreachable);
        }
        assert!(!eye.network_state().links.contains_key("eth1"));
        lb.run("ip link set eth1 up");
        // going down takes IPv6 addresses away
        address(&lb, 1);
        eye.sees("eth1", |network_state| network_state.links.contains_key("eth1"));
    }
}

fn an_interface_without_a_carrier_leads_nowhere() {
    let lab = Lab::new("carrier");
    let (lb, web) = cable(&lab);
    let eye = Eye::on_servers(&lb, &[ip("10.78.0.2")]);
    eye.sees_hop(ip("10.78.0.2"), &mac(&web, "eth1"));
    web.run("ip link set eth1 down");
    eye.sees_no_way(ip("10.78.0.2"), &NoWay::InterfaceDown("eth1".to_owned()));
    web.run("ip link set eth1 up");
    eye.sees_hop(ip("10.78.0.2"), &mac(&web, "eth1"));
}

fn an_interface_that_comes_back_with_another_index_is_used_again() {
    let lab = Lab::new("reborn");
    let (lb, web) = cable(&lab);
    let servers = [ip("10.78.0.2"), ip("fd78::2")];
    let eye = Eye::on_servers(&lb, &servers);
    for server in servers {
        eye.sees_hop(server, &mac(&web, "eth1"));
    }
    let old = index(&lb, "eth1");
    lb.run("ip link del eth1");
    for server in servers {
        eye.sees_no_way(server, &NoWay::Unreachable);
    }
    connect(&lb, &web);
    let new = index(&lb, "eth1");
    assert_ne!(old, new);
    for server in servers {
        let (_, link) = eye.sees_hop(server, &mac(&web, "eth1"));
        assert_eq!((link.ifindex, link.source.to_string()), (new, mac(&lb, "eth1")));
    }
    let network_state = eye.network_state();
    assert_eq!(network_state.links["eth1"].ifindex, new);
    assert!(!network_state.hops.interfaces.contains_key(&old));
}

fn a_renamed_interface_is_known_by_its_new_name() {
    let lab = Lab::new("rename");
    let (lb, _web) = cable(&lab);
    let eye = Eye::on_servers(&lb, &[ip("10.78.0.2")]);
    eye.sees("eth1", |network_state| network_state.links.contains_key("eth1"));
    lb.run("ip link set eth1 down; ip link set eth1 name lan7; ip link set lan7 up");
    let network_state = eye.sees("lan7", |network_state| {
        network_state
            .server_interfaces
            .get(&ip("10.78.0.2"))
            .is_some_and(|name| name == "lan7")
    });
    assert!(network_state.links.contains_key("lan7") && !network_state.links.contains_key("eth1"));
}

fn our_own_link_address_is_followed() {
    let lab = Lab::new("own-mac");
    let (lb, web) = cable(&lab);
    let eye = Eye::on_servers(&lb, &[ip("10.78.0.2")]);
    eye.sees_hop(ip("10.78.0.2"), &mac(&web, "eth1"));
    lb.run("ip link set eth1 address 02:00:00:00:78:01");
    let index = index(&lb, "eth1");
    eye.sees("the new source", |network_state| {
        network_state.hops.interfaces[&index].mac.to_string() == "02:00:00:00:78:01"
            && crate::eye::known(network_state, ip("10.78.0.2"))
                .is_some_and(|(_, link)| link.source.to_string() == "02:00:00:00:78:01")
    });
}

fn a_port_that_leaves_a_bridge_is_still_an_interface() {
    let lab = Lab::new("bridge");
    let (lb, _web) = cable(&lab);
    lb.run("ip link add br7 type bridge; ip link set br7 up; ip link set eth1 master br7");
    let eye = Eye::on_servers(&lb, &[]);
    eye.sees("the bridge", |network_state| {
        network_state.links.contains_key("br7")
    });
    lb.run("ip link set eth1 nomaster; ip link set br7 down");
    let network_state = eye.sees("no bridge", |network_state| {
        !network_state.links.contains_key("br7")
    });
    assert!(network_state.links.contains_key("eth1"));
}
