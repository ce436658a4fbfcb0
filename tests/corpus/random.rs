//! Random packets of strangers, most of which fit nothing.

use std::fmt::Write as _;

use crate::{dice::Dice, differential::Traffic, engine::Outcome, words::Wrong, world::Worlds};

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

/// See the [module](self).
pub struct Strangers;

impl Traffic for Strangers {
    fn next(&mut self, _: &Worlds, dice: &mut Dice) -> Result<Option<(String, String)>, Wrong> {
        let from = if dice.is_one_in(4) { "servers" } else { "clients" };
        Ok(Some((words(dice), from.to_owned())))
    }

    fn became(&mut self, _: &Outcome) {}
}

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
        dice.one_of(&[0, 0, 1, 7, 100, 960, 1_000, 1_400, 1_460, 1_473, 2_000])
    );
    text += &oddities(dice, 1, is_v6);
    if protocol == "udp" && dice.is_one_in(8) {
        text += " sum=zero";
    }
    text
}

/// What may be odd about a packet, so many times as seldom as of strangers.
pub fn oddities(dice: &mut Dice, seldom: u64, is_v6: bool) -> String {
    let mut text = String::new();
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
        if dice.is_one_in(odds * seldom) {
            let _ = write!(text, " {word}");
        }
    }
    if dice.is_one_in(20 * seldom) {
        text += if is_v6 {
            " ext=60:0000010400000000"
        } else {
            " ipopt=01010101"
        };
    }
    text
}
