//! The interface of a link-local address, by its name.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd},
};

/// The address with the index of the interface of this name, as a link-local one needs it; any socket will do to ask by. A
/// name can come to have another index, so it is asked for at each use. One system call.
///
/// # Errors
/// There is no such interface (netdevice(7), SIOCGIFINDEX).
pub fn at_interface(socket: &impl AsFd, addr: SocketAddr, name: &str) -> io::Result<SocketAddr> {
    let SocketAddr::V6(mut addr) = addr else {
        return Ok(addr);
    };
    addr.set_scope_id(index(socket, name)?);
    Ok(addr.into())
}

fn index(socket: &impl AsFd, name: &str) -> io::Result<u32> {
    let no_such = || io::Error::from_raw_os_error(libc::ENODEV);
    // SAFETY: all zeroes is a request with an empty name.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // the last byte stays zero
    if name.len() >= request.ifr_name.len() {
        return Err(no_such());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    // SAFETY: the kernel reads and writes one `ifreq`, which `request` is and which outlives the call; after it the union
    // holds the index.
    let index = unsafe {
        if libc::ioctl(socket.as_fd().as_raw_fd(), libc::SIOCGIFINDEX, &raw mut request) < 0 {
            return Err(io::Error::last_os_error());
        }
        request.ifr_ifru.ifru_ifindex
    };
    u32::try_from(index).map_err(|_| no_such())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_is_found_by_its_name() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let addr: SocketAddr = "[fe80::1]:80".parse().unwrap();
        assert_eq!(
            at_interface(&socket, addr, "lo").unwrap().to_string(),
            "[fe80::1%1]:80"
        );
        for name in ["no-such-link", "a-name-of-16-byte"] {
            let error = at_interface(&socket, addr, name).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENODEV), "{name}");
        }
    }
}
