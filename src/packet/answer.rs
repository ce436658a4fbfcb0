//! Packets of our own: TCP resets and ICMP errors, as whole frames with finished checksums.
//!
//! All are made of the packet as it came, **before** it is rewritten.

use std::net::IpAddr;

use super::{Endpoints, LinkHeader, Offload, Parsed, Tags};

/// What an ICMP error of ours says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// Nobody serves the port: ICMP 3/3, ICMPv6 1/4.
    PortUnreachable,
    /// Larger than the way takes: ICMP 3/4, ICMPv6 2.
    TooBig {
        /// What it takes, in bytes of IP packet.
        mtu: u32,
    },
    /// TTL or hop limit used up: ICMP 11/0, ICMPv6 3/0.
    TimeExceeded,
}

/// A RST to the sender of a TCP packet, from the address it sent to (RFC 9293 section 3.10.7.1), back to the link
/// address it came from and with the same VLAN tags. `None` if it may not be answered: no TCP, a RST itself, not sent
/// to one host or not from one.
#[must_use]
pub fn reset(frame: &[u8], parsed: &Parsed) -> Option<Vec<u8>> {
    let _ = (frame, parsed);
    todo!("packet")
}

/// A RST such as the sender of a TCP packet would send next, with other addresses and by another way: tells the other
/// end that the connection is gone. `None` if it is no TCP, a RST itself, or of another family.
#[must_use]
pub fn reset_onward(
    frame: &[u8],
    parsed: &Parsed,
    to: &Endpoints,
    link: &LinkHeader,
    tags: &Tags,
) -> Option<Vec<u8>> {
    let _ = (frame, parsed, to, link, tags);
    todo!("packet")
}

/// An ICMP error to the sender of a TCP or UDP packet, `from` an address of ours (the VIP), back to the link address it
/// came from and with the same VLAN tags. Quotes as much as RFC 1812 section 4.3.2.3 (576 bytes in all) and RFC 4443
/// section 2.4 (1,280) allow; of a super-frame the first packet that it stands for. `None` if it may not be answered
/// (RFC 1122 section 3.2.2): not TCP or UDP (ICMP errors among them), a later fragment, not sent to one host or not
/// from one.
#[must_use]
pub fn icmp_error(
    frame: &[u8],
    parsed: &Parsed,
    offload: &Offload,
    from: IpAddr,
    trouble: Trouble,
) -> Option<Vec<u8>> {
    let _ = (frame, parsed, offload, from, trouble);
    todo!("packet")
}
