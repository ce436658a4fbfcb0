//! `kind` of `[backends.NAME.health_check]`, and what belongs to it.

use std::{collections::BTreeMap, num::NonZeroU16, ops::Range, time::Duration};

use super::{backend_tls, int, time, value};
use crate::{
    base::{Protocol, ServerName},
    config::{
        check_addr::CheckAddr,
        checks::{
            AgentCheck, Check, CheckKind, ExecCheck, HttpCheck, HttpMethod, Probe, StatusRange, TlsCheck,
        },
        commands::Command,
        duration,
        findings::Findings,
        model::Server,
        raw::{self, Located, Section as _},
        routing::SendProxy,
        tls::BackendTls,
    },
};

/// An agent is asked no more often without a word.
const OFTEN: Duration = Duration::from_millis(100);

/// Who a database is told to be asked by.
const USER: &str = "convey";

/// What the servers have to do: the backend's own kind, with the keys that it and `[defaults]` have for it.
pub fn kind(
    own: Option<&Located<raw::HealthCheck>>,
    defaults: Option<&Located<raw::HealthCheck>>,
    timeout: Duration,
    findings: &mut Findings,
) -> Check {
    let kind_of = |at: Option<&Located<raw::HealthCheck>>| at?.value.kind.as_ref().map(|kind| kind.value);
    let by_default = kind_of(defaults).unwrap_or(CheckKind::Tcp);
    let kind = kind_of(own).unwrap_or(by_default);
    if let Some(at) = own {
        findings.within("health_check", |findings| useless(&at.value, kind, findings));
    }
    let of = |at: Option<&Located<raw::HealthCheck>>| at.map(|at| at.value.clone()).unwrap_or_default();
    let raw = match kind == by_default {
        true => of(own).or(&of(defaults)),
        // keys there are of another kind
        false => of(own),
    };
    match kind {
        CheckKind::Tcp => Check::Tcp,
        CheckKind::Tls => Check::Tls(TlsCheck {
            min_days_left: int(raw.min_days_left.as_ref(), 0),
        }),
        CheckKind::Probe => {
            let place = own.or(defaults).map_or(0..0, |at| at.key.clone());
            Check::Probe(findings.within("health_check", |findings| probe(&raw, place, findings)))
        }
        CheckKind::Http => Check::Http(findings.within("health_check", |findings| http(&raw, findings))),
        CheckKind::Exec => {
            let place = own.or(defaults).map_or(0..0, |at| at.key.clone());
            findings.within("health_check", |findings| exec(&raw, timeout, place, findings))
        }
        CheckKind::Redis => Check::Redis,
        CheckKind::Postgresql => Check::Postgresql {
            user: value(raw.user.as_ref(), USER.to_owned(), |v| v.0),
        },
        CheckKind::Mysql => Check::Mysql,
        CheckKind::Smtp => Check::Smtp,
        CheckKind::Dns => Check::Dns {
            name: value(raw.name.as_ref(), None, |v| Some(v.0)),
        },
        CheckKind::Ntp => Check::Ntp,
    }
}

/// Without a command the file does not load.
fn exec(raw: &raw::HealthCheck, timeout: Duration, place: Range<usize>, findings: &mut Findings) -> Check {
    if raw.command.is_none() && findings.absence_counts() {
        let help = "kind \"exec\" needs it: command = [\"/usr/local/bin/check\", \"$host\", \"$port\"]";
        findings.error(place, "missing key `command`", help.to_owned());
    }
    match value(raw.command.as_ref(), None, |v| v.0) {
        Some(line) => Check::Exec(ExecCheck {
            command: Command {
                line: line.0,
                timeout,
            },
            expect: value(raw.expect.as_ref(), None, |v| v.0),
        }),
        None => Check::Tcp,
    }
}

fn http(raw: &raw::HealthCheck, findings: &mut Findings) -> HttpCheck {
    let check = HttpCheck {
        method: value(raw.method.as_ref(), HttpMethod::Get, |v| v),
        path: value(raw.path.as_ref(), "/".into(), |v| v.0.into()),
        host: value(raw.host.as_ref(), None, |v| Some(v.0.into())),
        status: value(raw.status.as_ref(), vec![StatusRange::DEFAULT], |v| v.0),
        expect: value(raw.expect.as_ref(), None, |v| v.0),
    };
    if let Some(at) = raw.expect.as_ref().filter(|_| check.method == HttpMethod::Head) {
        findings.within("expect", |findings| {
            findings.error(
                at.key.clone(),
                "`expect` looks into the body, which an answer to HEAD does not have",
                "write method = \"GET\", or remove the key".to_owned(),
            );
        });
    }
    check
}

fn probe(raw: &raw::HealthCheck, place: Range<usize>, findings: &mut Findings) -> Probe {
    let probe = Probe {
        protocol: value(raw.protocol.as_ref(), Protocol::Tcp, |v| v),
        send: value(raw.send.as_ref(), None, |v| v.0),
        expect: value(raw.expect.as_ref(), None, |v| v.0),
    };
    let missing = match (probe.protocol, &raw.send, &raw.expect) {
        (Protocol::Tcp, None, None) => Some(("`send` or `expect`", "expect = \"220 \"")),
        (Protocol::Udp, None, _) => Some(("`send`", "send = { hex = \"00ff\" }")),
        (Protocol::Tcp | Protocol::Udp, _, _) => None,
    };
    if let Some((keys, example)) = missing.filter(|_| findings.absence_counts()) {
        let by = match probe.protocol {
            Protocol::Tcp => "",
            Protocol::Udp => " by UDP",
        };
        findings.error(
            place,
            format!("missing key {keys}"),
            format!("kind \"probe\"{by} needs it, such as {example}"),
        );
    }
    probe
}

/// Says which keys of `[defaults.health_check]` are of another kind than it names.
pub fn check_defaults(at: Option<&Located<raw::HealthCheck>>, findings: &mut Findings) {
    let Some(at) = at else { return };
    let kind = value(at.value.kind.as_ref(), CheckKind::Tcp, |v| v);
    findings.within("health_check", |findings| useless(&at.value, kind, findings));
}

/// The TLS of the checks, where they have one of their own; says where kind and TLS do not belong together.
pub fn tls(
    own: Option<&Located<raw::HealthCheck>>,
    defaults: Option<&Located<raw::HealthCheck>>,
    merged: &raw::HealthCheck,
    check: &Check,
    backend_has_tls: bool,
    servers: &BTreeMap<ServerName, Server>,
    findings: &mut Findings,
) -> Option<BackendTls> {
    findings.within("health_check", |findings| {
        let of = backend_tls::of_checks(merged.tls.as_ref(), servers, findings);
        let mine = own.and_then(|at| at.value.tls.as_ref());
        if let Some(at) = mine.filter(|_| !check.may_be_over_tls()) {
            let kind = check.kind().label();
            findings.within("tls", |findings| {
                findings.error(
                    at.key.clone(),
                    format!("a check of kind \"{kind}\" does not go over TLS"),
                    "remove the section, or check by kind = \"tls\" or \"http\"".to_owned(),
                );
            });
        }
        if let (Check::Tls(_), None, false) = (check, &of, backend_has_tls) {
            let asked = own.and_then(|at| at.value.kind.as_ref());
            let section = own.or(defaults).map_or(0..0, |at| at.key.clone());
            findings.error(
                asked.map_or(section, |kind| kind.span.clone()),
                "nothing says whom a server's certificate has to name",
                "add tls = { server_name = \"www.example.com\" } to this section, with ca = \"/etc/convey/certificates/ca.pem\" \
                 where the CA is your own; or tls = { verify = false } for a handshake alone"
                    .to_owned(),
            );
        }
        of.filter(|_| check.may_be_over_tls())
    })
}

/// `agent_check` of a backend that has the section.
pub fn agent(
    at: Option<&Located<raw::AgentCheck>>,
    servers: &BTreeMap<ServerName, Server>,
    findings: &mut Findings,
) -> Option<AgentCheck> {
    let at = at?;
    let raw = &at.value;
    if let Some(server) = servers.values().find(|server| hears_of_no_port(server)) {
        findings.within("agent_check", |findings| {
            findings.error(
                at.key.clone(),
                format!(
                    "server `{}` is a unix socket, where no agent listens",
                    server.name
                ),
                "add check_addr = \"127.0.0.1\" to that server, or put it in a backend of its own".to_owned(),
            );
        });
    }
    let second = Duration::from_secs(1);
    let interval = time(raw.interval.as_ref(), 2 * second);
    if let Some(asked) = raw.interval.as_ref().filter(|_| interval < OFTEN) {
        findings.within_all(&["agent_check", "interval"], |findings| {
            findings.warn(
                asked.span.clone(),
                "each question is a connection of its own, and this asks every server more than ten times a second",
                format!("write {} or more", duration::print(OFTEN)),
            );
        });
    }
    Some(AgentCheck {
        port: NonZeroU16::new(int(raw.port.as_ref(), 0))?,
        send: value(raw.send.as_ref(), None, |v| v.0),
        interval,
        timeout: time(raw.timeout.as_ref(), interval.min(second)),
    })
}

/// Says where the checks' own source address is of another family than what they go to.
pub fn source(
    own: Option<&Located<raw::HealthCheck>>,
    servers: &BTreeMap<ServerName, Server>,
    findings: &mut Findings,
) {
    let Some(at) = own.and_then(|at| at.value.source_addr.as_ref()) else {
        return;
    };
    let is_other = |server: &&Server| {
        let target = CheckAddr::target(server.check_addr, server.addr, None);
        target.ip().is_some_and(|ip| ip.is_ipv4() != at.value.is_ipv4())
    };
    if let Some(server) = servers.values().find(is_other) {
        findings.within_all(&["health_check", "source_addr"], |findings| {
            findings.error(
                at.span.clone(),
                format!(
                    "`source_addr` is {}, which does not reach server `{}`, of the other family",
                    at.value, server.name
                ),
                "put servers of the other family in a backend of their own".to_owned(),
            );
        });
    }
}

/// Whether only a path leads to it.
fn hears_of_no_port(server: &Server) -> bool {
    server.addr.is_unix() && server.check_addr.is_none()
}

/// Says what has no effect where servers are not checked.
pub fn off(
    own: Option<&Located<raw::HealthCheck>>,
    servers: Option<&Located<raw::Named<raw::Server>>>,
    has_agent: bool,
    findings: &mut Findings,
) {
    let help = || "remove it, or turn the checks on: health_check.enabled = true".to_owned();
    let share = own.and_then(|at| at.value.share.as_ref());
    if let Some(at) = share.filter(|at| at.value) {
        findings.within_all(&["health_check", "share"], |findings| {
            findings.warn(at.key.clone(), "`share` has no effect with checks off", help());
        });
    }
    for (name, at) in servers.iter().flat_map(|at| &at.value.0) {
        // an agent is asked there, too
        if let Some(at) = at.value.check_addr.as_ref().filter(|_| !has_agent) {
            findings.within_all(&["servers", name, "check_addr"], |findings| {
                findings.warn(
                    at.key.clone(),
                    "`check_addr` has no effect with checks off",
                    help(),
                );
            });
        }
    }
}

/// The place of a key whose value is one.
fn given<T>(at: Option<&Located<raw::Given<T>>>) -> Option<&Range<usize>> {
    at.filter(|at| at.value.0.is_some()).map(|at| &at.key)
}

/// A key, the kinds that have it, and where it is.
type OfKinds<'a> = (&'static str, &'static [CheckKind], Option<&'a Range<usize>>);

/// Keys of other kinds.
fn useless(raw: &raw::HealthCheck, kind: CheckKind, findings: &mut Findings) {
    use CheckKind::{Dns, Exec, Http, Postgresql, Probe, Tls};
    let keys: [OfKinds<'_>; 11] = [
        (
            "min_days_left",
            &[Tls],
            raw.min_days_left.as_ref().map(|at| &at.key),
        ),
        ("protocol", &[Probe], raw.protocol.as_ref().map(|at| &at.key)),
        ("send", &[Probe], given(raw.send.as_ref())),
        ("command", &[Exec], given(raw.command.as_ref())),
        ("expect", &[Probe, Http, Exec], given(raw.expect.as_ref())),
        ("method", &[Http], raw.method.as_ref().map(|at| &at.key)),
        ("path", &[Http], raw.path.as_ref().map(|at| &at.key)),
        ("host", &[Http], raw.host.as_ref().map(|at| &at.key)),
        ("status", &[Http], raw.status.as_ref().map(|at| &at.key)),
        ("user", &[Postgresql], raw.user.as_ref().map(|at| &at.key)),
        ("name", &[Dns], raw.name.as_ref().map(|at| &at.key)),
    ];
    for (key, of, place) in keys {
        if let Some(place) = place.filter(|_| !of.contains(&kind)) {
            let kinds: Vec<_> = of.iter().map(|kind| format!("\"{}\"", kind.label())).collect();
            let kinds = kinds.join(" or ");
            findings.within(key, |findings| {
                findings.error(
                    place.clone(),
                    format!("`{key}` belongs to kind {kinds}"),
                    format!("leave it out, or write kind = {kinds}"),
                );
            });
        }
    }
}

/// Says what cannot be done by a check of this kind: datagrams go to no unix socket, and have no header of version 1.
pub fn check_way(
    own: Option<&Located<raw::HealthCheck>>,
    check: &Check,
    header: Option<SendProxy>,
    servers: &BTreeMap<ServerName, Server>,
    findings: &mut Findings,
) {
    let Some(at) = own else { return };
    let is_udp = check.protocol() == Protocol::Udp;
    let unix = servers.values().find(|server| hears_of_no_port(server));
    findings.within("health_check", |findings| {
        let kind = at.value.protocol.as_ref().map(|at| &at.key);
        let kind = kind
            .or(at.value.kind.as_ref().map(|at| &at.key))
            .unwrap_or(&at.key);
        if let Some(server) = unix.filter(|_| is_udp) {
            findings.error(
                kind.clone(),
                format!(
                    "server `{}` is a unix socket, which no check by UDP reaches",
                    server.name
                ),
                "check it by TCP: kind = \"probe\" or \"tcp\"".to_owned(),
            );
        }
        if let (Some(server), Some(port)) = (unix, &at.value.port) {
            findings.within("port", |findings| {
                findings.error(
                    port.key.clone(),
                    format!("server `{}` is a unix socket, which has no ports", server.name),
                    "remove the key, or put that server in a backend of its own".to_owned(),
                );
            });
        }
        let has_no_port = |server: &&Server| {
            let target = CheckAddr::target(server.check_addr, server.addr, None);
            server.check_addr.is_some() && target.is_unix() && at.value.port.is_none()
        };
        if let Some(server) = servers.values().find(has_no_port) {
            findings.error(
                kind.clone(),
                format!(
                    "`check_addr` of server `{}` has no port, and a unix socket has none either",
                    server.name
                ),
                "write check_addr = \"127.0.0.1:8080\", or `port` in this section".to_owned(),
            );
        }
        let is_exec = matches!(check, Check::Exec(_));
        if let Some(source) = at.value.source_addr.as_ref().filter(|_| is_exec) {
            findings.within("source_addr", |findings| {
                findings.error(
                    source.key.clone(),
                    "`source_addr` is for connections of Convey's own, and a command makes its own"
                        .to_owned(),
                    "remove it; tell the command by an argument of `command`".to_owned(),
                );
            });
        }
        if let Some(server) = unix.filter(|_| is_exec) {
            findings.error(
                kind.clone(),
                format!(
                    "server `{}` is a unix socket, which has no address for a command",
                    server.name
                ),
                "check it by another kind, or put it in a backend of its own".to_owned(),
            );
        }
        if is_exec && header.is_some() {
            findings.error(
                kind.clone(),
                "a command's checks cannot begin with a PROXY header",
                "write send_proxy = false in this section".to_owned(),
            );
        }
        if is_udp && header == Some(SendProxy::V1) {
            findings.error(
                kind.clone(),
                "checks by UDP cannot begin with a PROXY header of version 1",
                "write send_proxy = false in this section, or send_proxy = \"v2\" in the backend's"
                    .to_owned(),
            );
        }
    });
}
