//! Raw sections to the resolved configuration: defaults, references and everything that one value alone cannot show.

mod access;
mod acme;
mod admin;
mod backend;
mod backend_tls;
mod balancing;
mod checks;
mod circles;
mod conflicts;
mod connection_log;
mod connections;
mod discovery;
mod discovery_source;
mod fallbacks;
mod global;
mod hooks;
mod keepalive;
mod local;
mod modes;
mod named_servers;
mod otlp;
mod packet;
mod platforms;
mod ranges;
mod reached;
mod routes;
mod routing;
mod socket;
mod socket_servers;
mod source;
mod source_service;
mod tls;
mod udp;
mod unix_listeners;
mod unused;

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use super::{
    Here, Options,
    findings::Findings,
    model::{AccessLog, Config, EngineChoice, Frontend, Mode, PacketModes, PortsPerClient, XdpMode},
    raw::{self, Located, Section, Time},
    users::Users,
    words::nearest,
};
use crate::base::{BackendName, FrontendName, NameError, Protocol};

/// Defaults that are needed in more than one place.
mod defaults {
    use std::time::Duration;

    pub const MAX_FLOWS: u32 = 1 << 20;
    /// Off: a half-closed connection whose other half is alive is an open connection.
    pub const FIN_TIMEOUT: Duration = Duration::ZERO;
    /// Off: nobody who works is interrupted unasked.
    pub const MAX_LIFETIME: Duration = Duration::ZERO;
    /// Off: it ends connections whose peer acknowledges every window probe (tcp(7)), which RFC 9293 section 3.8.6.1 keeps
    /// open.
    pub const TCP_USER_TIMEOUT: Duration = Duration::ZERO;
    pub const ACCESS_LOG_PER_SECOND: u32 = 1_000;
    pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
    pub const RETRIES: u32 = 2;
    pub const QUEUE_TIMEOUT: Duration = Duration::from_secs(5);
    pub const MAX_QUEUE: u32 = 1_024;
}

/// Makes the configuration. What cannot be used is reported and left out, so that everything else is checked too;
/// the result counts only if there are no errors.
pub fn resolve(file: &raw::File, options: Options, here: Option<&Here>, findings: &mut Findings) -> Config {
    let defaults = file
        .defaults
        .as_ref()
        .map(|at| at.value.clone())
        .unwrap_or_default();
    findings.within("defaults", |findings| {
        backend::check_dialects(&defaults.backend, findings);
        checks::check_defaults(defaults.backend.health_check.as_ref(), findings);
        routing::check_trust(defaults.frontend.proxy_protocol.as_ref(), findings);
    });
    two_names(file, findings);
    let packet_section = file.packet_section();
    let inherited = Inherited {
        defaults: &defaults.frontend,
        packet_section: packet_section.map_or("packet", |(name, _)| name),
        packet_idle: packet_section.and_then(|(_, at)| at.value.idle_timeout.as_ref()),
        default_mode: options.default_mode.unwrap_or(Mode::Proxy),
    };
    let backends: Rc<BTreeSet<String>> = (file.backends.iter())
        .flat_map(|at| at.value.0.keys().cloned())
        .collect::<BTreeSet<_>>()
        .into();
    let mut config = Config {
        global: global::global(file.global.as_ref().map(|at| &at.value), findings),
        admin: admin::admin(file.admin.as_ref(), options, findings),
        stats: file
            .stats
            .as_ref()
            .and_then(|at| admin::stats(&at.value, findings)),
        packet: packet_modes(packet_section, options),
        network_lists: access::lists(file, findings),
        hooks: hooks::hooks(file.hooks.as_ref().map(|at| &at.value), findings),
        acme: acme::acme(file.acme.as_ref(), findings),
        otlp: otlp::otlp(file.otlp.as_ref(), findings),
        backends: named(
            file.backends.as_ref(),
            "backends",
            BackendName::new,
            findings,
            |name, at, findings| {
                backend::backend(name, at, &defaults.backend, &backends, findings).map(Arc::new)
            },
        ),
        frontends: named(
            file.frontends.as_ref(),
            "frontends",
            FrontendName::new,
            findings,
            |name, at, findings| frontend(name, at, &inherited, &backends, findings).map(Arc::new),
        ),
    };
    fallbacks::check(file, findings);
    udp::without_checks(file, &mut config);
    let users = Users::of(&config);
    modes::check(file, &users, findings);
    udp::check(file, &config, &users, findings);
    source::check(file, &config, &users, findings);
    routes::check(file, &config, findings);
    acme::check(file, &config, findings);
    conflicts::check(file, &config, &users, findings);
    packet::check(file, &config, &users, findings);
    ranges::check(file, &config, &users, findings);
    access::check(file, &config, findings);
    if let Some(here) = here {
        local::check(file, &config, here, findings);
    }
    unused::check(file, &config, &users, findings);
    balancing::check(file, &config, &users, findings);
    socket_servers::check(file, &config, &users, findings);
    unix_listeners::check(file, &config, &users, findings);
    // what is wrong otherwise says more
    if findings.is_clean() {
        circles::check(file, &config, &users, findings);
    }
    connections::check(file, &config, findings);
    connection_log::check(file, &config, findings);
    otlp::check(file, &config, findings);
    unused::clear(&mut config);
    balancing::clear(&mut config);
    connections::clear(&mut config);
    connection_log::clear(&mut config);
    config
}

/// Where a frontend's settings come from besides its own section.
struct Inherited<'a> {
    /// `[defaults]`.
    defaults: &'a raw::FrontendOptions,
    /// What this file calls the section `[packet]`.
    packet_section: &'static str,
    /// `idle_timeout` of that section.
    packet_idle: Option<&'a Located<Time<false, { raw::YEAR }>>>,
    /// The mode of frontends that name none.
    default_mode: Mode,
}

/// Resolves every section of a table of named ones.
fn named<S, N: Ord + Clone, T>(
    sections: Option<&Located<raw::Named<S>>>,
    key: &str,
    new_name: impl Fn(&str) -> Result<N, NameError>,
    findings: &mut Findings,
    mut resolve: impl FnMut(N, &Located<S>, &mut Findings) -> Option<T>,
) -> BTreeMap<N, T> {
    let Some(sections) = sections else {
        return BTreeMap::new();
    };
    findings.within(key, |findings| {
        let sections = sections.value.0.iter();
        sections
            .filter_map(|(name, at)| {
                findings.within(name, |findings| match new_name(name) {
                    Ok(name) => resolve(name.clone(), at, findings).map(|resolved| (name, resolved)),
                    Err(error) => {
                        findings.error(
                            at.key.clone(),
                            error.to_string(),
                            "give it a short, printable name".to_owned(),
                        );
                        None
                    }
                })
            })
            .collect()
    })
}

/// A section with what `[defaults]` says of the keys that it lacks.
fn merged<S: Section + Clone>(own: Option<&Located<S>>, defaults: Option<&Located<S>>) -> S {
    let of = |at: Option<&Located<S>>| at.map(|at| at.value.clone()).unwrap_or_default();
    of(own).or(&of(defaults))
}

/// The value of a key, or its default.
fn value<T: Clone, U>(at: Option<&Located<T>>, default: U, convert: impl FnOnce(T) -> U) -> U {
    at.map_or(default, |at| convert(at.value.clone()))
}

/// The duration of a key, or its default.
fn time<const ZERO: bool, const MAX: u64>(
    at: Option<&Located<Time<ZERO, MAX>>>,
    default: Duration,
) -> Duration {
    value(at, default, |time| time.0)
}

/// The duration of a key where zero means never.
fn time_or_never<const MAX: u64>(
    at: Option<&Located<Time<true, MAX>>>,
    default: Duration,
) -> Option<Duration> {
    Some(time(at, default)).filter(|time| !time.is_zero())
}

/// An integer of a key as the model has it. The reader has checked its bounds, so the default stands for nothing else
/// than a missing key.
fn int<T: TryFrom<u64>, const MIN: u64, const MAX: u64>(
    at: Option<&Located<raw::Int<MIN, MAX>>>,
    default: T,
) -> T {
    at.and_then(|at| T::try_from(at.value.0).ok()).unwrap_or(default)
}

/// As [`int`], of a key that has no default.
fn limit<const MIN: u64, const MAX: u64>(at: Option<&Located<raw::Int<MIN, MAX>>>) -> Option<NonZeroU32> {
    NonZeroU32::new(int(at, 0))
}

/// Refuses the two names of one section in one file.
fn two_names(file: &raw::File, findings: &mut Findings) {
    let (Some(packet), Some(passthrough)) = (&file.packet, &file.passthrough) else {
        return;
    };
    let mut places = [("packet", &packet.key), ("passthrough", &passthrough.key)];
    places.sort_by_key(|(_, key)| key.start);
    let [(_, first), (name, second)] = places;
    findings.clash(
        &[name],
        second.clone(),
        first.clone(),
        "[passthrough] and [packet] are two names of one section".to_owned(),
        "keep [packet] with the keys of both; [passthrough] is its name in Convey 0.3.5",
    );
}

fn packet_modes(section: Option<(&'static str, &Located<raw::Packet>)>, options: Options) -> PacketModes {
    let raw = section.map_or_else(raw::Packet::default, |(_, at)| at.value.clone());
    let capacity = raw.connection_tracker_capacity.as_ref().map(|at| at.value.0);
    let floor = u32::try_from(capacity.unwrap_or(0).min(raw::MAX_FLOWS)).unwrap_or(u32::MAX);
    let max_flows = int(raw.max_flows.as_ref(), defaults::MAX_FLOWS);
    PacketModes {
        engine: value(raw.engine.as_ref(), EngineChoice::Auto, |v| v),
        xdp_mode: value(raw.xdp_mode.as_ref(), XdpMode::Auto, |v| v),
        workers: value(raw.workers.as_ref(), None, |v| v.0),
        max_flows: NonZeroU32::new(max_flows.max(floor)).unwrap_or(NonZeroU32::MIN),
        nat_ports: value(
            raw.nat_ports.as_ref(),
            options.default_nat_ports.unwrap_or_default(),
            |v| v,
        ),
        any_interface: value(raw.any_interface.as_ref(), false, |v| v),
        max_ports_per_client: value(
            raw.max_ports_per_client.as_ref(),
            PortsPerClient::default(),
            |v| v,
        ),
        nat_addresses: value(raw.nat_address.as_ref(), Vec::new(), |nat| nat.0),
        connection_tracker_capacity: capacity,
        stats_update_frequency: raw.stats_update_frequency.as_ref().map(|at| at.value.0),
    }
}

fn frontend(
    name: FrontendName,
    at: &Located<raw::Frontend>,
    inherited: &Inherited<'_>,
    backends: &Rc<BTreeSet<String>>,
    findings: &mut Findings,
) -> Option<Frontend> {
    let raw = &at.value;
    let own = raw.options.clone().or(inherited.defaults);
    let mode = value(own.mode.as_ref(), inherited.default_mode, |v| v);
    let protocol = value(own.protocol.as_ref(), Protocol::Tcp, |v| v);
    let has_sessions = protocol == Protocol::Udp && !mode.is_packet();
    let sockets = raw.listen_addr.iter().flat_map(|at| &at.value.1);
    let sockets = sockets.map(|(path, _)| *path).collect();
    let listen = raw.listen_addr.as_ref().map(|at| at.value.0.as_slice());
    let interface = own.interface.as_ref().filter(|_| !mode.is_packet());
    let listen = socket::listen_at(interface, listen.unwrap_or_default(), findings);
    let routing = routing::routing(raw, &own, mode, backends, findings);
    let proxy_protocol = routing::accept_proxy(
        raw.options.proxy_protocol.as_ref(),
        inherited.defaults.proxy_protocol.as_ref(),
        mode,
        findings,
    );
    let tls = tls::frontend_tls(
        raw.options.tls.as_ref(),
        inherited.defaults.tls.as_ref(),
        mode,
        findings,
    );
    routing::check_trust(raw.options.proxy_protocol.as_ref(), findings);
    let udp = udp::sessions(
        raw.options.udp.as_ref(),
        inherited.defaults.udp.as_ref(),
        mode,
        protocol,
    );
    let idle_timeout = if mode.is_packet() {
        Some(packet_idle(&raw.options, inherited, mode, protocol, findings))
    } else if has_sessions {
        Some(udp::idle_timeout(&raw.options, inherited.defaults, findings))
    } else {
        time_or_never(own.idle_timeout.as_ref(), Duration::from_secs(600))
    };
    let (backend, routing) = routing?;
    Some(Frontend {
        name,
        listen,
        sockets,
        socket_rights: unix_listeners::rights(&own),
        mode,
        protocol,
        interface: own.interface.as_ref().map(|at| at.value.0.clone()),
        backend,
        routing,
        tls: tls.filter(|_| !has_sessions),
        proxy_protocol: proxy_protocol.filter(|_| !has_sessions),
        udp,
        source: source::of(own.source.as_ref(), mode),
        max_connections: limit(own.max_connections.as_ref()),
        idle_timeout,
        fin_timeout: time_or_never(own.fin_timeout.as_ref(), defaults::FIN_TIMEOUT),
        max_lifetime: time_or_never(own.max_lifetime.as_ref(), defaults::MAX_LIFETIME),
        tcp_user_timeout: time_or_never(own.tcp_user_timeout.as_ref(), defaults::TCP_USER_TIMEOUT),
        client_keepalive: keepalive::keepalive(
            raw.options.client_keepalive.as_ref(),
            inherited.defaults.client_keepalive.as_ref(),
        ),
        listener: connections::listener(&own),
        rates: connections::rates(&own),
        client_socket: socket::options(
            raw.options.client_socket.as_ref(),
            inherited.defaults.client_socket.as_ref(),
        ),
        access_log: value(own.access_log.as_ref(), AccessLog::All, |v| v),
        connection_log: connection_log::connection_log(
            raw.options.connection_log.as_ref(),
            inherited.defaults.connection_log.as_ref(),
        ),
        access: access::rules(own.access.as_ref()),
        limits: access::limits(own.limits.as_ref()),
    })
}

/// `idle_timeout` in a packet mode: the frontend's own, then `[packet]`'s, then `[defaults]`', never zero.
fn packet_idle(
    own: &raw::FrontendOptions,
    inherited: &Inherited<'_>,
    mode: Mode,
    protocol: Protocol,
    findings: &mut Findings,
) -> Duration {
    let defaults = inherited.defaults.idle_timeout.as_ref();
    let given = match (&own.idle_timeout, inherited.packet_idle) {
        (Some(own), _) => Some((own.value.0, &own.span)),
        (None, Some(at)) => Some((at.value.0, &at.span)),
        (None, None) => defaults.map(|at| (at.value.0, &at.span)),
    };
    let default = Duration::from_secs(match protocol {
        Protocol::Tcp => 900,
        Protocol::Udp => 60,
    });
    match given {
        Some((Duration::ZERO, span)) => {
            findings.within("idle_timeout", |findings| {
                findings.error(
                    span.clone(),
                    format!("`idle_timeout` cannot be 0 in mode {mode}: a flow whose end is not seen would never expire"),
                    format!(
                        "write a time such as \"1h\"; in [{}] it applies only to frontends in packet modes",
                        inherited.packet_section
                    ),
                );
            });
            default
        }
        Some((time, _)) => time,
        None => default,
    }
}

fn backend_name(
    at: &Located<raw::BackendRef>,
    known: &Rc<BTreeSet<String>>,
    findings: &mut Findings,
) -> Option<BackendName> {
    let wanted = &at.value.0;
    if known.contains(wanted) {
        return BackendName::new(wanted).ok();
    }
    if findings.absence_counts() {
        let message = format!("there is no backend \"{wanted}\"");
        let (wanted, known) = (wanted.clone(), Rc::clone(known));
        findings.error_with(at.span.clone(), message, move || near_backends(&wanted, &known));
    }
    None
}

/// Looks at every name, so only for a finding that is shown.
fn near_backends(wanted: &str, known: &BTreeSet<String>) -> String {
    match nearest(wanted, known.iter().map(String::as_str)) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None if known.is_empty() => format!(
            "there is no backend at all: add a section [backends.{}]",
            super::quote::key(wanted)
        ),
        None => {
            let some: Vec<_> = known.iter().take(20).map(String::as_str).collect();
            format!("backends here: {}", some.join(", "))
        }
    }
}
