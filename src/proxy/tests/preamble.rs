//! What connections say before their payload: PROXY headers in and out, and ClientHellos that routes need.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

use super::rig::{Rig, closed_port, echo, is_silent, limit_servers, read_all, server, wait_until};
use crate::{
    access::{AccessRules, Action, Limits, PerClient, RuleSubject},
    base::{AccessReason, HostPattern, TerminationReason as Reason},
    config::{AcceptProxy, Backend, Frontend, NonTls, SendProxy, SentTlvs},
    preamble::{
        Progress,
        proxy::{self, ProxyHeader, ProxySource},
        tests::forge::{Forge, records, server_names},
    },
    proxy::Select,
};

const HOUR: Duration = Duration::from_secs(3_600);

/// As short as a test can wait for and a client cannot keep.
const SOON: Duration = Duration::from_millis(50);

fn hello(name: &str) -> Vec<u8> {
    Forge::with(0, server_names(&[name.as_bytes()])).bytes()
}

/// Servers that say who they are when they have read all.
fn named(name: &'static str) -> SocketAddr {
    server(move |mut stream| {
        let mut all = Vec::new();
        if stream.read_to_end(&mut all).is_ok() {
            let _ = stream.write_all(&[name.as_bytes(), &all].concat());
        }
    })
}

/// The first server serves this name, the second all others.
fn by_name(sni: &str) -> impl Fn(&mut Frontend, &mut Backend) {
    let sni: HostPattern = sni.parse().unwrap();
    move |frontend, backend| {
        frontend.routing.client_hello_timeout = HOUR;
        backend.servers.values_mut().next().unwrap().sni = vec![sni.clone()];
    }
}

/// Loopback may speak for others.
fn proxies(required: bool) -> AcceptProxy {
    AcceptProxy {
        from: vec![RuleSubject::Network("127.0.0.0/8".parse().unwrap())],
        unix: false,
        required,
        timeout: HOUR,
    }
}

fn ask(client: &mut TcpStream, bytes: &[u8]) -> Vec<u8> {
    client.write_all(bytes).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    read_all(client)
}

#[track_caller]
fn assert_reset(client: &mut TcpStream) {
    assert_eq!(
        client.read(&mut [0]).unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A server that sends the header that it was given, as text, and then echoes.
fn told() -> SocketAddr {
    server(|mut stream| {
        let mut all = Vec::new();
        if stream.read_to_end(&mut all).is_err() {
            return;
        }
        let Progress::Done(ProxyHeader {
            version,
            source,
            tlvs,
            length,
        }) = proxy::read(&all)
        else {
            let _ = stream.write_all(b"no header");
            return;
        };
        let said = match source {
            ProxySource::Client { client, destination } => format!("{version:?} {client} {destination}"),
            other => format!("{version:?} {other:?}"),
        };
        let name = tlvs.authority.as_ref().map_or("-", |name| name.as_str());
        let id = tlvs.unique_id.as_ref().map_or(0, |id| id.as_bytes().len());
        let rest = String::from_utf8_lossy(&all[length..]).into_owned();
        let _ = stream.write_all(format!("{said} {name} {id} {rest}").as_bytes());
    })
}

#[test]
fn a_name_leads_to_its_server_and_the_hello_arrives_whole() {
    let rig = Rig::new(&[named("one:"), named("two:")], by_name("a.example"));
    for (name, server) in [("a.example", "one:"), ("b.example", "two:")] {
        let hello = hello(name);
        let answer = ask(&mut rig.client(), &hello);
        assert_eq!(answer, [server.as_bytes(), &hello].concat());
        let record = rig.record();
        assert_eq!(record.sni.as_deref(), Some(name));
        assert_eq!(
            (record.reason, record.bytes_in),
            (Reason::Normal, hello.len() as u64)
        );
    }
}

#[test]
fn a_hello_a_byte_at_a_time_in_records_of_a_byte_is_understood() {
    let rig = Rig::new(&[named("one:"), named("two:")], by_name("a.example"));
    let message = Forge::with(0, server_names(&[b"A.example"])).message();
    let bytes = records(&message, &[1]);
    let mut client = rig.client();
    client.set_nodelay(true).unwrap();
    for byte in &bytes {
        client.write_all(&[*byte]).unwrap();
    }
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut client), [b"one:", &bytes[..]].concat());
}

#[test]
fn what_is_no_hello_is_reset_at_its_first_byte_or_goes_where_nothing_is_named() {
    let servers = [named("one:"), named("two:")];
    let rig = Rig::new(&servers, by_name("a.example"));
    let mut client = rig.client();
    client.write_all(b"G").unwrap();
    assert_reset(&mut client);
    assert_eq!(rig.record().reason, Reason::NonTls);

    let rig = Rig::new(&servers, |frontend, backend| {
        by_name("a.example")(frontend, backend);
        frontend.routing.non_tls = NonTls::Backend;
    });
    assert_eq!(ask(&mut rig.client(), b"GET /"), b"two:GET /");
}

#[test]
fn a_hello_that_breaks_a_rule_is_reset() {
    let rig = Rig::new(&[server(echo)], by_name("a.example"));
    let mut client = rig.client();
    let twice = Forge::with(0, server_names(&[b"a"])).and(0, server_names(&[b"b"]));
    client.write_all(&twice.bytes()).unwrap();
    assert_reset(&mut client);
    let record = rig.record();
    assert_eq!((record.reason, record.backend), (Reason::ClientHello, None));
}

#[test]
fn who_does_not_say_hello_in_time_is_reset_or_served_by_a_server_that_speaks_first() {
    let greet = || server(|mut stream| stream.write_all(b"220 hello").unwrap());
    let soon = |frontend: &mut Frontend, backend: &mut Backend| {
        by_name("a.example")(frontend, backend);
        frontend.routing.client_hello_timeout = SOON;
    };
    let rig = Rig::new(&[greet(), greet()], soon);
    assert_reset(&mut rig.client());
    assert_eq!(rig.record().reason, Reason::ClientHelloTimeout);

    let rig = Rig::new(&[greet(), greet()], |frontend, backend| {
        soon(frontend, backend);
        frontend.routing.non_tls = NonTls::Backend;
    });
    assert_eq!(read_all(&mut rig.client()), b"220 hello");
    let mut slow = rig.client();
    slow.write_all(&hello("a.example")[..10]).unwrap();
    assert_reset(&mut slow);
}

#[test]
fn a_client_that_goes_in_the_middle_of_its_hello_is_noted() {
    let rig = Rig::new(&[server(echo)], by_name("a.example"));
    let mut client = rig.client();
    client.write_all(&hello("a.example")[..20]).unwrap();
    drop(client);
    assert_eq!(rig.record().reason, Reason::ClientAbortPreamble);
}

#[test]
fn what_waits_for_a_hello_can_be_cut() {
    let rig = Rig::new(&[server(echo)], by_name("a.example"));
    let mut client = rig.client();
    client.write_all(&hello("a.example")[..20]).unwrap();
    wait_until("it is open", || {
        rig.snapshot
            .load()
            .frontends
            .values()
            .next()
            .unwrap()
            .live
            .slots
            .used()
            == 1
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(rig.workers.close(&Select::All, Reason::Killed));
    assert_eq!(rig.record().reason, Reason::Killed);
}

#[test]
fn a_header_says_who_the_client_is() {
    let rig = Rig::new(&[server(echo)], |frontend, _| {
        frontend.proxy_protocol = Some(proxies(true));
    });
    let source = ProxySource::client(addr("192.0.2.7:1234"), addr("203.0.113.1:443"));
    let v2 = proxy::write_v2(source, &proxy::Tlvs::default(), true);
    for header in [proxy::write_v1(source), v2] {
        // with the payload in one segment, and a byte at a time
        let mut client = rig.client();
        assert_eq!(ask(&mut client, &[&header[..], b"payload"].concat()), b"payload");
        let record = rig.record();
        assert_eq!(record.client.socket_addr().unwrap(), addr("192.0.2.7:1234"));
        assert_eq!(record.peer.addr().unwrap().0, client.local_addr().unwrap());
        assert_eq!(record.bytes_in, 7, "the header is not the client's");
        let mut client = rig.client();
        client.set_nodelay(true).unwrap();
        for byte in header {
            client.write_all(&[byte]).unwrap();
        }
        assert_eq!(ask(&mut client, b"payload"), b"payload");
        assert_eq!(rig.record().client.socket_addr().unwrap(), addr("192.0.2.7:1234"));
    }
    for header in [
        proxy::write_v1(ProxySource::Unknown),
        proxy::write_v2(ProxySource::Local, &proxy::Tlvs::default(), false),
    ] {
        let mut client = rig.client();
        assert_eq!(ask(&mut client, &header), b"");
        assert_eq!(
            rig.record().client.socket_addr().unwrap(),
            client.local_addr().unwrap(),
            "the peer itself"
        );
    }
}

#[test]
fn where_a_header_is_required_nothing_else_is_served() {
    let rig = Rig::new(&[server(echo)], |frontend, _| {
        frontend.proxy_protocol = Some(AcceptProxy {
            timeout: SOON,
            ..proxies(true)
        });
    });
    for wrong in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"PROXY TCP4 1.2.3.4\r\n",
        b"PROXY TCP4 01.2.3.4 1.2.3.4 1 2\r\n",
    ] {
        let mut client = rig.client();
        client.write_all(wrong).unwrap();
        assert_reset(&mut client);
        assert_eq!(rig.record().reason, Reason::ProxyHeader);
    }
    let mut client = rig.client();
    client.write_all(b"PROXY TCP4 ").unwrap();
    assert_reset(&mut client);
    assert_eq!(rig.record().reason, Reason::ProxyHeaderTimeout);
    assert_reset(&mut rig.client());
    assert_eq!(rig.record().reason, Reason::ProxyHeaderTimeout);
}

#[test]
fn a_peer_that_may_not_speak_for_others_is_refused_or_speaks_for_itself() {
    let elsewhere = |required| AcceptProxy {
        from: vec![RuleSubject::Network("192.0.2.0/24".parse().unwrap())],
        ..proxies(required)
    };
    let rig = Rig::new(&[server(echo)], |frontend, _| {
        frontend.proxy_protocol = Some(elsewhere(true));
    });
    assert_reset(&mut rig.client());
    let frontend = rig
        .snapshot
        .load()
        .frontends
        .values()
        .next()
        .map(std::sync::Arc::clone)
        .unwrap();
    let refused = frontend.live.counters.totals().refused[AccessReason::UntrustedProxy as usize];
    assert_eq!(refused, 1);

    let rig = Rig::new(&[server(echo)], |frontend, _| {
        frontend.proxy_protocol = Some(elsewhere(false));
    });
    let forged = proxy::write_v1(ProxySource::client(addr("192.0.2.7:1"), addr("192.0.2.8:2")));
    let mut client = rig.client();
    assert_eq!(ask(&mut client, &forged), forged, "it is payload");
    assert_eq!(
        rig.record().client.socket_addr().unwrap(),
        client.local_addr().unwrap()
    );
}

#[test]
fn where_a_header_is_optional_a_peer_without_one_is_the_client() {
    let rig = Rig::new(&[server(echo)], |frontend, _| {
        frontend.proxy_protocol = Some(proxies(false));
    });
    let mut client = rig.client();
    assert_eq!(ask(&mut client, b"PRO, but no header"), b"PRO, but no header");
    assert_eq!(
        rig.record().client.socket_addr().unwrap(),
        client.local_addr().unwrap()
    );
    let greeting = server(|mut stream| stream.write_all(b"220 hello").unwrap());
    let rig = Rig::new(&[greeting], |frontend, _| {
        frontend.proxy_protocol = Some(AcceptProxy {
            timeout: SOON,
            ..proxies(false)
        });
    });
    assert_eq!(
        read_all(&mut rig.client()),
        b"220 hello",
        "it waits for the server"
    );
}

#[test]
fn rules_and_limits_are_asked_of_the_client_that_the_header_names() {
    let rig = Rig::new(&[server(echo)], |frontend, _| {
        frontend.proxy_protocol = Some(proxies(true));
        frontend.access = Some(AccessRules {
            default: Action::Allow,
            // the peer itself, and a client
            rules: vec![
                "deny 127.0.0.0/8".parse().unwrap(),
                "deny 192.0.2.66".parse().unwrap(),
            ],
        });
        frontend.limits = Limits {
            new_per_second: None,
            per_client: Some(PerClient {
                connections: std::num::NonZeroU32::new(1),
                ..PerClient::default()
            }),
        };
    });
    let connect = |from: &str| {
        let mut client = rig.client();
        let header = proxy::write_v1(ProxySource::client(addr(from), addr("203.0.113.1:443")));
        client.write_all(&header).unwrap();
        client
    };
    assert_reset(&mut connect("192.0.2.66:1"));
    let record = rig.record();
    assert_eq!(
        (record.reason, record.client.socket_addr().unwrap()),
        (Reason::AccessRefused, addr("192.0.2.66:1"))
    );
    let mut first = connect("192.0.2.7:1");
    wait_until("it is served", || rig.server_totals(0).current == 1);
    assert_reset(&mut connect("192.0.2.7:2"));
    assert_eq!(rig.record().reason, Reason::AccessRefused);
    assert_eq!(ask(&mut connect("192.0.2.8:1"), b"x"), b"x", "another client");
    assert_eq!(rig.record().reason, Reason::Normal);
    assert_eq!(ask(&mut first, b"x"), b"x");
    rig.record();
    assert_eq!(
        ask(&mut connect("192.0.2.7:3"), b"x"),
        b"x",
        "it counts no longer"
    );
    let frontend = rig
        .snapshot
        .load()
        .frontends
        .values()
        .next()
        .map(std::sync::Arc::clone)
        .unwrap();
    let refused = frontend.live.counters.totals().refused;
    assert_eq!(refused[AccessReason::Denied as usize], 1);
    assert_eq!(refused[AccessReason::ClientConnections as usize], 1);
}

#[test]
fn a_server_is_told_of_the_client_before_anything_else() {
    for (how, version) in [(SendProxy::V1, "V1"), (SendProxy::V2(SentTlvs::default()), "V2")] {
        let rig = Rig::new(&[told()], |_, backend| backend.send_proxy = Some(how));
        let mut client = rig.client();
        let from = client.local_addr().unwrap();
        let said = String::from_utf8(ask(&mut client, b"payload")).unwrap();
        assert_eq!(said, format!("{version} {from} {} - 0 payload", rig.addr));
        assert_eq!(rig.record().bytes_in, 7, "what we say is not the client's");
        let silent = String::from_utf8(ask(&mut rig.client(), b"")).unwrap();
        assert!(silent.starts_with(version), "{silent}");
    }
}

#[test]
fn what_a_header_says_is_passed_on_with_what_was_learned() {
    let tlvs = SentTlvs {
        authority: true,
        unique_id: true,
        crc32c: true,
        ..SentTlvs::default()
    };
    let rig = Rig::new(&[closed_port(), told()], |frontend, backend| {
        frontend.proxy_protocol = Some(proxies(true));
        frontend.routing.client_hello_timeout = HOUR;
        backend.send_proxy = Some(SendProxy::V2(tlvs));
        for server in backend.servers.values_mut() {
            server.sni = vec!["*.example".parse().unwrap()];
        }
    });
    let header = proxy::write_v1(ProxySource::client(
        addr("[2001:db8::7]:1234"),
        addr("[2001:db8::1]:443"),
    ));
    for _ in 0..4 {
        let mut client = rig.client();
        let said = ask(&mut client, &[header.clone(), hello("a.example")].concat());
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(
            said.starts_with("V2 [2001:db8::7]:1234 [2001:db8::1]:443 a.example 32 "),
            "{said}"
        );
        let record = rig.record();
        assert!(record.unique_id.is_some(), "and the log has it too");
        assert_eq!(record.bytes_in, hello("a.example").len() as u64);
    }
}

#[test]
fn a_header_goes_before_what_waited_in_the_queue() {
    let rig = Rig::new(&[told()], |_, backend| {
        backend.send_proxy = Some(SendProxy::V1);
        backend.queue_timeout = HOUR;
        limit_servers(backend, 1);
    });
    let mut first = rig.client();
    wait_until("it is served", || rig.server_totals(0).current == 1);
    let mut second = rig.queued_client();
    second.write_all(b"early").unwrap();
    assert!(is_silent(&second));
    assert!(ask(&mut first, b"").starts_with(b"V1"));
    let said = String::from_utf8(ask(&mut second, b"")).unwrap();
    assert!(said.starts_with("V1 ") && said.ends_with(" early"), "{said}");
}
