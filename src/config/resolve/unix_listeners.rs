//! Frontends that listen at unix sockets: what cannot, and what has no effect there.

use std::{collections::BTreeMap, ops::Range};

use super::{keepalive, value};
use crate::{
    base::{Protocol, ServerAddr, SocketMode, SocketOptions, SocketPath, SocketRights},
    config::{
        findings::Findings,
        model::{Config, Frontend},
        raw,
        users::Users,
    },
};

/// Who may connect.
pub fn rights(own: &raw::FrontendOptions) -> SocketRights {
    SocketRights {
        mode: value(own.socket_mode.as_ref(), SocketMode::DEFAULT, |v| v),
        group: own.socket_group.as_ref().map(|at| at.value.0.clone()),
    }
}

/// Checks every frontend that listens at a path, against the others and against its servers.
pub fn check(file: &raw::File, config: &Config, users: &Users<'_>, findings: &mut Findings) {
    let mut taken: BTreeMap<SocketPath, (&str, Range<usize>)> = BTreeMap::new();
    let mut all: Vec<_> = file.frontends.iter().flat_map(|at| &at.value.0).collect();
    // of two that cannot be together the second is wrong
    all.sort_by_key(|(_, at)| at.key.start);
    for (name, at) in all {
        let Some(frontend) = config.frontends.get(name.as_str()) else {
            continue;
        };
        let own = &at.value;
        for (path, span) in own.listen_addr.iter().flat_map(|at| &at.value.1) {
            if let Some((other, first)) = taken.get(path) {
                clash(name, other, *path, (span, first), findings);
                continue;
            }
            taken.insert(*path, (name, span.clone()));
            let wrong = why_not(frontend).or_else(|| is_ours(config, *path));
            if let Some((why, help)) = wrong {
                findings.within_all(&["frontends", name, "listen_addr"], |findings| {
                    findings.error(
                        span.clone(),
                        format!("frontend `{name}` cannot listen at {path}{why}"),
                        help,
                    );
                });
            }
        }
        findings.within_all(&["frontends", name], |findings| {
            peers(frontend, &own.options, findings);
            without_effect(frontend, &own.options, findings);
        });
    }
    loops(file, config, users, findings);
}

fn clash(
    name: &str,
    other: &str,
    path: SocketPath,
    (span, first): (&Range<usize>, &Range<usize>),
    findings: &mut Findings,
) {
    let message = match name == other {
        true => format!("frontend `{name}` has the unix socket {path} twice"),
        false => format!("frontend `{name}` and frontend `{other}` have the same unix socket {path}"),
    };
    findings.clash(
        &["frontends", name, "listen_addr"],
        span.clone(),
        first.clone(),
        message,
        "two listeners cannot be at the same path: change or remove one",
    );
}

/// Why a frontend can listen at no path, and what to do.
fn why_not(frontend: &Frontend) -> Option<(String, String)> {
    if frontend.mode.is_packet() {
        return Some((
            format!(" in mode {}: no packets come by a unix socket", frontend.mode),
            "use mode = \"proxy\", or write the address that clients send to".to_owned(),
        ));
    }
    if frontend.protocol == Protocol::Udp {
        return Some((
            " with protocol udp: only streams come by a unix socket".to_owned(),
            "write an address of this host, such as \"127.0.0.1:53\" for programs on this host".to_owned(),
        ));
    }
    if let Some(range) = frontend.listen.iter().find(|range| range.is_several()) {
        return Some((
            format!(" beside {range}: a unix socket has no port that would lead to one of a server's"),
            "make a frontend of its own for it".to_owned(),
        ));
    }
    frontend.is_transparent().then(|| {
        (
            " with source = \"client\": its clients have no address that servers could see".to_owned(),
            "make a frontend of its own for it, or tell the servers by send_proxy = \"v2\"".to_owned(),
        )
    })
}

/// Whether the control socket is there.
fn is_ours(config: &Config, path: SocketPath) -> Option<(String, String)> {
    let is_control = config.admin.socket.as_deref() == Some(path.as_path());
    is_control.then(|| {
        (
            ": the control socket is there".to_owned(),
            "write another path, or move the control socket: [admin] socket".to_owned(),
        )
    })
}

/// Whether those who connect to the sockets may speak for clients.
fn peers(frontend: &Frontend, own: &raw::FrontendOptions, findings: &mut Findings) {
    let Some(proxy) = &frontend.proxy_protocol else {
        return;
    };
    let raw = own.proxy_protocol.as_ref();
    let from = raw.and_then(|at| at.value.from.as_ref());
    let name = &frontend.name;
    if let Some(span) = from.and_then(|at| at.value.1.clone())
        && frontend.sockets.is_empty()
    {
        findings.within_all(&["proxy_protocol", "from"], |findings| {
            findings.error(
                span,
                format!("`from` has \"unix\", and frontend `{name}` listens at no unix socket"),
                "write the networks of the load balancers in front of Convey, or add \"unix:/path\" to listen_addr".to_owned(),
            );
        });
    }
    let refuses_all = proxy.required && !proxy.unix;
    if let Some((path, at)) = frontend.sockets.first().zip(raw).filter(|_| refuses_all) {
        let span = from.map_or_else(|| at.key.clone(), |from| from.span.clone());
        findings.within_all(&["proxy_protocol", "from"], |findings| {
            findings.error(
                span,
                format!(
                    "every connection to {path} would be refused: `from` does not name those who make them"
                ),
                "add \"unix\" to it if they send a PROXY header, or write required = false".to_owned(),
            );
        });
    }
}

/// Keys of its own section that say nothing of its listeners.
fn without_effect(frontend: &Frontend, own: &raw::FrontendOptions, findings: &mut Findings) {
    let name = &frontend.name;
    if frontend.sockets.is_empty() {
        let rights = &frontend.socket_rights;
        let mode = own
            .socket_mode
            .as_ref()
            .filter(|_| rights.mode != SocketMode::DEFAULT);
        let keys = [
            ("socket_mode", mode.map(|at| at.key.clone())),
            ("socket_group", own.socket_group.as_ref().map(|at| at.key.clone())),
        ];
        let why = format!("frontend `{name}` listens at no unix socket");
        return warn(keys, &why, findings);
    }
    if !frontend.listen.is_empty() || frontend.mode.is_packet() || frontend.protocol == Protocol::Udp {
        return;
    }
    let set = |is_set: bool, key: Option<&Range<usize>>| key.filter(|_| is_set).cloned();
    let keepalive = frontend.client_keepalive != Some(keepalive::DEFAULT);
    let options = frontend.client_socket != SocketOptions::default();
    let by_network = frontend.limits.per_client.is_some();
    // those that a header names have addresses
    let speaks = frontend.proxy_protocol.is_some();
    let keys = [
        ("interface", set(true, own.interface.as_ref().map(|at| &at.key))),
        (
            "client_keepalive",
            set(keepalive, own.client_keepalive.as_ref().map(|at| &at.key)),
        ),
        (
            "tcp_fast_open",
            set(
                frontend.listener.fast_open,
                own.tcp_fast_open.as_ref().map(|at| &at.key),
            ),
        ),
        (
            "defer_accept",
            set(
                frontend.listener.defer_accept,
                own.defer_accept.as_ref().map(|at| &at.key),
            ),
        ),
        (
            "client_socket",
            set(options, own.client_socket.as_ref().map(|at| &at.key)),
        ),
    ];
    let why = format!("frontend `{name}` listens at unix sockets only");
    warn(keys, &why, findings);
    let per_client = own.limits.as_ref().and_then(|at| at.value.per_client.as_ref());
    if let Some(at) = per_client.filter(|_| by_network && !speaks) {
        let why = "clients of unix sockets have no address to be told apart by";
        findings.within("limits", |findings| {
            warn([("per_client", Some(at.key.clone()))], why, findings);
        });
    }
}

fn warn<const N: usize>(keys: [(&str, Option<Range<usize>>); N], why: &str, findings: &mut Findings) {
    for (key, span) in keys {
        let Some(span) = span else { continue };
        findings.within(key, |findings| {
            findings.warn(
                span,
                format!("`{key}` has no effect: {why}"),
                "remove it".to_owned(),
            );
        });
    }
}

/// Servers at which their own frontend listens.
fn loops(file: &raw::File, config: &Config, users: &Users<'_>, findings: &mut Findings) {
    for (name, at) in file.backends.iter().flat_map(|at| &at.value.0) {
        if !config.backends.contains_key(name.as_str()) {
            continue;
        }
        let users = users.of_backend(name);
        for (server, at) in at.value.servers.iter().flat_map(|at| &at.value.0) {
            let Some(addr) = at.value.fixed() else { continue };
            let ServerAddr::Unix(path) = addr.value else {
                continue;
            };
            let Some(user) = users.iter().find(|user| user.sockets.contains(&path)) else {
                continue;
            };
            findings.within_all(&["backends", name, "servers", server, "addr"], |findings| {
                findings.error(
                    addr.span.clone(),
                    format!(
                        "server `{server}` is the unix socket of frontend `{}`: connections would loop",
                        user.name
                    ),
                    "write the address of the server behind the load balancer".to_owned(),
                );
            });
        }
    }
}
