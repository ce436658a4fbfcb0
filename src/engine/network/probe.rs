//! Having the kernel ask for next hops, without the privilege to write its neighbour table.
//!
//! An empty UDP datagram to the server makes it: the kernel routes the datagram as it would ours, and must resolve the
//! next hop to send it. UDP, because one system call does it, on one socket for all, and no connection or answer is
//! waited for. To port 9, discard (RFC 863), because that is what it is for: a server that listens there says nothing,
//! and any other answers with an ICMP error that this socket is not told of. Empty, so that nobody can mistake it for
//! data. With a TTL of 1: the next hop is asked for all the same, and a client or server behind a router hears nothing.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsRawFd,
};

use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};
use socket2::{Domain, Protocol, Socket, Type};

/// RFC 863.
const DISCARD: u16 = 9;

/// The sockets. A family that the kernel has not got has none, and needs none.
#[derive(Debug)]
pub struct Prober {
    v4: Option<Socket>,
    v6: Option<Socket>,
}

impl Prober {
    /// Opens the sockets, once and for all: the daemon may later be unable to.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn open() -> io::Result<Self> {
        Ok(Self {
            v4: open(Domain::IPV4)?,
            v6: open(Domain::IPV6)?,
        })
    }

    /// Sends to a server, from `source` where rules may look at it. Does not wait.
    ///
    /// # Errors
    /// The kernel refused to send: a firewall's OUTPUT chain drops it, or the route is gone.
    pub fn probe(&self, server: IpAddr, source: Option<IpAddr>) -> io::Result<()> {
        let socket = match server {
            IpAddr::V4(_) => self.v4.as_ref(),
            IpAddr::V6(_) => self.v6.as_ref(),
        };
        let socket = socket.ok_or(io::ErrorKind::Unsupported)?;
        let to = SockaddrStorage::from(SocketAddr::new(server, DISCARD));
        let send = |control: &[ControlMessage<'_>]| {
            sendmsg(socket.as_raw_fd(), &[], control, MsgFlags::empty(), Some(&to))
        };
        match source {
            None => send(&[]),
            // the source of this datagram only (ip(7), IP_PKTINFO; RFC 3542 section 6.2)
            Some(IpAddr::V4(source)) => send(&[ControlMessage::Ipv4PacketInfo(&libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr {
                    s_addr: source.to_bits().to_be(),
                },
                ipi_addr: libc::in_addr { s_addr: 0 },
            })]),
            Some(IpAddr::V6(source)) => send(&[ControlMessage::Ipv6PacketInfo(&libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr {
                    s6_addr: source.octets(),
                },
                ipi6_ifindex: 0,
            })]),
        }?;
        Ok(())
    }
}

fn open(domain: Domain) -> io::Result<Option<Socket>> {
    let kind = Type::DGRAM.nonblocking().cloexec();
    let socket = match Socket::new(domain, kind, Some(Protocol::UDP)) {
        Ok(socket) => socket,
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => return Ok(None),
        Err(error) => return Err(error),
    };
    // nothing is ever read: what somebody sends here shall cost no memory
    socket.set_recv_buffer_size(0)?;
    let any = if domain == Domain::IPV4 {
        socket.set_ttl_v4(1)?;
        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    } else {
        socket.set_only_v6(true)?;
        socket.set_unicast_hops_v6(1)?;
        IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    };
    socket.bind(&SocketAddr::new(any, 0).into())?;
    Ok(Some(socket))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn a_server_that_refuses_the_datagram_does_not_stop_the_next() {
        let prober = Prober::open().unwrap();
        for _ in 0..3 {
            assert!(prober.probe(Ipv4Addr::LOCALHOST.into(), None).is_ok());
        }
    }

    #[test]
    fn the_datagram_leaves_from_the_source_that_is_given() {
        let prober = Prober::open().unwrap();
        let source = IpAddr::from([127, 0, 0, 9]);
        assert!(prober.probe(Ipv4Addr::LOCALHOST.into(), Some(source)).is_ok());
        // not ours, so that the kernel must have looked at it
        let foreign = IpAddr::from([192, 0, 2, 9]);
        assert!(prober.probe(Ipv4Addr::LOCALHOST.into(), Some(foreign)).is_err());
    }

    #[test]
    fn what_others_send_to_the_socket_piles_up_nowhere() {
        let prober = Prober::open().unwrap();
        let ours = prober.v4.as_ref().unwrap();
        assert!(ours.recv_buffer_size().unwrap() < 8 << 10);
        let mut to = ours.local_addr().unwrap().as_socket().unwrap();
        to.set_ip(Ipv4Addr::LOCALHOST.into());
        let other = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..100 {
            other.send_to(&[0; 1024], to).unwrap();
        }
        assert!(prober.probe(Ipv4Addr::LOCALHOST.into(), None).is_ok());
    }
}
