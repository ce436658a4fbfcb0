//! The first datagram of a client: whether a session begins, and with which server.

use std::{io, net::IpAddr, os::fd::OwnedFd, sync::Arc, time::Instant};

use super::{
    listener::Listener,
    live::{Begun, Live, Traffic, record},
};
use crate::{
    base::{
        AccessReason, DatagramDrop, IpFamily, ListenAddr, Protocol, SocketKind, TerminationReason, UniqueId,
        WorkerId, Zone,
    },
    config::{SendProxy, SentTlvs},
    preamble::proxy::{self, ProxySource, Ssl, Tlvs},
    proxy::{
        choose::{self, Chosen, ConnectionAddrs, Nothing, Tried, choose},
        limit::Occupant,
        owners::SessionKey,
        places::{FrontendPlace, FrontendSlot, ProcessPlace},
        pool,
        shared::WorkerContext,
    },
    snapshot::{BackendView, Facts, FrontendView, Hello, Way, live::StatsShard},
    sys::{server_socket::Source, udp_socket},
};

/// Why none begins.
pub enum NotBegun {
    /// There is no room for it.
    Dropped(DatagramDrop),
    /// Rules or limits refuse the client.
    Refused(AccessReason),
    /// Another worker has it.
    Owned(WorkerId),
    /// It is to have the client's address, and a socket for that will come.
    NoSocketYet,
    /// It began and is over: counted and reported.
    Ended,
}

/// Why a session has no server, and the backend that it got to.
type Failed = (Option<Arc<BackendView>>, TerminationReason);

/// Who wants a session, and where.
pub struct Opening<'a> {
    pub key: SessionKey,
    pub listener: &'a Listener,
    /// The listener's number.
    pub number: u32,
    pub shared: &'a Arc<WorkerContext>,
    pub worker: WorkerId,
    /// Milliseconds of the limits' clock.
    pub now: u64,
}

impl Opening<'_> {
    /// Begins a session: it has a server and a socket towards it, and its key is this worker's.
    ///
    /// # Errors
    /// Why not; nothing of it is left.
    pub fn begin(&self) -> Result<Live, NotBegun> {
        let Self {
            key,
            listener,
            shared,
            worker,
            ..
        } = self;
        if listener.is_deaf {
            return Err(NotBegun::Dropped(DatagramDrop::Removed));
        }
        let frontend = &listener.frontend;
        if self.awaits_socket() {
            return Err(NotBegun::NoSocketYet);
        }
        let in_process = ProcessPlace::take(shared, Occupant::Session, listener.most)
            .ok_or(NotBegun::Dropped(DatagramDrop::ProcessFull))?;
        let slot = FrontendSlot::take(frontend).ok_or(NotBegun::Dropped(DatagramDrop::SessionsFull))?;
        let access = frontend.access.as_ref();
        let permit = access.map(|access| access.admit(key.client.ip(), self.now));
        let permit = permit.transpose().map_err(NotBegun::Refused)?;
        shared.owners.claim(key, *worker).map_err(NotBegun::Owned)?;
        let in_frontend = FrontendPlace::new(slot, *worker);
        let mut begun = Begun {
            at: Instant::now(),
            retries: 0,
            route: None,
            unique_id: None,
        };
        let (chosen, socket) = match self.server(&mut begun) {
            Ok(found) => found,
            Err((backend, reason)) => {
                shared.owners.release(key);
                self.end(backend.as_deref(), &begun, reason);
                return Err(NotBegun::Ended);
            }
        };
        let header = match chosen.backend.config.send_proxy {
            Some(SendProxy::V2(sent)) => Some(self.header(&sent, &mut begun.unique_id)),
            // that it cannot be is said where the configuration is read
            Some(SendProxy::V1) | None => None,
        };
        chosen.server().live.counters.shard(*worker).opened.add(1);
        Ok(Live {
            socket,
            listener: self.number,
            frontend: Arc::clone(frontend),
            chosen,
            header,
            is_answered: false,
            begun,
            traffic: Traffic::default(),
            _permit: permit,
            _in_frontend: in_frontend,
            in_process,
        })
    }

    /// Chooses a server and makes a socket towards it; of others while that fails and retries are left.
    fn server(&self, begun: &mut Begun) -> Result<(Chosen, OwnedFd), Failed> {
        let way = self.way().map_err(|reason| (None, reason))?;
        begun.route = way.route;
        let backend = &way.backend;
        let in_backend = backend.live.counters.shard(self.worker);
        in_backend.opened.add(1);
        let mut tried = Tried::default();
        let failed = |reason| (Some(Arc::clone(backend)), reason);
        loop {
            let found = choose(backend, way.offered, self.addrs(), &tried);
            let chosen = found.map_err(|nothing| {
                failed(match nothing {
                    Nothing::AllFull => TerminationReason::ServersFull,
                    Nothing::ClientSource => TerminationReason::ClientSource,
                    Nothing::NoneEligible if tried.is_empty() => TerminationReason::NoServer,
                    Nothing::NoneEligible => TerminationReason::ServerConnect,
                })
            })?;
            let made = match chosen.special_kind(Protocol::Udp, self.source()) {
                Some(kind) => {
                    Some(pool::take(kind).ok_or_else(|| failed(TerminationReason::NoSourceSocket))?)
                }
                None => None,
            };
            let source = Source {
                socket: made,
                address: self.source().or(backend.config.source_addr),
                options: chosen.backend.config.server_socket,
            };
            let error = match connect(&chosen, source) {
                Ok(socket) => return Ok((chosen, socket)),
                Err(error) => error,
            };
            // the kernel knows no way from there
            if self.source().is_some() && error.raw_os_error() == Some(libc::EINVAL) {
                return Err(failed(TerminationReason::ClientSource));
            }
            if !is_servers_fault(&error) {
                tracing::debug!(
                    event = "connect_failed",
                    "no socket towards {}: {error}",
                    chosen.addr()
                );
                return Err(failed(TerminationReason::Resource));
            }
            let in_frontend = self.listener.frontend.live.counters.shard(self.worker);
            let in_server = chosen.server().live.counters.shard(self.worker);
            let shards: [&StatsShard; 3] = [in_frontend, in_backend, in_server];
            for shard in shards {
                shard.connect_failures.add(1);
            }
            chosen.note_failure(self.shared, None);
            if begun.retries >= backend.config.retries {
                return Err(failed(TerminationReason::ServerConnect));
            }
            begun.retries += 1;
            for shard in shards {
                shard.retries.add(1);
            }
            tried.add(chosen.server());
        }
    }

    /// The client's address, if the server is to see it.
    fn source(&self) -> Option<IpAddr> {
        choose::source(&self.listener.frontend.config, self.key.client.into())
    }

    /// Whether it takes a socket of the broker's, and has to wait for it.
    fn awaits_socket(&self) -> bool {
        if !pool::keeps_any() {
            return false;
        }
        let Ok(way) = self.way() else { return false };
        let source = self.source();
        let families = [IpFamily::V4, IpFamily::V6];
        let families = (families.into_iter())
            .filter(|family| source.is_none_or(|client| IpFamily::of(client) == *family));
        let kind = |family| SocketKind {
            protocol: Protocol::Udp,
            family,
            is_transparent: source.is_some(),
            mark: way.backend.config.server_socket.common.mark,
        };
        families.map(kind).any(pool::is_awaited)
    }

    /// Where it goes.
    fn way(&self) -> Result<Way, TerminationReason> {
        let frontend: &FrontendView = &self.listener.frontend;
        let facts = Facts {
            client: self.key.client.into(),
            destination: Some(ListenAddr::new(self.key.local)),
            hello: Hello::Unread,
        };
        let way = frontend.way(&facts)?;
        Ok(self.shared.snapshot.load().with_fallback(frontend, way, &facts))
    }

    fn addrs(&self) -> ConnectionAddrs {
        let listen = self.listener.endpoint.addr;
        let range = self.listener.frontend.config.range_of(listen);
        ConnectionAddrs {
            client: self.key.client.into(),
            listen: Some(listen),
            offset: range.and_then(|(range, offset)| range.is_several().then_some(offset)),
            source: self.source(),
        }
    }

    /// What the server is told before the first datagram.
    fn header(&self, sent: &SentTlvs, unique_id: &mut Option<UniqueId>) -> Box<[u8]> {
        let id = sent
            .unique_id
            .then(|| unique_id.insert(self.shared.ids.next()).to_string());
        let tlvs = Tlvs {
            unique_id: id.and_then(|id| proxy::Bytes::new(id.as_bytes())),
            ssl: sent.ssl.then(Ssl::default),
            ..Tlvs::default()
        };
        let source = ProxySource::client(self.key.client, self.key.local);
        proxy::write_v2_of(Protocol::Udp, source, &tlvs, sent.crc32c).into_boxed_slice()
    }

    /// Counts and reports a session that is over before it had a server.
    fn end(&self, backend: Option<&BackendView>, begun: &Begun, reason: TerminationReason) {
        let frontend = &self.listener.frontend;
        frontend.live.counters.shard(self.worker).ended[reason as usize].add(1);
        if let Some(backend) = backend {
            let shard = backend.live.counters.shard(self.worker);
            shard.ended[reason as usize].add(1);
            shard.closed.add(1);
        }
        if frontend.logs(reason) {
            let mut record = record(frontend, &self.key, begun.at, reason);
            record.backend = backend.map(|backend| backend.config.name.clone());
            record.retries = begun.retries;
            record.route = begun.route;
            self.shared.access.record(record);
        }
    }
}

fn connect(chosen: &Chosen, source: Source) -> io::Result<OwnedFd> {
    let Some(addr) = chosen.addr().on_network() else {
        // the configuration has none behind a frontend of UDP
        return Err(io::ErrorKind::Unsupported.into());
    };
    let interface = addr.zone().map(Zone::as_str);
    udp_socket::connect(addr.0, interface, source)
}

/// Tells what the network says of a server, or a rule of this host about it, from what we lack.
pub fn is_servers_fault(error: &io::Error) -> bool {
    !matches!(
        error.raw_os_error(),
        None | Some(
            libc::EMFILE
                | libc::ENFILE
                | libc::ENOMEM
                | libc::ENOBUFS
                | libc::EAGAIN
                | libc::EINTR
                | libc::EMSGSIZE
                // no port is left, or source_addr is none of ours
                | libc::EADDRNOTAVAIL
                | libc::EADDRINUSE
        )
    )
}
