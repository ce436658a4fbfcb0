//! How long a flow is remembered, by what has been seen of it. Pure: a state, an observation, the next state.
//!
//! ```text
//! passthrough (both sides are seen; each step needs a segment whose numbers fit)
//!
//!            SYN|ACK of the server        ACK of the client                FIN, acknowledged      the other's too
//!    Syn ──────────────────────► Answered ─────────────────► Established ─────────► HalfClosed ─────────────► Closing
//!     │                             │                             │                     │                        ▲
//!     └────── RST ──► Refused ◄─────┘                             └──────── RST ────────┴────────────────────────┘
//!
//! DSR (the client's side only: nothing may wait for the server's)
//!
//!    Syn ── a packet without SYN ──► Established ── FIN or RST ──► Closing
//!
//! UDP (in DSR a client's second packet counts as an answer, as more cannot be seen)
//!
//!    Asked ── answer ──► Replied ── the client again ──► Talking
//! ```
//!
//! What a segment must carry to change anything is in [`super::numbers`]. Half-open are Syn, Answered, Refused and Asked:
//! what anybody can bring about with forged addresses. They may hold only a share of the table, and give their NAT ports
//! up when others need them; so does Replied, which a forged question to a server that answers brings about.

use std::time::Duration;

use super::{
    FlowState,
    numbers::Numbers,
    segment::{Segment, SegmentKind, Side},
};

/// Time that a connection may take to be established (cilium's and DESIGN's).
const SYN: Duration = Duration::from_secs(60);
/// The same while half of a server's NAT ports are claimed.
const SYN_UNDER_PRESSURE: Duration = Duration::from_secs(4);
/// Time that a closed connection is remembered for its last packets.
const CLOSING: Duration = Duration::from_secs(10);
/// Time that it is remembered if the server has closed first, whose TIME_WAIT refuses some new connections from the same
/// NAT port (`TCP_TIMEWAIT_LEN` of Linux).
const TIME_WAIT: Duration = Duration::from_secs(60);

/// The state of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TcpState {
    /// The client's SYN has been seen.
    Syn,
    /// The server's SYN|ACK too.
    Answered,
    /// Reset before it was established.
    Refused,
    /// The handshake is over.
    Established,
    /// One side has sent FIN, and the other has acknowledged it.
    HalfClosed(Side),
    /// Both have, or one has sent RST.
    Closing(Ending),
    /// UDP that nothing has answered.
    Asked,
    /// UDP that something has answered.
    Replied,
    /// UDP whose client has sent again after an answer.
    Talking,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ending {
    /// By a RST: neither side remembers it.
    Reset,
    /// By a FIN of this side and then one of the other: this side remembers it in TIME_WAIT.
    First(Side),
}

impl TcpState {
    /// That of a flow whose first packet, the client's, is this.
    pub const fn first(kind: SegmentKind) -> Self {
        match kind {
            SegmentKind::Datagram => Self::Asked,
            _ => Self::Syn,
        }
    }

    /// After a packet of a side, where both sides are seen (passthrough). What does not fit the numbers changes nothing.
    #[must_use]
    pub fn seen(self, side: Side, segment: &Segment, numbers: &mut Numbers) -> Self {
        match self {
            Self::Asked | Self::Replied | Self::Talking => self.datagram(side),
            Self::Refused | Self::Closing(_) => {
                numbers.linger(side, segment);
                self
            }
            Self::Syn => self.handshake(side, segment, numbers),
            Self::Answered | Self::Established | Self::HalfClosed(_) => self.open(side, segment, numbers),
        }
    }

    const fn datagram(self, side: Side) -> Self {
        match (self, side) {
            (Self::Asked, Side::Server) => Self::Replied,
            (Self::Replied, Side::Client) => Self::Talking,
            _ => self,
        }
    }

    fn handshake(self, side: Side, segment: &Segment, numbers: &mut Numbers) -> Self {
        match (side, segment.kind) {
            (Side::Client, SegmentKind::Open) => {
                numbers.another_syn(segment);
                self
            }
            (Side::Server, SegmentKind::Accept) if numbers.accept(segment) => Self::Answered,
            (Side::Server, SegmentKind::Reset) if numbers.answers_syn(segment) => Self::Refused,
            (Side::Client, SegmentKind::Reset) if numbers.ends_client(segment) => Self::Refused,
            _ => self,
        }
    }

    fn open(self, side: Side, segment: &Segment, numbers: &mut Numbers) -> Self {
        let is_half_open = matches!(self, Self::Answered);
        match segment.kind {
            SegmentKind::Reset => {
                let counts = numbers.resets(side, segment)
                    || is_half_open && side == Side::Server && numbers.answers_syn(segment);
                match (counts, is_half_open) {
                    (false, _) => self,
                    (true, true) => Self::Refused,
                    (true, false) => Self::Closing(Ending::Reset),
                }
            }
            // repeated; or, while the handshake is open, of a server that has begun anew
            SegmentKind::Accept => {
                if is_half_open && side == Side::Server {
                    numbers.accept(segment);
                }
                self
            }
            SegmentKind::Open | SegmentKind::Odd | SegmentKind::Datagram => self,
            SegmentKind::Go | SegmentKind::Close => {
                if !numbers.take(side, segment) {
                    return self;
                }
                if is_half_open {
                    return if side == Side::Client {
                        Self::Established
                    } else {
                        self
                    };
                }
                self.after_acknowledgement(numbers)
            }
        }
    }

    /// Which FINs have been acknowledged by now.
    fn after_acknowledgement(self, numbers: &Numbers) -> Self {
        let client = numbers.is_fin_acknowledged(Side::Client);
        let server = numbers.is_fin_acknowledged(Side::Server);
        match (client, server) {
            (true, true) => Self::Closing(Ending::First(numbers.first_fin())),
            (true, false) => Self::HalfClosed(Side::Client),
            (false, true) => Self::HalfClosed(Side::Server),
            (false, false) => self,
        }
    }

    /// After a packet of the client, where only its side is seen (DSR).
    #[must_use]
    pub const fn seen_one_sided(self, kind: SegmentKind) -> Self {
        match (self, kind) {
            (Self::Asked | Self::Replied | Self::Talking, _) => Self::Talking,
            (Self::Syn | Self::Refused, SegmentKind::Reset) => Self::Refused,
            (_, SegmentKind::Reset) => Self::Closing(Ending::Reset),
            (_, SegmentKind::Close) => Self::Closing(Ending::First(Side::Client)),
            (Self::Syn, SegmentKind::Go) => Self::Established,
            _ => self,
        }
    }

    /// Whether it has not been established; see the module's text.
    pub const fn is_half_open(self) -> bool {
        matches!(self, Self::Syn | Self::Answered | Self::Refused | Self::Asked)
    }

    /// Whether a forged packet, and the answer to it, can bring it about.
    pub const fn is_unproven(self) -> bool {
        self.is_half_open() || matches!(self, Self::Replied)
    }

    /// Whether a SYN begins a new connection.
    pub const fn can_reopen(self) -> bool {
        matches!(self, Self::Refused | Self::Closing(_))
    }

    /// Whether a packet of a side makes it last longer. What anybody can repeat does not.
    pub const fn is_prolonged_by(self, side: Side) -> bool {
        match self {
            Self::Syn | Self::Answered | Self::Refused | Self::Closing(_) => false,
            Self::Asked | Self::Replied => matches!(side, Side::Client),
            Self::Established | Self::HalfClosed(_) | Self::Talking => true,
        }
    }

    /// How long it is remembered after its last packet. `idle` is the frontend's `idle_timeout`; `is_scarce`: half of the
    /// server's NAT ports are claimed.
    pub fn lifetime(self, idle: Duration, is_scarce: bool) -> Duration {
        match self {
            _ if is_scarce && self.is_unproven() => SYN_UNDER_PRESSURE.min(idle),
            Self::Syn | Self::Answered => SYN,
            Self::Closing(Ending::First(Side::Server)) => TIME_WAIT,
            Self::Refused | Self::Closing(_) => CLOSING,
            Self::Established | Self::HalfClosed(_) | Self::Asked | Self::Replied | Self::Talking => idle,
        }
    }

    /// As listings show it.
    pub const fn state(self) -> FlowState {
        match self {
            Self::Syn => FlowState::Syn,
            Self::Answered => FlowState::SynAnswered,
            Self::Refused => FlowState::Refused,
            Self::Established => FlowState::Established,
            Self::HalfClosed(_) => FlowState::HalfClosed,
            Self::Closing(_) => FlowState::Closing,
            Self::Asked => FlowState::UdpAsked,
            Self::Replied | Self::Talking => FlowState::Udp,
        }
    }
}

#[cfg(test)]
mod tests;
