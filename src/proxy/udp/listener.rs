//! A socket that clients send to, and the frontend that it is of.

use std::{
    io,
    net::{IpAddr, SocketAddr, SocketAddrV6},
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    base::{DatagramDrop, Dscp, Endpoint, WorkerId, Zone},
    proxy::{owners::SessionKey, shared::WorkerContext},
    snapshot::FrontendView,
    sys::{
        socket_options,
        udp_socket::{self, Message},
    },
};

/// Least time between two log events about what one listener drops or refuses.
const LOG_PAUSE: Duration = Duration::from_secs(60);

/// A listening socket at work.
pub struct Listener {
    pub socket: OwnedFd,
    pub endpoint: Endpoint,
    /// As of the last snapshot that had one there.
    pub frontend: Arc<FrontendView>,
    /// Most connections of the process, as of then.
    pub most: u32,
    /// No session begins here any more: a reload has removed the address.
    pub is_deaf: bool,
    /// Sessions whose answers leave here.
    pub sessions: usize,
    generation: u64,
    /// What its queue had no room for and was counted.
    dropped: u32,
    shared: Arc<WorkerContext>,
    worker: WorkerId,
    logged_at: Option<Instant>,
}

impl Listener {
    /// A socket of this endpoint.
    ///
    /// # Errors
    /// No frontend of the snapshot has the endpoint.
    pub fn new(
        endpoint: Endpoint,
        socket: OwnedFd,
        shared: &Arc<WorkerContext>,
        worker: WorkerId,
    ) -> io::Result<Self> {
        let snapshot = shared.snapshot.load_full();
        let frontend = snapshot
            .frontend_at(endpoint.into())
            .cloned()
            .ok_or_else(|| io::Error::other("no frontend has this address"))?;
        // of an earlier process it may have another
        let dscp = frontend.config.client_socket.dscp;
        socket_options::set_dscp(&socket, !endpoint.is_ipv4(), dscp)?;
        shared.limit.listener_added();
        Ok(Self {
            dropped: udp_socket::dropped(socket.as_fd()),
            socket,
            endpoint,
            frontend,
            most: shared.limit.most(snapshot.counts.servers),
            is_deaf: false,
            sessions: 0,
            generation: snapshot.generation,
            shared: Arc::clone(shared),
            worker,
            logged_at: None,
        })
    }

    /// Counts what its queue had no room for, of which a datagram tells.
    pub fn note_dropped(&mut self, dropped: u32) {
        let more = dropped.wrapping_sub(std::mem::replace(&mut self.dropped, dropped));
        if more > 0 {
            self.drop_datagrams(more as usize, DatagramDrop::QueueFull);
        }
    }

    /// Takes up a new snapshot.
    pub fn refresh(&mut self) {
        let snapshot = self.shared.snapshot.load();
        if snapshot.generation == self.generation {
            return;
        }
        self.generation = snapshot.generation;
        self.most = self.shared.limit.most(snapshot.counts.servers);
        let Some(current) = snapshot.frontend_at(self.endpoint.into()) else {
            return;
        };
        let before = std::mem::replace(&mut self.frontend, Arc::clone(current));
        let dscp = self.dscp();
        if dscp != before.config.client_socket.dscp
            && let Err(error) = socket_options::set_dscp(&self.socket, self.is_ipv6(), dscp)
        {
            tracing::warn!(
                event = "listener_option_failed",
                "cannot set dscp of {}: {error}",
                self.endpoint
            );
        }
    }

    /// The class of what it sends.
    pub fn dscp(&self) -> Option<Dscp> {
        self.frontend.config.client_socket.dscp
    }

    /// Whether such datagrams come here.
    pub fn has(&self, key: &SessionKey) -> bool {
        let (own, local) = (self.endpoint.addr.0, key.local);
        let is_elsewhere = |zone: &Zone| key.interface != Some(*zone);
        if self.endpoint.addr.zone().is_some_and(is_elsewhere) {
            return false;
        }
        own.port() == local.port()
            && (own.ip() == local.ip() || (own.ip().is_unspecified() && (own.is_ipv6() || local.is_ipv4())))
    }

    /// Bytes of the longest datagram that it passes on.
    pub fn longest(&self) -> usize {
        let udp = self.frontend.config.udp;
        udp.map_or(usize::MAX, |udp| udp.buffer_size as usize)
    }

    /// The address that a datagram was sent to.
    pub fn local(&self, message: Message) -> SocketAddr {
        let own = self.endpoint.addr.0;
        match message.local {
            None => own,
            Some(IpAddr::V6(ip)) => SocketAddrV6::new(ip, own.port(), 0, message.interface).into(),
            Some(ip) => SocketAddr::new(ip, own.port()),
        }
    }

    /// Whether its socket is one of IPv6, which takes IPv4 too where it is of every address.
    pub const fn is_ipv6(&self) -> bool {
        self.endpoint.addr.0.is_ipv6()
    }

    /// Whether answers must say which address they leave from.
    pub const fn is_wildcard(&self) -> bool {
        self.endpoint.ip().is_unspecified()
    }

    /// Counts datagrams that are not passed on.
    pub fn drop_datagrams(&mut self, count: usize, why: DatagramDrop) {
        let counters = self.frontend.live.counters.shard(self.worker);
        counters.lost[why as usize].add(count as u64);
        if matches!(why, DatagramDrop::SessionsFull | DatagramDrop::ProcessFull) {
            self.log(
                format_args!("begins no more sessions: {}", why.sentence()),
                why.label(),
            );
        }
    }

    /// Logs, once a minute at most: whoever floods must not fill the log.
    pub fn log(&mut self, what: std::fmt::Arguments<'_>, reason: &'static str) {
        let now = Instant::now();
        if self.logged_at.is_some_and(|at| now - at < LOG_PAUSE) {
            return;
        }
        self.logged_at = Some(now);
        tracing::warn!(
            event = "sessions_refused",
            frontend = %self.frontend.config.name,
            reason,
            "frontend {} {what}; `convey status --json` counts them",
            self.frontend.config.name,
        );
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.shared.limit.listener_removed();
    }
}
