//! Against a name server of the test's own, by UDP and TCP.

use std::{collections::BTreeSet, sync::Arc};

use hickory_resolver::proto::{
    op::{Message, ResponseCode},
    rr::{
        Record,
        rdata::{CNAME, SRV},
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, UdpSocket},
    task::AbortHandle,
};

use super::*;

/// What the server knows: records, and those that it sends along with SRV records.
#[derive(Default)]
struct Zone {
    records: Vec<Record>,
    glue: Vec<Record>,
    /// Names that exist without records.
    empty: BTreeSet<String>,
    /// Names that it does not answer for.
    refused: BTreeSet<String>,
    /// Kinds that it fails to answer.
    failing: Vec<RecordType>,
    /// Whether UDP answers are cut off.
    truncates: bool,
}

struct NameServer {
    addr: SocketAddr,
    tasks: Vec<AbortHandle>,
}

impl NameServer {
    async fn start(zone: Zone) -> Self {
        let zone = Arc::new(zone);
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            // the port of one protocol may be somebody else's of the other
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let addr = udp.local_addr().unwrap();
        let of_udp = Arc::clone(&zone);
        let by_udp = tokio::spawn(async move {
            let mut buffer = [0; 4_096];
            while let Ok((length, from)) = udp.recv_from(&mut buffer).await {
                let mut answer = of_udp.answer(&buffer[..length]);
                answer.metadata.truncation = of_udp.truncates;
                if of_udp.truncates {
                    answer.answers.clear();
                }
                let _ = udp.send_to(&answer.to_vec().unwrap(), from).await;
            }
        });
        let by_tcp = tokio::spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                while let Ok(length) = stream.read_u16().await {
                    let mut query = vec![0; length.into()];
                    stream.read_exact(&mut query).await.unwrap();
                    let answer = zone.answer(&query).to_vec().unwrap();
                    stream.write_u16(answer.len().try_into().unwrap()).await.unwrap();
                    stream.write_all(&answer).await.unwrap();
                }
            }
        });
        Self {
            addr,
            tasks: vec![by_udp.abort_handle(), by_tcp.abort_handle()],
        }
    }

    fn resolver(&self) -> Resolver {
        Resolver::of_servers(&[self.addr]).unwrap()
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Zone {
    fn answer(&self, query: &[u8]) -> Message {
        let asked = Message::from_vec(query).unwrap();
        let query: Query = asked.queries[0].clone();
        let mut answer = Message::response(asked.metadata.id, asked.metadata.op_code);
        answer.add_query(query.clone());
        let of_name = |record: &&Record| record.name == *query.name();
        answer.add_answers(
            (self.records.iter())
                .filter(|record| {
                    let is_wanted = [query.query_type(), RecordType::CNAME].contains(&record.record_type());
                    of_name(record) && is_wanted
                })
                .cloned(),
        );
        if query.query_type() == RecordType::SRV {
            answer.add_additionals(self.glue.iter().cloned());
        }
        let name = query.name().to_utf8();
        answer.metadata.response_code = if self.refused.contains(&name) {
            ResponseCode::Refused
        } else if self.failing.contains(&query.query_type()) {
            answer.answers.clear();
            ResponseCode::ServFail
        } else if self.records.iter().any(|record| of_name(&record)) || self.empty.contains(&name) {
            ResponseCode::NoError
        } else {
            ResponseCode::NXDomain
        };
        answer
    }
}

fn record(name: &str, ttl: u32, data: RData) -> Record {
    Record::from_rdata(Name::from_str(name).unwrap(), ttl, data)
}

fn address(name: &str, ttl: u32, ip: &str) -> Record {
    record(name, ttl, ip.parse::<IpAddr>().unwrap().into())
}

fn service(name: &str, ttl: u32, (priority, weight, port): (u16, u16, u16), target: &str) -> Record {
    let target = Name::from_str(target).unwrap();
    record(name, ttl, RData::SRV(SRV::new(priority, weight, port, target)))
}

const BOTH: &[IpFamily] = &[IpFamily::V4, IpFamily::V6];

fn ips(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|ip| ip.parse().unwrap()).collect()
}

#[tokio::test]
async fn a_name_has_addresses_of_both_families_for_the_shorter_time() {
    let zone = Zone {
        records: vec![
            address("web.test.", 30, "10.0.0.1"),
            address("web.test.", 20, "10.0.0.2"),
            address("web.test.", 60, "2001:db8::1"),
            address("four.test.", 7, "10.0.0.4"),
        ],
        ..Zone::default()
    };
    let server = NameServer::start(zone).await;
    let found = server.resolver().addresses("web.test", BOTH).await.unwrap();
    let records: BTreeSet<_> = found.records.into_iter().collect();
    assert_eq!(
        records,
        ips(&["10.0.0.1", "10.0.0.2", "2001:db8::1"])
            .into_iter()
            .collect()
    );
    assert_eq!(found.ttl, Duration::from_secs(20));
    let six = server
        .resolver()
        .addresses("web.test.", &[IpFamily::V6])
        .await
        .unwrap();
    assert_eq!(
        (six.records, six.ttl),
        (ips(&["2001:db8::1"]), Duration::from_secs(60))
    );
    let four = server.resolver().addresses("four.test", BOTH).await.unwrap();
    assert_eq!(
        four.records,
        ips(&["10.0.0.4"]),
        "no address of the other family is no error"
    );
}

#[tokio::test]
async fn aliases_that_lead_in_a_circle_are_told_from_those_that_lead_to_nothing() {
    let alias = |name: &str, to: &str| record(name, 30, RData::CNAME(CNAME(Name::from_str(to).unwrap())));
    let zone = Zone {
        records: vec![
            alias("web.test.", "www.test."),
            alias("www.test.", "web.test."),
            alias("self.test.", "self.test."),
            alias("good.test.", "real.test."),
            address("real.test.", 20, "10.0.0.1"),
            alias("vain.test.", "empty.test."),
        ],
        empty: ["empty.test.".to_owned()].into(),
        ..Zone::default()
    };
    let server = NameServer::start(zone).await;
    let resolver = server.resolver();
    let found = async |name: &str| {
        let found = resolver.addresses(name, BOTH).await;
        found
            .map(|answer| answer.records)
            .map_err(|error| error.to_string())
    };
    assert_eq!(found("good.test").await, Ok(ips(&["10.0.0.1"])));
    for name in ["web.test", "self.test"] {
        assert_eq!(
            found(name).await.unwrap_err(),
            format!("{name}: its aliases (CNAME) lead in a circle, or are more than 16")
        );
    }
    let vain = found("vain.test").await.unwrap_err();
    assert!(vain.starts_with("vain.test: it has no A"), "{vain}");
}

#[tokio::test]
async fn what_is_wrong_is_told_apart() {
    let zone = Zone {
        records: vec![address("half.test.", 30, "10.0.0.1")],
        empty: ["empty.test.".to_owned()].into(),
        failing: vec![RecordType::AAAA],
        ..Zone::default()
    };
    let server = NameServer::start(zone).await;
    let resolver = server.resolver();
    let told = async |name: &str, families| resolver.addresses(name, families).await.unwrap_err().to_string();
    assert_eq!(
        told("none.test", &[IpFamily::V4]).await,
        "none.test: no such name (NXDOMAIN)"
    );
    assert_eq!(
        told("empty.test", &[IpFamily::V4]).await,
        "empty.test: it has no A record"
    );
    // a part of the addresses is not taken for all
    let failed = told("half.test", BOTH).await;
    assert!(
        failed.starts_with("half.test (AAAA): the name server answers: "),
        "{failed}"
    );
    assert!(told("..", BOTH).await.contains("is no name of a host"));
    let nobody = UdpSocket::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let resolver = Resolver::of_servers(&[nobody]).unwrap();
    let unreached = resolver.addresses("web.test", &[IpFamily::V4]).await.unwrap_err();
    assert!(matches!(unreached, ResolveError::Failed { .. }), "{unreached}");
    // hosts are known without a name server
    for resolv_conf in [&b""[..], b"search example.com\n", b"options timeout:0"] {
        let alone = Resolver::of_host(resolv_conf, b"10.9.9.9 db\n").unwrap();
        let found = alone.addresses("db", BOTH).await.unwrap();
        assert_eq!(found.records, ips(&["10.9.9.9"]));
    }
}

#[tokio::test]
async fn two_hundred_addresses_come_by_tcp() {
    let many: Vec<_> = (0..200)
        .map(|n| address("many.test.", 30, &format!("10.1.0.{n}")))
        .collect();
    let zone = Zone {
        records: many,
        truncates: true,
        ..Zone::default()
    };
    let server = NameServer::start(zone).await;
    let found = server
        .resolver()
        .addresses("many.test", &[IpFamily::V4])
        .await
        .unwrap();
    assert_eq!(found.records.len(), 200);
}

#[tokio::test]
async fn services_come_with_the_addresses_of_their_hosts_sent_along_or_asked_for() {
    let zone = Zone {
        records: vec![
            service("_http._tcp.test.", 90, (1, 5, 8_001), "one.test."),
            service("_http._tcp.test.", 90, (2, 0, 8_002), "two.test."),
            service("_none._tcp.test.", 90, (0, 0, 0), "."),
            address("two.test.", 40, "10.0.0.2"),
            address("two.test.", 40, "10.0.0.3"),
        ],
        glue: vec![address("one.test.", 30, "10.0.0.1")],
        ..Zone::default()
    };
    let server = NameServer::start(zone).await;
    let resolver = server.resolver();
    let mut found = resolver
        .services("_http._tcp.test", &[IpFamily::V4])
        .await
        .unwrap();
    found.records.sort_by_key(|service| service.port);
    let of = |(priority, weight, port), target: &str, addresses: &[&str]| Service {
        priority,
        weight,
        port,
        target: target.to_owned(),
        addresses: ips(addresses),
    };
    assert_eq!(
        found.records,
        [
            of((1, 5, 8_001), "one.test", &["10.0.0.1"]),
            of((2, 0, 8_002), "two.test", &["10.0.0.2", "10.0.0.3"]),
        ]
    );
    assert_eq!(found.ttl, Duration::from_secs(40));
    let none = resolver
        .services("_none._tcp.test", &[IpFamily::V4])
        .await
        .unwrap();
    assert_eq!(none.records, []);
    // of a host with glue of one family, the other one is asked for too, and there is no such name: the others count
    let asked = resolver.services("_http._tcp.test", BOTH).await.unwrap();
    let addresses: BTreeSet<_> = asked
        .records
        .into_iter()
        .flat_map(|service| service.addresses)
        .collect();
    assert_eq!(addresses, ips(&["10.0.0.2", "10.0.0.3"]).into_iter().collect());
}

#[tokio::test]
async fn a_host_asks_by_its_search_list_and_its_hosts_file() {
    let zone = Zone {
        records: vec![
            address("web.example.com.", 30, "10.0.0.1"),
            address("a.b.", 30, "10.0.0.2"),
            address("a.b.example.com.", 30, "10.0.0.3"),
            service("_http._tcp.example.com.", 90, (1, 5, 8_001), "web.example.com."),
        ],
        // as those do that know a network of its own
        refused: [".", "web.", "none."].map(str::to_owned).into(),
        ..Zone::default()
    };
    let server = NameServer::start(zone).await;
    let host = |hosts: &[u8]| {
        let (mut config, options) =
            parse_resolv_conf("nameserver 127.0.0.1\nsearch other.com example.com\n").unwrap();
        // resolv.conf(5) has no ports
        let mut to = NameServerConfig::udp_and_tcp(server.addr.ip());
        for connection in &mut to.connections {
            connection.port = server.addr.port();
        }
        config = ResolverConfig::from_parts(config.domain, config.search, vec![to]);
        let mut known = Hosts::default();
        known.read_hosts_conf(hosts).unwrap();
        Resolver::build(config, options, known).unwrap()
    };
    // the other family is that of the same name, and not of the next of the list
    let by_search = host(b"").addresses("web", BOTH).await.unwrap();
    assert_eq!(by_search.records, ips(&["10.0.0.1"]));
    let with_dots = host(b"").addresses("a.b", BOTH).await.unwrap();
    assert_eq!(with_dots.records, ips(&["10.0.0.2"]), "as it is, first");
    let by_service = host(b"").services("_http._tcp", &[IpFamily::V4]).await.unwrap();
    assert_eq!(by_service.records.len(), 1);
    let none = host(b"").addresses("none", BOTH).await;
    assert_eq!(none, Err(ResolveError::NoSuchName("none".to_owned())));
    let by_file = host(b"10.9.9.9 db\n")
        .addresses("db", &[IpFamily::V4])
        .await
        .unwrap();
    assert_eq!(by_file.records, ips(&["10.9.9.9"]));
}
