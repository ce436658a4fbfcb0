//! The xdp engine: what its program moves, what it leaves to the slow path, and where it attaches.

use std::{collections::BTreeMap, net::SocketAddr, num::NonZeroU32};

use convey::{
    base::{PacketReason, XdpAttachMode},
    config::model::XdpMode,
    engine::xdp::{
        attach::Interface,
        load::{self, LoadLimits, Loaded},
        object,
    },
};
use nix::sys::signal::Signal;

use crate::{
    Test, faults,
    kept::{self, witnesses},
    lab::{
        Convey, Family, Host, Lab, PATIENCE,
        checksums::Checksums,
        random_bytes,
        servers::Witness,
        udp::{UdpClient, UdpServer},
        wait_until,
    },
    limits, off_path,
    site::{Mode, PASSTHROUGH, Plan, Port, Site, Transport, WAYS, by_engine, frontend_name, vip},
    talkers::Talkers,
    tests, told,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    Convey: packets_of_ordinary_flows_do_not_come_to_user_space_in_the_driver,
    Convey: packets_of_ordinary_flows_do_not_come_to_user_space_behind_the_driver,
    Convey: what_senders_of_this_machine_leave_unfinished_takes_the_slow_path_and_arrives,
    Convey: new_flows_go_where_the_configuration_says_once_a_reload_has_returned_and_old_ones_stay,
    Convey: another_program_stays_and_packet_sockets_do_the_work,
    Convey: the_program_goes_with_convey_however_that_ends,
    Convey: the_program_gives_out_the_last_nat_port_and_takes_none_away,
    Convey: the_program_gives_ports_of_connections_that_have_ended_to_new_ones,
    Convey: flows_of_the_program_are_reset_when_their_server_dies,
    Convey: a_drained_server_keeps_its_flows_in_the_program,
    Convey: what_the_program_has_begun_is_over_for_packet_sockets_after_a_restart_and_new_clients_are_served,
];

const WITNESS: Port = Port::same("witness", Transport::Tcp, 9);
const ECHO: Port = Port::same("echo", Transport::Udp, 7);

/// A program that passes everything, at an interface: ours without services.
pub struct OtherEnd {
    _loaded: Loaded,
}

impl OtherEnd {
    /// At the switch's end of a host's cable, without which a veth takes no frames from the host's driver.
    pub fn prepare(lab: &Lab, host: &Host) -> Self {
        let port = format!("p{}", host.index());
        Self::at(&lab.switch(), &port, XdpMode::Native)
    }

    /// At an interface of a host.
    pub fn at(host: &Host, name: &str, mode: XdpMode) -> Self {
        let loaded = host.inside(|| {
            let index = nix::net::if_::if_nametoindex(name).expect("the interface");
            let flows = NonZeroU32::new(1_024).expect("not 0");
            let limits = LoadLimits {
                flows,
                nat_flows: flows,
            };
            let mut loaded = load::load(object::OBJECT, limits).unwrap_or_else(|error| panic!("{error}"));
            let interface = Interface {
                index,
                name,
                is_loopback: false,
                is_veth: true,
            };
            let attached = loaded.attach(&interface, mode);
            assert_ne!(attached.mode, XdpAttachMode::None, "{}", attached.why);
            loaded
        });
        Self { _loaded: loaded }
    }
}

fn plan(site: &Site, mode: &str) -> Plan {
    Plan {
        passthrough: format!("engine = \"xdp\"\nxdp_mode = \"{mode}\""),
        ..Plan::new(&[WITNESS, ECHO], &site.servers)
    }
}

/// Has a sender finish its checksums: a network card would.
pub fn finish_checksums(host: &Host) {
    host.run("ethtool -K eth0 tx off >/dev/null");
}

/// Where the program is attached to the load balancer's interface, and why.
pub fn attached(convey: &Convey) -> (String, String) {
    let status = convey.status_json();
    let at = &status["packet"]["xdp"]["interfaces"]["eth0"];
    let text = |key: &str| at[key].as_str().unwrap_or_default().to_owned();
    (text("mode"), text("reason"))
}

/// Packets that were left to the slow path, by why.
fn passed(convey: &Convey) -> BTreeMap<String, u64> {
    let status = convey.status_json();
    let passed = status["packet"]["xdp"]["passed"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    passed
        .into_iter()
        .map(|(why, count)| (why, count.as_u64().expect("a number")))
        .collect()
}

/// Nothing has been left to the slow path since `before`. A checksum looks unfinished by chance in one packet of 65,536: two of
/// a thousand are none that anybody sends so.
#[track_caller]
fn expect_no_more_passed(convey: &Convey, before: &BTreeMap<String, u64>) {
    let by_chance = "unfinished_checksum";
    let parted = |mut passed: BTreeMap<String, u64>| {
        let by_chance = passed.remove(by_chance).unwrap_or(0);
        (passed, by_chance)
    };
    let ((now, by_chance), (before, earlier)) = (parted(passed(convey)), parted(before.clone()));
    assert_eq!(now, before, "more has come to the slow path");
    assert!(by_chance <= earlier + 2, "{by_chance} checksums look unfinished");
}

/// Talks to servers by TCP and UDP, at every VIP.
fn talk(site: &Site) -> Vec<Witness> {
    let mut witnesses = Vec::new();
    for way in WAYS {
        let mut witness = Witness::meet(&site.client, SocketAddr::new(vip(way), 9))
            .unwrap_or_else(|error| panic!("{way:?}: {error}"));
        let own = witness.stream().local_addr().expect("an own address");
        match way.0 {
            Mode::Dsr => assert_eq!(witness.seen, own, "{way:?}: the server sees the client"),
            Mode::Passthrough => assert_eq!(
                witness.seen.ip(),
                site.lb.addr_of(way.1, 0).ip(),
                "{way:?}: the server sees the load balancer"
            ),
        }
        witness.talk(&random_bytes(1, 100_000)).expect("talk");
        witnesses.push(witness);
        let client = UdpClient::new(&site.client, SocketAddr::new(vip(way), 7));
        for len in [1, 512, 1_400] {
            let datagram = random_bytes(len as u64, len);
            let back = client
                .ask(&datagram)
                .unwrap_or_else(|error| panic!("{way:?}, {len} bytes: {error}"));
            assert!(
                back.ends_with(&datagram),
                "{way:?}: {len} bytes came back otherwise"
            );
        }
    }
    witnesses
}

fn echoes(site: &Site) -> Vec<UdpServer> {
    let servers = site.servers.iter();
    servers
        .flat_map(|host| {
            Family::ALL.map(|family| UdpServer::echo(host, host.addr_of(family, 7), host.name()))
        })
        .collect()
}

fn packets_of_ordinary_flows_do_not_come_to_user_space(name: &str, mode: &str) {
    let site = Site::new(name, 2);
    [&site.client]
        .into_iter()
        .chain(&site.servers)
        .for_each(finish_checksums);
    let is_prepared = site.other_end.is_some();
    let _other_end = (mode == "native" && !is_prepared).then(|| OtherEnd::prepare(&site.lab, &site.lb));
    let (_witnesses, _echoes) = (witnesses(&site), echoes(&site));
    let _checksums = Checksums::of(site.hosts());
    let convey = site.convey(&plan(&site, mode));
    assert_eq!(attached(&convey).0, mode, "{:?}", attached(&convey));
    let sent =
        || [PacketReason::ToServer, PacketReason::ToClient].map(|reason| told::packets(&convey, reason));
    // whatever is not resolved yet is asked for now
    let _first = talk(&site);
    let (left, before) = (passed(&convey), sent());
    let mut second = talk(&site);
    expect_no_more_passed(&convey, &left);
    let after = sent();
    let [to_servers, to_clients] = [after[0] - before[0], after[1] - before[1]];
    assert!(
        to_servers > 4 * 70 && to_clients > 2 * 70,
        "400,000 bytes in {to_servers} packets, and 200,000 back in {to_clients}"
    );
    for (mode, family) in WAYS {
        let frontend = frontend_name("witness", (mode, family));
        wait_until("the frontend's bytes are counted", PATIENCE, || {
            let traffic = convey.traffic(&frontend);
            let is_back = traffic.bytes_out > 200_000 || mode == Mode::Dsr;
            traffic.bytes_in > 200_000 && is_back
        });
    }
    for (witness, (mode, _)) in second.iter().zip(WAYS) {
        let client = witness.stream().local_addr().expect("an own address");
        let listed = told::flow(&convey, client);
        let expected = (mode == Mode::Passthrough).then(|| ("established".to_owned(), witness.seen));
        assert_eq!(listed, expected, "{client}");
    }
    wait_until("flows are counted", PATIENCE, || told::flows(&convey) >= 8);
    // one of the two ends: the slow path sees nothing of that either
    for witness in second.drain(..) {
        let client = witness.stream().local_addr().expect("an own address");
        drop(witness);
        wait_until("the flow is over", PATIENCE, || {
            told::flow(&convey, client).is_none_or(|(state, _)| state == "closing")
        });
    }
    expect_no_more_passed(&convey, &left);
}

fn packets_of_ordinary_flows_do_not_come_to_user_space_in_the_driver() {
    packets_of_ordinary_flows_do_not_come_to_user_space("xdp-native", "native");
}

fn packets_of_ordinary_flows_do_not_come_to_user_space_behind_the_driver() {
    packets_of_ordinary_flows_do_not_come_to_user_space("xdp-generic", "generic");
}

fn what_senders_of_this_machine_leave_unfinished_takes_the_slow_path_and_arrives() {
    let site = Site::new("xdp-unfinished", 2);
    // as it is where nobody says otherwise
    site.client.run("ethtool -K eth0 tx on >/dev/null");
    let (_witnesses, _echoes) = (witnesses(&site), echoes(&site));
    let _checksums = Checksums::of(site.hosts());
    let convey = site.convey(&plan(&site, "auto"));
    let (mode, why) = attached(&convey);
    assert_eq!(mode, "generic", "{why}");
    assert!(why.contains("veth"), "{why}");
    let _witnesses = talk(&site);
    let passed = passed(&convey);
    assert!(
        passed.get("unfinished_checksum").is_some_and(|count| *count > 0),
        "{passed:?}"
    );
}

fn new_flows_go_where_the_configuration_says_once_a_reload_has_returned_and_old_ones_stay() {
    let site = Site::new("xdp-reload", 2);
    [&site.client]
        .into_iter()
        .chain(&site.servers)
        .for_each(finish_checksums);
    let _witnesses = witnesses(&site);
    let both = plan(&site, "generic");
    let convey = site.convey(&both);
    let to = WAYS.map(|way| SocketAddr::new(vip(way), 9));
    let talkers = Talkers::start(&site.client, &to, 8);
    assert_eq!(talkers.servers().len(), 2, "{:?}", talkers.servers());
    for turn in 0..10 {
        let only = turn % 2;
        let mut plan = both.clone();
        plan.servers.swap_remove(1 - only);
        convey.reload(&plan.config());
        for to in to {
            for _ in 0..4 {
                let witness = Witness::meet(&site.client, to).unwrap_or_else(|error| panic!("{to}: {error}"));
                assert_eq!(witness.server, site.servers[only].name(), "after reload {turn}");
            }
        }
        talkers.expect_unbroken();
    }
}

/// Whether a program is attached to a host's first interface.
pub fn has_program(host: &Host) -> bool {
    host.run("ip -d link show dev eth0").contains("xdp")
}

fn another_program_stays_and_packet_sockets_do_the_work() {
    let site = Site::new("xdp-other", 2);
    let (_witnesses, _echoes) = (witnesses(&site), echoes(&site));
    let _other = OtherEnd::at(&site.lb, "eth0", XdpMode::Generic);
    let mut convey = site.convey(&plan(&site, "auto"));
    let (mode, why) = attached(&convey);
    assert_eq!(mode, "none", "{why}");
    assert!(why.contains("another XDP program"), "{why}");
    let _witnesses = talk(&site);
    assert_eq!(passed(&convey), BTreeMap::new());
    convey.signal(Signal::SIGTERM);
    assert!(convey.wait_exit(PATIENCE).success());
    assert!(has_program(&site.lb), "the other program has been taken away");
}

fn the_program_goes_with_convey_however_that_ends() {
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let site = Site::new("xdp-end", 1);
        let _witnesses = witnesses(&site);
        let mut convey = site.convey(&plan(&site, "generic"));
        assert!(has_program(&site.lb));
        convey.signal(signal);
        convey.wait_exit(PATIENCE);
        wait_until("the program is gone", PATIENCE, || !has_program(&site.lb));
    }
}

fn the_program_gives_out_the_last_nat_port_and_takes_none_away() {
    by_engine(
        "xdp",
        limits::without_a_free_nat_port_new_flows_are_refused_and_old_ones_spared,
    );
}

fn the_program_gives_ports_of_connections_that_have_ended_to_new_ones() {
    by_engine(
        "xdp",
        off_path::a_reset_of_either_side_ends_a_flow_and_frees_its_port,
    );
}

fn flows_of_the_program_are_reset_when_their_server_dies() {
    by_engine(
        "xdp",
        faults::a_dead_servers_passthrough_flows_are_reset_at_their_next_packet,
    );
}

fn a_drained_server_keeps_its_flows_in_the_program() {
    by_engine("xdp", kept::a_drained_server_keeps_its_flows_and_gets_no_new_ones);
}

fn what_the_program_has_begun_is_over_for_packet_sockets_after_a_restart_and_new_clients_are_served() {
    let site = Site::new("xdp-raw", 1);
    let _witnesses = witnesses(&site);
    let program = Plan {
        passthrough: "engine = \"xdp\"".to_owned(),
        ..Plan::new(&[WITNESS], &site.servers).by(&PASSTHROUGH)
    };
    let sockets = Plan {
        passthrough: "engine = \"raw\"".to_owned(),
        ..program.clone()
    };
    let meet = || {
        PASSTHROUGH.map(|way| {
            Witness::meet(&site.client, SocketAddr::new(vip(way), 9))
                .unwrap_or_else(|error| panic!("{way:?}: {error}"))
        })
    };
    let mut before = None;
    for plan in [&program, &sockets, &program] {
        let mut convey = site.convey(plan);
        assert_eq!(has_program(&site.lb), plan.passthrough == program.passthrough);
        for witness in before.iter_mut().flatten() {
            let error = Witness::talk(witness, b"anybody there?").expect_err("nobody knows it");
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
        }
        before = Some(meet());
        assert_eq!(told::flows(&convey), 2);
        convey.signal(Signal::SIGTERM);
        assert!(convey.wait_exit(PATIENCE).success());
    }
}
