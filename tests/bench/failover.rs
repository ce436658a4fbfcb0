//! A client's router that gets another link address, as when a second router takes its place: how long what servers send
//! stands still, and what the event costs the control thread, beside few and very many flows.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::{Duration, Instant},
};

use crate::{
    lab::{
        Convey, Family, Host,
        fleet::control_cpu,
        forge::{Forger, nobodies},
        wait_until,
    },
    rig::Rig,
    table::Spread,
};

/// Its name on the command line.
pub const LABEL: &str = "failover";

const VIP: &str = "10.77.0.100";
const FAR: &str = "10.78.0.2";
const TICK_PORT: u16 = 9;
const ASK_PORT: u16 = 7;
/// Time between two bytes of the server.
const TICK: Duration = Duration::from_millis(2);
/// How long is watched before and after the change.
const WATCH: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(60);

/// How many flows there are.
#[derive(Debug, Clone, Copy)]
struct Many {
    connections: usize,
    /// Other entries of the table.
    entries: u32,
}

/// What a change brought.
struct Found {
    /// Longest silence before it, in seconds.
    before: f64,
    /// Longest silence around it.
    gap: f64,
    /// CPU of the control thread in [`WATCH`] before, and around it, in seconds.
    at_rest: f64,
    cpu: f64,
    /// Entries in the table.
    entries: u64,
    /// Connections that answered afterwards.
    alive: usize,
}

/// Measures so many times, and gives the table.
pub fn measure(cells: usize) -> String {
    let mut text = "\n| a router's new link address | connections, alive after | entries | longest silence before, ms | around it, ms | \
         control CPU at rest, ms | around it, ms |\n|---|---|---|---|---|---|---|\n"
        .to_owned();
    for many in [
        Many {
            connections: 10,
            entries: 0,
        },
        Many {
            connections: 10_000,
            entries: 1_000_000,
        },
    ] {
        let found: Vec<_> = (0..cells).map(|_| change(many)).collect();
        let spread = |figure: fn(&Found) -> f64| Spread::of(found.iter().map(|f| figure(f) * 1e3).collect());
        let alive = found.iter().map(|found| found.alive).min().unwrap_or_default();
        let entries = found.iter().map(|found| found.entries).min().unwrap_or_default();
        let line = format!(
            "| | {}, {alive} | {entries} | {} | {} | {} | {} |\n",
            many.connections,
            spread(|f| f.before),
            spread(|f| f.gap),
            spread(|f| f.at_rest),
            spread(|f| f.cpu),
        );
        eprint!("  failover {line}");
        text += &line;
    }
    text
}

fn change(many: Many) -> Found {
    let rig = Rig::new();
    let (router, far) = behind(&rig);
    ticker(rig.webs[0].host());
    let convey = convey(&rig);
    let web = SocketAddr::new(VIP.parse().expect("an address"), 80);
    let mut connections: Vec<TcpStream> = far.inside(|| {
        (0..many.connections)
            .map(|_| TcpStream::connect_timeout(&web, PATIENCE).expect("a connection"))
            .collect()
    });
    fill(&rig, &convey, many.entries);
    let ticks = watch(&far);
    // the way back has been looked up by now: what changes before that is no change
    thread::sleep(WATCH);
    let before = longest(&ticks);
    let rest = control_cpu(convey.pid());
    thread::sleep(WATCH);
    let at_rest = control_cpu(convey.pid()) - rest;
    longest(&ticks);
    let start = control_cpu(convey.pid());
    router
        .run("echo 1 > /proc/sys/net/ipv4/conf/eth0/arp_notify; ip link set eth0 address 02:00:00:00:77:77");
    thread::sleep(WATCH);
    let cpu = control_cpu(convey.pid()) - start;
    let gap = longest(&ticks);
    let alive = connections
        .iter_mut()
        .filter_map(|stream| answers(stream).ok())
        .count();
    let packets = convey.status_json()["packet"]["flows"].clone();
    let count = |name: &str| packets[name].as_u64().unwrap_or_default();
    Found {
        before,
        gap,
        at_rest: at_rest.as_secs_f64(),
        cpu: cpu.as_secs_f64(),
        entries: count("nat") + count("dsr"),
        alive,
    }
}

/// A router of the client's network, and a client behind it.
fn behind(rig: &Rig) -> (Host, Host) {
    let (router, far) = (rig.another("router"), rig.another("far"));
    rig.cable((&router, "eth1"), (&far, "eth1"));
    router.add_address("eth1", "10.78.0.1/24");
    router.forward();
    far.run("ip addr flush dev eth0 scope global; ip link set eth0 down");
    far.add_address("eth1", &format!("{FAR}/24"));
    far.run("ip route add default via 10.78.0.1");
    far.run("echo 1024 65535 > /proc/sys/net/ipv4/ip_local_port_range");
    rig.lb.add_address("eth0", &format!("{VIP}/32"));
    router.run(&format!("ip route add {VIP}/32 via {}", rig.lb.ip4()));
    rig.lb
        .run(&format!("ip route add 10.78.0.0/24 via {}", router.ip4()));
    (router, far)
}

fn convey(rig: &Rig) -> Convey {
    let server = rig.webs[0].host();
    // one client has all connections
    let mut text = "[global]\nwatch_config = false\n[packet]\nmax_flows = 4000000\nidle_timeout = \"15m\"\n\
                    max_ports_per_client = \"off\"\n"
        .to_owned();
    for (port, mode, protocol) in [
        (80, "passthrough", "tcp"),
        (TICK_PORT, "passthrough", "tcp"),
        (ASK_PORT, "dsr", "udp"),
    ] {
        text += &format!(
            "[frontends.p{port}]\nlisten_addr = \"{VIP}:{port}\"\nmode = \"{mode}\"\nprotocol = \"{protocol}\"\nbackend = \"p{port}\"\n\
             [backends.p{port}]\nhealth_check = {{ enabled = false }}\nservers.a = {{ addr = \"{}\" }}\n",
            server.addr(port)
        );
    }
    let mut convey = Convey::launch_with(&rig.lb, &text, &["taskset", "-c", "1"]);
    convey.wait_ready();
    convey
}

/// Entries of forged clients.
fn fill(rig: &Rig, convey: &Convey, entries: u32) {
    let forger = Forger::new(&rig.client);
    let to = SocketAddr::new(VIP.parse().expect("an address"), ASK_PORT);
    let mut crowd = nobodies(Family::V4, 3);
    wait_until("the table fills", PATIENCE * 2, || {
        let there = convey.status_json()["packet"]["flows"]["dsr"]
            .as_u64()
            .unwrap_or_default();
        for _ in there..u64::from(entries).min(there + 50_000) {
            forger.udp(crowd.next().expect("one more"), to, b"?");
        }
        there >= u64::from(entries)
    });
}

/// A server that sends a byte again and again.
fn ticker(host: &Host) {
    let addr = host.addr(TICK_PORT);
    let listener = host.inside(|| TcpListener::bind(addr)).expect("a listener");
    thread::spawn(move || {
        if let Ok((mut stream, _)) = listener.accept() {
            stream.set_nodelay(true).expect("TCP_NODELAY");
            while stream.write_all(b"x").is_ok() {
                thread::sleep(TICK);
            }
        }
    });
}

/// When the server's bytes come.
fn watch(far: &Host) -> Receiver<Instant> {
    let vip = SocketAddr::new(VIP.parse().expect("an address"), TICK_PORT);
    let mut stream = far.connect(vip);
    let (told, ticks): (Sender<Instant>, _) = channel();
    thread::spawn(move || {
        let mut buffer = [0; 4_096];
        while matches!(stream.read(&mut buffer), Ok(1..)) {
            if told.send(Instant::now()).is_err() {
                return;
            }
        }
    });
    ticks
}

/// The longest time between two ticks since the last look, in seconds.
fn longest(ticks: &Receiver<Instant>) -> f64 {
    let times: Vec<Instant> = ticks.try_iter().collect();
    let until = Instant::now();
    let ends = times.iter().skip(1).chain([&until]);
    times
        .iter()
        .zip(ends)
        .map(|(one, next)| (*next - *one).as_secs_f64())
        .fold(0.0, f64::max)
}

fn answers(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")?;
    let mut answer = [0; 1_024];
    match stream.read(&mut answer)? {
        0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}
