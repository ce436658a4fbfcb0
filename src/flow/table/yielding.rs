//! Which flows give their NAT port and their place up to a new one, and in which order. Pure.

use super::NatFlow;
use crate::{
    base::PacketReason,
    flow::{
        Moment,
        segment::Side,
        store::Beginning,
        tcp_state::{Ending, TcpState},
    },
};

/// Time in milliseconds that a connection closed by both sides keeps its port: last packets may be under way.
const REST: u64 = 1_000;

/// How gladly a flow gives way: the least gives way first, within a class the one that has rested longest, or is oldest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Yield {
    class: Class,
    since: Moment,
    is_half_open: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    /// Expired, and not swept yet.
    Expired,
    /// Refused, reset, or closed by the client first: the server remembers nothing of it.
    Closed,
    /// Closed by the server first, whose TIME_WAIT takes the new SYN.
    TimeWait,
    /// Closed by the server first, whose TIME_WAIT refuses the new SYN: the client's second one, a second later, is taken.
    TimeWaitRefuses,
    /// UDP: answered, and the client has not sent again.
    Answered,
    /// Not established. Of UDP it comes last, because the answer that is still to come would reach the port's next holder.
    HalfOpen,
}

impl Yield {
    /// Whether it is over, and a new connection can be had by its port at once.
    pub fn is_over(self) -> bool {
        self.class <= Class::TimeWait
    }

    /// Whether its end makes room where there is none.
    pub fn helps(self, full: PacketReason) -> bool {
        full != PacketReason::SynShareFull || self.is_half_open
    }
}

#[cfg(test)]
impl Yield {
    /// Of a flow that is over.
    pub(super) const fn over(since: Moment) -> Self {
        Self {
            class: Class::Closed,
            since,
            is_half_open: false,
        }
    }

    /// Of a half-open one.
    pub(super) const fn half_open(since: Moment) -> Self {
        Self {
            class: Class::HalfOpen,
            since,
            is_half_open: true,
        }
    }
}

/// How gladly a flow gives way to a new one; `None`: not at all.
pub fn rank(flow: &NatFlow, new: &Beginning) -> Option<Yield> {
    let class = if flow.expires() <= new.now {
        Class::Expired
    } else {
        let has_rested = new.now.0.saturating_sub(flow.seen.0) >= REST;
        match flow.life {
            TcpState::Refused | TcpState::Closing(Ending::Reset) => Class::Closed,
            TcpState::Closing(_) if !has_rested => return None,
            TcpState::Closing(Ending::First(Side::Client)) => Class::Closed,
            TcpState::Closing(Ending::First(Side::Server)) => {
                if flow.numbers.time_wait_takes(&new.segment) {
                    Class::TimeWait
                } else {
                    Class::TimeWaitRefuses
                }
            }
            TcpState::Syn | TcpState::Answered | TcpState::Asked => Class::HalfOpen,
            TcpState::Replied => Class::Answered,
            TcpState::Established | TcpState::HalfClosed(_) | TcpState::Talking => return None,
        }
    };
    Some(Yield {
        class,
        since: flow.seen,
        is_half_open: flow.life.is_half_open(),
    })
}
