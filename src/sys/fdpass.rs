//! Messages with descriptors between two related processes: SOCK_SEQPACKET keeps their borders, SCM_RIGHTS carries
//! the descriptors.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::ManuallyDrop,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
            sendmsg, setsockopt, socketpair, sockopt,
        },
        time::TimeVal,
    },
};

/// Longest message, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 64 << 10;

/// `SCM_MAX_FD` of the kernel: with room for so many, none that arrives is left without an owner.
const MAX_FDS: usize = 253;

/// Why no message was received.
#[derive(Debug, thiserror::Error)]
pub enum RecvError {
    /// The other process closed its end.
    #[error("the other process is gone")]
    Closed,
    /// Nothing came in time.
    #[error("no answer in time")]
    TimedOut,
    /// The message was longer than [`MAX_MESSAGE_BYTES`]; its rest is lost.
    #[error("a message was longer than {MAX_MESSAGE_BYTES} bytes")]
    TooLong,
    /// The message is complete but not its descriptors: this process may open no more.
    #[error("the limit of open descriptors is reached: raise it (LimitNOFILE=, ulimit -n)")]
    NoDescriptorsLeft,
    /// The system call failed.
    #[error("receive a message: {0}")]
    Os(io::Error),
}

/// A connected pair of sockets, closed on exec.
///
/// # Errors
/// No descriptor is left.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )?)
}

/// Bounds how long [`send`] and [`receive`] wait on this socket.
///
/// # Errors
/// It is not a socket.
pub fn set_timeout(socket: BorrowedFd<'_>, timeout: Duration) -> io::Result<()> {
    let seconds = libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX);
    let value = TimeVal::new(seconds, libc::suseconds_t::from(timeout.subsec_micros()));
    setsockopt(&socket, sockopt::ReceiveTimeout, &value)?;
    setsockopt(&socket, sockopt::SendTimeout, &value)?;
    Ok(())
}

/// Sends one message with descriptors.
///
/// # Errors
/// It is empty (which would look like end-of-file), too long, or the system call failed.
pub fn send(socket: BorrowedFd<'_>, message: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    send_with(socket, message, fds, MsgFlags::empty())
}

/// As [`send`], without waiting: [`io::ErrorKind::WouldBlock`] when there is no room.
///
/// # Errors
/// As [`send`].
pub fn try_send(socket: BorrowedFd<'_>, message: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    send_with(socket, message, fds, MsgFlags::MSG_DONTWAIT)
}

fn send_with(
    socket: BorrowedFd<'_>,
    message: &[u8],
    fds: &[BorrowedFd<'_>],
    flags: MsgFlags,
) -> io::Result<()> {
    if message.is_empty() || message.len() > MAX_MESSAGE_BYTES {
        return Err(Errno::EMSGSIZE.into());
    }
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    loop {
        let io = [IoSlice::new(message)];
        match sendmsg::<()>(
            socket.as_raw_fd(),
            &io,
            control,
            flags | MsgFlags::MSG_NOSIGNAL,
            None,
        ) {
            Err(Errno::EINTR) => {}
            // SOCK_SEQPACKET sends a message whole or not at all
            other => return other.map(|_| ()).map_err(Into::into),
        }
    }
}

/// Receives one message and the descriptors that came with it, closed on exec.
///
/// # Errors
/// End-of-file, a time-out, a message or descriptors that did not fit, or a failed system call.
pub fn receive(socket: BorrowedFd<'_>) -> Result<(Vec<u8>, Vec<OwnedFd>), RecvError> {
    receive_with(socket, MsgFlags::empty())
}

/// As [`receive`], without waiting: [`RecvError::TimedOut`] when there is no message.
///
/// # Errors
/// As [`receive`].
pub fn try_receive(socket: BorrowedFd<'_>) -> Result<(Vec<u8>, Vec<OwnedFd>), RecvError> {
    receive_with(socket, MsgFlags::MSG_DONTWAIT)
}

/// A message of a process that may mean harm. Its descriptors stay open, also when the message is not taken: to close the last
/// one of a socket with SO_LINGER waits as long as its owner has chosen. The end of the process closes them without that
/// (`inet_release` of Linux looks at PF_EXITING).
pub type Untrusted = (Vec<u8>, Vec<ManuallyDrop<OwnedFd>>);

/// As [`receive`], of a process that may mean harm.
///
/// # Errors
/// As [`receive`].
pub fn receive_untrusted(socket: BorrowedFd<'_>) -> Result<Untrusted, RecvError> {
    let (bytes, fds, flags) = receive_raw(socket, MsgFlags::empty())?;
    let fds = fds.into_iter().map(ManuallyDrop::new).collect();
    Ok((whole(bytes, flags)?, fds))
}

fn receive_with(socket: BorrowedFd<'_>, flags: MsgFlags) -> Result<(Vec<u8>, Vec<OwnedFd>), RecvError> {
    let (bytes, fds, flags) = receive_raw(socket, flags)?;
    Ok((whole(bytes, flags)?, fds))
}

/// The bytes of a message that has come whole, with all its descriptors.
fn whole(bytes: Vec<u8>, flags: MsgFlags) -> Result<Vec<u8>, RecvError> {
    if flags.contains(MsgFlags::MSG_TRUNC) {
        return Err(RecvError::TooLong);
    }
    if flags.contains(MsgFlags::MSG_CTRUNC) {
        return Err(RecvError::NoDescriptorsLeft);
    }
    if bytes.is_empty() {
        return Err(RecvError::Closed);
    }
    Ok(bytes)
}

fn receive_raw(
    socket: BorrowedFd<'_>,
    flags: MsgFlags,
) -> Result<(Vec<u8>, Vec<OwnedFd>, MsgFlags), RecvError> {
    let mut buffer = vec![0; MAX_MESSAGE_BYTES];
    let mut control = nix::cmsg_space!([RawFd; MAX_FDS]);
    let (length, fds, flags) = loop {
        control.fill(0);
        match receive_once(socket, &mut buffer, &mut control, flags) {
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Err(RecvError::TimedOut),
            Err(errno) => return Err(RecvError::Os(errno.into())),
            Ok(received) => break received,
        }
    };
    buffer.truncate(length);
    Ok((buffer, fds, flags))
}

fn receive_once(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    control: &mut [u8],
    flags: MsgFlags,
) -> nix::Result<(usize, Vec<OwnedFd>, MsgFlags)> {
    let mut io = [IoSliceMut::new(buffer)];
    let message = recvmsg::<()>(
        socket.as_fd().as_raw_fd(),
        &mut io,
        Some(control),
        flags | MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    let mut fds = Vec::new();
    // an error here is MSG_CTRUNC, which the caller looks at
    for part in message.cmsgs().into_iter().flatten() {
        if let ControlMessageOwned::ScmRights(raw) = part {
            // SAFETY: the kernel has just made these descriptors for this message; nobody else knows them.
            fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    Ok((message.bytes, fds, message.flags))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    use std::{fs::File, io::Write};

    #[test]
    fn a_message_arrives_whole_with_its_descriptors() {
        let (a, b) = pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        send(a.as_fd(), b"one", &[file.as_fd()]).unwrap();
        send(a.as_fd(), b"two", &[]).unwrap();
        let (message, fds) = receive(b.as_fd()).unwrap();
        assert_eq!((message.as_slice(), fds.len()), (b"one".as_slice(), 1));
        let flags = FdFlag::from_bits_retain(fcntl(&fds[0], FcntlArg::F_GETFD).unwrap());
        assert!(flags.contains(FdFlag::FD_CLOEXEC));
        for fd in fds {
            File::from(fd).write_all(b"the same file").unwrap();
        }
        assert_eq!(file.metadata().unwrap().len(), 13);
        assert_eq!(receive(b.as_fd()).unwrap().0, b"two");
    }

    #[test]
    fn the_end_a_silence_and_oversize_are_told_apart() {
        let (a, b) = pair().unwrap();
        set_timeout(b.as_fd(), Duration::from_millis(10)).unwrap();
        assert!(matches!(receive(b.as_fd()), Err(RecvError::TimedOut)));
        assert!(matches!(try_receive(b.as_fd()), Err(RecvError::TimedOut)));
        assert!(send(a.as_fd(), b"", &[]).is_err());
        assert!(send(a.as_fd(), &vec![b'x'; MAX_MESSAGE_BYTES + 1], &[]).is_err());
        nix::sys::socket::send(
            a.as_raw_fd(),
            &vec![b'x'; MAX_MESSAGE_BYTES + 1],
            MsgFlags::empty(),
        )
        .unwrap();
        assert!(matches!(receive(b.as_fd()), Err(RecvError::TooLong)));
        drop(a);
        assert!(matches!(receive(b.as_fd()), Err(RecvError::Closed)));
    }
}
