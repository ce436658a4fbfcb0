//! Keys that are given but have no effect, because the mode does not look at them.
//!
//! Only what stands in a section of its own is warned about (what comes from `[defaults]` may be meant for others; an
//! inherited `balance` is named once), and only if it says something else than the default, so that a printed
//! configuration is not full of warnings.

use std::{collections::HashSet, ops::Range, sync::Arc};

use super::{connection_log, defaults, keepalive, packet, socket, udp};
use crate::{
    access::PerClient,
    base::{BackendName, Protocol, ServerSocketOptions, SocketOptions},
    config::{
        connection_log::ConnectionLog,
        findings::Findings,
        model::{AccessLog, Algorithm, Config, Frontend, Mode, OnDown},
        raw,
        routing::{Route, Routing},
        users::Users,
    },
};

/// A key with its place, if it is set to something else than its default.
type Set = Option<(&'static str, Range<usize>)>;

/// Warns about keys without effect.
pub fn check(file: &raw::File, config: &Config, users: &Users<'_>, findings: &mut Findings) {
    let with_hello = with_hello(config, users);
    findings.within("frontends", |findings| {
        for (name, at) in file.frontends.iter().flat_map(|at| &at.value.0) {
            if let Some(frontend) = config.frontends.get(name.as_str()) {
                findings.within(name, |findings| {
                    in_frontend(frontend, &at.value, findings);
                    let depends = with_hello.contains(name.as_str());
                    about_hello(frontend, depends, &at.value.options, findings);
                });
            }
        }
    });
    findings.within("backends", |findings| {
        for (name, at) in file.backends.iter().flat_map(|at| &at.value.0) {
            if let Some(backend) = config.backends.get(name.as_str()) {
                findings.within(name, |findings| {
                    if users.are_only_packets(name) {
                        in_backend(&at.value, findings);
                    } else if users.are_sessions(name) {
                        let why = "with protocol udp, and no frontend sends TCP to this backend";
                        let help =
                            "remove it: there are no connections to establish, and datagrams do not wait";
                        warn(connecting(&at.value.options), why, help, findings);
                    }
                    udp::checked_by_tcp(at, backend, users.of_backend(name), findings);
                });
            }
        }
    });
    balances_of_both(file, users, findings);
    inherited_balance(file, users, findings);
    packet::capacity(file, config, findings);
}

/// Puts what has no effect back to its default, so that the configuration says what is in effect.
pub fn clear(config: &mut Config) {
    for frontend in config.frontends.values_mut() {
        let Some(mut per_client) = frontend.limits.per_client else {
            continue;
        };
        if frontend.protocol == Protocol::Tcp {
            per_client.datagrams_per_second = None;
        }
        if frontend.tls.is_none() {
            per_client.handshakes_per_second = None;
        }
        if frontend.limits.per_client != Some(per_client) {
            let rest = Some(per_client).filter(|rest| *rest != PerClient::default());
            Arc::make_mut(frontend).limits.per_client = rest;
        }
    }
    for frontend in config.frontends.values_mut().filter(|f| f.has_sessions()) {
        let frontend = Arc::make_mut(frontend);
        frontend.fin_timeout = None;
        frontend.tcp_user_timeout = None;
        frontend.client_keepalive = Some(keepalive::DEFAULT);
    }
    for frontend in config.frontends.values_mut().filter(|f| f.mode.is_packet()) {
        let frontend = Arc::make_mut(frontend);
        frontend.max_connections = None;
        frontend.max_lifetime = None;
        frontend.fin_timeout = None;
        frontend.tcp_user_timeout = None;
        frontend.client_keepalive = Some(keepalive::DEFAULT);
        frontend.client_socket = SocketOptions::default();
        frontend.access_log = AccessLog::All;
        frontend.connection_log = ConnectionLog::default();
    }
    let users = Users::of(config);
    let with_hello: HashSet<String> = (with_hello(config, &users).into_iter())
        .map(str::to_owned)
        .collect();
    let by_packets_only: Vec<BackendName> = (config.backends.keys())
        .filter(|name| users.are_only_packets(name.as_str()))
        .cloned()
        .collect();
    let by_sessions: Vec<BackendName> = (config.backends.keys())
        .filter(|name| users.are_sessions(name.as_str()))
        .cloned()
        .collect();
    for name in by_sessions {
        let Some(backend) = config.backends.get_mut(&name) else {
            continue;
        };
        let backend = Arc::make_mut(backend);
        backend.connect_timeout = defaults::CONNECT_TIMEOUT;
        backend.queue_timeout = defaults::QUEUE_TIMEOUT;
        backend.max_queue = defaults::MAX_QUEUE;
        backend.server_keepalive = Some(keepalive::DEFAULT);
    }
    for name in by_packets_only {
        let Some(backend) = config.backends.get_mut(&name) else {
            continue;
        };
        let backend = Arc::make_mut(backend);
        backend.balance = Algorithm::Maglev;
        backend.connect_timeout = defaults::CONNECT_TIMEOUT;
        backend.retries = defaults::RETRIES;
        backend.queue_timeout = defaults::QUEUE_TIMEOUT;
        backend.max_queue = defaults::MAX_QUEUE;
        backend.server_keepalive = Some(keepalive::DEFAULT);
        backend.server_socket = ServerSocketOptions::default();
        backend.on_down = OnDown::Keep;
        backend.send_proxy = None;
        if let Some(check) = &mut backend.health_check {
            check.send_proxy = false;
        }
        for server in backend.servers.values_mut() {
            server.max_connections = None;
        }
    }
    for frontend in config.frontends.values_mut() {
        let (depends, ends_here) = (
            with_hello.contains(frontend.name.as_str()),
            frontend.tls.is_some(),
        );
        let (routing, default) = (&mut Arc::make_mut(frontend).routing, Routing::default());
        if !depends {
            routing.unexpected_sni = default.unexpected_sni;
        }
        if !depends || ends_here {
            routing.non_tls = default.non_tls;
            routing.client_hello_timeout = default.client_hello_timeout;
        }
    }
}

/// The frontends of which something depends on the ClientHello.
fn with_hello<'a>(config: &'a Config, users: &Users<'a>) -> HashSet<&'a str> {
    let by_route = (config.frontends.values())
        .filter(|frontend| frontend.routing.routes.iter().any(Route::needs_hello))
        .map(|frontend| frontend.name.as_str());
    let by_server = (config.backends.values())
        .filter(|backend| {
            backend.discovery.is_some() || backend.servers.values().any(|server| !server.sni.is_empty())
        })
        .flat_map(|backend| users.of_backend(backend.name.as_str()))
        .filter(|frontend| !frontend.mode.is_packet() && !frontend.has_sessions())
        .map(|frontend| frontend.name.as_str());
    by_route.chain(by_server).collect()
}

/// The key if it says something else than its default.
fn unless<T: Clone, U: PartialEq>(
    key: &'static str,
    at: Option<&raw::Located<T>>,
    value: impl FnOnce(T) -> U,
    default: &U,
) -> Set {
    let at = at?;
    (value(at.value.clone()) != *default).then(|| (key, at.key.clone()))
}

fn warn(set: impl IntoIterator<Item = Set>, why: &str, help: &str, findings: &mut Findings) {
    for (key, span) in set.into_iter().flatten() {
        findings.within(key, |findings| {
            findings.warn(span, format!("`{key}` has no effect {why}"), help.to_owned());
        });
    }
}

/// A limit of datagrams where there are none, and of handshakes where nobody shakes hands.
fn per_client(frontend: &Frontend, own: &raw::FrontendOptions, findings: &mut Findings) {
    let Some(at) = own.limits.as_ref().and_then(|at| at.value.per_client.as_ref()) else {
        return;
    };
    let datagrams = at.value.datagrams_per_second.as_ref();
    let handshakes = at.value.handshakes_per_second.as_ref();
    let is_tcp = frontend.protocol == Protocol::Tcp;
    let ends_no_tls = frontend.tls.is_none() && own.tls.is_none();
    findings.within_all(&["limits", "per_client"], |findings| {
        warn(
            [datagrams
                .filter(|_| is_tcp)
                .map(|at| ("datagrams_per_second", at.key.clone()))],
            "with protocol tcp",
            "remove it, or set new_per_second, which limits connections",
            findings,
        );
        warn(
            [handshakes
                .filter(|_| ends_no_tls)
                .map(|at| ("handshakes_per_second", at.key.clone()))],
            "where TLS does not end at the frontend",
            "remove it, or add a section [frontends.NAME.tls]; new_per_second limits connections",
            findings,
        );
    });
}

fn in_frontend(frontend: &Frontend, raw: &raw::Frontend, findings: &mut Findings) {
    let own = &raw.options;
    per_client(frontend, own, findings);
    if frontend.mode == Mode::Proxy {
        if frontend.protocol == Protocol::Udp {
            let help = "remove it: it is about TCP";
            warn(of_tcp(own), "with protocol udp", help, findings);
        }
        return;
    }
    let set = [
        unless(
            "max_connections",
            own.max_connections.as_ref(),
            |v| v.0 > 0,
            &false,
        ),
        unless("access_log", own.access_log.as_ref(), |v| v, &AccessLog::All),
        unless(
            "connection_log",
            own.connection_log.as_ref(),
            |v| connection_log::says(&v),
            &ConnectionLog::default(),
        ),
        unless(
            "max_lifetime",
            own.max_lifetime.as_ref(),
            |v| v.0,
            &defaults::MAX_LIFETIME,
        ),
        unless(
            "client_socket",
            own.client_socket.as_ref(),
            |v| socket::says(&v),
            &SocketOptions::default(),
        ),
    ];
    let why = format!("in mode {}", frontend.mode);
    warn(
        set.into_iter().chain(of_tcp(own)),
        &why,
        "remove it: packets are forwarded, there are no connections to apply it to",
        findings,
    );
}

/// What is about TCP connections of clients.
fn of_tcp(own: &raw::FrontendOptions) -> [Set; 3] {
    [
        unless(
            "fin_timeout",
            own.fin_timeout.as_ref(),
            |v| v.0,
            &defaults::FIN_TIMEOUT,
        ),
        unless(
            "tcp_user_timeout",
            own.tcp_user_timeout.as_ref(),
            |v| v.0,
            &defaults::TCP_USER_TIMEOUT,
        ),
        unless(
            "client_keepalive",
            own.client_keepalive.as_ref(),
            |v| keepalive::says(&v),
            &Some(keepalive::DEFAULT),
        ),
    ]
}

/// What is about establishing connections to servers.
fn connecting(own: &raw::BackendOptions) -> [Set; 4] {
    [
        unless(
            "connect_timeout",
            own.connect_timeout.as_ref(),
            |v| v.0,
            &defaults::CONNECT_TIMEOUT,
        ),
        unless(
            "server_keepalive",
            own.server_keepalive.as_ref(),
            |v| keepalive::says(&v),
            &Some(keepalive::DEFAULT),
        ),
        unless(
            "queue_timeout",
            own.queue_timeout.as_ref(),
            |v| v.0,
            &defaults::QUEUE_TIMEOUT,
        ),
        unless(
            "max_queue",
            own.max_queue.as_ref(),
            |v| v.0,
            &u64::from(defaults::MAX_QUEUE),
        ),
    ]
}

/// What is about the ClientHello where nothing `depends` on it, or TLS ends here.
fn about_hello(frontend: &Frontend, depends: bool, own: &raw::FrontendOptions, findings: &mut Findings) {
    let default = Routing::default();
    let unexpected_sni = unless(
        "unexpected_sni",
        own.unexpected_sni.as_ref(),
        |v| v,
        &default.unexpected_sni,
    );
    let reading = [
        unless("non_tls", own.non_tls.as_ref(), |v| v, &default.non_tls),
        unless(
            "client_hello_timeout",
            own.client_hello_timeout.as_ref(),
            |v| v.0,
            &default.client_hello_timeout,
        ),
    ];
    let ends_here = frontend.tls.is_some();
    let (why, help) = match frontend.mode {
        Mode::Proxy => (
            "where no route and no server depends on the ClientHello".to_owned(),
            "remove it, or give a route `sni` or `alpn`, or a server `sni`",
        ),
        mode => (
            format!("in mode {mode}"),
            "remove it: packets are forwarded unread",
        ),
    };
    if !depends {
        warn([unexpected_sni], &why, help, findings);
    }
    if ends_here {
        let help =
            "remove it: a client that speaks no TLS fails its handshake, which handshake_timeout limits";
        warn(reading, "where TLS ends at the frontend", help, findings);
    } else if !depends {
        warn(reading, &why, help, findings);
    }
}

fn in_backend(raw: &raw::Backend, findings: &mut Findings) {
    let own = &raw.options;
    let why = "in packet modes, and no other frontend uses this backend";
    let balance = unless("balance", own.balance.as_ref(), |v| v, &Algorithm::Maglev);
    warn(
        [balance],
        why,
        "remove it: packet modes always choose by \"maglev\", with the servers' weights",
        findings,
    );
    let down = unless("on_down", own.on_down.as_ref(), |v| v, &OnDown::Keep);
    warn(
        [down],
        why,
        "remove it: flows of a server that goes down are reset (passthrough) or go to another one (dsr)",
        findings,
    );
    let retries = unless(
        "retries",
        own.retries.as_ref(),
        |v| v.0,
        &u64::from(defaults::RETRIES),
    );
    let socket = unless(
        "server_socket",
        own.server_socket.as_ref(),
        |v| socket::server_says(&v),
        &ServerSocketOptions::default(),
    );
    let set = connecting(own).into_iter().chain([retries, socket]);
    let help = "remove it: packets are forwarded, Convey makes no connections for its clients";
    warn(set, why, help, findings);
    findings.within("servers", |findings| {
        for (name, at) in raw.servers.iter().flat_map(|at| &at.value.0) {
            let max = at.value.max_connections.as_ref();
            findings.within(name, |findings| {
                warn(
                    [max.map(|at| ("max_connections", at.key.clone()))],
                    why,
                    help,
                    findings,
                );
            });
        }
    });
}

/// The key `balance`, if it names what packet modes do not do and is not just the default.
fn other_balance(options: &raw::BackendOptions) -> Option<&raw::Located<Algorithm>> {
    let given = options.balance.as_ref();
    given.filter(|at| !matches!(at.value, Algorithm::Maglev | Algorithm::RoundRobin))
}

/// `balance` of backends that frontends in mode proxy and in packet modes share.
fn balances_of_both(file: &raw::File, users: &Users<'_>, findings: &mut Findings) {
    for (name, at) in file.backends.iter().flat_map(|at| &at.value.0) {
        let Some(balance) = other_balance(&at.value.options).filter(|_| !users.are_only_packets(name)) else {
            continue;
        };
        let by_packets = users.of_backend(name).iter().find(|user| user.mode.is_packet());
        let Some(Frontend { name: user, mode, .. }) = by_packets.map(|user| &**user) else {
            continue;
        };
        findings.within("backends", |findings| {
            findings.within(name, |findings| {
                findings.within("balance", |findings| {
                    findings.warn(
                        balance.key.clone(),
                        format!(
                            "`balance` applies only to frontends in mode proxy: frontend `{user}` in mode {mode} chooses by \"maglev\""
                        ),
                        format!("give `{user}` a backend of its own, or write balance = \"maglev\" for all of them"),
                    );
                });
            });
        });
    }
}

/// `balance` of `[defaults]` where frontends in packet modes use backends without one of their own.
fn inherited_balance(file: &raw::File, users: &Users<'_>, findings: &mut Findings) {
    let Some(balance) = file
        .defaults
        .as_ref()
        .and_then(|at| other_balance(&at.value.backend))
    else {
        return;
    };
    let concerned: Vec<&Frontend> = (file.backends.iter().flat_map(|at| &at.value.0))
        .filter(|(_, at)| at.value.options.balance.is_none())
        .flat_map(|(name, _)| users.of_backend(name))
        .filter(|user| user.mode.is_packet())
        .copied()
        .collect();
    let Some(first) = concerned.first() else { return };
    let others = match concerned.len() - 1 {
        0 => String::new(),
        1 => " and one other".to_owned(),
        more => format!(" and {more} others"),
    };
    let (name, mode) = (&first.name, first.mode);
    findings.within("defaults", |findings| {
        findings.within("balance", |findings| {
            findings.warn(
                balance.key.clone(),
                format!("`balance` does not apply to frontend `{name}` in mode {mode}{others}: packet modes choose by \"maglev\""),
                format!(
                    "write it in the backends of the proxied frontends, or add balance = \"maglev\" to [backends.{}] to confirm that",
                    crate::config::quote::key(first.backend.as_str())
                ),
            );
        });
    });
}
