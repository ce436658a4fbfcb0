//! Many elements of a map, written or removed by one system call where the kernel can do that.

use std::io;

use crate::sys::bpf::{Insert, Map};

/// Writes elements, there or not.
///
/// # Errors
/// The kernel refused one; those before it are written.
pub fn put_all<const K: usize, const V: usize>(
    map: &Map,
    elements: impl Iterator<Item = ([u8; K], [u8; V])> + Clone,
) -> io::Result<()> {
    let keys: Vec<u8> = elements.clone().flat_map(|(key, _)| key).collect();
    let values: Vec<u8> = elements.clone().flat_map(|(_, value)| value).collect();
    if keys.len() > K && map.update_batch(&keys, &values).is_ok() {
        return Ok(());
    }
    // one by one: kernels have no batches for some kinds of maps, and the error is that of an element
    elements
        .into_iter()
        .try_for_each(|(key, value)| map.update(&key, &value, Insert::Any))
}

/// Removes elements, there or not.
///
/// # Errors
/// The kernel refused.
pub fn delete_all<const K: usize>(map: &Map, keys: impl Iterator<Item = [u8; K]> + Clone) -> io::Result<()> {
    let all: Vec<u8> = keys.clone().flatten().collect();
    if all.len() > K && map.delete_batch(&all).is_ok() {
        return Ok(());
    }
    keys.into_iter().try_for_each(|key| map.delete(&key).map(drop))
}
