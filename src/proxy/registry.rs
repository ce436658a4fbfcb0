//! A worker thread's open connections: what they are, and how to end them from outside.

use std::{
    cell::RefCell,
    os::fd::{AsRawFd, RawFd},
    sync::Arc,
    time::Instant,
};

use tokio::net::TcpStream;

use super::{OpenConnection, Select};
use crate::{
    base::{ClientAddr, ServerKey, TerminationReason, WorkerId},
    snapshot::{BackendView, FrontendView},
    sys::tcp,
};

struct Entry {
    client: ClientAddr,
    frontend: Arc<FrontendView>,
    server: Option<(Arc<BackendView>, usize)>,
    accepted_at: Instant,
    bytes_in: u64,
    bytes_out: u64,
    client_fd: RawFd,
    server_fd: Option<RawFd>,
    /// Set when the connection was ended from outside.
    ended_by: Option<TerminationReason>,
}

/// Slots of entries; freed ones are used again.
#[derive(Default)]
struct Registry {
    entries: Vec<Option<Entry>>,
    free: Vec<usize>,
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
        client: ClientAddr,
        socket: &TcpStream,
        frontend: Arc<FrontendView>,
        accepted_at: Instant,
    ) -> Self {
        let entry = Entry {
            client,
            frontend,
            server: None,
            accepted_at,
            bytes_in: 0,
            bytes_out: 0,
            client_fd: socket.as_raw_fd(),
            server_fd: None,
            ended_by: None,
        };
        REGISTRY.with_borrow_mut(|registry| match registry.free.pop() {
            Some(slot) => {
                registry.entries[slot] = Some(entry);
                Self(slot)
            }
            None => {
                registry.entries.push(Some(entry));
                Self(registry.entries.len() - 1)
            }
        })
    }

    fn update<R>(&self, change: impl FnOnce(&mut Entry) -> R) -> Option<R> {
        REGISTRY.with_borrow_mut(|r| r.entries.get_mut(self.0).and_then(Option::as_mut).map(change))
    }

    /// Notes the server that is connected.
    pub fn connected(&self, backend: Arc<BackendView>, server: usize, socket: &TcpStream) {
        self.update(|entry| {
            entry.server = Some((backend, server));
            entry.server_fd = Some(socket.as_raw_fd());
        });
    }

    /// Notes that the server's socket is about to be closed.
    pub fn disconnected(&self) {
        self.update(|entry| entry.server_fd = None);
    }

    /// Notes delivered bytes.
    pub fn moved(&self, bytes_in: u64, bytes_out: u64) {
        self.update(|entry| {
            entry.bytes_in += bytes_in;
            entry.bytes_out += bytes_out;
        });
    }

    /// Delivered bytes so far, from the client and from the server.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        self.update(|entry| (entry.bytes_in, entry.bytes_out))
            .unwrap_or_default()
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

/// Ends the selected connections of this thread; their tasks notice it at their sockets.
pub fn close(select: &Select, reason: TerminationReason) {
    REGISTRY.with_borrow_mut(|registry| {
        for entry in registry.entries.iter_mut().flatten() {
            let selected = match select {
                Select::All => true,
                Select::Servers(servers) => entry.server.as_ref().is_some_and(|(backend, server)| {
                    backend.servers.get(*server).is_some_and(|server| {
                        let key = ServerKey {
                            backend: backend.config.name.clone(),
                            server: server.name.clone(),
                        };
                        servers.contains(&(key, server.addr))
                    })
                }),
            };
            if selected && entry.ended_by.is_none() {
                entry.ended_by = Some(reason);
                tcp::end_both_halves(entry.client_fd);
                if let Some(fd) = entry.server_fd {
                    tcp::end_both_halves(fd);
                }
            }
        }
    });
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
            .map(|e| e.view(worker))
            .filter(|c| filter(c))
            .collect()
    });
    let total = found.len();
    found.sort_by_key(|c| c.accepted_at);
    found.truncate(limit);
    (total, found)
}

impl Entry {
    fn view(&self, worker: WorkerId) -> OpenConnection {
        let server = self
            .server
            .as_ref()
            .and_then(|(backend, server)| backend.servers.get(*server));
        OpenConnection {
            client: self.client,
            frontend: self.frontend.config.name.clone(),
            server: server.map(|s| s.name.clone()),
            backend: self.frontend.backend.config.name.clone(),
            worker,
            accepted_at: self.accepted_at,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
        }
    }
}
