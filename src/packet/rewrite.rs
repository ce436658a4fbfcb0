//! Rewriting in place: addresses, ports, TTL, and the packets inside ICMP errors, with their checksums.

use std::net::{IpAddr, SocketAddr};

use super::{Frame, Parsed};
use crate::base::PacketReason;

/// Both ends of a packet as they are to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Endpoints {
    /// From.
    pub source: SocketAddr,
    /// To, of the same family.
    pub destination: SocketAddr,
}

/// What was parsed is not of this frame, or the addresses are of another family, or there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[error("this cannot be written into this frame")]
pub struct Unfit;

impl Unfit {
    /// The counter that it belongs to.
    #[must_use]
    pub const fn reason(self) -> PacketReason {
        PacketReason::Malformed
    }
}

/// Gives a packet other addresses and, if it has them, ports; checksums follow (RFC 1624, or an unfinished one as
/// [`Offload`](super::Offload) says). `parsed` is of this frame, and goes on telling what it was before.
///
/// DSR: the packet's own source and the server. Passthrough: NAT address and server; back: VIP and client. Of a later
/// fragment only the addresses change.
///
/// # Errors
/// If it does not fit; nothing is changed then.
pub fn translate(frame: &mut Frame<'_>, parsed: &Parsed, to: &Endpoints) -> Result<(), Unfit> {
    let _ = (frame, parsed, to);
    todo!("packet")
}

/// Gives an ICMP error other addresses, and the packet inside it other addresses and ports; checksums of both follow.
///
/// # Errors
/// If it does not fit or is no ICMP error; nothing is changed then.
pub fn translate_error(
    frame: &mut Frame<'_>,
    parsed: &Parsed,
    source: IpAddr,
    destination: IpAddr,
    quoted: &Endpoints,
) -> Result<(), Unfit> {
    let _ = (frame, parsed, source, destination, quoted);
    todo!("packet")
}

/// Lowers TTL or hop limit by one (not below 0); the IPv4 header checksum follows. Who forwards has refused
/// [`Parsed::ttl`] ≤ 1 before (RFC 1812 section 5.3.1).
///
/// # Errors
/// If `parsed` is not of this frame.
pub fn decrement_ttl(frame: &mut Frame<'_>, parsed: &Parsed) -> Result<(), Unfit> {
    let _ = (frame, parsed);
    todo!("packet")
}
