//! Whether a TCP handshake completes: what is counted of it, once for each flow that begins with a SYN. Pure.
//!
//! A client repeats its SYN after 1, 3 and 7 s (RFC 6298, section 2.1, and Linux's `TCP_TIMEOUT_INIT`): a handshake counts
//! as incomplete at its third SYN, or when its flow is forgotten; it may still complete, and then counts as that too.

use super::{Moment, segment::SegmentKind, tcp_state::TcpState};
use crate::base::Handshake;

/// Time in milliseconds after the first SYN: of those repeated later one counts.
const OVERDUE: u64 = 2_500;

/// What is still to be counted of a flow's handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandshakeWatch {
    /// Everything: its SYN came then.
    Awaited(Moment),
    /// Whether it completes after all: it has been counted as incomplete.
    Overdue,
    /// Nothing: it is over, or there is none.
    Over,
}

/// Whose packets of a flow pass here.
#[derive(Debug, Clone, Copy)]
pub enum Seen {
    /// Passthrough.
    BothSides,
    /// DSR.
    ClientSide,
}

impl HandshakeWatch {
    /// That of a flow whose first packet is this.
    pub const fn new(kind: SegmentKind, now: Moment) -> Self {
        match kind {
            SegmentKind::Open => Self::Awaited(now),
            _ => Self::Over,
        }
    }

    /// After a client's packet that has brought the flow to a state: what to count now.
    pub fn client_sent(
        &mut self,
        seen: Seen,
        kind: SegmentKind,
        state: TcpState,
        now: Moment,
    ) -> Option<Handshake> {
        if matches!(self, Self::Over) {
            return None;
        }
        if state == TcpState::Refused {
            *self = Self::Over;
            return None;
        }
        if !state.is_half_open() {
            *self = Self::Over;
            return Some(match seen {
                Seen::BothSides => Handshake::Completed,
                Seen::ClientSide => Handshake::DsrCompleted,
            });
        }
        let Self::Awaited(since) = *self else { return None };
        let is_overdue = kind == SegmentKind::Open && now.0.saturating_sub(since.0) >= OVERDUE;
        if !is_overdue {
            return None;
        }
        *self = Self::Overdue;
        incomplete(seen, state)
    }

    /// What to count of a flow that is forgotten in a state.
    pub fn forgotten(self, seen: Seen, state: TcpState) -> Option<Handshake> {
        matches!(self, Self::Awaited(_)).then(|| incomplete(seen, state))?
    }
}

const fn incomplete(seen: Seen, state: TcpState) -> Option<Handshake> {
    match (seen, state) {
        (Seen::ClientSide, TcpState::Syn) => Some(Handshake::DsrIncomplete),
        (Seen::BothSides, TcpState::Syn) => Some(Handshake::Unanswered),
        (Seen::BothSides, TcpState::Answered) => Some(Handshake::Unacknowledged),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: Moment = Moment(1_000);

    fn begun() -> HandshakeWatch {
        HandshakeWatch::new(SegmentKind::Open, BEGIN)
    }

    #[test]
    fn a_handshake_that_completes_counts_once() {
        let mut watch = begun();
        let go = |watch: &mut HandshakeWatch| {
            watch.client_sent(
                Seen::BothSides,
                SegmentKind::Go,
                TcpState::Established,
                Moment(1_010),
            )
        };
        assert_eq!(go(&mut watch), Some(Handshake::Completed));
        assert_eq!(go(&mut watch), None);
        assert_eq!(watch.forgotten(Seen::BothSides, TcpState::Established), None);
    }

    #[test]
    fn the_third_syn_says_that_nobody_answers() {
        let mut watch = begun();
        let mut syn = |at| watch.client_sent(Seen::ClientSide, SegmentKind::Open, TcpState::Syn, Moment(at));
        assert_eq!(syn(2_000), None, "the second: one may be lost");
        assert_eq!(syn(4_000), Some(Handshake::DsrIncomplete));
        assert_eq!(syn(8_000), None, "counted already");
        assert_eq!(watch.forgotten(Seen::ClientSide, TcpState::Syn), None);
        let late = watch.client_sent(
            Seen::ClientSide,
            SegmentKind::Go,
            TcpState::Established,
            Moment(9_000),
        );
        assert_eq!(late, Some(Handshake::DsrCompleted), "the server was only slow");
    }

    #[test]
    fn a_forgotten_handshake_says_how_far_it_came() {
        let forgotten = |seen, state| begun().forgotten(seen, state);
        assert_eq!(
            forgotten(Seen::BothSides, TcpState::Syn),
            Some(Handshake::Unanswered)
        );
        assert_eq!(
            forgotten(Seen::BothSides, TcpState::Answered),
            Some(Handshake::Unacknowledged)
        );
        assert_eq!(
            forgotten(Seen::ClientSide, TcpState::Syn),
            Some(Handshake::DsrIncomplete)
        );
    }

    #[test]
    fn what_was_refused_or_has_begun_elsewhere_does_not_count() {
        let mut watch = begun();
        let reset = watch.client_sent(
            Seen::ClientSide,
            SegmentKind::Reset,
            TcpState::Refused,
            Moment(1_500),
        );
        assert_eq!((reset, watch), (None, HandshakeWatch::Over));
        assert_eq!(begun().forgotten(Seen::BothSides, TcpState::Refused), None);
        // a connection that is older than this process
        let older = HandshakeWatch::new(SegmentKind::Go, BEGIN);
        assert_eq!(older.forgotten(Seen::ClientSide, TcpState::Syn), None);
    }
}
