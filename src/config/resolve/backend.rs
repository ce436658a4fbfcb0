//! One backend: its checks, in the two dialects, and its servers.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    num::{NonZeroU16, NonZeroU32},
    rc::Rc,
    time::Duration,
};

use super::{
    backend_tls, balancing, checks, defaults, discovery::discovery, fallbacks::fallback, int,
    keepalive::keepalive, limit, merged, named, named_servers, routing, socket, time, value,
};
use crate::{
    base::{BackendName, ServerName},
    config::{
        checks::Check,
        discovery::Discovery,
        duration,
        findings::Findings,
        model::{Algorithm, Backend, DsrMethod, HealthCheck, InitialState, OnDown, PassiveCheck, Server},
        raw::{self, Located, Section as _},
        routing::SendProxy,
    },
};

/// Resolves a backend; `known` are the names of all.
pub fn backend(
    name: BackendName,
    at: &Located<raw::Backend>,
    defaults: &raw::BackendOptions,
    known: &Rc<BTreeSet<String>>,
    findings: &mut Findings,
) -> Option<Backend> {
    check_dialects(&at.value.options, findings);
    let send_proxy = routing::send_proxy(&at.value.options, defaults, findings);
    let own = at.value.options.clone().or(defaults);
    let passive = passive(&at.value.options, defaults, findings);
    let servers = named(
        at.value.servers.as_ref(),
        "servers",
        ServerName::new,
        findings,
        |name, at, _| server(name, &at.value),
    );
    let by_name = named_servers::named_servers(at.value.servers.as_ref(), findings);
    let source = discovery(at.value.discovery.as_ref(), findings);
    named_servers::beside(&by_name, at, findings);
    let checks = active(
        &at.value.options,
        defaults,
        send_proxy,
        at.value.tls.is_some(),
        &servers,
        findings,
    );
    if let Some(source) = &own.source_addr {
        check_source(&name, source, &servers, findings);
    }
    let server_socket = socket::server_options(
        at.value.options.server_socket.as_ref(),
        defaults.server_socket.as_ref(),
        &servers,
        findings,
    );
    let agent = checks::agent(at.value.agent_check.as_ref(), &servers, findings);
    if checks.is_none() {
        let own = at.value.options.health_check.as_ref();
        checks::off(own, at.value.servers.as_ref(), agent.is_some(), findings);
    }
    let fallback = fallback(&name, &at.value, known, findings);
    let tls = backend_tls::backend_tls(at.value.tls.as_ref(), &servers, findings);
    Some(Backend {
        name,
        balance: value(own.balance.as_ref(), Algorithm::RoundRobin, |v| v),
        hash_balance_factor: limit(own.hash_balance_factor.as_ref()),
        sticky: balancing::sticky(at.value.options.sticky.as_ref(), defaults.sticky.as_ref()),
        connect_timeout: time(own.connect_timeout.as_ref(), defaults::CONNECT_TIMEOUT),
        retries: int(own.retries.as_ref(), defaults::RETRIES),
        queue_timeout: time(own.queue_timeout.as_ref(), defaults::QUEUE_TIMEOUT),
        max_queue: int(own.max_queue.as_ref(), defaults::MAX_QUEUE),
        server_keepalive: keepalive(
            at.value.options.server_keepalive.as_ref(),
            defaults.server_keepalive.as_ref(),
        ),
        server_socket,
        source_addr: own.source_addr.as_ref().map(|at| at.value),
        health_check: checks,
        passive_check: passive,
        on_down: value(own.on_down.as_ref(), OnDown::Keep, |v| v),
        dsr_method: value(own.dsr_method.as_ref(), DsrMethod::Tc, |v| v),
        slow_start: time(own.slow_start.as_ref(), Duration::ZERO),
        fallback,
        send_proxy,
        tls,
        agent_check: agent,
        discovery: source.or_else(|| (!by_name.is_empty()).then(|| Discovery::of_names(by_name))),
        servers,
    })
}

/// Refuses both ways to write active checks in one section.
pub fn check_dialects(raw: &raw::BackendOptions, findings: &mut Findings) {
    if let (Some(interval), Some(_)) = (&raw.health_check_interval, &raw.health_check) {
        findings.within("health_check_interval", |findings| {
            findings.error(
                interval.key.clone(),
                "`health_check_interval` and `health_check` exclude each other",
                "both set the interval: keep `health_check` with `interval`, the newer form".to_owned(),
            );
        });
    }
}

/// Active checks. The nearer section decides the dialect: a backend's own `health_check_interval` replaces all of
/// `[defaults.health_check]`, and the other way round.
fn active(
    own: &raw::BackendOptions,
    defaults: &raw::BackendOptions,
    send_proxy: Option<SendProxy>,
    has_tls: bool,
    servers: &BTreeMap<ServerName, Server>,
    findings: &mut Findings,
) -> Option<HealthCheck> {
    let inherited = defaults
        .health_check_interval
        .as_ref()
        .filter(|_| own.health_check.is_none());
    let dialect = own.health_check_interval.as_ref().or(inherited);
    if let Some(interval) = dialect {
        return Some(as_in_0_3_5(interval.value.0));
    }
    let raw = merged(own.health_check.as_ref(), defaults.health_check.as_ref());
    if !value(raw.enabled.as_ref(), true, |v| v) {
        return None;
    }
    let second = Duration::from_secs(1);
    let interval = time(raw.interval.as_ref(), 2 * second);
    let fast_interval = time(raw.fast_interval.as_ref(), interval.min(second));
    if let Some(at) = raw.fast_interval.as_ref().filter(|_| fast_interval > interval) {
        findings.within("health_check", |findings| {
            findings.warn(
                at.span.clone(),
                format!(
                    "`fast_interval` is longer than `interval` ({})",
                    duration::print(interval)
                ),
                "while a server's state is changing it should be checked more often, not less".to_owned(),
            );
        });
    }
    let timeout = time(raw.timeout.as_ref(), interval.min(second));
    let check = checks::kind(
        own.health_check.as_ref(),
        defaults.health_check.as_ref(),
        timeout,
        findings,
    );
    let with_header = routing::checks_send_proxy(own.health_check.as_ref(), &raw, send_proxy, findings);
    let header = send_proxy.filter(|_| with_header);
    checks::check_way(own.health_check.as_ref(), &check, header, servers, findings);
    checks::source(own.health_check.as_ref(), servers, findings);
    let tls = checks::tls(
        own.health_check.as_ref(),
        defaults.health_check.as_ref(),
        &raw,
        &check,
        has_tls,
        servers,
        findings,
    );
    Some(HealthCheck {
        check,
        port: NonZeroU16::new(int(raw.port.as_ref(), 0)),
        source_addr: raw.source_addr.as_ref().map(|at| at.value),
        tls,
        interval,
        timeout,
        rise: NonZeroU32::new(int(raw.rise.as_ref(), 2)).unwrap_or(NonZeroU32::MIN),
        fall: NonZeroU32::new(int(raw.fall.as_ref(), 3)).unwrap_or(NonZeroU32::MIN),
        fast_interval,
        send_proxy: with_header,
        share: value(raw.share.as_ref(), false, |v| v),
        initial: value(raw.initial.as_ref(), InitialState::Check, |v| v),
    })
}

/// What `health_check_interval` meant in 0.3.5: servers start up, one result decides, a connect may take 3 s,
/// and 0 stands for 5 s.
fn as_in_0_3_5(interval: Duration) -> HealthCheck {
    let interval = if interval.is_zero() {
        Duration::from_secs(5)
    } else {
        interval
    };
    HealthCheck {
        check: Check::Tcp,
        port: None,
        source_addr: None,
        tls: None,
        interval,
        timeout: Duration::from_secs(3),
        rise: NonZeroU32::MIN,
        fall: NonZeroU32::MIN,
        fast_interval: interval,
        send_proxy: false,
        share: false,
        initial: InitialState::Up,
    }
}

fn passive(
    own: &raw::BackendOptions,
    defaults: &raw::BackendOptions,
    findings: &mut Findings,
) -> Option<PassiveCheck> {
    let raw = merged(own.passive_check.as_ref(), defaults.passive_check.as_ref());
    if !value(raw.enabled.as_ref(), true, |v| v) {
        return None;
    }
    let ejection_time = time(raw.ejection_time.as_ref(), Duration::from_secs(10));
    let max_ejection_time = time(
        raw.max_ejection_time.as_ref(),
        ejection_time.max(Duration::from_secs(300)),
    );
    if let Some(at) = raw
        .max_ejection_time
        .as_ref()
        .filter(|_| max_ejection_time < ejection_time)
    {
        findings.within("passive_check", |findings| {
            findings.error(
                at.span.clone(),
                format!(
                    "`max_ejection_time` is shorter than `ejection_time` ({})",
                    duration::print(ejection_time)
                ),
                "make it at least as long, or shorten `ejection_time`".to_owned(),
            );
        });
    }
    Some(PassiveCheck {
        max_failures: NonZeroU32::new(int(raw.max_failures.as_ref(), 3)).unwrap_or(NonZeroU32::MIN),
        ejection_time,
        max_ejection_time,
    })
}

fn server(name: ServerName, raw: &raw::Server) -> Option<Server> {
    Some(Server {
        name,
        addr: raw.fixed()?.value,
        weight: int(raw.weight.as_ref(), 1),
        priority: int(raw.priority.as_ref(), 1),
        max_connections: limit(raw.max_connections.as_ref()),
        sni: routing::names(raw.sni.as_ref()),
        check_addr: raw.check_addr.as_ref().map(|at| at.value),
    })
}

fn check_source(
    name: &BackendName,
    source: &Located<IpAddr>,
    servers: &BTreeMap<ServerName, Server>,
    findings: &mut Findings,
) {
    let family = |v4| if v4 { "IPv4" } else { "IPv6" };
    let other = servers
        .values()
        .filter_map(|server| Some((&server.name, server.addr.on_network()?)))
        .find(|(_, addr)| addr.0.is_ipv4() != source.value.is_ipv4());
    if let Some((server, addr)) = other {
        findings.within("source_addr", |findings| {
            findings.error(
                source.span.clone(),
                format!(
                    "`source_addr` is {}, but server `{server}` of backend `{name}` is {} ({addr})",
                    family(source.value.is_ipv4()),
                    family(addr.0.is_ipv4())
                ),
                "put servers of the other family in a backend of their own".to_owned(),
            );
        });
    }
    if source.value.is_unspecified() || source.value.is_multicast() {
        findings.within("source_addr", |findings| {
            findings.error(
                source.span.clone(),
                format!("{} cannot be a source address", source.value),
                "write an address of this host, or leave the key out to let the kernel choose".to_owned(),
            );
        });
    }
}
