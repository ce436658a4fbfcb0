//! QUIC through the proxy: what its sessions are to a protocol that has its own.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use quinn::{ClientConfig, Endpoint, EndpointConfig, ServerConfig, TokioRuntime, VarInt};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tokio::sync::oneshot;

use crate::{
    Test,
    lab::{Family, Host, Lab},
    tests,
    udp::quoted,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![quic_connections_go_through_whole_while_the_configuration_changes];

const NAME: &str = "www.example.com";
const CONNECTIONS: usize = 12;
const BYTES: usize = 1 << 20;

/// A QUIC server that gives back each stream with its letter in front; ends when dropped.
struct Server {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// A certificate that vouches for itself, and its key.
fn certificate() -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let made = rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).expect("a certificate");
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    (made.cert.der().clone(), key.into())
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().expect("a runtime")
}

/// An endpoint of QUIC with this socket; inside a runtime.
fn endpoint(socket: UdpSocket, config: Option<ServerConfig>) -> Endpoint {
    let runtime = Arc::new(TokioRuntime);
    Endpoint::new(EndpointConfig::default(), config, socket, runtime).expect("an endpoint")
}

fn socket(host: &Host, addr: SocketAddr) -> UdpSocket {
    host.inside(|| UdpSocket::bind(addr)).expect("a socket")
}

impl Server {
    fn start(socket: UdpSocket, config: ServerConfig, letter: u8) -> Self {
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            runtime().block_on(async {
                let endpoint = endpoint(socket, Some(config));
                let serve = async {
                    while let Some(incoming) = endpoint.accept().await {
                        tokio::spawn(async move {
                            let connection = incoming.await.expect("a handshake");
                            while let Ok((mut answer, mut question)) = connection.accept_bi().await {
                                let bytes = question.read_to_end(BYTES).await.expect("a stream");
                                answer.write_all(&[letter]).await.expect("written");
                                answer.write_all(&bytes).await.expect("written");
                                answer.finish().expect("finished");
                            }
                        });
                    }
                };
                tokio::select! {
                    () = serve => {}
                    _ = stopped => {}
                }
            });
        });
        Self {
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server has not failed");
        }
    }
}

fn quic_connections_go_through_whole_while_the_configuration_changes() {
    let lab = Lab::new("quic");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    let (certificate, key) = certificate();
    let config = ServerConfig::with_single_cert(vec![certificate.clone()], key).expect("a configuration");
    let servers = [(b'a', 7_001), (b'b', 7_002)]
        .map(|(letter, port)| Server::start(socket(&host, host.addr(port)), config.clone(), letter));
    let text = |round: usize| {
        format!(
            "[frontends.quic]\nprotocol = \"udp\"\nlisten_addr = [{}, {}]\nbackend = \"quic\"\nmax_connections = {}\n\
             [backends.quic]\nservers.a = {{ addr = \"{}\" }}\nservers.b = {{ addr = \"{}\" }}\n",
            quoted(lb.addr(443)),
            quoted(lb.addr_of(Family::V6, 443)),
            1_000 + round,
            host.addr(7_001),
            host.addr(7_002),
        )
    };
    let convey = lab.convey(&lb, &text(0));
    let mut roots = RootCertStore::empty();
    roots.add(certificate).expect("a root");
    let client_config = ClientConfig::with_root_certificates(Arc::new(roots)).expect("a configuration");
    let sockets: Vec<_> = (0..CONNECTIONS)
        .map(|index| {
            let family = if index % 2 == 0 { Family::V4 } else { Family::V6 };
            (
                socket(&client, client.addr_of(family, 0)),
                lb.addr_of(family, 443),
            )
        })
        .collect();
    let (letters, reloads) = std::thread::scope(|scope| {
        let clients: Vec<_> = (sockets.into_iter())
            .map(|(socket, to)| {
                let config = client_config.clone();
                scope.spawn(move || runtime().block_on(ask_in_rounds(socket, config, to)))
            })
            .collect();
        let mut reloads = 0;
        while clients.iter().any(|client| !client.is_finished()) {
            reloads += 1;
            convey.reload(&text(reloads));
        }
        let letters: Vec<u8> = (clients.into_iter())
            .map(|client| client.join().expect("whole connections"))
            .collect();
        (letters, reloads)
    });
    assert!(reloads > 0);
    assert!(letters.contains(&b'a') && letters.contains(&b'b'), "{letters:?}");
    let traffic = &convey.status().frontends["quic"].traffic;
    assert_eq!(traffic.connections_total, CONNECTIONS as u64, "one session each");
    drop(servers);
}

/// Sends streams through one connection and compares what comes back; who has answered.
async fn ask_in_rounds(socket: UdpSocket, config: ClientConfig, to: SocketAddr) -> u8 {
    let endpoint = endpoint(socket, None);
    let connecting = endpoint.connect_with(config, to, NAME).expect("an attempt");
    let connection = connecting.await.expect("a handshake");
    let sent: Vec<u8> = (0..BYTES).map(|i| (i.wrapping_mul(31) >> 5) as u8).collect();
    let mut letters = Vec::new();
    for _ in 0..3 {
        let (mut question, mut answer) = connection.open_bi().await.expect("a stream");
        question.write_all(&sent).await.expect("sent");
        question.finish().expect("finished");
        let got = answer.read_to_end(BYTES + 1).await.expect("an answer");
        assert!(got[1..] == sent[..], "the bytes are the same");
        letters.push(got[0]);
    }
    connection.close(VarInt::from_u32(0), b"");
    tokio::time::timeout(Duration::from_secs(1), endpoint.wait_idle())
        .await
        .ok();
    assert!(letters.iter().all(|letter| *letter == letters[0]), "one server");
    letters[0]
}
