//! What program and path are compared in: worlds, who is in them, and how much happens.

use crate::{differential::Plan, talks::Scene};

const RANDOM: Plan<'static> = Plan {
    world: "many",
    others: &[],
    locals: &[],
    packets: 20_000,
    calm: 200,
    is_timed: false,
    seldom: 1,
};

/// Random packets of strangers.
pub const STRANGERS: &[&Plan<'static>] = &[
    &RANDOM,
    &Plan {
        world: "many_seeded",
        ..RANDOM
    },
];

const LONG: Plan<'static> = Plan {
    world: "talks",
    others: &["talks_reloaded"],
    locals: &["10.0.0.254", "10.0.0.253", "2001:db8:a::fe"],
    packets: 3_000,
    calm: 40,
    is_timed: true,
    seldom: 10,
};

/// Conversations: of few NAT ports, for which clients compete; and of many.
pub const TALKS: &[(&Plan<'static>, &Scene)] = &[
    (
        &LONG,
        &Scene {
            clients: CLIENTS,
            ports: &[40_000, 40_001, 40_002, 40_003, 61_000, 61_001, 61_002],
            tcp: TCP,
            udp: UDP,
            talks: 60,
        },
    ),
    (
        &Plan {
            world: "talks_roomy",
            others: &[],
            ..LONG
        },
        &Scene {
            clients: CLIENTS,
            ports: &[20_000, 20_001, 40_000, 40_001, 40_002, 61_000, 61_001, 61_002],
            tcp: TCP,
            udp: UDP,
            talks: 60,
        },
    ),
];

const CLIENTS: &[&str] = &[
    "203.0.113.5",
    "203.0.113.6",
    "192.0.2.77",
    // a server that is a client
    "10.0.0.11",
    "2001:db8::5",
    "2001:db8::6",
];

const TCP: &[&str] = &[
    "198.51.100.1:80",
    "198.51.100.1:80",
    "198.51.100.1:80",
    "198.51.100.1:8080",
    "198.51.100.1:5004",
    "198.51.100.1:5009",
    "198.51.100.1:443",
    "198.51.100.1:9000",
    "10.0.0.253:61001",
    "[2001:db8:1::1]:80",
];

const UDP: &[&str] = &["198.51.100.1:53", "198.51.100.1:54", "[2001:db8:1::1]:53"];
