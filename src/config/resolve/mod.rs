//! Raw sections to the resolved configuration: defaults, references and everything that one value alone cannot show.

mod backend;
mod conflicts;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    path::PathBuf,
    time::Duration,
};

use super::{
    Options,
    findings::Findings,
    model::{Admin, Config, EngineChoice, Frontend, Global, LogFormat, LogLevel, Mode, Passthrough, Stats},
    raw::{self, At, Section, Time},
    words::nearest,
};
use crate::base::{BackendName, FrontendName, ListenAddr, NameError, PortRange, Protocol};

/// Where the control socket is unless the file says otherwise.
const ADMIN_SOCKET: &str = "/run/convey/admin.sock";

/// `max_flows` unless the file says otherwise.
const DEFAULT_MAX_FLOWS: NonZeroU32 = NonZeroU32::new(1 << 20).unwrap();

/// Makes the configuration. What cannot be used is reported and left out, so that everything else is checked too;
/// the result counts only if there are no errors.
pub fn resolve(file: &raw::File, options: Options, findings: &mut Findings) -> Config {
    let defaults = file
        .defaults
        .as_ref()
        .map(|at| at.value.clone())
        .unwrap_or_default();
    findings.within("defaults", |findings| {
        check_mode(&defaults.frontend, findings);
        backend::check_dialects(&defaults.backend, findings);
    });
    let config = Config {
        global: global(file.global.as_ref().map(|at| &at.value)),
        admin: admin(file.admin.as_ref().map(|at| &at.value)),
        stats: file.stats.as_ref().and_then(|at| stats(&at.value, findings)),
        passthrough: passthrough(file.passthrough.as_ref().map(|at| &at.value)),
        backends: named(
            file.backends.as_ref(),
            "backends",
            BackendName::new,
            findings,
            |name, at, findings| backend::backend(name, at, &defaults.backend, findings),
        ),
        frontends: named(
            file.frontends.as_ref(),
            "frontends",
            FrontendName::new,
            findings,
            |name, at, findings| {
                frontend(
                    name,
                    at,
                    &defaults.frontend,
                    file.backends.as_ref(),
                    options,
                    findings,
                )
            },
        ),
    };
    conflicts::check(file, &config, findings);
    config
}

/// Resolves every section of a table of named ones.
fn named<S, N: Ord + Clone, T>(
    sections: Option<&At<raw::Named<S>>>,
    key: &str,
    new_name: impl Fn(&str) -> Result<N, NameError>,
    findings: &mut Findings,
    mut resolve: impl FnMut(N, &At<S>, &mut Findings) -> Option<T>,
) -> std::collections::BTreeMap<N, T> {
    let Some(sections) = sections else {
        return std::collections::BTreeMap::new();
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

/// The value of a key, or its default.
fn value<T: Clone, U>(at: Option<&At<T>>, default: U, convert: impl FnOnce(T) -> U) -> U {
    at.map_or(default, |at| convert(at.value.clone()))
}

/// The duration of a key, or its default.
fn time<const ZERO: bool, const MAX: u64>(at: Option<&At<Time<ZERO, MAX>>>, default: Duration) -> Duration {
    value(at, default, |time| time.0)
}

/// The duration of a key where zero means never.
fn time_or_never<const MAX: u64>(at: Option<&At<Time<true, MAX>>>, default: Duration) -> Option<Duration> {
    Some(time(at, default)).filter(|time| !time.is_zero())
}

/// An integer of a key as the model has it. The reader has checked its bounds, so the default stands for nothing else
/// than a missing key.
fn int<T: TryFrom<u64>, const MIN: u64, const MAX: u64>(
    at: Option<&At<raw::Int<MIN, MAX>>>,
    default: T,
) -> T {
    at.and_then(|at| T::try_from(at.value.0).ok()).unwrap_or(default)
}

/// As [`int`], of a key that has no default.
fn limit<const MIN: u64, const MAX: u64>(at: Option<&At<raw::Int<MIN, MAX>>>) -> Option<NonZeroU32> {
    NonZeroU32::new(int(at, 0))
}

fn global(raw: Option<&raw::Global>) -> Global {
    let raw = raw.cloned().unwrap_or_default();
    Global {
        log_level: value(raw.log_level.as_ref(), LogLevel::Info, |v| v),
        log_format: value(raw.log_format.as_ref(), LogFormat::Text, |v| v),
        watch_config: value(raw.watch_config.as_ref(), true, |v| v),
        user: raw.user.map(|at| at.value.0),
        workers: value(raw.workers.as_ref(), None, |v| v.0),
        shutdown_timeout: time(raw.shutdown_timeout.as_ref(), Duration::from_secs(30)),
    }
}

fn admin(raw: Option<&raw::Admin>) -> Admin {
    let socket = raw.and_then(|raw| raw.socket.as_ref());
    Admin {
        socket: value(socket, Some(PathBuf::from(ADMIN_SOCKET)), |v| v.0),
    }
}

fn stats(raw: &raw::Stats, findings: &mut Findings) -> Option<Stats> {
    let port = raw.port.as_ref()?;
    // A port that is a string is how a file of 0.3.5 is known; a new file has nothing to be told.
    if raw.listen_addr.is_none() && port.value.quoted {
        findings.within("stats", |findings| {
            findings.warn(
                port.span.clone(),
                format!("statistics are served on 127.0.0.1:{} only; Convey 0.3.5 listened on every address", port.value.number),
                "add listen_addr = \"0.0.0.0\" to let others read them as before, or listen_addr = \"127.0.0.1\" to keep it so"
                    .to_owned(),
            );
        });
    }
    let ip = value(raw.listen_addr.as_ref(), IpAddr::V4(Ipv4Addr::LOCALHOST), |v| v);
    Some(Stats {
        listen: ListenAddr(SocketAddr::new(ip, port.value.number)),
    })
}

fn passthrough(raw: Option<&raw::Passthrough>) -> Passthrough {
    let raw = raw.cloned().unwrap_or_default();
    let capacity = raw.connection_tracker_capacity.as_ref().map(|at| at.value.0);
    let floor = capacity.map_or(0, |flows| u32::try_from(flows).unwrap_or(u32::MAX));
    Passthrough {
        engine: EngineChoice::Auto,
        workers: limit(raw.workers.as_ref()),
        max_flows: DEFAULT_MAX_FLOWS.max(NonZeroU32::new(floor).unwrap_or(NonZeroU32::MIN)),
        nat_ports: PortRange::default(),
        nat_address4: None,
        nat_address6: None,
        connection_tracker_capacity: capacity,
        stats_update_frequency: raw.stats_update_frequency.as_ref().map(|at| at.value.0),
    }
}

/// Refuses modes and protocols that later versions will have.
fn check_mode(raw: &raw::FrontendOptions, findings: &mut Findings) {
    if let Some(protocol) = raw.protocol.as_ref().filter(|protocol| {
        protocol.value != Protocol::Tcp && raw.mode.as_ref().is_none_or(|m| !m.value.is_packet())
    }) {
        findings.within("protocol", |findings| {
            findings.error(
                protocol.span.clone(),
                format!(
                    "protocol \"{}\" is not in this development version yet",
                    protocol.value.label()
                ),
                "the only protocol so far is \"tcp\"".to_owned(),
            );
        });
    }
}

fn frontend(
    name: FrontendName,
    at: &At<raw::Frontend>,
    defaults: &raw::FrontendOptions,
    backends: Option<&At<raw::Named<raw::Backend>>>,
    options: Options,
    findings: &mut Findings,
) -> Option<Frontend> {
    let raw = &at.value;
    check_mode(&raw.options, findings);
    let own = raw.options.clone().or(defaults);
    let mode = value(
        own.mode.as_ref(),
        options.default_mode.unwrap_or(Mode::Proxy),
        |v| v,
    );
    let protocol = value(own.protocol.as_ref(), Protocol::Tcp, |v| v);
    let listen: Vec<ListenAddr> = raw
        .listen_addr
        .iter()
        .flat_map(|at| at.value.0.iter().map(|(addr, _)| *addr))
        .collect();
    let backend = raw
        .backend
        .as_ref()
        .and_then(|at| findings.within("backend", |f| backend_name(at, backends, f)));
    let seconds = Duration::from_secs;
    let idle_default = |mode: Mode, protocol| match (mode.is_packet(), protocol) {
        (false, _) => seconds(600),
        (true, Protocol::Tcp) => seconds(900),
        (true, Protocol::Udp) => seconds(60),
    };
    Some(Frontend {
        name,
        listen,
        mode,
        protocol,
        interface: None,
        backend: backend?,
        max_connections: limit(own.max_connections.as_ref()),
        idle_timeout: time_or_never(own.idle_timeout.as_ref(), idle_default(mode, protocol)),
        fin_timeout: time_or_never(own.fin_timeout.as_ref(), seconds(60)),
        tcp_user_timeout: time_or_never(own.tcp_user_timeout.as_ref(), seconds(30)),
        access_log: value(own.access_log.as_ref(), true, |v| v),
    })
}

fn backend_name(
    at: &At<raw::BackendRef>,
    backends: Option<&At<raw::Named<raw::Backend>>>,
    findings: &mut Findings,
) -> Option<BackendName> {
    let wanted = at.value.0.as_str();
    let known = || {
        backends
            .iter()
            .flat_map(|at| at.value.0.keys().map(String::as_str))
    };
    if known().any(|name| name == wanted) {
        return BackendName::new(wanted).ok();
    }
    if findings.absence_counts() {
        let help = match nearest(wanted, known()) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None if known().next().is_none() => {
                format!(
                    "there is no backend at all: add a section [backends.{}]",
                    super::print::key(wanted)
                )
            }
            None => format!(
                "backends here: {}",
                known().take(20).collect::<Vec<_>>().join(", ")
            ),
        };
        findings.error(at.span.clone(), format!("there is no backend \"{wanted}\""), help);
    }
    None
}
