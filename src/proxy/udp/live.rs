//! A session at work: its socket, its server, what it counts in.

use std::{
    collections::HashSet,
    net::IpAddr,
    num::NonZeroU32,
    os::fd::{AsRawFd as _, OwnedFd},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use crate::{
    access::Permit,
    base::{
        AccessRecord, DatagramDrop, ListenRange, Protocol, ServerAddr, ServerKey, TerminationReason,
        UniqueId, WorkerId,
    },
    proxy::{
        choose::Chosen,
        owners::SessionKey,
        places::{FrontendPlace, ProcessPlace},
        shared::{Matching, OpenConnection, Select},
    },
    snapshot::FrontendView,
    sys::tcp,
};

/// A session that has a server.
pub struct Live {
    pub socket: OwnedFd,
    /// The number of the listener that its answers leave from.
    pub listener: u32,
    pub frontend: Arc<FrontendView>,
    pub chosen: Chosen,
    /// The PROXY header, until a datagram has left with it.
    pub header: Option<Box<[u8]>>,
    /// Whether the server has answered.
    pub is_answered: bool,
    pub begun: Begun,
    pub traffic: Traffic,
    pub _permit: Option<Permit>,
    pub _in_frontend: FrontendPlace,
    // last: the descriptor is closed by then
    pub in_process: ProcessPlace,
}

/// How it began.
#[derive(Debug, Clone, Copy)]
pub struct Begun {
    pub at: Instant,
    pub retries: u32,
    pub route: Option<NonZeroU32>,
    /// The number that the server was told of.
    pub unique_id: Option<UniqueId>,
}

/// What has passed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Traffic {
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub datagrams_in: u64,
    pub datagrams_out: u64,
    /// Answers that the socket's queue had no room for.
    pub dropped: u32,
}

impl Live {
    /// Counts what went to the server.
    pub fn count_in(&mut self, worker: WorkerId, datagrams: usize, bytes: usize) {
        let (datagrams, bytes) = (datagrams as u64, bytes as u64);
        self.traffic.datagrams_in += datagrams;
        self.traffic.bytes_in += bytes;
        for counters in [
            &self.frontend.live.counters,
            &self.chosen.backend.live.counters,
            &self.chosen.server().live.counters,
        ] {
            let shard = counters.shard(worker);
            shard.datagrams_in.add(datagrams);
            shard.bytes_in.add(bytes);
        }
    }

    /// Counts answers that the socket's queue had no room for, of which one that came tells.
    pub fn note_dropped(&mut self, worker: WorkerId, dropped: u32) {
        let more = dropped.wrapping_sub(std::mem::replace(&mut self.traffic.dropped, dropped));
        let counters = self.frontend.live.counters.shard(worker);
        counters.lost[DatagramDrop::QueueFull as usize].add(more.into());
    }

    /// Counts what the server has answered.
    pub fn count_out(&mut self, worker: WorkerId, datagrams: usize, bytes: usize) {
        let (datagrams, bytes) = (datagrams as u64, bytes as u64);
        self.traffic.datagrams_out += datagrams;
        self.traffic.bytes_out += bytes;
        for counters in [
            &self.frontend.live.counters,
            &self.chosen.backend.live.counters,
            &self.chosen.server().live.counters,
        ] {
            let shard = counters.shard(worker);
            shard.datagrams_out.add(datagrams);
            shard.bytes_out.add(bytes);
        }
        if !self.is_answered {
            self.is_answered = true;
            self.chosen.note_success();
        }
    }

    /// The passive check and its counters: ICMP has told that the server cannot be reached.
    pub fn note_failure(&self, worker: WorkerId) {
        for counters in [
            &self.frontend.live.counters,
            &self.chosen.backend.live.counters,
            &self.chosen.server().live.counters,
        ] {
            counters.shard(worker).connect_failures.add(1);
        }
        self.chosen.note_failure(self.in_process.shared(), None);
    }

    /// Counts and reports its end.
    pub fn end(self, key: &SessionKey, worker: WorkerId, reason: TerminationReason) {
        let (backend, server) = (&self.chosen.backend, self.chosen.server());
        self.frontend.live.counters.shard(worker).ended[reason as usize].add(1);
        for counters in [&backend.live.counters, &server.live.counters] {
            let shard = counters.shard(worker);
            shard.ended[reason as usize].add(1);
            shard.closed.add(1);
        }
        let took = self.begun.at.elapsed();
        for times in [
            &self.frontend.live.session_time,
            &backend.live.session_time,
            &server.live.session_time,
        ] {
            times.own(worker).add(took);
        }
        if !self.frontend.logs(reason) {
            return;
        }
        let mut record = record(&self.frontend, key, self.begun.at, reason);
        record.backend = Some(backend.config.name.clone());
        record.server = Some((server.name.clone(), self.chosen.addr()));
        record.queue_time = Some(Duration::ZERO);
        record.connect_time = Some(Duration::ZERO);
        record.bytes_in = self.traffic.bytes_in;
        record.bytes_out = self.traffic.bytes_out;
        record.datagrams = Some((self.traffic.datagrams_in, self.traffic.datagrams_out));
        record.retries = self.begun.retries;
        record.redispatched = self.begun.retries > 0;
        record.server_connections = u64::from(server.live.slots.used());
        record.route = self.begun.route;
        record.unique_id = self.begun.unique_id;
        self.in_process.shared().access.record(record);
    }

    /// Whether it is selected.
    pub fn is_selected(&self, key: &SessionKey, select: &Select) -> bool {
        match select {
            Select::All => true,
            Select::Servers(servers) => self.is_of_one_of(servers),
            Select::At(addresses) => {
                let local: (IpAddr, u16) = (key.local.ip(), key.local.port());
                addresses.contains(&local)
            }
            Select::Matching(Matching(filter)) => filter(&self.view(key, WorkerId(0), Duration::ZERO)),
        }
    }

    fn is_of_one_of(&self, servers: &HashSet<(ServerKey, ServerAddr)>) -> bool {
        let server = self.chosen.server();
        let key = ServerKey {
            backend: self.chosen.backend.config.name.clone(),
            server: server.name.clone(),
        };
        servers.contains(&(key, server.addr))
    }

    /// As a listing shows it.
    pub fn view(&self, key: &SessionKey, worker: WorkerId, idle: Duration) -> OpenConnection {
        OpenConnection {
            client: key.client.into(),
            protocol: Protocol::Udp,
            frontend: self.frontend.config.name.clone(),
            backend: Some(self.chosen.backend.config.name.clone()),
            server: Some(self.chosen.server().name.clone()),
            server_addr: Some(self.chosen.addr()),
            local: None,
            idle: Some(idle),
            worker,
            accepted_at: self.begun.at,
            sni: None,
            tls: None,
            server_tls: None,
            bytes_in: self.traffic.bytes_in,
            bytes_out: self.traffic.bytes_out,
        }
    }

    /// Its address towards the server.
    pub fn local(&self) -> Option<std::net::SocketAddr> {
        tcp::local_addr(self.socket.as_raw_fd())
    }
}

/// What the log says of a session that ends now, as far as every one has it.
pub fn record(
    frontend: &FrontendView,
    key: &SessionKey,
    begun_at: Instant,
    reason: TerminationReason,
) -> AccessRecord {
    let total_time = begun_at.elapsed();
    AccessRecord {
        accepted_at: SystemTime::now()
            .checked_sub(total_time)
            .unwrap_or(SystemTime::UNIX_EPOCH),
        peer: key.client.into(),
        client: key.client.into(),
        listen: ListenRange::from(key.listen()).into(),
        protocol: Protocol::Udp,
        frontend: frontend.config.name.clone(),
        backend: None,
        server: None,
        queue_time: None,
        connect_time: None,
        total_time,
        bytes_in: 0,
        bytes_out: 0,
        datagrams: Some((0, 0)),
        reason,
        retries: 0,
        redispatched: false,
        frontend_connections: u64::from(frontend.live.slots.used()),
        server_connections: 0,
        route: None,
        sni: None,
        unique_id: None,
        tls: None,
        server_tls: None,
        tls_failure: None,
        server_tls_failure: None,
    }
}
