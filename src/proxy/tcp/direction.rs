//! One direction of a relay: bytes from a source socket to a destination socket.
//!
//! Small data is copied through the thread's scratch buffer, and only what the destination would not take yet is
//! kept. Once a direction proves bulk it is spliced through a pipe of the thread's pool. An idle direction holds
//! neither buffer nor pipe. End of stream is passed on (half-close), and so is TCP urgent data, as such.

use std::{
    io,
    task::{Context, Poll, ready},
    time::Instant,
};

use tokio::io::Interest;

use super::{
    memory::{COPY_BYTES, Held},
    pipes::{self, LentPipe, PIPE_BYTES},
    rate::Budget,
    receive::{is_transient, poll_io, receive_if_ready, receive_now, with_scratch},
};
use crate::sys::{readiness::Stream, tcp};

/// A read of at least this much counts as bulk.
const BULK_READ: usize = 16 << 10;

/// Bulk reads in a row after which a direction is spliced.
const BULK_READS_TO_SPLICE: u8 = 2;

/// Spliced rounds in a row that are no bulk, after which a direction is copied again.
const SMALL_ROUNDS_TO_COPY: u8 = 8;

/// Rounds before a busy direction lets the thread's other connections have a turn.
pub const ROUNDS_A_TURN: usize = 16;

/// Which end of a direction failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Reading from the source.
    Source(Gone),
    /// Writing to the destination.
    Destination(Gone),
}

/// How a peer has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    /// It has reset the connection.
    Aborted,
    /// Without a word.
    Lost,
}

impl Gone {
    /// What an error of a socket says.
    pub fn of(error: &io::Error) -> Self {
        if tcp::is_lost(error) {
            Self::Lost
        } else {
            Self::Aborted
        }
    }
}

/// A failed read.
pub fn source_fault(error: &io::Error) -> Fault {
    Fault::Source(Gone::of(error))
}

/// A failed write.
pub fn destination_fault(error: &io::Error) -> Fault {
    Fault::Destination(Gone::of(error))
}

/// What a source has said before there is a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Early {
    /// Nothing yet.
    Nothing,
    /// Something, which is held.
    Data,
    /// It has reset the connection.
    Gone,
}

/// The state of one direction.
#[derive(Debug, Default)]
pub struct Direction {
    /// What was read by copying and not yet written, from `sent` on.
    held: Held,
    sent: usize,
    /// How many of the first bytes are our own, not the source's.
    ahead: u32,
    pipe: Option<Box<LentPipe>>,
    /// Doublings of [`COPY_BYTES`] that one round may put into the pipe: few at first, so that a destination that never takes
    /// anything does not leave a full one behind.
    window: u8,
    /// While copying: bulk reads in a row. While splicing: small rounds in a row.
    streak: u8,
    splicing: bool,
    /// The source is muted while the destination is full.
    muted: bool,
    /// An urgent byte to pass on after what is held.
    urgent: Option<u8>,
    /// The source has sent urgent data once: from then on a read that leaves room has not emptied it, because reads stop at
    /// the urgent mark, where splicing stands still.
    has_marks: bool,
    /// No read skips the urgent byte.
    keeps_urgent: bool,
    /// There may be more to read although the reactor says nothing of it.
    unread: bool,
    end_of_stream: bool,
    /// The source's error, met behind data that is still to be delivered: the kernel tells it once.
    broken: Option<Fault>,
    done: bool,
    moved: u64,
    /// What may be read of the source.
    budget: Budget,
}

impl Direction {
    /// One whose source has sent this already.
    #[must_use]
    pub fn with(early: Vec<u8>) -> Self {
        let mut direction = Self::default();
        direction.held = Held::early(early);
        direction
    }

    /// Puts bytes of our own before everything that the source has sent; nothing may have been delivered yet.
    pub fn put_before(&mut self, mut bytes: Vec<u8>) {
        debug_assert!(self.sent == 0 && self.ahead == 0, "it has begun");
        // a header, which is short
        self.ahead = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&self.held);
        self.held = Held::early(bytes);
    }

    /// Takes what the source has sent already, before there is a destination. To be called once.
    pub fn read_early(&mut self, source: &Stream) -> Early {
        if !self.held.is_empty() {
            return Early::Data;
        }
        with_scratch(|scratch| match receive_now(source, scratch) {
            // an end of stream is met again when the relay reads
            Ok(0) => Early::Nothing,
            Ok(n) => {
                self.held = Held::copy(&scratch[..n]);
                Early::Data
            }
            Err(e) if is_transient(&e) => Early::Nothing,
            Err(_) => Early::Gone,
        })
    }

    /// What the source has sent and is still here; to be called before anything is delivered.
    #[must_use]
    pub fn take_early(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held).into_bytes()
    }

    /// Whether everything up to the source's end of stream was delivered.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Whether bytes wait for the destination.
    #[must_use]
    pub fn is_backed_up(&self) -> bool {
        self.sent < self.held.len()
            || self.urgent.is_some()
            || self.pipe.as_ref().is_some_and(|lent| lent.pipe.filled() > 0)
    }

    /// Since when what is in the pipe has not moved.
    #[must_use]
    pub fn stalled_since(&self) -> Option<Instant> {
        self.pipe.as_ref()?.stalled
    }

    /// Gives the pipe back if what is in it has not moved since then: the bytes wait in memory, and whoever moves gets the
    /// pipe. It is looked at again as late if there is no room for them.
    pub fn rest_pipe(&mut self, since: Instant) {
        let Some(lent) = &mut self.pipe else { return };
        if lent.stalled.is_none_or(|stalled| stalled > since) {
            return;
        }
        match Held::unload(&mut lent.pipe) {
            Ok(Some(held)) => {
                self.held = held;
                (self.sent, self.streak, self.splicing) = (0, 0, false);
                self.release();
            }
            Ok(None) => lent.stalled = Some(Instant::now()),
            Err(error) => {
                self.broken = Some(source_fault(&error));
                self.release();
            }
        }
    }

    /// Bytes of the source that are held before anything is delivered.
    #[must_use]
    pub fn early(&self) -> u64 {
        (self.held.len() as u64).saturating_sub(self.ahead.into())
    }

    /// So much may be read of the source from now on.
    pub fn allow(&mut self, budget: Budget) {
        self.budget = budget;
    }

    /// How much of that is left.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.budget.left()
    }

    /// Bytes delivered since the last call.
    pub fn take_moved(&mut self) -> u64 {
        std::mem::take(&mut self.moved)
    }

    /// Moves what can be moved now. Ready when the direction is done; then the destination was told of the end,
    /// unless `last` says that both sockets are about to be closed anyway.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &Stream,
        destination: &Stream,
        last: bool,
    ) -> Poll<Result<(), Fault>> {
        if self.done {
            return Poll::Ready(Ok(()));
        }
        for _ in 0..ROUNDS_A_TURN {
            let Poll::Ready(flushed) = self.poll_flush(cx, destination) else {
                if self.splicing && !self.muted {
                    tcp::mute(source);
                    self.muted = true;
                }
                if let Some(lent) = &mut self.pipe {
                    lent.stalled.get_or_insert_with(Instant::now);
                }
                return Poll::Pending;
            };
            flushed.map_err(|error| destination_fault(&error))?;
            if let Some(fault) = self.broken {
                return Poll::Ready(Err(fault));
            }
            if self.end_of_stream {
                if !last {
                    tcp::finish_writing(destination);
                }
                self.done = true;
                self.release();
                return Poll::Ready(Ok(()));
            }
            if self.budget.is_spent() {
                self.rest(source);
                return Poll::Pending;
            }
            let read = if self.splicing {
                self.poll_splice(cx, source, destination)
            } else {
                self.poll_copy(cx, source, destination)
            };
            match read {
                Poll::Ready(result) => result?,
                Poll::Pending if self.splicing && source.known(cx).has_urgent => {
                    self.expect_marks(source);
                    (self.splicing, self.unread) = (false, true);
                }
                Poll::Pending => {
                    // nothing is held here: the source is what is waited for
                    self.rest(source);
                    return Poll::Pending;
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes what is held, first of all.
    fn poll_flush(&mut self, cx: &mut Context<'_>, destination: &Stream) -> Poll<io::Result<()>> {
        while self.is_backed_up() {
            let n = match &mut self.pipe {
                Some(lent) if lent.pipe.filled() > 0 => {
                    let drain = |s: &Stream| lent.pipe.drain_to(s);
                    let n = ready!(poll_io(cx, destination, Interest::WRITABLE, drain))?;
                    lent.stalled = None;
                    n
                }
                _ if self.sent == self.held.len() => {
                    let Some(byte) = self.urgent else { break };
                    ready!(poll_io(cx, destination, Interest::WRITABLE, |s| {
                        tcp::transmit_urgent(s, byte)
                    }))?;
                    self.urgent = None;
                    1
                }
                _ => {
                    let rest = &self.held[self.sent..];
                    let n = ready!(poll_io(cx, destination, Interest::WRITABLE, |s| tcp::transmit(
                        s, rest, false
                    )))?;
                    self.sent += n;
                    n
                }
            };
            let own = u32::try_from(n).unwrap_or(u32::MAX).min(self.ahead);
            self.ahead -= own;
            self.moved += n as u64 - u64::from(own);
        }
        if !self.held.is_empty() {
            // freed, not cleared: an idle connection keeps no buffer
            self.held = Held::default();
            self.sent = 0;
        }
        Poll::Ready(Ok(()))
    }

    fn expect_marks(&mut self, source: &Stream) {
        self.has_marks = true;
        self.keep_urgent(source);
    }

    fn keep_urgent(&mut self, source: &Stream) {
        if !self.keeps_urgent {
            self.keeps_urgent = true;
            tcp::keep_urgent_in_line(source);
        }
    }

    /// One read into the scratch buffer and one write out of it.
    fn poll_copy(
        &mut self,
        cx: &mut Context<'_>,
        source: &Stream,
        destination: &Stream,
    ) -> Poll<Result<(), Fault>> {
        let is_forced = std::mem::take(&mut self.unread);
        let is_closed = if is_forced {
            false
        } else {
            let known = ready!(source.poll_known(cx)).map_err(|error| source_fault(&error))?;
            if known.has_urgent {
                self.expect_marks(source);
            }
            known.is_closed
        };
        if self.has_marks {
            match tcp::take_urgent(source) {
                Ok(Some(byte)) => {
                    (self.urgent, self.unread) = (Some(byte), true);
                    return Poll::Ready(Ok(()));
                }
                Err(e) if !is_transient(&e) => return Poll::Ready(Err(source_fault(&e))),
                // no mark here, or the end of the stream, or a byte still to come: the read below meets it
                Ok(None) | Err(_) => {}
            }
        }
        with_scratch(|scratch| {
            let room = self.budget.room(scratch.len());
            let scratch = &mut scratch[..room];
            let received = if is_forced {
                tcp::receive(source, scratch)
            } else {
                receive_if_ready(source, scratch).unwrap_or_else(|| Err(io::ErrorKind::WouldBlock.into()))
            };
            let mut n = match received {
                Ok(n) => n,
                // the next round waits
                Err(e) if is_transient(&e) => return Poll::Ready(Ok(())),
                Err(e) => return Poll::Ready(Err(source_fault(&e))),
            };
            if n == 0 {
                self.end_of_stream = true;
                return Poll::Ready(Ok(()));
            }
            if n == scratch.len() {
                // the next read comes before the reactor could tell of urgent data, and may begin at it
                self.keep_urgent(source);
            }
            self.unread = self.has_marks && n < scratch.len();
            // An end that is known already travels in the packet of the last data: MSG_MORE waits for the FIN.
            while is_closed && !self.has_marks && n < scratch.len() && !self.end_of_stream {
                match tcp::receive(source, &mut scratch[n..]) {
                    Ok(0) => self.end_of_stream = true,
                    Ok(more) => n += more,
                    Err(e) if is_transient(&e) => break,
                    Err(e) => {
                        self.broken = Some(source_fault(&e));
                        break;
                    }
                }
            }
            self.budget.spend(n);
            // Tried at once, without asking the reactor: it nearly always fits. If not, the rest is held and the
            // next flush waits until there is room.
            let sent = match tcp::transmit(destination, &scratch[..n], self.end_of_stream) {
                Ok(sent) => sent,
                Err(e) if is_transient(&e) => 0,
                Err(e) => return Poll::Ready(Err(destination_fault(&e))),
            };
            self.moved += sent as u64;
            if sent < n {
                self.held = Held::copy(&scratch[sent..n]);
                self.sent = 0;
            }
            self.streak = if n >= BULK_READ && !self.has_marks {
                self.streak + 1
            } else {
                0
            };
            if self.streak >= BULK_READS_TO_SPLICE {
                self.streak = 0;
                self.splicing = true;
            }
            Poll::Ready(Ok(()))
        })
    }

    /// One round into the pipe; the flush of the next round empties it.
    fn poll_splice(
        &mut self,
        cx: &mut Context<'_>,
        source: &Stream,
        destination: &Stream,
    ) -> Poll<Result<(), Fault>> {
        if self.pipe.is_none() {
            self.pipe = pipes::take();
        }
        let Some(LentPipe { pipe, .. }) = self.pipe.as_deref_mut() else {
            // no pipe to be had: copy, and ask again when it looks like bulk again
            self.splicing = false;
            return self.poll_copy(cx, source, destination);
        };
        let window = COPY_BYTES << self.window;
        let most = self.budget.room(window);
        let n = ready!(poll_io(cx, source, Interest::READABLE, |s| pipe.fill_from(s, most)))
            .map_err(|error| source_fault(&error))?;
        if n == 0 {
            // the end of the stream, or an urgent mark before it, which only a read tells apart
            self.keep_urgent(source);
            (self.splicing, self.unread) = (false, true);
            return Poll::Ready(Ok(()));
        }
        self.budget.spend(n);
        self.streak = if n < BULK_READ { self.streak + 1 } else { 0 };
        if self.streak >= SMALL_ROUNDS_TO_COPY {
            self.streak = 0;
            self.splicing = false;
        }
        match pipe.drain_to(destination) {
            Ok(n) => self.moved += n as u64,
            Err(e) if is_transient(&e) => {}
            Err(e) => return Poll::Ready(Err(destination_fault(&e))),
        }
        if n == window && pipe.filled() == 0 && window < PIPE_BYTES {
            self.window += 1;
        }
        Poll::Ready(Ok(()))
    }

    /// Keeps nothing while it waits for the source or its rate.
    fn rest(&mut self, source: &Stream) {
        if self.muted {
            tcp::unmute(source);
            self.muted = false;
        }
        self.release();
    }

    fn release(&mut self) {
        if let Some(lent) = self.pipe.take() {
            pipes::give_back(lent.pipe);
        }
    }
}

impl Drop for Direction {
    fn drop(&mut self) {
        self.release();
    }
}
