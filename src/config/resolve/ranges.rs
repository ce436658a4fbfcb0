//! What ranges of ports and link-local addresses demand.

use std::{collections::HashMap, net::SocketAddr, ops::Range};

use crate::{
    base::{IpServerAddr, ListenRange},
    config::{
        address::lacks_zone,
        findings::Findings,
        model::{Backend, Config, DsrMethod, Frontend, Mode},
        raw,
        users::Users,
    },
};

/// Ports of a range in mode proxy, at most. Each is a socket for every worker: with 16 workers these are all that the service
/// manager keeps over a restart (FileDescriptorStoreMax of the unit), and 20,000 open files, a common limit, leave room for
/// connections. In packet modes a range costs as much as a port.
pub const MOST_PROXIED: u16 = 1_024;

/// Checks every frontend, and the servers behind ranges.
pub fn check(file: &raw::File, config: &Config, users: &Users<'_>, findings: &mut Findings) {
    findings.within("frontends", |findings| {
        for (name, at) in file.frontends.iter().flat_map(|at| &at.value.0) {
            let Some(frontend) = config.frontends.get(name.as_str()) else {
                continue;
            };
            findings.within(name, |findings| {
                findings.within("listen_addr", |findings| listen(frontend, &at.value, findings));
            });
        }
    });
    let several: HashMap<&str, ListenRange> = (config.frontends.values())
        .filter_map(|frontend| Some((frontend.name.as_str(), several_ports(frontend)?)))
        .collect();
    for (name, at) in file.backends.iter().flat_map(|at| &at.value.0) {
        let Some(backend) = config.backends.get(name.as_str()) else {
            continue;
        };
        let users = users.of_backend(name);
        let widest = widest(file, &several, backend, users);
        let by_proxy = users.iter().any(|frontend| !frontend.mode.is_packet());
        for (server, at) in at.value.servers.iter().flat_map(|at| &at.value.0) {
            let Some(at) = &at.value.fixed() else { continue };
            // one at a path has no port, which is told elsewhere
            let Some(addr) = at.value.on_network() else {
                continue;
            };
            let path = ["backends", name, "servers", server, "addr"];
            if let Some(widest) = &widest {
                widest.fits_above(server, addr, at.span.clone(), &path, findings);
            }
            let interface = addr.zone().or(backend.server_socket.interface.as_ref());
            if by_proxy && lacks_zone(addr.0, interface) {
                findings.within_all(&path, |findings| {
                    findings.warn(
                        at.span.clone(),
                        format!("link-local address of server `{server}` without its interface: nothing can be sent to it"),
                        format!("write the interface too, such as \"{}\"", with_example(addr.0)),
                    );
                });
            }
        }
    }
}

/// The range of a backend's frontends that has the most ports.
struct Widest<'a> {
    frontend: &'a Frontend,
    range: ListenRange,
    span: Range<usize>,
}

/// The range of a frontend that has the most ports; `None` if all are of one port.
fn several_ports(frontend: &Frontend) -> Option<ListenRange> {
    let ranges = frontend.listen.iter().filter(|range| range.is_several());
    ranges.max_by_key(|range| range.ports().len()).copied()
}

/// That one, of the ranges whose ports may differ from the servers'; `several` has the widest of each frontend.
fn widest<'a>(
    file: &raw::File,
    several: &HashMap<&str, ListenRange>,
    backend: &Backend,
    users: &[&'a Frontend],
) -> Option<Widest<'a>> {
    let maps_ports = |frontend: &Frontend| frontend.mode != Mode::Dsr || backend.dsr_method == DsrMethod::Nft;
    let (frontend, range) = (users.iter().filter(|frontend| maps_ports(frontend)))
        .filter_map(|frontend| Some((*frontend, *several.get(frontend.name.as_str())?)))
        .max_by_key(|(_, range)| range.ports().len())?;
    let raw = file.frontends.as_ref()?.value.0.get(frontend.name.as_str())?;
    let mut listen = raw.value.listen_addr.iter().flat_map(|at| &at.value.0);
    let (_, span) = listen.find(|(found, _)| *found == range)?;
    Some(Widest {
        frontend,
        range,
        span: span.clone(),
    })
}

impl Widest<'_> {
    /// Checks that a server has a port for each of the range.
    fn fits_above(
        &self,
        server: &str,
        addr: IpServerAddr,
        span: Range<usize>,
        path: &[&str],
        findings: &mut Findings,
    ) {
        let ports = self.range.ports().len();
        let port = addr.0.port();
        let highest = (u32::from(u16::MAX) + 1).saturating_sub(ports);
        if u32::from(port) <= highest {
            return;
        }
        findings.clash(
            path,
            span,
            self.span.clone(),
            format!(
                "server `{server}` has no {ports} ports from {port} on, as frontend `{}` has on {}",
                self.frontend.name, self.range
            ),
            &format!("write a port up to {highest}, or a shorter range"),
        );
    }
}

fn listen(frontend: &Frontend, raw: &raw::Frontend, findings: &mut Findings) {
    if frontend.mode.is_packet() {
        return;
    }
    for (range, span) in raw.listen_addr.iter().flat_map(|at| &at.value.0) {
        let ports = range.ports().len();
        if ports > u32::from(MOST_PROXIED) {
            findings.error(
                span.clone(),
                format!("{range} has {ports} ports: mode proxy listens on {MOST_PROXIED} of a range at most"),
                "use mode = \"passthrough\" or \"dsr\", where a range costs no more than a port, or fewer ports"
                    .to_owned(),
            );
        }
        let first = range.first();
        if frontend.interface.is_none() && lacks_zone(first.0, first.zone()) {
            findings.error(
                span.clone(),
                format!("link-local address {} without its interface", first.0.ip()),
                format!("write the interface too, such as \"{}\"", with_example(first.0)),
            );
        }
    }
}

/// What an address with an interface looks like.
fn with_example(addr: SocketAddr) -> String {
    format!("[{}%eth0]:{}", addr.ip(), addr.port())
}
