//! VLAN tags (IEEE 802.1Q, 802.1ad).

/// Both addresses of an Ethernet header, in bytes.
pub(super) const ADDRESSES: usize = 12;

/// One VLAN tag, in bytes.
pub(super) const TAG: usize = 4;

/// Up to two VLAN tags as they stand in a frame: TPID and TCI each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Tags {
    count: u8,
    bytes: [u8; Self::MOST * TAG],
}

impl Tags {
    /// Tags that a frame may have.
    pub const MOST: usize = 2;

    /// The tags of these bytes, TPID and TCI each; `None` if they are no whole tags or too many.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let mut tags = Self {
            count: u8::try_from(bytes.len() / TAG).ok()?,
            ..Self::default()
        };
        tags.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        bytes.len().is_multiple_of(TAG).then_some(tags)
    }

    /// The tags of a frame whose IP header starts at `network`.
    pub(super) fn of(frame: &[u8], network: usize) -> Self {
        let between = frame.get(ADDRESSES..network.saturating_sub(2));
        between.and_then(Self::new).unwrap_or_default()
    }

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

    /// The tags as bytes: what stands between the addresses and the type of what follows.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes
            .get(..usize::from(self.count) * TAG)
            .unwrap_or_default()
    }
}
