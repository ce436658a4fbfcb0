//! A connection with TLS on one side or on both: what one side says is decrypted, what the other gets is encrypted.

use std::{
    cell::RefCell,
    task::{Context, Poll, ready},
    time::Instant,
};

use rustls::ProtocolVersion;

use super::{
    direction::{Fault, ROUNDS_A_TURN, destination_fault},
    end::{End, Ending},
    memory::COPY_BYTES,
    rate::Budget,
    ways::{Side, Ways},
};
use crate::{
    base::ServerTlsFailure,
    sys::{readiness::Stream, tcp},
    tls::handshake_failure,
};

thread_local! {
    /// What was decrypted and not yet sent.
    static PLAIN: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(COPY_BYTES));
}

/// Both ways of a connection that speaks TLS with its client, its server or both.
#[derive(Debug)]
pub struct TlsWays {
    /// The client's end.
    pub client: End,
    /// The server's.
    pub server: End,
    client_done: bool,
    server_done: bool,
}

impl TlsWays {
    /// With these ends.
    #[must_use]
    pub const fn new(client: End, server: End) -> Self {
        Self {
            client,
            server,
            client_done: false,
            server_done: false,
        }
    }

    /// Why the server has refused the handshake after its end: with TLS 1.3 it judges our certificate only then. What it says
    /// to a client that was cut off is no refusal.
    pub fn refusal(&self) -> Option<ServerTlsFailure> {
        let connection = self.server.connection()?;
        let is_judged_late = connection.protocol_version() == Some(ProtocolVersion::TLSv1_3);
        let error = (self.server.error()).filter(|_| is_judged_late && !self.is_client_cut())?;
        Some(handshake_failure(connection, error))
    }

    /// Whether the client has ended without a `close_notify`.
    pub fn is_client_cut(&self) -> bool {
        self.client.ending() == Some(Ending::Cut)
    }
}

/// One way, from an end whose socket is the first to the other.
fn poll_way(
    from: &mut End,
    to: &mut End,
    cx: &mut Context<'_>,
    sockets: (&Stream, &Stream),
    last: bool,
) -> Poll<Result<(), Fault>> {
    for _ in 0..ROUNDS_A_TURN {
        ready!(to.poll_flush(cx, sockets.1)).map_err(|error| destination_fault(&error))?;
        if let Some(gone) = from.gone() {
            return Poll::Ready(Err(Fault::Source(gone)));
        }
        if let Some(ending) = from.ending() {
            // who was cut off must not make a whole of it for the other
            if ending == Ending::Whole && to.say_end() {
                continue;
            }
            if !last {
                tcp::finish_writing(sockets.1);
            }
            return Poll::Ready(Ok(()));
        }
        ready!(PLAIN.with_borrow_mut(|plain| from.poll_pass(cx, to, sockets, plain)))?;
    }
    cx.waker().wake_by_ref();
    Poll::Pending
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
        let ways = &mut **self;
        let (polled, done) = match side {
            Side::Client => (
                poll_way(&mut ways.client, &mut ways.server, cx, (client, server), last),
                &mut ways.client_done,
            ),
            Side::Server => (
                poll_way(&mut ways.server, &mut ways.client, cx, (server, client), last),
                &mut ways.server_done,
            ),
        };
        *done = matches!(polled, Poll::Ready(Ok(())));
        polled
    }

    fn early(&self, side: Side) -> u64 {
        match side {
            Side::Client => self.client.early(),
            Side::Server => self.server.early(),
        }
    }

    fn allow(&mut self, side: Side, budget: Budget) {
        match side {
            Side::Client => self.client.allow(budget),
            Side::Server => self.server.allow(budget),
        }
    }

    fn left(&self, side: Side) -> u64 {
        match side {
            Side::Client => self.client.left(),
            Side::Server => self.server.left(),
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
            Side::Client => self.server.is_backed_up(),
            Side::Server => self.client.is_backed_up(),
        }
    }

    fn take_moved(&mut self) -> (u64, u64) {
        (self.server.take_delivered(), self.client.take_delivered())
    }

    fn stalled_since(&self) -> Option<Instant> {
        None
    }

    fn rest_pipes(&mut self, _: Instant) {}
}
