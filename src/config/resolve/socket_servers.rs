//! Servers that are unix sockets: what cannot reach them.

use std::ops::Range;

use crate::{
    base::Protocol,
    config::{
        findings::Findings,
        model::{Config, Frontend},
        raw,
        tls::{ServerNameFrom, ServerTrust},
        users::Users,
    },
};

/// Checks every server at a path against the frontends that use it, and what its certificate would have to have.
pub fn check(file: &raw::File, config: &Config, users: &Users<'_>, findings: &mut Findings) {
    for (name, at) in file.backends.iter().flat_map(|at| &at.value.0) {
        let Some(backend) = config.backends.get(name.as_str()) else {
            continue;
        };
        if backend.unix_servers().next().is_none() {
            continue;
        }
        let why_not = users
            .of_backend(name)
            .iter()
            .find_map(|frontend| why_not(frontend));
        for (server, at) in at.value.servers.iter().flat_map(|at| &at.value.0) {
            let addr = at.value.fixed().filter(|addr| addr.value.is_unix());
            if let (Some(addr), Some((why, help))) = (addr, &why_not) {
                findings.within_all(&["backends", name, "servers", server, "addr"], |findings| {
                    findings.error(
                        addr.span.clone(),
                        format!("server `{server}` is a unix socket, {why}"),
                        help.clone(),
                    );
                });
            }
        }
        let is_all = backend.servers.values().all(|server| server.addr.is_unix());
        if let Some(source) = at.value.options.source_addr.as_ref().filter(|_| is_all) {
            findings.within_all(&["backends", name, "source_addr"], |findings| {
                findings.warn(
                    source.key.clone(),
                    format!("`source_addr` has no effect: every server of backend `{name}` is a unix socket"),
                    "remove it".to_owned(),
                );
            });
        }
        let tls = backend
            .tls
            .as_ref()
            .filter(|tls| tls.server_name == ServerNameFrom::Address && tls.trust != ServerTrust::Anybody);
        if let (Some(_), Some(raw)) = (tls, &at.value.tls) {
            findings.within_all(&["backends", name, "tls"], |findings| {
                let at = raw.value.server_name.as_ref();
                no_address(
                    at.map_or_else(|| raw.key.clone(), |at| at.span.clone()),
                    name,
                    findings,
                );
            });
        }
    }
}

fn no_address(span: Range<usize>, backend: &str, findings: &mut Findings) {
    findings.error(
        span,
        format!("servers of backend `{backend}` are unix sockets, which have no address that a certificate could name"),
        "write the name in their certificate: server_name = \"app.example.com\"".to_owned(),
    );
}

/// Why the servers of a frontend cannot be unix sockets, and what to do.
fn why_not(frontend: &Frontend) -> Option<(String, String)> {
    let name = &frontend.name;
    if frontend.mode.is_packet() {
        Some((
            format!(
                "to which frontend `{name}` in mode {} can forward no packets",
                frontend.mode
            ),
            "use mode = \"proxy\", or write the server's IP address and port".to_owned(),
        ))
    } else if frontend.protocol == Protocol::Udp {
        Some((
            format!("and frontend `{name}` has protocol udp: only streams go to unix sockets"),
            "write the server's IP address and port".to_owned(),
        ))
    } else if frontend.is_transparent() {
        Some((
            format!("which cannot be connected to from a client's address, as frontend `{name}` wants"),
            "tell the server by send_proxy = \"v2\" in place of source = \"client\"".to_owned(),
        ))
    } else {
        let range = frontend.listen.iter().find(|range| range.is_several())?;
        Some((
            format!("which has no ports for {range} of frontend `{name}`"),
            "write one port, or the server's IP address and first port".to_owned(),
        ))
    }
}
