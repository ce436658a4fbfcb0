//! The packet modes and their peers in the kernel, laid out alike: the same VIPs, servers, ports and offloads (all at
//! their defaults), forwarding on one CPU.

use std::{
    net::{IpAddr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use crate::{
    lab::{
        Convey, Nginx,
        dsr::{self, Rewrite},
        kernel::{KernelBalancer, Method, Service},
        udp::{UdpClient, UdpServer},
    },
    meter::Meter,
    rig::Rig,
    rows::{Cell, check_steering},
    subjects::{BULK_PORT, Running, Subject},
};

/// The address of every packet frontend.
const VIP: &str = "10.77.0.100";
const ECHO_PORT: u16 = 7;
/// Source ports of NATed flows: enough that connections closed a moment ago hold none back.
const NAT_PORTS: &str = "2000-60999";
/// What is left to the load balancer's own connections.
const OWN_PORTS: &str = "61000 65535";
/// Sockets of the load that echoes, and datagrams that each has under way.
const ECHO_FLOWS: usize = 16;
const ECHO_WINDOW: usize = 16;

/// Where clients send to.
pub fn target(rig: &Rig, subject: Subject, port: u16) -> SocketAddr {
    match subject {
        Subject::Direct => rig.webs[0].host().addr(port),
        _ if subject.is_of_packets() => SocketAddr::new(VIP.parse().expect("an address"), port),
        _ => rig.lb.addr(port),
    }
}

/// Port, protocol and number of servers of each service.
const SERVICES: [(u16, &str, usize); 3] = [(80, "tcp", 2), (BULK_PORT, "tcp", 1), (ECHO_PORT, "udp", 1)];

fn servers(rig: &Rig, port: u16, count: usize) -> impl Iterator<Item = SocketAddr> {
    rig.webs.iter().take(count).map(move |web| web.host().addr(port))
}

/// Starts a forwarder of packets.
pub fn start(subject: Subject, rig: &Rig, launcher: &[&str]) -> Running {
    rig.lb.add_address("eth0", &format!("{VIP}/32"));
    rig.lb.run(&format!(
        "echo {OWN_PORTS} > /proc/sys/net/ipv4/ip_local_port_range"
    ));
    if matches!(
        subject,
        Subject::Dsr | Subject::XdpDsr | Subject::EarlierDsr | Subject::NftStateless
    ) {
        prepare_servers(rig);
    }
    let is_xdp = matches!(subject, Subject::XdpPassthrough | Subject::XdpDsr);
    if is_xdp {
        // as network cards do; else all packets were the slow path's
        for host in rig.webs.iter().map(Nginx::host).chain([&rig.client]) {
            host.run("ethtool -K eth0 tx off >/dev/null");
        }
    }
    match subject {
        Subject::Direct => Running::Nobody,
        Subject::NftNat => Running::Kernel {
            _rules: kernel(rig, Method::Nat),
        },
        Subject::NftStateless => Running::Kernel {
            _rules: kernel(rig, Method::Stateless),
        },
        _ => {
            let label = subject.label();
            let mode = label.trim_start_matches("earlier-").trim_start_matches("xdp-");
            let engine = if is_xdp { "engine = \"xdp\"\n" } else { "" };
            let mut convey = Convey::launch_with(&rig.lb, &config(rig, mode, engine), launcher);
            convey.wait_ready();
            Running::Convey(convey)
        }
    }
}

fn prepare_servers(rig: &Rig) {
    for web in &rig.webs {
        let rewrites = SERVICES.map(|(port, protocol, _)| Rewrite {
            own: web.host().addr(port),
            vip: SocketAddr::new(VIP.parse().expect("an address"), port),
            protocol,
        });
        dsr::install(web.host(), &rewrites, &[IpAddr::V4(rig.lb.ip4())]);
    }
}

fn kernel(rig: &Rig, method: Method) -> KernelBalancer {
    let services = SERVICES.map(|(port, protocol, count)| Service {
        method,
        vip: SocketAddr::new(VIP.parse().expect("an address"), port),
        protocol,
        servers: servers(rig, port, count).map(|addr| (addr, 1)).collect(),
    });
    KernelBalancer::start(&rig.lb, NAT_PORTS, &services)
}

fn config(rig: &Rig, mode: &str, engine: &str) -> String {
    // the section's name that every version knows
    let mut text = format!(
        "[global]\nwatch_config = false\n[passthrough]\nworkers = 1\nnat_ports = \"{NAT_PORTS}\"\n{engine}"
    );
    for (port, protocol, count) in SERVICES {
        text += &format!(
            "[frontends.p{port}]\nlisten_addr = \"{VIP}:{port}\"\nmode = \"{mode}\"\nprotocol = \"{protocol}\"\nbackend = \"p{port}\"\n\
             [backends.p{port}]\nhealth_check = {{ enabled = false }}\ndsr_method = \"nft\"\n"
        );
        for (index, addr) in servers(rig, port, count).enumerate() {
            text += &format!("servers.s{index} = {{ addr = \"{addr}\" }}\n");
        }
    }
    text
}

/// Small datagrams and their echoes, many under way.
pub fn echoes(rig: &Rig, subject: Subject, seconds: u32) -> Cell {
    let _echo = UdpServer::echo(rig.webs[0].host(), rig.webs[0].host().addr(ECHO_PORT), "");
    let _lb = subject.start(rig, false);
    let to = target(rig, subject, ECHO_PORT);
    let clients: Vec<UdpClient> = (0..ECHO_FLOWS).map(|_| UdpClient::new(&rig.client, to)).collect();
    for client in &clients {
        client
            .socket()
            .set_read_timeout(Some(Duration::from_millis(200)))
            .expect("a time-out");
    }
    round_trips(&clients, Duration::from_millis(300));
    let meter = Meter::start();
    let (answered, lost) = round_trips(&clients, Duration::from_secs(seconds.into()));
    let reading = meter.read();
    check_steering(&reading);
    assert!(
        lost * 100 <= answered,
        "{}: {lost} of {answered} echoes were lost",
        subject.label()
    );
    Cell {
        cost: reading.busy * 1e6 / answered as f64,
        rate: Some(answered as f64 / reading.elapsed),
        p99: None,
    }
}

/// Keeps every flow's window full; returns how many echoes came and how many did not.
fn round_trips(clients: &[UdpClient], time: Duration) -> (u64, u64) {
    let (mut answered, mut lost) = (0, 0);
    let start = Instant::now();
    let mut buffer = [0; 128];
    while start.elapsed() < time {
        for client in clients {
            for _ in 0..ECHO_WINDOW {
                client.socket().send(&[7; 18]).expect("send");
            }
        }
        for client in clients {
            for _ in 0..ECHO_WINDOW {
                match client.socket().recv(&mut buffer) {
                    Ok(_) => answered += 1,
                    Err(_) => lost += 1,
                }
            }
        }
    }
    (answered, lost)
}

/// One datagram at a time, with rest in between.
pub fn lone(rig: &Rig, subject: Subject, seconds: u32) -> Cell {
    let _echo = UdpServer::echo(rig.webs[0].host(), rig.webs[0].host().addr(ECHO_PORT), "");
    let _lb = subject.start(rig, false);
    let client = UdpClient::new(&rig.client, target(rig, subject, ECHO_PORT));
    let mut times = Vec::new();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(seconds.into()) {
        let sent = Instant::now();
        client.ask(&[7; 18]).expect("an echo");
        times.push(sent.elapsed().as_secs_f64());
        thread::sleep(Duration::from_millis(1));
    }
    // the first ones found the way
    let mut times = times.split_off(times.len().min(20));
    times.sort_by(f64::total_cmp);
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
    Cell {
        cost: at(0.5) * 1e6,
        rate: None,
        p99: Some(at(0.99) * 1e3),
    }
}
