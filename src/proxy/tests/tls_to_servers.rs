//! TLS to servers: what clients and servers see of it.

mod agreed;

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};

use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned};

use super::rig::{PLENTY, Rig, config, pattern, read_all, server, wait_until};
use crate::{
    PATIENCE,
    base::{ServerTlsFailure, TerminationReason as Reason},
    config::{Backend, BackendTls as Settings, Config, Frontend, ServerAlpn, ServerNameFrom, ServerTrust},
    proxy::ProxyEvent,
    snapshot::{BackendTls, FrontendTls},
    tls::{
        CertificateStore, ClientSettings, Pair, ServerSettings, Trust, client_configs,
        tests::lab::{self, Ca, Client, Key},
    },
};

const NAME: &str = "a.example";

type Served = StreamOwned<ServerConnection, TcpStream>;

/// A server that speaks TLS, each connection on a thread of its own; handshakes that fail are over.
fn tls_server(config: Arc<ServerConfig>, serve: impl Fn(Served) + Send + Sync + 'static) -> SocketAddr {
    server(move |stream| {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut stream = StreamOwned::new(connection, stream);
        if stream.conn.complete_io(&mut stream.sock).is_ok() {
            serve(stream);
        }
    })
}

/// Sends back what it reads, to the end of the stream, and ends in order.
fn echo(mut stream: Served) {
    let mut all = Vec::new();
    if stream.read_to_end(&mut all).is_ok() {
        let _ = stream.write_all(&all);
        end(stream);
    }
}

fn end(mut stream: Served) {
    stream.conn.send_close_notify();
    let _ = stream.flush();
    let _ = stream.sock.shutdown(Shutdown::Write);
    // what still comes is read, or the kernel resets the connection
    let _ = stream.sock.read_to_end(&mut Vec::new());
}

/// A server's certificate by a CA, for these names, without or with tickets.
fn serving(ca: &Ca, names: &[&str], settle: impl FnOnce(&mut ServerSettings)) -> Arc<ServerConfig> {
    let mut settings = ServerSettings::new("server");
    settle(&mut settings);
    lab::server(&settings, &lab::store(&[&ca.issue(Key::P256, names).pair()]))
}

/// A rig that trusts a CA, and whose clients may do so too.
struct Spoken {
    rig: Rig,
    config: Config,
    client: Arc<ClientConfig>,
}

fn trusting(ca: &Ca, identity: Option<Arc<Pair>>, alpn: &[&str]) -> BackendTls {
    let made = client_configs(&ClientSettings {
        trust: Trust::Ca(ca.certificate.pem().into_bytes()),
        identity,
        alpn: alpn.iter().map(|name| (*name).into()).collect(),
    })
    .unwrap();
    BackendTls {
        connections: made.connections,
        checks: made.checks,
        checks_of_any_name: made.checks_of_any_name,
    }
}

fn settings(server_name: ServerNameFrom) -> Settings {
    Settings {
        trust: ServerTrust::Ca("/ca.pem".into()),
        server_name,
        identity: None,
        alpn: ServerAlpn::Client,
    }
}

fn fixed() -> ServerNameFrom {
    ServerNameFrom::Fixed(NAME.into())
}

impl Spoken {
    fn new(
        servers: &[SocketAddr],
        tls: BackendTls,
        change: impl FnOnce(&mut Frontend, &mut Backend),
    ) -> Self {
        let mut written = None;
        let mut rig = Rig::with(
            |addr| {
                let config = config(addr, servers, |frontend, backend| {
                    backend.tls = Some(settings(fixed()));
                    backend.connect_timeout = PATIENCE;
                    change(frontend, backend);
                });
                written = Some(config.clone());
                config
            },
            PLENTY,
        );
        let config = written.unwrap();
        rig.speak_tls(&config, tls);
        Self {
            rig,
            config,
            client: Client::of(&Ca::new("nobody's")).arc(),
        }
    }

    /// Has TLS of clients end here too.
    fn ended(mut self, ca: &Ca, settle: impl FnOnce(&mut ServerSettings)) -> Self {
        let tls = FrontendTls {
            config: serving(ca, &[NAME, "b.example"], settle),
            handshake_timeout: PATIENCE,
            max_handshakes: 1_000,
            challenges: Arc::default(),
            certificates: Arc::new(CertificateStore::default()),
        };
        self.rig.end_tls(&self.config, tls);
        self.client = Client::of(ca).arc();
        self
    }

    fn connect(&self, name: &str) -> StreamOwned<ClientConnection, TcpStream> {
        let name = name.to_owned().try_into().unwrap();
        let connection = ClientConnection::new(Arc::clone(&self.client), name).unwrap();
        StreamOwned::new(connection, self.rig.client())
    }

    /// What a plain client gets for this.
    fn ask(&self, bytes: &[u8]) -> Vec<u8> {
        let mut client = self.rig.client();
        client.write_all(bytes).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        read_all(&mut client)
    }
}

fn ask(stream: &mut StreamOwned<ClientConnection, TcpStream>, bytes: &[u8]) -> Vec<u8> {
    stream.write_all(bytes).unwrap();
    stream.conn.send_close_notify();
    stream.flush().unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    all
}

#[test]
fn a_plain_client_is_served_through_tls_and_sessions_are_resumed() {
    let ca = Ca::new("lab");
    let addr = tls_server(serving(&ca, &[NAME], |_| ()), echo);
    let spoken = Spoken::new(&[addr], trusting(&ca, None, &[]), |_, _| ());
    for resumed in [false, true] {
        assert_eq!(spoken.ask(b"question"), b"question");
        let record = spoken.rig.record();
        assert_eq!(
            (record.reason, record.bytes_in, record.bytes_out),
            (Reason::Normal, 8, 8)
        );
        let tls = record.server_tls.unwrap();
        assert_eq!((tls.version, tls.resumed), ("TLSv1.3", resumed));
        assert_eq!(record.server_tls_failure, None);
    }
}

#[test]
fn another_ca_ends_the_sessions_of_the_one_before_and_no_connection() {
    let (ca, other) = (Ca::new("lab"), Ca::new("other"));
    let addr = tls_server(serving(&ca, &[NAME], |_| ()), echo);
    let mut spoken = Spoken::new(&[addr], trusting(&ca, None, &[]), |_, _| ());
    assert_eq!(spoken.ask(b"1"), b"1");
    let mut open = spoken.rig.client();
    open.write_all(b"still ").unwrap();
    wait_until("it is connected", || spoken.rig.server_totals(0).current == 1);
    let config = spoken.config.clone();
    spoken.rig.speak_tls(&config, trusting(&other, None, &[]));
    let mut refused = spoken.rig.client();
    assert_eq!(
        refused.read(&mut [0]).unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    open.write_all(b"there").unwrap();
    open.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut open), b"still there");
}

#[test]
fn bulk_goes_both_ways_at_once_through_tls_on_both_sides() {
    let ca = Ca::new("lab");
    let addr = tls_server(serving(&ca, &[NAME], |_| ()), |mut stream| {
        let mut buffer = vec![0; 100_000];
        loop {
            let n = stream.read(&mut buffer).unwrap();
            if n == 0 {
                break;
            }
            stream.write_all(&buffer[..n]).unwrap();
        }
        end(stream);
    });
    let spoken = Spoken::new(&[addr], trusting(&ca, None, &[]), |_, _| ()).ended(&ca, |_| ());
    let sent = pattern(24 << 20);
    let mut stream = spoken.connect(NAME);
    let mut got = Vec::new();
    let mut buffer = vec![0; 200_000];
    let mut written = 0;
    for part in sent.chunks(100_000) {
        stream.write_all(part).unwrap();
        written += part.len();
        while got.len() + 500_000 < written {
            let n = stream.read(&mut buffer).unwrap();
            got.extend_from_slice(&buffer[..n]);
        }
    }
    stream.conn.send_close_notify();
    stream.flush().unwrap();
    stream.read_to_end(&mut got).unwrap();
    assert!(got == sent, "{} of {} bytes, or others", got.len(), sent.len());
    let record = spoken.rig.record();
    assert_eq!(
        (record.reason, record.bytes_in, record.bytes_out),
        (Reason::Normal, sent.len() as u64, sent.len() as u64)
    );
    assert!(record.tls.is_some() && record.server_tls.is_some());
}

#[test]
fn a_server_that_speaks_first_is_heard_and_a_silent_connection_ends_in_order() {
    let ca = Ca::new("lab");
    let addr = tls_server(serving(&ca, &[NAME], |_| ()), |mut stream| {
        stream.write_all(b"220 hello\r\n").unwrap();
        end(stream);
    });
    let spoken = Spoken::new(&[addr], trusting(&ca, None, &[]), |_, _| ());
    assert_eq!(read_all(&mut spoken.rig.client()), b"220 hello\r\n");
    let silent = tls_server(serving(&ca, &[NAME], |_| ()), echo);
    let spoken = Spoken::new(&[silent], trusting(&ca, None, &[]), |_, _| ());
    assert_eq!(spoken.ask(b""), b"");
    assert_eq!(spoken.rig.record().reason, Reason::Normal);
}

#[test]
fn a_slow_reader_gets_everything_and_little_of_it_waits_here() {
    let ca = Ca::new("lab");
    let sent = pattern(24 << 20);
    let expected = sent.clone();
    let addr = tls_server(serving(&ca, &[NAME], |_| ()), move |mut stream| {
        let _ = stream.write_all(&sent);
        end(stream);
    });
    for on_both in [false, true] {
        let mut spoken = Spoken::new(&[addr], trusting(&ca, None, &[]), |_, _| ());
        if on_both {
            spoken = spoken.ended(&ca, |_| ());
        }
        let mut slow: Box<dyn ReadWrite> = match on_both {
            true => Box::new(spoken.connect(NAME)),
            false => Box::new(spoken.rig.client()),
        };
        slow.write_all(b"?").unwrap();
        let mut before = 0;
        wait_until("nothing moves any more", || {
            thread::sleep(Duration::from_millis(50));
            let now = spoken.rig.server_totals(0).bytes_out;
            let is_stuck = now > 0 && now == before;
            before = now;
            is_stuck
        });
        assert!(before < expected.len() as u64, "it was taken whole: {before}");
        let mut all = Vec::new();
        slow.read_to_end(&mut all).unwrap();
        assert!(all == expected);
    }
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

#[test]
fn what_a_server_cuts_off_is_not_made_whole_for_a_client_with_tls() {
    let ca = Ca::new("lab");
    let addr = tls_server(serving(&ca, &[NAME], |_| ()), |mut stream| {
        stream.write_all(b"half of ").unwrap();
        // no close_notify: anybody on the way can end a connection so
        stream.sock.shutdown(Shutdown::Write).unwrap();
        let _ = stream.sock.read_to_end(&mut Vec::new());
    });
    let spoken = Spoken::new(&[addr], trusting(&ca, None, &[]), |_, _| ());
    assert_eq!(
        read_all(&mut spoken.rig.client()),
        b"half of ",
        "as HAProxy and nginx do, whose plain clients have no other end"
    );
    let spoken = spoken.ended(&ca, |_| ());
    let mut stream = spoken.connect(NAME);
    let mut all = Vec::new();
    let error = stream.read_to_end(&mut all).unwrap_err();
    assert_eq!(
        (error.kind(), &*all),
        (ErrorKind::UnexpectedEof, &b"half of "[..])
    );
}

#[test]
fn what_a_client_cuts_off_is_not_made_whole_for_a_server_with_tls() {
    let ca = Ca::new("lab");
    let addr = tls_server(serving(&ca, &[NAME], |_| ()), |mut stream| {
        let mut all = Vec::new();
        let is_cut = stream.read_to_end(&mut all).is_err();
        let _ = write!(stream, "{} {is_cut}", all.len());
        end(stream);
    });
    let spoken = Spoken::new(&[addr], trusting(&ca, None, &[]), |_, _| ()).ended(&ca, |_| ());
    for (in_order, expected) in [(true, "3 false"), (false, "3 true")] {
        let mut stream = spoken.connect(NAME);
        stream.write_all(b"all").unwrap();
        if in_order {
            stream.conn.send_close_notify();
        }
        stream.flush().unwrap();
        stream.sock.shutdown(Shutdown::Write).unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        assert_eq!(said, expected);
    }
}

#[test]
fn what_a_server_says_to_a_client_that_was_cut_off_is_not_its_own_failure() {
    let ca = Ca::new("lab");
    for answer in [b"".as_slice(), b"answer"] {
        let addr = tls_server(serving(&ca, &[NAME], |_| ()), |mut stream| {
            let _ = stream.write_all(answer);
            let _ = stream.read_to_end(&mut Vec::new());
            // an alert, as servers send one that take truncation for an attack
            let _ = stream.sock.write_all(b"\x15\x03\x03\x00\x02\x02\x32");
            let _ = stream.sock.read_to_end(&mut Vec::new());
        });
        let spoken = Spoken::new(&[addr], trusting(&ca, None, &[]), |_, _| ()).ended(&ca, |_| ());
        let mut stream = spoken.connect(NAME);
        stream.write_all(b"question").unwrap();
        stream.sock.shutdown(Shutdown::Write).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
        drop(stream);
        let record = spoken.rig.record();
        assert_eq!(
            (record.reason, record.server_tls_failure),
            (Reason::ClientAbort, None)
        );
        let failures = spoken.rig.server_totals(0).tls_failures;
        assert_eq!(failures.iter().sum::<u64>(), 0);
    }
}

#[test]
fn a_server_with_a_wrong_certificate_is_passed_over_and_counted_with_the_reason() {
    let ca = Ca::new("lab");
    let wrong = tls_server(serving(&ca, &["other.example"], |_| ()), echo);
    let good = tls_server(serving(&ca, &[NAME], |_| ()), echo);
    let mut spoken = Spoken::new(&[wrong, good], trusting(&ca, None, &[]), |_, backend| {
        backend.passive_check = Some(crate::config::PassiveCheck {
            max_failures: std::num::NonZeroU32::new(2).unwrap(),
            ejection_time: PATIENCE,
            max_ejection_time: PATIENCE,
        });
    });
    for _ in 0..4 {
        assert_eq!(spoken.ask(b"x"), b"x");
        let record = spoken.rig.record();
        assert_eq!(record.server.unwrap().0.as_str(), "s1");
        assert_eq!(record.server_tls_failure, None);
    }
    let failed = spoken.rig.server_totals(0);
    assert_eq!(
        failed.tls_failures[ServerTlsFailure::CertificateName as usize],
        failed.connect_failures
    );
    assert!(failed.connect_failures >= 2);
    let Ok(ProxyEvent::ServerFailing(key, why)) = spoken.rig.events.try_recv() else {
        panic!("nobody was told");
    };
    assert_eq!(
        (key.server.as_str(), why),
        ("s0", Some(ServerTlsFailure::CertificateName))
    );
}

#[test]
fn without_another_server_the_connection_ends_with_the_reason() {
    let (ca, other) = (Ca::new("lab"), Ca::new("other"));
    let why = |addr: SocketAddr, change: fn(&mut Backend)| {
        let spoken = Spoken::new(&[addr], trusting(&ca, None, &[]), |_, backend| {
            backend.retries = 0;
            change(backend);
        });
        let error = spoken.rig.client().read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        let record = spoken.rig.record();
        (record.reason, record.server_tls_failure.unwrap())
    };
    let unknown = tls_server(serving(&other, &[NAME], |_| ()), echo);
    assert_eq!(
        why(unknown, |_| ()),
        (Reason::ServerTls, ServerTlsFailure::CertificateUnknownCa)
    );
    let plain = server(|mut stream| {
        let _ = stream.write_all(b"220 hello\r\n");
        let _ = stream.read(&mut [0]);
    });
    assert_eq!(why(plain, |_| ()), (Reason::ServerTls, ServerTlsFailure::NotTls));
    let rude = server(|mut stream| {
        let _ = stream.read(&mut [0]);
    });
    assert_eq!(why(rude, |_| ()), (Reason::ServerTls, ServerTlsFailure::Closed));
    let stalled = server(|mut stream| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let hasty = |backend: &mut Backend| backend.connect_timeout = Duration::from_millis(300);
    assert_eq!(
        why(stalled, hasty),
        (Reason::ConnectTimeout, ServerTlsFailure::TimedOut)
    );
}

#[test]
fn a_server_that_stalls_in_the_handshake_is_given_up_in_time_for_another() {
    let ca = Ca::new("lab");
    let stalled = server(|mut stream| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let good = tls_server(serving(&ca, &[NAME], |_| ()), echo);
    let spoken = Spoken::new(&[stalled, good], trusting(&ca, None, &[]), |_, backend| {
        backend.connect_timeout = Duration::from_millis(300);
    });
    let mut retries = 0;
    for _ in 0..2 {
        assert_eq!(spoken.ask(b"x"), b"x");
        retries += spoken.rig.record().retries;
    }
    assert!(retries >= 1, "one of them met the one that stalls");
}
