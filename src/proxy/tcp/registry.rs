//! A worker thread's open connections: what they are, and how to end them from outside.

use std::{
    cell::RefCell,
    collections::HashSet,
    os::fd::{AsRawFd, RawFd},
    sync::Arc,
    time::Instant,
};

use super::{bytes::ByteCounts, memory::Crowd};
use crate::{
    base::{
        ClientAddr, FrontendName, PeerAddr, Protocol, Remote, ServerAddr, ServerKey, ServerTlsRecord,
        TerminationReason, TlsRecord, WorkerId,
    },
    proxy::shared::{Matching, OpenConnection, Select},
    snapshot::{BackendView, ServerView},
    sys::{readiness::Stream, tcp},
};

struct Entry {
    /// The peer's address stands in for the client's until that is known.
    client: Remote<ClientAddr>,
    frontend: FrontendName,
    /// As it was when the connection was last routed or, with a server, when that was chosen.
    backend: Option<Arc<BackendView>>,
    /// Index of the connected server in it.
    server: Option<u32>,
    accepted_at: Instant,
    bytes: Arc<ByteCounts>,
    client_fd: RawFd,
    server_fd: Option<RawFd>,
    /// The name that the client has asked for.
    sni: Option<Arc<str>>,
    /// What its TLS has agreed on, where that ends here.
    tls: Option<Arc<TlsRecord>>,
    /// What its TLS with the server has agreed on.
    server_tls: Option<Arc<ServerTlsRecord>>,
    /// Set when the connection was ended from outside.
    ended_by: Option<TerminationReason>,
}

/// Slots of entries; freed ones are used again.
#[derive(Default)]
struct Registry {
    entries: Vec<Option<Entry>>,
    free: Vec<usize>,
    crowd: Crowd,
}

impl Registry {
    fn count(&mut self) {
        self.crowd.note(self.entries.len() - self.free.len());
    }
}

thread_local! {
    static REGISTRY: RefCell<Registry> = RefCell::default();
}

/// A connection's place in its thread's registry, given up on drop. Must be dropped before the sockets are closed,
/// so that no descriptor in the registry ever belongs to something else.
#[derive(Debug)]
pub struct Registration(usize);

impl Registration {
    /// Enters a connection that was just accepted.
    #[must_use]
    pub fn new(
        peer: Remote<PeerAddr>,
        socket: &Stream,
        frontend: FrontendName,
        accepted_at: Instant,
        bytes: Arc<ByteCounts>,
    ) -> Self {
        let entry = Entry {
            client: peer.into(),
            frontend,
            backend: None,
            server: None,
            accepted_at,
            bytes,
            client_fd: socket.as_raw_fd(),
            server_fd: None,
            sni: None,
            tls: None,
            server_tls: None,
            ended_by: None,
        };
        REGISTRY.with_borrow_mut(|registry| {
            let slot = match registry.free.pop() {
                Some(slot) => {
                    registry.entries[slot] = Some(entry);
                    slot
                }
                None => {
                    registry.entries.push(Some(entry));
                    registry.entries.len() - 1
                }
            };
            registry.count();
            Self(slot)
        })
    }

    fn update<R>(&self, change: impl FnOnce(&mut Entry) -> R) -> Option<R> {
        REGISTRY.with_borrow_mut(|r| r.entries.get_mut(self.0).and_then(Option::as_mut).map(change))
    }

    /// Notes who the client is.
    pub fn identified(&self, client: Remote<ClientAddr>) {
        self.update(|entry| entry.client = client);
    }

    /// Notes the name that the client has asked for.
    pub fn named(&self, sni: Arc<str>) {
        self.update(|entry| entry.sni = Some(sni));
    }

    /// Notes what its TLS has agreed on.
    pub fn secured(&self, tls: Arc<TlsRecord>) {
        self.update(|entry| entry.tls = Some(tls));
    }

    /// Notes the backend that the connection is routed to.
    pub fn routed(&self, backend: &Arc<BackendView>) {
        self.update(|entry| entry.backend = Some(Arc::clone(backend)));
    }

    /// Notes the server that is connected, by its index in the backend as it was when it was chosen.
    pub fn connected(
        &self,
        backend: &Arc<BackendView>,
        server: usize,
        socket: &Stream,
        tls: Option<&Arc<ServerTlsRecord>>,
    ) {
        self.update(|entry| {
            entry.server_tls = tls.map(Arc::clone);
            entry.backend = Some(Arc::clone(backend));
            entry.server = u32::try_from(server).ok();
            entry.server_fd = Some(socket.as_raw_fd());
        });
    }

    /// Notes that the server's socket is about to be closed.
    pub fn disconnected(&self) {
        self.update(|entry| entry.server_fd = None);
    }

    /// Why it was ended from outside, if it was.
    #[must_use]
    pub fn ended_by(&self) -> Option<TerminationReason> {
        self.update(|entry| entry.ended_by).flatten()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // at thread exit the registry may be gone before the last tasks
        let _ = REGISTRY.try_with(|registry| {
            let mut registry = registry.borrow_mut();
            if let Some(entry) = registry.entries.get_mut(self.0) {
                *entry = None;
                registry.free.push(self.0);
                registry.count();
            }
        });
    }
}

/// How many connections of this thread were accepted before.
#[must_use]
pub fn count_older(than: Instant) -> usize {
    REGISTRY.with_borrow(|registry| {
        let entries = registry.entries.iter().flatten();
        entries.filter(|entry| entry.accepted_at < than).count()
    })
}

/// How many connections of this thread are selected.
#[must_use]
pub fn count(select: &Select) -> usize {
    REGISTRY.with_borrow(|registry| {
        let entries = registry.entries.iter().flatten();
        entries.filter(|entry| entry.is_selected(select)).count()
    })
}

/// Ends the selected connections of this thread, and returns how many; their tasks notice it at their sockets.
pub fn close(select: &Select, reason: TerminationReason) -> usize {
    REGISTRY.with_borrow_mut(|registry| {
        let mut closed = 0;
        for entry in registry.entries.iter_mut().flatten() {
            if !entry.is_selected(select) {
                continue;
            }
            closed += 1;
            entry.ended_by = Some(reason);
            tcp::end_both_halves(entry.client_fd);
            if let Some(fd) = entry.server_fd {
                tcp::end_both_halves(fd);
            }
        }
        closed
    })
}

/// This thread's connections that the filter accepts: how many, and the `limit` oldest.
pub fn list(
    worker: WorkerId,
    filter: &dyn Fn(&OpenConnection) -> bool,
    limit: usize,
) -> (usize, Vec<OpenConnection>) {
    let mut found: Vec<_> = REGISTRY.with_borrow(|registry| {
        registry
            .entries
            .iter()
            .flatten()
            .map(|e| (e.view(worker), e.client_fd, e.server_fd))
            .filter(|(c, ..)| filter(c))
            .collect()
    });
    let total = found.len();
    found.sort_by_key(|(c, ..)| c.accepted_at);
    found.truncate(limit);
    // what only the kernel knows, and only of those that are shown: that costs system calls
    let whole = |(connection, client, server): (OpenConnection, RawFd, Option<RawFd>)| {
        let idle = [Some(client), server].into_iter().flatten();
        OpenConnection {
            local: server.and_then(tcp::local_addr),
            idle: idle.filter_map(tcp::since_last_data).min(),
            ..connection
        }
    };
    (total, found.into_iter().map(whole).collect())
}

impl Entry {
    fn connected(&self) -> Option<(&BackendView, &ServerView)> {
        let backend = self.backend.as_ref()?;
        let index = usize::try_from(self.server?).ok()?;
        Some((backend, backend.servers.get(index)?))
    }

    /// Whether it is selected; one that has been ended is not.
    fn is_selected(&self, select: &Select) -> bool {
        self.ended_by.is_none()
            && match select {
                Select::All => true,
                Select::Servers(servers) => self.is_connected_to_one_of(servers),
                Select::At(addresses) => {
                    tcp::local_address(self.client_fd).is_some_and(|at| addresses.contains(&at))
                }
                // which worker's it is does not matter
                Select::Matching(Matching(filter)) => filter(&self.view(WorkerId(0))),
            }
    }

    fn is_connected_to_one_of(&self, servers: &HashSet<(ServerKey, ServerAddr)>) -> bool {
        self.connected().is_some_and(|(backend, server)| {
            let key = ServerKey {
                backend: backend.config.name.clone(),
                server: server.name.clone(),
            };
            servers.contains(&(key, server.addr))
        })
    }

    fn view(&self, worker: WorkerId) -> OpenConnection {
        OpenConnection {
            client: self.client,
            protocol: Protocol::Tcp,
            frontend: self.frontend.clone(),
            backend: (self.backend.as_ref()).map(|backend| backend.config.name.clone()),
            server: self.connected().map(|(_, server)| server.name.clone()),
            server_addr: self.connected().map(|(_, server)| server.addr),
            local: None,
            idle: None,
            worker,
            accepted_at: self.accepted_at,
            sni: self.sni.clone(),
            tls: self.tls.clone(),
            server_tls: self.server_tls.clone(),
            bytes_in: self.bytes.from_client.read(),
            bytes_out: self.bytes.from_server.read(),
        }
    }
}
