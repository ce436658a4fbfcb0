//! One connection from accept to the access log.
//!
//! ```text
//! accept ─ (PROXY in, access rules, TLS or ClientHello: later) ─ choose ─ connect ─ relay ─ account and log
//!                                                                  ▲ queue   │ retry on another server
//!                                                                  └─────────┘
//! ```

use std::{
    os::fd::OwnedFd,
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    net::TcpStream,
    time::{Sleep, sleep_until},
};

use super::{
    ProxyEvent, Shared,
    choose::{self, Chosen, Flow, choose},
    connect::{self, ConnectError},
    direction::{Direction, Early},
    registry::Registration,
    relay::{Limits, Relay},
};
use crate::{
    base::{
        AccessRecord, ClientAddr, ListenAddr, ServerAddr, ServerKey, ServerName, TerminationReason, WorkerId,
    },
    snapshot::{BackendView, FrontendView, live::Shard},
    sys::{readiness::is_hung_up, tcp},
};

/// Most of a pause before the same server is tried again, when there is no other; HAProxy waits as long.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// A connection that was taken off a listener's queue, with its slot of the frontend.
pub struct Accepted {
    /// The socket.
    pub socket: OwnedFd,
    /// Its other end.
    pub client: ClientAddr,
    /// The listener's address.
    pub listen: ListenAddr,
    /// The frontend as it was at accept.
    pub frontend: Arc<FrontendView>,
    /// The slot.
    pub slot: FrontendSlot,
}

/// A slot of a frontend's `max_connections`, given back on drop.
pub struct FrontendSlot(Arc<FrontendView>);

impl FrontendSlot {
    /// Takes a slot if there is one.
    #[must_use]
    pub fn take(frontend: &Arc<FrontendView>) -> Option<Self> {
        let limit = frontend.config.max_connections.map(u32::from);
        frontend
            .live
            .slots
            .try_take(limit)
            .then(|| Self(Arc::clone(frontend)))
    }

    /// Takes a slot whatever the limit.
    #[must_use]
    pub fn take_beyond_the_limit(frontend: &Arc<FrontendView>) -> Self {
        frontend.live.slots.try_take(None);
        Self(Arc::clone(frontend))
    }
}

impl Drop for FrontendSlot {
    fn drop(&mut self) {
        self.0.live.slots.release();
    }
}

/// Serves one connection to its end.
pub async fn serve(shared: Arc<Shared>, worker: WorkerId, accepted: Accepted) {
    let Accepted {
        socket,
        client,
        listen,
        frontend,
        slot: _slot,
    } = accepted;
    let accepted_at = Instant::now();
    let _in_process = Opened::new(shared.process.shard(worker));
    let _in_frontend = Opened::new(frontend.live.counters.shard(worker));
    let _in_backend = Opened::new(frontend.backend.live.counters.shard(worker));
    let Ok(socket) = TcpStream::from_std(socket.into()) else {
        frontend.live.counters.shard(worker).ended[TerminationReason::Resource as usize].add(1);
        return;
    };
    // after the socket, so that it leaves the registry before the descriptor is closed
    let registration = Registration::new(client, &socket, Arc::clone(&frontend), accepted_at);
    let mut session = Session {
        shared: &shared,
        worker,
        frontend: &frontend,
        backend: Arc::clone(&frontend.backend),
        registration: &registration,
        flow: Flow { client, listen },
        accepted_at,
        tried: Vec::new(),
        outcome: Outcome::default(),
    };
    let reason = session.run(&socket).await;
    let reason = registration.ended_by().unwrap_or(reason);
    if reason != TerminationReason::Normal {
        tcp::reset_on_close(&socket);
    }
    session.finish(reason);
}

/// Before a retry: the client may have gone meanwhile.
fn still_there(client: &TcpStream) -> Early {
    if is_hung_up(client) {
        Early::Gone
    } else {
        Early::Nothing
    }
}

/// What is learned on the way, for the access log.
#[derive(Default)]
struct Outcome {
    server: Option<(ServerName, ServerAddr)>,
    /// Connections of that server when the relay ended.
    server_connections: u32,
    queue_time: Option<Duration>,
    connect_time: Option<Duration>,
    retries: u32,
    redispatched: bool,
}

struct Session<'a> {
    shared: &'a Shared,
    worker: WorkerId,
    frontend: &'a Arc<FrontendView>,
    backend: Arc<BackendView>,
    registration: &'a Registration,
    flow: Flow,
    accepted_at: Instant,
    /// Names of servers whose connects failed.
    tried: Vec<String>,
    outcome: Outcome,
}

impl Session<'_> {
    async fn run(&mut self, client: &TcpStream) -> TerminationReason {
        let first_deadline = Instant::now() + self.backend.config.connect_timeout;
        let mut timer = pin!(sleep_until(first_deadline.into()));
        let mut up = Direction::default();
        loop {
            let is_first = self.outcome.retries == 0;
            let queued_at = Instant::now();
            let chosen = choose(
                self.shared,
                &self.frontend.config.name,
                &self.backend,
                self.flow,
                &self.tried,
            )
            .await;
            let chosen = match chosen {
                Ok(chosen) => chosen,
                Err(reason) => return self.not_chosen(reason),
            };
            let chosen_at = Instant::now();
            *self.outcome.queue_time.get_or_insert_default() += chosen_at - queued_at;
            self.note_choice(&chosen);
            let user_timeout = self.frontend.config.tcp_user_timeout;
            let early = || {
                if is_first {
                    up.read_early(client)
                } else {
                    still_there(client)
                }
            };
            match connect::connect(user_timeout, &chosen, timer.as_mut(), chosen_at, early).await {
                Ok(server) => {
                    self.outcome.connect_time = Some(chosen_at.elapsed());
                    return self.relay(client, &server, up, chosen, timer.as_mut()).await;
                }
                Err(ConnectError::ClientGone) => return TerminationReason::ClientAbortConnect,
                Err(error) => {
                    if let Err(reason) = self.failed(&error, chosen, timer.as_mut()).await {
                        return reason;
                    }
                }
            }
        }
    }

    fn note_choice(&mut self, chosen: &Chosen) {
        let server = chosen.server();
        let before = self.outcome.server.as_ref();
        self.outcome.redispatched |= before.is_some_and(|(name, _)| *name != server.name);
        self.outcome.server = Some((server.name.clone(), server.addr));
    }

    /// Nothing could be chosen: when servers were tried before, their failure is the reason.
    fn not_chosen(&self, reason: TerminationReason) -> TerminationReason {
        if reason == TerminationReason::NoServer && !self.tried.is_empty() {
            TerminationReason::ServerConnect
        } else {
            reason
        }
    }

    /// Counts a failed connect and prepares the next one.
    ///
    /// # Errors
    /// The reason with which the connection ends, when no retry is left.
    async fn failed(
        &mut self,
        error: &ConnectError,
        chosen: Chosen,
        mut timer: Pin<&mut Sleep>,
    ) -> Result<(), TerminationReason> {
        let server = chosen.server();
        for counters in [
            &server.live.counters,
            &self.backend.live.counters,
            &self.frontend.live.counters,
        ] {
            counters.shard(self.worker).connect_failures.add(1);
        }
        tracing::debug!(
            event = "connect_failed",
            frontend = %self.frontend.config.name,
            backend = %self.backend.config.name,
            server = %server.name,
            "connect to {} failed: {error}",
            server.addr
        );
        if error.is_servers_fault() {
            self.note_server_failure(&chosen);
        }
        if self.outcome.retries >= self.backend.config.retries {
            return Err(error.reason());
        }
        self.outcome.retries += 1;
        for counters in [
            &server.live.counters,
            &self.backend.live.counters,
            &self.frontend.live.counters,
        ] {
            counters.shard(self.worker).retries.add(1);
        }
        self.tried.push(server.name.as_str().to_owned());
        self.refresh_backend();
        // the slot is given back before any pause
        drop(chosen);
        let mut next = Instant::now();
        if !choose::another_is_up(&self.backend, &self.tried) {
            self.tried.clear();
            next += RETRY_PAUSE.min(self.backend.config.connect_timeout);
            timer.as_mut().reset(next.into());
            timer.as_mut().await;
        }
        timer.reset((next + self.backend.config.connect_timeout).into());
        Ok(())
    }

    /// Takes up what has changed since the connection was accepted: servers may be down, removed or new.
    fn refresh_backend(&mut self) {
        let snapshot = self.shared.snapshot.load();
        let current = snapshot.backends.get(&self.backend.config.name);
        if let Some(current) = current {
            self.backend = Arc::clone(current);
        }
    }

    /// The passive check: so many failures in a row, on any thread, are reported once.
    fn note_server_failure(&self, chosen: &Chosen) {
        let Some(check) = &chosen.backend.config.passive_check else {
            return;
        };
        let failures = chosen
            .server()
            .live
            .failures_in_a_row
            .fetch_add(1, Ordering::Relaxed)
            .saturating_add(1);
        if failures == check.max_failures.get() {
            let key = ServerKey {
                backend: chosen.backend.config.name.clone(),
                server: chosen.server().name.clone(),
            };
            // a full channel means that the control loop has news enough; the next failure series reports again
            let _ = self.shared.events.try_send(ProxyEvent::ServerFailing(key));
        }
    }

    async fn relay(
        &mut self,
        client: &TcpStream,
        server: &TcpStream,
        up: Direction,
        chosen: Chosen,
        timer: Pin<&mut Sleep>,
    ) -> TerminationReason {
        let live = &chosen.server().live;
        if live.failures_in_a_row.load(Ordering::Relaxed) != 0 {
            live.failures_in_a_row.store(0, Ordering::Relaxed);
        }
        let _in_server = Opened::new(live.counters.shard(self.worker));
        self.registration
            .connected(Arc::clone(&chosen.backend), chosen.index, server);
        let limits = Limits {
            idle: self.frontend.config.idle_timeout,
            fin: self.frontend.config.fin_timeout,
        };
        let shards = [
            &self.frontend.live.counters,
            &self.backend.live.counters,
            &live.counters,
        ]
        .map(|c| c.shard(self.worker));
        let reason = Relay::new(client, server, up, limits)
            .run(timer, |bytes_in, bytes_out| {
                for shard in shards {
                    shard.bytes_in.add(bytes_in);
                    shard.bytes_out.add(bytes_out);
                }
                self.registration.moved(bytes_in, bytes_out);
            })
            .await;
        live.counters.shard(self.worker).ended[self.registration.ended_by().unwrap_or(reason) as usize]
            .add(1);
        if reason != TerminationReason::Normal {
            tcp::reset_on_close(server);
        }
        self.outcome.server_connections = live.slots.used();
        // out of the registry's reach before the descriptor is closed by the caller
        self.registration.disconnected();
        reason
    }

    fn finish(&mut self, reason: TerminationReason) {
        for counters in [&self.frontend.live.counters, &self.backend.live.counters] {
            counters.shard(self.worker).ended[reason as usize].add(1);
        }
        if !self.frontend.config.access_log {
            return;
        }
        let total_time = self.accepted_at.elapsed();
        let (bytes_in, bytes_out) = self.registration.bytes();
        self.shared.access.record(AccessRecord {
            accepted_at: SystemTime::now()
                .checked_sub(total_time)
                .unwrap_or(SystemTime::UNIX_EPOCH),
            client: self.flow.client,
            listen: self.flow.listen,
            frontend: self.frontend.config.name.clone(),
            backend: self.backend.config.name.clone(),
            server: self.outcome.server.take(),
            queue_time: self.outcome.queue_time,
            connect_time: self.outcome.connect_time,
            total_time,
            bytes_in,
            bytes_out,
            reason,
            retries: self.outcome.retries,
            redispatched: self.outcome.redispatched,
            frontend_connections: u64::from(self.frontend.live.slots.used()),
            server_connections: u64::from(self.outcome.server_connections),
        });
    }
}

/// Counts a connection as open until it is dropped, so that the number of open ones cannot drift.
struct Opened<'a>(&'a Shard);

impl<'a> Opened<'a> {
    fn new(shard: &'a Shard) -> Self {
        shard.opened.add(1);
        Self(shard)
    }
}

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        self.0.closed.add(1);
    }
}
