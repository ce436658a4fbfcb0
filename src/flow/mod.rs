//! The verdict on a packet: flows, their NAT ports and lives, and the path from frame to verdict. Pure: time,
//! randomness and capacities are arguments.
//!
//! ```text
//! Snapshot ─► Services ─┐   (what is served, by VIP; server states; Maglev tables)
//! netlink ──► Hops ─────┼─► Path::process(frame, now) ─► Verdict, answers      one Path a worker thread
//!             Flows ◄───┘                                                     one Flows for all workers
//! ```
//!
//! A path asks its `router`, which makes a `plan` of each packet (where it goes and what changes in it) or refuses it, and
//! carries that out.
//!
//! The engine's threads call [`Path`] and do what it says. `convey explain` asks the same code ([`Path::explain`]).
//!
//! What was decided here, beyond DESIGN §4:
//! - A flow's table is asked before the configuration: a flow outlives its server, its frontend and its frontend's mode.
//! - `max_flows` is shared as `room` says: DSR's cache takes half at most, half-open passthrough flows a quarter.
//! - When a server goes down, a passthrough TCP connection is reset at the client's next packet (a SYN chooses anew);
//!   UDP and DSR flows are sent to another server.
//! - UDP that nothing has answered counts as half-open, so that forged datagrams cannot fill the table either; until the
//!   client has sent again after an answer, its NAT port gives way to others.
//! - A connection that the server has closed first is remembered for a minute, its TIME_WAIT: a new connection from the
//!   same NAT port must have a later clock, or wait a second.
//! - An IPv4 packet larger than the MTU of its way out is fragmented if it may be; a super-frame, IPv6, or one with DF
//!   is answered with the MTU.
//! - An ICMP error never prolongs a flow, and reaches a client with the VIP as its source.
//! - Access rules and limits are for packets without a flow. In passthrough a connection counts for its client once the
//!   client has proven to be who it says; one that is over a limit then ends. DSR cannot tell, and counts from the start.

mod counters;
mod dsr;
mod errors;
mod explain;
mod fragments;
mod handshake;
mod hops;
mod key;
mod memory;
mod numbers;
mod packet_services;
mod path;
mod plan;
mod ports;
mod quota;
mod returns;
mod router;
mod segment;
mod services;
mod shares;
mod split;
mod store;
mod table;
mod tcp_state;
mod ways;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use counters::{PacketCounters, ReasonCounters};
pub use hops::{Hop, HopNumber, Hops, Interface, Resolution, ReturnLink};
pub use memory::MemoryStore;
pub use packet_services::PacketServiceView;
pub use path::Path;
pub use services::{FlowTarget, LeftBehind, Nobody, SeenElsewhere, Services};
pub use store::FlowStore;

use std::{collections::BTreeSet, net::IpAddr, num::NonZeroU32, time::Duration};

use crate::{
    balance::hash::SplitMix64,
    base::{
        ClientAddr, Endpoint, FrontendName, IpServerAddr, ListenAddr, PacketReason, Protocol, ServerKey,
        by_label,
    },
};
use fragments::FragmentTable;

/// What a store of flows is made with that keeps them elsewhere.
pub(crate) mod stored {
    pub use super::{
        handshake::{HandshakeWatch, Seen},
        key::Key,
        numbers::{Half, Numbers},
        quota::half_open_limit,
        returns::{ReturnHops, ReturnOrigin, ReturnPath},
        segment::{Segment, SegmentKind, Side},
        shares::ShareLimit,
        store::{Admission, Beginning, DsrEntry, FlowEntry, NatEntry, NewFlow, Observed, Visit, Visitor},
        table::{Claims, ErrorAllowance, Held, NatFlow, Yield, claim, rank},
        tcp_state::{Ending, TcpState},
    };
}

/// A moment, in milliseconds since the engine started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Moment(pub u64);

impl Moment {
    /// This moment and a time.
    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
        )
    }
}

/// Bounds of the shared tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableLimits {
    /// Flows of both modes together, at most (`max_flows`).
    pub max_flows: NonZeroU32,
    /// Worker threads that use the tables.
    pub workers: usize,
    /// Makes the tables' hash function one that nobody outside can aim at.
    pub hash_seed: u64,
}

/// What all workers share: the store of flows, and fragments that wait.
#[derive(Debug)]
pub struct Flows<S = MemoryStore> {
    store: S,
    fragments: FragmentTable,
    workers: usize,
}

/// What to do with a processed frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Send the frame, which has been rewritten in place with its link header, by this interface.
    Send {
        /// The interface's index.
        ifindex: u32,
        /// What it was.
        reason: PacketReason,
    },
    /// The frame itself is not to be sent: it was left to the kernel, dropped, answered, or is among
    /// [`Path::answers`] in fragments.
    Done(PacketReason),
    /// A fragment waits for the first of its datagram: a copy is kept.
    Kept,
}

/// A whole frame that the path wants sent besides or instead of the one at hand: a RST, an ICMP answer, or a fragment
/// that has waited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The interface's index.
    pub ifindex: u32,
    /// The frame, checksums finished.
    pub frame: Vec<u8>,
}

/// A 5-tuple as a client sends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FiveTuple {
    /// The transport protocol.
    pub protocol: Protocol,
    /// Where from.
    pub client: ClientAddr,
    /// Where to.
    pub vip: ListenAddr,
}

impl FiveTuple {
    /// What it is sent to.
    #[must_use]
    pub const fn endpoint(&self) -> Endpoint {
        Endpoint {
            addr: self.vip,
            protocol: self.protocol,
        }
    }
}

/// Where packets of a 5-tuple would go now, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The frontend, if one serves the address.
    pub frontend: Option<FrontendName>,
    /// The server, if there is one for it.
    pub server: Option<(ServerKey, IpServerAddr)>,
    /// Why this server or none.
    pub because: Because,
    /// Slot of the Maglev table selected by the hash of the 5-tuple.
    pub slot: Option<usize>,
    /// The flow in the table, if there is one.
    pub flow: Option<FlowInfo>,
    /// What else would keep its packets from getting there, such as an unresolved next hop.
    pub blocked_by: Option<PacketReason>,
}

/// Why a 5-tuple goes where it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Because {
    /// No frontend in a packet mode has the address, port and protocol.
    NotServed,
    /// It has a flow, which stays with its server.
    Flow,
    /// It has a flow whose server is draining: it stays until it ends.
    FlowDraining,
    /// It has a flow whose server is down.
    FlowServerDown,
    /// It has no flow: a new one goes to the server of its Maglev slot.
    Maglev,
    /// No server of the backend is up.
    NoServer,
}

/// A flow, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowInfo {
    /// Its 5-tuple.
    pub tuple: FiveTuple,
    /// Its frontend.
    pub frontend: FrontendName,
    /// Its server.
    pub server: ServerKey,
    /// Where that is.
    pub server_addr: IpServerAddr,
    /// Address and port on our side towards the server; `None` in DSR.
    pub nat: Option<std::net::SocketAddr>,
    /// Its TCP state.
    pub state: FlowState,
    /// Time since its last packet.
    pub idle: Duration,
    /// Time until it is forgotten if nothing comes.
    pub expires_in: Duration,
}

/// The state of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FlowState {
    /// TCP: the client's SYN has been seen.
    Syn,
    /// TCP: the server's SYN|ACK too.
    SynAnswered,
    /// TCP: reset before it was established.
    Refused,
    /// TCP: the handshake is over.
    Established,
    /// TCP: one side has sent FIN.
    HalfClosed,
    /// TCP: both have, or one RST.
    Closing,
    /// UDP that nothing has answered.
    UdpAsked,
    /// UDP that something has answered.
    Udp,
}

/// How full the shared tables are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Passthrough flows.
    pub nat_flows: u64,
    /// Those of them that are half-open.
    pub half_open: u64,
    /// Entries of the DSR cache in use.
    pub dsr_flows: u64,
    /// The limit of both together.
    pub max_flows: u64,
    /// Fragments that wait.
    pub fragments_waiting: u64,
    /// Flows that have given their place or NAT port to new ones, since the start.
    pub gave_way: u64,
}

impl Because {
    /// Every one of them.
    pub const ALL: [Self; 6] = [
        Self::NotServed,
        Self::Flow,
        Self::FlowDraining,
        Self::FlowServerDown,
        Self::Maglev,
        Self::NoServer,
    ];

    /// The label in the API and on the command line.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::NotServed => "not_served",
            Self::Flow => "flow",
            Self::FlowDraining => "flow_draining",
            Self::FlowServerDown => "flow_server_down",
            Self::Maglev => "maglev",
            Self::NoServer => "no_server",
        }
    }
}

by_label!(Because, Because::ALL);

impl FlowState {
    /// Every state.
    pub const ALL: [Self; 8] = [
        Self::Syn,
        Self::SynAnswered,
        Self::Refused,
        Self::Established,
        Self::HalfClosed,
        Self::Closing,
        Self::UdpAsked,
        Self::Udp,
    ];

    /// The label in the API and on the command line.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Syn => "syn",
            Self::SynAnswered => "syn_answered",
            Self::Refused => "refused",
            Self::Established => "established",
            Self::HalfClosed => "half_closed",
            Self::Closing => "closing",
            Self::UdpAsked => "udp_asked",
            Self::Udp => "udp",
        }
    }
}

by_label!(FlowState, FlowState::ALL);

impl Flows {
    /// Empty tables in memory. They grow with what they hold.
    #[must_use]
    pub fn new(limits: TableLimits) -> Self {
        let mut seeds = SplitMix64::new(limits.hash_seed);
        let store = MemoryStore::new(&limits, &mut seeds);
        Self::with(store, limits.workers, seeds.next_u64())
    }

    /// Checks what must be true of all tables while nobody changes them.
    ///
    /// # Panics
    /// If it is not.
    #[cfg(any(test, fuzzing))]
    pub fn check_invariants(&self) {
        self.store.check_invariants();
        self.fragments.check_invariants();
    }
}

impl<S: FlowStore> Flows<S> {
    /// Where its flows are.
    #[must_use]
    pub const fn store(&self) -> &S {
        &self.store
    }

    /// Flows in a store, for so many workers. The seed makes the fragments' hash function one that nobody outside can aim
    /// at.
    #[must_use]
    pub fn with(store: S, workers: usize, hash_seed: u64) -> Self {
        Self {
            store,
            fragments: FragmentTable::new(hash_seed),
            workers,
        }
    }

    /// Rises whenever there are other return hops than before.
    #[must_use]
    pub fn returns_version(&self) -> u64 {
        self.store.returns().version()
    }

    /// One client behind each return hop: their next hops are to be in [`Hops::clients`].
    #[must_use]
    pub fn return_clients(&self) -> BTreeSet<IpAddr> {
        self.store.returns().clients()
    }

    /// Hops with those of returns that take another way than before. To be asked with each new network state.
    #[must_use]
    pub fn follow_routes(&self, hops: &Hops) -> Hops {
        Hops {
            returns: self.store.returns().follow(&hops.clients),
            ..hops.clone()
        }
    }
}
