//! Servers whose `addr` is the name of a host.

use super::{int, limit, named, routing, value};
use crate::{
    base::ServerName,
    config::{
        findings::Findings,
        named_server::{NamedServer, Resolve},
        raw::{self, Located, ServerPlace},
    },
};

/// Those of a backend, in the order of their names.
pub fn named_servers(
    servers: Option<&Located<raw::Named<raw::Server>>>,
    findings: &mut Findings,
) -> Vec<NamedServer> {
    // what is wrong with their names has been said
    let mut said = Findings::default();
    let found = named(servers, "servers", ServerName::new, &mut said, |name, at, _| {
        let raw = &at.value;
        let ServerPlace::Named(host, port) = &raw.addr.as_ref()?.value else {
            return None;
        };
        Some(NamedServer {
            name,
            host: host.clone(),
            port: *port,
            resolve: value(raw.resolve.as_ref(), Resolve::First, |v| v),
            weight: int(raw.weight.as_ref(), 1),
            priority: int(raw.priority.as_ref(), 1),
            max_connections: limit(raw.max_connections.as_ref()),
            sni: routing::names(raw.sni.as_ref()),
        })
    });
    for (name, at) in servers.iter().flat_map(|at| &at.value.0) {
        let raw = &at.value;
        if let (Some(check), Some(ServerPlace::Named(host, _))) =
            (&raw.check_addr, raw.addr.as_ref().map(|at| &at.value))
        {
            findings.within_all(&["servers", name, "check_addr"], |findings| {
                findings.error(
                    check.key.clone(),
                    format!("`check_addr` is for a server at an address, and {host} is a name: each address of it is checked itself"),
                    "remove it, or write the server's IP address; `port` of the health check may be another".to_owned(),
                );
            });
        }
        if let (Some(resolve), Some(addr)) = (&raw.resolve, raw.fixed()) {
            findings.within_all(&["servers", name, "resolve"], |findings| {
                findings.error(
                    resolve.key.clone(),
                    format!("`resolve` is for names, and {} is none", addr.value),
                    "remove it".to_owned(),
                );
            });
        }
    }
    found.into_values().collect()
}

/// Refuses them beside a `[discovery]` section: a backend has one source.
pub fn beside(by_name: &[NamedServer], at: &Located<raw::Backend>, findings: &mut Findings) {
    let raw = &at.value;
    let (Some(first), Some(_), Some(servers)) = (by_name.first(), &raw.discovery, &raw.servers) else {
        return;
    };
    let addr = servers
        .value
        .0
        .get(first.name.as_str())
        .and_then(|at| at.value.addr.as_ref());
    let Some(addr) = addr else { return };
    findings.within_all(&["servers", first.name.as_str(), "addr"], |findings| {
        findings.error(
            addr.span.clone(),
            format!(
                "server `{}` is found by the name {}, and the backend has a [discovery] section: it can be one of them",
                first.name, first.host
            ),
            "write the server's IP address, or put it into a backend of its own that is this one's fallback".to_owned(),
        );
    });
}
