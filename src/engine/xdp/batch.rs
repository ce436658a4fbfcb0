//! Some flows of a map, read at once.

use std::io;

use super::layout::{FlowKey, FlowValue, ForwardValue, ReverseValue};
use crate::sys::bpf::{BatchCursor, Map};

/// Keys and values, one after the other each.
#[derive(Debug, Default)]
pub struct FlowBatch {
    keys: Vec<u8>,
    values: Vec<u8>,
}

impl FlowBatch {
    /// Reads the next flows of a map, `most` at most unless a bucket has more, in place of what was read before. Whether these
    /// were the last ones.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn read(&mut self, map: &Map, cursor: &mut BatchCursor, most: u32) -> io::Result<bool> {
        map.lookup_batch(cursor, most, &mut self.keys, &mut self.values)?;
        Ok(cursor.is_at_end())
    }

    /// Their keys, one after the other.
    #[must_use]
    pub fn keys(&self) -> &[u8] {
        &self.keys
    }

    /// Each flow of the map of DSR flows; `None`: what nobody of ours has written there.
    pub fn direct(&self) -> impl Iterator<Item = (&[u8], Option<(FlowKey, FlowValue)>)> {
        self.decoded(FlowValue::SIZE, FlowValue::from_bytes)
    }

    /// The same of passthrough flows by their clients' keys.
    pub fn forwards(&self) -> impl Iterator<Item = (&[u8], Option<(FlowKey, ForwardValue)>)> {
        self.decoded(ForwardValue::SIZE, ForwardValue::from_bytes)
    }

    /// The same of passthrough flows by their servers' keys.
    pub fn reverses(&self) -> impl Iterator<Item = (&[u8], Option<(FlowKey, ReverseValue)>)> {
        self.decoded(ReverseValue::SIZE, ReverseValue::from_bytes)
    }

    fn decoded<V>(
        &self,
        size: usize,
        decode: fn(&[u8]) -> Option<V>,
    ) -> impl Iterator<Item = (&[u8], Option<(FlowKey, V)>)> {
        let all = self
            .keys
            .chunks_exact(FlowKey::SIZE)
            .zip(self.values.chunks_exact(size));
        all.map(move |(key, value)| (key, FlowKey::from_bytes(key).zip(decode(value))))
    }
}
