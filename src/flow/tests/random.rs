//! Whatever comes in whatever order: the tables stay whole.

use std::{collections::HashMap, num::NonZeroU32, sync::Arc, time::Duration};

use proptest::prelude::*;

use crate::{
    base::{PacketReason, Protocol, ServerState},
    config::{Mode, PortsPerClient},
    flow::{Verdict, testing::*},
    packet::{Frame, HEADROOM, Offload},
    pools::AdminState,
};

#[derive(Debug, Clone)]
enum Event {
    Client {
        host: u8,
        port: u16,
        flags: u8,
    },
    /// A reply of the flow that was seen so many packets ago.
    Server {
        which: prop::sample::Index,
        flags: u8,
    },
    Time(u64),
    State(u8, ServerState),
    Drain(u8, bool),
    Mode(bool),
    Range(u16),
    Remove(bool),
}

fn flags() -> impl Strategy<Value = u8> {
    prop::sample::select(vec![SYN, SYN, SYN_ACK, ACK, ACK, FIN_ACK, RST, 0])
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        10 => (1..4_u8, 1..40_u16, flags()).prop_map(|(host, port, flags)| Event::Client { host, port, flags }),
        10 => (any::<prop::sample::Index>(), flags())
            .prop_map(|(which, flags)| Event::Server { which, flags }),
        3 => prop::sample::select(vec![1, 500, 9_000, 61_000, 901_000]).prop_map(Event::Time),
        1 => (1..4_u8, any::<bool>()).prop_map(|(server, up)| {
            Event::State(server, if up { ServerState::Up } else { ServerState::Down })
        }),
        1 => (1..4_u8, any::<bool>()).prop_map(|(server, drain)| Event::Drain(server, drain)),
        1 => any::<bool>().prop_map(Event::Mode),
        1 => (61_000..61_010_u16).prop_map(Event::Range),
        1 => any::<bool>().prop_map(Event::Remove),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn over_any_schedule_the_tables_stay_whole_and_replies_reach_who_asked(
        events in prop::collection::vec(event(), 1..150),
        limit in 4..40_u32,
        passthrough in any::<bool>(),
        (connections, ports) in (1..8_u32, 1..8_u32),
    ) {
        let mode = |passthrough| if passthrough { Mode::Passthrough } else { Mode::Dsr };
        let mut site = Site::with(mode(passthrough), Protocol::Tcp, 3, false, limit);
        site.nat_ports(61_000, 61_010);
        site.ports_per_client(PortsPerClient::Count(NonZeroU32::new(ports).unwrap()));
        site.per_client(connections, 0);
        let frontend = site.config.frontends["a"].clone();
        // who was last given a NAT address towards a server
        let mut holders = HashMap::new();
        let mut order = Vec::new();
        for event in events {
            match event {
                Event::Client { host, port, flags } => {
                    let client = site.client(host, port);
                    let sent = site.tcp(client, flags);
                    if let Verdict::Send { reason, .. } = sent.verdict {
                        prop_assert_eq!(reason, PacketReason::ToServer);
                        let (nat, server) = sent.ends();
                        if nat != client {
                            holders.insert((nat, server), client);
                            order.push((nat, server));
                        }
                    }
                }
                Event::Server { which, flags } => {
                    if !order.is_empty() {
                        let (nat, server) = order[which.index(order.len())];
                        let sent = site.reply(server, nat, flags);
                        match sent.verdict {
                            Verdict::Send { .. } => {
                                prop_assert_eq!(sent.ends(), (site.vip(), holders[&(nat, server)]));
                            }
                            verdict => prop_assert!(matches!(
                                verdict,
                                Verdict::Done(PacketReason::ForeignSource | PacketReason::NotOurs)
                            ), "{:?}", verdict),
                        }
                    }
                }
                Event::Time(ms) => site.expire_after(Duration::from_millis(ms)),
                Event::State(server, state) => site.health(server, state),
                Event::Drain(server, drain) => {
                    site.admin(server, drain.then_some(AdminState::Draining));
                }
                Event::Mode(passthrough) => {
                    if let Some(frontend) = site.config.frontends.get_mut("a") {
                        Arc::make_mut(frontend).mode = mode(passthrough);
                    }
                    site.apply();
                }
                Event::Range(last) => site.nat_ports(61_000, last),
                Event::Remove(remove) => {
                    if remove {
                        site.config.frontends.remove("a");
                    } else {
                        site.config.frontends.insert(frontend.name.clone(), frontend.clone());
                    }
                    site.apply();
                }
            }
            site.check();
        }
        site.expire_after(Duration::from_secs(1_000));
        let usage = site.flows.usage();
        prop_assert_eq!((usage.nat_flows, usage.half_open, usage.dsr_flows), (0, 0, 0));
        // nobody holds anything any more
        prop_assert_eq!(site.flows.store.shares().held(), 0);
        if let Some(frontend) = site.snapshot.as_ref().unwrap().frontends.get("a") {
            let access = frontend.access.as_ref().unwrap();
            for host in 1..4 {
                let client = site.client(host, 1).ip();
                let held: Vec<_> = (0..=connections).map(|_| access.take(client, 0)).collect();
                prop_assert_eq!(held.iter().filter(|permit| permit.is_ok()).count() as u32, connections);
            }
        }
    }

    #[test]
    fn no_bytes_break_the_path(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        ether in prop::sample::select(vec![0x0800_u16, 0x86dd, 0x8100, 0x0806]),
    ) {
        let mut site = Site::new(Mode::Passthrough, Protocol::Udp, 1);
        let mut buffer = vec![0; HEADROOM];
        buffer.extend(&bytes);
        if let Some(place) = buffer.get_mut(HEADROOM + 12..HEADROOM + 14) {
            place.copy_from_slice(&ether.to_be_bytes());
        }
        let len = bytes.len();
        let mut frame = Frame::new(&mut buffer, HEADROOM, len, Offload::default()).unwrap();
        let verdict = site.path.process(&mut frame, CLIENTS, site.now);
        prop_assert!(!matches!(verdict, Verdict::Send { .. }), "{:?}", verdict);
    }
}
