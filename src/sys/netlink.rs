//! Sockets of netlink(7). Those of rtnetlink need no capability: the kernel tells everybody what the network looks like.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd},
};

use netlink_packet_core::{NLM_F_REQUEST, NetlinkMessage};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAttribute, RouteMessage},
};
use netlink_sys::{
    Socket, SocketAddr,
    protocols::{NETLINK_NETFILTER, NETLINK_ROUTE},
};
use nix::sys::socket::{NetlinkAddr, recvfrom};

/// The group of linux/netfilter/nfnetlink.h that is told of changes of nftables.
const NFNLGRP_NFTABLES: u32 = 7;

/// Opens a socket that is told of changes in `groups` (RTNLGRP_…); with none, it only gets answers. It does not block
/// and is closed on exec.
///
/// `receive_buffer` is what the kernel may keep for it, in bytes; net.core.rmem_max limits that.
///
/// # Errors
/// No descriptor is left, or the kernel does not know a group.
pub fn open(groups: &[u32], receive_buffer: usize) -> io::Result<OwnedFd> {
    open_protocol(NETLINK_ROUTE, groups, receive_buffer)
}

/// Opens a socket that is told of changes of the nftables rules of this network namespace. Needs CAP_NET_ADMIN. As
/// [`open`] otherwise.
///
/// # Errors
/// No descriptor is left, it is forbidden, or the kernel has no nftables.
pub fn open_nftables_monitor(receive_buffer: usize) -> io::Result<OwnedFd> {
    open_protocol(NETLINK_NETFILTER, &[NFNLGRP_NFTABLES], receive_buffer)
}

fn open_protocol(protocol: isize, groups: &[u32], receive_buffer: usize) -> io::Result<OwnedFd> {
    let mut socket = Socket::new(protocol)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    socket.set_rx_buf_sz(i32::try_from(receive_buffer).unwrap_or(i32::MAX))?;
    socket.set_non_blocking(true)?;
    for group in groups {
        socket.add_membership(*group)?;
    }
    // SAFETY: `into_raw_fd` gives the descriptor away without closing it, so that the OwnedFd is its only owner.
    Ok(unsafe { OwnedFd::from_raw_fd(socket.into_raw_fd()) })
}

/// Receives one datagram, which may hold several messages. 0 for one that does not come from the kernel.
///
/// # Errors
/// `WouldBlock` when nothing is there; ENOBUFS when notifications were lost since the last call.
pub fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<usize> {
    let (len, sender) = recvfrom::<NetlinkAddr>(socket.as_raw_fd(), buffer)?;
    // other processes may address our port too
    let is_kernel = sender.is_some_and(|sender| sender.pid() == 0);
    Ok(if is_kernel { len } else { 0 })
}

/// The bytes of a request with these further flags. Pure.
#[must_use]
pub fn request(payload: RouteNetlinkMessage, flags: u16, sequence: u32) -> Vec<u8> {
    let mut message = NetlinkMessage::from(payload);
    message.header.flags = NLM_F_REQUEST | flags;
    message.header.sequence_number = sequence;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// Asks how a packet to `destination` would leave; `source` is one of our own addresses, where rules may look at it.
/// Pure.
#[must_use]
pub fn get_route(destination: IpAddr, source: Option<IpAddr>) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(destination);
    message.header.destination_prefix_length = full_length(destination);
    message
        .attributes
        .push(RouteAttribute::Destination(destination.into()));
    if let Some(source) = source {
        message.header.source_prefix_length = full_length(source);
        message.attributes.push(RouteAttribute::Source(source.into()));
    }
    RouteNetlinkMessage::GetRoute(message)
}

/// The address family of an address, as rtnetlink names it. Pure.
#[must_use]
pub const fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

const fn full_length(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_received_where_nothing_was_asked() {
        let socket = open(&[], 1 << 16).unwrap();
        let error = receive(&socket, &mut [0; 64]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_group_that_no_kernel_knows_is_refused() {
        assert!(open(&[10_000], 1 << 16).is_err());
    }
}
