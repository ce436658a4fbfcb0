//! A configuration for the tests of what is built from one.

use std::{collections::BTreeMap, net::SocketAddr, num::NonZeroU32, sync::Arc, time::Duration};

use crate::{
    access::Limits,
    base::{
        BackendName, FrontendName, ListenAddr, ListenerOptions, PortRanges, Protocol, ServerAddr, ServerName,
        ServerSocketOptions, SocketOptions, SocketRights,
    },
    config::{
        AccessLog, Admin, Algorithm, Backend, Config, ConnectionLog, ConnectionRates, DsrMethod,
        EngineChoice, Frontend, Global, Hooks, LogFormat, LogLevel, Mode, OnDown, PacketModes,
        PortsPerClient, Routing, Server, SourceAddress, XdpMode,
    },
};

/// A frontend of a configuration, to be changed.
pub(crate) fn frontend_mut<'a>(config: &'a mut Config, name: &str) -> &'a mut Frontend {
    Arc::make_mut(config.frontends.get_mut(name).unwrap())
}

/// The backend `web` of a configuration, to be changed.
pub(crate) fn backend_mut(config: &mut Config) -> &mut Backend {
    Arc::make_mut(config.backends.get_mut("web").unwrap())
}

/// Frontends `a` and `b` on a backend `web` without checks: each server's name, priority and weight.
pub(crate) fn config(servers: &[(&str, u16, u16)]) -> Config {
    let name = BackendName::new("web").unwrap();
    let servers: BTreeMap<_, _> = servers
        .iter()
        .zip(1..)
        .map(|(&(name, priority, weight), host)| {
            let name = ServerName::new(name).unwrap();
            let server = Server {
                name: name.clone(),
                addr: ServerAddr::new(SocketAddr::from(([192, 0, 2, host], 80))),
                weight,
                priority,
                max_connections: NonZeroU32::new(10),
                sni: Vec::new(),
                check_addr: None,
            };
            (name, server)
        })
        .collect();
    let backend = Backend {
        name: name.clone(),
        hash_balance_factor: None,
        sticky: None,
        agent_check: None,
        balance: Algorithm::RoundRobin,
        connect_timeout: Duration::from_secs(5),
        retries: 2,
        queue_timeout: Duration::from_secs(5),
        max_queue: 1_024,
        source_addr: None,
        server_keepalive: None,
        server_socket: ServerSocketOptions::default(),
        health_check: None,
        passive_check: None,
        on_down: OnDown::Keep,
        dsr_method: DsrMethod::Tc,
        slow_start: Duration::ZERO,
        fallback: None,
        send_proxy: None,
        tls: None,
        discovery: None,
        servers,
    };
    let frontends = ["a", "b"].map(|frontend| {
        let frontend = FrontendName::new(frontend).unwrap();
        let config = Frontend {
            name: frontend.clone(),
            listen: vec![ListenAddr::new(SocketAddr::from(([127, 0, 0, 1], 8080))).into()],
            sockets: Vec::new(),
            socket_rights: SocketRights::default(),
            mode: Mode::Proxy,
            protocol: Protocol::Tcp,
            interface: None,
            source: SourceAddress::Own,
            backend: name.clone(),
            routing: Routing::default(),
            tls: None,
            proxy_protocol: None,
            udp: None,
            max_connections: None,
            idle_timeout: None,
            fin_timeout: None,
            max_lifetime: None,
            tcp_user_timeout: None,
            client_keepalive: None,
            listener: ListenerOptions::default(),
            rates: ConnectionRates::default(),
            client_socket: SocketOptions::default(),
            access_log: AccessLog::All,
            connection_log: ConnectionLog::default(),
            access: None,
            limits: Limits::default(),
        };
        (frontend, Arc::new(config))
    });
    Config {
        global: Global {
            log_level: LogLevel::Info,
            log_format: LogFormat::Text,
            access_log_per_second: NonZeroU32::MAX,
            watch_config: true,
            user: None,
            workers: None,
            shutdown_timeout: Duration::from_secs(30),
            state_dir: None,
            ticket_keys_file: None,
            hash_seed: None,
        },
        admin: Admin {
            socket: None,
            api: None,
            allow_config_writes: false,
        },
        stats: None,
        acme: None,
        otlp: None,
        packet: PacketModes {
            engine: EngineChoice::Auto,
            xdp_mode: XdpMode::Auto,
            workers: None,
            max_flows: NonZeroU32::MAX,
            nat_ports: PortRanges::STOCK,
            any_interface: false,
            max_ports_per_client: PortsPerClient::default(),
            nat_addresses: Vec::new(),
            connection_tracker_capacity: None,
            stats_update_frequency: None,
        },
        network_lists: BTreeMap::new(),
        hooks: Hooks::default(),
        frontends: frontends.into(),
        backends: [(name, Arc::new(backend))].into(),
    }
}
