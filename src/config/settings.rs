//! Every setting of the resolved configuration as text: what print writes and diff compares.
//!
//! Each section is taken apart completely, so a new setting that is forgotten here does not compile.

mod access;
mod acme;
mod admin;
mod balancing;
mod checks;
mod commands;
mod connection_log;
mod discovery;
mod otlp;
mod socket;
mod tls;

use std::{collections::BTreeMap, fmt::Display, path::Path, time::Duration};

use super::{
    duration,
    model::{Backend, Frontend, Global, NetworkList, PacketModes, PortsPerClient, Server, Stats},
    named_server::NamedServer,
    quote::{self, string},
    routing::{AcceptProxy, Route, RouteTarget, SendProxy, Unrouted},
    udp::UdpSessions,
};
use crate::base::{KeepAlive, NetworkListName};

pub use access::{access, limits, per_client};
pub use acme::acme;
pub use admin::admin;
pub use balancing::sticky;
pub use checks::{agent_check, health_check, passive_check};
pub use commands::hooks;
pub use connection_log::connection_log;
pub use discovery::discovery;
pub use otlp::otlp;
pub use socket::{server_socket, socket};
pub use tls::{backend_tls, tls};

/// What a key is set to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Setting {
    /// A TOML value.
    Value(String),
    /// A TOML value that logs must not have.
    Secret(String),
    /// Not set; what that means.
    Unset(&'static str),
}

/// Keys of one section in the order of printing.
pub type Settings = Vec<(&'static str, Setting)>;

fn set<T: Display + Copy>(value: T) -> Setting {
    Setting::Value(value.to_string())
}

fn text(value: &str) -> Setting {
    Setting::Value(string(value))
}

fn path(path: &Path) -> Setting {
    text(&path.to_string_lossy())
}

fn time(value: Duration) -> Setting {
    text(&duration::print(value))
}

fn time_or_never(value: Option<Duration>) -> Setting {
    time(value.unwrap_or_default())
}

fn limit<T: Display + Copy>(value: Option<T>) -> Setting {
    value.map_or(Setting::Unset("no limit"), set)
}

/// `[global]`.
pub fn global(global: &Global) -> Settings {
    let Global {
        log_level,
        log_format,
        access_log_per_second,
        watch_config,
        user,
        workers,
        shutdown_timeout,
        state_dir,
        ticket_keys_file,
        hash_seed,
    } = global;
    let default_user = Setting::Unset("convey, or nobody where there is no such user");
    vec![
        ("log_level", text(log_level.label())),
        ("log_format", text(log_format.label())),
        ("access_log_per_second", set(*access_log_per_second)),
        ("watch_config", set(*watch_config)),
        ("user", user.as_deref().map_or(default_user, text)),
        ("workers", workers.map_or_else(|| text("auto"), set)),
        ("shutdown_timeout", time(*shutdown_timeout)),
        (
            "state_dir",
            state_dir
                .as_deref()
                .map_or(Setting::Unset("$STATE_DIRECTORY, or /var/lib/convey"), path),
        ),
        (
            "ticket_keys_file",
            ticket_keys_file
                .as_deref()
                .map_or(Setting::Unset("keys of its own, in state_dir"), path),
        ),
        (
            "hash_seed",
            hash_seed
                .as_ref()
                .map_or(Setting::Unset("the published hash"), |seed| {
                    Setting::Secret(string(&seed.0))
                }),
        ),
    ]
}

/// `[stats]`.
pub fn stats(stats: &Stats) -> Settings {
    let Stats { listen } = stats;
    vec![
        ("port", set(listen.0.port())),
        ("listen_addr", text(&listen.0.ip().to_string())),
    ]
}

/// `[packet]`.
pub fn packet(packet: &PacketModes) -> Settings {
    let PacketModes {
        engine,
        xdp_mode,
        workers,
        max_flows,
        nat_ports,
        any_interface,
        max_ports_per_client,
        nat_addresses,
        connection_tracker_capacity,
        stats_update_frequency,
    } = packet;
    let unset = || Setting::Unset("the default");
    vec![
        ("engine", text(engine.label())),
        ("xdp_mode", text(xdp_mode.label())),
        ("workers", workers.map_or_else(|| text("auto"), set)),
        ("max_flows", set(*max_flows)),
        ("nat_ports", text(&nat_ports.to_string())),
        ("any_interface", set(any_interface)),
        (
            "max_ports_per_client",
            match max_ports_per_client {
                PortsPerClient::Count(count) => set(*count),
                word => text(&word.to_string()),
            },
        ),
        ("nat_address", some(nat_addresses, "the route's choice")),
        (
            "connection_tracker_capacity",
            connection_tracker_capacity.map_or_else(unset, set),
        ),
        (
            "stats_update_frequency",
            stats_update_frequency.map_or_else(unset, time),
        ),
    ]
}

/// A list of strings.
fn list<T: Display>(items: impl IntoIterator<Item = T>) -> Setting {
    let items: Vec<String> = (items.into_iter())
        .map(|item| string(&item.to_string()))
        .collect();
    Setting::Value(format!("[{}]", items.join(", ")))
}

/// A list that is left out when it is empty.
fn some<T: Display>(items: &[T], meaning: &'static str) -> Setting {
    match items {
        [] => Setting::Unset(meaning),
        items => list(items),
    }
}

/// `[frontends.NAME]`.
pub fn frontend(frontend: &Frontend) -> Settings {
    let Frontend {
        name: _,
        listen,
        sockets,
        socket_rights,
        mode,
        protocol,
        interface,
        backend,
        routing,
        proxy_protocol: _,
        source,
        max_connections,
        idle_timeout,
        fin_timeout,
        max_lifetime,
        tcp_user_timeout,
        client_keepalive: _,
        listener,
        rates,
        client_socket: _,
        access_log,
        connection_log: _,
        access: _,
        limits: _,
        tls: _,
        udp: _,
    } = frontend;
    vec![
        ("listen_addr", socket::listen_addr(listen, sockets)),
        ("mode", text(mode.label())),
        ("protocol", text(protocol.label())),
        ("interface", socket::interface(*mode, interface.as_deref())),
        (
            "backend",
            match routing.unrouted {
                Unrouted::Backend => text(backend.as_str()),
                Unrouted::Reject => Setting::Unset("what no route matches is reset"),
            },
        ),
        ("unexpected_sni", text(routing.unexpected_sni.label())),
        ("non_tls", text(routing.non_tls.label())),
        ("client_hello_timeout", time(routing.client_hello_timeout)),
        ("source", text(source.label())),
        ("max_connections", limit(*max_connections)),
        ("idle_timeout", time_or_never(*idle_timeout)),
        ("fin_timeout", time_or_never(*fin_timeout)),
        ("max_lifetime", time_or_never(*max_lifetime)),
        ("tcp_user_timeout", time_or_never(*tcp_user_timeout)),
        ("tcp_fast_open", set(listener.fast_open)),
        ("defer_accept", set(listener.defer_accept)),
        (
            "backlog",
            listener.backlog.map_or(Setting::Unset("the kernel's limit"), set),
        ),
        ("upload_rate", limit(rates.upload)),
        ("download_rate", limit(rates.download)),
        ("socket_mode", text(&socket_rights.mode.to_string())),
        (
            "socket_group",
            (socket_rights.group.as_deref()).map_or(Setting::Unset("that of the user convey runs as"), text),
        ),
        ("access_log", connection_log::which(*access_log)),
    ]
}

/// One of `[[frontends.NAME.routes]]`.
pub fn route(route: &Route) -> Settings {
    let Route {
        sni,
        alpn,
        source,
        destination,
        target,
    } = route;
    vec![
        ("sni", some(sni, "every name, and none")),
        ("alpn", some(alpn, "every protocol, and none")),
        ("source", some(source, "every client")),
        ("destination", some(destination, "every address and port")),
        match target {
            RouteTarget::Backend(name) => ("backend", text(name.as_str())),
            RouteTarget::Reject => ("reject", set(true)),
        },
    ]
}

/// `[frontends.NAME.proxy_protocol]`.
pub fn proxy_protocol(proxy: Option<&AcceptProxy>) -> Settings {
    let Some(AcceptProxy {
        from,
        unix,
        required,
        timeout,
    }) = proxy
    else {
        return vec![("enabled", set(false))];
    };
    let mut from: Vec<String> = from.iter().map(ToString::to_string).collect();
    from.extend(unix.then(|| "unix".to_owned()));
    vec![
        ("enabled", set(true)),
        ("from", list(&from)),
        ("required", set(*required)),
        ("timeout", time(*timeout)),
    ]
}

/// `[frontends.NAME.udp]`.
pub fn udp(udp: &UdpSessions) -> Settings {
    let UdpSessions {
        max_sessions,
        max_requests,
        max_responses,
        buffer_size,
    } = udp;
    vec![
        ("max_sessions", set(*max_sessions)),
        ("max_requests", limit(*max_requests)),
        ("max_responses", limit(*max_responses)),
        ("buffer_size", set(*buffer_size)),
    ]
}

/// `[frontends.NAME.client_keepalive]` and `[backends.NAME.server_keepalive]`.
pub fn keepalive(keepalive: Option<KeepAlive>) -> Settings {
    let Some(KeepAlive {
        idle,
        interval,
        count,
    }) = keepalive
    else {
        return vec![("enabled", set(false))];
    };
    vec![
        ("enabled", set(true)),
        ("idle", time(idle)),
        ("interval", time(interval)),
        ("count", set(count)),
    ]
}

/// `[network_lists]`.
pub fn network_lists(lists: &BTreeMap<NetworkListName, NetworkList>) -> Vec<(String, Setting)> {
    let path = |list: &NetworkList| text(&list.path.to_string_lossy());
    lists
        .iter()
        .map(|(name, list)| (quote::key(name.as_str()), path(list)))
        .collect()
}

/// `[backends.NAME]`, without its checks and servers.
pub fn backend(backend: &Backend) -> Settings {
    let Backend {
        name: _,
        balance,
        hash_balance_factor,
        sticky: _,
        connect_timeout,
        retries,
        queue_timeout,
        max_queue,
        server_keepalive: _,
        server_socket: _,
        source_addr,
        health_check: _,
        passive_check: _,
        agent_check: _,
        on_down,
        dsr_method,
        slow_start,
        fallback,
        send_proxy,
        tls: _,
        discovery: _,
        servers: _,
    } = backend;
    let source = source_addr.map_or(Setting::Unset("the kernel's choice"), |ip| text(&ip.to_string()));
    vec![
        ("balance", text(balance.label())),
        ("hash_balance_factor", limit(*hash_balance_factor)),
        ("connect_timeout", time(*connect_timeout)),
        ("retries", set(*retries)),
        ("queue_timeout", time(*queue_timeout)),
        ("max_queue", set(*max_queue)),
        ("source_addr", source),
        ("on_down", text(on_down.label())),
        ("dsr_method", text(dsr_method.label())),
        ("slow_start", time(*slow_start)),
        (
            "fallback",
            fallback.as_ref().map_or(
                Setting::Unset("connections are refused while no server is eligible"),
                |name| text(name.as_str()),
            ),
        ),
        ("send_proxy", text(send_proxy.map_or("off", SendProxy::label))),
        (
            "send_proxy_tlvs",
            match send_proxy {
                Some(SendProxy::V2(tlvs)) => list(tlvs.sent()),
                Some(SendProxy::V1) | None => Setting::Unset("for version 2"),
            },
        ),
    ]
}

/// `[backends.NAME.servers.NAME]`.
pub fn named_server(server: &NamedServer) -> Settings {
    let NamedServer {
        name: _,
        host,
        port,
        resolve,
        weight,
        priority,
        max_connections,
        sni,
    } = server;
    vec![
        ("addr", text(&format!("{host}:{port}"))),
        ("resolve", text(resolve.label())),
        ("weight", set(*weight)),
        ("priority", set(*priority)),
        ("max_connections", limit(*max_connections)),
        ("sni", some(sni, "no name in particular")),
    ]
}

/// `[backends.NAME.servers.NAME]` at an address.
pub fn server(server: &Server) -> Settings {
    let Server {
        name: _,
        addr,
        weight,
        priority,
        max_connections,
        sni,
        check_addr,
    } = server;
    vec![
        ("addr", text(&addr.to_string())),
        ("weight", set(*weight)),
        ("priority", set(*priority)),
        ("max_connections", limit(*max_connections)),
        ("sni", some(sni, "no name in particular")),
        (
            "check_addr",
            check_addr.map_or(Setting::Unset("addr"), |addr| text(&addr.to_string())),
        ),
    ]
}
