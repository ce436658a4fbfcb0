//! Which interfaces have which VIP.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use convey::engine::network::NetworkState;

use crate::{
    Test,
    eye::{Eye, ip, vips_wanted},
    lab::{Lab, PATIENCE},
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    a_vip_comes_moves_and_goes,
    an_ipv6_vip_counts_when_duplicate_detection_is_done,
    a_vip_of_another_is_a_duplicate_and_never_counts,
    a_vip_that_becomes_wanted_later_is_found_where_it_is,
];

fn a_vip_comes_moves_and_goes() {
    let lab = Lab::new("vip");
    let lb = lab.host("lb");
    let vips = [ip("10.77.1.1"), ip("fd77:1::1")];
    let eye = Eye::open(&lb, vips_wanted(&vips));
    assert!(eye.network_state().vips.is_empty());
    let sees_at = |interfaces: &[&str]| {
        let expected: BTreeSet<String> = interfaces.iter().map(|&name| name.to_owned()).collect();
        for vip in vips {
            eye.sees(&format!("{vip} on {interfaces:?}"), |network_state| {
                network_state.vips.get(&vip).cloned().unwrap_or_default() == expected
            });
        }
    };
    let change = |verb: &str, interface: &str| {
        lb.run(&format!(
            "ip addr {verb} 10.77.1.1/32 dev {interface}; ip addr {verb} fd77:1::1/128 dev {interface} {}",
            if verb == "add" { "nodad" } else { "" }
        ));
    };
    change("add", "eth0");
    sees_at(&["eth0"]);
    change("add", "lo");
    sees_at(&["eth0", "lo"]);
    change("del", "eth0");
    sees_at(&["lo"]);
    change("del", "lo");
    sees_at(&[]);
}

fn an_ipv6_vip_counts_when_duplicate_detection_is_done() {
    let lab = Lab::new("dad");
    let lb = lab.host("lb");
    let vip = ip("fd77::1:1");
    let eye = Eye::open(&lb, vips_wanted(&[vip]));
    // it then takes two seconds
    const TENTATIVE: &str = "ip -o -6 addr show dev eth0 tentative";
    let is_tentative = || lb.run(TENTATIVE).contains("fd77::1:1");
    let was_tentative = lb
        .run(&format!(
            "echo 2 >/proc/sys/net/ipv6/conf/eth0/dad_transmits; ip addr add fd77::1:1/64 dev eth0; {TENTATIVE}"
        ))
        .contains("fd77::1:1");
    let seen_early = eye.network_state().vips.contains_key(&vip) && is_tentative();
    assert!(was_tentative && !seen_early);
    eye.sees("the VIP", |network_state| network_state.vips.contains_key(&vip));
    assert!(!is_tentative());
}

fn a_vip_of_another_is_a_duplicate_and_never_counts() {
    let lab = Lab::new("duplicate");
    let (lb, other) = (lab.host("lb"), lab.host("other"));
    let (vip, later): (IpAddr, _) = (other.ip6().into(), ip("fd77:1::1"));
    let eye = Eye::open(&lb, vips_wanted(&[vip, later]));
    lb.run(&format!("ip addr add {vip}/64 dev eth0"));
    crate::lab::wait_until("the duplicate is found", PATIENCE, || {
        lb.run("ip -o -6 addr show dev eth0 dadfailed")
            .contains(&vip.to_string())
    });
    // what is told of after it is seen, without it
    lb.run("ip addr add fd77:1::1/128 dev eth0 nodad");
    let network_state = eye.sees("the other VIP", |network_state| {
        network_state.vips.contains_key(&later)
    });
    assert_eq!(network_state.vips.keys().collect::<Vec<_>>(), [&later]);
    let never = |network_state: &Arc<NetworkState>| !network_state.vips.contains_key(&vip);
    assert!(eye.new_network_states().iter().all(never));
}

fn a_vip_that_becomes_wanted_later_is_found_where_it_is() {
    let lab = Lab::new("later");
    let lb = lab.host("lb");
    let eye = Eye::open(&lb, vips_wanted(&[]));
    eye.want(vips_wanted(&[lb.ip4().into()]));
    eye.sees("our own address as a VIP", |network_state| {
        network_state
            .vips
            .get(&lb.ip4().into())
            .is_some_and(|names| names.contains("eth0"))
    });
}
