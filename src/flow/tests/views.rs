//! What a data plane that is not made of these types is told of services, and says of flows.

use super::*;
use crate::base::Handshake;

fn target(site: &Site) -> Arc<FlowTarget> {
    let view = site.services.passthrough().next().unwrap();
    Arc::clone(view.targets[0].as_ref().unwrap())
}

#[test]
fn services_of_each_mode_are_told_of_with_their_servers() {
    for (mode, dsr, passthrough) in [(Mode::Dsr, 1, 0), (Mode::Passthrough, 0, 1)] {
        let site = Site::new(mode, Protocol::Tcp, 2);
        let count = (site.services.dsr().count(), site.services.passthrough().count());
        assert_eq!(count, (dsr, passthrough));
        assert_eq!(site.services.has_passthrough(), passthrough == 1);
        let view = site.services.views().next().unwrap();
        assert_eq!(view.range.first().0, site.vip());
        assert_eq!((view.is_dsr, view.has_access), (dsr == 1, false));
        let servers: Vec<_> = view.targets.iter().flatten().map(|target| target.ip).collect();
        assert_eq!(servers, [1, 2].map(|host| server_addr(false, host).ip()));
        assert!(view.maglev.is_some());
    }
}

#[test]
fn a_view_says_whether_each_packet_without_a_flow_is_asked_for() {
    let mut site = Site::new(Mode::Passthrough, Protocol::Tcp, 1);
    site.rules(&["deny 203.0.113.0/24"]);
    assert!(site.services.passthrough().all(|view| view.has_access));
}

#[test]
fn the_way_of_passthrough_has_our_addresses_and_ends_with_the_route() {
    let mut site = Site::new(Mode::Passthrough, Protocol::Tcp, 1);
    let target = target(&site);
    let (link, mtu, locals) = target.nat_way(&site.hops).unwrap();
    assert_eq!((link.destination, mtu), (server_mac(1), 1_500));
    assert_eq!(locals, [site.nat_ip()]);
    site.hops.servers.get_mut(&target.ip).unwrap().resolution = Resolution::NoRoute;
    assert_eq!(target.nat_way(&site.hops), None);
}

#[test]
fn where_more_than_half_of_the_ports_are_claimed_elsewhere_what_is_half_open_is_soon_forgotten() {
    for (claimed, reason) in [(5, PacketReason::ToClient), (6, PacketReason::ForeignSource)] {
        let mut site = Site::new(Mode::Passthrough, Protocol::Udp, 1);
        site.nat_ports(61_000, 61_009);
        let (nat, server) = site.udp(client(false, 1, 1)).ends();
        let target = target(&site);
        assert_eq!(target.half_of_ports(), 5);
        target.set_claimed_ports(claimed);
        site.pass(Duration::from_secs(5));
        let answer = site.send(&Packet::udp(server, nat, b"answer"), SERVERS);
        assert_eq!(answer.reason(), Some(reason), "{claimed}");
    }
}

#[test]
fn what_a_program_has_seen_counts_with_what_the_workers_see() {
    let site = Site::new(Mode::Passthrough, Protocol::Tcp, 1);
    let seen = SeenElsewhere {
        opened: 9,
        closed: 2,
        bytes: 100,
        bytes_out: 300,
        completed: 5,
        unanswered: 1,
        unacknowledged: 3,
        dsr_completed: 7,
        dsr_incomplete: 4,
    };
    target(&site).count_seen(WorkerId(0), &seen);
    for totals in [site.frontend(), site.server(1)] {
        assert_eq!((totals.opened, totals.current), (9, 7));
        assert_eq!((totals.bytes_in, totals.bytes_out), (100, 300));
    }
    let handshakes = site.server(1).handshakes;
    let of = |handshake: Handshake| handshakes[handshake as usize];
    assert_eq!(Handshake::ALL.map(of), [5, 1, 3, 7, 4]);
}

#[test]
fn paths_with_one_seed_give_one_nat_port() {
    let mut given = Vec::new();
    for worker in [1, 2] {
        let mut site = Site::new(Mode::Passthrough, Protocol::Tcp, 1);
        (0..worker).for_each(|port| {
            let client = site.client(2, 1 + port);
            site.tcp(client, SYN);
        });
        site.path.reseed(42);
        let client = site.client(1, 7);
        given.push(site.tcp(client, SYN).ends().0);
    }
    assert_eq!(given[0], given[1]);
}
