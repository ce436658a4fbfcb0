//! One end of a connection that does not go through as it comes: the client's or the server's, plain or with TLS.

use std::{
    io::{self, IoSlice, Read, Write},
    task::{Context, Poll, ready},
};

use rustls::{Connection, Error};
use tokio::io::Interest;

use super::{
    direction::{Fault, Gone, destination_fault, source_fault},
    memory::Held,
    rate::Budget,
    receive::{is_transient, poll_io, receive_if_ready, with_scratch},
};
use crate::sys::{readiness::Stream, tcp};

/// An end of a connection, without its socket.
#[derive(Debug, Default)]
pub struct End {
    /// `None`: it is plain.
    tls: Option<Box<Connection>>,
    /// What it has sent already: with TLS the ciphertext behind the handshake.
    early: Vec<u8>,
    /// Of a plain one, what it did not take yet, from `sent` on.
    held: Held,
    sent: usize,
    /// How many of the first bytes of `held` are our own.
    ahead: usize,
    /// There may be more from it although nothing has come.
    unread: bool,
    ending: Option<Ending>,
    has_said_end: bool,
    /// Its error, met behind data that is still to be delivered: the kernel tells it once.
    gone: Option<Gone>,
    /// Why its TLS has failed.
    error: Option<Error>,
    /// Payload that it was given, since that was last asked for.
    delivered: u64,
    /// What may be read of it, with TLS of what it is encrypted to.
    budget: Budget,
}

/// How an end has ended what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// In order.
    Whole,
    /// With TLS, by an end of stream without a `close_notify`: anybody on the way can make one.
    Cut,
}

impl End {
    /// One without TLS that has sent this already.
    #[must_use]
    pub fn plain(early: Vec<u8>) -> Self {
        Self {
            unread: !early.is_empty(),
            early,
            ..Self::default()
        }
    }

    /// One with TLS whose handshake is to come.
    #[must_use]
    pub fn tls(mut connection: Connection) -> Self {
        // never more than one read of the other end is put in
        connection.set_buffer_limit(None);
        Self {
            tls: Some(Box::new(connection)),
            unread: true,
            ..Self::default()
        }
    }

    /// Bytes that it had sent before the relay.
    pub fn early(&self) -> u64 {
        self.early.len() as u64
    }

    /// What rustls knows of it.
    #[must_use]
    pub fn connection(&self) -> Option<&Connection> {
        self.tls.as_deref()
    }

    /// Whether the handshake is under way.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// Why its TLS has failed, once it has.
    #[must_use]
    pub const fn error(&self) -> Option<&Error> {
        self.error.as_ref()
    }

    /// How it has ended what it says; `None`: it has not, or some of it is still here.
    #[must_use]
    pub const fn ending(&self) -> Option<Ending> {
        self.ending
    }

    /// How it has gone, if it has.
    #[must_use]
    pub const fn gone(&self) -> Option<Gone> {
        self.gone
    }

    /// Whether bytes wait for it.
    #[must_use]
    pub fn is_backed_up(&self) -> bool {
        match &self.tls {
            Some(tls) => tls.wants_write(),
            None => self.sent < self.held.len(),
        }
    }

    /// Payload that it was given since the last call.
    pub fn take_delivered(&mut self) -> u64 {
        std::mem::take(&mut self.delivered)
    }

    /// So much may be read of it from now on.
    pub fn allow(&mut self, budget: Budget) {
        self.budget = budget;
    }

    /// How much of that is left.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.budget.left()
    }

    /// Puts bytes of our own before everything that a plain end is given.
    pub fn put_before(&mut self, bytes: Vec<u8>) {
        debug_assert!(self.tls.is_none() && self.held.is_empty(), "it has begun");
        self.ahead = bytes.len();
        self.held = Held::early(bytes);
    }

    /// Takes up bytes of the handshake. What comes after it is kept for later.
    ///
    /// # Errors
    /// The handshake has failed; an alert for the other side waits to be [flushed](Self::poll_flush).
    pub fn shake(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        if let Some(tls) = &mut self.tls {
            while !bytes.is_empty() && tls.is_handshaking() {
                // a slice gives no error, and is not empty
                let taken = tls.read_tls(&mut bytes);
                tls.process_new_packets()?;
                if taken.is_err() {
                    break;
                }
            }
        }
        self.early.extend_from_slice(bytes);
        Ok(())
    }

    /// Sends what waits for it.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>, socket: &Stream) -> Poll<io::Result<()>> {
        if let Some(tls) = &mut self.tls {
            while tls.wants_write() {
                let write = |socket: &Stream| tls.write_tls(&mut Sink(socket));
                ready!(poll_io(cx, socket, Interest::WRITABLE, write))?;
            }
            return Poll::Ready(Ok(()));
        }
        while self.sent < self.held.len() {
            let rest = &self.held[self.sent..];
            let write = |socket: &Stream| tcp::transmit(socket, rest, false);
            let n = ready!(poll_io(cx, socket, Interest::WRITABLE, write))?;
            self.sent += n;
            let own = n.min(self.ahead);
            self.ahead -= own;
            self.delivered += (n - own) as u64;
        }
        if !self.held.is_empty() {
            (self.held, self.sent) = (Held::default(), 0);
        }
        Poll::Ready(Ok(()))
    }

    /// Has it told that nothing more comes, if its protocol has a word for that. True: there is something to send.
    pub fn say_end(&mut self) -> bool {
        match &mut self.tls {
            Some(tls) if !self.has_said_end => {
                self.has_said_end = true;
                tls.send_close_notify();
                true
            }
            _ => false,
        }
    }

    /// One read of it, or what has come before, given to the other end; what that does not take is held there.
    ///
    /// # Errors
    /// The other end is gone.
    pub fn poll_pass(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut Self,
        (own_socket, to_socket): (&Stream, &Stream),
        plain: &mut Vec<u8>,
    ) -> Poll<Result<(), Fault>> {
        if std::mem::take(&mut self.unread) {
            let early = std::mem::take(&mut self.early);
            return Poll::Ready(self.pass_on(&early, to, own_socket, to_socket, plain, cx));
        }
        if self.budget.is_spent() {
            return Poll::Pending;
        }
        ready!(own_socket.poll_read_ready(cx)).map_err(|error| source_fault(&error))?;
        Poll::Ready(with_scratch(|scratch| {
            let room = self.budget.room(scratch.len());
            match receive_if_ready(own_socket, &mut scratch[..room]) {
                None => Ok(()),
                Some(Ok(0)) => {
                    self.ending = Some(match self.tls {
                        Some(_) => Ending::Cut,
                        None => Ending::Whole,
                    });
                    Ok(())
                }
                Some(Ok(n)) => {
                    self.budget.spend(n);
                    self.pass_on(&scratch[..n], to, own_socket, to_socket, plain, cx)
                }
                Some(Err(error)) if is_transient(&error) => Ok(()),
                Some(Err(error)) => {
                    self.gone = Some(Gone::of(&error));
                    Ok(())
                }
            }
        }))
    }

    fn pass_on(
        &mut self,
        bytes: &[u8],
        to: &mut Self,
        own_socket: &Stream,
        to_socket: &Stream,
        plain: &mut Vec<u8>,
        cx: &Context<'_>,
    ) -> Result<(), Fault> {
        let Some(tls) = &mut self.tls else {
            return to.give(bytes, to_socket);
        };
        plain.clear();
        match decrypt(tls, bytes, plain) {
            Ok(true) => self.ending = Some(Ending::Whole),
            Ok(false) => {}
            Err(error) => {
                self.error = Some(error);
                self.gone.get_or_insert(Gone::Aborted);
            }
        }
        if tls.wants_write() {
            // an alert that says why, or an answer to a key update: as far as it can be sent, the rest with the next flush
            let _ = tls.write_tls(&mut Sink(own_socket));
            if tls.wants_write() && self.error.is_none() {
                cx.waker().wake_by_ref();
            }
        }
        to.give(plain, to_socket)
    }

    fn give(&mut self, bytes: &[u8], socket: &Stream) -> Result<(), Fault> {
        if bytes.is_empty() {
            return Ok(());
        }
        let Some(tls) = &mut self.tls else {
            let sent = match tcp::transmit(socket, bytes, false) {
                Ok(sent) => sent,
                Err(error) if is_transient(&error) => 0,
                Err(error) => return Err(destination_fault(&error)),
            };
            self.delivered += sent as u64;
            if sent < bytes.len() {
                (self.held, self.sent) = (Held::early(bytes[sent..].to_vec()), 0);
            }
            return Ok(());
        };
        // there is no limit, so that all of it is taken
        (tls.writer().write_all(bytes)).map_err(|error| destination_fault(&error))?;
        self.delivered += bytes.len() as u64;
        while tls.wants_write() {
            match tls.write_tls(&mut Sink(socket)) {
                Ok(_) => {}
                Err(error) if is_transient(&error) => break,
                Err(error) => return Err(destination_fault(&error)),
            }
        }
        Ok(())
    }
}

/// Appends the plaintext of ciphertext, and of what had come before. True: it has ended in order.
fn decrypt(tls: &mut Connection, mut bytes: &[u8], plain: &mut Vec<u8>) -> Result<bool, Error> {
    loop {
        let left = bytes.len();
        let mut state = tls.process_new_packets()?;
        if !bytes.is_empty() {
            // full of plaintext, which is taken below
            let _ = tls.read_tls(&mut bytes);
            state = tls.process_new_packets()?;
        }
        let there = state.plaintext_bytes_to_read();
        let before = plain.len();
        plain.resize(before + there, 0);
        let taken = tls.reader().read(&mut plain[before..]);
        plain.truncate(before + taken.unwrap_or(0));
        if state.peer_has_closed() {
            return Ok(true);
        }
        if bytes.is_empty() && there == 0 {
            return Ok(false);
        }
        if bytes.len() == left && there == 0 {
            return Err(Error::General("rustls takes nothing more".to_owned()));
        }
    }
}

/// A socket as rustls writes to it: all records in one call.
struct Sink<'a>(&'a Stream);

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        tcp::transmit(self.0, bytes, false)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        tcp::transmit_parts(self.0, parts)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
