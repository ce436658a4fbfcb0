//! The two ways of a connection, from the client to the server and back.

use std::{
    task::{Context, Poll},
    time::Instant,
};

use super::{
    direction::{Direction, Fault},
    rate::Budget,
};
use crate::sys::readiness::Stream;

/// A side of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Whoever connected to us.
    Client,
    /// Whom we connected to.
    Server,
}

/// Both ways, each named by the side that it comes from.
pub trait Ways {
    /// Moves what can be moved now from one side to the other. Ready when that way is done; then the other side was told of
    /// the end, unless `last` says that both sockets are about to be closed anyway.
    fn poll_from(
        &mut self,
        side: Side,
        cx: &mut Context<'_>,
        client: &Stream,
        server: &Stream,
        last: bool,
    ) -> Poll<Result<(), Fault>>;

    /// Bytes of a side that were read before anything could be moved.
    fn early(&self, side: Side) -> u64;

    /// What may still be read of a side.
    fn allow(&mut self, side: Side, budget: Budget);

    /// How much of that is left.
    fn left(&self, side: Side) -> u64;

    /// Whether everything up to the end of what a side says was delivered.
    fn is_done(&self, side: Side) -> bool;

    /// Whether bytes of a side wait for the other.
    fn is_backed_up(&self, side: Side) -> bool;

    /// Payload delivered since the last call: the client's, the server's.
    fn take_moved(&mut self) -> (u64, u64);

    /// Since when what is in a pipe has not moved.
    fn stalled_since(&self) -> Option<Instant>;

    /// Gives pipes back in which nothing has moved since then.
    fn rest_pipes(&mut self, since: Instant);
}

/// Bytes as they come.
pub struct Plain<'a> {
    up: &'a mut Direction,
    down: Direction,
}

impl<'a> Plain<'a> {
    /// With a way up that may hold what the client has sent already.
    pub fn new(up: &'a mut Direction) -> Self {
        Self {
            up,
            down: Direction::default(),
        }
    }

    fn from(&self, side: Side) -> &Direction {
        match side {
            Side::Client => self.up,
            Side::Server => &self.down,
        }
    }
}

impl Ways for Plain<'_> {
    fn poll_from(
        &mut self,
        side: Side,
        cx: &mut Context<'_>,
        client: &Stream,
        server: &Stream,
        last: bool,
    ) -> Poll<Result<(), Fault>> {
        match side {
            Side::Client => self.up.poll(cx, client, server, last),
            Side::Server => self.down.poll(cx, server, client, last),
        }
    }

    fn early(&self, side: Side) -> u64 {
        self.from(side).early()
    }

    fn allow(&mut self, side: Side, budget: Budget) {
        match side {
            Side::Client => self.up.allow(budget),
            Side::Server => self.down.allow(budget),
        }
    }

    fn left(&self, side: Side) -> u64 {
        self.from(side).left()
    }

    fn is_done(&self, side: Side) -> bool {
        self.from(side).is_done()
    }

    fn is_backed_up(&self, side: Side) -> bool {
        self.from(side).is_backed_up()
    }

    fn take_moved(&mut self) -> (u64, u64) {
        (self.up.take_moved(), self.down.take_moved())
    }

    fn stalled_since(&self) -> Option<Instant> {
        [self.up.stalled_since(), self.down.stalled_since()]
            .into_iter()
            .flatten()
            .min()
    }

    fn rest_pipes(&mut self, since: Instant) {
        self.up.rest_pipe(since);
        self.down.rest_pipe(since);
    }
}
