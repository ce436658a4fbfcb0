//! Arrays of a BPF program that are read and written through memory: tables, and counters that both sides change.

use std::{
    io,
    num::NonZeroUsize,
    os::fd::AsFd,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use nix::{
    errno::Errno,
    sys::mman::{MapFlags, ProtFlags, mmap, munmap},
};

use super::{MMAPABLE, Map, attributes::number_of, kind};

/// The memory of an array with 8-byte values that was made with [`MMAPABLE`].
#[derive(Debug)]
struct Mapping {
    start: NonNull<AtomicU64>,
    values: usize,
    bytes: NonZeroUsize,
}

// SAFETY: the memory is shared with the kernel, not bound to a thread, and reached by atomic operations alone.
unsafe impl Send for Mapping {}
// SAFETY: as above: two threads that change a value at once do so by atomic operations.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(map: &Map) -> io::Result<Self> {
        let info = map.info();
        if info.kind != kind::ARRAY || info.value_size != 8 || info.flags & MMAPABLE == 0 {
            return Err(Errno::EINVAL.into());
        }
        let values = number_of(info.max_entries)?;
        let bytes = values.checked_mul(8).and_then(NonZeroUsize::new);
        let bytes = bytes.ok_or(Errno::EINVAL)?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let start = unsafe { mmap(None, bytes, protection, MapFlags::MAP_SHARED, map.as_fd(), 0) }?;
        Ok(Self {
            start: start.cast(),
            values,
            bytes,
        })
    }

    fn slots(&self) -> &[AtomicU64] {
        // SAFETY: the mapping has room for `values` of 8 bytes, begins at a page, and lives as long as `self`; whoever else
        // changes it does so by whole values, and we look at them by atomic operations alone.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.values) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours alone, and no reference into it outlives `self`.
        let unmapped = unsafe { munmap(self.start.cast(), self.bytes.get()) };
        debug_assert!(unmapped.is_ok(), "{unmapped:?}");
    }
}

/// A table: an array with 8-byte values that was made with [`MMAPABLE`], written through its memory. Programs see each value
/// that is stored at once.
#[derive(Debug)]
pub struct MappedTable(Mapping);

impl MappedTable {
    /// Maps the memory of a table, to be read and written. The map itself need not stay open.
    ///
    /// # Errors
    /// It is no such array (EINVAL), or there is no memory.
    pub fn new(map: &Map) -> io::Result<Self> {
        Mapping::new(map).map(Self)
    }

    /// Values that it has.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.values
    }

    /// Whether it has none, which the kernel makes no array with.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.values == 0
    }

    /// Stores these values from the first one on, and zero in those that are left. What does not fit is not taken.
    pub fn fill(&mut self, values: impl IntoIterator<Item = u64>) {
        let values = values.into_iter().chain(std::iter::repeat(0));
        for (slot, value) in self.0.slots().iter().zip(values) {
            slot.store(value, Ordering::Relaxed);
        }
    }

    /// The value at this place.
    #[must_use]
    pub fn get(&self, at: usize) -> Option<u64> {
        self.0.slots().get(at).map(|slot| slot.load(Ordering::Relaxed))
    }
}

/// Counters that programs and this process change at once: an array as [`MappedTable`]'s. A counter may be below zero for a
/// moment, where one side takes away before the other has added.
#[derive(Debug)]
pub struct MappedCounters(Mapping);

impl MappedCounters {
    /// Maps the memory of the counters, to be read and written. The map itself need not stay open.
    ///
    /// # Errors
    /// It is no such array (EINVAL), or there is no memory.
    pub fn new(map: &Map) -> io::Result<Self> {
        Mapping::new(map).map(Self)
    }

    /// What is counted at this place; 0 where there is none.
    #[must_use]
    pub fn get(&self, at: usize) -> i64 {
        let counted = self.0.slots().get(at).map(|slot| slot.load(Ordering::Relaxed));
        counted.unwrap_or(0).cast_signed()
    }

    /// Has it be so much at this place.
    pub fn set(&self, at: usize, value: i64) {
        if let Some(slot) = self.0.slots().get(at) {
            slot.store(value.cast_unsigned(), Ordering::Relaxed);
        }
    }

    /// Adds to what is counted at this place.
    pub fn add(&self, at: usize, more: i64) {
        if let Some(slot) = self.0.slots().get(at) {
            slot.fetch_add(more.cast_unsigned(), Ordering::Relaxed);
        }
    }

    /// Adds one at this place, if it is below a limit. Whether it was.
    #[must_use]
    pub fn add_below(&self, at: usize, limit: i64) -> bool {
        let more = |counted: u64| (counted.cast_signed() < limit).then(|| counted.wrapping_add(1));
        (self.0.slots().get(at)).is_some_and(|slot| {
            slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
                .is_ok()
        })
    }
}
