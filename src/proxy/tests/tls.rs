//! TLS that ends here: what clients and servers see of it.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};

use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::rig::{PLENTY, Rig, config, echo, pattern, server, wait_until};
use crate::{
    PATIENCE,
    access::PerClient,
    base::{AccessReason, HostPattern, TerminationReason as Reason},
    config::{Backend, Frontend, SendProxy, SentTlvs},
    preamble::{Progress, proxy},
    snapshot::FrontendTls,
    tls::{
        CertificateStore, ServerSettings,
        tests::lab::{self, Ca, Client, Key},
    },
};

const NAME: &str = "a.example";

/// A rig whose frontend ends TLS, and whom its clients trust.
struct Ended {
    rig: Rig,
    client: Arc<ClientConfig>,
}

type Tls = StreamOwned<ClientConnection, TcpStream>;

impl Ended {
    fn new(
        servers: &[SocketAddr],
        change: impl FnOnce(&mut Frontend, &mut Backend),
        settle: impl FnOnce(&mut ServerSettings, &mut FrontendTls),
    ) -> Self {
        let ca = Ca::new("lab");
        let pair = ca.issue(Key::P256, &[NAME, "b.example"]).pair();
        let mut settings = ServerSettings::new("web");
        let mut tls = FrontendTls {
            config: lab::server(&settings, &lab::store(&[&pair])),
            handshake_timeout: PATIENCE,
            max_handshakes: 1_000,
            challenges: Arc::default(),
            certificates: Arc::new(CertificateStore::default()),
        };
        settle(&mut settings, &mut tls);
        tls.config = lab::server(&settings, &lab::store(&[&pair]));
        let mut written = None;
        let mut rig = Rig::with(
            |addr| {
                let config = config(addr, servers, change);
                written = Some(config.clone());
                config
            },
            PLENTY,
        );
        rig.end_tls(&written.unwrap(), tls);
        Self {
            rig,
            client: Client::of(&ca).arc(),
        }
    }

    fn plain(servers: &[SocketAddr]) -> Self {
        Self::new(servers, |_, _| (), |_, _| ())
    }

    fn connect(&self) -> Tls {
        self.connect_to(NAME)
    }

    fn connect_to(&self, name: &str) -> Tls {
        let name = name.to_owned().try_into().unwrap();
        let connection = ClientConnection::new(Arc::clone(&self.client), name).unwrap();
        StreamOwned::new(connection, self.rig.client())
    }
}

/// Says all, ends its half, and reads the rest.
fn ask(stream: &mut Tls, bytes: &[u8]) -> Vec<u8> {
    stream.write_all(bytes).unwrap();
    stream.conn.send_close_notify();
    stream.flush().unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    all
}

#[test]
fn a_client_that_ends_its_half_gets_the_whole_answer() {
    let ended = Ended::plain(&[server(echo)]);
    let mut stream = ended.connect();
    assert_eq!(ask(&mut stream, b"question"), b"question");
    let record = ended.rig.record();
    assert_eq!(
        (record.reason, record.bytes_in, record.bytes_out),
        (Reason::Normal, 8, 8)
    );
    let tls = record.tls.unwrap();
    assert_eq!(
        (tls.version, tls.resumed, record.sni.as_deref()),
        ("TLSv1.3", false, Some(NAME))
    );
    assert_eq!(tls.group, Some("X25519MLKEM768"));
}

#[test]
fn bulk_data_arrives_whole_in_both_directions_at_once() {
    let ended = Ended::plain(&[server(|mut stream| {
        // while it reads it writes
        let mut reader = stream.try_clone().unwrap();
        let mut buffer = vec![0; 100_000];
        loop {
            let n = reader.read(&mut buffer).unwrap();
            if n == 0 {
                break;
            }
            stream.write_all(&buffer[..n]).unwrap();
        }
    })]);
    let sent = pattern(24 << 20);
    let mut stream = ended.connect();
    stream.conn.set_buffer_limit(None);
    stream.sock.set_nonblocking(false).unwrap();
    let mut got = Vec::new();
    let mut buffer = vec![0; 200_000];
    for part in sent.chunks(100_000) {
        stream.write_all(part).unwrap();
        while got.len() + 2_000_000 < stream_sent(&sent, part) {
            let n = stream.read(&mut buffer).unwrap();
            got.extend_from_slice(&buffer[..n]);
        }
    }
    stream.conn.send_close_notify();
    stream.flush().unwrap();
    stream.read_to_end(&mut got).unwrap();
    assert!(got == sent, "{} of {} bytes, or others", got.len(), sent.len());
    let record = ended.rig.record();
    assert_eq!(
        (record.bytes_in, record.bytes_out),
        (sent.len() as u64, sent.len() as u64)
    );
}

#[test]
fn an_encrypted_connection_is_no_faster_than_its_rate() {
    let rate = std::num::NonZeroU64::new(4_000_000);
    let ended = Ended::new(
        &[server(|mut stream| stream.write_all(&pattern(4 << 20)).unwrap())],
        |frontend, _| frontend.rates.download = rate,
        |_, _| (),
    );
    let (mut stream, start) = (ended.connect(), std::time::Instant::now());
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    assert!(got == pattern(4 << 20));
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(900), "{took:?}");
}

/// How much was sent up to the end of a part.
fn stream_sent(all: &[u8], part: &[u8]) -> usize {
    part.as_ptr() as usize + part.len() - all.as_ptr() as usize
}

#[test]
fn a_server_that_speaks_first_is_heard_before_the_client_says_anything() {
    let ended = Ended::plain(&[server(|mut stream| stream.write_all(b"220 hello\r\n").unwrap())]);
    let mut all = Vec::new();
    ended.connect().read_to_end(&mut all).unwrap();
    assert_eq!(all, b"220 hello\r\n");
}

#[test]
fn a_slow_reader_gets_everything_and_holds_nobody_up() {
    let sent = pattern(24 << 20);
    let expected = sent.clone();
    let ended = Ended::plain(&[server(move |mut stream| {
        let mut one = [0];
        if stream.read(&mut one).unwrap() == 1 && one == *b"a" {
            let _ = stream.write_all(&sent);
        } else {
            let _ = stream.write_all(b"quick");
        }
    })]);
    let mut slow = ended.connect();
    slow.write_all(b"a").unwrap();
    let mut before = 0;
    wait_until("nothing moves any more", || {
        let now = ended.rig.server_totals(0).bytes_out;
        let is_stuck = now > 0 && now == before;
        before = now;
        is_stuck
    });
    let mut other = ended.connect();
    assert_eq!(ask(&mut other, b"b"), b"quick");
    let mut all = Vec::new();
    slow.read_to_end(&mut all).unwrap();
    assert!(all == expected);
}

#[test]
fn a_handshake_a_byte_at_a_time_and_a_question_in_its_last_flight() {
    let ended = Ended::plain(&[server(echo)]);
    let name = NAME.to_owned().try_into().unwrap();
    let mut connection = ClientConnection::new(Arc::clone(&ended.client), name).unwrap();
    let mut socket = ended.rig.client();
    socket.set_nodelay(true).unwrap();
    // goes out with the end of the handshake
    connection.writer().write_all(b"question").unwrap();
    let mut answer = Vec::new();
    while answer.len() < 8 {
        while connection.wants_write() {
            let mut out = Vec::new();
            connection.write_tls(&mut out).unwrap();
            for byte in out {
                socket.write_all(&[byte]).unwrap();
            }
        }
        if connection.read_tls(&mut socket).unwrap() == 0 {
            break;
        }
        connection.process_new_packets().unwrap();
        if !connection.is_handshaking() && answer.is_empty() {
            connection.send_close_notify();
        }
        let mut part = [0; 100];
        if let Ok(n) = connection.reader().read(&mut part) {
            answer.extend_from_slice(&part[..n]);
        }
    }
    assert_eq!(answer, b"question");
}

#[test]
fn who_speaks_no_tls_is_told_so_and_logged_with_the_reason() {
    let ended = Ended::plain(&[server(echo)]);
    let mut client = ended.rig.client();
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert_eq!(answer.first(), Some(&21), "an alert: {answer:?}");
    let record = ended.rig.record();
    assert_eq!(
        (record.reason, record.tls_failure),
        (Reason::TlsHandshake, Some("not_tls"))
    );
    assert_eq!(record.backend, None);
}

#[test]
fn a_handshake_has_a_time_and_a_number() {
    let ended = Ended::new(
        &[server(echo)],
        |_, _| (),
        |_, tls| {
            tls.handshake_timeout = Duration::from_millis(300);
            tls.max_handshakes = 1;
        },
    );
    let mut silent = ended.rig.client();
    let live = Arc::clone(&ended.rig.snapshot.load().frontends.values().next().unwrap().live);
    wait_until("it shakes hands", || live.handshakes.used() == 1);
    let mut second = ended.rig.client();
    assert_eq!(
        second.read(&mut [0]).unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    assert_eq!(ended.rig.record().reason, Reason::TlsHandshakesFull);
    assert_eq!(
        silent.read(&mut [0]).unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    assert_eq!(ended.rig.record().reason, Reason::TlsHandshakeTimeout);
    wait_until("its place is free", || live.handshakes.used() == 0);
    assert_eq!(ask(&mut ended.connect(), b"x"), b"x");
}

#[test]
fn a_client_network_begins_so_many_handshakes_a_second_and_a_connection_without_one_is_none() {
    let ended = Ended::new(
        &[server(echo)],
        |frontend, _| {
            frontend.limits.per_client = Some(PerClient {
                handshakes_per_second: std::num::NonZeroU32::new(1),
                ..PerClient::default()
            });
        },
        |_, _| (),
    );
    let frontend = Arc::clone(ended.rig.snapshot.load().frontends.values().next().unwrap());
    let silent = ended.rig.client();
    wait_until("it may shake hands", || frontend.live.handshakes.used() == 1);
    assert_eq!(ask(&mut ended.connect(), b"x"), b"x");
    assert_eq!(ended.rig.record().reason, Reason::Normal);
    // more than one more would need a second of its own
    let refused = || frontend.live.counters.totals().refused[AccessReason::ClientHandshakes as usize];
    let mut client = ended.rig.client();
    while refused() == 0 {
        client = ended.rig.client();
        client.write_all(&[22]).unwrap();
        wait_until("it is judged", || {
            refused() > 0 || frontend.live.handshakes.used() == 2
        });
    }
    assert_eq!(
        client.read(&mut [0]).unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    let mut reasons = std::iter::repeat_with(|| ended.rig.record().reason);
    assert!(reasons.any(|reason| reason == Reason::ClientHandshakes));
    drop(silent);
}

#[test]
fn names_and_protocols_lead_to_servers_after_the_handshake_too() {
    let named = |name: &'static str| {
        server(move |mut stream| {
            let _ = stream.write_all(name.as_bytes());
        })
    };
    let ended = Ended::new(
        &[named("one"), named("two")],
        |_, backend| {
            let sni: HostPattern = "b.example".parse().unwrap();
            backend.servers.values_mut().next().unwrap().sni = vec![sni];
        },
        |_, _| (),
    );
    for (name, expected) in [("b.example", "one"), (NAME, "two")] {
        let mut all = String::new();
        ended.connect_to(name).read_to_string(&mut all).unwrap();
        assert_eq!(all, expected);
    }
}

#[test]
fn a_client_that_ends_without_a_word_ends_in_order() {
    let ended = Ended::plain(&[server(echo)]);
    let mut stream = ended.connect();
    stream.write_all(b"question").unwrap();
    stream.flush().unwrap();
    // no close_notify, as many clients do
    stream.sock.shutdown(Shutdown::Write).unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"question");
}

#[test]
fn what_a_server_has_not_ended_in_order_is_no_end_to_the_client() {
    let ended = Ended::plain(&[server(|mut stream| {
        stream.write_all(b"half of ").unwrap();
        thread::sleep(Duration::from_millis(20));
        crate::sys::tcp::reset_on_close(&stream);
    })]);
    let mut stream = ended.connect();
    let mut all = Vec::new();
    let error = stream.read_to_end(&mut all).unwrap_err();
    assert!(
        matches!(
            error.kind(),
            ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof
        ),
        "{error}"
    );
    assert_eq!(all, b"half of ");
    assert_eq!(ended.rig.record().reason, Reason::ServerAbort);
}

#[test]
fn a_server_is_told_of_the_clients_tls() {
    let told = server(|mut stream| {
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        let Progress::Done(header) = proxy::read(&all) else {
            return;
        };
        let ssl = header.tlvs.ssl.unwrap_or_default();
        let text = format!(
            "{} {} {} {}",
            header.tlvs.authority.as_ref().map_or("-", |name| name.as_str()),
            ssl.is_tls,
            ssl.version.as_ref().map_or("-", |version| version.as_str()),
            String::from_utf8_lossy(&all[header.length..])
        );
        let _ = stream.write_all(text.as_bytes());
    });
    let ended = Ended::new(
        &[told],
        |_, backend| {
            backend.send_proxy = Some(SendProxy::V2(SentTlvs {
                authority: true,
                alpn: true,
                ssl: true,
                unique_id: true,
                crc32c: true,
            }));
        },
        |_, _| (),
    );
    let said = ask(&mut ended.connect(), b"payload");
    assert_eq!(
        String::from_utf8(said).unwrap(),
        format!("{NAME} true TLSv1.3 payload")
    );
    assert_eq!(ended.rig.record().bytes_in, 7);
}
