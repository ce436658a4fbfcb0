//! Flows that somebody closes.

use crate::{
    base::{PacketReason, Protocol},
    config::Mode,
    flow::{FlowInfo, Verdict, testing::*},
};

#[test]
fn flows_that_are_closed_are_reset_at_their_next_packet_and_free_their_ports() {
    let mut site = Site::new(Mode::Passthrough, Protocol::Tcp, 2);
    let clients: Vec<_> = (1..=20).map(|port| site.client(1, port)).collect();
    for client in &clients {
        site.connect(*client);
    }
    let of_first = |flow: &FlowInfo| flow.server.server.as_str() == "s1";
    let (count, seen) = site.flows.list(&of_first, 100, site.now);
    assert!(count > 0 && count < 20);
    assert_eq!(site.path.forget(&seen, site.now), count);
    assert_eq!(site.path.forget(&seen, site.now), 0, "they are gone");
    assert_eq!(site.flows.usage().nat_flows, 20 - count);
    for client in &clients {
        let sent = site.tcp(*client, ACK);
        let was_closed = seen.iter().any(|flow| flow.tuple.client.0 == *client);
        let is_reset = sent.verdict == Verdict::Done(PacketReason::ResetNoFlow);
        assert_eq!(is_reset, was_closed, "{client}: {:?}", sent.verdict);
    }
    // one that has begun anew since it was seen is another one
    let client = seen[0].tuple.client.0;
    site.connect(client);
    let mut other = seen[0].clone();
    other.nat = Some(site.client(9, 9));
    assert_eq!(site.path.forget(&[other], site.now), 0);
    assert!(matches!(site.tcp(client, ACK).verdict, Verdict::Send { .. }));
}
