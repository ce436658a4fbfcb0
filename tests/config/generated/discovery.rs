//! Any source of servers.

use std::num::NonZeroU16;

use convey::{
    access::Network,
    config::{
        AnswerFormat, CertificateFiles, Discovery, DiscoverySource, Families, HttpService, JsonPaths,
        MaxRemoval, NameQuery, OnFailure, ServerTrust, SourceTls,
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
    let source = prop_oneof![
        (select(vec!["/etc/convey/web.servers", "/ü"]), format()).prop_map(|(path, format)| {
            let path = path.into();
            DiscoverySource::File { path, format }
        }),
        (command(), format()).prop_map(|(command, format)| DiscoverySource::Exec { command, format }),
        (service(), format()).prop_map(|(service, format)| DiscoverySource::Http { service, format }),
        (query(), 1..=u16::MAX).prop_map(|(query, port)| DiscoverySource::Dns {
            query,
            port: NonZeroU16::new(port).expect("not 0"),
        }),
        query().prop_map(|query| DiscoverySource::Srv { query }),
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
    option::of(discovery.prop_map(
        |(source, interval, on_failure, (one, other), max_removal, servers_within, max_answer_bytes)| {
            Discovery {
                source,
                interval,
                on_failure,
                max_servers: one.max(other),
                min_servers: one.min(other).get() - 1,
                max_removal,
                servers_within,
                max_answer_bytes,
            }
        },
    ))
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
        tls: if url.starts_with("https") {
            tls
        } else {
            SourceTls::default()
        },
        token,
        timeout,
    })
}
