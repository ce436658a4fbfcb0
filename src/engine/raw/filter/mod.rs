//! The socket filter: classic BPF that admits what the services need, and nothing else. Pure.
//!
//! ```text
//! for us? ─► 0–2 VLAN tags ─► IPv4, IPv6 + extension headers ─┬─ ports ─► VIP and port? server to a NAT port?
//!                                                             ├─ a later fragment ─► VIP? from a server?
//!                                                             └─ an ICMP error ─► VIP? (passthrough: any)
//! ```
//!
//! What it admits is looked at again by [`crate::flow::Path`]; what it refuses, no copy is made of. So a coarser program is
//! correct too, and is what a configuration gets that needs more instructions than the kernel takes.

mod assembler;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, net::IpAddr};

use assembler::{Assembler, Label, code};

use crate::{
    base::{PortRange, PortRanges, Protocol},
    config::PacketService,
    sys::packet_socket::Instruction,
};

/// How closely a program looks; each admits all that the one before it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// At addresses and ports.
    Exact,
    /// At ports, whatever the address.
    Ports,
    /// At protocols only.
    Protocols,
}

impl Precision {
    /// Finest first.
    pub const ALL: [Self; 3] = [Self::Exact, Self::Ports, Self::Protocols];
}

/// The program for these services: incoming packets to a VIP's port, from a server to the NAT ports, ICMP errors and
/// non-first fragments that may belong to these; never what we send ourselves. `None` if it would be longer than the
/// kernel takes, which the coarsest never is.
#[must_use]
pub fn program(services: &[PacketService], precision: Precision) -> Option<Vec<Instruction>> {
    let mut writer = Writer {
        asm: Assembler::default(),
        precision,
    };
    let wanted4 = FilterTargets::of(services.iter().filter(|service| service.vip.is_ipv4()));
    let wanted6 = FilterTargets::of(services.iter().filter(|service| !service.vip.is_ipv4()));
    let (ip4, ip6) = (writer.asm.label(), writer.asm.label());
    writer.link_header(ip4, ip6);
    writer.asm.mark(ip4);
    writer.ip4(&wanted4);
    writer.asm.mark(ip6);
    writer.ip6(&wanted6);
    writer.asm.finish()
}

/// By address: protocols' numbers with ports, as [`key`] puts them together, in ranges that do not touch.
type Ports = BTreeMap<IpAddr, Vec<KeyRange>>;

/// Keys from one to another, both included.
type KeyRange = (u32, u32);

/// What one address family's services want.
#[derive(Debug, Default)]
struct FilterTargets {
    /// VIPs and their ports.
    vips: Ports,
    /// Servers whose answers come through us and their ports, for each range of NAT ports that they answer to.
    servers: BTreeMap<PortRange, Ports>,
}

impl FilterTargets {
    fn of<'a>(services: impl Iterator<Item = &'a PacketService>) -> Self {
        let mut wanted = Self::default();
        for service in services {
            let add = |all: &mut Ports, ip: IpAddr, ports: PortRange| {
                let key = |port| key(service.vip.protocol, port);
                (all.entry(ip).or_default()).push((key(ports.first), key(ports.last)));
            };
            add(&mut wanted.vips, service.vip.ip(), service.vip.ports());
            for range in service.nat_ports.iter().flat_map(PortRanges::iter) {
                let servers = wanted.servers.entry(range).or_default();
                for server in &service.servers {
                    add(servers, server.0.ip(), service.server_ports(*server));
                }
            }
        }
        let by_address = std::iter::once(&mut wanted.vips).chain(wanted.servers.values_mut());
        for keys in by_address.flat_map(BTreeMap::values_mut) {
            *keys = joined(std::mem::take(keys));
        }
        wanted
    }
}

/// A protocol and a port as one number.
fn key(protocol: Protocol, port: u16) -> u32 {
    u32::from(protocol.number()) << 16 | u32::from(port)
}

/// Stands for the key of a packet that shows none: it is judged by its addresses.
const ANY_KEY: u32 = 0;

/// EtherTypes.
const IP4: u32 = 0x0800;
const IP6: u32 = 0x86dd;
/// Of VLAN tags: 802.1Q, 802.1ad.
const TAGS: [u32; 2] = [0x8100, 0x88a8];

/// Of IP.
const TCP: u32 = 6;
const UDP: u32 = 17;
const ICMP: u32 = 1;
const ICMP6: u32 = 58;

/// IPv6 extension headers whose second byte is their length in units of 8 bytes, less one: hop-by-hop options,
/// routing, destination options (RFC 8200 section 4).
const EXTENSIONS: [u32; 3] = [0, 43, 60];
const FRAGMENT: u32 = 44;
/// Authentication header, mobility, host identity, shim6: what is behind them is not looked for.
const HIDING: [u32; 4] = [51, 135, 139, 140];
/// IPv6 extension headers that are walked over.
const MAX_EXTENSIONS: usize = 3;

/// ICMP errors about a packet: destination unreachable, time exceeded, parameter problem.
const ERRORS: [u32; 3] = [3, 11, 12];
/// ICMPv6 errors: destination unreachable, packet too big, time exceeded, parameter problem.
const ERRORS6: [u32; 4] = [1, 2, 3, 4];

/// Scratch memory.
mod scratch {
    /// Where the IP header starts.
    pub const NETWORK: u32 = 0;
    pub const PROTOCOL: u32 = 1;
    /// Keys of the packet's source and destination.
    pub const SOURCE: u32 = 2;
    pub const DESTINATION: u32 = 3;
}

/// Offsets of the two addresses in the IP header, and which of them a table is about.
#[derive(Debug, Clone, Copy)]
enum Side {
    Source,
    Destination,
}

impl Side {
    fn offset(self, addr: &IpAddr) -> u32 {
        match (self, addr) {
            (Self::Source, IpAddr::V4(_)) => 12,
            (Self::Destination, IpAddr::V4(_)) => 16,
            (Self::Source, IpAddr::V6(_)) => 8,
            (Self::Destination, IpAddr::V6(_)) => 24,
        }
    }

    /// Where the key of this side is kept.
    const fn key(self) -> u32 {
        match self {
            Self::Source => scratch::SOURCE,
            Self::Destination => scratch::DESTINATION,
        }
    }
}

/// Words of a header with their offsets in it.
type Words = Vec<(u32, u32)>;

/// The words of an address with their offsets in the IP header: the last one, which tells most addresses apart, and the
/// others.
fn words(side: Side, addr: &IpAddr) -> ((u32, u32), Words) {
    let start = side.offset(addr);
    match addr {
        IpAddr::V4(addr) => ((start, addr.to_bits()), Vec::new()),
        IpAddr::V6(addr) => {
            let word = |n: u32| (start + 4 * n, (addr.to_bits() >> (96 - 32 * n)) as u32);
            (word(3), vec![word(2), word(1), word(0)])
        }
    }
}

/// Where the kinds of packets of one family are dealt with.
struct Kinds {
    /// Later fragments, which have no ports.
    later: Label,
    /// ICMP, X at its header.
    icmp: Label,
    /// TCP and UDP, X at the ports.
    ports: Label,
    /// What is judged by its addresses alone.
    addresses: Label,
    /// What is not admitted.
    other: Label,
}

struct Writer {
    asm: Assembler,
    precision: Precision,
}

impl Writer {
    /// Leaves X at the IP header. The first tag is usually not in the frame; two more may be.
    fn link_header(&mut self, ip4: Label, ip6: Label) {
        // SKF_AD_OFF + SKF_AD_PKTTYPE of linux/filter.h; PACKET_HOST is 0: neither what we send nor what is for others
        const PACKET_TYPE: u32 = 0xffff_f004;
        let other = self.asm.label();
        self.asm.op(code::LOAD_HALF, PACKET_TYPE);
        self.asm.jump_unless(code::EQUAL, 0, other);
        for (ether_type, header) in [(12, 14), (16, 18), (20, 22)] {
            let tagged = self.asm.label();
            self.asm
                .ops(&[(code::SET_X, header), (code::LOAD_HALF, ether_type)]);
            self.asm.jump_if(code::EQUAL, IP4, ip4);
            self.asm.jump_if(code::EQUAL, IP6, ip6);
            for tag in TAGS {
                self.asm.jump_if(code::EQUAL, tag, tagged);
            }
            self.asm.jump(other);
            self.asm.mark(tagged);
        }
        self.asm.mark(other);
        self.asm.refuse();
    }

    fn ip4(&mut self, wanted: &FilterTargets) {
        if wanted.vips.is_empty() {
            return self.asm.refuse();
        }
        let kinds = self.kinds();
        self.asm.ops(&[
            (code::STORE_X, scratch::NETWORK),
            (code::LOAD_BYTE_X, 9),
            (code::STORE, scratch::PROTOCOL),
            (code::LOAD_HALF_X, 6),
        ]);
        self.asm.jump_if(code::ANY_BIT, 0x1fff, kinds.later);
        self.asm.ops(&[
            (code::LOAD_BYTE_X, 0),
            (code::AND, 0xf),
            (code::SHIFT_LEFT, 2),
            (code::ADD_X, 0),
            (code::A_TO_X, 0),
            (code::LOAD, scratch::PROTOCOL),
        ]);
        self.asm.jump_if(code::EQUAL, ICMP, kinds.icmp);
        self.asm.jump_if(code::EQUAL, TCP, kinds.ports);
        self.asm.jump_if(code::EQUAL, UDP, kinds.ports);
        self.asm.jump(kinds.other);
        self.sort(&kinds, ICMP, &ERRORS, wanted);
    }

    fn ip6(&mut self, wanted: &FilterTargets) {
        if wanted.vips.is_empty() {
            return self.asm.refuse();
        }
        let (kinds, walked) = (self.kinds(), self.asm.label());
        self.asm.ops(&[
            (code::STORE_X, scratch::NETWORK),
            (code::LOAD_BYTE_X, 6),
            (code::STORE, scratch::PROTOCOL),
            (code::X_TO_A, 0),
            (code::ADD, 40),
            (code::A_TO_X, 0),
        ]);
        for _ in 0..MAX_EXTENSIONS {
            self.extension(walked, kinds.later);
        }
        self.asm.mark(walked);
        self.asm.op(code::LOAD, scratch::PROTOCOL);
        self.asm.jump_if(code::EQUAL, ICMP6, kinds.icmp);
        self.asm.jump_if(code::EQUAL, TCP, kinds.ports);
        self.asm.jump_if(code::EQUAL, UDP, kinds.ports);
        for header in EXTENSIONS.iter().chain(&HIDING).chain(&[FRAGMENT]) {
            self.asm.jump_if(code::EQUAL, *header, kinds.addresses);
        }
        self.asm.jump(kinds.other);
        self.sort(&kinds, ICMP6, &ERRORS6, wanted);
    }

    fn kinds(&mut self) -> Kinds {
        let [later, icmp, ports, addresses, other] = [(); 5].map(|()| self.asm.label());
        Kinds {
            later,
            icmp,
            ports,
            addresses,
            other,
        }
    }

    /// What is done with each kind of packet of one family, whose ICMP has a number and types that are errors.
    fn sort(&mut self, kinds: &Kinds, icmp: u32, errors: &[u32], wanted: &FilterTargets) {
        let judge = self.asm.label();
        self.asm.mark(kinds.icmp);
        self.errors(errors, wanted, kinds.addresses);
        self.asm.mark(kinds.later);
        self.asm.op(code::LOAD, scratch::PROTOCOL);
        self.asm.jump_if(code::EQUAL, icmp, kinds.other);
        self.asm.mark(kinds.addresses);
        self.forget_ports();
        self.asm.jump(judge);
        self.asm.mark(kinds.ports);
        self.keep_ports();
        self.asm.mark(judge);
        self.judge(wanted);
        self.asm.mark(kinds.other);
        self.asm.refuse();
    }

    /// Walks over one extension header at X; goes to `walked` if it is none, to `later` if a later fragment follows.
    fn extension(&mut self, walked: Label, later: Label) {
        let [fragment, extension, next] = [(); 3].map(|()| self.asm.label());
        self.asm.op(code::LOAD, scratch::PROTOCOL);
        self.asm.jump_if(code::EQUAL, FRAGMENT, fragment);
        for header in EXTENSIONS {
            self.asm.jump_if(code::EQUAL, header, extension);
        }
        self.asm.jump(walked);
        self.asm.mark(extension);
        self.asm.ops(&[
            (code::LOAD_BYTE_X, 0),
            (code::STORE, scratch::PROTOCOL),
            (code::LOAD_BYTE_X, 1),
            (code::ADD, 1),
            (code::SHIFT_LEFT, 3),
            (code::ADD_X, 0),
            (code::A_TO_X, 0),
        ]);
        self.asm.jump(next);
        self.asm.mark(fragment);
        self.asm.ops(&[
            (code::LOAD_BYTE_X, 0),
            (code::STORE, scratch::PROTOCOL),
            (code::LOAD_HALF_X, 2),
        ]);
        self.asm.jump_if(code::ANY_BIT, 0xfff8, later);
        self.asm
            .ops(&[(code::X_TO_A, 0), (code::ADD, 8), (code::A_TO_X, 0)]);
        self.asm.mark(next);
    }

    /// Keeps the keys of a TCP or UDP packet, X at its transport header.
    fn keep_ports(&mut self) {
        self.asm.ops(&[
            (code::LOAD_HALF_X, 0),
            (code::STORE, scratch::SOURCE),
            (code::LOAD_HALF_X, 2),
            (code::STORE, scratch::DESTINATION),
            (code::LOAD, scratch::PROTOCOL),
            (code::SHIFT_LEFT, 16),
            (code::A_TO_X, 0),
        ]);
        for side in [Side::Source, Side::Destination] {
            self.asm.ops(&[
                (code::LOAD, side.key()),
                (code::ADD_X, 0),
                (code::STORE, side.key()),
            ]);
        }
    }

    /// Lets a packet without ports be judged by its addresses.
    fn forget_ports(&mut self) {
        self.asm.ops(&[
            (code::SET, ANY_KEY),
            (code::STORE, scratch::SOURCE),
            (code::STORE, scratch::DESTINATION),
        ]);
    }

    /// Decides about an ICMP packet, X at its header. The packet that an error is about is looked at by the path: in
    /// passthrough it may be addressed to any of our addresses.
    fn errors(&mut self, types: &[u32], wanted: &FilterTargets, addresses: Label) {
        let error = self.asm.label();
        self.asm.op(code::LOAD_BYTE_X, 0);
        for kind in types {
            self.asm.jump_if(code::EQUAL, *kind, error);
        }
        self.asm.refuse();
        self.asm.mark(error);
        if wanted.servers.is_empty() {
            self.asm.jump(addresses);
        } else {
            self.asm.admit();
        }
    }

    /// Decides by the addresses and the keys that are kept.
    fn judge(&mut self, wanted: &FilterTargets) {
        self.asm.op(code::LOAD_X, scratch::NETWORK);
        self.ports(Side::Destination, &wanted.vips);
        for (nat_ports, servers) in &wanted.servers {
            let [within, next] = [(); 2].map(|()| self.asm.label());
            self.asm.op(code::LOAD, scratch::DESTINATION);
            self.asm.jump_if(code::EQUAL, ANY_KEY, within);
            self.asm.op(code::AND, 0xffff);
            self.asm
                .jump_unless(code::AT_LEAST, u32::from(nat_ports.first), next);
            self.asm.jump_if(code::GREATER, u32::from(nat_ports.last), next);
            self.asm.mark(within);
            self.ports(Side::Source, servers);
            self.asm.mark(next);
        }
        self.asm.refuse();
    }

    /// Admits what comes from or goes to one of these, X at the IP header; goes on behind for all else.
    fn ports(&mut self, side: Side, ports: &Ports) {
        if ports.is_empty() {
            return;
        }
        match self.precision {
            Precision::Exact => self.exact(side, ports),
            Precision::Ports => self.admit_keys(side, &joined(ports.values().flatten().copied().collect())),
            Precision::Protocols => self.asm.admit(),
        }
    }

    fn exact(&mut self, side: Side, ports: &Ports) {
        let miss = self.asm.label();
        // addresses with the same ports share the code that compares these
        let mut blocks: BTreeMap<&[KeyRange], Label> = BTreeMap::new();
        let mut by_last_word: BTreeMap<u32, Vec<(Words, Label)>> = BTreeMap::new();
        for (addr, keys) in ports {
            let block = *blocks.entry(keys).or_insert_with(|| self.asm.label());
            let ((at, last), words) = words(side, addr);
            if by_last_word.is_empty() {
                self.asm.op(code::LOAD_WORD_X, at);
            }
            by_last_word.entry(last).or_default().push((words, block));
        }
        let places: Vec<_> = (by_last_word.keys().map(|word| (*word, self.asm.label()))).collect();
        self.search(&places, miss);
        for ((_, place), addrs) in places.iter().zip(by_last_word.values()) {
            self.asm.mark(*place);
            for (words, block) in addrs {
                self.asm.jump_if_words(words, *block);
            }
            self.asm.jump(miss);
        }
        for (keys, block) in blocks {
            self.asm.mark(block);
            self.admit_keys(side, keys);
            self.asm.jump(miss);
        }
        self.asm.mark(miss);
    }

    /// Goes to the place of the word that A is, or to `miss`: by bisection where there are many.
    fn search(&mut self, places: &[(u32, Label)], miss: Label) {
        /// Compared one by one: as many as a bisection would need instructions for.
        const FEW: usize = 4;
        let (low, high) = places.split_at(places.len() / 2);
        if let (true, Some((pivot, _))) = (places.len() > FEW, high.first()) {
            let upper = self.asm.label();
            self.asm.jump_if(code::AT_LEAST, *pivot, upper);
            self.search(low, miss);
            self.asm.mark(upper);
            self.search(high, miss);
            return;
        }
        for (word, place) in places {
            self.asm.jump_if(code::EQUAL, *word, *place);
        }
        self.asm.jump(miss);
    }

    /// Admits the packet if the key of a side is one of these, or not known.
    fn admit_keys(&mut self, side: Side, keys: &[KeyRange]) {
        self.asm.op(code::LOAD, side.key());
        self.asm.admit_if_within(ANY_KEY, ANY_KEY);
        for (first, last) in keys {
            self.asm.admit_if_within(*first, *last);
        }
    }
}

/// The same keys in as few ranges as they need, in order.
fn joined(mut keys: Vec<KeyRange>) -> Vec<KeyRange> {
    keys.sort_unstable();
    keys.dedup_by(|(first, last), (_, before)| {
        let meets = *first <= before.saturating_add(1);
        if meets {
            *before = (*before).max(*last);
        }
        meets
    });
    keys
}
