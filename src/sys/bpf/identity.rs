//! What a descriptor of bpf(2) is: the kernel answers the same question about maps, programs and links, each in a struct of its
//! own, and does not say which one. So what is looked at here is told by what only one of them has: a name where maps have it
//! is a map's, one where programs have it is a program's. Whether it is a link is told by what can be done with it.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use super::attributes::{Command, Info, RawLinkInfo, RawMapInfo, RawProgramInfo, bpf, number_of};

/// Maps that a program may use (`MAX_USED_MAPS` of the kernel).
const MAX_MAPS: u32 = 64;
/// `BPF_PROG_TYPE_XDP`.
const PROGRAM_XDP: u32 = 6;
/// `BPF_LINK_TYPE_XDP`.
const LINK_XDP: u32 = 6;

/// A map that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapIdentity {
    /// Its number, which no other map has had since the machine was started.
    pub id: u32,
    /// Its name; never empty.
    pub name: String,
}

/// An XDP program that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramIdentity {
    /// Its number.
    pub id: u32,
    /// Its name; never empty.
    pub name: String,
    /// Numbers of the maps that it uses or that were bound to it.
    pub maps: Vec<u32>,
}

/// What is, if it is a link at all, a link of an XDP program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkIdentity {
    /// Its number, which no other link has had.
    pub id: u32,
    /// Number of its program.
    pub program: u32,
    /// The interface, by its index in its network namespace; 0: it has gone, or the program has been detached.
    pub ifindex: u32,
}

/// Which map this is; `None` where it is no map with a name.
#[must_use]
pub fn map_identity(fd: BorrowedFd<'_>) -> Option<MapIdentity> {
    let mut raw = RawMapInfo::default();
    ask(fd, &mut raw).ok()?;
    Some(MapIdentity {
        id: raw.id,
        name: text(&raw.name)?,
    })
}

/// Which XDP program this is; `None` where it is none with a name.
#[must_use]
pub fn program_identity(fd: BorrowedFd<'_>) -> Option<ProgramIdentity> {
    let mut raw = RawProgramInfo::default();
    ask(fd, &mut raw).ok()?;
    let name = text(&raw.name)?;
    if raw.kind != PROGRAM_XDP || raw.nr_map_ids > MAX_MAPS {
        return None;
    }
    let mut maps = vec![0_u32; number_of(raw.nr_map_ids).ok()?];
    let mut again = RawProgramInfo::with_maps(&mut maps);
    let mut attributes = Info::of(fd.as_raw_fd(), &mut again);
    // SAFETY: the kernel writes at most as many bytes as `again` has, and of this program, which has just said so, at most
    // as many numbers as `maps` has room for; all other addresses in it are null, with lengths of 0.
    unsafe { bpf(Command::ObjectInfo, &mut attributes) }.ok()?;
    // one may have been bound since
    maps.truncate(number_of(again.nr_map_ids).ok()?);
    Some(ProgramIdentity {
        id: raw.id,
        name,
        maps,
    })
}

/// Which link of an XDP program this is; `None` where it is none. A program may look like one: [`super::update_link`] and
/// [`super::detach_link`] tell.
#[must_use]
pub fn link_of_xdp(fd: BorrowedFd<'_>) -> Option<LinkIdentity> {
    let mut raw = RawLinkInfo::default();
    ask(fd, &mut raw).ok()?;
    (raw.kind == LINK_XDP).then_some(LinkIdentity {
        id: raw.id,
        program: raw.prog_id,
        ifindex: raw.ifindex,
    })
}

/// Has the kernel say what it is.
fn ask<T>(fd: BorrowedFd<'_>, into: &mut T) -> io::Result<()> {
    let mut attributes = Info::of(fd.as_raw_fd(), into);
    // SAFETY: the kernel writes at most as many bytes as `into` has, whatever struct that is the beginning of; as all of it is
    // zero, it has no addresses.
    unsafe { bpf(Command::ObjectInfo, &mut attributes) }.map(drop)
}

fn text(name: &[u8; 16]) -> Option<String> {
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    let name = std::str::from_utf8(name).ok().filter(|name| !name.is_empty())?;
    Some(name.to_owned())
}
