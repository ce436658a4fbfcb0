//! `source = "client"`: where it cannot be, or leaves clients without a server.

use std::ops::Range;

use super::value;
use crate::{
    base::IpFamily,
    config::{
        findings::Findings,
        model::{Backend, Config, Frontend, Mode},
        raw::{self, Located},
        source::SourceAddress,
        users::Users,
    },
};

/// What there is of it in a mode.
pub fn of(given: Option<&Located<SourceAddress>>, mode: Mode) -> SourceAddress {
    match mode {
        Mode::Proxy => value(given, SourceAddress::Own, |v| v),
        Mode::Passthrough | Mode::Dsr => SourceAddress::Own,
    }
}

/// Checks the frontends that say it themselves, or have it from `[defaults]`.
pub fn check(file: &raw::File, config: &Config, users: &Users<'_>, findings: &mut Findings) {
    for (name, at) in file.frontends.iter().flat_map(|at| &at.value.0) {
        let Some(frontend) = config.frontends.get(name.as_str()) else {
            continue;
        };
        let own = at.value.options.source.as_ref();
        let said = own.filter(|at| at.value == SourceAddress::Client);
        findings.within_all(&["frontends", name, "source"], |findings| {
            if let Some(at) = said.filter(|_| frontend.mode.is_packet()) {
                in_packet_mode(frontend.mode, at.span.clone(), findings);
            }
            if frontend.is_transparent() && frontend.proxy_protocol.is_none() {
                let span = said.map_or_else(|| at.key.clone(), |at| at.span.clone());
                for backend in config.backends.values() {
                    let users = users.of_backend(backend.name.as_str());
                    if users.iter().any(|user| user.name == frontend.name) {
                        families(frontend, backend, &span, findings);
                    }
                }
            }
        });
    }
}

fn in_packet_mode(mode: Mode, span: Range<usize>, findings: &mut Findings) {
    match mode {
        Mode::Dsr => findings.warn(
            span,
            "`source` has no effect in mode dsr: servers see the clients' addresses in any case",
            "remove it".to_owned(),
        ),
        Mode::Passthrough | Mode::Proxy => findings.error(
            span,
            "`source` = \"client\" does not work in mode passthrough, where answers come back by the load balancer's address",
            "use mode = \"proxy\", or mode = \"dsr\", where servers see the clients' addresses".to_owned(),
        ),
    }
}

/// A connection with a client's address can only go to a server of its family.
fn families(frontend: &Frontend, backend: &Backend, span: &Range<usize>, findings: &mut Findings) {
    let clients = frontend.client_families();
    let has_servers = |family| backend.has_servers_of(family);
    if clients.iter().copied().all(has_servers) || backend.servers.is_empty() || backend.discovery.is_some() {
        return;
    }
    let (name, pool) = (&frontend.name, &backend.name);
    for family in [IpFamily::V4, IpFamily::V6] {
        if !clients.contains(&family) || has_servers(family) {
            continue;
        }
        let message = format!(
            "{family} clients of frontend `{name}` get no server: backend `{pool}` has none of {family}, and an address of one \
             family cannot reach a server of the other"
        );
        // an IPv6 wildcard need not be meant for both
        if clients.iter().copied().any(has_servers) && only_by_wildcard(frontend, family) {
            let help = format!(
                "add {family} servers to [backends.{pool}], or listen on addresses of the other family alone"
            );
            findings.warn(span.clone(), message, help);
        } else {
            let help = format!(
                "add {family} servers to [backends.{pool}], or tell the servers by send_proxy = \"v2\" instead"
            );
            findings.error(span.clone(), message, help);
        }
    }
}

/// Whether clients of a family come by `[::]` alone.
fn only_by_wildcard(frontend: &Frontend, family: IpFamily) -> bool {
    let mut ranges = frontend.listen.iter().map(|range| range.first().0);
    !ranges.any(|addr| {
        let is_wildcard = addr.is_ipv6() && addr.ip().is_unspecified();
        !is_wildcard && IpFamily::of(addr.ip()) == family
    })
}
