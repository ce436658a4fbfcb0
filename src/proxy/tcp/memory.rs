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

    /// These, which were read before there was a destination.
    #[must_use]
    pub fn early(bytes: Vec<u8>) -> Self {
        let held = Self(bytes);
        UNLOADED.set(UNLOADED.get() + held.counted());
        held
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

    /// The bytes themselves.
    #[must_use]
    pub fn into_bytes(mut self) -> Vec<u8> {
        UNLOADED.set(UNLOADED.get().saturating_sub(self.counted()));
        // nothing is left to be dropped
        std::mem::take(&mut self.0)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Resident memory of the process, in bytes (proc_pid_statm(5)).
    fn resident() -> usize {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages: usize = statm.split_whitespace().nth(1).unwrap().parse().unwrap();
        pages * 4096
    }

    #[test]
    fn what_was_held_between_blocks_that_live_on_goes_back_to_the_kernel() {
        // other tests of this process allocate far less
        const HELD: usize = 3_000;
        let bytes = vec![1; COPY_BYTES];
        let mut living = Vec::new();
        let held: Vec<Held> = (0..HELD)
            .map(|n| {
                living.push(Box::new([n; 8]));
                Held::copy(&bytes)
            })
            .collect();
        let most = resident();
        drop(held);
        let left = resident();
        assert!(
            most.saturating_sub(left) > 100 << 20,
            "{most} bytes, and {left} afterwards"
        );
        assert_eq!(living.len(), HELD);
    }

    #[test]
    fn a_crowd_has_gone_when_half_of_it_has_and_a_few_are_none() {
        let mut crowd = Crowd::default();
        let most = CROWD + 2;
        for open in [CROWD, most, most / 2 + 1] {
            crowd.note(open);
        }
        assert_eq!(crowd.0, most, "half of it is still there");
        crowd.note(most / 2);
        assert_eq!(crowd.0, most / 2);
        crowd.note(1);
        assert_eq!(crowd.0, most / 2, "too few to be worth it");
    }
}
