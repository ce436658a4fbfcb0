//! Which backend serves a connection: the one that its frontend sends to when a server is chosen.
//!
//! A reload may change that while the connection waits, in the backend's queue or for a retry. Then it is routed anew: it
//! leaves the old backend's counts and queue for the new one's. A connection whose frontend is gone goes on by the last
//! that was known of it, as established ones do.

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::timeout_at;

use super::identified::Identified;
use crate::{
    base::{ServerAddr, ServerName, TerminationReason, WorkerId},
    proxy::tcp::{
        choose::{self, Chosen, ConnectionAddrs, Nothing, Tried},
        direction::Direction,
    },
    snapshot::{BackendView, FrontendView, Snapshot, live::BackendStats},
};

/// A connection that belongs to a backend.
pub struct Routed {
    pub identified: Identified,
    /// As it was when the connection was last routed.
    pub frontend: Arc<FrontendView>,
    /// The way from client to server, which may hold what the client has said already.
    pub up: Direction,
    pub tried: Tried,
    pub outcome: RouteRecord,
    backend: Arc<BackendView>,
}

/// What is learned on the way, for the access log.
#[derive(Default)]
pub struct RouteRecord {
    /// The last server of the backend that was chosen.
    pub server: Option<(ServerName, ServerAddr)>,
    /// Connections of that server when the relay ended.
    pub server_connections: u32,
    pub queue_time: Option<Duration>,
    pub connect_time: Option<Duration>,
    pub retries: u32,
    pub redispatched: bool,
}

impl Routed {
    /// Routes a connection by the snapshot in effect.
    #[must_use]
    pub fn new(identified: Identified) -> Self {
        let accepted = &identified.accepted;
        let origin = &accepted.origin;
        let snapshot = accepted.shared().snapshot.load();
        let (frontend, backend) = if snapshot.generation == origin.generation {
            (Arc::clone(&origin.frontend), Arc::clone(&origin.frontend.backend))
        } else {
            route(&snapshot, &origin.frontend, &origin.frontend.backend)
        };
        drop(snapshot);
        accepted.registration.routed(&backend);
        backend.live.counters.shard(origin.worker).opened.add(1);
        Self {
            identified,
            frontend,
            up: Direction::default(),
            tried: Tried::default(),
            outcome: RouteRecord::default(),
            backend,
        }
    }

    /// The backend.
    #[must_use]
    pub fn backend(&self) -> &Arc<BackendView> {
        &self.backend
    }

    /// The backend that the connection belongs to if it is [routed anew](Self::reroute) now.
    #[must_use]
    pub fn backend_in_effect(&self) -> Arc<BackendView> {
        let snapshot = self.identified.accepted.shared().snapshot.load();
        route(&snapshot, &self.frontend, &self.backend).1
    }

    /// Takes up what is in effect now. In another backend nothing has been tried yet.
    pub fn reroute(&mut self) {
        let snapshot = self.identified.accepted.shared().snapshot.load();
        let (frontend, backend) = route(&snapshot, &self.frontend, &self.backend);
        drop(snapshot);
        self.frontend = frontend;
        if Arc::ptr_eq(&backend, &self.backend) {
            return;
        }
        self.identified.accepted.registration.routed(&backend);
        let before = std::mem::replace(&mut self.backend, backend);
        if Arc::ptr_eq(&before.live, &self.backend.live) {
            return;
        }
        let left = before.live.counters.shard(self.worker());
        left.ended[TerminationReason::Rerouted as usize].add(1);
        left.closed.add(1);
        (self.backend.live.counters.shard(self.worker())).opened.add(1);
        self.tried.clear();
        self.outcome.server = None;
    }

    /// Chooses a server of the backend; waits in its queue while all have as many connections as they may.
    ///
    /// # Errors
    /// The reason with which the connection ends.
    pub async fn choose(&mut self) -> Result<Chosen, TerminationReason> {
        let queued_at = Instant::now();
        let chosen = match self.choose_now() {
            Ok(chosen) => chosen,
            Err(Nothing::NoneEligible) => return Err(self.none_eligible()),
            // boxed, because it is rare and a connection is to be small
            Err(Nothing::AllFull) => Box::pin(self.wait_for_room(queued_at)).await?,
        };
        *self.outcome.queue_time.get_or_insert_default() += queued_at.elapsed();
        let server = chosen.server();
        // a retry without a server before it has left that one's backend
        self.outcome.redispatched |= match &self.outcome.server {
            Some((name, _)) => *name != server.name,
            None => self.outcome.retries > 0,
        };
        self.outcome.server = Some((server.name.clone(), chosen.addr()));
        Ok(chosen)
    }

    /// Whether the backend has an eligible server that was not tried.
    #[must_use]
    pub fn has_another(&self) -> bool {
        choose::another_is_eligible(&self.backend, &self.tried)
    }

    /// The thread.
    #[must_use]
    pub fn worker(&self) -> WorkerId {
        self.identified.accepted.origin.worker
    }

    /// Counts and reports the end of the connection.
    pub fn end(mut self, reason: TerminationReason) {
        let accepted = &self.identified.accepted;
        let worker = accepted.origin.worker;
        for counters in [&self.frontend.live.counters, &self.backend.live.counters] {
            counters.shard(worker).ended[reason as usize].add(1);
        }
        if !self.frontend.config.access_log.wants(reason) {
            return;
        }
        let mut record = accepted.origin.record(reason);
        record.client = self.identified.client;
        record.backend = Some(self.backend.config.name.clone());
        record.server = self.outcome.server.take();
        record.queue_time = self.outcome.queue_time;
        record.connect_time = self.outcome.connect_time;
        record.bytes_in = accepted.bytes.from_client.read();
        record.bytes_out = accepted.bytes.from_server.read();
        record.retries = self.outcome.retries;
        record.redispatched = self.outcome.redispatched;
        record.server_connections = u64::from(self.outcome.server_connections);
        accepted.shared().access.record(record);
    }

    fn choose_now(&self) -> Result<Chosen, Nothing> {
        let origin = &self.identified.accepted.origin;
        // a reload may have taken the port out of the frontend since
        let range = (self.frontend.config.range_of(*origin.listen))
            .or_else(|| origin.frontend.config.range_of(*origin.listen));
        let flow = ConnectionAddrs {
            client: self.identified.client,
            listen: *origin.listen,
            offset: range.and_then(|(range, offset)| range.is_several().then_some(offset)),
        };
        choose::choose(&self.backend, flow, &self.tried)
    }

    /// When servers were tried before, their failure is the reason.
    fn none_eligible(&self) -> TerminationReason {
        if self.tried.is_empty() {
            TerminationReason::NoServer
        } else {
            TerminationReason::ServerConnect
        }
    }

    async fn wait_for_room(&mut self, since: Instant) -> Result<Chosen, TerminationReason> {
        let mut place: Option<QueuePlace> = None;
        loop {
            let live = Arc::clone(&self.backend.live);
            let mut freed = pin!(live.server_freed.notified());
            // registered before looking, or what happens in between would go unnoticed
            freed.as_mut().enable();
            self.reroute();
            if !Arc::ptr_eq(&live, &self.backend.live) {
                place = None;
                // it may have been woken for a slot that others of that backend wait for
                if live.queue.used() > 0 {
                    live.server_freed.notify_one();
                }
                continue;
            }
            match self.choose_now() {
                Ok(chosen) => return Ok(chosen),
                Err(Nothing::NoneEligible) => return Err(self.none_eligible()),
                Err(Nothing::AllFull) => {}
            }
            if place.is_none() {
                place = Some(QueuePlace::take(&self.backend).ok_or(TerminationReason::QueueFull)?);
            }
            let deadline = since + self.backend.config.queue_timeout;
            let client = &self.identified.accepted.socket;
            tokio::select! {
                // a wake-up that has come for a client that goes is passed on when `freed` is dropped
                biased;
                () = client.broken() => return Err(TerminationReason::ClientAbortQueue),
                woken = timeout_at(deadline.into(), freed) => {
                    if woken.is_err() {
                        return Err(TerminationReason::QueueTimeout);
                    }
                }
            }
        }
    }
}

impl Drop for Routed {
    fn drop(&mut self) {
        self.backend.live.counters.shard(self.worker()).closed.add(1);
    }
}

/// Where connections of a frontend go now, given what is known of it and of its backend.
fn route(
    snapshot: &Snapshot,
    frontend: &Arc<FrontendView>,
    backend: &Arc<BackendView>,
) -> (Arc<FrontendView>, Arc<BackendView>) {
    match snapshot.frontends.get(&frontend.config.name) {
        Some(current) => (Arc::clone(current), Arc::clone(&current.backend)),
        None => {
            let current = snapshot.backends.get(&backend.config.name);
            (Arc::clone(frontend), Arc::clone(current.unwrap_or(backend)))
        }
    }
}

/// A place in a backend's queue, given up on drop.
struct QueuePlace(Arc<BackendStats>);

impl QueuePlace {
    /// Takes a place if there is one.
    fn take(backend: &BackendView) -> Option<Self> {
        let live = &backend.live;
        let is_taken = live.queue.try_take(Some(backend.config.max_queue));
        is_taken.then(|| Self(Arc::clone(live)))
    }
}

impl Drop for QueuePlace {
    fn drop(&mut self) {
        self.0.queue.release();
    }
}
