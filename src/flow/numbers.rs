//! The sequence numbers of a connection, and which segments fit them. Pure.
//!
//! Who is not on the path sees no number, so what may change a flow must carry one that was seen of the other side:
//!
//! - A segment *fits* if its sequence number is exactly the next of its side, or if it acknowledges exactly what its side
//!   has last acknowledged or the end of what the other side has sent (its side may have lost packets before us), or if both
//!   are within 32 KiB: a guess hits with about 2^-32 each. Only segments that fit move the numbers, and only those of their
//!   own side, so no forged one can prepare another.
//! - A RST must be exact: RFC 5961 section 3.2, as conntrack reads it.
//!
//! Both sides may lose packets before us at once while both send much. Then nothing fits until what was lost is sent again;
//! the packets are forwarded all the same, and the flow ends by its idle time.

use super::segment::{Segment, SegmentKind, Side};

/// Distance within which both numbers of a segment may lie: (2 × 2^15 / 2^32)² = 2^-32.
const NEAR: i32 = 1 << 15;
/// Distance that tells before from behind.
const FAR: i32 = 1 << 30;
/// Distance from the end of what a side has sent within which it may send again: 2^20 / 2^32 × 2 / 2^32 = 2^-43 for a guess
/// at that and at one of two numbers that it acknowledges.
const AGAIN: i32 = 1 << 20;

/// Both sides' numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Numbers {
    /// The client's.
    pub client: Half,
    /// The server's.
    pub server: Half,
    /// Behind the last SYN of the client, if that is another than the one that began the flow.
    pub other_syn: Option<u32>,
    /// The side whose FIN came first.
    pub first_fin: Option<Side>,
    /// The client's clock when it last spoke after the server's FIN: what the server's TIME_WAIT compares with.
    pub clock: Option<u32>,
}

/// One side's numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Half {
    /// Behind what it has sent.
    pub end: u32,
    /// The highest number that it has acknowledged.
    pub acknowledged: u32,
    /// Behind its FIN.
    pub fin: Option<u32>,
}

/// How far `a` is behind `b`; negative: before it (RFC 9293 section 3.4).
const fn distance(a: u32, b: u32) -> i32 {
    a.wrapping_sub(b).cast_signed()
}

impl Numbers {
    /// Those of a flow that begins with this segment of the client.
    pub fn new(segment: &Segment) -> Self {
        Self {
            client: Half {
                end: segment.end.unwrap_or_default(),
                // the server may take a SYN without the data that it carries (RFC 7413)
                acknowledged: segment.sequence.wrapping_add(1),
                fin: None,
            },
            ..Self::default()
        }
    }

    const fn half(&self, side: Side) -> &Half {
        match side {
            Side::Client => &self.client,
            Side::Server => &self.server,
        }
    }

    const fn half_mut(&mut self, side: Side) -> &mut Half {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }

    /// A SYN of the client while the handshake is open: it may have begun anew. Both may be answered.
    pub fn another_syn(&mut self, segment: &Segment) {
        if segment.end != Some(self.client.end) {
            self.other_syn = segment.end;
        }
    }

    /// Whether a segment of the server acknowledges a SYN that was seen.
    pub fn answers_syn(&self, segment: &Segment) -> bool {
        segment.acknowledged.is_some_and(|number| {
            number == self.client.end
                || number == self.client.acknowledged && self.server == Half::default()
                || Some(number) == self.other_syn
        })
    }

    /// Takes a SYN|ACK that answers a SYN in; false: it does not.
    pub fn accept(&mut self, segment: &Segment) -> bool {
        let (true, Some(number), Some(end)) = (self.answers_syn(segment), segment.acknowledged, segment.end)
        else {
            return false;
        };
        if Some(number) == self.other_syn {
            // both stay answerable: one of the two may be forged, and its answer too
            self.other_syn = Some(self.client.end);
        }
        self.client.end = number;
        self.client.acknowledged = segment.sequence;
        self.server = Half {
            end,
            acknowledged: number,
            fin: None,
        };
        true
    }

    /// Whether the client's RST comes right behind the SYN that began the flow. A later SYN may be a forged one.
    pub fn ends_client(&self, segment: &Segment) -> bool {
        segment.sequence == self.client.end
    }

    /// Whether a RST counts: its number is what the other side has last acknowledged, or the end of what its own side
    /// has sent.
    pub fn resets(&self, side: Side, segment: &Segment) -> bool {
        segment.sequence == self.half(side.other()).acknowledged || segment.sequence == self.half(side).end
    }

    /// Whether a segment proves that its sender is on the path: it acknowledges exactly what the other side has sent, or what
    /// its own side has last acknowledged, and begins at the end of what its side has sent. Or not far before it: a side that
    /// hears nothing sends again, and acknowledges nothing new.
    pub fn proves_path(&self, side: Side, segment: &Segment) -> bool {
        let (own, other) = (self.half(side), self.half(side.other()));
        let before = distance(own.end, segment.sequence);
        let acknowledged = [Some(other.end), Some(own.acknowledged)];
        (0..=AGAIN).contains(&before) && acknowledged.contains(&segment.acknowledged)
    }

    /// Takes a segment of an open connection in, if it fits.
    pub fn take(&mut self, side: Side, segment: &Segment) -> bool {
        let (Some(acknowledged), Some(end)) = (segment.acknowledged, segment.end) else {
            return false;
        };
        if !self.fits(side, segment.sequence, acknowledged) {
            return false;
        }
        if self.first_fin == Some(Side::Server) {
            self.keep_clock(side, segment);
        }
        let own = self.half_mut(side);
        if distance(end, own.end) > 0 {
            own.end = end;
        }
        if distance(acknowledged, own.acknowledged) > 0 {
            own.acknowledged = acknowledged;
        }
        if segment.kind == SegmentKind::Close {
            own.fin = Some(end);
            self.first_fin.get_or_insert(side);
            if self.first_fin == Some(Side::Server) {
                self.keep_clock(side, segment);
            }
        }
        true
    }

    fn fits(&self, side: Side, sequence: u32, acknowledged: u32) -> bool {
        let own = self.half(side);
        let ahead = distance(sequence, own.end).saturating_abs();
        let fits = |expected: u32| {
            let behind = distance(acknowledged, expected).saturating_abs();
            (ahead == 0 && behind < FAR) || (behind == 0 && ahead < FAR) || (ahead <= NEAR && behind <= NEAR)
        };
        fits(own.acknowledged) || fits(self.half(side.other()).end)
    }

    /// Whether a side's FIN has been acknowledged, exactly.
    pub fn is_fin_acknowledged(&self, side: Side) -> bool {
        let fin = self.half(side).fin;
        fin.is_some() && fin == Some(self.half(side.other()).acknowledged)
    }

    /// The side whose FIN came first.
    pub fn first_fin(&self) -> Side {
        self.first_fin.unwrap_or(Side::Client)
    }

    /// A segment after the connection's end.
    pub fn linger(&mut self, side: Side, segment: &Segment) {
        if segment.sequence == self.client.end {
            self.keep_clock(side, segment);
        }
    }

    /// Notes the client's clock.
    fn keep_clock(&mut self, side: Side, segment: &Segment) {
        if side == Side::Client
            && let Some(now) = segment.timestamp
            && self.clock.is_none_or(|before| distance(now, before) > 0)
        {
            self.clock = Some(now);
        }
    }

    /// Whether a server that remembers this connection in TIME_WAIT takes a SYN for a new one (RFC 6191 section 2, as Linux does it):
    /// its clock must not be before the old one's, and clock or sequence number must be behind.
    pub fn time_wait_takes(&self, syn: &Segment) -> bool {
        match (self.clock, syn.timestamp) {
            (Some(before), Some(now)) => distance(now, before) > 0,
            (Some(_) | None, _) => distance(syn.sequence, self.server.acknowledged) > 0,
        }
    }

    /// Whether a packet with this sequence number may be one that a side has sent and the other has not yet
    /// acknowledged: what an ICMP error may quote.
    pub fn is_under_way(&self, side: Side, sequence: u32) -> bool {
        let (own, other) = (self.half(side), self.half(side.other()));
        // the client's SYN, before anything is acknowledged
        let from = if self.server == Half::default() {
            self.client.acknowledged.wrapping_sub(1)
        } else {
            other.acknowledged
        };
        // a segment quoted may be one that was sent again after a part of it was acknowledged
        distance(sequence, from) >= -NEAR && distance(sequence, own.end) <= NEAR
    }
}
