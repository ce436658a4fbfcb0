//! Small TCP servers of known behaviour, as threads inside a host.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Host;

/// A listening server; stops listening when dropped.
pub struct TcpServer {
    addr: SocketAddr,
    accepted: Arc<AtomicU64>,
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
        let addr = host.addr(port);
        let listener = host
            .inside(|| TcpListener::bind(addr))
            .unwrap_or_else(|error| panic!("cannot listen on {addr}: {error}"));
        listener
            .set_nonblocking(true)
            .expect("a listener that does not block");
        let (accepted, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let thread = {
            let (accepted, stop) = (Arc::clone(&accepted), Arc::clone(&stop));
            host.thread(move || accept(&listener, &accepted, &stop, &Arc::new(serve)))
        };
        Self {
            addr,
            accepted,
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
            // its own half stays open until the client is gone for good
            thread::sleep(Duration::from_secs(30));
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
}

impl Drop for TcpServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

type Serve<F> = Arc<F>;

fn accept<F>(listener: &TcpListener, accepted: &AtomicU64, stop: &AtomicBool, serve: &Serve<F>)
where
    F: Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static,
{
    while !stop.load(Ordering::Relaxed) {
        let Ok((stream, _)) = listener.accept() else {
            let mut waiting = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
            poll(&mut waiting, PollTimeout::from(20u8)).ok();
            continue;
        };
        accepted.fetch_add(1, Ordering::Relaxed);
        let serve = Arc::clone(serve);
        thread::spawn(move || {
            if stream.set_nonblocking(false).is_ok() {
                // what a peer does to the connection is the test's business, not the server's
                serve(stream).ok();
            }
        });
    }
}
