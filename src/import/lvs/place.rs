//! Which mode a service gets, and what that means for its servers.

use std::collections::BTreeMap;

use super::model::{Method, RealServer, Service};
use crate::import::{At, Draft, SectionId};

/// What a service becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// `mode = "proxy"`, for masquerading.
    Proxied,
    /// `mode = "dsr"` by MAC addresses, for direct routing.
    Routed,
    /// `mode = "dsr"` with rewritten destinations, for tunnels.
    Tunnelled,
}

impl Shape {
    /// That of most servers; of a tie, what the first of them says.
    pub fn of(service: &Service) -> Self {
        let count = |method| {
            let of_method = service
                .servers
                .iter()
                .filter(|server| server.method.value == method);
            of_method.count()
        };
        let said = service.servers.first().map(|server| server.method.value);
        let said = said.or(service.method.as_ref().map(|said| said.value));
        let mut most = said.unwrap_or(Method::Masquerade);
        for method in [Method::Route, Method::Masquerade, Method::Tunnel] {
            if count(method) > count(most) {
                most = method;
            }
        }
        match most {
            Method::Route => Self::Routed,
            Method::Masquerade => Self::Proxied,
            Method::Tunnel => Self::Tunnelled,
        }
    }

    const fn method(self) -> Method {
        match self {
            Self::Proxied => Method::Masquerade,
            Self::Routed => Method::Route,
            Self::Tunnelled => Method::Tunnel,
        }
    }
}

/// A service in the output.
#[derive(Debug, Clone)]
pub struct Placed {
    /// Name of its backend.
    pub name: String,
    /// Its frontend.
    pub frontend: SectionId,
    /// Its backend.
    pub backend: SectionId,
    /// What it has become.
    pub shape: Shape,
    /// The port that packets have at the servers, too, as they keep theirs.
    pub port: Option<u16>,
}

impl Placed {
    /// Sets the mode, and says what of it is not as it was.
    pub fn mode(&self, service: &Service, draft: &mut Draft) {
        let at = At::In(self.frontend);
        match self.shape {
            Shape::Proxied if self.is_transparent(service) => {
                draft.comment(
                    at,
                    "Masquerading; the routes that this needs `convey check` prints.",
                );
                draft.set(self.frontend, &["source"], "client");
            }
            Shape::Proxied => draft.comment(
                at,
                "Masquerading with a server on this host: servers see this host's address, not the client's, for \
                 source = \"client\" cannot reach a server of this host.",
            ),
            Shape::Routed => {
                draft.comment(
                    at,
                    "Direct routing: the servers stay as they are, with this address on lo and without ARP for it. Add \
                     interface = \"…\" if this host has the address on lo, too.",
                );
                draft.set(self.frontend, &["mode"], "dsr");
            }
            Shape::Tunnelled => {
                draft.comment(
                    at,
                    "Tunnels have no equal. In mode dsr servers get packets with their own address as destination, across routers \
                     too, and answer clients directly by rules that `convey backend-script` prints; run it on each in place of the \
                     tunnel. If all servers are on a network of this host, dsr_method = \"l2\" needs no rules on them.",
                );
                draft.set(self.frontend, &["mode"], "dsr");
            }
        }
    }

    /// Whether servers see the client's address by way of Convey's sockets.
    pub fn is_transparent(&self, service: &Service) -> bool {
        self.shape == Shape::Proxied && !service.servers.iter().any(|server| server.ip.is_loopback())
    }

    /// Whether a server can be one of this backend; if it cannot, that has been noted.
    pub fn takes(&self, server: &RealServer, draft: &mut Draft) -> bool {
        let at = At::In(self.backend);
        let is_other = server.method.value != self.shape.method();
        let said = match self.shape {
            Shape::Proxied if is_other => {
                let text = "the servers of a frontend are reached alike: this one, too, through Convey";
                server.method.differs(draft, at, text);
                return true;
            }
            Shape::Routed | Shape::Tunnelled if server.ip.is_loopback() => {
                "packets cannot be forwarded to this host itself: give the service to another host, or use mode = \"proxy\""
            }
            Shape::Routed | Shape::Tunnelled if is_other => {
                "the servers of a frontend are reached alike: prepare this one as the others, then add it to the servers, or give \
                 it a frontend of its own"
            }
            _ => return true,
        };
        draft.no_equal(server.id, at, said);
        false
    }
}

/// The ports of addresses, each once, in their order, with the addresses that have it.
pub fn by_port(listen: &[String]) -> Vec<(u16, Vec<String>)> {
    let mut ports: BTreeMap<u16, (usize, Vec<String>)> = BTreeMap::new();
    for (order, address) in listen.iter().enumerate() {
        let port = address
            .rsplit(':')
            .next()
            .and_then(|port| port.parse().ok())
            .unwrap_or(0);
        let entry = ports.entry(port).or_insert_with(|| (order, Vec::new()));
        entry.1.push(address.clone());
    }
    let mut sorted: Vec<_> = ports.into_iter().collect();
    sorted.sort_by_key(|(_, (order, _))| *order);
    sorted
        .into_iter()
        .map(|(port, (_, addresses))| (port, addresses))
        .collect()
}
