//! Settings of network interfaces that anybody may ask for.

use std::{ffi::c_char, io, os::fd::AsRawFd as _};

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};

/// ETHTOOL_GFLAGS of linux/ethtool.h.
const GET_FLAGS: u32 = 0x25;
/// ETHTOOL_GDRVINFO of linux/ethtool.h.
const GET_DRIVER: u32 = 0x3;
/// ETH_FLAG_LRO of linux/ethtool.h.
const FLAG_LRO: u32 = 1 << 15;

/// `struct ethtool_value` of linux/ethtool.h.
#[repr(C)]
struct EthtoolValue {
    cmd: u32,
    data: u32,
}

/// The beginning of `struct ethtool_drvinfo` of linux/ethtool.h, and room for the rest of its 196 bytes.
#[repr(C)]
struct EthtoolDriver {
    cmd: u32,
    driver: [u8; 32],
    rest: [u8; 160],
}

/// The MTU of an interface, in bytes.
///
/// # Errors
/// There is no such interface.
pub fn mtu(interface: &str) -> io::Result<u32> {
    let mut request = named(interface)?;
    ask(libc::SIOCGIFMTU, &mut request)?;
    // SAFETY: the kernel has just written this member of the union.
    let mtu = unsafe { request.ifr_ifru.ifru_mtu };
    u32::try_from(mtu).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Whether the device merges the packets that it receives (LRO), so that what it has merged cannot be taken apart again.
///
/// # Errors
/// There is no such interface, or it is of a kind that has no such settings.
pub fn has_lro(interface: &str) -> io::Result<bool> {
    let mut value = EthtoolValue {
        cmd: GET_FLAGS,
        data: 0,
    };
    let mut request = named(interface)?;
    request.ifr_ifru.ifru_data = (&raw mut value).cast::<c_char>();
    ask(libc::SIOCETHTOOL, &mut request)?;
    Ok(value.data & FLAG_LRO != 0)
}

/// The name of an interface's driver, such as `virtio_net` or `veth`.
///
/// # Errors
/// There is no such interface, or its driver does not say.
pub fn driver(interface: &str) -> io::Result<String> {
    let mut info = EthtoolDriver {
        cmd: GET_DRIVER,
        driver: [0; 32],
        rest: [0; 160],
    };
    let mut request = named(interface)?;
    request.ifr_ifru.ifru_data = (&raw mut info).cast::<c_char>();
    ask(libc::SIOCETHTOOL, &mut request)?;
    let name = info.driver.iter().take_while(|byte| **byte != 0).copied();
    Ok(String::from_utf8_lossy(&name.collect::<Vec<u8>>()).into_owned())
}

fn named(interface: &str) -> io::Result<libc::ifreq> {
    // SAFETY: a name, numbers and a pointer that nobody follows: zeroes are good ones for all of them.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // the last byte stays 0
    if interface.is_empty() || interface.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = c_char::from_ne_bytes([from]);
    }
    Ok(request)
}

fn ask(what: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
    let socket = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    // SAFETY: both requests take an `ifreq`, whose name ends with a 0; where it has a pointer, that is to a value of the size
    // that the command in it asks for, which outlives the call.
    Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), what, std::ptr::from_mut(request)) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_an_mtu_and_merges_nothing() {
        assert!(mtu("lo").unwrap() >= 1_500);
        assert!(!has_lro("lo").unwrap());
        for name in ["", "no-such-device", "a-name-that-is-longer-than-any"] {
            assert!(
                mtu(name).is_err() && has_lro(name).is_err() && driver(name).is_err(),
                "{name}"
            );
        }
    }
}
