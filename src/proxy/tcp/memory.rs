//! What waits for a slow peer in this process, and that its memory goes back to the kernel afterwards.

use std::{cell::Cell, io, ops::Deref};

use crate::sys::{self, splice::Pipe};

/// The most that one direction may hold in any case: what one read copies.
pub const COPY_BYTES: usize = 64 << 10;

/// What the directions of a thread may hold above that, in bytes, all together.
const MOST_UNLOADED: usize = 64 << 20;

/// Bytes that a thread frees before the allocator is asked to give them back.
const TRIM_AFTER: usize = 64 << 20;

/// Connections of a thread whose end in numbers is worth the same: some 10 MB.
const CROWD: usize = 4_096;

thread_local! {
    static UNLOADED: Cell<usize> = const { Cell::new(0) };
    static FREED: Cell<usize> = const { Cell::new(0) };
}

/// Bytes that wait for their destination.
#[derive(Debug, Default)]
pub struct Held(Vec<u8>);

impl Held {
    /// A copy of these: not more than [`COPY_BYTES`].
    #[must_use]
    pub fn copy(bytes: &[u8]) -> Self {
        debug_assert!(bytes.len() <= COPY_BYTES, "larger ones are counted");
        Self(bytes.to_vec())
    }

    /// What a pipe holds; the pipe is empty then. `None` if there is no room for as much: then it is as it was.
    ///
    /// # Errors
    /// The pipe has failed, and what it held is lost.
    pub fn unload(pipe: &mut Pipe) -> io::Result<Option<Self>> {
        let bytes = pipe.filled();
        let is_large = bytes > COPY_BYTES;
        if is_large && UNLOADED.get() + bytes > MOST_UNLOADED {
            return Ok(None);
        }
        let held = Self(pipe.unload()?);
        UNLOADED.set(UNLOADED.get() + held.counted());
        Ok(Some(held))
    }

    /// What of its memory counts as unloaded.
    fn counted(&self) -> usize {
        Some(self.0.capacity())
            .filter(|bytes| *bytes > COPY_BYTES)
            .unwrap_or(0)
    }
}

impl Deref for Held {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.0.capacity() == 0 {
            return;
        }
        UNLOADED.set(UNLOADED.get().saturating_sub(self.counted()));
        let freed = FREED.get() + self.0.capacity();
        // before it is looked for
        self.0 = Vec::new();
        FREED.set(if freed > TRIM_AFTER { 0 } else { freed });
        if freed > TRIM_AFTER {
            sys::memory::give_back();
        }
    }
}

/// How many connections a thread has had at most, to notice when many have ended.
#[derive(Debug, Default)]
pub struct Crowd(usize);

impl Crowd {
    /// There are so many now. Once half of a crowd has gone, its memory goes back.
    pub fn note(&mut self, open: usize) {
        if self.0 >= CROWD && open <= self.0 / 2 {
            self.0 = open;
            sys::memory::give_back();
        }
        self.0 = self.0.max(open);
    }
}
