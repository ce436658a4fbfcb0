//! What `convey check` says of servers that packets with the VIP's address cannot reach from here.

use std::collections::BTreeSet;

use crate::{
    base::BackendName,
    config::{Config, Diagnostic, DsrMethod, Mode, Severity},
    engine::network,
};

/// Servers that only a gateway of this host leads to, although packets to them are to keep their addresses: it would send
/// them back.
pub fn warnings(config: &Config, file: &str) -> Vec<Diagnostic> {
    let frontends = config.frontends.values().filter(|f| f.mode == Mode::Dsr);
    let used: BTreeSet<&BackendName> = frontends.map(|frontend| &frontend.backend).collect();
    let backends = (used.into_iter().filter_map(|name| config.backends.get(name)))
        .filter(|backend| backend.dsr_method == DsrMethod::L2);
    let servers = backends.flat_map(|backend| backend.servers.values().map(move |server| (backend, server)));
    servers
        .filter_map(|(backend, server)| {
            let gateway = network::gateway_to(server.addr.ip()?).ok()??;
            Some(Diagnostic {
                severity: Severity::Warning,
                file: file.to_owned(),
                line: 0,
                column: 0,
                span: 0..0,
                path: format!("backends.{}.servers.{}.addr", backend.name, server.name),
                message: format!(
                    "server `{}` of backend `{}` is behind the gateway {gateway}: dsr_method = \"l2\" reaches only servers on a network of this host",
                    server.name, backend.name
                ),
                help: Some("packets to it are dropped here: put the server on a network of the load balancer, or use another dsr_method".to_owned()),
            })
        })
        .collect()
}
