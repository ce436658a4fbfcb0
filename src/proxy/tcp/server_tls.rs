//! What this thread knows of servers that speak TLS: their sessions, to be resumed.

use std::{cell::RefCell, collections::HashMap, sync::Arc};

use rustls::ClientConfig;

use crate::{
    base::{BackendName, ServerAddr},
    snapshot::BackendTls,
    tls::for_one_server,
};

/// Servers whose sessions a thread remembers; all are forgotten when there are more.
const MAX_SERVERS: usize = 1_024;

thread_local! {
    static KNOWN: RefCell<Known> = RefCell::default();
}

#[derive(Default)]
struct Known {
    backends: HashMap<BackendName, OfBackend>,
    servers: usize,
}

/// The servers of a backend, as long as its TLS is this: whom other CAs vouch for has to show that.
struct OfBackend {
    tls: Arc<BackendTls>,
    servers: HashMap<ServerAddr, Arc<ClientConfig>>,
}

/// What a connection to a server is opened with.
pub fn config_for(backend: &BackendName, tls: &Arc<BackendTls>, addr: ServerAddr) -> Arc<ClientConfig> {
    KNOWN.with_borrow_mut(|known| known.config_for(backend, tls, addr))
}

impl Known {
    fn config_for(
        &mut self,
        backend: &BackendName,
        tls: &Arc<BackendTls>,
        addr: ServerAddr,
    ) -> Arc<ClientConfig> {
        if let Some(of) = self.backends.get(backend)
            && Arc::ptr_eq(&of.tls, tls)
            && let Some(config) = of.servers.get(&addr)
        {
            return Arc::clone(config);
        }
        if self.servers >= MAX_SERVERS {
            *self = Self::default();
        }
        let of = self
            .backends
            .entry(backend.clone())
            .or_insert_with(|| OfBackend::new(tls));
        if !Arc::ptr_eq(&of.tls, tls) {
            self.servers -= of.servers.len();
            *of = OfBackend::new(tls);
        }
        let config = for_one_server(&tls.connections);
        of.servers.insert(addr, Arc::clone(&config));
        self.servers += 1;
        config
    }
}

impl OfBackend {
    fn new(tls: &Arc<BackendTls>) -> Self {
        Self {
            tls: Arc::clone(tls),
            servers: HashMap::new(),
        }
    }
}
