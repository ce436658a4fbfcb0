//! Hearing of it when another program changes the rules: the kernel tells of each change of nftables, which iptables-nft's
//! rules are too.
//!
//! What it tells includes our own changes: one look at the rules follows each, finds them right, and ends it.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use crate::sys::netlink;

/// What the kernel may keep for us, in bytes. What is lost counts as a change.
const RECEIVE_BUFFER: usize = 256 << 10;
/// Longest datagram: the kernel puts a page of messages, or what fits it, into one.
const DATAGRAM: usize = 64 << 10;
/// Datagrams that are read at a time; the rest is there at the next look.
const AT_ONCE: usize = 64;

/// NFNL_SUBSYS_NFTABLES of linux/netfilter/nfnetlink.h: the upper byte of a message's type.
const SUBSYSTEM: u8 = 10;
/// NFT_MSG_{NEW,DEL}{TABLE,CHAIN,RULE} of linux/netfilter/nf_tables.h, without the requests among them.
const KINDS: [u8; 6] = [0, 2, 3, 5, 6, 8];
/// NFTA_TABLE_NAME, NFTA_CHAIN_TABLE and NFTA_RULE_TABLE are all the first attribute.
const TABLE: u16 = 1;
/// The rest of an attribute's type are flags (NLA_TYPE_MASK).
const TYPE_MASK: u16 = 0x3fff;
/// Length of a message's header (struct nlmsghdr).
const HEADER: usize = 16;
/// Length of what follows it (struct nfgenmsg).
const FAMILY: usize = 4;

/// Tells when table raw has been changed. Needs CAP_NET_ADMIN.
#[derive(Debug)]
pub struct Monitor {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl Monitor {
    /// Hears of what happens from now on.
    ///
    /// # Errors
    /// The kernel has no nftables, or it is forbidden.
    pub fn open() -> io::Result<Self> {
        Ok(Self {
            socket: netlink::open_nftables_monitor(RECEIVE_BUFFER)?,
            buffer: vec![0; DATAGRAM],
        })
    }

    /// Takes what is there, without waiting: whether table raw may have been changed.
    pub fn take(&mut self) -> bool {
        let mut is_changed = false;
        for _ in 0..AT_ONCE {
            match netlink::receive(&self.socket, &mut self.buffer) {
                Ok(len) => is_changed |= concerns_raw(self.buffer.get(..len).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // ENOBUFS: some were lost
                Err(_) => is_changed = true,
            }
        }
        is_changed
    }
}

impl AsFd for Monitor {
    /// Readable when something has been changed.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Whether a datagram has a message about a table raw of IPv4 or IPv6, its chains or its rules. Pure.
fn concerns_raw(mut datagram: &[u8]) -> bool {
    while let Some((message, rest)) = split(datagram) {
        if is_about_raw(message) {
            return true;
        }
        datagram = rest;
    }
    false
}

/// The first message, and what follows it.
fn split(datagram: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = u32::from_ne_bytes(*datagram.first_chunk()?) as usize;
    let message = datagram.get(..length).filter(|message| message.len() >= HEADER)?;
    let rest = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((message, rest))
}

fn is_about_raw(message: &[u8]) -> bool {
    let Some(&[kind, subsystem]) = message.get(4..6) else {
        return false;
    };
    let is_ours = subsystem == SUBSYSTEM
        && KINDS.contains(&kind)
        && (message.get(HEADER))
            .is_some_and(|family| [libc::AF_INET, libc::AF_INET6].contains(&(*family).into()));
    let mut attributes = message.get(HEADER + FAMILY..).unwrap_or_default();
    while is_ours && let Some(&[l0, l1, t0, t1]) = attributes.first_chunk() {
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let Some(value) = attributes.get(4..length) else {
            break;
        };
        if u16::from_ne_bytes([t0, t1]) & TYPE_MASK == TABLE {
            return value.strip_suffix(b"\0").unwrap_or(value) == b"raw";
        }
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, family: i32, table: &str) -> Vec<u8> {
        let mut attribute = Vec::from(u16::try_from(table.len() + 5).unwrap().to_ne_bytes());
        attribute.extend(TABLE.to_ne_bytes());
        attribute.extend(table.as_bytes());
        attribute.resize((attribute.len() + 1).next_multiple_of(4), 0);
        let length = u32::try_from(HEADER + FAMILY + attribute.len()).unwrap();
        let mut bytes = Vec::from(length.to_ne_bytes());
        bytes.extend([kind, SUBSYSTEM]);
        bytes.resize(HEADER, 0);
        bytes.extend([u8::try_from(family).unwrap(), 0, 0, 0]);
        bytes.extend(attribute);
        bytes
    }

    const DELETE_RULE: u8 = 8;
    const NEW_SET_ELEMENT: u8 = 12;

    #[test]
    fn rules_of_table_raw_are_told_from_everything_else() {
        for (kind, family, table, expected) in [
            (DELETE_RULE, libc::AF_INET, "raw", true),
            (DELETE_RULE, libc::AF_INET6, "raw", true),
            (DELETE_RULE, libc::AF_INET, "filter", false),
            (DELETE_RULE, libc::AF_INET, "rawest", false),
            (DELETE_RULE, 1, "raw", false),
            (NEW_SET_ELEMENT, libc::AF_INET, "raw", false),
        ] {
            let bytes = message(kind, family, table);
            assert_eq!(concerns_raw(&bytes), expected, "{kind} {family} {table}");
        }
        let both = [
            message(DELETE_RULE, libc::AF_INET, "filter"),
            message(DELETE_RULE, libc::AF_INET, "raw"),
        ];
        assert!(concerns_raw(&both.concat()), "the second message of a datagram");
    }

    #[test]
    fn a_datagram_that_is_cut_short_says_nothing() {
        let whole = message(DELETE_RULE, libc::AF_INET, "raw");
        for length in 0..whole.len() {
            assert!(!concerns_raw(&whole[..length]), "{length} bytes");
        }
        assert!(!concerns_raw(&[0; 64]), "a message without a length");
    }
}
