//! UDP: a server that gives back what it gets and remembers who asked, and a client.

use std::{
    collections::BTreeMap,
    fs, io,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use super::{Host, PATIENCE};

/// Largest datagram.
const LARGEST: usize = 65_535;

/// An echo server; ends when dropped.
pub struct UdpServer {
    addr: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    seen: Mutex<Seen>,
    stop: AtomicBool,
}

/// What a server got.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Datagrams by their sender.
    pub senders: BTreeMap<SocketAddr, u64>,
    /// How often each number came that a datagram began with (little-endian, 8 bytes).
    pub numbers: BTreeMap<u64, u64>,
    /// Bytes of all datagrams.
    pub bytes: u64,
    /// The largest datagram.
    pub largest: usize,
}

impl UdpServer {
    /// Gives back every datagram, `name` and a colon in front of it unless the name is empty.
    #[track_caller]
    pub fn echo(host: &Host, addr: SocketAddr, name: &str) -> Self {
        let socket = host
            .inside(|| UdpSocket::bind(addr))
            .unwrap_or_else(|error| panic!("cannot bind {addr}: {error}"));
        // a burst of a test must not be lost in the server's own queue
        socket2::SockRef::from(&socket)
            .set_recv_buffer_size(8 << 20)
            .expect("a receive buffer");
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .expect("a time-out");
        let shared = Arc::<Shared>::default();
        let prefix = if name.is_empty() {
            Vec::new()
        } else {
            format!("{name}:").into_bytes()
        };
        let thread = {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || shared.serve(&socket, &prefix))
        };
        Self {
            addr,
            shared,
            thread: Some(thread),
        }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Ends it, and returns when the kernel refuses what is sent to its address: a process that another test was just
    /// starting may have held the socket for a moment longer.
    #[track_caller]
    pub fn close(self, host: &Host) {
        let addr = self.addr;
        drop(self);
        super::wait_until("nobody has its port any more", PATIENCE, || {
            drops_of(host, addr.port()).is_none()
        });
    }

    /// What it got so far.
    pub fn seen(&self) -> Seen {
        self.shared.seen.lock().expect("what was seen").clone()
    }
}

/// What the kernel has dropped so far at a host's sockets of this port, their queues being full; `None` if it has none.
pub fn drops_of(host: &Host, port: u16) -> Option<u64> {
    // of a thread, for /proc/net is that of the process
    let read = |name: &str| fs::read_to_string(format!("/proc/thread-self/net/{name}"));
    let sockets = host.inside(|| Ok::<_, io::Error>(read("udp")? + &read("udp6")?));
    let port = format!("{port:04X}");
    let drops = |line: &str| {
        // the number, the own address and port, …, the drops
        let mut columns = line.split_whitespace();
        let (_, own) = columns.nth(1)?.split_once(':')?;
        (own == port).then(|| columns.next_back()?.parse::<u64>().ok())?
    };
    let sockets = sockets.expect("the host's sockets");
    let of_port: Vec<_> = sockets.lines().filter_map(drops).collect();
    (!of_port.is_empty()).then(|| of_port.iter().sum())
}

impl Drop for UdpServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

impl Shared {
    fn serve(&self, socket: &UdpSocket, prefix: &[u8]) {
        let mut buffer = vec![0; prefix.len() + LARGEST];
        buffer[..prefix.len()].copy_from_slice(prefix);
        while !self.stop.load(Ordering::Relaxed) {
            let Ok((len, from)) = socket.recv_from(&mut buffer[prefix.len()..]) else {
                continue;
            };
            {
                let mut seen = self.seen.lock().expect("what was seen");
                *seen.senders.entry(from).or_default() += 1;
                seen.bytes += len as u64;
                seen.largest = seen.largest.max(len);
                if let Some(number) = buffer[prefix.len()..prefix.len() + len].first_chunk() {
                    *seen.numbers.entry(u64::from_le_bytes(*number)).or_default() += 1;
                }
            }
            socket.send_to(&buffer[..prefix.len() + len], from).ok();
        }
    }
}

/// A client's socket: one flow.
pub struct UdpClient(UdpSocket);

impl UdpClient {
    /// A socket of `host` connected to `to`: takes datagrams from there only.
    #[track_caller]
    pub fn new(host: &Host, to: SocketAddr) -> Self {
        let own = host.addr_of(super::Family::of(to.ip()), 0);
        let socket = host.inside(|| {
            let socket = UdpSocket::bind(own)?;
            socket.connect(to)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            io::Result::Ok(socket)
        });
        Self(socket.unwrap_or_else(|error| panic!("{} cannot send to {to}: {error}", host.name())))
    }

    /// Sends a datagram and returns the next one that comes.
    ///
    /// # Errors
    /// As sending and receiving.
    pub fn ask(&self, datagram: &[u8]) -> io::Result<Vec<u8>> {
        self.0.send(datagram)?;
        let mut buffer = vec![0; LARGEST];
        let len = self.0.recv(&mut buffer)?;
        buffer.truncate(len);
        Ok(buffer)
    }

    /// Its socket.
    pub fn socket(&self) -> &UdpSocket {
        &self.0
    }

    /// Its own address.
    pub fn own(&self) -> SocketAddr {
        self.0.local_addr().expect("an own address")
    }
}
