//! TLS that ends at the load balancer, whose servers get plain TCP: Convey against HAProxy in `mode tcp` and nginx's stream
//! module with the same certificate.
//!
//! All have their default settings, session tickets among them, but for the group: the peers are told to use X25519, and
//! clients of the handshake rows offer nothing else where the row does not say so.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use rustls::NamedGroup;

use crate::{
    lab::{load::Wrk, servers::TcpServer},
    meter::Meter,
    rig::Rig,
    rows::{Cell, IDLE_CONNECTIONS, check_steering, idle},
    subjects::{BULK_PORT, Configs, Subject, convey_globals, haproxy_globals, nginx_globals},
    tls_client::{NAME, Offer, Visitors, download},
};

/// Where web servers are reached by TLS; the server of bulk is behind [`BULK_PORT`].
const PORT: u16 = 443;

/// Connections that clients have open at a time.
const AT_A_TIME: u32 = 64;

/// What the server of bulk sends at a time.
const CHUNK: usize = 256 << 10;

/// The key of the load balancer's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// ECDSA with the curve P-256.
    P256,
    /// RSA with 2,048 bits.
    Rsa,
}

impl Key {
    /// As `openssl req` takes it.
    const fn option(self) -> &'static str {
        match self {
            Self::P256 => "ec -pkeyopt ec_paramgen_curve:P-256",
            Self::Rsa => "rsa:2048",
        }
    }
}

/// The load balancer's certificate and who signed it, in the rig's directory.
struct Pki {
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
    /// Certificate and key, as HAProxy takes them.
    pair: PathBuf,
}

impl Pki {
    fn new(rig: &Rig, key: Key) -> Self {
        let dir = rig.lb.path("pki");
        fs::create_dir_all(&dir).expect("a directory");
        // Convey is not root
        rig.lb.run(&format!(
            "cd {} && exec 2>&1
             openssl req -x509 -newkey {ca} -nodes -days 30 -subj /CN=bench-ca -keyout ca.key -out ca.pem &&
             openssl req -newkey {key} -nodes -subj /CN={NAME} -keyout lb.key -out lb.csr &&
             echo subjectAltName=DNS:{NAME} > lb.ext &&
             openssl x509 -req -in lb.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile lb.ext -out lb.pem &&
             cat lb.pem lb.key > pair.pem && chmod 644 lb.key",
            dir.display(),
            ca = Key::P256.option(),
            key = key.option(),
        ));
        let [ca, certificate, key, pair] =
            ["ca.pem", "lb.pem", "lb.key", "pair.pem"].map(|file| dir.join(file));
        Self {
            ca,
            certificate,
            key,
            pair,
        }
    }
}

/// New connections with one small request each; per 10,000.
pub fn handshakes(rig: &Rig, subject: Subject, seconds: u32, key: Key, offer: Offer) -> Cell {
    let pki = Pki::new(rig, key);
    let _lb = subject.start_with(rig, &configs(rig, &pki));
    let visitors = Visitors::new(AT_A_TIME as usize, offer, &pki.ca, rig.lb.addr(PORT));
    // clients get their first tickets
    visitors.visit(&rig.client, Duration::from_secs(1));
    let meter = Meter::start();
    let mut tally = visitors.visit(&rig.client, Duration::from_secs(seconds.into()));
    let reading = meter.read();
    check_steering(&reading);
    tally.check(subject.label(), offer.wanted(group(subject, offer)));
    tally.waits.sort_by(f64::total_cmp);
    let units = tally.waits.len() as f64 / 1e4;
    Cell {
        cost: reading.busy / units,
        rate: Some(units / reading.elapsed),
        p99: Some(tally.waits[tally.waits.len() * 99 / 100] * 1e3),
    }
}

/// Small requests on kept connections; per 100,000.
pub fn requests(rig: &Rig, subject: Subject, seconds: u32) -> Cell {
    let pki = Pki::new(rig, Key::P256);
    let _lb = subject.start_with(rig, &configs(rig, &pki));
    let url = format!("https://{}/", rig.lb.addr(PORT));
    Wrk::start(&rig.client, &url, AT_A_TIME, 1, false).finish();
    let meter = Meter::start();
    let report = Wrk::start(&rig.client, &url, AT_A_TIME, seconds, false).finish();
    let reading = meter.read();
    check_steering(&reading);
    assert_eq!(report.errors, 0, "{}: {}", subject.label(), report.text);
    let units = report.requests as f64 / 1e5;
    Cell {
        cost: reading.busy / units,
        rate: Some(units / f64::from(seconds)),
        p99: Some(report.p99 * 1e3),
    }
}

/// One stream from server to client; per GB (10⁹ bytes).
pub fn bulk(rig: &Rig, subject: Subject, seconds: u32, offer: Offer) -> Cell {
    let _server = TcpServer::start(rig.webs[0].host(), BULK_PORT, |mut stream| {
        let bytes = vec![0; CHUNK];
        loop {
            stream.write_all(&bytes)?;
        }
    });
    let pki = Pki::new(rig, Key::P256);
    let _lb = subject.start_with(rig, &configs(rig, &pki));
    let time = Duration::from_secs(seconds.into());
    let meter = Meter::start();
    let bytes = download(&rig.client, offer, &pki.ca, rig.lb.addr(BULK_PORT), time);
    let reading = meter.read();
    check_steering(&reading);
    let gigabytes = bytes as f64 / 1e9;
    Cell {
        cost: reading.busy / gigabytes,
        rate: Some(gigabytes / reading.elapsed),
        p99: None,
    }
}

/// Memory of a connection that is idle after one question and its answer.
pub fn memory(rig: &Rig, subject: Subject) -> Cell {
    let pki = Pki::new(rig, Key::P256);
    let lb = subject.start_with(rig, &configs(rig, &pki));
    let visitors = Visitors::new(8, Offer::FULL, &pki.ca, rig.lb.addr(PORT));
    let before = visitors.visit(&rig.client, Duration::from_secs(1));
    before.check(subject.label(), Offer::FULL.wanted(NamedGroup::X25519));
    idle(rig, &lb, || visitors.hold(&rig.client, IDLE_CONNECTIONS))
}

/// The group that a load balancer chooses: peers know X25519 alone, Convey prefers X25519MLKEM768 where clients offer it.
fn group(subject: Subject, offer: Offer) -> NamedGroup {
    match subject {
        Subject::Convey | Subject::Earlier if offer.has_post_quantum() => NamedGroup::X25519MLKEM768,
        _ => NamedGroup::X25519,
    }
}

fn configs(rig: &Rig, pki: &Pki) -> Configs {
    Configs {
        port: PORT,
        convey: convey(rig, pki),
        haproxy: haproxy(rig, &pki.pair),
        nginx: nginx(rig, pki),
    }
}

fn convey(rig: &Rig, pki: &Pki) -> String {
    let [a, b] = [rig.webs[0].addr(), rig.webs[1].addr()];
    let target = rig.webs[0].host().addr(BULK_PORT);
    let (certificate, key) = (pki.certificate.display(), pki.key.display());
    let mut text = convey_globals(false);
    for (name, port) in [("web", PORT), ("bulk", BULK_PORT)] {
        let listen = rig.lb.addr(port);
        text += &format!(
            r#"
[frontends.{name}]
listen_addr = "{listen}"
backend = "{name}"
access_log = false
tls.certificates = [{{ cert = "{certificate}", key = "{key}" }}]
"#
        );
    }
    text += &format!(
        r#"
[backends.web]
health_check = {{ enabled = false }}
servers.a = {{ addr = "{a}" }}
servers.b = {{ addr = "{b}" }}

[backends.bulk]
health_check = {{ enabled = false }}
servers.a = {{ addr = "{target}" }}
"#
    );
    text
}

fn haproxy(rig: &Rig, pair: &Path) -> String {
    let [a, b] = [rig.webs[0].addr(), rig.webs[1].addr()];
    let (web, bulk) = (rig.lb.addr(PORT), rig.lb.addr(BULK_PORT));
    let target = rig.webs[0].host().addr(BULK_PORT);
    let globals = haproxy_globals(false, false);
    let pair = pair.display();
    format!(
        "global
  ssl-default-bind-curves X25519
{globals}frontend web
  bind {web} backlog 4096 ssl crt {pair}
  default_backend web
backend web
  server a {a}
  server b {b}
frontend bulk
  bind {bulk} backlog 4096 ssl crt {pair}
  default_backend bulk
backend bulk
  server a {target}
"
    )
}

fn nginx(rig: &Rig, pki: &Pki) -> String {
    let [a, b] = [rig.webs[0].addr(), rig.webs[1].addr()];
    let (web, bulk) = (rig.lb.addr(PORT), rig.lb.addr(BULK_PORT));
    let target = rig.webs[0].host().addr(BULK_PORT);
    let (certificate, key) = (pki.certificate.display(), pki.key.display());
    let globals = nginx_globals(&rig.lb.path("nginx-lb.pid"));
    // TLS 1.3 has been on by default since nginx 1.23.4
    format!(
        "{globals}stream {{
  access_log off;
  proxy_timeout 10m;
  proxy_connect_timeout 5s;
  ssl_certificate {certificate};
  ssl_certificate_key {key};
  ssl_protocols TLSv1.2 TLSv1.3;
  ssl_ecdh_curve X25519;
  ssl_session_tickets on;
  upstream web {{ server {a}; server {b}; }}
  server {{ listen {web} ssl backlog=4096; proxy_pass web; }}
  server {{ listen {bulk} ssl backlog=4096; proxy_pass {target}; }}
}}
"
    )
}
