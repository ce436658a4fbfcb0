//! Pipes and splice(2): moving bytes between sockets without copying them through user space.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use nix::{
    fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice},
    unistd::{pipe2, read},
};

/// A pipe that carries spliced bytes from one socket to another.
#[derive(Debug)]
pub struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
    capacity: usize,
    filled: usize,
}

impl Pipe {
    /// A pipe of about `capacity` bytes; the kernel's default size where a user's share of pipe memory
    /// (fs.pipe-user-pages-soft) is used up.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn new(capacity: usize) -> io::Result<Self> {
        let (reader, writer) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)?;
        let wanted = i32::try_from(capacity).unwrap_or(i32::MAX);
        let granted = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(wanted))
            .or_else(|_| fcntl(&writer, FcntlArg::F_GETPIPE_SZ))?;
        Ok(Self {
            reader,
            writer,
            capacity: usize::try_from(granted).unwrap_or(0),
            filled: 0,
        })
    }

    /// Bytes inside.
    #[must_use]
    pub fn filled(&self) -> usize {
        self.filled
    }

    /// Moves bytes from a socket into the pipe, `most` of them; 0 at end of stream.
    ///
    /// # Errors
    /// `WouldBlock` when the socket has nothing or the pipe has no room, else the connection's error.
    pub fn fill_from(&mut self, socket: &impl AsFd, most: usize) -> io::Result<usize> {
        let room = self.capacity.saturating_sub(self.filled).min(most).max(1);
        let n = splice(socket, None, &self.writer, None, room, flags())?;
        self.filled += n;
        Ok(n)
    }

    /// Moves bytes from the pipe into a socket.
    ///
    /// # Errors
    /// `WouldBlock` when nothing fits, else the connection's error.
    pub fn drain_to(&mut self, socket: &impl AsFd) -> io::Result<usize> {
        let n = splice(&self.reader, None, socket, None, self.filled, flags())?;
        self.filled = self.filled.saturating_sub(n);
        Ok(n)
    }

    /// Takes everything out; the pipe is empty then.
    ///
    /// # Errors
    /// What read(2) says; what had been read by then is lost to the pipe, which is fit for nothing any more.
    pub fn unload(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.filled];
        let mut got = 0;
        while got < bytes.len() {
            let n = read(&self.reader, &mut bytes[got..])?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            got += n;
        }
        self.filled = 0;
        Ok(bytes)
    }
}

fn flags() -> SpliceFFlags {
    SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
    };

    fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        (near, far)
    }

    #[test]
    fn bytes_pass_through_a_pipe_in_order() {
        let (mut sender, source) = connected();
        let (target, mut receiver) = connected();
        sender.write_all(b"hello, server").unwrap();
        let mut pipe = Pipe::new(65_536).unwrap();
        assert_eq!(pipe.fill_from(&source, 65_536).unwrap(), 13);
        assert_eq!(pipe.drain_to(&target).unwrap(), 13);
        assert_eq!(pipe.filled(), 0);
        let mut got = [0; 13];
        receiver.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"hello, server");
    }

    #[test]
    fn an_idle_socket_would_block_and_a_finished_one_gives_zero() {
        let (sender, source) = connected();
        source.set_nonblocking(true).unwrap();
        let mut pipe = Pipe::new(65_536).unwrap();
        assert_eq!(
            pipe.fill_from(&source, 65_536).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        drop(sender);
        source.set_nonblocking(false).unwrap();
        assert_eq!(source.peek(&mut [0]).unwrap(), 0, "the end has arrived");
        assert_eq!(pipe.fill_from(&source, 65_536).unwrap(), 0);
    }

    #[test]
    fn a_pipe_is_unloaded_in_order_and_takes_more_then() {
        let (mut sender, source) = connected();
        let mut pipe = Pipe::new(65_536).unwrap();
        for part in [b"hello, ", b"server!"] {
            sender.write_all(part).unwrap();
            assert_eq!(pipe.fill_from(&source, 65_536).unwrap(), part.len());
        }
        assert_eq!(pipe.unload().unwrap(), b"hello, server!");
        assert_eq!((pipe.filled(), pipe.unload().unwrap()), (0, Vec::new()));
        sender.write_all(b"more").unwrap();
        assert_eq!(pipe.fill_from(&source, 3).unwrap(), 3);
    }
}
