//! Relaying between a client and a server until both have said all, one fails, or nothing moves for too long.

use std::{
    future::poll_fn,
    num::NonZeroU64,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::time::Sleep;

use super::{
    direction::{Fault, Gone},
    rate::{Budget, Rate, Rates},
    ways::{Side, Ways},
};
use crate::{
    base::{KeepAlive, TerminationReason},
    config::{ConnectionRates, Frontend},
    sys::{
        readiness::{Stream, is_hung_up},
        tcp,
    },
};

/// How long the side that is left may take nothing of what the other had sent before it went away.
const REST: Duration = Duration::from_secs(30);

/// How long a pipe's bytes may wait for a side that takes none before others get the pipe.
const PIPE_REST: Duration = Duration::from_secs(1);

/// How often is looked whether it has taken all: the kernel tells of no such moment.
const LOOK: Duration = Duration::from_millis(20);

/// When a relay ends by itself, and what happens when nothing moves. References, because a connection is to be small.
#[derive(Debug, Clone, Copy)]
pub struct RelayTimeouts<'a> {
    /// `max_lifetime`, `idle_timeout` and `fin_timeout`.
    pub frontend: &'a Frontend,
    /// When the connection was accepted.
    pub begun: &'a Instant,
    /// Probes to the server. (The client's connection has them from its listener.)
    pub server_keepalive: Option<&'a KeepAlive>,
}

impl RelayTimeouts<'_> {
    /// When it ends, whatever moves.
    fn end(&self) -> Option<Instant> {
        self.begun.checked_add(self.frontend.max_lifetime?)
    }
}

/// What time brings.
enum Due {
    /// The end.
    End(TerminationReason),
    /// A way that was as fast as it may be goes on.
    Resume,
}

/// How a relay ends.
#[derive(Debug, Clone, Copy)]
enum End {
    /// Nothing is left to do.
    Over(TerminationReason),
    /// This side is gone; the other one may still be owed what it had sent.
    Broken(Side, Gone),
}

/// The two ways of a connection and when something last moved.
pub struct Relay<'a, W> {
    client: &'a Stream,
    server: &'a Stream,
    ways: W,
    limits: RelayTimeouts<'a>,
    rates: Option<Box<Rates>>,
    last_moved: Instant,
}

impl<'a, W: Ways> Relay<'a, W> {
    /// A relay whose way up may hold what the client had sent before the server was connected.
    #[must_use]
    pub fn new(client: &'a Stream, server: &'a Stream, ways: W, limits: RelayTimeouts<'a>) -> Self {
        Self {
            client,
            server,
            ways,
            limits,
            rates: None,
            last_moved: Instant::now(),
        }
    }

    /// No faster than that.
    #[must_use]
    pub fn limited(mut self, rates: ConnectionRates) -> Self {
        if rates != ConnectionRates::default() {
            let rate = |rate: Option<NonZeroU64>, side| {
                let mut rate = Rate::new(rate?, self.last_moved);
                rate.charge(self.ways.early(side), self.last_moved);
                Some(rate)
            };
            // boxed, because most connections have none and are to be small
            self.rates = Some(Box::new(Rates {
                up: rate(rates.upload, Side::Client),
                down: rate(rates.download, Side::Server),
            }));
        }
        self
    }

    /// Runs to the end; where one side breaks the connection, until the other has what was sent before. `timer` is the
    /// connection's only one: it is armed for the moment when the time-out could
    /// first be over, and asked again then, not moved with every byte. `moved` is told of delivered bytes (from the
    /// client, from the server); `is_cut` says whether an operator or a check has ended the connection.
    pub async fn run(
        mut self,
        mut timer: Pin<&mut Sleep>,
        mut moved: impl FnMut(u64, u64),
        is_cut: impl Fn() -> bool,
    ) -> TerminationReason {
        let mut armed_for = None;
        let end = poll_fn(|cx| {
            loop {
                let outcome = self.poll_directions(cx);
                let (bytes_in, bytes_out) = self.ways.take_moved();
                if bytes_in + bytes_out > 0 {
                    self.last_moved = Instant::now();
                    moved(bytes_in, bytes_out);
                }
                if outcome.is_ready() {
                    return outcome;
                }
                match self.poll_time(cx, &mut timer, &mut armed_for) {
                    Poll::Ready(Due::Resume) => {}
                    Poll::Ready(Due::End(reason)) => return Poll::Ready(End::Over(reason)),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await;
        let (side, how) = match end {
            End::Over(reason) => return reason,
            End::Broken(side, how) => (side, how),
        };
        if !is_cut() {
            // boxed, because it is rare and a connection is to be small
            Box::pin(self.deliver_rest(side, timer, moved)).await;
        }
        match (side, how) {
            (Side::Client, Gone::Aborted) => TerminationReason::ClientAbort,
            (Side::Client, Gone::Lost) => TerminationReason::ClientLost,
            (Side::Server, Gone::Aborted) => TerminationReason::ServerAbort,
            (Side::Server, Gone::Lost) => TerminationReason::ServerLost,
        }
    }

    /// Gives the side that is left what the other one had sent, and waits until it has taken that: a reset that came before
    /// would take it away again.
    async fn deliver_rest(
        &mut self,
        gone: Side,
        mut timer: Pin<&mut Sleep>,
        mut moved: impl FnMut(u64, u64),
    ) {
        let (mut left, mut since) = (usize::MAX, Instant::now());
        self.ways.allow(gone, Budget::ALL);
        let mut is_handed_over = false;
        loop {
            let destination = match gone {
                Side::Client => self.server,
                Side::Server => self.client,
            };
            if !is_handed_over {
                let (client, server, ways) = (self.client, self.server, &mut self.ways);
                let polled = poll_fn(|cx| Poll::Ready(ways.poll_from(gone, cx, client, server, true))).await;
                let (bytes_in, bytes_out) = ways.take_moved();
                moved(bytes_in, bytes_out);
                let bytes = bytes_in + bytes_out;
                if matches!(polled, Poll::Ready(Err(Fault::Destination(_)))) {
                    return;
                }
                // what it had sent ends with its error or its end: a pause only means that there is more than a turn's worth
                is_handed_over = polled.is_ready();
                if bytes > 0 {
                    since = Instant::now();
                }
            }
            let unacknowledged = tcp::unacknowledged(destination).unwrap_or(0);
            if is_hung_up(destination) || (is_handed_over && unacknowledged == 0) {
                return;
            }
            if unacknowledged < left {
                since = Instant::now();
            }
            left = unacknowledged;
            let is_over = self.limits.end().is_some_and(|end| end <= Instant::now());
            if is_over || since.elapsed() >= REST {
                return;
            }
            timer.as_mut().reset((Instant::now() + LOOK).into());
            timer.as_mut().await;
        }
    }

    fn poll_directions(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let up = self.poll_side(Side::Client, cx, self.ways.is_done(Side::Server));
        if let Poll::Ready(Err(fault)) = up {
            return Poll::Ready(match fault {
                Fault::Source(how) => End::Broken(Side::Client, how),
                Fault::Destination(how) => End::Broken(Side::Server, how),
            });
        }
        let down = self.poll_side(Side::Server, cx, self.ways.is_done(Side::Client));
        if let Poll::Ready(Err(fault)) = down {
            return Poll::Ready(match fault {
                Fault::Source(how) => End::Broken(Side::Server, how),
                Fault::Destination(how) => End::Broken(Side::Client, how),
            });
        }
        if up.is_ready() && down.is_ready() {
            Poll::Ready(End::Over(TerminationReason::Normal))
        } else {
            Poll::Pending
        }
    }

    /// Moves what can be moved now from one side, no faster than it may be.
    fn poll_side(&mut self, side: Side, cx: &mut Context<'_>, last: bool) -> Poll<Result<(), Fault>> {
        let (client, server, ways) = (self.client, self.server, &mut self.ways);
        let rate = (self.rates.as_mut()).and_then(|rates| match side {
            Side::Client => rates.up.as_mut(),
            Side::Server => rates.down.as_mut(),
        });
        let Some(rate) = rate else {
            return ways.poll_from(side, cx, client, server, last);
        };
        let now = Instant::now();
        let has_paused = rate.pauses_until().is_some();
        let budget = Budget::of(rate.allowed(now));
        if has_paused && rate.pauses_until().is_none() {
            // idle time begins behind it
            self.last_moved = now;
        }
        let allowed = budget.left();
        ways.allow(side, budget);
        let polled = ways.poll_from(side, cx, client, server, last);
        if polled.is_pending() {
            rate.spend(allowed - ways.left(side).min(allowed), allowed, now);
        }
        polled
    }

    /// Does what is due because nothing moves. The timer is touched when there is none armed yet, when it fired, and when
    /// something brought the moment forward: a half-close, a pipe that waits.
    fn poll_time(
        &mut self,
        cx: &mut Context<'_>,
        timer: &mut Pin<&mut Sleep>,
        armed_for: &mut Option<Instant>,
    ) -> Poll<Due> {
        loop {
            // a pause for the rate is no idle time
            let resumed = self.rates.as_ref().and_then(|rates| rates.all_resumed());
            let moving = resumed.map_or(self.last_moved, |at| at.max(self.last_moved));
            let idle = self.limit().and_then(|limit| moving.checked_add(limit));
            let probes = (self.limits.server_keepalive).and_then(|k| self.last_moved.checked_add(k.idle));
            let pipes = self.ways.stalled_since().map(|since| since + PIPE_REST);
            let resume = self.rates.as_ref().and_then(|rates| rates.pauses_until());
            let all = [self.limits.end(), idle, probes, pipes, resume];
            let Some(next) = all.into_iter().flatten().min() else {
                return Poll::Pending;
            };
            if armed_for.is_some_and(|at| at <= next) && !timer.is_elapsed() {
                return Poll::Pending;
            }
            let now = Instant::now();
            if self.limits.end().is_some_and(|end| end <= now) {
                return Poll::Ready(Due::End(TerminationReason::MaxLifetime));
            }
            if idle.is_some_and(|end| end <= now) {
                return Poll::Ready(Due::End(self.timed_out()));
            }
            if probes.is_some_and(|at| at <= now)
                && let Some(keepalive) = self.limits.server_keepalive.take()
            {
                // fails only for a connection that is broken, which the directions meet
                let _ = tcp::keep_alive(self.server, *keepalive);
            }
            if pipes.is_some_and(|at| at <= now) {
                self.ways.rest_pipes(now.checked_sub(PIPE_REST).unwrap_or(now));
            }
            if resume.is_some_and(|at| at <= now) {
                *armed_for = None;
                return Poll::Ready(Due::Resume);
            }
            if next > now {
                timer.as_mut().reset(next.into());
                *armed_for = Some(next);
                if timer.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
            }
        }
    }

    /// How long nothing may move.
    fn limit(&self) -> Option<Duration> {
        let is_half_closed = self.ways.is_done(Side::Client) || self.ways.is_done(Side::Server);
        let fin = self.limits.frontend.fin_timeout.filter(|_| is_half_closed);
        fin.or(self.limits.frontend.idle_timeout)
    }

    /// Who was waited for.
    fn timed_out(&self) -> TerminationReason {
        let server_waited_for = self.ways.is_backed_up(Side::Client)
            || (self.ways.is_done(Side::Client) && !self.ways.is_backed_up(Side::Server));
        if server_waited_for {
            TerminationReason::ServerTimeout
        } else {
            TerminationReason::ClientTimeout
        }
    }
}
