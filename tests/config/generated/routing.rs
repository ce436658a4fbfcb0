//! Any routes, PROXY headers and names of hosts.

use std::time::Duration;

use convey::{
    access::{Network, RuleSubject},
    base::{BackendName, HostPattern, NetworkListName},
    config::{
        AcceptProxy, Backend, Config, Destination, Frontend, NonTls, Route, RouteTarget, Routing, SendProxy,
        SentTlvs, UnexpectedSni, Unrouted,
    },
};
use proptest::{collection::vec, option, prelude::*};

use super::configs::{address, millis};

/// In milliseconds.
pub const HOUR: u64 = 3_600_000;

/// Patterns of host names, at most so many.
pub fn host_patterns(most: usize) -> impl Strategy<Value = Vec<HostPattern>> {
    let pattern = prop_oneof![
        "(\\*\\.)?[a-z0-9_-]{1,8}(\\.[a-z][a-z0-9-]{0,8}){1,3}",
        "[a-z][a-z0-9-]{0,8}(\\.[a-z0-9]{1,3})?\\.\\*",
        "~\\^?[a-z0-9\"é.]{1,8}(\\\\\\.com)?\\$?",
    ];
    vec(
        pattern.prop_map(|text| text.parse().expect("a pattern")),
        0..=most,
    )
}

/// Networks, and lists of them.
fn subjects(min: usize) -> impl Strategy<Value = Vec<RuleSubject>> {
    let list = "[a-zA-Z][a-z0-9\"é_-]{0,8}"
        .prop_filter_map("a usable name", |name| NetworkListName::new(&name).ok());
    let subject = prop_oneof![
        network().prop_map(RuleSubject::Network),
        list.prop_map(RuleSubject::List)
    ];
    vec(subject, min..min + 3)
}

fn network() -> impl Strategy<Value = Network> {
    (address(), any::<u8>()).prop_map(|(addr, prefix)| Network::of(addr.ip(), prefix))
}

fn destination() -> impl Strategy<Value = Destination> {
    let ports = (1..=u16::MAX, 1..=u16::MAX).prop_map(|(one, other)| one.min(other)..=one.max(other));
    let ports = prop_oneof![ports, (1..=u16::MAX).prop_map(|port| port..=port)];
    (option::of(network()), option::of(ports.clone()), ports).prop_map(|(network, some, ports)| Destination {
        // one of the two at least
        ports: if network.is_none() { Some(ports) } else { some },
        network,
    })
}

/// Names of protocols.
pub fn alpn() -> impl Strategy<Value = Vec<Box<str>>> {
    vec("[!-~é]{1,12}".prop_map(String::into_boxed_str), 0..3)
}

fn route(backends: Vec<String>) -> impl Strategy<Value = Route> {
    let target = option::weighted(0.8, prop::sample::select(backends)).prop_map(|name| {
        let name = name.and_then(|name| BackendName::new(&name).ok());
        name.map_or(RouteTarget::Reject, RouteTarget::Backend)
    });
    (
        host_patterns(3),
        alpn(),
        subjects(0),
        vec(destination(), 0..3),
        target,
    )
        .prop_map(|(sni, alpn, source, destination, target)| Route {
            sni,
            alpn,
            source,
            destination,
            target,
        })
}

/// Routes, and what stands beside them.
pub fn routing(backends: Vec<String>) -> impl Strategy<Value = Routing> {
    use prop::sample::select;
    (
        vec(route(backends), 0..4),
        select(vec![Unrouted::Backend, Unrouted::Reject]),
        select(vec![
            UnexpectedSni::Default,
            UnexpectedSni::Reject,
            UnexpectedSni::Any,
        ]),
        select(vec![NonTls::Reject, NonTls::Backend]),
        millis(1, HOUR),
    )
        .prop_map(
            |(routes, unrouted, unexpected_sni, non_tls, client_hello_timeout)| Routing {
                routes,
                unrouted,
                unexpected_sni,
                non_tls,
                client_hello_timeout,
            },
        )
}

/// `proxy_protocol`.
pub fn accept_proxy() -> impl Strategy<Value = Option<AcceptProxy>> {
    let some =
        (subjects(1), any::<bool>(), millis(1, HOUR)).prop_map(|(from, required, timeout)| AcceptProxy {
            from,
            // where it listens at a socket
            unix: false,
            required,
            timeout,
        });
    option::of(some)
}

/// `send_proxy`.
pub fn send_proxy() -> impl Strategy<Value = Option<SendProxy>> {
    let tlvs = any::<[bool; 5]>().prop_map(|[authority, alpn, ssl, unique_id, crc32c]| SentTlvs {
        authority,
        alpn,
        ssl,
        unique_id,
        crc32c,
    });
    option::of(prop_oneof![Just(SendProxy::V1), tlvs.prop_map(SendProxy::V2)])
}

/// Brings a frontend's backend and routes together, as a file would have them.
pub fn settle_frontend(frontend: &mut Frontend) {
    if frontend.mode.is_packet() {
        frontend.routing = Routing::default();
        frontend.proxy_protocol = None;
        frontend.tls = None;
        return;
    }
    let routing = &mut frontend.routing;
    let first = routing.routes.iter().find_map(|route| match &route.target {
        RouteTarget::Backend(name) => Some(name.clone()),
        RouteTarget::Reject => None,
    });
    match first {
        Some(first) if routing.unrouted == Unrouted::Reject => frontend.backend = first,
        _ => routing.unrouted = Unrouted::Backend,
    }
}

/// Gives each backend the one that follows it as its fallback, or none, and no name to a server that packets go to.
pub fn settle_backends(config: &mut Config, with_fallback: impl Fn(usize) -> bool) {
    let names: Vec<BackendName> = config.backends.keys().cloned().collect();
    for (index, name) in names.iter().enumerate() {
        let next = names.get(index + 1).filter(|_| with_fallback(index)).cloned();
        edit(config, name, |backend| backend.fallback = next);
    }
    for name in &names {
        if super::configs::only_in_packet_modes(config, name.as_str()) {
            edit(config, name, |backend| {
                backend.fallback = None;
                backend.send_proxy = None;
                backend.tls = None;
                backend.servers.values_mut().for_each(|server| server.sni.clear());
            });
        }
        edit(config, name, |backend| {
            let sends = backend.send_proxy.is_some();
            if let Some(check) = &mut backend.health_check {
                check.send_proxy &= sends;
            }
        });
    }
}

/// Puts what is about the ClientHello to its default where nothing depends on it, or TLS ends here.
pub fn settle_hellos(config: &mut Config) {
    let backends = config.backends.clone();
    for frontend in config.frontends.values_mut() {
        let mut row: Vec<&Backend> = Vec::new();
        for target in frontend.targets() {
            let mut next = Some(target);
            while let Some(backend) = next.and_then(|name| backends.get(name)) {
                row.push(backend);
                next = backend.fallback.as_ref();
            }
        }
        let by_server = row.iter().any(|backend| {
            backend.discovery.is_some() || backend.servers.values().any(|server| !server.sni.is_empty())
        });
        let by_route = frontend.routing.routes.iter().any(Route::needs_hello);
        let depends = !frontend.mode.is_packet() && (by_server || by_route);
        let ends_here = frontend.tls.is_some();
        let routing = &mut std::sync::Arc::make_mut(frontend).routing;
        if !depends {
            routing.unexpected_sni = UnexpectedSni::Default;
        }
        if !depends || ends_here {
            routing.non_tls = NonTls::Reject;
            routing.client_hello_timeout = Duration::from_secs(5);
        }
    }
}

fn edit(config: &mut Config, name: &BackendName, change: impl FnOnce(&mut Backend)) {
    if let Some(backend) = config.backends.get_mut(name) {
        change(std::sync::Arc::make_mut(backend));
    }
}
