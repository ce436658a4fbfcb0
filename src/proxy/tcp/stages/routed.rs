//! Which backend serves a connection: the one that its frontend sends to when a server is chosen.
//!
//! A reload may change that while the connection waits, in the backend's queue or for a retry. Then it is routed anew: it
//! leaves the old backend's counts and queue for the new one's. A connection whose frontend is gone goes on by the last
//! that was known of it, as established ones do.

use std::{
    net::IpAddr,
    num::NonZeroU32,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::timeout_at;

use super::identified::Identified;
use crate::{
    base::{ServerTlsFailure, ServerTlsRecord, TerminationReason, UniqueId, WorkerId},
    config::SendProxy,
    proxy::{
        choose::{self, Chosen, ConnectionAddrs, Nothing, ServerRef, Tried},
        tcp::{direction::Direction, end::End, tls::TlsWays},
    },
    snapshot::{BackendView, FrontendView, Offered, Way, live::BackendStats},
};

/// A connection that belongs to a backend.
pub struct Routed {
    pub identified: Identified,
    /// As it was when the connection was last routed.
    pub frontend: Arc<FrontendView>,
    /// The way from client to server, which may hold what the client has said already.
    pub up: Direction,
    /// Both ways where the client's TLS ends here, or the server's begins: then `up` holds nothing.
    pub tls: Option<Box<TlsWays>>,
    pub tried: Tried,
    pub outcome: RouteRecord,
    backend: Arc<BackendView>,
    /// Which of its servers.
    offered: Offered,
}

/// What is learned on the way, for the access log.
#[derive(Default)]
pub struct RouteRecord {
    /// The last server of the backend that was chosen.
    pub server: Option<ServerRef>,
    /// Connections of that server when the relay ended.
    pub server_connections: u32,
    pub queue_time: Option<Duration>,
    pub connect_time: Option<Duration>,
    pub retries: u32,
    pub redispatched: bool,
    /// The number that the server was told of.
    pub unique_id: Option<Box<UniqueId>>,
    /// The route that has decided, counted from 1.
    pub route: Option<NonZeroU32>,
    /// What the server has agreed on.
    pub server_tls: Option<Arc<ServerTlsRecord>>,
    /// Why there is no TLS with the last server that was tried.
    pub server_tls_failure: Option<ServerTlsFailure>,
}

impl Routed {
    /// Routes a connection by the snapshot in effect.
    ///
    /// # Errors
    /// It is to be reset: it was counted and logged.
    pub fn new(mut identified: Identified) -> Option<Self> {
        let (frontend, way) = match first_way(&identified) {
            Ok(found) => found,
            Err(reason) => {
                identified.end(reason);
                return None;
            }
        };
        let accepted = &identified.accepted;
        accepted.registration.routed(&way.backend);
        let worker = accepted.origin.worker;
        way.backend.live.counters.shard(worker).opened.add(1);
        Some(Self {
            up: identified.take_early(),
            tls: identified.take_tls(),
            identified,
            frontend,
            tried: Tried::default(),
            outcome: RouteRecord {
                route: way.route,
                ..RouteRecord::default()
            },
            backend: way.backend,
            offered: way.offered,
        })
    }

    /// The backend.
    #[must_use]
    pub fn backend(&self) -> &Arc<BackendView> {
        &self.backend
    }

    /// The backend that the connection belongs to if it is [routed anew](Self::reroute) now.
    #[must_use]
    pub fn backend_in_effect(&self) -> Arc<BackendView> {
        self.way_in_effect().1.backend
    }

    fn way_in_effect(&self) -> (Arc<FrontendView>, Way) {
        let snapshot = self.identified.accepted.shared().snapshot.load();
        let facts = self.identified.facts();
        let (frontend, found) = match snapshot.frontends.get(&self.frontend.config.name) {
            Some(current) => (Arc::clone(current), current.way(&facts).ok()),
            None => (Arc::clone(&self.frontend), None),
        };
        // one that was let in is not sent away by routes that have come since
        let way = found.unwrap_or_else(|| {
            let backend = snapshot.backends.get(&self.backend.config.name);
            Way {
                backend: Arc::clone(backend.unwrap_or(&self.backend)),
                offered: self.offered,
                route: self.outcome.route,
            }
        });
        let way = snapshot.with_fallback(&frontend, way, &facts);
        (frontend, way)
    }

    /// Takes up what is in effect now. In another backend nothing has been tried yet.
    pub fn reroute(&mut self) {
        let (frontend, way) = self.way_in_effect();
        let backend = way.backend;
        self.frontend = frontend;
        (self.offered, self.outcome.route) = (way.offered, way.route);
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
        (self.outcome.server, self.outcome.server_tls_failure) = (None, None);
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
            Err(Nothing::ClientSource) => return Err(TerminationReason::ClientSource),
            // boxed, because it is rare and a connection is to be small
            Err(Nothing::AllFull) => {
                let live = Arc::clone(&self.backend.live);
                let waited = Box::pin(self.wait_for_room(queued_at)).await;
                live.queue_time.own(self.worker()).add(queued_at.elapsed());
                waited?
            }
        };
        *self.outcome.queue_time.get_or_insert_default() += queued_at.elapsed();
        let server = chosen.server();
        // a retry without a server before it has left that one's backend
        self.outcome.redispatched |= match &self.outcome.server {
            Some(before) => *before.name() != server.name,
            None => self.outcome.retries > 0,
        };
        self.outcome.server = Some(chosen.server_ref());
        Ok(chosen)
    }

    /// Has a server without TLS told of the client before anything else.
    pub fn announce(&mut self, how: SendProxy) {
        let header = self.header(how);
        match &mut self.tls {
            Some(tls) => tls.server.put_before(header),
            None => self.up.put_before(header),
        }
    }

    /// What a server is told of the client.
    pub fn header(&mut self, how: SendProxy) -> Vec<u8> {
        let ids = &self.identified.accepted.shared().ids;
        let id = &mut self.outcome.unique_id;
        self.identified
            .proxy_header(how, || **id.insert(Box::new(ids.next())))
    }

    /// Has what client and server say go through the server's TLS.
    pub fn wrap(&mut self, server: End) {
        match &mut self.tls {
            Some(tls) => tls.server = server,
            None => {
                let client = End::plain(self.up.take_early());
                self.tls = Some(Box::new(TlsWays::new(client, server)));
            }
        }
    }

    /// Whether the backend has an eligible server that was not tried.
    #[must_use]
    pub fn has_another(&self) -> bool {
        choose::another_is_eligible(&self.backend, self.offered, &self.tried, self.source())
    }

    /// The client's address, if the server is to see it.
    #[must_use]
    pub fn source(&self) -> Option<IpAddr> {
        choose::source(&self.frontend.config, self.identified.client)
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
        let took = accepted.origin.age();
        for times in [&self.frontend.live.session_time, &self.backend.live.session_time] {
            times.own(worker).add(took);
        }
        if !self.frontend.logs(reason) {
            return;
        }
        let (from_client, from_server) = (
            accepted.bytes.from_client.read(),
            accepted.bytes.from_server.read(),
        );
        let mut record = accepted.origin.record(reason);
        self.identified.fill(&mut record);
        record.backend = Some(self.backend.config.name.clone());
        record.server = (self.outcome.server.as_ref()).map(|server| (server.name().clone(), server.addr()));
        record.queue_time = self.outcome.queue_time;
        record.connect_time = self.outcome.connect_time;
        (record.bytes_in, record.bytes_out) = (from_client, from_server);
        record.retries = self.outcome.retries;
        record.route = self.outcome.route;
        record.unique_id = self.outcome.unique_id.take().map(|id| *id);
        record.redispatched = self.outcome.redispatched;
        record.server_tls = self.outcome.server_tls.take();
        record.server_tls_failure = self.outcome.server_tls_failure;
        record.server_connections = u64::from(self.outcome.server_connections);
        self.identified.accepted.shared().access.record(record);
    }

    fn choose_now(&self) -> Result<Chosen, Nothing> {
        let origin = &self.identified.accepted.origin;
        // a reload may have taken the port out of the frontend since
        let listen = origin.listener.endpoint().map(|endpoint| endpoint.addr);
        let range = listen.and_then(|listen| {
            (self.frontend.config.range_of(listen)).or_else(|| origin.frontend.config.range_of(listen))
        });
        let flow = ConnectionAddrs {
            client: self.identified.client,
            listen,
            offset: range.and_then(|(range, offset)| range.is_several().then_some(offset)),
            source: self.source(),
        };
        choose::choose(&self.backend, self.offered, flow, &self.tried)
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
                Err(Nothing::ClientSource) => return Err(TerminationReason::ClientSource),
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

/// Where a connection goes first: by the snapshot in effect, or the last that knew its frontend.
fn first_way(identified: &Identified) -> Result<(Arc<FrontendView>, Way), TerminationReason> {
    let origin = &identified.accepted.origin;
    let snapshot = identified.accepted.shared().snapshot.load();
    let current = match snapshot.generation == origin.generation {
        true => None,
        false => snapshot.frontends.get(&origin.frontend.config.name),
    };
    let frontend = Arc::clone(current.unwrap_or(&origin.frontend));
    let facts = identified.facts();
    let mut way = frontend.way(&facts)?;
    if current.is_none()
        && let Some(backend) = snapshot.backends.get(&way.backend.config.name)
    {
        way.backend = Arc::clone(backend);
    }
    let way = snapshot.with_fallback(&frontend, way, &facts);
    Ok((frontend, way))
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
