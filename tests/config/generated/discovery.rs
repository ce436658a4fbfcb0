//! Any source of servers.

use std::{num::NonZeroU16, time::Duration};

use convey::{
    access::Network,
    base::ServerName,
    config::{
        AnswerFormat, CertificateFiles, ConsulQuery, Discovery, DiscoverySource, DockerAddress, DockerQuery,
        Families, HttpService, JsonPaths, KubernetesQuery, KubernetesVia, LxdFlavour, LxdQuery, MaxRemoval,
        NameQuery, NamedServer, OnFailure, Resolve, ServerTrust, ServicePort, SourceTls,
    },
};
use proptest::{collection::vec, option, prelude::*};

use super::{
    configs::{DAY, count, millis},
    process::command,
};

/// Any, or none.
pub fn discovery() -> impl Strategy<Value = Option<Discovery>> {
    use prop::sample::select;
    let removal = prop_oneof![
        (0..=100_u8).prop_map(MaxRemoval::Percent),
        (0..=10_000_u32).prop_map(MaxRemoval::Count)
    ];
    let networks = vec(
        any::<u8>().prop_map(|ip| Network::of([10, ip, 0, 0].into(), 16)),
        0..3,
    );
    // boxed: by value they would fill a thread's stack
    let source = prop_oneof![
        (select(vec!["/etc/convey/web.servers", "/ü"]), format())
            .prop_map(|(path, format)| {
                let path = path.into();
                DiscoverySource::File { path, format }
            })
            .boxed(),
        (command(), format())
            .prop_map(|(command, format)| DiscoverySource::Exec { command, format })
            .boxed(),
        (service(), format())
            .prop_map(|(service, format)| DiscoverySource::Http { service, format })
            .boxed(),
        consul()
            .prop_map(|query| DiscoverySource::Consul { query })
            .boxed(),
        docker()
            .prop_map(|query| DiscoverySource::Docker { query })
            .boxed(),
        kubernetes()
            .prop_map(|query| DiscoverySource::Kubernetes { query })
            .boxed(),
        lxd().prop_map(|query| DiscoverySource::Lxd { query }).boxed(),
        (query(), 1..=u16::MAX)
            .prop_map(|(query, port)| DiscoverySource::Dns {
                query,
                port: NonZeroU16::new(port).expect("not 0"),
            })
            .boxed(),
        query().prop_map(|query| DiscoverySource::Srv { query }).boxed(),
        Just(DiscoverySource::Api).boxed(),
    ];
    let discovery = (
        source,
        millis(1, DAY),
        select(vec![OnFailure::Keep, OnFailure::Empty]),
        (count(10_000), count(10_000)),
        removal,
        networks,
        1..=1_u32 << 24,
    );
    let names = vec(named_server(), 1..4).prop_map(|servers| {
        let numbered = servers
            .into_iter()
            .enumerate()
            .map(|(number, server)| NamedServer {
                name: ServerName::new(&format!("by name {number}")).expect("a name"),
                ..server
            });
        Discovery::of_names(numbered.collect())
    });
    let section = discovery.prop_map(
        |(source, interval, on_failure, (one, other), max_removal, servers_within, max_answer_bytes)| {
            let asked = Discovery {
                source,
                interval,
                on_failure,
                max_servers: one.max(other),
                min_servers: one.min(other).get() - 1,
                max_removal,
                servers_within,
                max_answer_bytes,
            };
            match asked.source {
                // these keys are those of sources that are asked
                DiscoverySource::Api => Discovery {
                    interval: Duration::from_secs(10),
                    on_failure: OnFailure::Keep,
                    min_servers: 0,
                    max_removal: MaxRemoval::Percent(100),
                    max_answer_bytes: 1 << 20,
                    ..asked
                },
                _ => asked,
            }
        },
    );
    option::of(prop_oneof![3 => section.boxed(), 1 => names.boxed()])
}

fn named_server() -> impl Strategy<Value = NamedServer> {
    use prop::sample::select;
    let numbers = (any::<u16>(), any::<u16>(), option::of(count(1_000)));
    let host = select(vec!["app.internal", "db"]);
    let resolve = select(vec![Resolve::First, Resolve::All]);
    (host, 1..=u16::MAX, resolve, numbers).prop_map(
        |(host, port, resolve, (weight, priority, max_connections))| NamedServer {
            name: ServerName::new("x").expect("a name"),
            host: host.parse().expect("a host"),
            port: NonZeroU16::new(port).expect("not 0"),
            resolve,
            weight,
            priority,
            max_connections,
            sni: Vec::new(),
        },
    )
}

fn format() -> impl Strategy<Value = AnswerFormat> {
    let path = || {
        let paths = ["data.items", "nodes[0][1].ip", "a b", "\"quoted\""];
        option::of(prop::sample::select(paths.to_vec()).prop_map(|path| path.parse().expect("a path")))
    };
    let paths = (path(), path(), path(), path(), path(), path(), path(), path());
    let json = paths.prop_map(
        |(servers, host, port, name, weight, priority, max_connections, sni)| {
            AnswerFormat::Json(Box::new(JsonPaths {
                servers,
                host,
                port,
                name,
                weight,
                priority,
                max_connections,
                sni,
            }))
        },
    );
    let pattern = r#"^"(?P<host>\S+)":(?P<port>\d+)"#.parse().expect("an expression");
    prop_oneof![Just(AnswerFormat::Text), json, Just(AnswerFormat::Regex(pattern))]
}

fn consul() -> impl Strategy<Value = ConsulQuery> {
    use prop::sample::select;
    let name = || select(vec!["web", "a b/ü"]).prop_map(str::to_owned);
    (service(), name(), vec(name(), 0..3), option::of(name())).prop_map(
        |(agent, service, tags, datacenter)| {
            let agent = HttpService {
                url: agent.url.with_target("/consul"),
                ..agent
            };
            ConsulQuery {
                agent,
                service,
                tags,
                datacenter,
            }
        },
    )
}

fn family() -> impl Strategy<Value = Families> {
    prop::sample::select(vec![Families::Any, Families::Ipv4, Families::Ipv6])
}

fn port() -> impl Strategy<Value = NonZeroU16> {
    (1..=u16::MAX).prop_map(|port| NonZeroU16::new(port).expect("not 0"))
}

/// An API at a socket, or over the network; no token.
fn api() -> impl Strategy<Value = HttpService> {
    let socket = option::of(Just("unix:/run/ü.sock".parse().expect("a path")));
    (service(), socket).prop_map(|(service, socket)| match socket {
        Some(path) => HttpService {
            url: "http://localhost".parse().expect("a URL"),
            socket: Some(path),
            tls: SourceTls::default(),
            token: None,
            ..service
        },
        None => HttpService {
            url: service.url.with_target("/below"),
            token: None,
            ..service
        },
    })
}

fn docker() -> impl Strategy<Value = DockerQuery> {
    use prop::sample::select;
    let labels = vec(
        select(vec!["role=web", "a b", "x="]).prop_map(|label| label.parse().expect("a label")),
        0..3,
    );
    let host = option::of(Just("10.0.0.5".parse().expect("an address")));
    let address = prop_oneof![
        Just(DockerAddress::Network("bridge".to_owned())),
        (host, option::of(Just("HOST_IP".to_owned())))
            .prop_map(|(host, variable)| DockerAddress::Published { host, variable }),
    ];
    (api(), labels, option::of(port()), address, family()).prop_map(
        |(engine, labels, port, address, family)| DockerQuery {
            engine,
            labels,
            port,
            address,
            family,
        },
    )
}

fn kubernetes() -> impl Strategy<Value = KubernetesQuery> {
    use prop::sample::select;
    let ports = prop_oneof![
        port().prop_map(ServicePort::Number),
        Just(ServicePort::Name("http".to_owned()))
    ];
    let via = select(vec![KubernetesVia::Endpoints, KubernetesVia::NodePort]);
    (service(), any::<bool>(), any::<bool>(), ports, via, family()).prop_map(
        |(api, in_cluster, is_named, port, via, family)| KubernetesQuery {
            api: match in_cluster {
                true => HttpService {
                    url: "https://kubernetes.default.svc".parse().expect("a URL"),
                    tls: SourceTls {
                        trust: ServerTrust::Ca("/ca.crt".into()),
                        ..SourceTls::default()
                    },
                    token: Some("file:/token".parse().expect("a secret")),
                    ..api
                },
                false => HttpService {
                    url: api.url.with_target("/"),
                    ..api
                },
            },
            in_cluster,
            namespace: (is_named || !in_cluster).then(|| "shop".to_owned()),
            service: "web".to_owned(),
            port,
            via,
            family,
        },
    )
}

fn lxd() -> impl Strategy<Value = LxdQuery> {
    use prop::sample::select;
    let flavour = select(vec![LxdFlavour::Lxd, LxdFlavour::Incus]);
    let labels = vec(Just("user.role=web".parse().expect("a label")), 0..2);
    let interface = select(vec!["eth0", "enp5s0"]).prop_map(str::to_owned);
    (flavour, api(), labels, option::of(port()), interface, family()).prop_map(
        |(flavour, server, labels, port, interface, family)| LxdQuery {
            flavour,
            server,
            labels,
            port,
            interface,
            family,
        },
    )
}

fn query() -> impl Strategy<Value = NameQuery> {
    use prop::sample::select;
    let resolvers = vec(
        select(vec!["10.0.0.53:53", "[2001:db8::53]:5353"])
            .prop_map(|addr| addr.parse().expect("an address")),
        0..3,
    );
    (
        select(vec!["web.internal", "_http._tcp.example.com."]),
        resolvers,
        select(vec![Families::Any, Families::Ipv4, Families::Ipv6]),
        (millis(1, DAY), millis(1, DAY)),
        millis(1, 600_000),
    )
        .prop_map(|(name, resolvers, family, (one, other), timeout)| NameQuery {
            name: name.parse().expect("a name"),
            resolvers,
            family,
            min_ttl: one.min(other),
            max_ttl: one.max(other),
            timeout,
        })
}

fn service() -> impl Strategy<Value = HttpService> {
    use prop::sample::select;
    let identity =
        option::of(
            option::of(Just("/etc/convey/key.pem".into())).prop_map(|key| CertificateFiles {
                cert: "/etc/convey/cert.pem".into(),
                key,
                ocsp: None,
            }),
        );
    let trust = select(vec![
        ServerTrust::System,
        ServerTrust::Ca("/etc/convey/ca.pem".into()),
        ServerTrust::Anybody,
    ]);
    let name = option::of(Just("a.example".parse().expect("a name")));
    let tls = (trust, name, identity).prop_map(|(trust, server_name, identity)| SourceTls {
        trust,
        server_name,
        identity,
    });
    let token = option::of(select(vec!["file:/etc/convey/token", "${TOKEN}"]))
        .prop_map(|token| token.map(|token| token.parse().expect("a secret")));
    let url = select(vec![
        "http://10.0.0.5:8080/servers?a=%20b",
        "https://inventory.example.com/",
    ]);
    (url, tls, token, millis(1, 600_000)).prop_map(|(url, tls, token, timeout)| HttpService {
        url: url.parse().expect("a URL"),
        socket: None,
        tls: if url.starts_with("https") {
            tls
        } else {
            SourceTls::default()
        },
        token,
        timeout,
    })
}
