//! TCP sockets of the proxy's hot path: as few system calls as the kernel allows.

use std::{
    io::{self, IoSlice},
    mem::{MaybeUninit, size_of},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    time::Duration,
};

use nix::sys::socket::{MsgFlags, Shutdown, SockaddrStorage, getsockname, recv, setsockopt, sockopt};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};

use super::{server_socket::Source, zone::at_interface};
use crate::base::{KeepAlive, PeerAddr, PeerTimeouts, Remote};

/// `SIOCATMARK` of linux/sockios.h, which libc lacks: whether reading has come to the urgent mark (tcp(7)).
const SIOCATMARK: libc::Ioctl = 0x8905;

/// Takes one connection off a listener's queue: non-blocking and close-on-exec in one call.
///
/// Works for unix sockets, too, whose peers have no address worth knowing.
///
/// Socket options such as TCP_NODELAY, TCP_USER_TIMEOUT and SO_KEEPALIVE are inherited from the listener.
///
/// # Errors
/// `WouldBlock` when the queue is empty, else what accept4(2) says.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, Remote<PeerAddr>)> {
    let mut storage = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    let mut length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    // SAFETY: `storage` is writable for `length` bytes and both outlive the call; a non-negative result is a
    // new descriptor that nobody else owns.
    let (fd, storage) = unsafe {
        let fd = libc::accept4(
            listener.as_raw_fd(),
            storage.as_mut_ptr().cast(),
            &raw mut length,
            libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
        );
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        (OwnedFd::from_raw_fd(fd), storage.assume_init())
    };
    let peer = match socket_addr(&storage) {
        Some(addr) => addr.into(),
        None if i32::from(storage.ss_family) == libc::AF_UNIX => {
            // what a listener of TCP hands down is asked for here
            keep_urgent_in_line(&fd);
            Remote::Unix
        }
        None => return Err(io::ErrorKind::Unsupported.into()),
    };
    Ok((fd, peer))
}

fn socket_addr(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that the kernel wrote a sockaddr_in, which fits in and is aligned as a
            // sockaddr_storage.
            let v4 = unsafe { &*std::ptr::from_ref(storage).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above, for sockaddr_in6.
            let v6 = unsafe { &*std::ptr::from_ref(storage).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            if let Some(v4) = ip.to_ipv4_mapped() {
                // an IPv4 client of a [::] listener
                return Some(SocketAddrV4::new(v4, u16::from_be(v6.sin6_port)).into());
            }
            Some(SocketAddrV6::new(ip, u16::from_be(v6.sin6_port), 0, v6.sin6_scope_id).into())
        }
        _ => None,
    }
}

/// Starts connecting without waiting, at the named interface if the address is link-local. The result is known when the
/// socket becomes writable ([`connect_result`]).
///
/// With a source address the port is chosen at connect time (IP_BIND_ADDRESS_NO_PORT), so that the ports of one
/// source are limited for each destination and not in total.
///
/// # Errors
/// No socket could be made, there is no such interface, the source address is not ours, or the connect failed at once (no
/// route, no free port).
pub fn start_connect(
    addr: SocketAddr,
    interface: Option<&str>,
    source: Source,
    user_timeout: Option<Duration>,
) -> io::Result<OwnedFd> {
    let (socket, source) = source.open(addr.is_ipv6(), || {
        let kind = Type::STREAM.nonblocking().cloexec();
        Socket::new(Domain::for_address(addr), kind, Some(Protocol::TCP))
    })?;
    socket.set_tcp_nodelay(true)?;
    if user_timeout.is_some() {
        socket.set_tcp_user_timeout(user_timeout)?;
    }
    let at = |addr| interface.map_or(Ok(addr), |name| at_interface(&socket, addr, name));
    if let Some(source) = source {
        setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
        socket.bind(&SockAddr::from(at(SocketAddr::new(source, 0))?))?;
    }
    match socket.connect(&SockAddr::from(at(addr)?)) {
        Ok(()) => Ok(socket.into()),
        Err(e) if e.raw_os_error() == Some(libc::EINPROGRESS) => Ok(socket.into()),
        Err(e) => Err(e),
    }
}

/// Lets the acknowledgement that ends the handshake wait a moment for data to travel with (TCP_QUICKACK off). Only for
/// a connection that is being established and has data to send at once.
pub fn delay_acknowledgement(socket: &impl AsFd) {
    let _ = SockRef::from(socket).set_tcp_quickack(false);
}

/// The outcome of [`start_connect`], once the socket is writable.
///
/// # Errors
/// Why the connection was not established.
pub fn connect_result(socket: &impl AsFd) -> io::Result<()> {
    match SockRef::from(socket).take_error()? {
        None => Ok(()),
        Some(e) => Err(e),
    }
}

/// Reads what is there; 0 at end of stream.
///
/// # Errors
/// `WouldBlock` when nothing is there, else the connection's error.
pub fn receive(socket: &impl AsRawFd, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(recv(socket.as_raw_fd(), buffer, MsgFlags::empty())?)
}

/// Writes what fits. `more` promises more data, or the end of the stream, at once (MSG_MORE): an incomplete packet is
/// kept back for it.
///
/// # Errors
/// `WouldBlock` when nothing fits, else the connection's error.
pub fn transmit(socket: &impl AsFd, bytes: &[u8], more: bool) -> io::Result<usize> {
    let flags = if more {
        libc::MSG_NOSIGNAL | libc::MSG_MORE
    } else {
        libc::MSG_NOSIGNAL
    };
    SockRef::from(socket).send_with_flags(bytes, flags)
}

/// Writes what fits of several pieces.
///
/// # Errors
/// As [`transmit`].
pub fn transmit_parts(socket: &impl AsFd, parts: &[IoSlice<'_>]) -> io::Result<usize> {
    SockRef::from(socket).send_vectored_with_flags(parts, libc::MSG_NOSIGNAL)
}

/// Writes one byte as TCP urgent data; as ordinary data where there is no such, as on unix sockets of some kernels.
///
/// # Errors
/// `WouldBlock` when it does not fit, else the connection's error.
pub fn transmit_urgent(socket: &impl AsFd, byte: u8) -> io::Result<usize> {
    let sent = SockRef::from(socket).send_with_flags(&[byte], libc::MSG_NOSIGNAL | libc::MSG_OOB);
    match sent {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => transmit(socket, &[byte], false),
        sent => sent,
    }
}

/// Leaves urgent data in its place in the stream (SO_OOBINLINE): else a read that begins there skips it.
pub fn keep_urgent_in_line(socket: &impl AsFd) {
    let _ = SockRef::from(socket).set_out_of_band_inline(true);
}

/// The urgent byte, if reading has come to its place in the stream, where it was [kept](keep_urgent_in_line).
///
/// # Errors
/// The connection's error, which the kernel tells once; `WouldBlock` when the byte is still to come.
pub fn take_urgent(socket: &impl AsRawFd) -> io::Result<Option<u8>> {
    let mut is_at_mark: libc::c_int = 0;
    // SAFETY: the request writes one int, to `is_at_mark`, which outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCATMARK, &raw mut is_at_mark) };
    if result != 0 || is_at_mark != 1 {
        return Ok(None);
    }
    let mut byte = [0];
    Ok((receive(socket, &mut byte)? == 1).then_some(byte[0]))
}

/// Bytes that have been written and that the peer has not acknowledged.
///
/// # Errors
/// What ioctl(2) says.
pub fn unacknowledged(socket: &impl AsRawFd) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the request writes one int, to `bytes`, which outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(bytes).unwrap_or_default())
}

/// Has the kernel report a socket readable only when half of its receive buffer is full (or at the end of the stream).
/// For a time in which nothing is read from it anyway: an edge-triggered reactor is else woken by every packet.
pub fn mute(socket: &impl AsFd) {
    let socket = SockRef::from(socket);
    // tcp_set_rcvlowat() enlarges the buffer for a mark above half of it, which a slow reader must not bring about
    if let Ok(buffer) = socket.recv_buffer_size() {
        set_low_water_mark(&socket, buffer / 2);
    }
}

/// Takes [`mute`] back; the kernel reports at once what has arrived meanwhile.
pub fn unmute(socket: &impl AsFd) {
    set_low_water_mark(&SockRef::from(socket), 1);
}

fn set_low_water_mark(socket: &Socket, bytes: usize) {
    let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    // SAFETY: the option's value is read from `bytes`, which outlives the call, and has the size that is given.
    let _ = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVLOWAT,
            (&raw const bytes).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
}

/// Closes our half: the peer reads end of stream.
pub fn finish_writing(socket: &impl AsRawFd) {
    // the peer may be gone already, which the reading half will tell
    let _ = nix::sys::socket::shutdown(socket.as_raw_fd(), Shutdown::Write);
}

/// The address of our end of a connection; `None` if that is none of IP.
#[must_use]
pub fn local_address(socket: RawFd) -> Option<(IpAddr, u16)> {
    let storage: SockaddrStorage = getsockname(socket).ok()?;
    let v4 = storage
        .as_sockaddr_in()
        .map(|v4| (IpAddr::V4(v4.ip()), v4.port()));
    v4.or_else(|| (storage.as_sockaddr_in6()).map(|v6| (v6.ip().to_canonical(), v6.port())))
}

/// Ends both halves of a connection that another task owns: its owner sees end of stream and broken pipe.
pub fn end_both_halves(socket: RawFd) {
    let _ = nix::sys::socket::shutdown(socket, Shutdown::Both);
}

/// Sets when the kernel gives a connection up; connections that a listener accepts later inherit it.
///
/// # Errors
/// What setsockopt(2) says.
pub fn set_peer_timeouts(socket: &impl AsFd, timeouts: PeerTimeouts) -> io::Result<()> {
    SockRef::from(socket).set_tcp_user_timeout(timeouts.user_timeout)?;
    match timeouts.keepalive {
        Some(keepalive) => keep_alive(socket, keepalive),
        None => SockRef::from(socket).set_keepalive(false),
    }
}

/// Has the kernel probe an idle connection from now on; the time that it has been idle already counts.
///
/// # Errors
/// What setsockopt(2) says.
pub fn keep_alive(socket: &impl AsFd, keepalive: KeepAlive) -> io::Result<()> {
    let KeepAlive {
        idle,
        interval,
        count,
    } = keepalive;
    let probes = TcpKeepalive::new()
        .with_time(idle)
        .with_interval(interval)
        .with_retries(count.get());
    SockRef::from(socket).set_tcp_keepalive(&probes)
}

/// Whether an error says that the peer, or the way to it, has vanished, and not that the peer has ended the connection.
#[must_use]
pub fn is_lost(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ETIMEDOUT | libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EHOSTDOWN | libc::ENETDOWN)
    )
}

/// Makes the coming close a reset instead of an orderly end, so that the peer cannot take what it has for all.
pub fn reset_on_close(socket: &impl AsFd) {
    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

/// Our end of a connection that another task owns.
#[must_use]
pub fn local_addr(socket: RawFd) -> Option<SocketAddr> {
    let addr: SockaddrStorage = getsockname(socket).ok()?;
    let v4 = addr.as_sockaddr_in().map(|addr| SocketAddr::V4((*addr).into()));
    v4.or_else(|| addr.as_sockaddr_in6().map(|addr| SocketAddr::V6((*addr).into())))
}

/// Time since the peer of a connection that another task owns has last sent data (`tcpi_last_data_recv` of linux/tcp.h);
/// before it has, since the connection was made.
#[must_use]
pub fn since_last_data(socket: RawFd) -> Option<Duration> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: `info` is writable for `length` bytes and both outlive the call; it was zeroed, and any bytes are a tcp_info.
    let (done, info) = unsafe {
        let done = libc::getsockopt(
            socket,
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        );
        (done, info.assume_init())
    };
    (done == 0).then(|| Duration::from_millis(info.tcpi_last_data_recv.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn an_accepted_socket_knows_its_client_in_both_families() {
        for addr in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(addr).unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (_socket, peer) = accept(listener.as_fd()).unwrap();
            assert_eq!(peer, client.local_addr().unwrap().into());
        }
    }

    #[test]
    fn a_connection_tells_its_end_and_when_data_came_last() {
        for addr in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(addr).unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let fd = client.as_raw_fd();
            assert_eq!(local_addr(fd), client.local_addr().ok());
            assert!(since_last_data(fd).is_some());
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(since_last_data(udp.as_raw_fd()), None);
        assert_eq!(local_addr(listener.as_raw_fd()), listener.local_addr().ok());
    }

    #[test]
    fn an_empty_queue_would_block() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let error = accept(listener.as_fd()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    fn from(address: IpAddr) -> Source {
        Source {
            address: Some(address),
            ..Source::default()
        }
    }

    #[test]
    fn a_connect_leaves_from_the_source_address() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let source = "127.0.0.9".parse().unwrap();
        let socket = start_connect(listener.local_addr().unwrap(), None, from(source), None).unwrap();
        let (_, peer) = listener.accept().unwrap();
        assert_eq!(peer.ip(), source);
        assert!(connect_result(&socket).is_ok());
    }
}
