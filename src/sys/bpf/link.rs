//! Links: programs at interfaces, for as long as their descriptors are open.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
};

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage, LinkXdp},
};
use socket2::SockRef;

use super::{
    super::netlink,
    attributes::{Command, CreateLink, OneFd, UpdateLink, bpf, create_link},
};

/// More than what the kernel says of an interface takes.
const ANSWER_BYTES: usize = 32 << 10;

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

/// Has a link's program be this one from now on: no packet comes between the two. The same program again changes nothing. Takes
/// CAP_NET_ADMIN.
///
/// # Errors
/// It is no link of XDP (EINVAL), its interface has gone (ENOLINK), or the driver refuses.
pub fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = UpdateLink {
        link_fd: link.as_raw_fd(),
        new_prog_fd: program.as_raw_fd(),
        flags: 0,
    };
    // SAFETY: nothing in these attributes is an address.
    unsafe { bpf(Command::UpdateLink, &mut attributes) }.map(drop)
}

/// Detaches a link's program at once, whoever else has the link open.
///
/// # Errors
/// It is no link (EINVAL).
pub fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = OneFd { fd: link.as_raw_fd() };
    // SAFETY: nothing in these attributes is an address.
    unsafe { bpf(Command::DetachLink, &mut attributes) }.map(drop)
}

/// Where the program with this id is attached to an interface of this network namespace; `None` where it is not.
///
/// # Errors
/// There is no such interface, or the kernel cannot be asked.
pub fn place_of(program: u32, ifindex: u32) -> io::Result<Option<XdpPlace>> {
    let mut question = LinkMessage::default();
    question.header.index = ifindex;
    let question = netlink::request(RouteNetlinkMessage::GetLink(question), 0, 0);
    let socket = netlink::open(&[], ANSWER_BYTES)?;
    // unconnected, it sends to port 0: the kernel, which has answered when send returns
    SockRef::from(&socket).send(&question)?;
    let mut answer = vec![0; ANSWER_BYTES];
    let length = netlink::receive(&socket, &mut answer)?;
    let answer = answer.get(..length).unwrap_or_default();
    let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(answer).map_err(io::Error::other)?;
    let attributes = match message.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => link.attributes,
        NetlinkPayload::Error(error) => return Err(error.to_io()),
        _ => return Err(io::ErrorKind::InvalidData.into()),
    };
    let said = attributes.iter().filter_map(|attribute| match attribute {
        LinkAttribute::Xdp(said) => Some(said),
        _ => None,
    });
    Ok(said.flatten().find_map(|said| match said {
        LinkXdp::DrvProgId(id) if *id == program => Some(XdpPlace::Driver),
        LinkXdp::SkbProgId(id) if *id == program => Some(XdpPlace::Stack),
        _ => None,
    }))
}
