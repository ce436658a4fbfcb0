//! How long a flow is remembered, by what has been seen of it. Pure: a state, an observation, the next state.
//!
//! ```text
//! passthrough (both sides are seen)
//!
//!            SYN|ACK of the server        ACK of the client
//!    Syn ──────────────────────► Answered ─────────────────► Established ─ FIN ─► HalfClosed ─ FIN of the other ─┐
//!     │                             │                             │                   │                          ▼
//!     └────── RST ──► Refused ◄─────┘                             └──────── RST ──────┴──────────────────────► Closing
//!
//! DSR (the client's side only: nothing may wait for the server's)
//!
//!    Syn ── a packet without SYN ──► Established ── FIN or RST ──► Closing
//!
//! UDP (in DSR a client's second packet counts as an answer, as more cannot be seen)
//!
//!    Asked ── answer ──► Talking
//! ```
//!
//! Half-open are Syn, Answered, Refused and Asked: what anybody can bring about with forged addresses. They may hold
//! only a share of the table. A SYN on Closing or Refused begins a new connection.

use std::time::Duration;

use super::FlowState;
use crate::packet::TcpFlags;

/// Time that a connection may take to be established (cilium's and DESIGN's).
const SYN: Duration = Duration::from_secs(60);
/// Time that a closed connection is remembered for its last packets.
const CLOSING: Duration = Duration::from_secs(10);

/// The state of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum TcpState {
    /// The client's SYN has been seen.
    Syn,
    /// The server's SYN|ACK too.
    Answered,
    /// Reset before it was established.
    Refused,
    /// The handshake is over.
    Established,
    /// One side has sent FIN.
    HalfClosed(Side),
    /// Both have, or one RST.
    Closing,
    /// UDP that nothing has answered.
    Asked,
    /// UDP that something has answered.
    Talking,
}

/// A side of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Side {
    /// Client.
    Client,
    /// Server.
    Server,
}

/// What a packet says about its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SegmentKind {
    /// RST.
    Reset,
    /// SYN without ACK.
    Open,
    /// SYN with ACK.
    Accept,
    /// FIN.
    Close,
    /// None of these, with ACK.
    Go,
    /// None of these, without ACK: no TCP sends it.
    Odd,
    /// A datagram.
    Datagram,
}

impl SegmentKind {
    /// The sign of TCP flags.
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

impl TcpState {
    /// That of a flow whose first packet, the client's, is this.
    pub const fn first(sign: SegmentKind) -> Self {
        match sign {
            SegmentKind::Datagram => Self::Asked,
            _ => Self::Syn,
        }
    }

    /// After a packet of a side, where both sides are seen (passthrough).
    #[must_use]
    pub fn seen(self, side: Side, sign: SegmentKind) -> Self {
        match (self, sign) {
            (Self::Asked | Self::Talking, _) => match side {
                Side::Server => Self::Talking,
                Side::Client => self,
            },
            (Self::Syn | Self::Answered | Self::Refused, SegmentKind::Reset) => Self::Refused,
            (_, SegmentKind::Reset) => Self::Closing,
            (Self::Syn, SegmentKind::Accept) if side == Side::Server => Self::Answered,
            (Self::Answered, SegmentKind::Go) if side == Side::Client => Self::Established,
            (Self::Answered, SegmentKind::Close) if side == Side::Client => Self::HalfClosed(side),
            (Self::Established, SegmentKind::Close) => Self::HalfClosed(side),
            (Self::HalfClosed(first), SegmentKind::Close) if first != side => Self::Closing,
            _ => self,
        }
    }

    /// After a packet of the client, where only its side is seen (DSR).
    #[must_use]
    pub fn seen_one_sided(self, sign: SegmentKind) -> Self {
        match (self, sign) {
            (Self::Asked | Self::Talking, _) => Self::Talking,
            (Self::Syn | Self::Refused, SegmentKind::Reset) => Self::Refused,
            (_, SegmentKind::Reset | SegmentKind::Close) => Self::Closing,
            (Self::Syn, SegmentKind::Go) => Self::Established,
            _ => self,
        }
    }

    /// Whether it has not been established; see the module's text.
    pub const fn is_half_open(self) -> bool {
        matches!(self, Self::Syn | Self::Answered | Self::Refused | Self::Asked)
    }

    /// Whether a SYN begins a new connection.
    pub const fn can_reopen(self) -> bool {
        matches!(self, Self::Refused | Self::Closing)
    }

    /// How long it is remembered after its last packet. `idle` is the frontend's `idle_timeout`.
    pub fn lifetime(self, idle: Duration) -> Duration {
        match self {
            Self::Syn | Self::Answered => SYN,
            Self::Refused | Self::Closing => CLOSING,
            Self::Established | Self::HalfClosed(_) | Self::Asked | Self::Talking => idle,
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
            Self::Closing => FlowState::Closing,
            Self::Asked => FlowState::UdpAsked,
            Self::Talking => FlowState::Udp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const IDLE: Duration = Duration::from_secs(900);

    fn after(steps: &[(Side, SegmentKind)]) -> TcpState {
        (steps.iter()).fold(TcpState::first(SegmentKind::Open), |life, (side, sign)| {
            life.seen(*side, *sign)
        })
    }

    const HANDSHAKE: [(Side, SegmentKind); 2] = [
        (Side::Server, SegmentKind::Accept),
        (Side::Client, SegmentKind::Go),
    ];

    fn established_then(more: &[(Side, SegmentKind)]) -> TcpState {
        after(&[&HANDSHAKE, more].concat())
    }

    #[test]
    fn a_handshake_lifts_a_flow_out_of_the_syn_lifetime() {
        assert_eq!(after(&[]).lifetime(IDLE), SYN);
        assert_eq!(after(&HANDSHAKE).lifetime(IDLE), IDLE);
    }

    #[test]
    fn a_client_cannot_lift_its_flow_out_of_the_syn_lifetime_alone() {
        let forged = [
            (Side::Client, SegmentKind::Go),
            (Side::Client, SegmentKind::Close),
        ];
        assert_eq!(after(&forged), TcpState::Syn);
        assert!(after(&[(Side::Server, SegmentKind::Accept)]).is_half_open());
    }

    #[test]
    fn a_fin_of_one_side_leaves_the_other_its_time() {
        let half = established_then(&[
            (Side::Client, SegmentKind::Close),
            (Side::Client, SegmentKind::Close),
        ]);
        assert_eq!(half, TcpState::HalfClosed(Side::Client));
        assert_eq!(half.lifetime(IDLE), IDLE);
    }

    #[test]
    fn fins_of_both_sides_or_a_rst_of_one_close() {
        for steps in [
            &[
                (Side::Client, SegmentKind::Close),
                (Side::Server, SegmentKind::Close),
            ][..],
            &[
                (Side::Server, SegmentKind::Close),
                (Side::Client, SegmentKind::Close),
            ],
            &[(Side::Client, SegmentKind::Reset)],
            &[(Side::Server, SegmentKind::Reset)],
        ] {
            let life = established_then(steps);
            assert_eq!((life, life.lifetime(IDLE)), (TcpState::Closing, CLOSING));
            assert!(life.can_reopen());
        }
    }

    #[test]
    fn a_refused_connection_is_soon_forgotten_but_still_counts_as_half_open() {
        let refused = after(&[(Side::Server, SegmentKind::Reset)]);
        assert_eq!((refused, refused.lifetime(IDLE)), (TcpState::Refused, CLOSING));
        assert!(refused.is_half_open() && refused.can_reopen());
    }

    #[test]
    fn in_dsr_the_clients_ack_establishes_and_its_fin_closes() {
        let open = TcpState::first(SegmentKind::Open).seen_one_sided(SegmentKind::Go);
        assert_eq!(open, TcpState::Established);
        assert_eq!(open.seen_one_sided(SegmentKind::Close), TcpState::Closing);
        assert_eq!(TcpState::Syn.seen_one_sided(SegmentKind::Open), TcpState::Syn);
    }

    #[test]
    fn udp_is_half_open_until_it_is_answered() {
        let asked = TcpState::first(SegmentKind::Datagram);
        assert!(asked.seen(Side::Client, SegmentKind::Datagram).is_half_open());
        assert!(!asked.seen(Side::Server, SegmentKind::Datagram).is_half_open());
        assert!(!asked.seen_one_sided(SegmentKind::Datagram).is_half_open());
    }

    fn sign() -> impl Strategy<Value = SegmentKind> {
        prop::sample::select(vec![
            SegmentKind::Reset,
            SegmentKind::Open,
            SegmentKind::Accept,
            SegmentKind::Close,
            SegmentKind::Go,
            SegmentKind::Odd,
        ])
    }

    fn side() -> impl Strategy<Value = Side> {
        prop::sample::select(vec![Side::Client, Side::Server])
    }

    proptest! {
        #[test]
        fn without_a_server_nothing_is_ever_established(signs in prop::collection::vec(sign(), 0..20)) {
            let life = signs.into_iter().fold(TcpState::Syn, |life, sign| life.seen(Side::Client, sign));
            prop_assert!(life.is_half_open());
        }

        #[test]
        fn what_was_established_is_never_half_open_again(steps in prop::collection::vec((side(), sign()), 0..20)) {
            let life = established_then(&steps);
            prop_assert!(!life.is_half_open());
        }
    }
}
