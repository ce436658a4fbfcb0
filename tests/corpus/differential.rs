//! Random packets meet the program with its slow path, and the pure path: both must do the same with each.
//!
//! `CONVEY_PACKETS=1000000` plays so many, from `CONVEY_SEED=N`; a failure names both.

use std::{fmt::Write as _, num::NonZeroU32, time::Duration};

use convey::{base::PacketReason, flow::Verdict};

use crate::{
    engine::{Engine, Outcome, Pure},
    expect::Arrived,
    kernel::Kernel,
    words::{Wrong, to_hex},
    world::{Change, World, Worlds},
};

/// Packets that CI plays in each world.
const PACKETS: u64 = 20_000;
/// Packets between two changes of the world, about.
const CALM: u64 = 200;

/// SplitMix64 (Steele, Lea and Flood: Fast Splittable Pseudorandom Number Generators, 2014).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides.max(1)
    }

    fn one_of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.roll(choices.len() as u64) as usize]
    }

    fn is_one_in(&mut self, times: u64) -> bool {
        self.roll(times) == 0
    }
}

/// A number that is set from outside, or this.
fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(otherwise)
}

/// Plays random packets in a world.
pub fn run(worlds: &Worlds, name: &str) -> Result<(), Wrong> {
    let seed = number("CONVEY_SEED", 1);
    let packets = number("CONVEY_PACKETS", PACKETS);
    let mut dice = Dice(seed);
    let mut both = Both::new(worlds, name)?;
    for n in 0..packets {
        if dice.is_one_in(CALM) {
            let change = both.change(&mut dice);
            change.map_err(|wrong| format!("{name}, seed {seed}, before packet {n}: {wrong}"))?;
        }
        let played = both.packet(worlds, &mut dice);
        played.map_err(|wrong| format!("{name}, seed {seed}, packet {n}: {wrong}"))?;
    }
    both.compare_counts()
        .map_err(|wrong| format!("{name}, seed {seed}, at the end: {wrong}"))
}

struct Both<'a> {
    /// A world for each: each has counters of its own.
    pure_world: World<'a>,
    kernel_world: World<'a>,
    pure: Pure,
    kernel: Kernel,
}

impl<'a> Both<'a> {
    fn new(worlds: &'a Worlds, name: &str) -> Result<Self, Wrong> {
        let max_flows = NonZeroU32::new(1 << 20).ok_or("0")?;
        let mut both = Self {
            pure_world: World::new(worlds, name)?,
            kernel_world: World::new(worlds, name)?,
            pure: Pure::new(max_flows),
            kernel: Kernel::new(max_flows),
        };
        both.apply();
        Ok(both)
    }

    fn apply(&mut self) {
        for (world, engine) in [
            (&mut self.pure_world, &mut self.pure as &mut dyn Engine),
            (&mut self.kernel_world, &mut self.kernel),
        ] {
            let snapshot = world.snapshot();
            engine.apply(&snapshot, &world.hops, &world.config.packet_services());
        }
    }

    /// Something happens: a server's state, a next hop, time.
    fn change(&mut self, dice: &mut Dice) -> Result<(), Wrong> {
        if dice.is_one_in(4) {
            let time = Duration::from_secs(1 + dice.roll(70));
            self.kernel.wait(time);
            self.pure.go_to(self.kernel.follow_clock());
            self.pure.wait(Duration::ZERO);
            return Ok(());
        }
        let mut change = Change::default();
        if dice.is_one_in(3) {
            change.hop = Some(dice.one_of(HOPS).parse().map_err(|_| "an address")?);
            match dice.roll(8) {
                0 => change.is = Some("unresolved".to_owned()),
                1 => change.mtu = Some(1_000),
                _ => (change.is, change.mtu) = (Some("known".to_owned()), Some(1_500)),
            }
        } else {
            let (backend, server) = (dice.one_of(BACKENDS), dice.one_of(&["s1", "s2", "s3"]));
            change.server = Some(format!("{backend}/{server}"));
            match dice.roll(12) {
                0 => change.weight = Some(1 + dice.roll(9) as u16),
                1 => change.state = Some("draining".to_owned()),
                2 => change.state = Some("down".to_owned()),
                3..6 => change.state = Some("ready".to_owned()),
                _ => change.state = Some("up".to_owned()),
            }
        }
        self.pure_world.change(&change)?;
        self.kernel_world.change(&change)?;
        self.apply();
        Ok(())
    }

    fn packet(&mut self, worlds: &Worlds, dice: &mut Dice) -> Result<(), Wrong> {
        let from = if dice.is_one_in(4) { "servers" } else { "clients" };
        let text = words(dice);
        let packet = Arrived::read(worlds, from, &text)
            .map_err(|wrong| format!("{text}: {wrong}"))?
            .described
            .whole();
        let (mut bytes, offload) = (packet.frame(), packet.offload());
        // what a sender leaves unfinished has not been on a wire
        if offload.checksum.is_none() && dice.is_one_in(10) {
            for _ in 0..1 + dice.roll(3) {
                let at = dice.roll(bytes.len().min(80) as u64) as usize;
                bytes[at] = dice.roll(256) as u8;
            }
        }
        if dice.is_one_in(40) {
            bytes.truncate(dice.roll(bytes.len() as u64) as usize);
        }
        let ifindex = worlds.interface(from)?.index;
        self.pure.go_to(self.kernel.follow_clock());
        let pure = self.pure.packet(&bytes, offload, ifindex);
        let kernel = self.kernel.packet(&bytes, offload, ifindex);
        same(&pure, &kernel).map_err(|wrong| format!("{text} by {from}: {wrong}\nframe {}", to_hex(&bytes)))
    }

    fn compare_counts(&self) -> Result<(), Wrong> {
        // else nothing has been compared
        let (by_program, all) = self.kernel.sent_by_program();
        if by_program * 10 < all {
            let passes = self.kernel.passes();
            return Err(format!(
                "the program has sent only {by_program} of {all} packets; left to the path: {passes:?}"
            ));
        }
        // has what the program has counted counted
        let _ = self.kernel.usage();
        for reason in PacketReason::ALL {
            let (pure, kernel) = (self.pure.count(*reason), self.kernel.count(*reason));
            if pure != kernel {
                return Err(format!(
                    "{reason}: {pure} by the path, {kernel} by program and path"
                ));
            }
        }
        let bytes = |world: &World<'_>| -> Vec<(String, u64)> {
            let servers = world.snapshot.iter().flat_map(|snapshot| snapshot.servers());
            servers
                .map(|(backend, server)| {
                    let name = format!("{}/{}", backend.config.name, server.name);
                    (name, server.live.counters.totals().bytes_in)
                })
                .collect()
        };
        let (pure, kernel) = (bytes(&self.pure_world), bytes(&self.kernel_world));
        match pure == kernel {
            true => Ok(()),
            false => Err(format!(
                "bytes of servers: {pure:?} by the path, {kernel:?} by program and path"
            )),
        }
    }
}

fn same(pure: &Outcome, kernel: &Outcome) -> Result<(), Wrong> {
    if pure.verdict != kernel.verdict {
        return Err(format!(
            "{:?} by the path, {:?} by program and path",
            pure.verdict, kernel.verdict
        ));
    }
    if pure.answers != kernel.answers {
        return Err(format!(
            "{:?} is sent besides by the path, {:?} by program and path",
            pure.answers, kernel.answers
        ));
    }
    let is_sent = matches!(pure.verdict, Verdict::Send { .. });
    if is_sent && (pure.frame != kernel.frame || pure.offload != kernel.offload) {
        let (pure, kernel) = (to_hex(&pure.frame), to_hex(&kernel.frame));
        return Err(format!(
            "sent by the path:\n{pure}\nby program and path:\n{kernel}"
        ));
    }
    Ok(())
}

const BACKENDS: &[&str] = &["web", "dns", "mapped", "direct", "media", "six"];
const HOPS: &[&str] = &[
    "10.0.0.11",
    "10.0.0.12",
    "10.0.0.13",
    "2001:db8:a::11",
    "2001:db8:a::12",
];
const CLIENTS4: &[&str] = &[
    "203.0.113.5",
    "203.0.113.6",
    "192.0.2.77",
    "198.51.100.1",
    "10.0.0.254",
    "10.0.0.11",
];
const CLIENTS6: &[&str] = &[
    "2001:db8::5",
    "2001:db8::6",
    "2001:db8:1::1",
    "2001:db8:a::11",
    "::ffff:192.0.2.1",
];
const PORTS4: &[&str] = &[
    "80", "80", "80", "53", "8080", "81", "5004", "5010", "5005", "443", "9", "61000",
];
const PORTS6: &[&str] = &["80", "80", "53", "81"];

/// A packet in words.
fn words(dice: &mut Dice) -> String {
    let is_v6 = dice.is_one_in(4);
    let protocol = dice.one_of(&["tcp", "tcp", "tcp", "udp"]);
    let port = 40_000 + dice.roll(12);
    let mut text = if is_v6 {
        let (client, to) = (dice.one_of(CLIENTS6), dice.one_of(PORTS6));
        format!("{protocol} [{client}]:{port} > [2001:db8:1::1]:{to}")
    } else {
        let (client, to) = (dice.one_of(CLIENTS4), dice.one_of(PORTS4));
        format!("{protocol} {client}:{port} > 198.51.100.1:{to}")
    };
    if protocol == "tcp" {
        let flags = dice.one_of(&[
            "S", "S", "S", "A", "A", "A", "AP", "SA", "AF", "F", "R", "RA", "SF", "",
        ]);
        let _ = write!(text, " flags={flags}");
    }
    let _ = write!(
        text,
        " len={}",
        [0, 0, 1, 7, 100, 960, 1_000, 1_400, 1_460, 1_473, 2_000][dice.roll(11) as usize]
    );
    for (odds, word) in [
        (20, "ttl=1"),
        (30, "ttl=0"),
        (12, "ttl=2"),
        (20, "vlan=5"),
        (40, "vlan=88a8:5,8100:6"),
        (10, "pad=6"),
        (8, "sum=unfinished"),
        (30, "sum=wrong"),
        (30, "nodf"),
        (30, "dmac=02:00:00:00:09:09"),
        (40, "frag=0+24,more"),
        (40, "frag=24+16"),
    ] {
        if dice.is_one_in(odds) {
            let _ = write!(text, " {word}");
        }
    }
    if protocol == "udp" && dice.is_one_in(8) {
        text += " sum=zero";
    }
    if !is_v6 && dice.is_one_in(20) {
        text += " ipopt=01010101";
    }
    if is_v6 && dice.is_one_in(20) {
        text += " ext=60:0000010400000000";
    }
    text
}
