//! UDP sockets of the proxy: those that clients send to, those towards servers, and receiving and sending in batches.
//!
//! Datagrams leave without DF and in fragments where they must (IP_PMTUDISC_DONT): a client's datagram of 65,507 bytes is
//! none of our business. Datagrams of one sender that came together come merged (UDP_GRO), and leave so (UDP_SEGMENT).

mod control;
mod receive;
mod send;

pub use receive::{Message, Receiver};
pub use send::{Outgoing, Sender};

use std::{
    io,
    mem::size_of,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use super::{
    listener::{self, ListenError, at, socket_for},
    server_socket::Source,
    zone::at_interface,
};
use crate::base::SocketOptions;

/// Makes a non-blocking socket that shares its address with others of the same user (SO_REUSEPORT), so that every worker
/// thread can have its own. `[::]` takes IPv4 too; `interface` is that of a link-local address.
///
/// # Errors
/// The step that failed.
pub fn listen(
    addr: SocketAddr,
    interface: Option<&str>,
    chosen: SocketOptions,
) -> Result<OwnedFd, ListenError> {
    let socket = socket_for(addr, interface, Type::DGRAM)?;
    socket.set_reuse_port(true).map_err(at("SO_REUSEPORT"))?;
    options(&socket, addr)?;
    listener::chosen(&socket, chosen, addr.is_ipv6())?;
    socket.bind(&addr.into()).map_err(at("bind"))?;
    Ok(socket.into())
}

/// Checks that nobody has an address, not even a process of the same user that shares it (SO_REUSEPORT).
///
/// # Errors
/// Why the address cannot be bound.
pub fn probe_exclusive(addr: SocketAddr, interface: Option<&str>) -> Result<(), ListenError> {
    // without SO_REUSEADDR, by which UDP sockets share an address
    socket_for(addr, interface, Type::DGRAM)?
        .bind(&addr.into())
        .map_err(at("bind"))
}

/// The address of a descriptor, if it is a socket such as [`listen`] makes.
pub fn address_of(socket: BorrowedFd<'_>) -> Option<SocketAddr> {
    let socket = SockRef::from(&socket);
    let is_ours = socket.r#type().ok()? == Type::DGRAM
        && socket.protocol().ok()? == Some(Protocol::UDP)
        && socket.reuse_port().ok()?
        // connected ones are none of clients
        && socket.peer_addr().is_err();
    let addr = socket.local_addr().ok()?.as_socket()?;
    let takes_ipv4 = !addr.ip().is_unspecified() || addr.is_ipv4() || !socket.only_v6().ok()?;
    (is_ours && addr.port() != 0 && takes_ipv4).then_some(addr)
}

/// Makes a socket of an earlier process like one that [`listen`] would make now.
///
/// # Errors
/// The step that failed.
pub fn take_over(socket: BorrowedFd<'_>, addr: SocketAddr) -> Result<(), ListenError> {
    let socket = SockRef::from(&socket);
    socket.set_nonblocking(true).map_err(at("O_NONBLOCK"))?;
    options(&socket, addr)
}

/// Makes a non-blocking socket that sends to a server and hears it alone; ICMP errors of it are told as errors of the socket
/// (IP_RECVERR).
///
/// # Errors
/// No socket could be made, there is no such interface, the source address is not ours, or there is no route.
pub fn connect(addr: SocketAddr, interface: Option<&str>, source: Source) -> io::Result<OwnedFd> {
    let (socket, source) = source.open(addr.is_ipv6(), || {
        let kind = Type::DGRAM.nonblocking().cloexec();
        Socket::new(Domain::for_address(addr), kind, Some(Protocol::UDP))
    })?;
    common(&socket, addr.is_ipv6()).map_err(|error| error.source)?;
    if addr.is_ipv4() {
        set(&socket, libc::IPPROTO_IP, libc::IP_RECVERR, 1)?;
    } else {
        set(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1)?;
    }
    let at = |addr| interface.map_or(Ok(addr), |name| at_interface(&socket, addr, name));
    if let Some(source) = source {
        // ports of one source are limited for each destination and not in total
        set(&socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)?;
        socket.bind(&SockAddr::from(at(SocketAddr::new(source, 0))?))?;
    }
    socket.connect(&SockAddr::from(at(addr)?))?;
    Ok(socket.into())
}

/// How many datagrams a socket's queue had no room for since it was made.
pub fn dropped(socket: BorrowedFd<'_>) -> u32 {
    let mut counts = [0_u32; libc::SK_MEMINFO_DROPS as usize + 1];
    let mut length = size_of_val(&counts) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes of plain numbers into `counts`, which has that size.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            counts.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    // kernels before 4.12 do not tell
    if result == 0 {
        counts[libc::SK_MEMINFO_DROPS as usize]
    } else {
        0
    }
}

/// What a socket that clients send to has besides its address.
fn options(socket: &Socket, addr: SocketAddr) -> Result<(), ListenError> {
    common(socket, addr.is_ipv6())?;
    // of one address it is known where datagrams were sent to
    match addr {
        SocketAddr::V4(addr) if addr.ip().is_unspecified() => {
            set(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1).map_err(at("IP_PKTINFO"))
        }
        SocketAddr::V6(addr) if addr.ip().is_unspecified() => {
            set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1).map_err(at("IPV6_RECVPKTINFO"))?;
            // of what comes by IPv4 it alone tells broadcasts
            set(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1).map_err(at("IP_PKTINFO"))
        }
        _ => Ok(()),
    }
}

/// What all have: no DF, merged datagrams, and to be told of ECN bits and of what the queue had no room for.
fn common(socket: &Socket, is_ipv6: bool) -> Result<(), ListenError> {
    if is_ipv6 {
        let [never, on] = [libc::IPV6_PMTUDISC_DONT, 1];
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, never).map_err(at("IPV6_MTU_DISCOVER"))?;
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, on).map_err(at("IPV6_RECVTCLASS"))?;
    }
    // of an IPv6 socket that takes IPv4, too
    set(
        socket,
        libc::IPPROTO_IP,
        libc::IP_MTU_DISCOVER,
        libc::IP_PMTUDISC_DONT,
    )
    .map_err(at("IP_MTU_DISCOVER"))?;
    set(socket, libc::IPPROTO_IP, libc::IP_RECVTOS, 1).map_err(at("IP_RECVTOS"))?;
    set(socket, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1).map_err(at("SO_RXQ_OVFL"))?;
    set(socket, libc::SOL_UDP, libc::UDP_GRO, 1).map_err(at("UDP_GRO"))
}

fn set(socket: &impl AsFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the option's value is read from `value`, which outlives the call, and has the size that is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests;
