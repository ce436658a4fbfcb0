//! Sockets towards servers that have what takes a capability to give: anybody's address (IP_TRANSPARENT of ip(7)), a mark
//! (SO_MARK of socket(7)).
//!
//! To set these takes CAP_NET_RAW or CAP_NET_ADMIN (the mark before Linux 5.17 the latter); to use such a socket takes none.

use std::{io, net::IpAddr, os::fd::OwnedFd};

use socket2::{Domain, Protocol, Socket, Type};

use super::socket_options;
use crate::base::{self, IpFamily, ServerSocketOptions, SocketKind};

/// What a connection to a server begins with.
#[derive(Debug, Default)]
pub struct Source {
    /// A socket that has been made for it, as [`make`] does; `None`: an ordinary one.
    pub socket: Option<OwnedFd>,
    /// The address that it leaves from; `None`: the kernel's choice.
    pub address: Option<IpAddr>,
    /// What is chosen for it, of which the mark is the socket's already.
    pub options: ServerSocketOptions,
}

impl Source {
    /// The socket, which `new` makes if there is none yet, and what it is to be bound to.
    ///
    /// # Errors
    /// Those of `new`, or an option cannot be set.
    pub(super) fn open(
        self,
        is_ipv6: bool,
        new: impl FnOnce() -> io::Result<Socket>,
    ) -> io::Result<(Socket, Option<IpAddr>)> {
        let socket = match self.socket {
            Some(made) => made.into(),
            None => new()?,
        };
        socket_options::set_for_server(&socket, is_ipv6, &self.options)?;
        Ok((socket, self.address))
    }
}

/// Makes so many unbound, non-blocking sockets of a kind.
///
/// # Errors
/// The capability is missing, or no descriptor or memory is left.
pub fn make(kind: SocketKind, count: usize) -> io::Result<Vec<OwnedFd>> {
    (0..count).map(|_| make_one(kind)).collect()
}

fn make_one(kind: SocketKind) -> io::Result<OwnedFd> {
    let domain = match kind.family {
        IpFamily::V4 => Domain::IPV4,
        IpFamily::V6 => Domain::IPV6,
    };
    let (of, protocol) = match kind.protocol {
        base::Protocol::Tcp => (Type::STREAM, Protocol::TCP),
        base::Protocol::Udp => (Type::DGRAM, Protocol::UDP),
    };
    let socket = Socket::new(domain, of.nonblocking().cloexec(), Some(protocol))?;
    match kind.family {
        IpFamily::V4 if kind.is_transparent => socket.set_ip_transparent_v4(true)?,
        IpFamily::V6 if kind.is_transparent => socket.set_ip_transparent_v6(true)?,
        IpFamily::V4 | IpFamily::V6 => {}
    }
    if let Some(mark) = kind.mark {
        socket.set_mark(mark.get())?;
    }
    Ok(socket.into())
}
