//! UDP in mode proxy: its sessions, and what TCP has and it has not.

use std::{num::NonZeroU32, ops::Range, sync::Arc, time::Duration};

use super::{int, limit, merged};
use crate::{
    base::{BackendName, Protocol},
    config::{
        findings::Findings,
        model::{Backend, Config, Frontend, Mode},
        raw::{self, Located, ProxyVersion},
        udp::UdpSessions,
        users::Users,
    },
};

/// As long as in the packet modes.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// At 60 s of idle time 270 new clients a second, for some 50 MB: socket, place in epoll and what is known of it are 3 KB.
const MAX_SESSIONS: NonZeroU32 = NonZeroU32::new(16_384).expect("not zero");

/// Longer than any datagram is.
const BUFFER_SIZE: u32 = 65_535;

type Section<'a> = Option<&'a Located<raw::Udp>>;

/// `udp` of a frontend; `None` where UDP is not proxied.
pub fn sessions(
    own: Section<'_>,
    defaults: Section<'_>,
    mode: Mode,
    protocol: Protocol,
) -> Option<UdpSessions> {
    if mode != Mode::Proxy || protocol != Protocol::Udp {
        return None;
    }
    let raw = merged(own, defaults);
    Some(UdpSessions {
        max_sessions: limit(raw.max_sessions.as_ref()).unwrap_or(MAX_SESSIONS),
        max_requests: limit(raw.max_requests.as_ref()),
        max_responses: limit(raw.max_responses.as_ref()),
        buffer_size: int(raw.buffer_size.as_ref(), BUFFER_SIZE),
    })
}

/// `idle_timeout` of a UDP frontend in mode proxy: never zero.
pub fn idle_timeout(
    own: &raw::FrontendOptions,
    defaults: &raw::FrontendOptions,
    findings: &mut Findings,
) -> Duration {
    let given = own.idle_timeout.as_ref().or(defaults.idle_timeout.as_ref());
    match given {
        Some(at) if at.value.0.is_zero() => {
            findings.within("idle_timeout", |findings| {
                findings.error(
                    at.span.clone(),
                    "`idle_timeout` cannot be 0 with protocol udp: nothing else ends a session",
                    "write a time such as \"60s\"".to_owned(),
                );
            });
            IDLE_TIMEOUT
        }
        Some(at) => at.value.0,
        None => IDLE_TIMEOUT,
    }
}

/// Checks what is meant for TCP, and what is meant for UDP where there is none.
pub fn check(file: &raw::File, config: &Config, users: &Users<'_>, findings: &mut Findings) {
    let frontends = file.frontends.iter().flat_map(|at| &at.value.0);
    for (name, at) in frontends {
        let Some(frontend) = config.frontends.get(name.as_str()) else {
            continue;
        };
        findings.within_all(&["frontends", name], |findings| {
            if frontend.has_sessions() {
                tcp_alone(&at.value, findings);
            } else if let Some(udp) = &at.value.options.udp {
                no_sessions(udp, frontend, findings);
            }
        });
    }
    for (name, at) in file.backends.iter().flat_map(|at| &at.value.0) {
        let user = users.of_backend(name).iter().find(|user| user.has_sessions());
        if let Some(user) = user {
            findings.within_all(&["backends", name], |findings| {
                version_1(file, &at.value, user, findings);
            });
        }
    }
}

/// Checks connect by TCP, which a server of a UDP service may not answer.
pub fn checked_by_tcp(
    at: &Located<raw::Backend>,
    backend: &Backend,
    users: &[&Frontend],
    findings: &mut Findings,
) {
    let own = &at.value.options;
    let decided = own.health_check.is_some() || own.health_check_interval.is_some();
    let udp = users.iter().find(|frontend| frontend.protocol == Protocol::Udp);
    if let Some(frontend) = udp.filter(|_| by_tcp(backend) && !decided) {
        findings.warn(
            at.key.clone(),
            format!(
                "servers of backend `{}` are checked by a TCP connect to the port that frontend `{}` serves by UDP",
                backend.name, frontend.name
            ),
            "if they do not listen on TCP too, turn the checks off: health_check.enabled = false; else set health_check.enabled = true".to_owned(),
        );
    }
}

/// Whether it has checks that connect.
fn by_tcp(backend: &Backend) -> bool {
    let check = backend.health_check.as_ref();
    check.is_some_and(|check| check.check.command().is_none() && check.check.protocol() == Protocol::Tcp)
}

/// `udp` where UDP is not proxied.
fn no_sessions(udp: &Located<raw::Udp>, frontend: &Frontend, findings: &mut Findings) {
    let why = match frontend.mode {
        Mode::Proxy => "with protocol tcp".to_owned(),
        mode => format!("in mode {mode}"),
    };
    findings.within("udp", |findings| {
        findings.warn(
            udp.key.clone(),
            format!("`udp` has no effect {why}"),
            "remove it: it is about the sessions of protocol \"udp\" in mode \"proxy\"".to_owned(),
        );
    });
}

/// What a frontend has that UDP cannot have.
fn tcp_alone(raw: &raw::Frontend, findings: &mut Findings) {
    let mut report = |key: &str, span: Range<usize>, why: &str, help: &str| {
        findings.within(key, |findings| {
            let message = format!("`{key}` does not work with protocol udp: {why}");
            findings.error(span, message, help.to_owned());
        });
    };
    if let Some(at) = &raw.options.tls {
        let help = "remove the section: DTLS and QUIC pass through to the servers as they come";
        report("tls", at.key.clone(), "TLS is spoken over TCP", help);
    }
    if let Some(at) = &raw.options.proxy_protocol {
        let help = "remove the section: each client is who its datagrams say";
        report(
            "proxy_protocol",
            at.key.clone(),
            "no header is read from datagrams",
            help,
        );
    }
    for (index, route) in raw.routes.iter().flat_map(|at| at.value.0.iter().enumerate()) {
        let named = [
            ("sni", route.value.sni.as_ref().map(|at| at.key.clone())),
            ("alpn", route.value.alpn.as_ref().map(|at| at.key.clone())),
        ];
        for (key, span) in named {
            let Some(span) = span else { continue };
            findings.within_all(&["routes", &index.to_string(), key], |findings| {
                findings.error(
                    span,
                    format!(
                        "`{key}` does not work with protocol udp: datagrams have no ClientHello that is read"
                    ),
                    "route by `source` or `destination`".to_owned(),
                );
            });
        }
    }
}

/// A header of version 1 is a line of TCP.
fn version_1(file: &raw::File, raw: &raw::Backend, user: &Frontend, findings: &mut Findings) {
    let defaults = file
        .defaults
        .as_ref()
        .and_then(|at| at.value.backend.send_proxy.as_ref());
    let given = raw.options.send_proxy.as_ref().or(defaults);
    if let Some(at) = given.filter(|at| at.value == ProxyVersion::V1) {
        findings.within("send_proxy", |findings| {
            findings.error(
                at.span.clone(),
                format!(
                    "`send_proxy` \"v1\" is for TCP alone, and frontend `{}` sends UDP to this backend",
                    user.name
                ),
                "write \"v2\", which stands before the first datagram of a session, or \"off\"".to_owned(),
            );
        });
    }
}

/// Turns the checks off of each backend that UDP frontends alone use, unless the file says that there are some: a check is a
/// TCP connect, which such a server need not answer.
pub fn without_checks(file: &raw::File, config: &mut Config) {
    let users = Users::of(config);
    let by_default = (file.defaults.as_ref()).and_then(|at| at.value.backend.health_check.as_ref());
    let wants = |at: &Located<raw::HealthCheck>| at.value.enabled.as_ref().is_some_and(|at| at.value);
    if by_default.is_some_and(wants) {
        return;
    }
    let unchecked: Vec<BackendName> = (file.backends.iter().flat_map(|at| &at.value.0))
        .filter(|(_, at)| {
            let own = &at.value.options;
            own.health_check.is_none() && own.health_check_interval.is_none()
        })
        .filter(|(name, _)| users.are_only_udp(name))
        .filter_map(|(name, _)| BackendName::new(name).ok())
        .collect();
    for name in unchecked {
        if let Some(backend) = config.backends.get_mut(&name).filter(|backend| by_tcp(backend)) {
            Arc::make_mut(backend).health_check = None;
        }
    }
}
