//! Sockets that may be bound to anybody's address (IP_TRANSPARENT of ip(7)).
//!
//! To set the option takes a capability, CAP_NET_RAW or CAP_NET_ADMIN; to bind such a socket takes none.

use std::{io, net::IpAddr, os::fd::OwnedFd};

use socket2::{Domain, Protocol, Socket, Type};

use crate::base::{self, IpFamily, SocketKind};

/// What a socket towards a server is bound to before it is connected.
#[derive(Debug)]
pub enum Source {
    /// Nothing: the kernel chooses.
    Any,
    /// An address of ours.
    Own(IpAddr),
    /// Anybody's address, of a socket such as [`make`] makes.
    Foreign(OwnedFd, IpAddr),
}

impl Source {
    /// One of ours, or the kernel's choice.
    #[must_use]
    pub fn own(address: Option<IpAddr>) -> Self {
        address.map_or(Self::Any, Self::Own)
    }

    /// The socket, which `new` makes if there is none yet, and what it is to be bound to.
    ///
    /// # Errors
    /// Those of `new`.
    pub(super) fn socket(
        self,
        new: impl FnOnce() -> io::Result<Socket>,
    ) -> io::Result<(Socket, Option<IpAddr>)> {
        Ok(match self {
            Self::Any => (new()?, None),
            Self::Own(address) => (new()?, Some(address)),
            Self::Foreign(socket, address) => (socket.into(), Some(address)),
        })
    }
}

/// Makes so many unbound, non-blocking transparent sockets of a kind.
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
        IpFamily::V4 => socket.set_ip_transparent_v4(true)?,
        IpFamily::V6 => socket.set_ip_transparent_v6(true)?,
    }
    Ok(socket.into())
}
