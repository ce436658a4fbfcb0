//! What only several sections together show: addresses taken twice, backends that serve nobody, and where a file of
//! 0.3.5 now means something else.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::Range,
};

use crate::{
    base::{Endpoint, Protocol, ServerAddr},
    config::{
        findings::Findings,
        model::{Backend, Config, Frontend},
        raw::{self, Section},
        users::Users,
    },
};

/// Checks the configuration as a whole.
pub fn check(file: &raw::File, config: &Config, users: &Users<'_>, findings: &mut Findings) {
    listen_addresses(file, config, findings);
    // What is missing may stand in what could not be read, so these wait for a file without errors.
    if findings.is_clean() {
        unused_backends(file, findings);
    }
    let Some(backends) = &file.backends else { return };
    findings.within("backends", |findings| {
        for (name, at) in &backends.value.0 {
            if let Some(backend) = config.backends.get(name.as_str()) {
                findings.within(name, |findings| {
                    servers(at, backend, users.of_backend(name), findings);
                });
            }
        }
    });
    random_to_round_robin(file, config, users, findings);
}

/// What is listened on, by whom, where that stands, and its key path.
type ListenPlace<'a> = (Endpoint, String, Range<usize>, [&'a str; 3]);

/// Every address may be listened on once for each protocol. A wildcard and a specific address on one port are two
/// different listeners: the kernel gives a connection to the more specific one, and never sees what is for a VIP.
fn listen_addresses(file: &raw::File, config: &Config, findings: &mut Findings) {
    let mut taken: HashMap<Endpoint, (String, Range<usize>)> = HashMap::new();
    let mut places: Vec<ListenPlace<'_>> = Vec::new();
    if let Some((at, port)) = file
        .stats
        .as_ref()
        .and_then(|at| Some((at, at.value.port.as_ref()?)))
    {
        let ip = at
            .value
            .listen_addr
            .as_ref()
            .map_or(IpAddr::from([127, 0, 0, 1]), |at| at.value);
        places.push((
            Endpoint::tcp((ip, port.value.number).into()),
            "[stats]".to_owned(),
            port.span.clone(),
            ["stats", "port", ""],
        ));
    }
    for (name, at) in file.frontends.iter().flat_map(|at| &at.value.0) {
        let frontend = config.frontends.get(name.as_str());
        let own = at.value.options.protocol.as_ref().map(|at| at.value);
        let protocol = frontend.map_or(own.unwrap_or(Protocol::Tcp), |frontend| frontend.protocol);
        for (addr, span) in at.value.listen_addr.iter().flat_map(|at| &at.value.0) {
            places.push((
                Endpoint {
                    addr: *addr,
                    protocol,
                },
                format!("frontend `{name}`"),
                span.clone(),
                ["frontends", name, "listen_addr"],
            ));
        }
    }
    places.sort_by_key(|(_, _, span, _)| span.start);
    for (endpoint, owner, span, path) in places {
        let Some((other, first)) = taken.get(&endpoint) else {
            taken.insert(endpoint, (owner, span));
            continue;
        };
        let addr = endpoint.addr;
        let message = if *other == owner {
            format!("{owner} has the address {addr} twice")
        } else {
            format!("{owner} and {other} have the same address {addr}")
        };
        findings.clash(
            &path,
            span,
            first.clone(),
            message,
            "two listeners cannot use the same address: change or remove one",
        );
    }
}

fn unused_backends(file: &raw::File, findings: &mut Findings) {
    let used: HashSet<&str> = file
        .frontends
        .iter()
        .flat_map(|at| at.value.0.values())
        .filter_map(|at| at.value.backend.as_ref().map(|backend| backend.value.0.as_str()))
        .collect();
    findings.within("backends", |findings| {
        for (name, at) in file.backends.iter().flat_map(|at| &at.value.0) {
            if !used.contains(name.as_str()) {
                findings.within(name, |findings| {
                    findings.warn(
                        at.key.clone(),
                        format!("no frontend uses backend `{name}`"),
                        format!(
                            "name it in a frontend: backend = {}",
                            crate::config::quote::string(name)
                        ),
                    );
                });
            }
        }
    });
}

/// Servers that can never be used, or not as meant.
fn servers(at: &raw::Located<raw::Backend>, backend: &Backend, users: &[&Frontend], findings: &mut Findings) {
    let raw_servers = at.value.servers.as_ref().map(|at| &at.value.0);
    if raw_servers.is_none_or(BTreeMap::is_empty) {
        if findings.is_clean() {
            findings.warn(
                at.key.clone(),
                format!(
                    "backend `{}` has no servers, so connections to it are refused",
                    backend.name
                ),
                format!(
                    "add a section [backends.{}.servers.NAME] with addr = \"IP:port\"",
                    crate::config::quote::key(backend.name.as_str())
                ),
            );
        }
        return;
    }
    if !backend.servers.is_empty() && backend.servers.values().all(|server| server.weight == 0) {
        findings.warn(
            at.key.clone(),
            format!(
                "every server of backend `{}` has weight 0, so none will receive connections",
                backend.name
            ),
            "set the weight of at least one to 1 or more".to_owned(),
        );
    }
    let by_packets = users.iter().any(|frontend| frontend.mode.is_packet());
    let own_addresses: HashSet<SocketAddr> = (users.iter())
        .filter(|frontend| !frontend.mode.is_packet())
        .flat_map(|frontend| frontend.listen.iter().map(|listen| listen.0))
        .collect();
    let mut seen: HashMap<ServerAddr, (&str, Range<usize>)> = HashMap::new();
    let mut raw_servers: Vec<_> = raw_servers.into_iter().flatten().collect();
    raw_servers.sort_by_key(|(_, at)| at.key.start);
    for (name, at) in raw_servers {
        let Some(addr) = &at.value.addr else { continue };
        findings.within("servers", |findings| {
            findings.within(name, |findings| {
                findings.within("addr", |findings| {
                    if let Some((other, _)) = seen.get(&addr.value) {
                        findings.warn(
                            addr.span.clone(),
                            format!(
                                "servers `{other}` and `{name}` have the same address {}",
                                addr.value
                            ),
                            "it receives the share of both; raise the weight of one instead".to_owned(),
                        );
                    }
                    if reaches(addr.value, &own_addresses) {
                        findings.warn(
                            addr.span.clone(),
                            format!(
                                "server `{name}` is the address of its own frontend: connections would loop"
                            ),
                            "write the address of the server behind the load balancer".to_owned(),
                        );
                    } else if addr.value.0.ip().is_unspecified() && !by_packets {
                        findings.warn(
                            addr.span.clone(),
                            format!(
                                "{} as a server's address means this host itself",
                                addr.value.0.ip()
                            ),
                            "write the address of the server, or 127.0.0.1 or [::1] for this host".to_owned(),
                        );
                    }
                });
            });
        });
        seen.entry(addr.value).or_insert((name, addr.span.clone()));
    }
}

/// Whether a connection to a server's address surely ends at one of these listeners.
fn reaches(ServerAddr(server): ServerAddr, listeners: &HashSet<SocketAddr>) -> bool {
    let wildcard: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let is_local = server.ip().is_loopback() || server.ip().is_unspecified();
    listeners.contains(&server) || (is_local && listeners.contains(&(wildcard, server.port()).into()))
}

/// 0.3.5 chose servers at random by weight. Said once, where a file in its dialect leaves the choice to the default
/// and there is a choice.
fn random_to_round_robin(file: &raw::File, config: &Config, users: &Users<'_>, findings: &mut Findings) {
    let defaults = file
        .defaults
        .as_ref()
        .map(|at| at.value.backend.clone())
        .unwrap_or_default();
    let concerned = file
        .backends
        .iter()
        .flat_map(|at| &at.value.0)
        .filter(|(name, at)| {
            let options = at.value.options.clone().or(&defaults);
            let usable = config.backends.get(name.as_str()).is_some_and(|backend| {
                backend
                    .servers
                    .values()
                    .filter(|server| server.weight > 0)
                    .count()
                    > 1
            });
            options.balance.is_none()
                && at.value.options.health_check_interval.is_some()
                && usable
                && !users.are_only_packets(name)
        });
    let Some((name, at)) = concerned.min_by_key(|(_, at)| at.key.start) else {
        return;
    };
    let Some(interval) = &at.value.options.health_check_interval else {
        return;
    };
    findings.within("backends", |findings| {
        findings.within(name, |findings| {
            findings.warn(
                interval.key.clone(),
                "servers are chosen by weighted round robin; Convey 0.3.5, whose key this is, chose them at random by weight",
                "add balance = \"round_robin\" to confirm that, or balance = \"random\" for the old behaviour".to_owned(),
            );
        });
    });
}
