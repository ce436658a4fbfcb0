//! What the handlers share: the ways to what the daemon knows, and to its control loop.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use arc_swap::{ArcSwap, Guard};
use axum::http::StatusCode;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc::error::TrySendError, oneshot},
    task::spawn_blocking,
    time::timeout,
};

use crate::{
    admin::{
        AdminCommand, Commands,
        auth::Sessions,
        caller::Caller,
        events::Streams,
        http::HttpLimits,
        lookup,
        metrics::Scrape,
        packets,
        status::{Listed, Live, Status},
        views::{self, ConnectionFilter, Problem},
    },
    base::Remote,
    flow::FlowInfo,
    snapshot::trend::Trend,
    sys::usage::Usage,
};

/// What the handlers share.
#[derive(Clone)]
pub struct ApiContext {
    status: Arc<ArcSwap<Status>>,
    live: Arc<dyn Live>,
    commands: Commands,
    refused: Arc<AtomicU64>,
    failed_logins: Arc<AtomicU64>,
    /// Held by the walk through all flows that is under way.
    walk: Arc<Semaphore>,
    streams: Streams,
    packet_trend: Arc<Trend>,
    sessions: Arc<Sessions>,
    limits: HttpLimits,
}

impl ApiContext {
    /// Of a daemon that publishes its status there.
    pub fn new(
        status: Arc<ArcSwap<Status>>,
        live: Arc<dyn Live>,
        commands: Commands,
        limits: HttpLimits,
    ) -> Self {
        Self {
            status,
            live,
            commands,
            refused: Arc::default(),
            failed_logins: Arc::default(),
            walk: Arc::new(Semaphore::new(1)),
            streams: Streams::default(),
            packet_trend: Arc::default(),
            sessions: Arc::default(),
            limits,
        }
    }

    /// The same with other limits.
    pub fn within(&self, limits: HttpLimits) -> Self {
        Self {
            limits,
            ..self.clone()
        }
    }

    /// Its limits.
    pub const fn limits(&self) -> HttpLimits {
        self.limits
    }

    /// Connections to the endpoints turned away.
    pub const fn refused(&self) -> &Arc<AtomicU64> {
        &self.refused
    }

    /// Failed logins at the API on TCP.
    pub const fn failed_logins(&self) -> &Arc<AtomicU64> {
        &self.failed_logins
    }

    /// What changes by traffic.
    pub fn live(&self) -> &dyn Live {
        &*self.live
    }

    /// The places for streams of events.
    pub const fn streams(&self) -> &Streams {
        &self.streams
    }

    /// What the packet modes have done of late: packets in place of connections, and flows that are open.
    pub const fn packet_trend(&self) -> &Arc<Trend> {
        &self.packet_trend
    }

    /// The browsers that have logged in.
    pub const fn sessions(&self) -> &Arc<Sessions> {
        &self.sessions
    }

    /// The status now.
    pub fn now(&self) -> Guard<Arc<Status>> {
        self.status.load()
    }

    /// What metrics are made of, now.
    pub fn scrape(&self) -> Scrape {
        Scrape {
            status: self.status.load_full(),
            live: Arc::clone(&self.live),
            packets: self.live.packet_counts(),
            usage: Usage::read().ok(),
            connections_refused: self.refused.load(Ordering::Relaxed),
            logins_failed: self.failed_logins.load(Ordering::Relaxed),
            now: Instant::now(),
            wall: SystemTime::now(),
        }
    }

    /// Puts a command before the control loop and waits for its reply.
    ///
    /// # Errors
    /// 503: it is busy or ends. 504: it is too slow.
    pub async fn command<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> AdminCommand,
        limit: Duration,
    ) -> Result<T, Problem> {
        let (reply, answer) = oneshot::channel();
        self.commands
            .try_send(command(reply))
            .map_err(|error| match error {
                TrySendError::Full(_) => Problem::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "convey is busy with earlier requests: try again",
                ),
                TrySendError::Closed(_) => stopping(),
            })?;
        (timeout(limit, answer).await)
            .map_err(|_| too_slow(limit))?
            .map_err(|_| stopping())
    }

    /// Closes the connections of the proxy and the flows of passthrough that match.
    ///
    /// # Errors
    /// 504: somebody is too slow. What was begun goes on.
    pub async fn close(&self, filter: Arc<ConnectionFilter>) -> Result<views::Closed, Problem> {
        let patience = self.limits.reply;
        (timeout(patience, self.close_all(filter)).await).map_err(|_| too_slow(patience))
    }

    async fn close_all(&self, filter: Arc<ConnectionFilter>) -> views::Closed {
        let mut closed = views::Closed {
            closed: self.live.close(Arc::clone(&filter)).await,
            dsr_flows: 0,
        };
        if self.now().packet.is_none() {
            return closed;
        }
        let (live, turn) = (Arc::clone(&self.live), self.turn().await);
        let walk = spawn_blocking(move || {
            let _turn = turn;
            let flows = live.close_flows(&|flow| is_wanted(&filter, flow));
            let is_direct = |flow: &FlowInfo| flow.nat.is_none() && is_wanted(&filter, flow);
            (flows, live.flows(&is_direct, 0).0)
        });
        let (flows, dsr_flows) = walk.await.unwrap_or_default();
        closed.closed += flows;
        closed.dsr_flows = dsr_flows;
        closed
    }

    /// Connections of the proxy, oldest first, then flows.
    ///
    /// # Errors
    /// 504: somebody is too slow.
    pub async fn connections(
        &self,
        filter: ConnectionFilter,
        limit: usize,
    ) -> Result<views::Connections, Problem> {
        let patience = self.limits.reply;
        (timeout(patience, self.all_connections(filter, limit)).await).map_err(|_| too_slow(patience))
    }

    async fn all_connections(&self, filter: ConnectionFilter, limit: usize) -> views::Connections {
        let filter = Arc::new(filter);
        let (mut total, mut connections) = self.live.connections(Arc::clone(&filter), limit).await;
        let room = limit.saturating_sub(connections.len());
        let (count, flows) = self.flows(filter, room).await;
        total += count;
        let status = self.now();
        connections.extend(flows.iter().map(packets::connection));
        for connection in &mut connections {
            lookup::mark_removed(&status.snapshot, connection);
        }
        views::Connections { total, connections }
    }

    /// One after the other: what takes its time on the thread for that.
    pub async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.walk).acquire_owned().await.ok()
    }

    /// Flows that match.
    async fn flows(&self, filter: Arc<ConnectionFilter>, limit: usize) -> Listed<FlowInfo> {
        if self.now().packet.is_none() {
            return (0, Vec::new());
        }
        let turn = self.turn().await;
        let live = Arc::clone(&self.live);
        let walk = spawn_blocking(move || {
            let _turn = turn;
            live.flows(&|flow| is_wanted(&filter, flow), limit)
        });
        walk.await.unwrap_or_default()
    }
}

/// One line in the log for each changing request, before it takes effect: who asked for what.
pub fn log_request(caller: &Caller, what: &str) {
    let peer = caller.peer();
    let (uid, pid) = (peer.map(|peer| peer.uid), peer.and_then(|peer| peer.pid));
    tracing::info!(
        event = "admin",
        uid,
        pid,
        what,
        "admin request ({caller}): {what}"
    );
}

fn is_wanted(filter: &ConnectionFilter, flow: &FlowInfo) -> bool {
    filter.matches(
        Remote::Addr(flow.tuple.client),
        &flow.frontend,
        Some(&flow.server.backend),
        Some(&flow.server.server),
    )
}

fn too_slow(limit: Duration) -> Problem {
    Problem::new(
        StatusCode::GATEWAY_TIMEOUT,
        format!(
            "convey accepted the request but did not answer within {} s",
            limit.as_secs()
        ),
    )
}

fn stopping() -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "convey is stopping")
}
