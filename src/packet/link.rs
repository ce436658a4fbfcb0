//! The link header: Ethernet addresses and VLAN tags (IEEE 802.1Q, 802.1ad).

use pnet::{packet::ethernet::MutableEthernetPacket, util::MacAddr};

use super::{Frame, LinkHeader, Parsed, RewriteError, Tags, parse::ETHERNET_HEADER, tags::ADDRESSES};
use crate::base::Mac;

/// Sets the Ethernet addresses.
pub fn set_link(frame: &mut Frame<'_>, link: &LinkHeader) {
    if let Some(mut view) = MutableEthernetPacket::new(frame.bytes_mut()) {
        view.set_source(address(link.source));
        view.set_destination(address(link.destination));
    }
}

const fn address(mac: Mac) -> MacAddr {
    let [a, b, c, d, e, f] = mac.0;
    MacAddr(a, b, c, d, e, f)
}

/// Puts other tags (or none) in place of the frame's own; its start moves within its headroom, and `parsed` with it.
///
/// # Errors
/// If `parsed` is not of this frame, or there is no room in front of it. Nothing is changed then.
pub fn put_tags(frame: &mut Frame<'_>, parsed: &mut Parsed, tags: &Tags) -> Result<(), RewriteError> {
    if parsed.tags == *tags {
        return Ok(());
    }
    let old_len = parsed.tags.as_bytes().len();
    let new_len = tags.as_bytes().len();
    if parsed.network != ETHERNET_HEADER + old_len || parsed.end > frame.len() {
        return Err(RewriteError);
    }
    let addresses: [u8; ADDRESSES] = *frame.bytes().first_chunk().ok_or(RewriteError)?;
    let by = old_len.cast_signed() - new_len.cast_signed();
    frame.move_start(by).ok_or(RewriteError)?;
    let header = (frame.bytes_mut().get_mut(..ADDRESSES + new_len)).ok_or(RewriteError)?;
    let (front, between) = header.split_at_mut(ADDRESSES);
    front.copy_from_slice(&addresses);
    between.copy_from_slice(tags.as_bytes());
    parsed.moved(by, *tags);
    Ok(())
}

impl Parsed {
    /// Follows a frame whose start has moved by so many bytes because it has other tags.
    fn moved(&mut self, by: isize, tags: Tags) {
        let moved = |at: &mut usize| *at = at.saturating_add_signed(-by);
        moved(&mut self.network);
        moved(&mut self.transport);
        moved(&mut self.end);
        if let super::Content::Error(error) = &mut self.content {
            moved(&mut error.quoted.network);
            moved(&mut error.quoted.transport);
        }
        self.tags = tags;
    }
}
