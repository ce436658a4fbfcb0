//! The link header: Ethernet addresses and VLAN tags (IEEE 802.1Q, 802.1ad).

use super::{Frame, LinkHeader, Parsed, Unfit};

/// Up to two VLAN tags as they stand in a frame: TPID and TCI each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Tags {
    count: u8,
    bytes: [u8; 8],
}

impl Tags {
    /// Number of tags, 0 to 2.
    #[must_use]
    pub const fn count(&self) -> u8 {
        self.count
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// Sets the Ethernet addresses.
pub fn set_link(frame: &mut Frame<'_>, link: &LinkHeader) {
    let _ = (frame, link);
    todo!("packet")
}

/// Takes the tags out: the frame's start moves up. `parsed` is of this frame and moves with it.
///
/// # Errors
/// If `parsed` is not of this frame.
pub fn strip_tags(frame: &mut Frame<'_>, parsed: &mut Parsed) -> Result<(), Unfit> {
    let _ = (frame, parsed);
    todo!("packet")
}

/// Puts other tags (or none) in place of the frame's own; its start moves within its headroom, and `parsed` with it.
///
/// # Errors
/// If `parsed` is not of this frame, or there is no room in front of it. Nothing is changed then.
pub fn put_tags(frame: &mut Frame<'_>, parsed: &mut Parsed, tags: &Tags) -> Result<(), Unfit> {
    let _ = (frame, parsed, tags);
    todo!("packet")
}
