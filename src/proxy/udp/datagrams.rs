//! What one client has sent at once.

use crate::proxy::owners::{HandedOver, SessionKey};

/// Datagrams of a client, all of one size but the last.
#[derive(Debug, Clone, Copy)]
pub struct Datagrams<'a> {
    pub key: SessionKey,
    pub ecn: u8,
    /// The size of each; `None`: it is one.
    pub segment: Option<u16>,
    pub bytes: &'a [u8],
    /// Whether another worker has handed them over.
    pub is_handed_over: bool,
}

impl<'a> Datagrams<'a> {
    /// A copy of them.
    pub fn to_be_kept(self) -> HandedOver {
        HandedOver {
            key: self.key,
            ecn: self.ecn,
            segment: self.segment,
            bytes: self.bytes.into(),
        }
    }

    /// How many they are.
    pub fn count(&self) -> u32 {
        let count = match self.segment {
            Some(size) => self.bytes.len().div_ceil(usize::from(size).max(1)).max(1),
            None => 1,
        };
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// The first so many of them, and the others if there are any.
    pub fn split(self, count: u32) -> (Self, Option<Self>) {
        if count >= self.count() {
            return (self, None);
        }
        let at = usize::from(self.segment.unwrap_or(0)) * count as usize;
        let (first, rest) = self.bytes.split_at(at.min(self.bytes.len()));
        (Self { bytes: first, ..self }, Some(Self { bytes: rest, ..self }))
    }

    /// One that the kernel need not cut is none of several.
    pub fn segment(&self) -> Option<u16> {
        self.segment.filter(|size| self.bytes.len() > usize::from(*size))
    }
}
