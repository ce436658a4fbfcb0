//! Connections that are over at once, for long enough that NAT ports come round: passthrough with default settings against
//! the kernel's NAT with the same ports.
//!
//! Eight client addresses (each with a timestamp offset of its own, as Linux gives it), 32 connections at a time, one server.
//! What counts is that none is refused, and how long a client waits for its connection.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use socket2::{Domain, Socket, Type};

use crate::{
    lab::{
        Convey,
        kernel::{KernelBalancer, Method, Service},
    },
    meter::Meter,
    rig::Rig,
    subjects::Running,
};

/// Who closes first, and so has the connection in TIME_WAIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Churn {
    /// The server.
    ServerFirst,
    /// The client.
    ClientFirst,
}

/// What one run found.
struct Run {
    /// Connections that were served.
    served: u64,
    /// Those that were refused or cut.
    refused: u64,
    seconds: f64,
    /// Of which its CPU was busy.
    busy: f64,
    /// Milliseconds until connected, sorted.
    waits: Vec<f32>,
}

const VIP: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, 100), 80));
const CLIENTS: u8 = 8;
const AT_ONCE: usize = 32;
/// First port that clients use.
const FIRST_PORT: u16 = 1_024;
/// What a stock Debian gives Convey by default, as far as one rule of nftables can say it.
const NAT_PORTS: &str = "10000-32767";

impl Churn {
    /// Both.
    pub const ALL: [Self; 2] = [Self::ServerFirst, Self::ClientFirst];

    /// Its name on the command line.
    pub const fn label(self) -> &'static str {
        match self {
            Self::ServerFirst => "churn-server-first",
            Self::ClientFirst => "churn-client-first",
        }
    }

    const fn request(self) -> &'static [u8] {
        match self {
            Self::ServerFirst => b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            Self::ClientFirst => b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        }
    }
}

/// Measures each, ours between two of the kernel's, and gives the table.
pub fn measure(kinds: &[Churn], seconds: u32) -> String {
    if kinds.is_empty() {
        return String::new();
    }
    let mut text = "\n| connections that are over at once | of | served/s | refused | connect p50, ms | p99 | p99.9 | longest | its CPU busy | CPU s per 10,000 |\n\
         |---|---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for kind in kinds {
        for (whose, start) in [
            ("nft-nat", kernel as fn(&Rig) -> Running),
            ("passthrough", ours),
            ("nft-nat", kernel),
        ] {
            let rig = Rig::new();
            prepare(&rig);
            let _lb = start(&rig);
            let run = rig
                .client
                .inside(|| run(rig.client.ip4(), *kind, Duration::from_secs(seconds.into())));
            eprintln!("  {:<18} {whose:<12} {run}", kind.label());
            text += &format!("| {} | {whose} | {run} |\n", kind.label());
        }
    }
    text
}

fn prepare(rig: &Rig) {
    rig.lb.add_address("eth0", "10.77.0.100/32");
    for number in 1..CLIENTS {
        rig.client
            .add_address("eth0", &format!("{}/24", another(rig.client.ip4(), number)));
    }
    // ports come round within TIME_WAIT
    rig.client.run("echo 1 > /proc/sys/net/ipv4/tcp_tw_reuse");
}

/// Further addresses of the client: nobody else's in the lab's network.
fn another(first: Ipv4Addr, number: u8) -> Ipv4Addr {
    let [a, b, c, _] = first.octets();
    Ipv4Addr::new(a, b, c, 200 + number)
}

fn ours(rig: &Rig) -> Running {
    let server = rig.webs[0].addr();
    let config = format!(
        "[frontends.web]\nlisten_addr = \"{VIP}\"\nmode = \"passthrough\"\nbackend = \"web\"\n\
         [backends.web]\nservers.a = {{ addr = \"{server}\" }}\n"
    );
    let mut convey = Convey::launch_with(&rig.lb, &config, &["taskset", "-c", "1"]);
    convey.wait_ready();
    Running::Convey(convey)
}

fn kernel(rig: &Rig) -> Running {
    let service = Service {
        method: Method::Nat,
        vip: VIP,
        protocol: "tcp",
        servers: vec![(rig.webs[0].addr(), 1)],
    };
    Running::Kernel {
        _rules: KernelBalancer::start(&rig.lb, NAT_PORTS, &[service]),
    }
}

/// A connection under way.
struct Connection {
    socket: Socket,
    began: Instant,
    is_connected: bool,
}

/// Where connections come from: each address's ports in turn.
struct Sources {
    first: Ipv4Addr,
    next: usize,
}

impl Sources {
    fn next(&mut self) -> SocketAddr {
        let number = (self.next % usize::from(CLIENTS)) as u8;
        let ports = usize::from(u16::MAX - FIRST_PORT);
        let port = FIRST_PORT + (self.next / usize::from(CLIENTS) % ports) as u16;
        self.next += 1;
        let ip = if number == 0 {
            self.first
        } else {
            another(self.first, number)
        };
        SocketAddr::from((ip, port))
    }

    fn open(&mut self, epoll: &Epoll, place: u64) -> Connection {
        let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None).expect("a socket");
        socket.set_reuse_address(true).expect("SO_REUSEADDR");
        socket.bind(&self.next().into()).expect("a source address");
        let began = Instant::now();
        // its outcome comes as an event
        let _ = socket.connect(&VIP.into());
        let interest = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT;
        epoll
            .add(socket.as_fd(), EpollEvent::new(interest, place))
            .expect("epoll");
        Connection {
            socket,
            began,
            is_connected: false,
        }
    }
}

fn run(first: Ipv4Addr, kind: Churn, time: Duration) -> Run {
    let epoll = Epoll::new(EpollCreateFlags::empty()).expect("epoll");
    let mut sources = Sources { first, next: 0 };
    let mut connections: Vec<_> = (0..AT_ONCE as u64)
        .map(|place| sources.open(&epoll, place))
        .collect();
    let (mut served, mut refused, mut waits) = (0, 0, Vec::new());
    let (start, meter) = (Instant::now(), Meter::start());
    let mut events = [EpollEvent::empty(); AT_ONCE];
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4_096];
    while start.elapsed() < time {
        let ready = epoll.wait(&mut events, EpollTimeout::from(100_u8)).unwrap_or(0);
        for event in &events[..ready] {
            let place = event.data() as usize;
            let connection = &mut connections[place];
            let over = if connection.is_connected {
                match connection.socket.recv(&mut buffer) {
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => None,
                    Err(_) => Some(false),
                    Ok(0) => Some(true),
                    Ok(_) => (kind == Churn::ClientFirst).then_some(true),
                }
            } else {
                waits.push(connection.began.elapsed().as_secs_f32() * 1e3);
                connection.is_connected = true;
                let failed = !matches!(connection.socket.take_error(), Ok(None))
                    || connection.socket.send(kind.request()).is_err();
                let interest = EpollEvent::new(EpollFlags::EPOLLIN, event.data());
                let mut interest = interest;
                epoll
                    .modify(connection.socket.as_fd(), &mut interest)
                    .expect("epoll");
                failed.then_some(false)
            };
            if let Some(well) = over {
                if well {
                    served += 1;
                } else {
                    refused += 1;
                }
                *connection = sources.open(&epoll, event.data());
            }
        }
    }
    let (seconds, busy) = (start.elapsed().as_secs_f64(), meter.read().busy);
    // who still waits counts with the time so far
    let waiting = connections.iter().filter(|connection| !connection.is_connected);
    waits.extend(waiting.map(|connection| connection.began.elapsed().as_secs_f32() * 1e3));
    waits.sort_by(f32::total_cmp);
    Run {
        served,
        refused,
        seconds,
        busy,
        waits,
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |part: f64| {
            let last = self.waits.len().saturating_sub(1);
            self.waits
                .get((last as f64 * part) as usize)
                .copied()
                .unwrap_or(f32::NAN)
        };
        write!(
            f,
            "{:.0} | {} | {:.2} | {:.2} | {:.2} | {:.1} | {:.0} % | {:.2}",
            self.served as f64 / self.seconds,
            self.refused,
            at(0.5),
            at(0.99),
            at(0.999),
            at(1.0),
            100.0 * self.busy / self.seconds,
            self.busy * 1e4 / self.served as f64,
        )
    }
}
