//! One holder of the packet modes a network namespace: two would replace each other's rules and answer for each other.
//!
//! The holder listens at an abstract unix socket: its name is the network namespace's, and free when the process has ended,
//! however it ended. Any local user can take the name, so that a holder is believed to be a Convey only if it is root's or
//! our own user's.

use std::{
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener, UnixStream},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::socket::{getsockopt, sockopt},
    unistd::geteuid,
};

use crate::base::Holder;

/// The socket's name, after the leading zero.
const NAME: &[u8] = b"convey-packet-modes";

/// How often a name that somebody has is tried again.
const RETRY: Duration = Duration::from_millis(50);

/// How long a holder may take to say who it is.
const ANSWER: Duration = Duration::from_secs(1);

/// Longest answer that is read of it, in bytes: the path of a file.
const MAX_ANSWER: u64 = 16 << 10;

/// Why the packet modes are not ours.
#[derive(Debug)]
pub enum LockError {
    /// Somebody holds them.
    Held(Holder),
    /// The name cannot be taken.
    Failed(io::Error),
}

/// The packet modes of this network namespace, held until it is dropped.
#[derive(Debug)]
pub struct Lock {
    listener: UnixListener,
    /// What who asks is told.
    answer: Vec<u8>,
}

impl Lock {
    /// Takes the packet modes, and says to who asks that `holder` has them; waits `patience` at most for somebody who gives
    /// them up.
    ///
    /// # Errors
    /// Somebody holds them, or the name cannot be taken.
    pub fn claim(holder: &Holder, patience: Duration) -> Result<Self, LockError> {
        claim(NAME, holder, patience)
    }

    /// Tells one who asks who holds the packet modes, if somebody does. Never waits: one who has no room for the answer gets
    /// none.
    pub fn answer(&self) {
        if let Ok((mut asker, _)) = self.listener.accept()
            && asker.set_nonblocking(true).is_ok()
        {
            // whoever asked may have gone
            let _ = asker.write_all(&self.answer);
        }
    }
}

impl AsFd for Lock {
    /// Readable when somebody asks.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

fn claim(name: &[u8], holder: &Holder, patience: Duration) -> Result<Lock, LockError> {
    let began = Instant::now();
    let address = SocketAddr::from_abstract_name(name).map_err(LockError::Failed)?;
    loop {
        match UnixListener::bind_addr(&address) {
            Ok(listener) => {
                listener.set_nonblocking(true).map_err(LockError::Failed)?;
                let answer = serde_json::to_vec(holder).map_err(|e| LockError::Failed(e.into()))?;
                return Ok(Lock { listener, answer });
            }
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => return Err(LockError::Failed(error)),
            Err(_) if began.elapsed() < patience => thread::sleep(RETRY),
            Err(_) => return Err(LockError::Held(who(&address))),
        }
    }
}

/// Who holds a name, as far as that can be found out.
fn who(address: &SocketAddr) -> Holder {
    let unknown = Holder {
        pid: None,
        config_file: None,
    };
    let Ok(socket) = connect(address) else {
        return unknown;
    };
    // of the process that listens
    let Ok(peer) = getsockopt(&socket, sockopt::PeerCredentials) else {
        return unknown;
    };
    // 0 for a process of another pid namespace
    let pid = Some(peer.pid()).filter(|pid| *pid > 0);
    let is_trusted = [0, geteuid().as_raw()].contains(&peer.uid());
    match ask(socket) {
        // the broker listens, and names the process that an operator knows
        Ok(holder) if is_trusted => Holder {
            pid: pid.and(holder.pid),
            ..holder
        },
        _ => Holder { pid, ..unknown },
    }
}

/// Connects without waiting for room in the queue of a process that does not look.
fn connect(address: &SocketAddr) -> io::Result<UnixStream> {
    use socket2::{Domain, SockAddr, Socket, Type};
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    let name = address.as_abstract_name().unwrap_or_default();
    let path = [b"\0", name].concat();
    let path: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(&path);
    socket.connect(&SockAddr::unix(path)?)?;
    socket.set_nonblocking(false)?;
    Ok(UnixStream::from(std::os::fd::OwnedFd::from(socket)))
}

fn ask(socket: UnixStream) -> io::Result<Holder> {
    socket.set_read_timeout(Some(ANSWER))?;
    let mut answer = Vec::new();
    socket.take(MAX_ANSWER).read_to_end(&mut answer)?;
    Ok(serde_json::from_slice(&answer)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name of this test's own, in the network namespace of all of them.
    fn name(test: &str) -> Vec<u8> {
        format!("convey-test-{}-{test}", std::process::id()).into_bytes()
    }

    fn us() -> Holder {
        Holder {
            pid: i32::try_from(std::process::id()).ok(),
            config_file: Some("/etc/convey/convey.toml".to_owned()),
        }
    }

    #[test]
    fn a_second_one_is_told_who_holds_it() {
        let name = name("second");
        let lock = claim(&name, &us(), Duration::ZERO).unwrap();
        let asking = thread::spawn(move || claim(&name, &us(), Duration::ZERO));
        // waits for whoever asks
        lock.listener.set_nonblocking(false).unwrap();
        lock.answer();
        let Err(LockError::Held(holder)) = asking.join().unwrap() else {
            panic!("two holders");
        };
        assert_eq!(holder, us());
    }

    #[test]
    fn a_stranger_is_named_by_his_process_alone() {
        let name = name("stranger");
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let squatter = UnixListener::bind_addr(&address).unwrap();
        let asking = thread::spawn(move || claim(&name, &us(), Duration::ZERO));
        let (mut asker, _) = squatter.accept().unwrap();
        asker.write_all(b"hello").unwrap();
        drop(asker);
        let Err(LockError::Held(holder)) = asking.join().unwrap() else {
            panic!("two holders");
        };
        assert_eq!((holder.pid, holder.config_file), (us().pid, None));
    }

    #[test]
    fn one_that_is_given_up_meanwhile_is_ours() {
        let name = name("given-up");
        let lock = claim(&name, &us(), Duration::ZERO).unwrap();
        let claiming = thread::spawn(move || claim(&name, &us(), Duration::from_secs(60)));
        drop(lock);
        claiming.join().unwrap().unwrap();
    }
}
