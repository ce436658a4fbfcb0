//! Relaying between a client and a server until both have said all, one fails, or nothing moves for too long.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::{net::TcpStream, time::Sleep};

use super::direction::{Direction, Fault};
use crate::base::TerminationReason;

/// How long nothing may move.
#[derive(Debug, Clone, Copy)]
pub struct RelayTimeouts {
    /// While both halves are open.
    pub idle: Option<Duration>,
    /// Once one side has closed its half.
    pub fin: Option<Duration>,
}

/// The two directions of a connection and when something last moved.
pub struct Relay<'a> {
    client: &'a TcpStream,
    server: &'a TcpStream,
    up: &'a mut Direction,
    down: Direction,
    limits: RelayTimeouts,
    last_moved: Instant,
}

impl<'a> Relay<'a> {
    /// A relay whose way up may hold what the client had sent before the server was connected.
    #[must_use]
    pub fn new(
        client: &'a TcpStream,
        server: &'a TcpStream,
        up: &'a mut Direction,
        limits: RelayTimeouts,
    ) -> Self {
        Self {
            client,
            server,
            up,
            down: Direction::default(),
            limits,
            last_moved: Instant::now(),
        }
    }

    /// Runs to the end. `timer` is the connection's only one: it is armed for the moment when the time-out could
    /// first be over, and asked again then, not moved with every byte. `moved` is told of delivered bytes (from the
    /// client, from the server).
    pub async fn run(
        mut self,
        mut timer: Pin<&mut Sleep>,
        mut moved: impl FnMut(u64, u64),
    ) -> TerminationReason {
        let mut armed_for = None;
        poll_fn(|cx| {
            let outcome = self.poll_directions(cx);
            let (bytes_in, bytes_out) = (self.up.take_moved(), self.down.take_moved());
            if bytes_in + bytes_out > 0 {
                self.last_moved = Instant::now();
                moved(bytes_in, bytes_out);
            }
            if let Poll::Ready(reason) = outcome {
                return Poll::Ready(reason);
            }
            self.poll_time(cx, &mut timer, &mut armed_for)
        })
        .await
    }

    fn poll_directions(&mut self, cx: &mut Context<'_>) -> Poll<TerminationReason> {
        let up = self.up.poll(cx, self.client, self.server, self.down.is_done());
        if let Poll::Ready(Err(fault)) = up {
            // what the server sent before it went away is still the client's
            let _ = self.down.poll(cx, self.server, self.client, true);
            return Poll::Ready(match fault {
                Fault::Source => TerminationReason::ClientAbort,
                Fault::Destination => TerminationReason::ServerAbort,
            });
        }
        let down = self.down.poll(cx, self.server, self.client, self.up.is_done());
        if let Poll::Ready(Err(fault)) = down {
            let _ = self.up.poll(cx, self.client, self.server, true);
            return Poll::Ready(match fault {
                Fault::Source => TerminationReason::ServerAbort,
                Fault::Destination => TerminationReason::ClientAbort,
            });
        }
        if up.is_ready() && down.is_ready() {
            Poll::Ready(TerminationReason::Normal)
        } else {
            Poll::Pending
        }
    }

    /// Checks the time-out. The timer is touched when there is none armed yet, when it fired, and when a half-close
    /// brought the moment forward.
    fn poll_time(
        &self,
        cx: &mut Context<'_>,
        timer: &mut Pin<&mut Sleep>,
        armed_for: &mut Option<Instant>,
    ) -> Poll<TerminationReason> {
        let half_closed = self.up.is_done() || self.down.is_done();
        let Some(limit) = (if half_closed {
            self.limits.fin
        } else {
            self.limits.idle
        }) else {
            return Poll::Pending;
        };
        let Some(deadline) = self.last_moved.checked_add(limit) else {
            return Poll::Pending;
        };
        if armed_for.is_some_and(|at| at <= deadline) && !timer.is_elapsed() {
            return Poll::Pending;
        }
        loop {
            if Instant::now() >= deadline {
                return Poll::Ready(self.timed_out());
            }
            timer.as_mut().reset(deadline.into());
            *armed_for = Some(deadline);
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Who was waited for.
    fn timed_out(&self) -> TerminationReason {
        let server_waited_for = self.up.is_backed_up() || (self.up.is_done() && !self.down.is_backed_up());
        if server_waited_for {
            TerminationReason::ServerTimeout
        } else {
            TerminationReason::ClientTimeout
        }
    }
}
