//! Small TCP servers of known behaviour, as threads inside a host.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd as _,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::SockRef;

use super::{Host, PATIENCE};

/// What servers wait at until it opens, once and for all.
#[derive(Default)]
pub struct Gate {
    is_open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    /// Lets everybody through.
    pub fn open(&self) {
        *self.is_open.lock().expect("the gate") = true;
        self.opened.notify_all();
    }

    fn wait(&self) {
        let shut = self.is_open.lock().expect("the gate");
        let waited = self
            .opened
            .wait_timeout_while(shut, PATIENCE, |is_open| !*is_open);
        drop(waited.expect("the gate"));
    }
}

/// A listening server; stops listening when dropped.
pub struct TcpServer {
    addr: SocketAddr,
    accepted: Arc<AtomicU64>,
    peers: Arc<Mutex<Vec<SocketAddr>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl TcpServer {
    /// Listens on a port of `host` (IPv4) and gives every connection to `serve`, on a thread of its own. An error that
    /// `serve` returns ends the connection.
    #[track_caller]
    pub fn start(
        host: &Host,
        port: u16,
        serve: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self::start_at(host, host.addr(port), serve)
    }

    /// As [`start`](Self::start), at any address of the host.
    #[track_caller]
    pub fn start_at(
        host: &Host,
        addr: SocketAddr,
        serve: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = host
            .inside(|| TcpListener::bind(addr))
            .unwrap_or_else(|error| panic!("cannot listen on {addr}: {error}"));
        listener
            .set_nonblocking(true)
            .expect("a listener that does not block");
        let (accepted, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let peers = Arc::<Mutex<Vec<SocketAddr>>>::default();
        let thread = {
            let (accepted, stop) = (Arc::clone(&accepted), Arc::clone(&stop));
            let peers = Arc::clone(&peers);
            host.thread(move || {
                accept(&listener, &accepted, &peers, &stop, &Arc::new(serve));
                // a process that another test is just starting has the socket too, for a moment longer
                let ended = SockRef::from(&listener).shutdown(Shutdown::Both);
                ended.expect("nobody listens any more");
            })
        };
        Self {
            addr,
            accepted,
            peers,
            stop,
            thread: Some(thread),
        }
    }

    /// Gives back every byte, closes after the client has.
    pub fn echo(host: &Host, port: u16) -> Self {
        Self::start(host, port, |stream| {
            let mut reader = stream.try_clone()?;
            io::copy(&mut reader, &mut &stream)?;
            stream.shutdown(Shutdown::Write)
        })
    }

    /// Sends `name` on connect and then gives back every byte: tells which server was chosen.
    pub fn named(host: &Host, port: u16, name: &str) -> Self {
        let greeting = format!("{name}\n");
        Self::start(host, port, move |stream| {
            (&stream).write_all(greeting.as_bytes())?;
            let mut reader = stream.try_clone()?;
            io::copy(&mut reader, &mut &stream)?;
            stream.shutdown(Shutdown::Write)
        })
    }

    /// Sends `name`, the address it was reached from and a line end on connect and then gives back every byte.
    /// [`Witness`] reads it.
    #[track_caller]
    pub fn witness(host: &Host, addr: SocketAddr, name: &str) -> Self {
        let name = name.to_owned();
        Self::start_at(host, addr, move |stream| {
            writeln!(&stream, "{name} {}", stream.peer_addr()?)?;
            let mut reader = stream.try_clone()?;
            io::copy(&mut reader, &mut &stream)?;
            stream.shutdown(Shutdown::Write)
        })
    }

    /// As [`witness`](Self::witness), but hears nothing: sends `bytes` when the gate opens, and closes first.
    #[track_caller]
    pub fn gated(host: &Host, addr: SocketAddr, gate: &Arc<Gate>, bytes: &[u8]) -> Self {
        let (name, gate, bytes) = (host.name().to_owned(), Arc::clone(gate), bytes.to_vec());
        Self::start_at(host, addr, move |mut stream| {
            writeln!(stream, "{name} {}", stream.peer_addr()?)?;
            gate.wait();
            stream.write_all(&bytes)
        })
    }

    /// Speaks first, as SMTP servers do: a greeting, then one answer a line until `QUIT`.
    pub fn smtp(host: &Host, port: u16) -> Self {
        Self::start(host, port, |mut stream| {
            stream.write_all(b"220 lab ESMTP\r\n")?;
            let mut lines = BufReader::new(stream.try_clone()?).lines();
            while let Some(line) = lines.next().transpose()? {
                match line.trim() {
                    "QUIT" => {
                        stream.write_all(b"221 bye\r\n")?;
                        break;
                    }
                    command => write!(stream, "250 {command}\r\n")?,
                }
            }
            stream.shutdown(Shutdown::Both)
        })
    }

    /// Answers only once the client has closed its half: with the number of bytes it got.
    pub fn count_until_end(host: &Host, port: u16) -> Self {
        Self::start(host, port, |mut stream| {
            let count = io::copy(&mut stream, &mut io::sink())?;
            writeln!(stream, "{count}")?;
            stream.shutdown(Shutdown::Both)
        })
    }

    /// Accepts and reads, but never says anything.
    pub fn mute(host: &Host, port: u16) -> Self {
        Self::start(host, port, |mut stream| {
            let mut byte = [0];
            while stream.read(&mut byte)? > 0 {}
            // its own half stays open, whatever the client does
            thread::sleep(PATIENCE);
            Ok(())
        })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Connections accepted so far, health checks among them.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Where they came from, in order, also those that were gone again at once.
    pub fn peers(&self) -> Vec<SocketAddr> {
        self.peers.lock().expect("peers").clone()
    }
}

impl Drop for TcpServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// A connection to a [`TcpServer::witness`].
pub struct Witness {
    /// The server's name.
    pub server: String,
    /// Who the server says is talking to it.
    pub seen: SocketAddr,
    stream: TcpStream,
}

impl Witness {
    /// Connects from `client` and hears what the server saw.
    ///
    /// # Errors
    /// As connecting and reading; [`io::ErrorKind::InvalidData`] if another kind of server answers.
    pub fn meet(client: &Host, to: SocketAddr) -> io::Result<Self> {
        Self::hear(client.try_connect(to)?)
    }

    /// Hears what the server saw on a fresh connection.
    ///
    /// # Errors
    /// As [`meet`](Self::meet).
    pub fn hear(mut stream: TcpStream) -> io::Result<Self> {
        let mut line = Vec::new();
        let mut byte = [0];
        loop {
            match stream.read(&mut byte) {
                Ok(1) if byte[0] != b'\n' => line.push(byte[0]),
                Ok(_) => break,
                // by a signal
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let line = String::from_utf8_lossy(&line).into_owned();
        let strange = || io::Error::new(io::ErrorKind::InvalidData, format!("not a witness: {line:?}"));
        let (server, seen) = line.split_once(' ').ok_or_else(strange)?;
        Ok(Self {
            server: server.to_owned(),
            seen: seen.parse().map_err(|_| strange())?,
            stream,
        })
    }

    /// Sends some bytes and expects the same back.
    ///
    /// # Errors
    /// As writing and reading; [`io::ErrorKind::InvalidData`] when other bytes come back.
    pub fn talk(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        let mut back = vec![0; bytes.len()];
        self.stream.read_exact(&mut back)?;
        if back == bytes {
            Ok(())
        } else {
            Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "other bytes came back",
            ))
        }
    }

    /// Everything that comes until the server closes.
    ///
    /// # Errors
    /// As reading.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.stream.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Ends the connection by a RST instead of a FIN.
    pub fn reset(self) {
        abort(self.stream);
    }

    /// The connection.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }
}

/// Closes a connection by a RST.
pub fn abort(stream: TcpStream) {
    SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .expect("SO_LINGER");
    drop(stream);
}

type Serve<F> = Arc<F>;

fn accept<F>(
    listener: &TcpListener,
    accepted: &AtomicU64,
    peers: &Mutex<Vec<SocketAddr>>,
    stop: &AtomicBool,
    serve: &Serve<F>,
) where
    F: Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static,
{
    while !stop.load(Ordering::Relaxed) {
        let Ok((stream, peer)) = listener.accept() else {
            let mut waiting = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
            poll(&mut waiting, PollTimeout::from(20u8)).ok();
            continue;
        };
        accepted.fetch_add(1, Ordering::Relaxed);
        peers.lock().expect("peers").push(peer);
        let serve = Arc::clone(serve);
        thread::spawn(move || {
            if stream.set_nonblocking(false).is_ok() {
                // what a peer does to the connection is the test's business, not the server's
                serve(stream).ok();
            }
        });
    }
}
