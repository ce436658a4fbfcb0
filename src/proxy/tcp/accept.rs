//! Taking connections off a listener's queue, as many as its frontend and the process may have.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::io::unix::AsyncFd;

use super::{
    session::serve,
    stages::{AcceptedSocket, Origin, Speaker},
};
use crate::{
    access::Permit,
    base::{AccessReason, ClientAddr, ListenerId, PeerAddr, Remote, WorkerId},
    proxy::{
        limit::Occupant,
        places::{FrontendSlot, ProcessPlace},
        shared::WorkerContext,
    },
    snapshot::FrontendView,
    sys::{listener_options, socket_options, tcp},
};

/// Connections accepted in a row before those already accepted have a turn.
const ACCEPT_BATCH: usize = 16;

/// Least time between two log events about failing accepts of one listener; `accept_errors` counts them all.
const LOG_PAUSE: Duration = Duration::from_secs(5);

/// Least time between two log events about connections that access rules or limits refused.
const REFUSAL_PAUSE: Duration = Duration::from_secs(60);

/// What is known of a listener besides its socket.
pub struct AcceptQueue {
    /// Its connections share it.
    id: Arc<ListenerId>,
    shared: Arc<WorkerContext>,
    worker: WorkerId,
    frontend: Arc<FrontendView>,
    /// Of the snapshot that `frontend` was looked up in.
    generation: u64,
    /// Most connections of the process, as of then.
    most: u32,
    /// When the last failure was logged.
    logged_at: Option<Instant>,
    /// When the last refusal was logged.
    refusal_logged_at: Option<Instant>,
}

/// What stopped a batch.
pub enum Batch {
    /// Its size; the queue may have more.
    Full,
    /// The queue is empty.
    Empty,
    /// The frontend has as many connections as it may.
    FrontendFull,
    /// The process has as many connections as it may.
    ProcessFull,
}

impl AcceptQueue {
    /// The queue of a listener.
    ///
    /// # Errors
    /// No frontend of the snapshot has it.
    pub fn new(id: ListenerId, shared: Arc<WorkerContext>, worker: WorkerId) -> io::Result<Self> {
        let snapshot = shared.snapshot.load_full();
        let frontend = snapshot
            .frontend_at(id)
            .cloned()
            .ok_or_else(|| io::Error::other("no frontend has this address"))?;
        shared.limit.listener_added();
        Ok(Self {
            id: Arc::new(id),
            most: shared.limit.most(snapshot.counts.servers),
            generation: snapshot.generation,
            shared,
            worker,
            frontend,
            logged_at: None,
            refusal_logged_at: None,
        })
    }

    /// Sets what the socket does before a connection is accepted.
    ///
    /// # Errors
    /// What setsockopt(2) or listen(2) says.
    pub fn set_options(&self, socket: &impl AsFd) -> io::Result<()> {
        let config = &self.frontend.config;
        let Some(endpoint) = self.id.endpoint() else {
            return listener_options::set_backlog(socket, config.listener);
        };
        socket_options::set_dscp(socket, !endpoint.is_ipv4(), config.client_socket.dscp)?;
        listener_options::set(socket, config.listener)
    }

    /// Accepts what there is, a batch at most. What a frontend that is gone has left is accepted even above its
    /// `max_connections`, but nothing ever above what the process may have.
    ///
    /// # Errors
    /// Accepting failed for a reason that is not one connection's.
    pub fn accept_batch(&mut self, socket: &AsyncFd<OwnedFd>, limited: bool) -> io::Result<Batch> {
        self.refresh(socket);
        for _ in 0..ACCEPT_BATCH {
            let Some(in_process) = ProcessPlace::take(&self.shared, Occupant::Connection, self.most) else {
                return Ok(Batch::ProcessFull);
            };
            let slot = match FrontendSlot::take(&self.frontend) {
                Some(slot) => slot,
                None if limited => return Ok(Batch::FrontendFull),
                None => FrontendSlot::take_beyond_the_limit(&self.frontend),
            };
            let (socket, peer) = match tcp::accept(socket.as_fd()) {
                Ok(accepted) => accepted,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Batch::Empty),
                Err(e) if concerns_one_connection(&e) => continue,
                Err(e) => return Err(e),
            };
            let (speaker, permit) = match self.admit(peer) {
                Ok(admitted) => admitted,
                Err(reason) => {
                    self.refuse(socket, peer, reason);
                    continue;
                }
            };
            let origin = Origin {
                peer,
                listener: Arc::clone(&self.id),
                worker: self.worker,
                at: Instant::now(),
                frontend: Arc::clone(&self.frontend),
                generation: self.generation,
            };
            tokio::spawn(serve(AcceptedSocket {
                socket,
                origin,
                slot,
                in_process,
                permit,
                speaker,
            }));
        }
        Ok(Batch::Full)
    }

    /// What access rules and limits say of a peer that is the client; one that speaks for clients is judged by
    /// `proxy_protocol.from` alone.
    fn admit(&self, peer: Remote<PeerAddr>) -> Result<(Speaker, Option<Permit>), AccessReason> {
        if let (Some(proxies), Some(settings)) =
            (&self.frontend.proxies, &self.frontend.config.proxy_protocol)
        {
            let speaks_for_clients = match peer {
                Remote::Addr(peer) => proxies.has(peer.0.ip()),
                Remote::Unix => settings.unix,
            };
            if speaks_for_clients {
                return Ok((Speaker::Proxy, None));
            }
            if settings.required {
                return Err(AccessReason::UntrustedProxy);
            }
        }
        let access = self.frontend.access.as_ref();
        let client = Remote::<ClientAddr>::from(peer).ip();
        let permit = access.map(|access| access.admit_remote(client, self.shared.now()));
        Ok((Speaker::Itself, permit.transpose()?))
    }

    /// Resets a connection and counts it. The log has one event a minute: whoever floods must not fill it.
    fn refuse(&mut self, socket: OwnedFd, client: Remote<PeerAddr>, reason: AccessReason) {
        let counters = self.frontend.live.counters.shard(self.worker);
        counters.refused[reason as usize].add(1);
        tcp::reset_on_close(&socket);
        drop(socket);
        let now = Instant::now();
        if self.refusal_logged_at.is_some_and(|at| now - at < REFUSAL_PAUSE) {
            return;
        }
        self.refusal_logged_at = Some(now);
        tracing::warn!(
            event = "connections_refused",
            frontend = %self.frontend.config.name,
            reason = reason.label(),
            "frontend {} refuses connections, now one from {client} ({reason}); `convey status` counts them",
            self.frontend.config.name,
        );
    }

    /// Waits until a connection of the frontend ends.
    pub async fn frontend_has_room(&self) {
        self.frontend.live.slots.freed().notified().await;
    }

    /// Says that the process is full, and waits until a connection of any frontend ends.
    pub async fn process_has_room(&self) {
        let freed = self.shared.limit.freed().notified();
        self.shared.limit.note_pause(self.most);
        freed.await;
    }

    /// Counts a failure, and logs it if the last one is some time ago: without descriptors it happens all the time.
    pub fn note_error(&mut self, error: &io::Error) {
        self.frontend
            .live
            .counters
            .shard(self.worker)
            .accept_errors
            .add(1);
        let now = Instant::now();
        if self.logged_at.is_some_and(|at| now - at < LOG_PAUSE) {
            return;
        }
        self.logged_at = Some(now);
        tracing::warn!(
            event = "accept_error",
            frontend = %self.frontend.config.name,
            "cannot accept on {}: {error}{}",
            self.id.place(),
            match error.raw_os_error() {
                Some(libc::EMFILE) => "; raise the limit of open files (LimitNOFILE= of the unit, ulimit -n)",
                Some(libc::ENFILE) => "; raise the system's limit of open files (sysctl fs.file-max)",
                _ => "",
            }
        );
    }

    /// Says that what still waits cannot be served although its frontend is gone.
    pub fn note_reset(&self) {
        tracing::warn!(
            event = "waiting_reset",
            frontend = %self.frontend.config.name,
            "connections that wait on {} are reset: nothing listens there any more, and all {} connections that the \
             limit of open files allows are in use",
            self.id.place(),
            self.most,
        );
    }

    /// Takes up a new snapshot. An endpoint that no frontend has any more keeps its last picture until it is retired.
    fn refresh(&mut self, socket: &AsyncFd<OwnedFd>) {
        let snapshot = self.shared.snapshot.load();
        self.most = self.shared.limit.most(snapshot.counts.servers);
        if snapshot.generation == self.generation {
            return;
        }
        self.generation = snapshot.generation;
        let Some(current) = snapshot.frontend_at(*self.id) else {
            return;
        };
        let timeouts = current.config.client_timeouts();
        if self.id.endpoint().is_some()
            && timeouts != self.frontend.config.client_timeouts()
            && let Err(error) = tcp::set_peer_timeouts(socket, timeouts)
        {
            self.note_error(&error);
        }
        let options = |view: &FrontendView| (view.config.listener, view.config.client_socket.dscp);
        let has_changed = options(current) != options(&self.frontend);
        self.frontend = Arc::clone(current);
        if has_changed && let Err(error) = self.set_options(socket.get_ref()) {
            self.note_error(&error);
        }
    }
}

impl Drop for AcceptQueue {
    fn drop(&mut self) {
        self.shared.limit.listener_removed();
    }
}

/// Errors of the connection that was about to be accepted, not of accepting (accept(2), "Error handling").
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::EINTR
                | libc::EPROTO
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::ENETDOWN
                | libc::EOPNOTSUPP
                | libc::EPERM
        )
    )
}
