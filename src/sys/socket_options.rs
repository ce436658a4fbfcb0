//! Options of sockets that the operator chooses, all but the mark: class, buffers, interface.

use std::{
    io,
    num::NonZeroU32,
    os::fd::{AsFd, AsRawFd as _},
};

use socket2::{Domain, SockRef, Socket, Type};

use crate::base::{Dscp, ServerSocketOptions, SocketOptions};

/// Bytes of the receive buffer of UDP listeners that none is chosen for: room for some 5,000 small datagrams (each takes 768
/// bytes of the 4 MiB that the kernel makes of it) while their worker is busy, where the kernel's own 212,992 bytes hold 280.
pub const UDP_RECEIVE_BUFFER: NonZeroU32 = NonZeroU32::new(2 << 20).unwrap();

/// Gives the packets of a listener a class, `None` the kernel's own. ECN bits stay TCP's; datagrams that have some say both.
///
/// # Errors
/// What setsockopt(2) says.
pub fn set_dscp(listener: &impl AsFd, is_ipv6: bool, dscp: Option<Dscp>) -> io::Result<()> {
    let dscp = dscp.unwrap_or(Dscp::BEST_EFFORT);
    if is_ipv6 {
        set_class(listener, true, dscp)?;
    }
    // one of IPv6 may have clients by IPv4
    set_class(listener, false, dscp)
}

fn set_class(socket: &impl AsFd, is_ipv6: bool, dscp: Dscp) -> io::Result<()> {
    let (socket, tos) = (SockRef::from(socket), u32::from(dscp.tos()));
    match is_ipv6 {
        true => socket.set_tclass_v6(tos),
        false => socket.set_tos_v4(tos),
    }
}

/// Sets the buffers as far as net.core.rmem_max and net.core.wmem_max allow.
///
/// # Errors
/// What setsockopt(2) says.
pub fn set_buffers(socket: &impl AsFd, options: SocketOptions) -> io::Result<()> {
    let socket = SockRef::from(socket);
    if let Some(bytes) = options.receive_buffer {
        socket.set_recv_buffer_size(size(bytes))?;
    }
    match options.send_buffer {
        Some(bytes) => socket.set_send_buffer_size(size(bytes)),
        None => Ok(()),
    }
}

/// Gives a socket towards a server what is chosen for it.
///
/// # Errors
/// There is no such interface (ENODEV), or what else setsockopt(2) says.
pub fn set_for_server(socket: &impl AsFd, is_ipv6: bool, options: &ServerSocketOptions) -> io::Result<()> {
    if let Some(interface) = &options.interface {
        // by its name each time: one that is made anew has another index
        SockRef::from(socket).bind_device(Some(interface.as_str().as_bytes()))?;
    }
    if let Some(dscp) = options.common.dscp {
        set_class(socket, is_ipv6, dscp)?;
    }
    set_buffers(socket, options.common)
}

/// What a listener of clients has by these options.
#[must_use]
pub fn of_listener(options: SocketOptions, kind: Type) -> SocketOptions {
    let default = (kind == Type::DGRAM).then_some(UDP_RECEIVE_BUFFER);
    SocketOptions {
        receive_buffer: options.receive_buffer.or(default),
        ..options
    }
}

/// Sets the buffers of a listener, above what sysctls allow too where this process has CAP_NET_ADMIN.
///
/// # Errors
/// What setsockopt(2) says.
pub fn force_buffers(listener: &impl AsFd, options: SocketOptions) -> io::Result<()> {
    let buffers = [
        (options.receive_buffer, libc::SO_RCVBUFFORCE),
        (options.send_buffer, libc::SO_SNDBUFFORCE),
    ];
    for (bytes, option) in buffers {
        let Some(bytes) = bytes else { continue };
        match force(listener, option, bytes) {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => return set_buffers(listener, options),
            forced => forced?,
        }
    }
    Ok(())
}

fn force(socket: &impl AsFd, option: libc::c_int, bytes: NonZeroU32) -> io::Result<()> {
    let bytes = libc::c_int::try_from(bytes.get()).unwrap_or(libc::c_int::MAX);
    // SAFETY: the option's value is read from `bytes`, which outlives the call, and has the size that is given.
    let set = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw const bytes).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    match set {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether a listener of an earlier process has the buffers of these options, or what a process without CAP_NET_ADMIN could
/// give it of them.
#[must_use]
pub fn has_buffers(socket: &impl AsFd, options: SocketOptions) -> bool {
    let socket = SockRef::from(socket);
    let Ok(kind) = socket.r#type() else {
        return false;
    };
    let options = of_listener(options, kind);
    let Ok(limited) = Socket::new(Domain::IPV4, kind, None) else {
        return true;
    };
    if set_buffers(&limited, options).is_err() {
        return true;
    }
    let is_of = |bytes: Option<NonZeroU32>, has: fn(&Socket) -> io::Result<usize>| {
        let has_now = has(&socket).unwrap_or(0);
        bytes.is_some_and(|bytes| has_now == 2 * size(bytes))
            || has(&limited).is_ok_and(|limited| limited == has_now)
    };
    is_of(options.receive_buffer, Socket::recv_buffer_size)
        && is_of(options.send_buffer, Socket::send_buffer_size)
}

fn size(bytes: NonZeroU32) -> usize {
    bytes.get() as usize
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    fn options(receive: u32, send: u32) -> SocketOptions {
        SocketOptions {
            receive_buffer: NonZeroU32::new(receive),
            send_buffer: NonZeroU32::new(send),
            ..SocketOptions::default()
        }
    }

    #[test]
    fn a_listener_is_known_by_its_buffers() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(has_buffers(&listener, options(0, 0)));
        force_buffers(&listener, options(50_000, 60_000)).unwrap();
        assert!(has_buffers(&listener, options(50_000, 60_000)));
        for other in [options(0, 60_000), options(50_000, 0), options(60_000, 50_000)] {
            assert!(!has_buffers(&listener, other), "{other:?}");
        }
    }

    #[test]
    fn a_socket_of_udp_has_what_it_gets_by_default_or_as_far_as_the_host_allows() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(!has_buffers(&socket, options(0, 0)), "the kernel's");
        for limited in [false, true] {
            let all = of_listener(options(0, 0), Type::DGRAM);
            if limited {
                set_buffers(&socket, all).unwrap();
            } else {
                force_buffers(&socket, all).unwrap();
            }
            assert!(has_buffers(&socket, options(0, 0)));
            assert!(!has_buffers(&socket, options(8_192, 0)));
        }
    }

    #[test]
    fn a_class_can_be_taken_away() {
        let listener = TcpListener::bind("[::1]:0").unwrap();
        let has = || {
            let socket = SockRef::from(&listener);
            (socket.tos_v4().unwrap(), socket.tclass_v6().unwrap())
        };
        set_dscp(&listener, true, Dscp::named("ef")).unwrap();
        assert_eq!(has(), (0xb8, 0xb8));
        set_dscp(&listener, true, None).unwrap();
        assert_eq!(has(), (0, 0));
    }
}
