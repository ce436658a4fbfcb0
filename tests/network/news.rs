//! What makes a network state, and what does not.

use std::{fmt::Write as _, sync::Arc};

use crate::{
    Test,
    eye::{Eye, ip, mac, vips_wanted},
    lab::Lab,
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    what_matters_to_nobody_makes_no_network_state,
    a_change_is_seen_by_its_news_alone,
    lost_news_are_made_good,
    many_servers_are_resolved_within_the_bound,
];

fn what_matters_to_nobody_makes_no_network_state() {
    let lab = Lab::new("quiet");
    let (lb, web, other) = (lab.host("lb"), lab.host("web"), lab.host("other"));
    let vip = ip("10.77.1.1");
    let mut wanted = vips_wanted(&[vip]);
    wanted.servers.insert(web.ip4().into());
    let eye = Eye::open(&lb, wanted);
    eye.sees_hop(web.ip4().into(), &mac(&web, "eth0"));
    let before = eye.network_state();
    eye.new_network_states();
    lb.run(&format!(
        "ip route add 192.0.2.0/24 via {other}
         ip route add 2001:db8::/64 dev eth0
         ip neigh add {other} lladdr 02:00:00:00:00:01 dev eth0
         ip rule add to 192.0.2.1 table 7
         ip link set eth0 txqueuelen 500",
        other = other.ip4()
    ));
    // what matters is told of after it
    lb.run("ip addr add 10.77.1.1/32 dev eth0");
    eye.sees("the VIP", |network_state| network_state.vips.contains_key(&vip));
    let mut expected = (*before).clone();
    expected.vips.insert(vip, ["eth0".to_owned()].into());
    let hops = Arc::make_mut(&mut expected.hops);
    hops.own.insert(vip);
    hops.absent_vips.remove(&vip);
    for network_state in eye.new_network_states().into_iter().chain([eye.network_state()]) {
        assert!(
            *network_state == *before || *network_state == expected,
            "{network_state:#?}"
        );
    }
}

fn a_change_is_seen_by_its_news_alone() {
    let lab = Lab::new("alone");
    let lb = lab.host("lb");
    let vip = ip("10.77.1.1");
    let eye = Eye::open(&lb, vips_wanted(&[vip]));
    // addresses are asked for at no other time
    for _ in 0..5 {
        lb.run("ip addr add 10.77.1.1/32 dev eth0");
        eye.sees("the VIP", |network_state| network_state.vips.contains_key(&vip));
        lb.run("ip addr del 10.77.1.1/32 dev eth0");
        eye.sees("no VIP", |network_state| !network_state.vips.contains_key(&vip));
    }
    assert_eq!(eye.counters().overruns, 0);
}

fn lost_news_are_made_good() {
    let lab = Lab::new("overrun");
    let (lb, web) = (lab.host("lb"), lab.host("web"));
    let vip = ip("10.99.255.1");
    let mut wanted = vips_wanted(&[vip]);
    wanted.servers.insert(web.ip4().into());
    let eye = Eye::open(&lb, wanted);
    eye.sees_hop(web.ip4().into(), &mac(&web, "eth0"));
    let mut lines = String::new();
    for number in 0..3000 {
        let _ = writeln!(
            lines,
            "addr add 10.99.{}.{}/32 dev lo",
            number / 250,
            number % 250 + 1
        );
    }
    lines.push_str("addr add 10.99.255.1/32 dev lo\nlink set eth0 mtu 1234\n");
    let batch = lb.path("batch");
    std::fs::write(&batch, lines).expect("a file");
    // so long that the kernel runs out of room for news
    eye.distracted(|| drop(lb.run(&format!("ip -batch {}", batch.display()))));
    let network_state = eye.sees("the last of many changes", |network_state| {
        network_state.vips.contains_key(&vip)
            && network_state
                .hops
                .servers
                .get(&web.ip4().into())
                .is_some_and(|hop| hop.mtu == 1234)
    });
    assert!(
        eye.counters().overruns > 0,
        "the test must overrun the socket: {:?}",
        eye.counters()
    );
    assert!(network_state.vips[&vip].contains("lo"));
    eye.sees_hop(web.ip4().into(), &mac(&web, "eth0"));
}

fn many_servers_are_resolved_within_the_bound() {
    let lab = Lab::new("many");
    let (lb, web) = (lab.host("lb"), lab.host("web"));
    let mut lines = String::new();
    for last in 0..=249 {
        let _ = writeln!(lines, "addr add 10.77.1.{last}/32 dev eth0");
    }
    let batch = web.path("batch");
    std::fs::write(&batch, lines).expect("a file");
    web.run(&format!("ip -batch {}", batch.display()));
    lb.run("ip route add 10.77.1.0/24 dev eth0");
    let servers: Vec<_> = (0..=249).map(|last| ip(&format!("10.77.1.{last}"))).collect();
    let eye = Eye::on_servers(&lb, &servers);
    eye.sees("all servers", |network_state| {
        servers
            .iter()
            .all(|server| crate::eye::known(network_state, *server).is_some())
    });
    let counters = eye.counters();
    assert!(counters.probes_put_off > 0, "{counters:?}");
}
