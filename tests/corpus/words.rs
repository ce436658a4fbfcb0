//! Packets in words, one line each:
//!
//! ```text
//! tcp  203.0.113.5:40000 > 198.51.100.1:80 flags=S
//! udp  [2001:db8::5]:40000 > [2001:db8:1::1]:53 len=1200 frag=0+1208,more fragid=7
//! icmp 192.0.2.9 > 10.0.0.254 type=3 code=4 rest=1400 cut=28 { tcp 10.0.0.254:61005 > 10.0.0.11:8080 flags=A }
//! ```
//!
//! What is not said is ordinary: TTL 64, don't fragment, no tags, right checksums, TCP numbers as an honest
//! host counts them (see `numbering.rs`), window 64240, no payload; link addresses as the interface has them.
//!
//! | word | means |
//! |---|---|
//! | `flags=SAFRP` | TCP flags |
//! | `seq= ack= win=` | TCP numbers |
//! | `opt=HEX` | TCP options |
//! | `len=N` | N bytes of payload |
//! | `ttl= tos= id=`, `nodf` | IP header |
//! | `ipopt=HEX` | IPv4 options |
//! | `ext=NUMBER:HEX` | IPv6 extension headers, the first one's number before them |
//! | `frag=OFFSET+LEN[,more]`, `fragid=` | this part of the datagram only |
//! | `vlan=5` or `vlan=88a8:5,8100:6` | tags |
//! | `pad=N` | bytes after the packet |
//! | `sum=zero`, `unfinished`, `wrong` | the transport checksum |
//! | `gso=N` | a super-frame of packets with N bytes of payload |
//! | `smac= dmac=` | link addresses |
//! | `type= code= rest=` | ICMP; `rest` as one number of 32 bits |
//! | `cut=N { PACKET }` | an ICMP error quotes the first N bytes of this packet |
//! | `proto=N` | of `ip SOURCE > DESTINATION`: any other protocol |

use std::net::{IpAddr, SocketAddr};

use convey::{
    base::Mac,
    packet::testing::{Body, Cut, Packet, SumKind},
};

/// What went wrong, for people.
pub type Wrong = String;

/// A packet and, if it is an ICMP error, the one inside.
#[derive(Debug, Clone)]
pub struct Described {
    pub packet: Packet,
    pub about: Option<Box<Packet>>,
    pub cut: usize,
}

/// What a packet says of itself beyond its headers' defaults.
#[derive(Debug, Clone, Default)]
pub struct Links {
    pub source: Option<Mac>,
    pub destination: Option<Mac>,
}

impl Described {
    /// The packet with the one inside written into it.
    pub fn whole(&self) -> Packet {
        let mut packet = self.packet.clone();
        if let (Some(about), Body::Icmp { payload, .. }) = (&self.about, &mut packet.body) {
            *payload = about.ip_packet();
            payload.truncate(self.cut);
        }
        packet
    }

    /// A whole packet in words.
    pub fn read(text: &str) -> Result<(Self, Links), Wrong> {
        let (outer, inner) = split_inner(text)?;
        let mut words = outer.split_whitespace();
        let kind = words.next().ok_or("no packet")?;
        let (source, destination) = ends(&mut words)?;
        let mut described = Self {
            packet: ordinary(kind, &source, &destination)?,
            about: None,
            cut: usize::MAX,
        };
        if let Some(inner) = inner {
            described.about = Some(Box::new(Self::read(inner)?.0.whole()));
        }
        let mut links = Links::default();
        described.apply(words, &mut links)?;
        Ok((described, links))
    }

    /// This packet with other ends (`SOURCE > DESTINATION`), those of the packet inside (`{ SOURCE > DESTINATION }`),
    /// and what else differs.
    pub fn differing(&self, text: &str) -> Result<(Self, Links), Wrong> {
        let (outer, inner) = split_inner(text)?;
        let mut changed = self.clone();
        let mut words = outer.split_whitespace();
        let (source, destination) = ends(&mut words)?;
        set_ends(&mut changed.packet, &source, &destination)?;
        if let Some(inner) = inner {
            let about = changed.about.as_mut().ok_or("there is no packet inside")?;
            let (source, destination) = ends(&mut inner.split_whitespace())?;
            set_ends(about, &source, &destination)?;
        }
        let mut links = Links::default();
        changed.apply(words, &mut links)?;
        Ok((changed, links))
    }

    fn apply<'a>(&mut self, words: impl Iterator<Item = &'a str>, links: &mut Links) -> Result<(), Wrong> {
        for word in words {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            match key {
                "cut" => self.cut = number(value)?,
                "smac" => links.source = Some(mac(value)?),
                "dmac" => links.destination = Some(mac(value)?),
                _ => set(&mut self.packet, key, value).map_err(|wrong| format!("{word}: {wrong}"))?,
            }
        }
        Ok(())
    }
}

/// The words outside of braces, and those inside.
fn split_inner(text: &str) -> Result<(String, Option<&str>), Wrong> {
    let Some((before, rest)) = text.split_once('{') else {
        return Ok((text.to_owned(), None));
    };
    let (inner, after) = rest.rsplit_once('}').ok_or("a brace without its other half")?;
    Ok((format!("{before} {after}"), Some(inner)))
}

fn ends<'a>(words: &mut impl Iterator<Item = &'a str>) -> Result<(String, String), Wrong> {
    match (words.next(), words.next(), words.next()) {
        (Some(source), Some(">"), Some(destination)) => Ok((source.to_owned(), destination.to_owned())),
        other => Err(format!("SOURCE > DESTINATION wanted: {other:?}")),
    }
}

fn ordinary(kind: &str, source: &str, destination: &str) -> Result<Packet, Wrong> {
    match kind {
        "tcp" => Ok(Packet::tcp(socket(source)?, socket(destination)?, 0, b"")),
        "udp" => Ok(Packet::udp(socket(source)?, socket(destination)?, b"")),
        "icmp" | "ip" => {
            let body = if kind == "icmp" {
                Body::Icmp {
                    icmp_type: 0,
                    code: 0,
                    rest: [0; 4],
                    payload: Vec::new(),
                }
            } else {
                Body::Other {
                    protocol: 255,
                    bytes: Vec::new(),
                }
            };
            Ok(Packet::new(address(source)?, address(destination)?, body))
        }
        _ => Err(format!("{kind}: not tcp, udp, icmp or ip")),
    }
}

fn set_ends(packet: &mut Packet, from: &str, to: &str) -> Result<(), Wrong> {
    match &mut packet.body {
        Body::Tcp {
            source, destination, ..
        }
        | Body::Udp {
            source, destination, ..
        } => {
            let (from, to) = (socket(from)?, socket(to)?);
            (packet.source, packet.destination) = (from.ip(), to.ip());
            (*source, *destination) = (from.port(), to.port());
        }
        Body::Icmp { .. } | Body::Other { .. } => {
            (packet.source, packet.destination) = (address(from)?, address(to)?);
        }
    }
    Ok(())
}

fn set(packet: &mut Packet, key: &str, value: &str) -> Result<(), Wrong> {
    match key {
        "ttl" => packet.ttl = number(value)?,
        "tos" => packet.tos = number(value)?,
        "id" => packet.id = number(value)?,
        "nodf" => packet.dont_fragment = false,
        "ipopt" => packet.options = hex(value)?,
        "ext" => {
            let (first, bytes) = value.split_once(':').ok_or("NUMBER:HEX wanted")?;
            (packet.first_option, packet.options) = (number(first)?, hex(bytes)?);
        }
        "frag" => {
            let (part, more) = match value.split_once(',') {
                Some((part, "more")) => (part, true),
                None => (value, false),
                Some(_) => return Err("OFFSET+LEN,more wanted".to_owned()),
            };
            let (offset, len) = part.split_once('+').ok_or("OFFSET+LEN wanted")?;
            packet.fragment = Some(Cut {
                id: 1,
                offset: number(offset)?,
                len: number(len)?,
                more,
            });
        }
        "fragid" => packet.fragment.as_mut().ok_or("frag= comes first")?.id = number(value)?,
        "vlan" => packet.tags = tags(value)?,
        "pad" => packet.trailer = vec![0xee; number(value)?],
        "sum" => {
            packet.sum = match value {
                "right" => SumKind::Right,
                "zero" => SumKind::Zero,
                "unfinished" => SumKind::Unfinished,
                "wrong" => SumKind::Wrong,
                _ => return Err("zero, unfinished, wrong or right wanted".to_owned()),
            }
        }
        "gso" => packet.segment_size = Some(number(value)?),
        _ => return set_body(&mut packet.body, key, value),
    }
    Ok(())
}

fn set_body(body: &mut Body, key: &str, value: &str) -> Result<(), Wrong> {
    match (body, key) {
        (
            Body::Tcp {
                flags,
                acknowledgement,
                ..
            },
            "flags",
        ) => {
            *flags = tcp_flags(value)?;
            *acknowledgement = if *flags & 0x10 == 0 { 0 } else { 5_000 };
        }
        (Body::Tcp { sequence, .. }, "seq") => *sequence = number(value)?,
        (Body::Tcp { acknowledgement, .. }, "ack") => *acknowledgement = number(value)?,
        (Body::Tcp { window, .. }, "win") => *window = number(value)?,
        (Body::Tcp { options, .. }, "opt") => *options = hex(value)?,
        (Body::Tcp { payload, .. } | Body::Udp { payload, .. } | Body::Icmp { payload, .. }, "len") => {
            *payload = some_bytes(number(value)?);
        }
        (Body::Icmp { icmp_type, .. }, "type") => *icmp_type = number(value)?,
        (Body::Icmp { code, .. }, "code") => *code = number(value)?,
        (Body::Icmp { rest, .. }, "rest") => *rest = number::<u32>(value)?.to_be_bytes(),
        (Body::Other { protocol, .. }, "proto") => *protocol = number(value)?,
        (Body::Other { bytes, .. }, "len") => *bytes = some_bytes(number(value)?),
        _ => return Err("not a word for this packet".to_owned()),
    }
    Ok(())
}

/// Bytes that are different from those beside them.
fn some_bytes(len: usize) -> Vec<u8> {
    (0_u8..251).cycle().take(len).collect()
}

fn tcp_flags(text: &str) -> Result<u8, Wrong> {
    text.chars().try_fold(0, |flags, letter| {
        let place = "FSRPAUEC".find(letter).ok_or("flags are F S R P A U E C")?;
        Ok(flags | 1 << place)
    })
}

fn tags(text: &str) -> Result<Vec<u8>, Wrong> {
    let mut bytes = Vec::new();
    for tag in text.split(',').filter(|tag| !tag.is_empty()) {
        let (kind, number_text) = tag.split_once(':').unwrap_or(("8100", tag));
        bytes.extend(hex(kind)?);
        bytes.extend(number::<u16>(number_text)?.to_be_bytes());
    }
    Ok(bytes)
}

/// Bytes in hexadecimal, two digits each.
pub fn hex(text: &str) -> Result<Vec<u8>, Wrong> {
    let digits: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return Err(format!("{text}: two digits a byte"));
    }
    pairs
        .iter()
        .map(|pair| {
            let pair = std::str::from_utf8(pair).map_err(|_| "not in ASCII")?;
            u8::from_str_radix(pair, 16).map_err(|_| format!("{pair}: not in hexadecimal"))
        })
        .collect()
}

/// Bytes as hexadecimal digits.
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn mac(text: &str) -> Result<Mac, Wrong> {
    let bytes = hex(&text.replace(':', ""))?;
    Ok(Mac(bytes
        .try_into()
        .map_err(|_| format!("{text}: six bytes wanted"))?))
}

pub fn number<T: std::str::FromStr>(text: &str) -> Result<T, Wrong> {
    text.parse().map_err(|_| format!("{text}: no such number"))
}

pub fn socket(text: &str) -> Result<SocketAddr, Wrong> {
    text.parse().map_err(|_| format!("{text}: IP:PORT wanted"))
}

pub fn address(text: &str) -> Result<IpAddr, Wrong> {
    text.parse().map_err(|_| format!("{text}: an IP address wanted"))
}
