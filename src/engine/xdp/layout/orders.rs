//! What the program `order` is asked, and what it answers.

use super::{
    FlowKey, OriginKey,
    codec::{Reader, Writer},
};
use crate::flow::stored::{Segment, SegmentKind, Side};

/// What the program `order` is to do with a passthrough flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// What.
    pub what: OrderKind,
    /// Its key, as its client's packets have it.
    pub key: FlowKey,
    /// Which flow of that key: [`ForwardValue::begun`].
    pub begun: u64,
}

/// What is to be done with a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrderKind {
    /// To take in a packet of a side.
    Observe(Side, Segment),
    /// To end it, whatever its state.
    End,
    /// To have replies go back another way.
    Move(OriginKey),
}

/// What came of an order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OrderResult {
    /// There is such a flow.
    pub is_found: bool,
    /// Its client, which has just proven to be who it says, has its share of NAT ports: the flow must end.
    pub is_share_full: bool,
    /// The packet proves that its client is who it says.
    pub is_proven: bool,
}

const OBSERVE: u32 = 1;
const END: u32 = 2;
const MOVE: u32 = 3;

const HAS_END: u32 = 1;
const HAS_ACKNOWLEDGED: u32 = 2;
const HAS_TIMESTAMP: u32 = 4;

/// A packet of which nothing is said.
const NOTHING: Segment = Segment::DATAGRAM;

impl Order {
    /// Bytes of it.
    pub const SIZE: usize = 104;

    /// As the program is given it in place of a frame.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::SIZE] {
        let (what, side, segment) = match &self.what {
            OrderKind::Observe(side, segment) => (OBSERVE, *side, segment),
            OrderKind::End => (END, Side::Client, &NOTHING),
            OrderKind::Move(_) => (MOVE, Side::Client, &NOTHING),
        };
        let has = [
            (segment.end, HAS_END),
            (segment.acknowledged, HAS_ACKNOWLEDGED),
            (segment.timestamp, HAS_TIMESTAMP),
        ];
        let has = has.iter().filter(|(field, _)| field.is_some());
        let origin = match self.what {
            OrderKind::Move(origin) => origin.to_bytes(),
            OrderKind::Observe(..) | OrderKind::End => [0; OriginKey::SIZE],
        };
        Writer::new()
            .u32(what)
            .u32(match side {
                Side::Client => 0,
                Side::Server => 1,
            })
            .put(&self.key.to_bytes())
            .u64(self.begun)
            .u32(code(segment.kind))
            .u32(segment.sequence)
            .u32(segment.end.unwrap_or(0))
            .u32(segment.acknowledged.unwrap_or(0))
            .u32(segment.timestamp.unwrap_or(0))
            .u32(has.fold(0, |flags, (_, flag)| flags | flag))
            .put(&origin)
            .end()
    }
}

/// The kind of a segment as the program numbers them (`enum kind`).
const fn code(kind: SegmentKind) -> u32 {
    match kind {
        SegmentKind::Reset => 0,
        SegmentKind::Open => 1,
        SegmentKind::Accept => 2,
        SegmentKind::Close => 3,
        SegmentKind::Go => 4,
        SegmentKind::Odd => 5,
        SegmentKind::Datagram => 6,
    }
}

const FOUND: u32 = 1;
const SHARE_FULL: u32 = 2;
const PROVEN: u32 = 4;

impl OrderResult {
    /// From the bytes that the program has left of an order.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let result = bytes.get(Order::SIZE - 4..).and_then(|end| Reader(end).u32());
        let has = |flag| result.is_some_and(|result| result & flag != 0);
        Self {
            is_found: has(FOUND),
            is_share_full: has(SHARE_FULL),
            is_proven: has(PROVEN),
        }
    }
}
