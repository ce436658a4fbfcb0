//! What is decided about a packet: to send it on, and how, or why not.

use std::{net::IpAddr, sync::Arc};

use super::{Moment, services::FlowTarget, split::may_split};
use crate::{
    base::PacketReason,
    packet::{AddressPair, LinkHeader, Offload, Parsed, Tags},
};

/// A packet that has come in, as far as the decision needs it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    pub parsed: Parsed,
    pub offload: Offload,
    pub ifindex: u32,
    pub now: Moment,
}

/// How a packet is to be sent on.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub reason: PacketReason,
    pub to: Rewrite,
    pub link: LinkHeader,
    pub tags: Tags,
    /// Largest IP packet that the way takes, in bytes.
    pub mtu: u32,
    /// Whose bytes the later fragments are; only for a first fragment.
    pub counted: Option<Arc<FlowTarget>>,
}

/// What changes in it, besides TTL and link addresses.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rewrite {
    /// Nothing; of an ICMP error an MTU smaller than this, which is raised.
    Nothing { least_mtu: Option<u32> },
    /// Addresses and ports.
    Packet(AddressPair),
    /// Those of an ICMP error, and of the packet inside.
    Error {
        source: IpAddr,
        destination: IpAddr,
        /// A smaller MTU that it tells is raised to this.
        least_mtu: Option<u32>,
        quoted: AddressPair,
    },
}

/// Why a packet is not sent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DropReason {
    /// It is dropped, left to the kernel, or answered as the reason says.
    For(PacketReason),
    /// It is larger than the way takes.
    TooBig { mtu: u32 },
}

impl From<PacketReason> for DropReason {
    fn from(reason: PacketReason) -> Self {
        Self::For(reason)
    }
}

impl DropReason {
    pub const fn reason(self) -> PacketReason {
        match self {
            Self::For(reason) => reason,
            Self::TooBig { .. } => PacketReason::TooBig,
        }
    }
}

impl Arrival {
    /// Whether it is larger than a way takes.
    pub fn exceeds(&self, mtu: u32) -> bool {
        self.parsed.largest_packet(&self.offload) > mtu
    }

    /// Whether it may be sent on by a way, in fragments if need be.
    pub fn check(&self, mtu: u32) -> Result<(), DropReason> {
        if self.parsed.ttl <= 1 {
            return Err(PacketReason::TimeExceeded.into());
        }
        if self.exceeds(mtu) && !may_split(&self.parsed, self.offload.segments.is_some()) {
            return Err(DropReason::TooBig { mtu });
        }
        Ok(())
    }

    /// The target as [`Plan::counted`] wants it.
    pub fn counted(&self, target: &Arc<FlowTarget>) -> Option<Arc<FlowTarget>> {
        self.parsed.fragment.is_some().then(|| Arc::clone(target))
    }
}
