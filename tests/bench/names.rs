//! Routing by the name that a client asks for, without ending TLS: sites on one address, each with servers of its own.
//!
//! No TLS is spoken. Clients send a ClientHello that curl once sent, and the servers answer any ClientHello with a word and
//! close: what the load balancer does is the same, and the load costs little.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use crate::{
    lab::{Host, PATIENCE, Process, wait_until},
    meter::Meter,
    rig::Rig,
    rows::{Cell, check_steering},
    subjects::{Configs, Subject, convey_globals, haproxy_globals, nginx_globals},
};

/// Where the load balancer and the servers listen.
const PORT: u16 = 443;

/// Connections that clients have open at a time.
const AT_A_TIME: usize = 64;

/// Sites besides the one that is asked for.
const OTHER_SITES: usize = 19;

/// What curl sends first to web.example.org.
const HELLO: &[u8] = include_bytes!("../fuzz/seeds/hello/curl");

/// The name in it.
const NAME: &str = "web.example.org";

/// What the servers answer.
const ANSWER: &str = "ok";

/// Measures one cell.
pub fn measure(rig: &Rig, subject: Subject, seconds: u32) -> Cell {
    let _servers = [0, 1].map(|which| server(rig, which));
    let _lb = subject.start_with(rig, &configs(rig));
    let to = rig.lb.addr(PORT);
    visit(&rig.client, to, Duration::from_secs(1));
    let meter = Meter::start();
    let mut waits = visit(&rig.client, to, Duration::from_secs(seconds.into()));
    let reading = meter.read();
    check_steering(&reading);
    waits.sort_by(f64::total_cmp);
    let units = waits.len() as f64 / 1e4;
    Cell {
        cost: reading.busy / units,
        rate: Some(units / reading.elapsed),
        p99: Some(waits[waits.len() * 99 / 100] * 1e3),
    }
}

/// Every site's name and backend, the one that is asked for last.
fn sites() -> impl Iterator<Item = (String, String)> {
    let others = (0..OTHER_SITES).map(|site| (format!("site{site}.example.org"), format!("site{site}")));
    others.chain([(NAME.to_owned(), "web".to_owned())])
}

fn configs(rig: &Rig) -> Configs {
    Configs {
        port: PORT,
        convey: convey(rig),
        haproxy: haproxy(rig),
        nginx: nginx(rig),
    }
}

fn servers(rig: &Rig) -> [SocketAddr; 2] {
    [0, 1].map(|which: usize| rig.webs[which].host().addr(PORT))
}

fn convey(rig: &Rig) -> String {
    let ([a, b], listen) = (servers(rig), rig.lb.addr(PORT));
    let mut text = convey_globals(false);
    text += &format!("[frontends.tls]\nlisten_addr = \"{listen}\"\naccess_log = false\n");
    for (name, backend) in sites() {
        text += &format!("[[frontends.tls.routes]]\nsni = \"{name}\"\nbackend = \"{backend}\"\n");
    }
    for (_, backend) in sites() {
        text += &format!(
            "[backends.{backend}]\nhealth_check.enabled = false\nservers.a = {{ addr = \"{a}\" }}\nservers.b = {{ addr = \"{b}\" }}\n"
        );
    }
    text
}

/// As its manual has it: the hello is waited for, and a map leads from the name to the backend.
fn haproxy(rig: &Rig) -> String {
    let ([a, b], listen, map) = (servers(rig), rig.lb.addr(PORT), rig.lb.path("names.map"));
    let names: String = sites()
        .map(|(name, backend)| format!("{name} {backend}\n"))
        .collect();
    fs::write(&map, names).expect("HAProxy's map");
    let mut text = haproxy_globals(false, false);
    text += &format!(
        "frontend tls
  bind {listen} backlog 4096
  tcp-request inspect-delay 5s
  tcp-request content accept if {{ req.ssl_hello_type 1 }}
  tcp-request content reject
  use_backend %[req.ssl_sni,lower,map_str({})]
",
        map.display()
    );
    for (_, backend) in sites() {
        text += &format!("backend {backend}\n  server a {a}\n  server b {b}\n");
    }
    text
}

fn nginx(rig: &Rig) -> String {
    let ([a, b], listen) = (servers(rig), rig.lb.addr(PORT));
    let (mut names, mut upstreams) = (String::new(), String::new());
    for (name, backend) in sites() {
        names += &format!("    {name} {backend};\n");
        upstreams += &format!("  upstream {backend} {{ server {a}; server {b}; }}\n");
    }
    format!(
        "{}stream {{
  access_log off;
  map $ssl_preread_server_name $site {{
{names}  }}
{upstreams}  server {{
    listen {listen} backlog=4096;
    ssl_preread on;
    proxy_pass $site;
    proxy_timeout 10m;
    proxy_connect_timeout 5s;
  }}
}}
",
        nginx_globals(&rig.lb.path("nginx-lb.pid"))
    )
}

/// Reads a ClientHello, says [`ANSWER`] and closes.
fn server(rig: &Rig, which: usize) -> Process {
    let host = rig.webs[which].host();
    let (config, addr) = (host.path("names.conf"), host.addr(PORT));
    let text = format!(
        "{}stream {{ access_log off; server {{ listen {addr} backlog=4096; ssl_preread on; return {ANSWER}; }} }}\n",
        nginx_globals(&host.path("names.pid"))
    );
    fs::write(&config, text).expect("the server's configuration");
    let process = host.start(&format!("exec nginx -e stderr -c {}", config.display()));
    wait_until("the server listens", PATIENCE, || {
        host.inside(|| TcpStream::connect(addr).is_ok())
    });
    process
}

/// Connects again and again; the seconds from each connect to the end of its answer.
fn visit(client: &Host, to: SocketAddr, time: Duration) -> Vec<f64> {
    client.inside(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let until = Instant::now() + time;
            let visitors: Vec<_> = (0..AT_A_TIME)
                .map(|_| tokio::spawn(visit_until(to, until)))
                .collect();
            let mut waits = Vec::new();
            for visitor in visitors {
                waits.extend(visitor.await.expect("a client"));
            }
            waits
        })
    })
}

async fn visit_until(to: SocketAddr, until: Instant) -> Vec<f64> {
    let mut waits = Vec::new();
    while Instant::now() < until {
        let start = Instant::now();
        let answer = timeout(PATIENCE, ask(to)).await.expect("an answer in time");
        assert_eq!(answer.expect("an answer"), ANSWER);
        waits.push(start.elapsed().as_secs_f64());
    }
    waits
}

async fn ask(to: SocketAddr) -> std::io::Result<String> {
    let mut stream = tokio::net::TcpStream::connect(to).await?;
    stream.write_all(HELLO).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
