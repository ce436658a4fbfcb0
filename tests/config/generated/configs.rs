//! Any configuration that loads.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    num::{NonZeroU32, NonZeroU64},
    sync::Arc,
    time::Duration,
};

use convey::{
    access::{AccessRules, Action, Limits, Network, PerClient, Rule, RuleSubject},
    base::{
        BackendName, FrontendName, ListenAddr, ListenRange, ListenerOptions, NetworkListName, Protocol,
        ServerAddr, ServerName, ServerSocketOptions, SocketOptions, Zone,
    },
    config::{
        AccessLog, Algorithm, Backend, Config, ConnectionLog, ConnectionRates, DsrMethod, Frontend, Mode,
        NetworkList, OnDown, Server, SourceAddress, Stats, Sticky,
    },
};
use proptest::{collection::vec, option, prelude::*};

use super::{
    acme::{self, acme},
    checks::{health_check, passive_check},
    otlp::otlp,
    peers::{default_keepalive, keepalive, logs, server_socket, socket},
    process::{admin, global, hooks, packet},
    routing::{
        accept_proxy, host_patterns, routing, send_proxy, settle_backends, settle_frontend, settle_hellos,
    },
    sockets::{listener_options, settle_sockets, socket_path, socket_rights},
    tls::frontend_tls,
};

/// Any configuration, as a file of it would be resolved.
pub fn configs() -> impl Strategy<Value = Config> {
    let names = || prop::collection::btree_set(name(), 0..5);
    (
        (global(), hooks(), option::of(acme()), option::of(otlp())),
        admin(),
        option::of(address()),
        packet(),
        names(),
        names(),
    )
        .prop_flat_map(|(global, admin, stats, packet, frontends, backends)| {
            let backends: Vec<_> = backends.into_iter().collect();
            // A frontend needs a backend, and addresses that no other has.
            let frontends: Vec<_> = if backends.is_empty() {
                Vec::new()
            } else {
                frontends.into_iter().collect()
            };
            let targets = if backends.is_empty() {
                vec![String::new()]
            } else {
                backends.clone()
            };
            let frontends: Vec<_> = frontends
                .into_iter()
                .enumerate()
                .map(|(index, name)| frontend(name, index, targets.clone()))
                .collect();
            let backends: Vec<_> = backends.into_iter().map(backend).collect();
            let top = (Just((global, admin, stats, packet)), any::<u8>());
            (top, frontends, backends).prop_map(
                |(((global, admin, stats, packet), with_fallback), frontends, backends)| {
                    let (global, hooks, acme, otlp) = global;
                    let config = Config {
                        global,
                        hooks,
                        acme,
                        otlp,
                        admin,
                        stats: stats.map(|addr| Stats {
                            listen: ListenAddr::new(addr),
                        }),
                        packet,
                        network_lists: BTreeMap::new(),
                        frontends: frontends
                            .into_iter()
                            .map(|frontend| (frontend.name.clone(), Arc::new(frontend)))
                            .collect(),
                        backends: backends
                            .into_iter()
                            .map(|backend| (backend.name.clone(), Arc::new(backend)))
                            .collect(),
                    };
                    settle(config, |index| with_fallback >> (index % 8) & 1 == 1)
                },
            )
        })
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z][a-z0-9_-]{0,8}", "[a-zA-Z0-9 .\"'\\\\#=\\[\\]{}é日]{1,12}"]
}

/// Lengths of time in milliseconds, half of them whole seconds.
pub fn millis(min: u64, max: u64) -> impl Strategy<Value = Duration> {
    prop_oneof![
        (min..=max).prop_map(Duration::from_millis),
        (min.div_ceil(1_000)..=max / 1_000).prop_map(Duration::from_secs)
    ]
}

fn or_never(max: u64) -> impl Strategy<Value = Option<Duration>> {
    option::of(millis(1, max))
}

/// A number from 1.
pub fn count(max: u32) -> impl Strategy<Value = NonZeroU32> {
    (1..=max).prop_map(|n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN))
}

/// Addresses that every key takes.
pub fn address() -> impl Strategy<Value = SocketAddr> {
    let v4 = (1..=223_u8, any::<u8>(), any::<u8>(), any::<u8>())
        .prop_map(|(a, b, c, d)| IpAddr::from([a, b, c, d]));
    let v6 = any::<[u16; 7]>().prop_map(|s| IpAddr::from([0x2001, s[0], s[1], s[2], s[3], s[4], s[5], s[6]]));
    (prop_oneof![v4, v6], 1..=65_000_u16).prop_map(SocketAddr::from) // and the ports of a range
}

/// In milliseconds.
pub const DAY: u64 = 86_400_000;

/// Makes what belongs together in the packet modes fit: of a backend that they use, the method decides the family of
/// servers and addresses, and they never wait for ever.
fn settle(mut config: Config, with_fallback: impl Fn(usize) -> bool) -> Config {
    acme::settle(config.acme.as_ref(), &mut config.frontends);
    for (index, frontend) in config.frontends.values_mut().map(Arc::make_mut).enumerate() {
        settle_frontend(frontend);
        if !frontend.mode.is_packet() {
            frontend.protocol = Protocol::Tcp;
            settle_sockets(frontend, index);
            continue;
        }
        let Some(backend) = config.backends.get_mut(frontend.backend.as_str()) else {
            continue;
        };
        let backend = Arc::make_mut(backend);
        let fourth = u16::try_from(index).unwrap_or(u16::MAX);
        for (host, range) in (1..).zip(&mut frontend.listen) {
            let addr: SocketAddr = match backend.dsr_method {
                DsrMethod::Tc => ([198, 18, fourth as u8, host as u8], 80).into(),
                DsrMethod::Nft => ([0x2001, 0xdb8, 0xaaaa, 0, 0, 0, fourth, host], 80 + host).into(),
                DsrMethod::L2 => ([0x2001, 0xdb8, 0xcccc, 0, 0, 0, fourth, host], 80).into(),
            };
            let last = addr.port() + range.ports().last - range.ports().first;
            *range = ListenRange::new(ListenAddr::new(addr), last).expect("a range");
        }
        for (host, server) in (1..).zip(backend.servers.values_mut()) {
            server.addr = ServerAddr::new(match backend.dsr_method {
                DsrMethod::Tc => ([172, 16, 0, host as u8], 80).into(),
                DsrMethod::Nft => ([0x2001, 0xdb8, 0xbbbb, 0, 0, 0, 0, host], 8_000 + host).into(),
                DsrMethod::L2 => ([0x2001, 0xdb8, 0xdddd, 0, 0, 0, 0, host], 80).into(),
            });
        }
        backend.source_addr = None;
        frontend.idle_timeout.get_or_insert(Duration::from_millis(1));
        // What has no effect is at its default.
        frontend.max_connections = None;
        frontend.fin_timeout = None;
        frontend.max_lifetime = None;
        frontend.tcp_user_timeout = None;
        frontend.client_keepalive = Some(default_keepalive());
        frontend.access_log = AccessLog::All;
        frontend.connection_log = ConnectionLog::default();
        (frontend.listener, frontend.rates) = (ListenerOptions::default(), ConnectionRates::default());
    }
    settle_backends(&mut config, with_fallback);
    settle_hellos(&mut config);
    let named: Vec<_> = (config.frontends.values())
        .flat_map(|frontend| frontend.lists().cloned())
        .collect();
    for name in named {
        let path = format!("/lists/{name}").into();
        config.network_lists.insert(name, NetworkList { path });
    }
    let alone: Vec<_> = (config.backends.keys())
        .filter(|name| only_in_packet_modes(&config, name.as_str()))
        .cloned()
        .collect();
    for name in alone {
        if let Some(backend) = config.backends.get_mut(&name).map(Arc::make_mut) {
            backend.balance = Algorithm::Maglev;
            (backend.hash_balance_factor, backend.sticky) = (None, None);
            backend.connect_timeout = Duration::from_secs(5);
            backend.retries = 2;
            backend.queue_timeout = Duration::from_secs(5);
            backend.max_queue = 1_024;
            backend.server_keepalive = Some(default_keepalive());
            backend.server_socket = ServerSocketOptions::default();
            backend.on_down = OnDown::Keep;
            for server in backend.servers.values_mut() {
                server.max_connections = None;
            }
        }
    }
    config
}

fn frontend(name: String, index: usize, backends: Vec<String>) -> BoxedStrategy<Frontend> {
    // Loopback is not among the addresses of `address`, so [stats] cannot clash with these.
    let listen = prop::collection::btree_set(1..=u8::MAX, 1..4).prop_map(move |hosts| {
        let addr = |host: u8| {
            let third = u8::try_from(index).unwrap_or(u8::MAX);
            let first = ListenAddr::new(SocketAddr::from(([0, 0, third, host], 80)));
            // every other is a range
            ListenRange::new(first, 80 + u16::from(host % 2) * u16::from(host)).expect("a range")
        };
        hosts.into_iter().map(addr).collect::<Vec<_>>()
    });
    let times = (
        or_never(365 * DAY),
        or_never(365 * DAY),
        or_never(DAY),
        or_never(365 * DAY),
    );
    (
        listen,
        (
            prop::sample::select(backends.clone()),
            routing(backends),
            accept_proxy(),
            frontend_tls(),
        ),
        option::of(count(u32::MAX)),
        times,
        (keepalive(), socket(), logs(), listener_options(), rates()),
        prop_oneof![Just(Mode::Proxy), Just(Mode::Passthrough), Just(Mode::Dsr)],
        (
            any::<bool>(),
            option::of("[a-z][a-z0-9@.-]{2,14}"),
            access(),
            limits(),
            (vec(socket_path(), 0..3), socket_rights()),
        ),
    )
        .prop_filter_map(
            "a usable name",
            move |(
                listen,
                (backend, routing, proxy_protocol, tls),
                max_connections,
                (idle_timeout, fin_timeout, tcp_user_timeout, max_lifetime),
                (client_keepalive, client_socket, (access_log, connection_log), listener, rates),
                mode,
                (udp, interface, access, limits, (sockets, socket_rights)),
            )| {
                let zone = interface.as_deref().and_then(Zone::new);
                let at = zone.filter(|_| !mode.is_packet());
                let on = |range: ListenRange| at.map_or(range, |zone| range.at(zone));
                Some(Frontend {
                    name: FrontendName::new(&name).ok()?,
                    listen: listen.into_iter().map(on).collect(),
                    sockets: if mode.is_packet() { Vec::new() } else { sockets },
                    socket_rights,
                    mode,
                    protocol: if udp { Protocol::Udp } else { Protocol::Tcp },
                    interface,
                    backend: BackendName::new(&backend).ok()?,
                    routing,
                    tls,
                    proxy_protocol,
                    max_connections,
                    idle_timeout,
                    fin_timeout,
                    max_lifetime,
                    udp: None,
                    source: SourceAddress::Own,
                    tcp_user_timeout,
                    client_keepalive,
                    listener,
                    rates,
                    client_socket: if mode.is_packet() {
                        SocketOptions::default()
                    } else {
                        client_socket
                    },
                    access_log,
                    connection_log,
                    access,
                    limits,
                })
            },
        )
        // deep in the stack of a test that is not optimized
        .boxed()
}

fn rates() -> impl Strategy<Value = ConnectionRates> {
    let rate = || (0..=1_000_000_000_000_u64).prop_map(NonZeroU64::new);
    (rate(), rate()).prop_map(|(upload, download)| ConnectionRates { upload, download })
}

fn access() -> impl Strategy<Value = Option<AccessRules>> {
    let action = || prop::sample::select(vec![Action::Allow, Action::Deny]);
    let network = (address(), any::<u8>()).prop_map(|(addr, prefix)| Network::of(addr.ip(), prefix));
    let list = "[a-zA-Z][a-z0-9\"é_-]{0,8}"
        .prop_filter_map("a usable name", |name| NetworkListName::new(&name).ok());
    let clients = prop_oneof![
        network.prop_map(RuleSubject::Network),
        list.prop_map(RuleSubject::List)
    ];
    let rule = (action(), clients).prop_map(|(action, clients)| Rule { action, clients });
    option::of((action(), vec(rule, 1..5)).prop_map(|(default, rules)| AccessRules { default, rules }))
}

fn limits() -> impl Strategy<Value = Limits> {
    let per_client = (
        8..=32_u8,
        16..=128_u8,
        count(u32::MAX),
        option::of(count(1_000_000)),
    );
    let per_client = per_client.prop_map(|(prefix4, prefix6, connections, new_per_second)| PerClient {
        prefix4,
        prefix6,
        connections: Some(connections),
        new_per_second,
        // it says nothing with protocol tcp
        datagrams_per_second: None,
        // nor this without TLS
        handshakes_per_second: None,
    });
    (option::of(count(1_000_000)), option::of(per_client)).prop_map(|(new_per_second, per_client)| Limits {
        new_per_second,
        per_client,
    })
}

fn sticky() -> impl Strategy<Value = Option<Sticky>> {
    let sticky = (millis(1, 365 * DAY), 8..=32_u8, 16..=128_u8, count(10_000_000));
    option::of(sticky.prop_map(|(ttl, prefix4, prefix6, max_entries)| Sticky {
        ttl,
        prefix4,
        prefix6,
        max_entries,
    }))
}

fn servers() -> impl Strategy<Value = BTreeMap<ServerName, Server>> {
    let server = (
        name(),
        address(),
        any::<u16>(),
        any::<u16>(),
        option::of(count(u32::MAX)),
        host_patterns(2),
        option::of((address(), any::<bool>())),
    );
    vec(server, 0..5).prop_map(|all| {
        let named =
            all.into_iter()
                .filter_map(|(name, addr, weight, priority, max_connections, sni, check)| {
                    let name = ServerName::new(&name).ok()?;
                    Some((
                        name.clone(),
                        Server {
                            name,
                            addr: ServerAddr::new(addr),
                            weight,
                            priority,
                            max_connections,
                            sni,
                            check_addr: check.and_then(|(addr, with_port)| {
                                let addr = if with_port {
                                    addr.to_string()
                                } else {
                                    addr.ip().to_string()
                                };
                                addr.parse().ok()
                            }),
                        },
                    ))
                });
        named.collect()
    })
}

fn backend(name: String) -> impl Strategy<Value = Backend> {
    use prop::sample::select;
    let balance = select(vec![
        Algorithm::RoundRobin,
        Algorithm::Random,
        Algorithm::LeastConnections,
        Algorithm::LeastBandwidth,
        Algorithm::PowerOfTwo,
        Algorithm::SourceHash,
        Algorithm::Maglev,
        Algorithm::First,
    ]);
    let connecting = (
        balance,
        millis(1, DAY / 24),
        0..=100_u32,
        millis(1, DAY / 24),
        0..=1_000_000_u32,
        (any::<bool>(), keepalive(), server_socket()),
    );
    let down = (
        select(vec![OnDown::Keep, OnDown::Close]),
        millis(0, DAY),
        select(vec![DsrMethod::Tc, DsrMethod::Nft, DsrMethod::L2]),
    );
    let factor =
        option::of((101..=100_000_u32).prop_map(|factor| NonZeroU32::new(factor).expect("not zero")));
    (
        connecting,
        option::of(health_check().boxed()),
        option::of(passive_check()),
        down,
        (servers(), send_proxy(), super::tls::backend_tls()),
        (
            factor,
            sticky(),
            super::discovery::discovery(),
            super::checks::agent_check(),
        ),
    )
        .prop_filter_map(
            "a usable name",
            move |(
                (
                    balance,
                    connect_timeout,
                    retries,
                    queue_timeout,
                    max_queue,
                    (source, server_keepalive, server_socket),
                ),
                health_check,
                passive_check,
                (on_down, slow_start, dsr_method),
                (servers, send_proxy, tls),
                (factor, sticky, discovery, agent_check),
            )| {
                let hashes = matches!(balance, Algorithm::SourceHash | Algorithm::Maglev);
                // A source address is of the family of all servers.
                let v4 = servers
                    .values()
                    .all(|server| server.addr.ip().is_some_and(|ip| ip.is_ipv4()));
                let source_addr = (source && v4).then(|| IpAddr::from([10, 0, 0, 9]));
                Some(Backend {
                    name: BackendName::new(&name).ok()?,
                    balance,
                    hash_balance_factor: factor.filter(|_| hashes),
                    sticky,
                    connect_timeout,
                    retries,
                    queue_timeout,
                    max_queue,
                    server_keepalive,
                    server_socket,
                    source_addr,
                    health_check,
                    passive_check,
                    on_down,
                    dsr_method,
                    slow_start,
                    fallback: None,
                    send_proxy,
                    tls,
                    agent_check,
                    discovery,
                    servers,
                })
            },
        )
}

/// Whether frontends use a backend, all of them in packet modes.
pub fn only_in_packet_modes(config: &Config, backend: &str) -> bool {
    let mut users = (config.frontends.values()).filter(|frontend| uses(config, frontend, backend));
    users.clone().all(|frontend| frontend.mode.is_packet()) && users.next().is_some()
}

/// Whether a frontend sends to a backend, by a route or as a fallback if need be.
fn uses(config: &Config, frontend: &Frontend, backend: &str) -> bool {
    frontend.targets().any(|target| {
        let next = |name: &&BackendName| config.backends.get(*name)?.fallback.as_ref();
        let row = std::iter::successors(Some(target), next);
        let most = if frontend.mode.is_packet() { 1 } else { usize::MAX };
        row.take(most).any(|name| name.as_str() == backend)
    })
}
