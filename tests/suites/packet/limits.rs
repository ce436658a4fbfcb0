//! Large numbers, and what happens at the limits: nothing established is harmed.

use std::{
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use convey::base::PacketReason;

use crate::{
    Test,
    lab::{
        Family, PATIENCE,
        checksums::Checksums,
        crowd::{self, Holder, Report},
        forge::Forger,
        servers::{TcpServer, Witness},
    },
    site::{Mode, PASSTHROUGH, Plan, Port, Site, Transport, WAYS, Way, vip},
    talkers::Talkers,
    tests,
    told::{self, Applicant},
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    Any: fifty_thousand_flows_at_a_time_without_one_wrong_delivery,
    Any: a_flood_of_a_million_syns_leaves_established_flows_untouched,
    Any: without_a_free_nat_port_new_flows_are_refused_and_old_ones_spared,
    Convey: a_full_table_refuses_new_flows_and_spares_old_ones,
];

const WITNESS: Port = Port::same("witness", Transport::Tcp, 9);
const V4: Way = PASSTHROUGH[0];

fn fifty_thousand_flows_at_a_time_without_one_wrong_delivery() {
    const FLOWS_EACH: usize = 12_500;
    const SECOND_ADDRESS: &str = "10.77.0.151";
    let site = Site::new("crowd", 2);
    site.client.add_address("eth0", &format!("{SECOND_ADDRESS}/24"));
    // two addresses of 25,000 flows each
    site.client
        .run("echo 1024 65535 > /proc/sys/net/ipv4/ip_local_port_range");
    // the load balancer's own connections keep 10,000 ports
    site.lb
        .run("echo 10000 19999 > /proc/sys/net/ipv4/ip_local_port_range");
    let _servers: Vec<_> = site
        .servers
        .iter()
        .map(|host| crowd::servers(host, host.addr(9), u64::from(host.index()), 2))
        .collect();
    let _checksums = Checksums::of(site.hosts());
    let mut plan = Plan::new(&[WITNESS], &site.servers).by(&[V4]);
    plan.nat_ports = "20000-60999";
    // two addresses take more than their share
    "max_ports_per_client = \"off\"".clone_into(&mut plan.passthrough);
    let balancer = site.balance(&plan);
    let to = SocketAddr::new(vip(V4), 9);
    let own: [IpAddr; 2] = [
        IpAddr::V4(site.client.ip4()),
        SECOND_ADDRESS.parse().expect("an address"),
    ];
    let start = Instant::now();
    let mut holders: Vec<Holder> = (0..4)
        .map(|number| Holder::start(&site.client, own[number % 2], to, number as u64, FLOWS_EACH))
        .collect();
    let all_right = Report {
        right: FLOWS_EACH as u64,
        failed: 0,
        wrong: 0,
    };
    for holder in &mut holders {
        let report = holder.report(PATIENCE);
        assert_eq!(report, all_right, "first answers\n{}", holder.said());
    }
    if let Some(convey) = balancer.convey() {
        let flows = told::flows(convey);
        assert!(flows >= 50_000, "only {flows} flows at a time");
    }
    let connected = start.elapsed();
    // on every flow
    for holder in &mut holders {
        holder.ask();
    }
    for holder in &mut holders {
        let report = holder.report(PATIENCE);
        assert_eq!(report, all_right, "second answers\n{}", holder.said());
    }
    eprintln!(
        "50,000 flows connected in {connected:.1?}, all asked again in {:.1?}",
        start.elapsed() - connected
    );
}

fn a_flood_of_a_million_syns_leaves_established_flows_untouched() {
    // NAT ports of two servers
    const PORTS: u64 = 2 * 4_536;
    let site = Site::new("flood", 2);
    let _witnesses = witnesses(&site);
    let _checksums = Checksums::of(site.hosts());
    let balancer = site.balance(&Plan::new(&[WITNESS], &site.servers));
    let to: Vec<SocketAddr> = WAYS.iter().map(|way| SocketAddr::new(vip(*way), 9)).collect();
    let talkers = Talkers::start(&site.client, &to, 10);
    let attacker = site.lab.host("attacker");
    let forger = Forger::new(&attacker);
    let floods = match balancer.convey() {
        Some(_) => [(Mode::Passthrough, 1_000_000), (Mode::Dsr, 250_000)],
        // connection tracking takes minutes for so many
        None => [(Mode::Passthrough, 20_000), (Mode::Dsr, 20_000)],
    };
    for (mode, count) in floods {
        let target = SocketAddr::new(vip((mode, Family::V4)), 9);
        let took = forger.flood(target, count);
        eprintln!("{count} SYNs to {target} in {took:.1?}");
        talkers.expect_unbroken();
    }
    if let Some(convey) = balancer.convey() {
        // a slow machine receives few of the million, which is more than there are ports all the same
        let gave_way = told::gave_way(convey);
        assert!(
            gave_way > 2 * PORTS,
            "forged flows took each other's ports {gave_way} times"
        );
        for reason in [
            PacketReason::SynShareFull,
            PacketReason::TableFull,
            PacketReason::PortsExhausted,
        ] {
            assert_eq!(told::packets(convey, reason), 0, "{}", reason.label());
        }
        assert!(told::flows(convey) >= 40, "{} flows", told::flows(convey));
    }
}

pub fn without_a_free_nat_port_new_flows_are_refused_and_old_ones_spared() {
    const NAT_PORTS: usize = 20;
    let site = Site::new("ports", 1);
    let _witnesses = witnesses(&site);
    let mut plan = Plan::new(&[WITNESS], &site.servers).by(&[V4]);
    plan.nat_ports = "61000-61019";
    let balancer = site.balance(&plan);
    let to = SocketAddr::new(vip(V4), 9);
    let mut old: Vec<Witness> = (0..NAT_PORTS)
        .map(|turn| {
            Witness::meet(&site.client, to).unwrap_or_else(|error| panic!("connection {turn}: {error}"))
        })
        .collect();
    let mut ports: Vec<u16> = old.iter().map(|witness| witness.seen.port()).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), NAT_PORTS, "one port each");
    let mut applicant = Applicant::new(
        &site.client,
        to,
        balancer.convey(),
        &[PacketReason::PortsExhausted],
    );
    for _ in 0..3 {
        assert!(applicant.try_connect().is_none(), "no port was left");
    }
    for witness in &mut old {
        witness.talk(b"still here").expect("an old flow goes on");
    }
    if let Some(convey) = balancer.convey() {
        assert!(told::packets(convey, PacketReason::PortsExhausted) >= 3);
        assert_eq!(told::flows(convey), NAT_PORTS as u64);
    }
}

fn a_full_table_refuses_new_flows_and_spares_old_ones() {
    const MAX_FLOWS: usize = 64;
    for mode in [Mode::Passthrough, Mode::Dsr] {
        let way = (mode, Family::V4);
        let site = Site::new("full", 2);
        let _witnesses = witnesses(&site);
        let mut plan = Plan::new(&[WITNESS], &site.servers).by(&[way]);
        plan.passthrough = format!("max_flows = {MAX_FLOWS}");
        let convey = site.convey(&plan);
        let to = SocketAddr::new(vip(way), 9);
        let (mut old, mut refused) = (Vec::new(), 0);
        let full = [PacketReason::TableFull, PacketReason::SynShareFull];
        let mut applicant = Applicant::new(&site.client, to, Some(&convey), &full);
        while old.len() < 200 && refused < 3 {
            match applicant.try_connect() {
                Some(stream) => old.push(Witness::hear(stream).expect("a witness")),
                None => refused += 1,
            }
        }
        for witness in &mut old {
            witness.talk(b"still here").expect("an old flow goes on");
        }
        if mode == Mode::Passthrough {
            assert_eq!(refused, 3, "a table of {MAX_FLOWS} took {} flows", old.len());
            assert!(
                (MAX_FLOWS / 2..=MAX_FLOWS).contains(&old.len()),
                "{} flows",
                old.len()
            );
            let counted = told::packets(&convey, PacketReason::TableFull)
                + told::packets(&convey, PacketReason::SynShareFull);
            assert!(counted >= 3, "{counted} refusals are counted");
        } else {
            assert_eq!(
                refused, 0,
                "a lost entry costs a DSR flow nothing: Maglev chooses the same"
            );
        }
        let flows = told::flows(&convey);
        assert!(flows <= MAX_FLOWS as u64, "{flows} flows");
    }
}

fn witnesses(site: &Site) -> Vec<TcpServer> {
    site.servers
        .iter()
        .flat_map(|host| {
            [host.addr(9), host.addr6(9)].map(|addr| TcpServer::witness(host, addr, host.name()))
        })
        .collect()
}
