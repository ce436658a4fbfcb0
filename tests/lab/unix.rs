//! Servers at the paths of unix sockets, as threads.

use std::{
    fs,
    io::{self, Write as _},
    net::Shutdown,
    os::{
        fd::AsFd as _,
        unix::{
            fs::PermissionsExt as _,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::SockRef;

/// A listening server; stops listening when dropped, and leaves its file behind as servers do that are killed.
pub struct UnixServer {
    path: PathBuf,
    accepted: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl UnixServer {
    /// Listens at a path, where everybody may connect, and gives every connection to `serve`, on a thread of its own. What was
    /// there is removed. An error that `serve` returns ends the connection.
    #[track_caller]
    pub fn start(path: &Path, serve: impl Fn(UnixStream) -> io::Result<()> + Send + Sync + 'static) -> Self {
        fs::remove_file(path).ok();
        let listener = UnixListener::bind(path)
            .unwrap_or_else(|error| panic!("cannot listen on {}: {error}", path.display()));
        fs::set_permissions(path, fs::Permissions::from_mode(0o666)).expect("chmod of the socket");
        listener
            .set_nonblocking(true)
            .expect("a listener that does not block");
        let (accepted, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let thread = {
            let (accepted, stop) = (Arc::clone(&accepted), Arc::clone(&stop));
            thread::spawn(move || {
                accept(&listener, &accepted, &stop, &Arc::new(serve));
                // a process that another test is just starting has the socket too, for a moment longer
                let ended = SockRef::from(&listener).shutdown(Shutdown::Both);
                ended.expect("nobody listens any more");
            })
        };
        Self {
            path: path.into(),
            accepted,
            stop,
            thread: Some(thread),
        }
    }

    /// Sends `name` on connect and then gives back every byte: tells which server was chosen.
    #[track_caller]
    pub fn named(path: &Path, name: &str) -> Self {
        let greeting = format!("{name}\n");
        Self::start(path, move |stream| {
            (&stream).write_all(greeting.as_bytes())?;
            let mut reader = stream.try_clone()?;
            io::copy(&mut reader, &mut &stream)?;
            stream.shutdown(Shutdown::Write)
        })
    }

    /// Gives back every byte, closes after the client has.
    #[track_caller]
    pub fn echo(path: &Path) -> Self {
        Self::start(path, |stream| {
            let mut reader = stream.try_clone()?;
            io::copy(&mut reader, &mut &stream)?;
            stream.shutdown(Shutdown::Write)
        })
    }

    /// As the configuration has it.
    pub fn addr(&self) -> String {
        format!("unix:{}", self.path.display())
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Connections accepted so far, health checks among them.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for UnixServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn accept<F>(listener: &UnixListener, accepted: &AtomicU64, stop: &AtomicBool, serve: &Arc<F>)
where
    F: Fn(UnixStream) -> io::Result<()> + Send + Sync + 'static,
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
