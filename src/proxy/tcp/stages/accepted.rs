//! A connection that was taken off a listener's queue.

use std::{
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use crate::{
    access::Permit,
    base::{AccessRecord, ListenerId, PeerAddr, Protocol, Remote, TerminationReason, WorkerId},
    proxy::{
        places::{FrontendPlace, FrontendSlot, ProcessPlace},
        shared::WorkerContext,
        tcp::{bytes::ByteCounts, registry::Registration},
    },
    snapshot::FrontendView,
    sys::readiness::Stream,
};

/// Where a connection comes from.
pub struct Origin {
    /// Its other end.
    pub peer: Remote<PeerAddr>,
    /// The listener: shared, because a connection is to be small.
    pub listener: Arc<ListenerId>,
    /// The thread.
    pub worker: WorkerId,
    /// When it was accepted.
    pub at: Instant,
    /// The frontend as it was then.
    pub frontend: Arc<FrontendView>,
    /// Of the snapshot that `frontend` was looked up in.
    pub generation: u64,
}

/// For whom a peer speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker {
    /// It is the client.
    Itself,
    /// For the client that its PROXY header names: rules and limits have not been asked yet.
    Proxy,
}

/// A connection as the listener hands it over.
pub struct AcceptedSocket {
    pub socket: OwnedFd,
    pub origin: Origin,
    pub slot: FrontendSlot,
    pub in_process: ProcessPlace,
    pub permit: Option<Permit>,
    pub speaker: Speaker,
}

/// A connection whose peer and frontend are known.
pub struct Accepted {
    // before the socket, so that it leaves the registry before the descriptor is closed
    pub registration: Registration,
    pub socket: Stream,
    pub origin: Origin,
    pub bytes: Arc<ByteCounts>,
    pub speaker: Speaker,
    _in_frontend: FrontendPlace,
    /// Kept for as long as the connection counts for its client.
    pub permit: Option<Permit>,
    // last: the connection's descriptors are closed by then
    in_process: ProcessPlace,
}

impl Origin {
    /// How long ago it was accepted.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.at.elapsed()
    }

    /// What the access log says of the connection as far as this stage knows, if it ends now.
    #[must_use]
    pub fn record(&self, reason: TerminationReason) -> AccessRecord {
        let total_time = self.age();
        AccessRecord {
            accepted_at: SystemTime::now()
                .checked_sub(total_time)
                .unwrap_or(SystemTime::UNIX_EPOCH),
            peer: self.peer,
            client: self.peer.into(),
            listen: self.listener.place(),
            protocol: Protocol::Tcp,
            frontend: self.frontend.config.name.clone(),
            backend: None,
            server: None,
            queue_time: None,
            connect_time: None,
            total_time,
            bytes_in: 0,
            bytes_out: 0,
            datagrams: None,
            reason,
            retries: 0,
            redispatched: false,
            frontend_connections: u64::from(self.frontend.live.slots.used()),
            server_connections: 0,
            route: None,
            sni: None,
            unique_id: None,
            tls: None,
            tls_failure: None,
            server_tls: None,
            server_tls_failure: None,
        }
    }
}

impl Accepted {
    /// Enters a connection in this thread's registry. `None` when the reactor cannot take it: then it is over, counted and
    /// reported.
    #[must_use]
    pub fn new(arrival: AcceptedSocket) -> Option<Self> {
        let AcceptedSocket {
            socket,
            origin,
            slot,
            in_process,
            permit,
            speaker,
        } = arrival;
        let in_frontend = FrontendPlace::new(slot, origin.worker);
        let Ok(socket) = Stream::new(socket) else {
            let reason = TerminationReason::Resource;
            let counters = &origin.frontend.live.counters;
            counters.shard(origin.worker).ended[reason as usize].add(1);
            if origin.frontend.logs(reason) {
                in_process.shared().access.record(origin.record(reason));
            }
            return None;
        };
        let bytes = Arc::new(ByteCounts::default());
        let name = origin.frontend.config.name.clone();
        Some(Self {
            registration: Registration::new(origin.peer, &socket, name, origin.at, Arc::clone(&bytes)),
            socket,
            origin,
            bytes,
            speaker,
            _in_frontend: in_frontend,
            permit,
            in_process,
        })
    }

    /// What the workers share.
    #[must_use]
    pub fn shared(&self) -> &WorkerContext {
        self.in_process.shared()
    }
}
