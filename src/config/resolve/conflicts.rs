//! What only several sections together show: addresses taken twice, backends that serve nobody, and where a file of
//! 0.3.5 now means something else.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    ops::Range,
};

use super::reached::{Listeners, OwnListeners};
use crate::{
    base::{Endpoint, EndpointRange, ListenAddr, PortMap, Protocol, ServerAddr, Zone},
    config::{
        address,
        findings::Findings,
        model::{Backend, Config},
        raw::{self, Section},
        users::Users,
    },
};

/// What is said to listen where HTTP-01 is answered.
const ACME: &str = "[acme]";

/// Checks the configuration as a whole.
pub fn check(file: &raw::File, config: &Config, users: &Users<'_>, findings: &mut Findings) {
    listen_addresses(file, config, findings);
    // What is missing may stand in what could not be read, so these wait for a file without errors.
    if findings.is_clean() {
        unused_backends(file, users, findings);
    }
    let Some(backends) = &file.backends else { return };
    let listeners = Listeners::of(config);
    findings.within("backends", |findings| {
        for (name, at) in &backends.value.0 {
            if let Some(backend) = config.backends.get(name.as_str()) {
                let own = listeners.of_users(users.of_backend(name));
                findings.within(name, |findings| servers(at, backend, &own, findings));
            }
        }
    });
    random_to_round_robin(file, config, users, findings);
}

/// What is listened on, by whom, where that stands, and its key path.
struct ListenPlace<'a> {
    range: EndpointRange,
    owner: String,
    span: Range<usize>,
    path: [&'a str; 3],
}

impl ListenPlace<'_> {
    /// Its address and protocol, without ports.
    fn address(&self) -> (Protocol, ListenAddr) {
        (self.range.protocol, self.range.listen.first().with_port(0))
    }

    /// Its address and protocol, without ports and interface.
    fn everywhere(&self) -> (Protocol, SocketAddr) {
        (self.range.protocol, self.range.listen.first().with_port(0).0)
    }

    /// What it shares with one before it.
    fn clash(&self, other: &Self) -> String {
        let (owner, range) = (&self.owner, self.range.listen);
        match (*owner == other.owner, range == other.range.listen) {
            (true, true) => format!("{owner} has the address {range} twice"),
            (false, true) => format!("{owner} and {} have the same address {range}", other.owner),
            (true, false) => format!(
                "{owner} listens on {range}, which overlaps its own {}",
                other.range.listen
            ),
            (false, false) => format!(
                "{owner} listens on {range}, which overlaps {} of {}",
                other.range.listen, other.owner
            ),
        }
    }
}

/// Every address may be listened on once for each protocol. A wildcard and a specific address on one port are two
/// different listeners: the kernel gives a connection to the more specific one, and never sees what is for a VIP. So are an
/// address on an interface and the same on another.
fn listen_addresses(file: &raw::File, config: &Config, findings: &mut Findings) {
    let mut places = listen_places(file, config);
    places.sort_by_key(|place| (place.address(), place.range.ports(), place.span.start));
    let mut clashes = Vec::new();
    // of those before, the one that reaches furthest: who overlaps any of them overlaps it
    let mut furthest: Option<&ListenPlace<'_>> = None;
    for place in &places {
        if let Some(before) = furthest
            && before.address() == place.address()
            && place.range.ports().first <= before.range.ports().last
        {
            let in_order = before.span.start <= place.span.start;
            clashes.push(if in_order {
                (before, place)
            } else {
                (place, before)
            });
            if place.range.ports().last <= before.range.ports().last {
                continue;
            }
        }
        furthest = Some(place);
    }
    clashes.extend(at_every_interface(&places));
    clashes.sort_by_key(|(first, second)| (second.span.start, first.span.start));
    clashes.dedup_by_key(|(_, second)| second.span.start);
    for (first, second) in clashes {
        findings.clash(
            &second.path,
            second.span.clone(),
            first.span.clone(),
            second.clash(first),
            place_help(first, second),
        );
    }
}

/// What to do about two listeners at one address.
fn place_help(first: &ListenPlace<'_>, second: &ListenPlace<'_>) -> &'static str {
    match [first, second].iter().any(|place| place.owner == ACME) {
        true => {
            "two listeners cannot use the same address: leave http_listen_addr out, and use challenge = \"tls-alpn-01\", which needs \
             no port but the frontend's 443, or \"dns-01\", which needs none at all but a dns_hook"
        }
        false => "two listeners cannot use the same address: change or remove one",
    }
}

/// Addresses that are listened on at an interface and at every one, too: of sockets that share their address (SO_REUSEPORT) the
/// kernel takes the first that fits, whichever is nearer (inet_lhash2_lookup, udp4_lib_lookup2). What is for a VIP comes to
/// neither.
fn at_every_interface<'a, 'b>(
    places: &'a [ListenPlace<'b>],
) -> Vec<(&'a ListenPlace<'b>, &'a ListenPlace<'b>)> {
    // a link-local address is nowhere without its interface, which is said elsewhere
    let has_none = |place: &&ListenPlace<'_>| {
        place.address().1.zone().is_none() && !address::is_link_local(place.range.ip())
    };
    let everywhere = places.iter().filter(has_none);
    let everywhere: PortMap<_, _> = everywhere
        .map(|place| (place.everywhere(), place.range.ports(), place))
        .collect();
    let somewhere = places.iter().filter(|place| place.address().1.zone().is_some());
    somewhere
        .filter_map(|place| {
            let (_, other) = everywhere
                .overlapping(&place.everywhere(), place.range.ports())
                .next()?;
            let is_first = place.span.start <= other.span.start;
            Some(if is_first {
                (place, *other)
            } else {
                (*other, place)
            })
        })
        .collect()
}

fn listen_places<'a>(file: &'a raw::File, config: &Config) -> Vec<ListenPlace<'a>> {
    let mut places = Vec::new();
    if let Some((at, port)) = file
        .stats
        .as_ref()
        .and_then(|at| Some((at, at.value.port.as_ref()?)))
    {
        let ip = at
            .value
            .listen_addr
            .as_ref()
            .map_or(IpAddr::from([127, 0, 0, 1]), |at| at.value);
        places.push(ListenPlace {
            range: Endpoint::tcp((ip, port.value.number).into()).into(),
            owner: "[stats]".to_owned(),
            span: port.span.clone(),
            path: ["stats", "port", ""],
        });
    }
    if let Some(at) = (file.admin.as_ref()).and_then(|at| at.value.listen_addr.as_ref())
        && let Some(listen) = at.value.0
    {
        places.push(ListenPlace {
            range: Endpoint::tcp(listen.0).into(),
            owner: "[admin]".to_owned(),
            span: at.span.clone(),
            path: ["admin", "listen_addr", ""],
        });
    }
    if let Some(at) = (file.acme.as_ref()).and_then(|at| at.value.http_listen_addr.as_ref())
        && let Some(listen) = at.value.0
    {
        places.push(ListenPlace {
            range: Endpoint::tcp(listen.0).into(),
            owner: ACME.to_owned(),
            span: at.span.clone(),
            path: ["acme", "http_listen_addr", ""],
        });
    }
    for (name, at) in file.frontends.iter().flat_map(|at| &at.value.0) {
        let frontend = config.frontends.get(name.as_str());
        let own = at.value.options.protocol.as_ref().map(|at| at.value);
        let protocol = frontend.map_or(own.unwrap_or(Protocol::Tcp), |frontend| frontend.protocol);
        let proxied = frontend.filter(|frontend| !frontend.mode.is_packet());
        let interface = proxied.and_then(|frontend| frontend.interface.as_deref());
        let zone = interface.and_then(Zone::new);
        for (listen, span) in at.value.listen_addr.iter().flat_map(|at| &at.value.0) {
            places.push(ListenPlace {
                range: EndpointRange {
                    listen: zone.map_or(*listen, |zone| listen.at(zone)),
                    protocol,
                },
                owner: format!("frontend `{name}`"),
                span: span.clone(),
                path: ["frontends", name, "listen_addr"],
            });
        }
    }
    places
}

fn unused_backends(file: &raw::File, users: &Users<'_>, findings: &mut Findings) {
    findings.within("backends", |findings| {
        for (name, at) in file.backends.iter().flat_map(|at| &at.value.0) {
            if users.of_backend(name).is_empty() {
                findings.within(name, |findings| {
                    findings.warn(
                        at.key.clone(),
                        format!("no frontend uses backend `{name}`"),
                        format!(
                            "name it in a frontend: backend = {}",
                            crate::config::quote::string(name)
                        ),
                    );
                });
            }
        }
    });
}

/// Servers that can never be used, or not as meant.
fn servers(
    at: &raw::Located<raw::Backend>,
    backend: &Backend,
    listeners: &OwnListeners<'_>,
    findings: &mut Findings,
) {
    let raw_servers = at.value.servers.as_ref().map(|at| &at.value.0);
    if raw_servers.is_none_or(BTreeMap::is_empty) {
        if findings.is_clean() && at.value.discovery.is_none() {
            findings.warn(
                at.key.clone(),
                format!(
                    "backend `{}` has no servers, so connections to it are refused",
                    backend.name
                ),
                format!(
                    "add a section [backends.{}.servers.NAME] with addr = \"IP:port\"",
                    crate::config::quote::key(backend.name.as_str())
                ),
            );
        }
        return;
    }
    let are_all = !backend.servers.is_empty() && backend.discovery.is_none();
    if are_all && backend.servers.values().all(|server| server.weight == 0) {
        findings.warn(
            at.key.clone(),
            format!(
                "every server of backend `{}` has weight 0, so none will receive connections",
                backend.name
            ),
            "set the weight of at least one to 1 or more".to_owned(),
        );
    }
    let mut seen: HashMap<ServerAddr, (&str, Range<usize>)> = HashMap::new();
    let mut raw_servers: Vec<_> = raw_servers.into_iter().flatten().collect();
    raw_servers.sort_by_key(|(_, at)| at.key.start);
    for (name, at) in raw_servers {
        let Some(addr) = &at.value.fixed() else { continue };
        findings.within("servers", |findings| {
            findings.within(name, |findings| {
                findings.within("addr", |findings| {
                    if let Some((other, _)) = seen.get(&addr.value) {
                        findings.warn(
                            addr.span.clone(),
                            format!(
                                "servers `{other}` and `{name}` have the same address {}",
                                addr.value
                            ),
                            "it receives the share of both; raise the weight of one instead".to_owned(),
                        );
                    }
                    if listeners.are_reached(addr.value) {
                        findings.warn(
                            addr.span.clone(),
                            format!(
                                "server `{name}` is the address of its own frontend: connections would loop"
                            ),
                            "write the address of the server behind the load balancer".to_owned(),
                        );
                    } else if let Some(ip) = addr.value.ip().filter(IpAddr::is_unspecified)
                        && !listeners.by_packets
                    {
                        findings.warn(
                            addr.span.clone(),
                            format!("{ip} as a server's address means this host itself"),
                            "write the address of the server, or 127.0.0.1 or [::1] for this host".to_owned(),
                        );
                    }
                });
            });
        });
        seen.entry(addr.value).or_insert((name, addr.span.clone()));
    }
}

/// 0.3.5 chose servers at random by weight. Said once, where a file in its dialect leaves the choice to the default
/// and there is a choice.
fn random_to_round_robin(file: &raw::File, config: &Config, users: &Users<'_>, findings: &mut Findings) {
    let defaults = file
        .defaults
        .as_ref()
        .map(|at| at.value.backend.clone())
        .unwrap_or_default();
    let concerned = file
        .backends
        .iter()
        .flat_map(|at| &at.value.0)
        .filter(|(name, at)| {
            let options = at.value.options.clone().or(&defaults);
            let usable = config.backends.get(name.as_str()).is_some_and(|backend| {
                backend
                    .servers
                    .values()
                    .filter(|server| server.weight > 0)
                    .count()
                    > 1
            });
            options.balance.is_none()
                && at.value.options.health_check_interval.is_some()
                && usable
                && !users.are_only_packets(name)
        });
    let Some((name, at)) = concerned.min_by_key(|(_, at)| at.key.start) else {
        return;
    };
    let Some(interval) = &at.value.options.health_check_interval else {
        return;
    };
    findings.within("backends", |findings| {
        findings.within(name, |findings| {
            findings.warn(
                interval.key.clone(),
                "servers are chosen by weighted round robin; Convey 0.3.5, whose key this is, chose them at random by weight",
                "add balance = \"round_robin\" to confirm that, or balance = \"random\" for the old behaviour".to_owned(),
            );
        });
    });
}
