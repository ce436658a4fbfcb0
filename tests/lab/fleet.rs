//! A fleet: thousands of server addresses on one host, on its loopback interface, that go down and come up together.

use std::{
    net::{Ipv4Addr, Shutdown, SocketAddr},
    thread::JoinHandle,
    time::Duration,
};

use nix::unistd::Pid;
use socket2::{Domain, SockRef, Socket, Type};

use super::Host;

const PORT: u16 = 8000;

/// Connections that may wait to be accepted: more than checks are under way at a time.
const BACKLOG: i32 = 4096;

/// Servers that are one listener: what they serve does not matter, checks only connect.
pub struct Fleet {
    host: Host,
    listening: Option<(Socket, JoinHandle<()>)>,
}

impl Fleet {
    /// Servers on this host, all up.
    pub fn start(host: &Host) -> Self {
        let mut fleet = Self {
            host: host.clone(),
            listening: None,
        };
        fleet.up();
        fleet
    }

    /// The address of one of them; 60,000 at most.
    pub fn addr(index: usize) -> SocketAddr {
        let part = |n: usize| u8::try_from(n).expect("an index below 60,000");
        let ip = Ipv4Addr::new(127, 1, part(index / 250), part(index % 250 + 1));
        SocketAddr::from((ip, PORT))
    }

    /// All of them listen.
    pub fn up(&mut self) {
        let listener = self.host.inside(|| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            socket.set_reuse_address(true).expect("SO_REUSEADDR");
            let every = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
            socket.bind(&every.into()).expect("bind");
            socket.listen(BACKLOG).expect("listen");
            socket
        });
        let accepting = listener.try_clone().expect("dup of the listener");
        // a connection that was reset meanwhile is an error of this accept only; a listener that was shut down ends it
        let accept = move || while SockRef::from(&accepting).accept().is_ok() {};
        self.listening = Some((listener, self.host.thread(accept)));
    }

    /// None of them listens: connections are refused.
    pub fn down(&mut self) {
        if let Some((listener, accepting)) = self.listening.take() {
            listener.shutdown(Shutdown::Both).expect("end the listener");
            accepting.join().expect("the accepting thread");
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.down();
    }
}

/// CPU time that a process's first thread has used: of the daemon it is the control thread.
pub fn control_cpu(pid: Pid) -> Duration {
    let path = format!("/proc/{pid}/task/{pid}/schedstat");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let nanoseconds = text
        .split_whitespace()
        .next()
        .and_then(|first| first.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or_else(|| panic!("{path}: {text}")))
}
