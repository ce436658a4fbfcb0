//! A conversation of a client and a server by TCP or UDP: what its hosts say next, and what forgers say in their names.

use std::{fmt::Write as _, net::SocketAddr};

use crate::{dice::Dice, random::oddities, world::Worlds};

/// Ways that clients' packets come: interface and what else they show.
const WAYS: [(&str, &str); 12] = [
    ("clients", ""),
    ("clients", ""),
    ("clients", ""),
    ("clients", ""),
    ("clients", ""),
    ("clients", " smac=02:00:00:00:01:98"),
    ("clients", " smac=02:00:00:00:01:98"),
    ("servers", " smac=02:00:00:00:02:98"),
    ("servers", " smac=02:00:00:00:02:98"),
    ("servers", " vlan=7"),
    ("clients", " vlan=5"),
    ("clients", " vlan=88a8:5,8100:6"),
];

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Client,
    Server,
}

/// A conversation.
pub struct Talk {
    client: SocketAddr,
    vip: SocketAddr,
    is_tcp: bool,
    /// Of [`WAYS`].
    way: usize,
    /// The server and the address that it knows the client by.
    ends: Option<(SocketAddr, SocketAddr)>,
    client_end: End,
    server_end: End,
    /// What the hosts' clocks say, if they say it.
    clock: Option<u32>,
}

/// What a side of a connection knows.
#[derive(Clone, Copy, Default)]
pub struct End {
    first: u32,
    next: u32,
    /// The other side's next number.
    heard: u32,
    has_begun: bool,
    has_ended: bool,
}

/// What a side says.
pub struct Segment {
    by: Side,
    flags: &'static str,
    sequence: u32,
    acknowledged: u32,
    len: u32,
}

impl Talk {
    /// One that has not begun.
    pub fn new(client: SocketAddr, vip: SocketAddr, is_tcp: bool, dice: &mut Dice) -> Self {
        Self {
            client,
            vip,
            is_tcp,
            way: dice.roll(WAYS.len() as u64) as usize,
            ends: None,
            client_end: End::default(),
            server_end: End::default(),
            clock: dice.is_one_in(2).then(|| dice.sequence()),
        }
    }

    /// Where from and where to.
    pub const fn tuple(&self) -> (SocketAddr, SocketAddr) {
        (self.client, self.vip)
    }

    /// Its client's packets come by another way from now on.
    pub fn turn(&mut self, dice: &mut Dice) {
        self.way = dice.roll(WAYS.len() as u64) as usize;
    }

    /// A client's packet has left so. What was said before another server knows nothing of.
    pub fn goes_by(&mut self, server: SocketAddr, nat: SocketAddr) {
        if self.ends.replace((server, nat)) != Some((server, nat)) {
            self.server_end = End::default();
        }
    }

    /// The client has heard that there is no connection.
    pub fn is_reset(&mut self) {
        (self.client_end, self.ends) = (End::default(), None);
    }
    fn ends_of(&mut self, side: Side) -> (&mut End, &mut End) {
        match side {
            Side::Client => (&mut self.client_end, &mut self.server_end),
            Side::Server => (&mut self.server_end, &mut self.client_end),
        }
    }

    /// The other side takes a segment in.
    pub fn hear(&mut self, segment: &Segment) {
        let (_, listener) = self.ends_of(segment.by);
        let end = segment.sequence.wrapping_add(segment.numbered());
        if segment.flags.contains('R') {
            *listener = End::default();
        } else if segment.flags.contains('S') || segment.sequence == listener.heard {
            listener.heard = end;
        }
    }

    /// The next segment, and whether a host sends it.
    pub fn say(&mut self, dice: &mut Dice) -> (Segment, bool) {
        if let Some(clock) = &mut self.clock {
            *clock = clock.wrapping_add(dice.roll(50) as u32);
        }
        if !self.is_tcp {
            return (self.datagram(dice), true);
        }
        if dice.is_one_in(10) {
            return (self.forged(dice), false);
        }
        let (client, server) = (self.client_end, self.server_end);
        let segment = if !client.has_begun {
            self.syn(dice)
        } else if !server.has_begun {
            self.answer_syn(dice)
        } else if client.heard != server.next && client.next == client.first.wrapping_add(1) {
            self.finish_handshake(dice)
        } else {
            self.go_on(dice)
        };
        (segment, true)
    }

    fn datagram(&self, dice: &mut Dice) -> Segment {
        Segment {
            by: self.one_side(dice),
            flags: "",
            sequence: 0,
            acknowledged: 0,
            len: length(dice),
        }
    }

    /// A side that can speak.
    fn one_side(&self, dice: &mut Dice) -> Side {
        if self.ends.is_some() && dice.is_one_in(2) {
            Side::Server
        } else {
            Side::Client
        }
    }

    /// The client begins, or begins anew.
    fn syn(&mut self, dice: &mut Dice) -> Segment {
        let first = if dice.is_one_in(2) {
            dice.sequence()
        } else {
            self.client_end.next.wrapping_add(dice.roll(200_000) as u32)
        };
        if dice.is_one_in(10) {
            // a host that has started anew
            self.clock = self.clock.map(|_| dice.sequence());
        }
        self.client_end = End {
            first,
            next: first,
            has_begun: true,
            ..End::default()
        };
        self.server_end = End {
            heard: self.server_end.heard,
            ..End::default()
        };
        let with_data = if dice.is_one_in(20) { 100 } else { 0 };
        self.send(Side::Client, "S", with_data)
    }

    fn answer_syn(&mut self, dice: &mut Dice) -> Segment {
        match dice.roll(if self.ends.is_some() { 16 } else { 3 }) {
            0 => self.again(Side::Client, "S"),
            1 => self.syn(dice),
            2 => {
                let segment = self.send(Side::Client, "R", 0);
                self.client_end = End::default();
                segment
            }
            3 => {
                self.client_end = End::default();
                self.send(Side::Server, "RA", 0)
            }
            4 => self.send(Side::Server, "A", 0),
            _ => {
                let first = dice.sequence();
                self.server_end = End {
                    first,
                    next: first,
                    has_begun: true,
                    ..self.server_end
                };
                self.send(Side::Server, "SA", 0)
            }
        }
    }

    fn finish_handshake(&mut self, dice: &mut Dice) -> Segment {
        match dice.roll(16) {
            0 => self.again(Side::Server, "SA"),
            1 => self.again(Side::Client, "S"),
            2 => {
                let segment = self.send(Side::Client, "R", 0);
                (self.client_end, self.server_end) = (End::default(), End::default());
                segment
            }
            3 => self.send(Side::Server, "RA", 0),
            _ => {
                // whether or not it has heard the answer: it asks again otherwise
                self.client_end.heard = self.server_end.next;
                let len = if dice.is_one_in(3) { 100 } else { 0 };
                self.send(Side::Client, "A", len)
            }
        }
    }

    fn go_on(&mut self, dice: &mut Dice) -> Segment {
        let is_over = self.client_end.has_ended && self.server_end.has_ended;
        if is_over && dice.is_one_in(4) {
            return self.syn(dice);
        }
        let side = self.one_side(dice);
        let (own, other) = self.ends_of(side);
        let unheard = own.next.wrapping_sub(other.heard);
        if unheard != 0 && unheard < 1 << 20 && dice.is_one_in(2) {
            return Segment {
                by: side,
                flags: "A",
                sequence: other.heard,
                acknowledged: own.heard,
                len: unheard.min(1_400),
            };
        }
        if own.has_ended {
            return self.send(side, "A", 0);
        }
        match dice.roll(24) {
            0..4 => {
                own.has_ended = true;
                self.send(side, "AF", 0)
            }
            4 => {
                let segment = self.send(side, dice.one_of(&["R", "RA"]), 0);
                self.client_end = End::default();
                segment
            }
            5..12 => self.send(side, "A", 0),
            // much at once, of which only the end comes by here
            12 if dice.is_one_in(4) => {
                own.next = own.next.wrapping_add(dice.roll(300_000) as u32);
                self.send(side, "A", 0)
            }
            _ => self.send(side, "AP", length(dice)),
        }
    }

    /// The next segment of a side.
    fn send(&mut self, side: Side, flags: &'static str, len: u32) -> Segment {
        let (own, _) = self.ends_of(side);
        let segment = Segment {
            by: side,
            flags,
            sequence: own.next,
            acknowledged: own.heard,
            len,
        };
        own.next = own.next.wrapping_add(segment.numbered());
        segment
    }

    /// A side's first segment once more.
    fn again(&mut self, side: Side, flags: &'static str) -> Segment {
        let (own, _) = self.ends_of(side);
        Segment {
            by: side,
            flags,
            sequence: own.first,
            acknowledged: own.heard,
            len: 0,
        }
    }

    /// What somebody sends who has seen some numbers, or none, or what a host sends that is out of its mind.
    fn forged(&mut self, dice: &mut Dice) -> Segment {
        let side = self.one_side(dice);
        let (own, other) = self.ends_of(side);
        let near = |dice: &mut Dice, number: u32| match dice.roll(8) {
            0 => number.wrapping_add(dice.roll(40) as u32),
            1 => number.wrapping_sub(dice.roll(40) as u32),
            2 => number.wrapping_add(dice.roll(70_000) as u32),
            3 => number.wrapping_sub(dice.roll(70_000) as u32),
            4 => dice.sequence(),
            _ => number,
        };
        let sequence = if dice.is_one_in(3) { other.heard } else { own.next };
        let acknowledged = if dice.is_one_in(3) { other.next } else { own.heard };
        Segment {
            by: side,
            flags: dice.one_of(&[
                "A", "A", "AP", "AF", "F", "R", "R", "RA", "S", "S", "SA", "SF", "",
            ]),
            sequence: near(dice, sequence),
            acknowledged: near(dice, acknowledged),
            len: if dice.is_one_in(2) { length(dice) } else { 0 },
        }
    }

    /// A segment as a packet in words, and the interface that it comes in by.
    pub fn packet(
        &self,
        worlds: &Worlds,
        segment: &Segment,
        is_honest: bool,
        dice: &mut Dice,
    ) -> (String, String) {
        let (mut by, shown, from, to) = match (segment.by, self.ends) {
            (Side::Server, Some((server, nat))) => {
                let is_stranger = !is_honest && dice.is_one_in(8);
                let port = if is_stranger {
                    server.port() ^ 1
                } else {
                    server.port()
                };
                let from = SocketAddr::new(server.ip(), port);
                (
                    worlds.hops.get(&server.ip()).map_or("servers", |hop| &hop.by),
                    "",
                    from,
                    nat,
                )
            }
            _ => {
                let mut way = WAYS[self.way];
                if !is_honest && dice.is_one_in(2) {
                    way = WAYS[dice.roll(WAYS.len() as u64) as usize];
                }
                (way.0, way.1, self.client, self.vip)
            }
        };
        if !is_honest && segment.by == Side::Server && dice.is_one_in(4) {
            by = dice.one_of(&["clients", "servers"]);
        }
        let mut text = if self.is_tcp {
            format!(
                "tcp {from} > {to} flags={} seq={} ack={} len={}",
                segment.flags, segment.sequence, segment.acknowledged, segment.len
            )
        } else {
            format!("udp {from} > {to} len={}", segment.len)
        };
        if let Some(clock) = self.clock.filter(|_| self.is_tcp) {
            let _ = write!(text, " opt=0101080a{clock:08x}00000000");
        }
        text += shown;
        text += &oddities(dice, 8, from.is_ipv6());
        (text, by.to_owned())
    }

    /// An ICMP error about one of its packets: from the way to the server, or from that to the client.
    pub fn error(&self, worlds: &Worlds, dice: &mut Dice) -> Option<(String, String)> {
        let (server, nat) = self.ends?;
        let is_towards_server = dice.is_one_in(2);
        let (from, to, by, about) = if is_towards_server {
            let by = worlds.hops.get(&server.ip()).map_or("servers", |hop| &hop.by);
            (server.ip(), nat.ip(), by, (nat, server))
        } else {
            (
                self.client.ip(),
                self.vip.ip(),
                WAYS[self.way].0,
                (self.vip, self.client),
            )
        };
        let kind = match (from.is_ipv6(), dice.roll(3)) {
            (false, 0) => "type=3 code=4 rest=1300",
            (false, 1) => "type=3 code=3",
            (false, _) => "type=11 code=0",
            (true, 0) => "type=2 code=0 rest=1300",
            (true, 1) => "type=1 code=4",
            (true, _) => "type=3 code=0",
        };
        let (quoted, end) = if is_towards_server {
            (self.client_end, self.server_end)
        } else {
            (self.server_end, self.client_end)
        };
        let sequence = match dice.roll(4) {
            0 => dice.sequence(),
            1 => quoted.next,
            _ => end.heard,
        };
        let inner = if self.is_tcp {
            format!("tcp {} > {} flags=A seq={sequence}", about.0, about.1)
        } else {
            format!("udp {} > {} len=100", about.0, about.1)
        };
        let cut = if from.is_ipv6() { 60 } else { 28 };
        Some((
            format!("icmp {from} > {to} {kind} cut={cut} {{ {inner} }}"),
            by.to_owned(),
        ))
    }
}

impl Segment {
    /// The sequence numbers that it takes.
    fn numbered(&self) -> u32 {
        let of_flags = self.flags.chars().filter(|flag| "SF".contains(*flag)).count();
        self.len + of_flags as u32
    }
}

fn length(dice: &mut Dice) -> u32 {
    [1, 7, 100, 500, 960, 1_000, 1_400, 1_440, 1_473][dice.roll(9) as usize]
}
