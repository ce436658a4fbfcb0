//! A table of a BPF program that is written through memory.

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

/// The memory of an array with 8-byte values that was made with [`MMAPABLE`]. Programs see each value that is stored at once.
#[derive(Debug)]
pub struct MappedTable {
    start: NonNull<AtomicU64>,
    values: usize,
    bytes: NonZeroUsize,
}

// SAFETY: the memory is shared with the kernel, not bound to a thread, and reached by atomic operations alone.
unsafe impl Send for MappedTable {}

impl MappedTable {
    /// Maps the memory of a table, to be read and written. The map itself need not stay open.
    ///
    /// # Errors
    /// It is no such array (EINVAL), or there is no memory.
    pub fn new(map: &Map) -> io::Result<Self> {
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

    /// Values that it has.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.values
    }

    /// Whether it has none, which the kernel makes no array with.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.values == 0
    }

    /// Stores these values from the first one on, and zero in those that are left. What does not fit is not taken.
    pub fn fill(&mut self, values: impl IntoIterator<Item = u64>) {
        let values = values.into_iter().chain(std::iter::repeat(0));
        for (slot, value) in self.slots().iter().zip(values) {
            slot.store(value, Ordering::Relaxed);
        }
    }

    /// The value at this place.
    #[must_use]
    pub fn get(&self, at: usize) -> Option<u64> {
        self.slots().get(at).map(|slot| slot.load(Ordering::Relaxed))
    }

    fn slots(&self) -> &[AtomicU64] {
        // SAFETY: the mapping has room for `values` of 8 bytes, begins at a page, and lives as long as `self`; whoever else
        // changes it does so by whole values, and we look at them by atomic operations alone.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.values) }
    }
}

impl Drop for MappedTable {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours alone, and no reference into it outlives `self`.
        let unmapped = unsafe { munmap(self.start.cast(), self.bytes.get()) };
        debug_assert!(unmapped.is_ok(), "{unmapped:?}");
    }
}
