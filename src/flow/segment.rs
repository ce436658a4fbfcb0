//! A packet as far as a flow's life depends on it. Pure.

use crate::packet::{Tcp, TcpFlags};

/// A side of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// Client.
    Client,
    /// Server.
    Server,
}

/// What a packet means for a flow's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SegmentKind {
    /// RST.
    Reset,
    /// SYN.
    Open,
    /// SYN|ACK.
    Accept,
    /// FIN.
    Close,
    /// ACK and nothing of the above.
    Go,
    /// A TCP packet without any of these flags.
    Odd,
    /// UDP.
    Datagram,
}

/// A packet as far as a flow's life depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    pub kind: SegmentKind,
    /// Sequence number of its first byte.
    pub sequence: u32,
    /// Behind its last byte; SYN and FIN count as one. `None`: its length is not known (a first fragment).
    pub end: Option<u32>,
    /// What it acknowledges, if it does.
    pub acknowledged: Option<u32>,
    /// The sender's clock.
    pub timestamp: Option<u32>,
}

impl Side {
    /// The other one.
    pub const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

impl SegmentKind {
    /// What flags mean.
    pub const fn of(flags: TcpFlags) -> Self {
        if flags.rst() {
            Self::Reset
        } else if flags.syn() {
            if flags.ack() { Self::Accept } else { Self::Open }
        } else if flags.fin() {
            Self::Close
        } else if flags.ack() {
            Self::Go
        } else {
            Self::Odd
        }
    }
}

impl Segment {
    /// A datagram.
    pub const DATAGRAM: Self = Self {
        kind: SegmentKind::Datagram,
        sequence: 0,
        end: None,
        acknowledged: None,
        timestamp: None,
    };

    /// A TCP segment; `payload` is its length without headers, in bytes, if it is whole.
    pub fn tcp(tcp: &Tcp, payload: Option<usize>) -> Self {
        let flags = tcp.flags;
        let of_flags = u32::from(flags.syn()) + u32::from(flags.fin());
        let len = payload.and_then(|len| u32::try_from(len).ok());
        Self {
            kind: SegmentKind::of(flags),
            sequence: tcp.sequence,
            end: len.map(|len| tcp.sequence.wrapping_add(len).wrapping_add(of_flags)),
            acknowledged: flags.ack().then_some(tcp.acknowledgement),
            timestamp: tcp.timestamp,
        }
    }
}
