//! Each worker thread's pool of pipes for splicing.

use std::{
    cell::{Cell, RefCell},
    time::Instant,
};

use crate::sys::splice::Pipe;

/// Bytes of a pipe. Larger pipes mean fewer system calls for bulk data; the kernel grants an ordinary user 64 MiB
/// of pipes in total (fs.pipe-user-pages-soft) before it falls back to small ones.
pub const PIPE_BYTES: usize = 512 << 10;

/// Unused pipes that a thread keeps.
const MAX_SPARE: usize = 16;

/// A pipe in use. Boxed, because few connections have one and each has the place for it.
#[derive(Debug)]
pub struct LentPipe {
    pub pipe: Pipe,
    /// Since when what is in it waits for a destination that takes none.
    pub stalled: Option<Instant>,
}

#[derive(Default)]
struct Pool {
    spare: Vec<Pipe>,
    lent: usize,
}

thread_local! {
    static POOL: RefCell<Pool> = RefCell::default();
    /// Pipes of this thread, in use and waiting; each costs two descriptors. Beyond them data is copied.
    static MOST: Cell<usize> = const { Cell::new(0) };
}

/// Sets how many pipes the calling thread may have; none before.
pub fn limit(most: usize) {
    MOST.set(most);
}

/// An empty pipe, if the pool has one or may make one.
pub fn take() -> Option<Box<LentPipe>> {
    POOL.with_borrow_mut(|pool| {
        let pipe = match pool.spare.pop() {
            Some(pipe) => pipe,
            None if pool.lent < MOST.get() => Pipe::new(PIPE_BYTES).ok()?,
            None => return None,
        };
        pool.lent += 1;
        Some(Box::new(LentPipe { pipe, stalled: None }))
    })
}

/// Gives a pipe back; one that still holds bytes is closed, so that no connection can meet another's data.
pub fn give_back(pipe: Pipe) {
    // at thread exit the pool may be gone already; then the pipe is simply closed
    let _ = POOL.try_with(|pool| {
        let mut pool = pool.borrow_mut();
        pool.lent = pool.lent.saturating_sub(1);
        if pipe.filled() == 0 && pool.spare.len() < MAX_SPARE {
            pool.spare.push(pipe);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_lends_only_so_many_pipes_and_reuses_what_comes_back() {
        assert!(take().is_none(), "none by default");
        limit(20);
        let lent: Vec<_> = (0..20).map_while(|_| take()).collect();
        assert_eq!(lent.len(), 20);
        assert!(take().is_none(), "one more than the limit");
        lent.into_iter().for_each(|lent| give_back(lent.pipe));
        assert!(take().is_some());
        POOL.with_borrow(|pool| assert!(pool.spare.len() < MAX_SPARE));
    }
}
