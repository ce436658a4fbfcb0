//! Who holds the control socket that we would have: one Convey serves, and is never displaced.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::sys::socket::{getsockopt, sockopt};
use serde::Deserialize;
use socket2::{Domain, SockAddr, Socket, Type};

use super::{BindError, Owner, SocketFile, bind_socket};
use crate::base::Holder;

/// How long we wait for a holder that is ending: it gives the socket up when it is told to end.
const GIVE_UP: Duration = Duration::from_secs(5);

/// How often we try meanwhile.
const RETRY: Duration = Duration::from_millis(50);

/// How long it may take to say who it is.
const ANSWER: Duration = Duration::from_secs(1);

/// Longest answer that is read of it, in bytes: the status of tens of thousands of servers.
const MAX_ANSWER: u64 = 64 << 20;

/// Why a socket that somebody should have is not ours.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Somebody serves there, and goes on to.
    #[error("{holder} holds the control socket {}: stop it, or give this one a control socket of its own ([admin] socket = \"PATH\", or \"\" for none)", path.display())]
    Held {
        /// The socket.
        path: PathBuf,
        /// Who.
        holder: Holder,
    },
    /// It cannot be made.
    #[error(transparent)]
    Bind(#[from] BindError),
}

/// Makes the control socket as [`bind_socket`] does; waits for a holder that gives it up, for five seconds at most.
///
/// Blocks: for the start, before anything else runs.
///
/// # Errors
/// Somebody holds it, or it cannot be made.
pub fn claim_socket(path: &Path, owner: Option<Owner>) -> Result<(UnixListener, SocketFile), ClaimError> {
    let began = Instant::now();
    loop {
        match bind_socket(path, owner) {
            Err(BindError::InUse { .. }) if began.elapsed() < GIVE_UP => thread::sleep(RETRY),
            Err(BindError::InUse { path }) => {
                let holder = who(&path);
                return Err(ClaimError::Held { path, holder });
            }
            other => return Ok(other?),
        }
    }
}

/// Who answers at a socket, as far as that can be found out.
fn who(path: &Path) -> Holder {
    let mut holder = Holder {
        pid: None,
        config_file: None,
    };
    if let Ok(mut socket) = connect(path) {
        let peer = getsockopt(&socket, sockopt::PeerCredentials).ok();
        holder.pid = peer.map(|peer| peer.pid()).filter(|pid| *pid > 0);
        holder.config_file = ask(&mut socket).ok();
    }
    holder
}

fn connect(path: &Path) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // also bounds how long connect waits for room in its queue
    socket.set_write_timeout(Some(ANSWER))?;
    socket.set_read_timeout(Some(ANSWER))?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket)
}

fn ask(socket: &mut Socket) -> io::Result<String> {
    #[derive(Deserialize)]
    struct Status {
        config_file: String,
    }
    socket.write_all(b"GET /v1/status HTTP/1.0\r\nHost: convey\r\n\r\n")?;
    let mut answer = Vec::new();
    socket.take(MAX_ANSWER).read_to_end(&mut answer)?;
    let body = answer.windows(4).position(|part| part == b"\r\n\r\n");
    let body = body.and_then(|at| answer.get(at + 4..)).unwrap_or_default();
    let status: Status = serde_json::from_slice(body)?;
    Ok(status.config_file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_is_named_by_his_process() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let stranger = thread::spawn(move || drop(listener.accept()));
        let holder = who(&path);
        stranger.join().unwrap();
        let us = i32::try_from(std::process::id()).unwrap();
        assert_eq!((holder.pid, &holder.config_file), (Some(us), &None));
        assert_eq!(holder.to_string(), format!("another process ({us})"));
    }

    #[test]
    fn a_socket_that_is_given_up_meanwhile_is_ours() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        let (old, file) = bind_socket(&path, None).unwrap();
        let claiming = {
            let path = path.clone();
            thread::spawn(move || claim_socket(&path, None))
        };
        // its queue shows that somebody has tried
        old.set_nonblocking(false).unwrap();
        drop(old.accept());
        drop(file);
        let _ours = claiming.join().unwrap().unwrap();
        assert!(path.exists());
    }
}
