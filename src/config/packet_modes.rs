//! What the packet modes have to themselves.

use std::{net::IpAddr, num::NonZeroU32, time::Duration};

use crate::base::PortRanges;

/// `[packet]`, or `[passthrough]` as 0.3.5 calls it: the section of both packet modes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PacketModes {
    /// `engine`, default auto.
    pub engine: EngineChoice,
    /// `xdp_mode`, default auto.
    pub xdp_mode: XdpMode,
    /// `workers`, in threads; `None` means one for each CPU the process may use.
    pub workers: Option<NonZeroU32>,
    /// `max_flows`: flows of both modes together, at most. Default 1,048,576, or 0.3.5's
    /// `connection_tracker_capacity` if that is more.
    pub max_flows: NonZeroU32,
    /// `nat_ports`: source ports of passthrough flows on the load balancer's side. Default: see [`Options::default_nat_ports`](super::Options::default_nat_ports).
    pub nat_ports: PortRanges,
    /// `any_interface`: accept servers' packets by whichever interface they come in.
    pub any_interface: bool,
    /// `max_ports_per_client`, default 1/8.
    pub max_ports_per_client: PortsPerClient,
    /// `nat_address`, in the order of the file, each once: flows use all of their family. Without one of a family: an
    /// address of the interface towards the server.
    pub nat_addresses: Vec<IpAddr>,
    /// `connection_tracker_capacity` of 0.3.5.
    pub connection_tracker_capacity: Option<u64>,
    /// `stats_update_frequency` of 0.3.5: counters are always current, so it changes nothing.
    pub stats_update_frequency: Option<Duration>,
}

/// `max_ports_per_client`: how many of the NAT ports of one server the passthrough connections of one client network may
/// hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortsPerClient {
    /// `"off"`: all of them.
    Unlimited,
    /// So many.
    Count(NonZeroU32),
    /// So many of so many, the first not more than the second.
    Part(NonZeroU32, NonZeroU32),
}

impl PortsPerClient {
    /// The least that a part is, in ports: more than a browser opens, where there are only a few hundred.
    pub const LEAST_PART: u32 = 32;

    /// The number of them where a server has so many NAT ports; `None`: no limit.
    #[must_use]
    pub fn of(self, ports: u32) -> Option<u32> {
        match self {
            Self::Unlimited => None,
            Self::Count(count) => Some(count.get()),
            Self::Part(part, whole) => {
                let share = u64::from(ports) * u64::from(part.get()) / u64::from(whole.get());
                // a part of what fits fits
                Some(u32::try_from(share).unwrap_or(ports).max(Self::LEAST_PART))
            }
        }
    }
}

impl Default for PortsPerClient {
    fn default() -> Self {
        Self::Part(NonZeroU32::MIN, NonZeroU32::MIN.saturating_add(7))
    }
}

impl std::fmt::Display for PortsPerClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unlimited => f.write_str("off"),
            Self::Count(count) => write!(f, "{count}"),
            Self::Part(part, whole) => write!(f, "{part}/{whole}"),
        }
    }
}

/// `engine`: how the packet modes move packets (DESIGN §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EngineChoice {
    /// The best that works here.
    Auto,
    /// eBPF at the interface, and AF_PACKET sockets for what it leaves to them.
    Xdp,
    /// AF_PACKET sockets.
    Raw,
}

/// `xdp_mode`: where the XDP program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum XdpMode {
    /// In the driver; where that cannot be or is no use, behind it; else nowhere.
    Auto,
    /// In the driver, or nowhere.
    Native,
    /// Behind the driver, or nowhere: slower, and every driver has it.
    Generic,
}

/// `dsr_method` of a backend: how its servers come to answer with the VIP as source address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DsrMethod {
    /// `tc`: an `action nat egress` filter; IPv4 only, ports stay.
    Tc,
    /// `nft`: an nftables egress hook; IPv6 too, and ports can be mapped.
    Nft,
    /// `l2`: packets keep their addresses, only their destination MAC changes; the servers have the VIP on `lo`. They are on
    /// link, ports stay.
    L2,
}
