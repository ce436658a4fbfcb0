//! What most tests need: a client, a load balancer, servers, and configuration text.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{self, Read as _},
    net::{SocketAddr, TcpStream},
};

use crate::lab::{Convey, Host, Lab, Nginx, PATIENCE};

/// A health check that notices within half a second.
pub const FAST_CHECK: &str =
    r#"health_check = { interval = "200ms", fast_interval = "100ms", timeout = "2s", rise = 1, fall = 2 }"#;

/// No active checks: only what real connections show.
pub const NO_CHECK: &str = "health_check = { enabled = false }";

/// Neither active nor passive checks: a server counts as up whatever happens.
pub const BLIND: &str = "health_check = { enabled = false }\npassive_check = { enabled = false }";

/// A client, a load balancer and web servers called a, b, c … whose answers are their names.
pub struct Site {
    /// Web servers, in order.
    pub webs: Vec<Nginx>,
    /// Where requests come from.
    pub client: Host,
    /// Where Convey runs.
    pub lb: Host,
    /// Last, so that it ends last.
    pub lab: Lab,
}

impl Site {
    /// A site with so many web servers.
    pub fn new(name: &str, webs: usize) -> Self {
        let lab = Lab::new(name);
        let (client, lb) = (lab.host("client"), lab.host("lb"));
        let webs = ["a", "b", "c", "d"][..webs]
            .iter()
            .map(|name| lab.nginx(name, name))
            .collect();
        Self {
            webs,
            client,
            lb,
            lab,
        }
    }

    /// A frontend `web` on port 80 and a backend `web` with all web servers of weight 1.
    pub fn config(&self, frontend: &str, backend_settings: &str) -> String {
        let servers: Vec<_> = self
            .webs
            .iter()
            .map(|web| (web.host().name(), web.addr(), ""))
            .collect();
        self::frontend("web", self.lb.addr(80), "web", frontend) + &backend("web", backend_settings, &servers)
    }

    /// Starts Convey on the load balancer.
    #[track_caller]
    pub fn convey(&self, config: &str) -> Convey {
        self.lab.convey(&self.lb, config)
    }

    /// The address of the frontend `web`.
    pub fn url(&self) -> String {
        format!("http://{}/", self.lb.addr(80))
    }

    /// Sends so many requests, each on a connection of its own, and counts who answered; a failed one counts as
    /// `failed`.
    pub fn ask(&self, requests: u32) -> BTreeMap<String, u32> {
        let command = format!(
            "for i in $(seq {requests}); do curl -s --max-time {} {} || printf failed; echo; done",
            PATIENCE.as_secs(),
            self.url()
        );
        let mut answers = BTreeMap::new();
        for answer in self.client.run(&command).lines() {
            *answers.entry(answer.to_owned()).or_default() += 1;
        }
        answers
    }
}

/// `[frontends.NAME]` on one address.
pub fn frontend(name: &str, listen: SocketAddr, backend: &str, settings: &str) -> String {
    format!("[frontends.{name}]\nlisten_addr = \"{listen}\"\nbackend = \"{backend}\"\n{settings}\n")
}

/// `[backends.NAME]` with servers of name, address and further settings.
pub fn backend(name: &str, settings: &str, servers: &[(&str, SocketAddr, &str)]) -> String {
    let mut text = format!("[backends.{name}]\n{settings}\n");
    for (server, addr, more) in servers {
        let comma = if more.is_empty() { "" } else { ", " };
        let _ = writeln!(text, "servers.{server} = {{ addr = \"{addr}\"{comma}{more} }}");
    }
    text
}

/// The address of a server that gets connections of `lb` and answers none of them.
pub fn silent_server(lab: &Lab, lb: &Host) -> SocketAddr {
    let host = lab.host("silent");
    host.run(&format!("ip route add blackhole {}/32", lb.ip4()));
    host.addr(9)
}

/// Reads one line, byte by byte so that nothing after it is lost. Empty at end of file.
pub fn read_line(stream: &mut impl io::Read) -> io::Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte)? == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&line).into_owned())
}

/// Whether nothing has arrived on the connection so far.
pub fn is_silent(stream: &TcpStream) -> bool {
    stream
        .set_nonblocking(true)
        .expect("a stream that does not block");
    let silent = matches!(
        stream.peek(&mut [0]),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock
    );
    stream.set_nonblocking(false).expect("a stream that blocks");
    silent
}

/// Connects and expects the end of the connection, which may come so early that connecting itself reports it.
#[track_caller]
pub fn expect_turned_away(client: &Host, addr: SocketAddr) {
    match client.try_connect(addr) {
        Ok(mut stream) => expect_end(&mut stream),
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}"),
    }
}

/// Waits until the peer has closed or reset the connection; anything that arrives before is an error.
#[track_caller]
pub fn expect_end(stream: &mut TcpStream) {
    match stream.read(&mut [0]) {
        Ok(0) => {}
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
        Ok(_) => panic!("data instead of the end of the connection"),
        Err(error) => panic!("{error} instead of the end of the connection"),
    }
}
