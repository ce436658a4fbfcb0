//! A client's connection whose TLS ends here: what the client says is decrypted for the server, what the server says is
//! encrypted for the client.

use std::{
    cell::RefCell,
    io::{self, IoSlice, Read, Write},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use rustls::{Error, ServerConfig, ServerConnection};
use tokio::io::Interest;

use super::{
    direction::{Fault, Gone, ROUNDS_A_TURN, destination_fault, source_fault},
    memory::{COPY_BYTES, Held},
    receive::{is_transient, poll_io, receive_if_ready, with_scratch},
    ways::{Side, Ways},
};
use crate::sys::{readiness::Stream, tcp};

thread_local! {
    /// What was decrypted and not yet sent.
    static PLAIN: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(COPY_BYTES));
}

/// Both ways of a connection that speaks TLS with its client.
#[derive(Debug)]
pub struct TlsWays {
    connection: ServerConnection,
    /// Ciphertext that was read with the handshake.
    early: Vec<u8>,
    /// Plaintext for the server, from `sent` on.
    held: Held,
    sent: usize,
    /// How many of its first bytes are our own.
    ahead: usize,
    /// The connection may have plaintext although nothing has come.
    unread: bool,
    client_ended: bool,
    server_ended: bool,
    said_end: bool,
    client_done: bool,
    server_done: bool,
    /// The client's error, met behind data that is still to be delivered.
    client_fault: Option<Fault>,
    /// The server's error: the kernel tells it once, and then an end of stream.
    server_fault: Option<Fault>,
    bytes_in: u64,
    bytes_out: u64,
}

impl TlsWays {
    /// A connection whose handshake is to come.
    ///
    /// # Errors
    /// The configuration cannot be used.
    pub fn new(config: Arc<ServerConfig>) -> Result<Self, Error> {
        let mut connection = ServerConnection::new(config)?;
        // never more than one read of the server is put in
        connection.set_buffer_limit(None);
        Ok(Self {
            connection,
            early: Vec::new(),
            held: Held::default(),
            sent: 0,
            ahead: 0,
            unread: true,
            client_ended: false,
            server_ended: false,
            said_end: false,
            client_done: false,
            server_done: false,
            client_fault: None,
            server_fault: None,
            bytes_in: 0,
            bytes_out: 0,
        })
    }

    /// What rustls knows.
    #[must_use]
    pub const fn connection(&self) -> &ServerConnection {
        &self.connection
    }

    /// Takes up bytes of the handshake. What comes after it is kept for later.
    ///
    /// # Errors
    /// The handshake has failed; an alert for the client waits to be [flushed](Self::poll_flush).
    pub fn shake(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() && self.connection.is_handshaking() {
            // a slice gives no error, and is not empty
            let taken = self.connection.read_tls(&mut bytes);
            self.connection.process_new_packets()?;
            if taken.is_err() {
                break;
            }
        }
        self.early.extend_from_slice(bytes);
        Ok(())
    }

    /// Sends what waits for the client.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>, client: &Stream) -> Poll<io::Result<()>> {
        while self.connection.wants_write() {
            let connection = &mut self.connection;
            let write = |client: &Stream| connection.write_tls(&mut Sink(client));
            ready!(poll_io(cx, client, Interest::WRITABLE, write))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Puts bytes of our own before everything that the client has said.
    pub fn put_before(&mut self, bytes: Vec<u8>) {
        self.ahead = bytes.len();
        self.held = Held::early(bytes);
    }

    fn poll_up(
        &mut self,
        cx: &mut Context<'_>,
        client: &Stream,
        server: &Stream,
        last: bool,
    ) -> Poll<Result<(), Fault>> {
        for _ in 0..ROUNDS_A_TURN {
            ready!(self.poll_held(cx, server)).map_err(|error| destination_fault(&error))?;
            if let Some(fault) = self.client_fault {
                return Poll::Ready(Err(fault));
            }
            if self.client_ended {
                if !last {
                    tcp::finish_writing(server);
                }
                self.client_done = true;
                return Poll::Ready(Ok(()));
            }
            let is_forced = std::mem::take(&mut self.unread);
            if !is_forced {
                ready!(client.poll_read_ready(cx)).map_err(|error| source_fault(&error))?;
            }
            self.decrypt_to(client, server, is_forced)?;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes plaintext that is held.
    fn poll_held(&mut self, cx: &mut Context<'_>, server: &Stream) -> Poll<io::Result<()>> {
        while self.sent < self.held.len() {
            let rest = &self.held[self.sent..];
            let write = |server: &Stream| tcp::transmit(server, rest, false);
            let n = ready!(poll_io(cx, server, Interest::WRITABLE, write))?;
            self.sent += n;
            let own = n.min(self.ahead);
            self.ahead -= own;
            self.bytes_in += (n - own) as u64;
        }
        if !self.held.is_empty() {
            (self.held, self.sent) = (Held::default(), 0);
        }
        Poll::Ready(Ok(()))
    }

    /// One read of the client, or what has come before, decrypted and written to the server.
    fn decrypt_to(&mut self, client: &Stream, server: &Stream, is_forced: bool) -> Result<(), Fault> {
        PLAIN.with_borrow_mut(|plain| {
            plain.clear();
            let decrypted = if is_forced {
                let early = std::mem::take(&mut self.early);
                self.decrypt(&early, plain)
            } else {
                with_scratch(|scratch| match receive_if_ready(client, scratch) {
                    None => Ok(()),
                    Some(Ok(0)) => {
                        self.client_ended = true;
                        Ok(())
                    }
                    Some(Ok(n)) => self.decrypt(&scratch[..n], plain),
                    Some(Err(error)) if is_transient(&error) => Ok(()),
                    Some(Err(error)) => {
                        self.client_fault = Some(source_fault(&error));
                        Ok(())
                    }
                })
            };
            if decrypted.is_err() {
                // the alert that says why is sent as far as it can be
                let _ = self.connection.write_tls(&mut Sink(client));
                self.client_fault.get_or_insert(Fault::Source(Gone::Aborted));
            }
            if plain.is_empty() {
                return Ok(());
            }
            let sent = match tcp::transmit(server, plain, false) {
                Ok(sent) => sent,
                Err(error) if is_transient(&error) => 0,
                Err(error) => return Err(destination_fault(&error)),
            };
            self.bytes_in += sent as u64;
            if sent < plain.len() {
                (self.held, self.sent) = (Held::early(plain[sent..].to_vec()), 0);
            }
            Ok(())
        })
    }

    /// Appends the plaintext of ciphertext, and of what had come before.
    fn decrypt(&mut self, mut bytes: &[u8], plain: &mut Vec<u8>) -> Result<(), Error> {
        loop {
            let left = bytes.len();
            let mut state = self.connection.process_new_packets()?;
            if !bytes.is_empty() {
                // full of plaintext, which is taken below
                let _ = self.connection.read_tls(&mut bytes);
                state = self.connection.process_new_packets()?;
            }
            let there = state.plaintext_bytes_to_read();
            let before = plain.len();
            plain.resize(before + there, 0);
            let taken = self.connection.reader().read(&mut plain[before..]);
            plain.truncate(before + taken.unwrap_or(0));
            if state.peer_has_closed() {
                self.client_ended = true;
                return Ok(());
            }
            if bytes.is_empty() && there == 0 {
                return Ok(());
            }
            if bytes.len() == left && there == 0 {
                return Err(Error::General("rustls takes nothing more".to_owned()));
            }
        }
    }

    fn poll_down(
        &mut self,
        cx: &mut Context<'_>,
        client: &Stream,
        server: &Stream,
        last: bool,
    ) -> Poll<Result<(), Fault>> {
        for _ in 0..ROUNDS_A_TURN {
            ready!(self.poll_flush(cx, client)).map_err(|error| destination_fault(&error))?;
            if let Some(fault) = self.server_fault {
                return Poll::Ready(Err(fault));
            }
            if self.server_ended {
                if !std::mem::replace(&mut self.said_end, true) {
                    self.connection.send_close_notify();
                    continue;
                }
                if !last {
                    tcp::finish_writing(client);
                }
                self.server_done = true;
                return Poll::Ready(Ok(()));
            }
            ready!(server.poll_read_ready(cx)).map_err(|error| source_fault(&error))?;
            self.encrypt_from(client, server)?;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// One read of the server, encrypted and written to the client.
    fn encrypt_from(&mut self, client: &Stream, server: &Stream) -> Result<(), Fault> {
        with_scratch(|scratch| {
            let n = match receive_if_ready(server, scratch) {
                None => return Ok(()),
                Some(Ok(n)) => n,
                Some(Err(error)) if is_transient(&error) => return Ok(()),
                Some(Err(error)) => {
                    self.server_fault = Some(source_fault(&error));
                    return Ok(());
                }
            };
            if n == 0 {
                self.server_ended = true;
                return Ok(());
            }
            // there is no limit, so that all of it is taken
            (self.connection.writer().write_all(&scratch[..n])).map_err(|error| destination_fault(&error))?;
            self.bytes_out += n as u64;
            while self.connection.wants_write() {
                match self.connection.write_tls(&mut Sink(client)) {
                    Ok(_) => {}
                    Err(error) if is_transient(&error) => break,
                    Err(error) => return Err(destination_fault(&error)),
                }
            }
            Ok(())
        })
    }
}

impl Ways for &mut TlsWays {
    fn poll_from(
        &mut self,
        side: Side,
        cx: &mut Context<'_>,
        client: &Stream,
        server: &Stream,
        last: bool,
    ) -> Poll<Result<(), Fault>> {
        if self.is_done(side) {
            return Poll::Ready(Ok(()));
        }
        match side {
            Side::Client => self.poll_up(cx, client, server, last),
            Side::Server => self.poll_down(cx, client, server, last),
        }
    }

    fn is_done(&self, side: Side) -> bool {
        match side {
            Side::Client => self.client_done,
            Side::Server => self.server_done,
        }
    }

    fn is_backed_up(&self, side: Side) -> bool {
        match side {
            Side::Client => self.sent < self.held.len(),
            Side::Server => self.connection.wants_write(),
        }
    }

    fn take_moved(&mut self) -> (u64, u64) {
        (
            std::mem::take(&mut self.bytes_in),
            std::mem::take(&mut self.bytes_out),
        )
    }

    fn stalled_since(&self) -> Option<Instant> {
        None
    }

    fn rest_pipes(&mut self, _: Instant) {}
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
