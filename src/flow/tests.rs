//! What clients, servers and operators rely on.

mod closing;
mod dsr;
mod errors;
mod fragments;
mod handshakes;
mod hostile;
mod limits;
mod passthrough;
mod random;
mod ranges;
mod views;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use super::{testing::*, *};
use crate::{
    base::{ServerState, WorkerId},
    config::{HashSeed, Mode},
    packet::{Frame, HEADROOM, testing::Packet},
    pools::AdminState,
};

#[test]
fn workers_that_open_the_same_flows_at_once_agree_and_no_port_is_claimed_twice() {
    let mut site = Site::with(Mode::Passthrough, Protocol::Tcp, 2, false, 4_096);
    site.nat_ports(60_000, 60_255);
    let now = site.now;
    let given = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|index| {
                let mut path = Path::new(WorkerId(index), index, Arc::clone(&site.flows), index as u64);
                path.set_services(Arc::clone(&site.services));
                path.set_hops(Arc::new(site.hops.clone()));
                scope.spawn(move || {
                    let mut given = Vec::new();
                    for port in 1..=300 {
                        let packet = Packet::tcp(client(false, 1, port), vip(false), SYN, b"");
                        let mut buffer = vec![0; HEADROOM];
                        buffer.extend(packet.frame());
                        let len = buffer.len() - HEADROOM;
                        let mut frame = Frame::new(&mut buffer, HEADROOM, len, packet.offload()).unwrap();
                        if let Verdict::Send { .. } = path.process(&mut frame, CLIENTS, now) {
                            let parsed = crate::packet::parse(frame.bytes()).unwrap();
                            let (_, nat, server) = parsed.tuple().unwrap();
                            given.push((port, nat, server));
                        }
                    }
                    given
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect::<Vec<_>>()
    });
    site.check();
    let mut holders = std::collections::HashMap::new();
    for (port, nat, server) in given {
        let holder = *holders.entry((nat, server)).or_insert(port);
        assert_eq!(holder, port, "{nat} towards {server} was given to two flows");
    }
    assert_eq!(holders.len() as u64, site.flows.usage().nat_flows);
    assert_eq!(site.frontend().opened, site.flows.usage().nat_flows);
}

#[test]
fn what_no_frontend_serves_is_left_to_the_kernel() {
    let mut site = Site::new(Mode::Passthrough, Protocol::Tcp, 1);
    let vip = site.vip();
    let other_port = SocketAddr::new(vip.ip(), 81);
    let client = site.client(1, 5);
    for packet in [
        Packet::tcp(client, other_port, SYN, b""),
        Packet::udp(client, vip, b""),
    ] {
        let sent = site.send(&packet, CLIENTS);
        assert_eq!(sent.verdict, Verdict::Done(PacketReason::NotOurs));
        assert!(sent.answers.is_empty());
    }
    assert_eq!(site.count(PacketReason::NotOurs), 2);
}

#[test]
fn another_hash_seed_chooses_for_new_flows_at_once_and_explain_says_how() {
    let mut site = Site::new(Mode::Passthrough, Protocol::Tcp, 4);
    let clients: Vec<_> = (0..32).map(|n| site.client(1, 5_000 + n)).collect();
    let slots = |site: &Site| -> Vec<_> {
        clients
            .iter()
            .map(|c| site.explain(*c, Protocol::Tcp).slot)
            .collect()
    };
    let published = slots(&site);
    let (_, server) = site.connect(clients[0]);
    site.config.global.hash_seed = Some(HashSeed("secret".into()));
    site.apply();
    let seeded = slots(&site);
    assert!(published.iter().zip(&seeded).filter(|(a, b)| a == b).count() < 2);
    let kept = site.explain(clients[0], Protocol::Tcp);
    assert_eq!((kept.because, kept.server.unwrap().1.0), (Because::Flow, server));
    for client in &clients[1..] {
        let foretold = site.explain(*client, Protocol::Tcp).server.unwrap().1.0;
        assert_eq!(site.connect(*client).1, foretold);
    }
    site.config.global.hash_seed = None;
    site.apply();
    assert_eq!(slots(&site), published);
}

#[test]
fn explain_says_server_and_reason_and_changes_nothing() {
    let mut site = Site::new(Mode::Passthrough, Protocol::Tcp, 2);
    let client = site.client(1, 5_000);
    let before = site.explain(client, Protocol::Tcp);
    assert_eq!(before.because, Because::Maglev);
    assert!(before.slot.is_some() && before.flow.is_none());
    assert_eq!(site.flows.usage().nat_flows, 0);
    let (nat, server) = site.connect(client);
    let after = site.explain(client, Protocol::Tcp);
    assert_eq!(after.because, Because::Flow);
    assert_eq!(before.server, after.server);
    let flow = after.flow.unwrap();
    assert_eq!(
        (flow.nat, flow.server_addr.0, flow.state),
        (Some(nat), server, FlowState::Established)
    );
    assert_eq!(flow.expires_in, Duration::from_secs(900));

    let host = if server == server_addr(false, 1) { 1 } else { 2 };
    site.admin(host, Some(AdminState::Draining));
    assert_eq!(site.explain(client, Protocol::Tcp).because, Because::FlowDraining);
    site.admin(host, None);
    site.health(host, ServerState::Down);
    assert_eq!(
        site.explain(client, Protocol::Tcp).because,
        Because::FlowServerDown
    );
    let rest = site.explain(client, Protocol::Tcp);
    assert_eq!(rest.blocked_by, Some(PacketReason::ResetServerDown));
    site.health(3 - host, ServerState::Down);
    let other = site.client(2, 5_000);
    let none = site.explain(other, Protocol::Tcp);
    assert_eq!(
        (none.because, none.blocked_by),
        (Because::NoServer, Some(PacketReason::ResetNoServer))
    );
    assert_eq!(site.explain(other, Protocol::Udp).because, Because::NotServed);
}

#[test]
fn explain_says_that_a_dsr_flow_leaves_a_server_that_is_down() {
    let mut site = Site::new(Mode::Dsr, Protocol::Tcp, 2);
    let client = site.client(1, 5_000);
    let server = site.tcp(client, SYN).destination();
    let host = if server == server_addr(false, 1) { 1 } else { 2 };
    site.health(host, ServerState::Down);
    let explanation = site.explain(client, Protocol::Tcp);
    assert_eq!(explanation.because, Because::Maglev);
    assert_eq!(explanation.server.unwrap().0, key(3 - host));
    assert!(explanation.flow.is_some());
}

#[test]
fn explain_tells_of_a_next_hop_that_is_not_known() {
    let mut site = Site::new(Mode::Dsr, Protocol::Tcp, 1);
    for hop in site.hops.servers.values_mut() {
        hop.resolution = Resolution::Unresolved { ifindex: SERVERS };
    }
    let explanation = site.explain(site.client(1, 5), Protocol::Tcp);
    assert_eq!(explanation.blocked_by, Some(PacketReason::Unresolved));
}

#[test]
fn flows_are_listed_by_what_is_asked_for_up_to_a_limit_and_counted_beyond() {
    let mut site = Site::new(Mode::Passthrough, Protocol::Tcp, 2);
    for port in 1..=10 {
        let client = site.client(1, port);
        site.connect(client);
    }
    let (matching, listed) = site
        .flows
        .list(&|flow| flow.tuple.client.0.port() > 4, 3, site.now);
    assert_eq!((matching, listed.len()), (6, 3));
    let (none, _) = site
        .flows
        .list(&|_| true, 3, site.now.after(Duration::from_secs(900)));
    assert_eq!(none, 0, "what has expired is not shown");
}

#[test]
fn flows_of_dsr_are_listed_too() {
    let mut site = Site::new(Mode::Dsr, Protocol::Tcp, 2);
    for port in 1..=4 {
        let client = site.client(1, port);
        site.tcp(client, SYN);
    }
    let (matching, listed) = site.flows.list(&|_| true, 3, site.now);
    assert_eq!((matching, listed.len()), (4, 3));
    assert!(listed.iter().all(|flow| flow.nat.is_none()), "{listed:?}");
}
