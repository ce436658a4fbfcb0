//! Links: programs at interfaces, for as long as their descriptors are open.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
};

use super::attributes::{CreateLink, create_link};

/// Where an XDP program is attached to an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XdpPlace {
    /// In the driver (`XDP_FLAGS_DRV_MODE`).
    Driver,
    /// Behind it (`XDP_FLAGS_SKB_MODE`).
    Stack,
}

/// Attaches an XDP program to an interface; it is detached when the last copy of the link is closed. One that is there is never
/// replaced. Takes CAP_NET_ADMIN.
///
/// # Errors
/// Another program is there (EBUSY, EEXIST), the driver refuses, or there is no such interface.
pub fn attach_xdp(program: BorrowedFd<'_>, ifindex: u32, place: XdpPlace) -> io::Result<OwnedFd> {
    /// `BPF_XDP` of `enum bpf_attach_type`.
    const XDP: u32 = 37;
    let flags = match place {
        XdpPlace::Stack => 1 << 1,
        XdpPlace::Driver => 1 << 2,
    };
    create_link(&mut CreateLink {
        prog_fd: program.as_raw_fd(),
        target_ifindex: ifindex,
        attach_type: XDP,
        flags,
    })
}
