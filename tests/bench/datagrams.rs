//! UDP in mode proxy: Convey against nginx's stream module, one echo server behind each.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::{
    cmsg_space,
    sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt,
        sockopt::UdpGroSegment,
    },
};

use crate::{
    lab::{Host, udp::UdpClient},
    meter::Meter,
    rig::Rig,
    rows::{Cell, check_steering},
    subjects::{Configs, Subject, convey_globals, haproxy_globals, nginx_globals},
};

const PORT: u16 = 7;

/// What clients send.
#[derive(Debug, Clone, Copy)]
pub struct Pattern {
    /// How many clients, each with a session of its own.
    pub clients: usize,
    /// How many of them have a datagram or burst under way at a time: no more than a socket with the kernel's default
    /// buffer holds.
    pub at_a_time: usize,
    /// How many of them a client has under way at a time.
    pub each: usize,
    /// Datagrams in a burst, which is sent at once (UDP_SEGMENT).
    pub burst: usize,
    /// Bytes of each.
    pub size: usize,
}

impl Pattern {
    /// Small datagrams of few clients.
    pub const SINGLE: Self = Self {
        clients: 64,
        at_a_time: 64,
        each: 1,
        burst: 1,
        size: 100,
    };
    /// Small datagrams of few clients that do not wait for each.
    pub const WINDOW: Self = Self {
        each: 4,
        ..Self::SINGLE
    };
    /// As QUIC sends.
    pub const BURSTS: Self = Self {
        clients: 64,
        at_a_time: 8,
        each: 1,
        burst: 8,
        size: 1_200,
    };
    /// Small datagrams of many clients in turn.
    pub const MANY: Self = Self {
        clients: 10_000,
        at_a_time: 64,
        each: 1,
        burst: 1,
        size: 100,
    };
}

/// CPU of the load balancer for a datagram and its echo.
pub fn measure(rig: &Rig, subject: Subject, seconds: u32, pattern: Pattern) -> Cell {
    let host = rig.webs[0].host();
    let _echo = Echo::start(host, host.addr(PORT));
    let _lb = subject.start_with(rig, &configs(rig));
    let to = rig.lb.addr(PORT);
    let clients: Vec<UdpClient> = (0..pattern.clients)
        .map(|_| UdpClient::new(&rig.client, to))
        .collect();
    for client in &clients {
        let socket = client.socket();
        let patience = Some(Duration::from_millis(200));
        socket.set_read_timeout(patience).expect("a time-out");
        setsockopt(socket, UdpGroSegment, &true).expect("merged datagrams");
    }
    // sessions begin before what counts
    round_trips(&clients, pattern, Duration::from_millis(300));
    let meter = Meter::start();
    let (answered, lost) = round_trips(&clients, pattern, Duration::from_secs(seconds.into()));
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

/// Asks all clients once at least, some at a time; returns how many datagrams came back and how many did not.
fn round_trips(clients: &[UdpClient], pattern: Pattern, time: Duration) -> (u64, u64) {
    let datagrams = vec![7; pattern.burst * pattern.size];
    let mut buffer = vec![0; 65_535];
    let (mut answered, mut lost) = (0, 0);
    let start = Instant::now();
    while start.elapsed() < time {
        for some in clients.chunks(pattern.at_a_time) {
            for client in some {
                for _ in 0..pattern.each {
                    send(client.socket(), &datagrams, pattern.size, None).expect("sent");
                }
            }
            for client in some {
                let sent = pattern.each * pattern.burst;
                let mut left = pattern.each * datagrams.len();
                while left > 0 {
                    match client.socket().recv(&mut buffer) {
                        Ok(length) => left = left.saturating_sub(length),
                        Err(_) => break,
                    }
                }
                let missing = left.div_ceil(pattern.size);
                lost += missing as u64;
                answered += (sent - missing) as u64;
            }
        }
    }
    (answered, lost)
}

/// Sends bytes as datagrams of this size at once.
fn send(socket: &UdpSocket, bytes: &[u8], size: usize, to: Option<&SockaddrStorage>) -> io::Result<()> {
    let segment = u16::try_from(size).expect("no larger than a datagram");
    let control = [ControlMessage::UdpGsoSegments(&segment)];
    let control = if bytes.len() > size { &control[..] } else { &[] };
    sendmsg(
        socket.as_raw_fd(),
        &[IoSlice::new(bytes)],
        control,
        MsgFlags::empty(),
        to,
    )?;
    Ok(())
}

/// Gives back what it gets as it gets it: merged datagrams merged.
struct Echo {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    fn start(host: &Host, addr: SocketAddr) -> Self {
        let socket = host
            .inside(|| UdpSocket::bind(addr))
            .expect("the server's address");
        socket2::SockRef::from(&socket)
            .set_recv_buffer_size(8 << 20)
            .expect("a receive buffer");
        let patience = Some(Duration::from_millis(20));
        socket.set_read_timeout(patience).expect("a time-out");
        setsockopt(&socket, UdpGroSegment, &true).expect("merged datagrams");
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                let mut buffer = vec![0; 65_535];
                while !stop.load(Ordering::Relaxed) {
                    // a time-out
                    let _ = give_back(&socket, &mut buffer);
                }
            })
        };
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn give_back(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<()> {
    let mut control = cmsg_space!(i32);
    let (length, from, size) = {
        let mut parts = [IoSliceMut::new(buffer)];
        let fd = socket.as_raw_fd();
        let got = recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut control), MsgFlags::empty())?;
        let mut size = got.bytes;
        for message in got.cmsgs()? {
            if let ControlMessageOwned::UdpGroSegments(each) = message {
                size = usize::try_from(each).unwrap_or(size);
            }
        }
        (got.bytes, got.address, size)
    };
    send(socket, &buffer[..length], size.max(1), from.as_ref())
}

fn configs(rig: &Rig) -> Configs {
    let (web, listen) = (rig.lb.addr(80), rig.lb.addr(PORT));
    let (server, echo) = (rig.webs[0].addr(), rig.webs[0].host().addr(PORT));
    Configs {
        port: 80,
        convey: format!(
            "{}[frontends.echo]\nlisten_addr = \"{listen}\"\nprotocol = \"udp\"\nbackend = \"echo\"\naccess_log = false\n\
             idle_timeout = \"10m\"\n[backends.echo]\nservers.a = {{ addr = \"{echo}\" }}\n",
            convey_globals(false)
        ),
        // it has no UDP
        haproxy: haproxy_globals(false, false),
        // each session takes two of its connections
        nginx: format!(
            "{}stream {{\n  access_log off;\n  server {{ listen {web}; proxy_pass {server}; }}\n  \
             server {{ listen {listen} udp; proxy_pass {echo}; proxy_timeout 10m; }}\n}}\n",
            nginx_globals(&rig.lb.path("nginx-lb.pid"))
                .replace("worker_connections 19900", "worker_connections 40000")
        ),
    }
}
