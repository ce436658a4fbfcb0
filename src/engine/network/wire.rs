//! rtnetlink messages: what is asked, and what is understood of answers and notifications. Pure.
//!
//! Of a message only the attributes that matter are read, so that what a newer kernel adds cannot make it unreadable.

use std::net::IpAddr;

use netlink_packet_core::{
    DecodeError, NLM_F_DUMP, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, NlaBuffer,
    NlasIterator, parse_i32, parse_ip, parse_mac, parse_string, parse_u32,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressHeader, AddressMessage},
    link::{LinkAttribute, LinkExtentMask, LinkFlags, LinkHeader, LinkLayerType, LinkMessage},
    neighbour::{NeighbourAttribute, NeighbourHeader, NeighbourMessage, NeighbourState},
    route::{RouteHeader, RouteType},
};

use crate::{base::Mac, sys::netlink};

use super::{
    addresses::Address,
    table::{Medium, Neighbour, NeighbourKey, NetworkEvent, NetworkInterface, Route, RouteKind},
};

/// Lengths of the fixed headers (struct ifinfomsg, ifaddrmsg, rtmsg, ndmsg), in bytes.
const LINK_HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;
const ROUTE_HEADER: usize = 12;
const NEIGHBOUR_HEADER: usize = 12;

/// A question to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// All interfaces.
    Links,
    /// All addresses.
    Addresses,
    /// How a packet to `destination` would leave, as the rules and tables say.
    Route {
        /// Where to.
        destination: IpAddr,
        /// Its source, where rules may look at it; one of our own addresses.
        source: Option<IpAddr>,
    },
    /// One neighbour.
    Neighbour(NeighbourKey),
}

/// One message from the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// News, or one item of a dump.
    NetworkEvent(NetworkEvent),
    /// The route to the destination that was asked for. (Where nobody asked: some route has changed.)
    Route(Route),
    /// The end of a dump, or 0 for "it is done".
    End {
        /// The errno, 0 if all is well.
        errno: i32,
    },
    /// Of no interest.
    Other,
}

/// A message with its envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Number of the question that it answers.
    pub sequence: u32,
    /// Whether things changed during the dump, which must be repeated.
    pub is_interrupted: bool,
    /// What it says.
    pub message: Message,
}

/// The bytes of a question.
#[must_use]
pub fn encode(question: Question, sequence: u32) -> Vec<u8> {
    let (payload, dump) = match question {
        Question::Links => {
            let mut message = LinkMessage::default();
            // 1 kB of statistics for each interface is not wanted
            let mask = LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]);
            message.attributes.push(mask);
            (RouteNetlinkMessage::GetLink(message), NLM_F_DUMP)
        }
        Question::Addresses => (
            RouteNetlinkMessage::GetAddress(AddressMessage::default()),
            NLM_F_DUMP,
        ),
        Question::Route { destination, source } => (netlink::get_route(destination, source), 0),
        Question::Neighbour(key) => {
            let mut message = NeighbourMessage::default();
            message.header.family = netlink::family(key.address);
            message.header.ifindex = key.ifindex;
            let destination = NeighbourAttribute::Destination(key.address.into());
            message.attributes.push(destination);
            (RouteNetlinkMessage::GetNeighbour(message), 0)
        }
    };
    netlink::request(payload, dump, sequence)
}

/// The messages of a datagram, in order. One that cannot be understood is an error; those behind it are still read if
/// its length could be.
pub fn decode(mut datagram: &[u8]) -> impl Iterator<Item = Result<Envelope, DecodeError>> {
    std::iter::from_fn(move || {
        if datagram.is_empty() {
            return None;
        }
        let buffer = match NetlinkBuffer::new_checked(datagram) {
            Ok(buffer) => buffer,
            Err(error) => {
                datagram = &[];
                return Some(Err(error));
            }
        };
        let aligned = (buffer.length() as usize).next_multiple_of(4);
        datagram = datagram.get(aligned..).unwrap_or_default();
        Some(
            message(buffer.message_type(), buffer.payload()).map(|message| Envelope {
                sequence: buffer.sequence_number(),
                is_interrupted: buffer.flags() & NLM_F_DUMP_INTR != 0,
                message,
            }),
        )
    })
}

fn message(kind: u16, payload: &[u8]) -> Result<Message, DecodeError> {
    match kind {
        NLMSG_DONE | NLMSG_ERROR => {
            // the kernel may leave the number out at the end of a dump
            let errno = payload.get(..4).map_or(Ok(0), parse_i32)?.saturating_neg();
            Ok(Message::End { errno })
        }
        libc::RTM_NEWLINK => link(payload),
        libc::RTM_DELLINK => link_gone(payload),
        libc::RTM_NEWADDR => address(payload, true),
        libc::RTM_DELADDR => address(payload, false),
        libc::RTM_NEWROUTE | libc::RTM_DELROUTE => route(payload),
        libc::RTM_NEWNEIGH => neighbour(payload, true),
        libc::RTM_DELNEIGH => neighbour(payload, false),
        libc::RTM_NEWRULE | libc::RTM_DELRULE | RTM_NEWNEXTHOP | RTM_DELNEXTHOP => {
            Ok(Message::NetworkEvent(NetworkEvent::Routing))
        }
        _ => Ok(Message::Other),
    }
}

/// include/uapi/linux/rtnetlink.h; the libc crate has not got them.
const RTM_NEWNEXTHOP: u16 = 104;
const RTM_DELNEXTHOP: u16 = 105;

fn attributes(payload: &[u8], header: usize) -> impl Iterator<Item = Result<NlaBuffer<&[u8]>, DecodeError>> {
    NlasIterator::new(payload.get(header..).unwrap_or_default())
}

fn link(payload: &[u8]) -> Result<Message, DecodeError> {
    let header = LinkHeader::parse(payload)?;
    if header.interface_family == AddressFamily::Bridge {
        // a bridge tells of its ports on the same group; the interfaces themselves are told of apart
        return Ok(Message::Other);
    }
    let is_up = header
        .flags
        .contains(LinkFlags::Up | LinkFlags::Running | LinkFlags::LowerUp);
    let mut interface = NetworkInterface {
        name: String::new(),
        medium: match header.link_layer_type {
            LinkLayerType::Loopback => Medium::Loopback,
            _ => Medium::Other,
        },
        mtu: 0,
        is_up,
    };
    for attribute in attributes(payload, LINK_HEADER) {
        let attribute = attribute?;
        match attribute.kind() {
            libc::IFLA_IFNAME => interface.name = parse_string(attribute.value())?,
            libc::IFLA_MTU => interface.mtu = parse_u32(attribute.value())?,
            libc::IFLA_ADDRESS if header.link_layer_type == LinkLayerType::Ether => {
                interface.medium = Medium::Ethernet(Mac(parse_mac(attribute.value())?));
            }
            _ => {}
        }
    }
    Ok(Message::NetworkEvent(NetworkEvent::Link(header.index, interface)))
}

fn link_gone(payload: &[u8]) -> Result<Message, DecodeError> {
    let header = LinkHeader::parse(payload)?;
    // a port that leaves a bridge is "deleted" too
    Ok(if header.interface_family == AddressFamily::Bridge {
        Message::Other
    } else {
        Message::NetworkEvent(NetworkEvent::LinkGone(header.index))
    })
}

fn address(payload: &[u8], is_new: bool) -> Result<Message, DecodeError> {
    let header = AddressHeader::parse(payload)?;
    if !is_internet(header.family) {
        return Ok(Message::Other);
    }
    let (mut local, mut address, mut flags) = (None, None, u32::from(header.flags.bits()));
    for attribute in attributes(payload, ADDRESS_HEADER) {
        let attribute = attribute?;
        match attribute.kind() {
            libc::IFA_LOCAL => local = Some(parse_ip(attribute.value())?),
            libc::IFA_ADDRESS => address = Some(parse_ip(attribute.value())?),
            libc::IFA_FLAGS => flags = parse_u32(attribute.value())?,
            _ => {}
        }
    }
    // on a point-to-point interface IFA_ADDRESS is the other end
    let Some(ip) = local.or(address) else {
        return Err("an address without its bytes".into());
    };
    Ok(Message::NetworkEvent(if is_new {
        // an address whose duplicate detection is still running, or has found a duplicate, receives nothing
        let is_tentative = flags & libc::IFA_F_TENTATIVE != 0 && flags & libc::IFA_F_OPTIMISTIC == 0;
        let passing = match header.family {
            // the bit of temporary addresses says of an IPv4 one that it is a second one
            AddressFamily::Inet => libc::IFA_F_DEPRECATED,
            _ => libc::IFA_F_DEPRECATED | libc::IFA_F_TEMPORARY,
        };
        let address = Address {
            is_ready: !is_tentative && flags & libc::IFA_F_DADFAILED == 0,
            is_lasting: flags & passing == 0,
            scope: header.scope.into(),
            length: header.prefix_len,
        };
        NetworkEvent::Address(header.index, ip, address)
    } else {
        NetworkEvent::AddressGone(header.index, ip)
    }))
}

fn route(payload: &[u8]) -> Result<Message, DecodeError> {
    let header = RouteHeader::parse(payload)?;
    let default = match header.address_family {
        AddressFamily::Inet => IpAddr::from([0; 4]),
        AddressFamily::Inet6 => IpAddr::from([0; 16]),
        _ => return Ok(Message::Other),
    };
    let mut route = Route {
        kind: kind(header.kind),
        destination: default,
        length: header.destination_prefix_length,
        ifindex: None,
        gateway: None,
        source: None,
        mtu: None,
    };
    for attribute in attributes(payload, ROUTE_HEADER) {
        let attribute = attribute?;
        let value = attribute.value();
        match attribute.kind() {
            libc::RTA_DST => route.destination = parse_ip(value)?,
            libc::RTA_OIF => route.ifindex = Some(parse_u32(value)?),
            libc::RTA_GATEWAY => route.gateway = Some(parse_ip(value)?),
            // struct rtvia: a family, then the address
            libc::RTA_VIA => route.gateway = Some(parse_ip(value.get(2..).unwrap_or_default())?),
            libc::RTA_PREFSRC => route.source = Some(parse_ip(value)?),
            libc::RTA_METRICS => route.mtu = mtu(value)?,
            _ => {}
        }
    }
    Ok(Message::Route(route))
}

/// RTAX_MTU of include/uapi/linux/rtnetlink.h.
const METRIC_MTU: u16 = 2;

fn mtu(metrics: &[u8]) -> Result<Option<u32>, DecodeError> {
    for metric in NlasIterator::new(metrics) {
        let metric = metric?;
        if metric.kind() == METRIC_MTU {
            return parse_u32(metric.value()).map(|mtu| Some(mtu).filter(|mtu| *mtu > 0));
        }
    }
    Ok(None)
}

const fn kind(kind: RouteType) -> RouteKind {
    match kind {
        RouteType::Unicast => RouteKind::Unicast,
        RouteType::Local | RouteType::Anycast => RouteKind::Local,
        RouteType::BlackHole => RouteKind::Blackhole,
        RouteType::Unreachable => RouteKind::Unreachable,
        RouteType::Prohibit => RouteKind::Prohibit,
        _ => RouteKind::Other,
    }
}

fn neighbour(payload: &[u8], is_new: bool) -> Result<Message, DecodeError> {
    let header = NeighbourHeader::parse(payload)?;
    if !is_internet(header.family) {
        // forwarding entries of bridges come on the same group
        return Ok(Message::Other);
    }
    let (mut address, mut mac) = (None, None);
    for attribute in attributes(payload, NEIGHBOUR_HEADER) {
        let attribute = attribute?;
        match attribute.kind() {
            libc::NDA_DST => address = Some(parse_ip(attribute.value())?),
            // on other than Ethernet it may have another length, and is of no use
            libc::NDA_LLADDR => mac = parse_mac(attribute.value()).ok().map(Mac),
            _ => {}
        }
    }
    let Some(address) = address else {
        return Ok(Message::Other);
    };
    let key = NeighbourKey {
        ifindex: header.ifindex,
        address,
    };
    let state = if is_new {
        knowledge(header.state, mac)
    } else {
        Neighbour::Unknown
    };
    Ok(Message::NetworkEvent(NetworkEvent::Neighbour(key, state)))
}

const fn knowledge(state: NeighbourState, mac: Option<Mac>) -> Neighbour {
    let Some(mac) = mac else {
        return Neighbour::Unknown;
    };
    match state {
        NeighbourState::Reachable
        | NeighbourState::Delay
        | NeighbourState::Probe
        | NeighbourState::Permanent
        | NeighbourState::Noarp => Neighbour::Known(mac),
        NeighbourState::Stale => Neighbour::Stale(mac),
        _ => Neighbour::Unknown,
    }
}

fn is_internet(family: AddressFamily) -> bool {
    matches!(family, AddressFamily::Inet | AddressFamily::Inet6)
}

#[cfg(test)]
mod tests;
