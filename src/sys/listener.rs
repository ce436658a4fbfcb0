//! Listening TCP sockets.

use std::{
    io,
    net::{Shutdown, SocketAddr},
    num::NonZeroU32,
    os::fd::{BorrowedFd, OwnedFd},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::{
    socket_options::{force_buffers, has_buffers, of_listener, set_dscp},
    tcp,
};
use crate::base::{PeerTimeouts, SocketOptions};

/// Connections that may wait for accept: large, because the kernel clamps it to net.core.somaxconn, which is where
/// an administrator sets it (4,096 by default since Linux 5.4).
pub const BACKLOG: i32 = 65_535;

/// What to listen on, and what the accepted sockets inherit besides TCP_NODELAY.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen<'a> {
    /// The address. `[::]` takes IPv4 connections too, as in Convey 0.3.5.
    pub addr: SocketAddr,
    /// The name of the interface that a link-local address is on.
    pub interface: Option<&'a str>,
    /// When the kernel gives an accepted connection up.
    pub timeouts: PeerTimeouts,
    /// What the operator has chosen.
    pub options: SocketOptions,
}

/// The step of making a listener that failed.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}")]
pub struct ListenError {
    /// What was tried, such as `bind`.
    pub step: &'static str,
    /// Why it failed.
    pub source: io::Error,
}

pub(super) fn at(step: &'static str) -> impl FnOnce(io::Error) -> ListenError {
    move |source| ListenError { step, source }
}

/// Makes a non-blocking listening socket that shares its address with others of the same user (SO_REUSEPORT), so
/// that every worker thread can have its own.
///
/// # Errors
/// The step that failed.
pub fn listen(what: &Listen<'_>) -> Result<OwnedFd, ListenError> {
    let socket = reusable(what.addr, what.interface)?;
    socket.set_reuse_port(true).map_err(at("SO_REUSEPORT"))?;
    inherited(&socket)?;
    tcp::set_peer_timeouts(&socket, what.timeouts).map_err(at("TCP_USER_TIMEOUT, SO_KEEPALIVE"))?;
    chosen(&socket, what.options, what.addr.is_ipv6())?;
    socket.bind(&what.addr.into()).map_err(at("bind"))?;
    socket.listen(BACKLOG).map_err(at("listen"))?;
    Ok(socket.into())
}

/// Sets what accepted sockets have from their listener at no cost.
fn inherited(socket: &Socket) -> Result<(), ListenError> {
    socket.set_tcp_nodelay(true).map_err(at("TCP_NODELAY"))?;
    // no read skips an urgent byte
    socket.set_out_of_band_inline(true).map_err(at("SO_OOBINLINE"))
}

/// Sets what the operator has chosen: what only the broker can, and the class that the first answer has.
pub(super) fn chosen(socket: &Socket, options: SocketOptions, is_ipv6: bool) -> Result<(), ListenError> {
    if let Some(mark) = options.mark {
        socket.set_mark(mark.get()).map_err(at("SO_MARK"))?;
    }
    if options.dscp.is_some() {
        set_dscp(socket, is_ipv6, options.dscp).map_err(at("IP_TOS"))?;
    }
    let kind = socket.r#type().map_err(at("SO_TYPE"))?;
    force_buffers(socket, of_listener(options, kind)).map_err(at("SO_RCVBUF, SO_SNDBUF"))
}

/// Whether a socket of an earlier process has what only the broker can set.
pub fn has_chosen(socket: BorrowedFd<'_>, options: SocketOptions) -> bool {
    let mark = SockRef::from(&socket).mark();
    mark.is_ok_and(|mark| mark == options.mark.map_or(0, NonZeroU32::get)) && has_buffers(&socket, options)
}

/// The address that a descriptor listens on, if it is a socket such as [`listen`] makes.
pub fn address_of(socket: BorrowedFd<'_>) -> Option<SocketAddr> {
    let socket = SockRef::from(&socket);
    let is_ours = socket.r#type().ok()? == Type::STREAM
        && socket.protocol().ok()? == Some(Protocol::TCP)
        && socket.is_listener().ok()?
        && socket.reuse_port().ok()?;
    let addr = socket.local_addr().ok()?.as_socket()?;
    // one of a single IPv6 address never does, and the kernel says so
    let takes_ipv4 = !addr.ip().is_unspecified() || addr.is_ipv4() || !socket.only_v6().ok()?;
    (is_ours && takes_ipv4).then_some(addr)
}

/// The name of the interface that a socket is bound to; `None` if to none.
///
/// # Errors
/// The interface is gone, and with it all that could come to the socket.
pub fn interface_of(socket: BorrowedFd<'_>) -> io::Result<Option<String>> {
    let name = SockRef::from(&socket).device()?;
    Ok(name.and_then(|name| String::from_utf8(name).ok()))
}

/// Makes a listening socket of an earlier process like one that [`listen`] would make now.
///
/// # Errors
/// The step that failed.
pub fn take_over(socket: BorrowedFd<'_>, timeouts: PeerTimeouts) -> Result<(), ListenError> {
    let socket = SockRef::from(&socket);
    socket.set_nonblocking(true).map_err(at("O_NONBLOCK"))?;
    inherited(&socket)?;
    tcp::set_peer_timeouts(&*socket, timeouts).map_err(at("TCP_USER_TIMEOUT, SO_KEEPALIVE"))?;
    // net.core.somaxconn may be higher now; of a socket that listens only the backlog changes
    socket.listen(BACKLOG).map_err(at("listen"))
}

/// Ends the listening, whoever else holds the socket; connections that wait for accept are reset.
pub fn end(socket: BorrowedFd<'_>) {
    // it fails only for what does not listen
    let _ = SockRef::from(&socket).shutdown(Shutdown::Both);
}

/// Whether a connection waits for accept.
pub fn has_waiting(socket: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(socket, PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// Checks that nobody listens on an address, not even a process of the same user that shares it (SO_REUSEPORT):
/// with such a one, two load balancers would silently take half of the connections each.
///
/// # Errors
/// Why the address cannot be bound.
pub fn probe_exclusive(addr: SocketAddr, interface: Option<&str>) -> Result<(), ListenError> {
    reusable(addr, interface)?.bind(&addr.into()).map_err(at("bind"))
}

/// A socket of TCP for an address.
fn reusable(addr: SocketAddr, interface: Option<&str>) -> Result<Socket, ListenError> {
    let socket = socket_for(addr, interface, Type::STREAM)?;
    // connections of an earlier process in TIME-WAIT must not keep this one from starting
    socket.set_reuse_address(true).map_err(at("SO_REUSEADDR"))?;
    Ok(socket)
}

/// A non-blocking socket of a kind (TCP or UDP) for an address that clients send to.
pub(super) fn socket_for(
    addr: SocketAddr,
    interface: Option<&str>,
    kind: Type,
) -> Result<Socket, ListenError> {
    // socket2 adds SOCK_CLOEXEC
    let socket = Socket::new(Domain::for_address(addr), kind.nonblocking(), None).map_err(at("socket"))?;
    if addr.is_ipv6() {
        // whatever net.ipv6.bindv6only says; where 0.0.0.0 is listened on too, the kernel prefers that for IPv4
        socket.set_only_v6(false).map_err(at("IPV6_V6ONLY"))?;
    }
    if let Some(interface) = interface {
        // as good as the index in the address (inet6_bind of the kernel), and by a name that can come to have another
        socket
            .bind_device(Some(interface.as_bytes()))
            .map_err(at("find the interface"))?;
    }
    // an address that no interface has yet: a standby's, or one of IPv6 that is still tentative
    let freebind = match addr {
        SocketAddr::V4(_) => socket.set_freebind_v4(true),
        SocketAddr::V6(_) => socket.set_freebind_v6(true),
    };
    freebind.map_err(at("IP_FREEBIND"))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        net::{TcpListener, TcpStream},
        os::fd::AsFd as _,
        time::Duration,
    };

    use crate::base::KeepAlive;

    fn loopback() -> Listen<'static> {
        Listen {
            addr: "127.0.0.1:0".parse().unwrap(),
            interface: None,
            timeouts: patient_for(30),
            options: SocketOptions::default(),
        }
    }

    fn patient_for(seconds: u64) -> PeerTimeouts {
        PeerTimeouts {
            user_timeout: Some(Duration::from_secs(seconds)),
            keepalive: Some(KeepAlive {
                idle: Duration::from_secs(seconds + 1),
                interval: Duration::from_secs(seconds + 2),
                count: NonZeroU32::new(7).unwrap(),
            }),
        }
    }

    fn timeouts_of(socket: &Socket) -> PeerTimeouts {
        let keepalive = || KeepAlive {
            idle: socket.tcp_keepalive_time().unwrap(),
            interval: socket.tcp_keepalive_interval().unwrap(),
            count: NonZeroU32::new(socket.tcp_keepalive_retries().unwrap()).unwrap(),
        };
        PeerTimeouts {
            user_timeout: socket.tcp_user_timeout().unwrap(),
            keepalive: socket.keepalive().unwrap().then(keepalive),
        }
    }

    #[test]
    fn accepted_sockets_inherit_the_options() {
        let listener = TcpListener::from(listen(&loopback()).unwrap());
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let accepted = Socket::from(listener.accept().unwrap().0);
        assert!(accepted.tcp_nodelay().unwrap());
        assert_eq!(timeouts_of(&accepted), patient_for(30));
    }

    #[test]
    fn workers_share_an_address_but_a_probe_sees_that_it_is_taken() {
        let first = TcpListener::from(listen(&loopback()).unwrap());
        let addr = first.local_addr().unwrap();
        let second = listen(&Listen {
            addr,
            interface: None,
            timeouts: PeerTimeouts::default(),
            options: SocketOptions::default(),
        });
        assert!(second.is_ok(), "a second worker's socket: {second:?}");
        let error = probe_exclusive(addr, None).unwrap_err();
        assert_eq!(
            (error.step, error.source.kind()),
            ("bind", io::ErrorKind::AddrInUse)
        );
    }

    #[test]
    fn a_listener_is_known_by_its_address_until_it_is_ended_by_any_of_its_holders() {
        let listener = listen(&loopback()).unwrap();
        let addr = TcpListener::from(listener.try_clone().unwrap())
            .local_addr()
            .unwrap();
        assert_eq!(address_of(listener.as_fd()), Some(addr));
        for timeouts in [patient_for(9), PeerTimeouts::default()] {
            take_over(listener.as_fd(), timeouts).unwrap();
            assert_eq!(timeouts_of(&SockRef::from(&listener)), timeouts);
        }

        let _other_holder = listener.try_clone().unwrap();
        end(listener.as_fd());
        assert_eq!(address_of(listener.as_fd()), None);
        let refused = TcpStream::connect(addr).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn an_address_that_no_interface_has_is_bound_all_the_same() {
        for addr in ["192.0.2.77:4242", "[2001:db8::77]:4242"] {
            let addr = addr.parse().unwrap();
            let what = Listen {
                addr,
                interface: None,
                timeouts: PeerTimeouts::default(),
                options: SocketOptions::default(),
            };
            let socket = listen(&what).unwrap();
            assert_eq!(address_of(socket.as_fd()), Some(addr));
            let error = probe_exclusive(addr, None).unwrap_err();
            assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
        }
    }

    #[test]
    fn a_connection_that_waits_is_seen() {
        let listener = listen(&loopback()).unwrap();
        assert!(!has_waiting(listener.as_fd()));
        let listener = TcpListener::from(listener);
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(has_waiting(listener.as_fd()));
        let _accepted = listener.accept().unwrap();
        assert!(!has_waiting(listener.as_fd()));
    }

    #[test]
    fn a_listener_on_any_address_of_either_family_is_known_by_it() {
        for addr in ["127.0.0.1:0", "[::1]:0", "0.0.0.0:0", "[::]:0"] {
            let what = Listen {
                addr: addr.parse().unwrap(),
                interface: None,
                timeouts: PeerTimeouts::default(),
                options: SocketOptions::default(),
            };
            let socket = listen(&what).unwrap();
            let known = address_of(socket.as_fd()).map(|known| known.ip());
            assert_eq!(known, Some(what.addr.ip()), "{addr}");
            assert_eq!(interface_of(socket.as_fd()).unwrap(), None);
        }
    }

    #[test]
    fn a_listener_that_is_taken_over_gets_the_backlog_of_a_new_one() {
        let socket = reusable("127.0.0.1:0".parse().unwrap(), None).unwrap();
        socket.bind(&loopback().addr.into()).unwrap();
        socket.listen(1).unwrap();
        take_over(socket.as_fd(), PeerTimeouts::default()).unwrap();
        let addr = socket.local_addr().unwrap().as_socket().unwrap();
        let connect = || TcpStream::connect_timeout(&addr, Duration::from_millis(500));
        let clients: io::Result<Vec<_>> = (0..10).map(|_| connect()).collect();
        assert_eq!(clients.unwrap().len(), 10);
    }

    #[test]
    fn what_is_no_shared_tcp_listener_is_none_of_ours() {
        let alone = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(address_of(alone.as_fd()), None);
        let (pipe, _) = io::pipe().unwrap();
        assert_eq!(address_of(pipe.as_fd()), None);
    }

    #[test]
    fn a_wildcard_of_ipv6_takes_ipv4_too_but_a_listener_of_ipv4_comes_first() {
        let any = |addr: &str, port: u16| {
            let mut addr: SocketAddr = addr.parse().unwrap();
            addr.set_port(port);
            let what = Listen {
                addr,
                interface: None,
                timeouts: PeerTimeouts::default(),
                options: SocketOptions::default(),
            };
            TcpListener::from(listen(&what).unwrap())
        };
        let six = any("[::]:0", 0);
        let port = six.local_addr().unwrap().port();
        let _first = TcpStream::connect(("127.0.0.1", port)).unwrap();
        assert!(six.accept().is_ok());
        let four = any("0.0.0.0:0", port);
        let _second = TcpStream::connect(("127.0.0.1", port)).unwrap();
        assert!(four.accept().is_ok());
        assert_eq!(six.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
