//! The source addresses of passthrough flows: none that a fail-over moves, and several where one has too few ports.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use convey::base::PacketReason;

use crate::{
    Test,
    kept::witnesses,
    lab::{Family, Host, servers::Witness},
    site::{Mode, PASSTHROUGH, Plan, Port, Site, Transport, Way, vip},
    tests,
    told::{self, Applicant},
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    Convey: no_vip_is_the_source_of_flows_where_the_host_has_another_address,
    Convey: each_nat_address_has_all_nat_ports_and_none_is_answered_by_the_kernel,
    Convey: a_nat_address_that_a_reload_takes_away_keeps_its_flows_and_gets_no_new_ones,
    Convey: the_next_flow_after_a_reload_has_its_nat_address,
];

const WITNESS: Port = Port::same("witness", Transport::Tcp, 9);
const V6: Way = (Mode::Passthrough, Family::V6);
/// So few that a test uses all of them, and all of two addresses are tried for each flow.
const FEW: &str = "61000-61015";
const FEW_COUNT: usize = 16;

fn no_vip_is_the_source_of_flows_where_the_host_has_another_address() {
    let site = Site::without_vips("vip-last", 1);
    let _witnesses = witnesses(&site);
    let (lb, server) = (&site.lb, &site.servers[0]);
    let (own, vip) = (IpAddr::from(lb.ip6()), vip(V6));
    // IPv6 takes the address that was added last
    lb.add_address("eth0", &format!("{vip}/64"));
    let chosen = lb.run(&format!("ip route get {}", server.ip6()));
    assert!(chosen.contains(&format!("src {vip} ")), "{chosen}");

    let mut plan = Plan::new(&[WITNESS], &site.servers).by(&[V6]);
    let convey = site.convey(&plan);
    let hint = "nat_address";
    let check = || convey.tool("check");
    assert_eq!(met(&site, V6).seen.ip(), own);
    assert_eq!(sources(&convey.status(), server), [own]);
    let (checked, told) = (check(), convey.order("status"));
    assert!(
        checked.status.success() && !checked.stderr.contains(hint),
        "{checked:?}"
    );
    assert!(told.contains(&own.to_string()) && !told.contains(hint), "{told}");

    // with nothing but the VIP left it must do, and that is said
    lb.run(&format!("ip addr del {own}/64 dev eth0"));
    convey.wait_status("the VIP is the source", |status| sources(status, server) == [vip]);
    assert_eq!(met(&site, V6).seen.ip(), vip);
    let (checked, told) = (check(), convey.order("status"));
    let note = format!("have the source address {vip}, a frontend's");
    assert!(
        checked.status.success() && checked.stderr.contains(&note) && checked.stderr.contains(hint),
        "{checked:?}"
    );
    assert!(told.contains("source is a VIP") && told.contains(hint), "{told}");

    // what the note says helps
    let stays = "fd77::2:1";
    lb.add_address("eth0", &format!("{stays}/128"));
    plan.passthrough = format!("nat_address = \"{stays}\"");
    convey.reload(&plan.config());
    assert_eq!(met(&site, V6).seen.ip().to_string(), stays);
    let (checked, told) = (check(), convey.order("status"));
    assert!(
        checked.status.success() && !checked.stderr.contains(hint),
        "{checked:?}"
    );
    assert!(
        told.contains(stays) && !told.contains("source is a VIP"),
        "{told}"
    );
}

fn each_nat_address_has_all_nat_ports_and_none_is_answered_by_the_kernel() {
    let site = Site::new("addresses", 1);
    let _witnesses = witnesses(&site);
    let (lb, server) = (&site.lb, &site.servers[0]);
    let convey = site.convey(&plan(&site, &[1, 2]));
    for way in PASSTHROUGH {
        let mut all: Vec<Witness> = (0..2 * FEW_COUNT).map(|_| met(&site, way)).collect();
        let full = BTreeMap::from([1, 2].map(|last| (nat_address(way.1, last), FEW_COUNT)));
        assert_eq!(
            by_source(&all),
            full,
            "as many flows from each as there are ports"
        );
        let to = SocketAddr::new(vip(way), 9);
        let mut applicant = Applicant::new(&site.client, to, Some(&convey), &[PacketReason::PortsExhausted]);
        assert!(applicant.try_connect().is_none(), "no port was left");
        talk(&mut all);
    }
    assert_eq!(told::flows(&convey), 4 * FEW_COUNT as u64);
    // the kernel would have reset each of them: it knows none
    assert_eq!(resets(lb), 0, "what the rules drop is not answered");
    for family in Family::ALL {
        // and it does reset what no rule drops: another port of the server
        let to = SocketAddr::new(nat_address(family, 2), 61_000);
        let refused = server.try_connect(to).expect_err("nobody listens there");
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    }
    assert_eq!(resets(lb), 2);
}

fn a_nat_address_that_a_reload_takes_away_keeps_its_flows_and_gets_no_new_ones() {
    // more than one address has ports, and then fewer than are left at the other two
    const OLD: usize = FEW_COUNT + 4;
    const NEW: usize = FEW_COUNT - 4;
    let site = Site::new("taken", 1);
    let _witnesses = witnesses(&site);
    let convey = site.convey(&plan(&site, &[1, 2]));
    let mut old: Vec<Witness> = (PASSTHROUGH.iter())
        .flat_map(|way| (0..OLD).map(|_| met(&site, *way)))
        .collect();
    let of_first = |witnesses: &[Witness], family| {
        let by_source = by_source(witnesses);
        by_source
            .get(&nat_address(family, 1))
            .copied()
            .unwrap_or_default()
    };
    for family in Family::ALL {
        assert!(of_first(&old, family) >= OLD - FEW_COUNT, "{:?}", by_source(&old));
    }
    convey.reload(&plan(&site, &[2, 3]).config());
    talk(&mut old);
    let mut new: Vec<Witness> = (PASSTHROUGH.iter())
        .flat_map(|way| (0..NEW).map(|_| met(&site, *way)))
        .collect();
    for family in Family::ALL {
        assert_eq!(of_first(&new, family), 0, "{:?}", by_source(&new));
    }
    talk(&mut old);
    talk(&mut new);
    assert_eq!(told::flows(&convey), 2 * (OLD + NEW) as u64);
    assert_eq!(resets(&site.lb), 0, "the kernel answers for none of the three");
}

fn the_next_flow_after_a_reload_has_its_nat_address() {
    let site = Site::new("next", 1);
    let _witnesses = witnesses(&site);
    let convey = site.convey(&plan(&site, &[1]));
    let configs = [1, 2].map(|last| plan(&site, &[last]).config());
    for turn in 1..=20 {
        convey.reload(&configs[turn % 2]);
        for way in PASSTHROUGH {
            let expected = nat_address(way.1, 1 + u16::from(turn % 2 == 1));
            assert_eq!(met(&site, way).seen.ip(), expected, "{way:?}, reload {turn}");
        }
    }
}

/// Passthrough with few NAT ports at each of these NAT addresses, which the load balancer has from now on.
fn plan(site: &Site, addresses: &[u16]) -> Plan {
    let mut plan = Plan::new(&[WITNESS], &site.servers).by(&PASSTHROUGH);
    plan.nat_ports = FEW;
    let mut all = Vec::new();
    for family in Family::ALL {
        for last in addresses {
            let ip = nat_address(family, *last);
            let prefix = if ip.is_ipv4() { 32 } else { 128 };
            // it may have it already
            let more = if ip.is_ipv4() { "" } else { "nodad preferred_lft 0" };
            (site.lb).run(&format!("ip addr replace {ip}/{prefix} dev eth0 {more}"));
            all.push(ip.to_string());
        }
    }
    // one client takes them all
    plan.passthrough = format!("nat_address = {all:?}\nmax_ports_per_client = \"off\"");
    plan
}

fn nat_address(family: Family, last: u16) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([10, 77, 0, 200 + last.to_be_bytes()[1]]),
        Family::V6 => IpAddr::from([0xfd77, 0, 0, 0, 0, 0, 2, last]),
    }
}

#[track_caller]
fn met(site: &Site, way: Way) -> Witness {
    Witness::meet(&site.client, SocketAddr::new(vip(way), 9))
        .unwrap_or_else(|error| panic!("{way:?}: {error}"))
}

#[track_caller]
fn talk(witnesses: &mut [Witness]) {
    for witness in witnesses {
        let said = witness.talk(b"still here");
        said.unwrap_or_else(|error| panic!("{} is cut off: {error}", witness.seen));
    }
}

/// How many flows each source address has, as the servers see them.
fn by_source(witnesses: &[Witness]) -> BTreeMap<IpAddr, usize> {
    let mut counts = BTreeMap::new();
    for witness in witnesses {
        *counts.entry(witness.seen.ip()).or_default() += 1;
    }
    counts
}

/// The source addresses towards a server by IPv6, as the status says.
fn sources(status: &convey::admin::views::Status, server: &Host) -> Vec<IpAddr> {
    let next_hops = &status.packet.as_ref().expect("packet modes").next_hops;
    (next_hops.get(&server.ip6().into()))
        .map(|hop| hop.locals.clone())
        .unwrap_or_default()
}

/// Resets that a host's kernel has sent.
fn resets(host: &Host) -> u64 {
    host.kernel_count("Tcp", "OutRsts")
}
