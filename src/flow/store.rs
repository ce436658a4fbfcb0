//! Where flows are kept: what the path asks of a store, whatever it is made of. The raw engine's is tables in memory.
//!
//! A store changes an entry only by what the entry's methods say, one at a time: a store whose entries are written by
//! somebody else too (a kernel program) can have each of them done there.

use std::{
    collections::BTreeSet,
    fmt::Debug,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::{
    FiveTuple, FlowInfo, Moment, Usage,
    key::Key,
    returns::{ReturnHops, ReturnOrigin, ReturnPath},
    segment::{Segment, SegmentKind, Side},
    services::{FlowTarget, Services},
    shares::ShareLimit,
};
use crate::{
    access::Permit,
    base::{AccessReason, Endpoint, Handshake, IpServerAddr, PacketReason, WorkerId},
};

/// What is to become of a flow that has been looked at.
pub enum Visit<R> {
    Keep(R),
    Remove(R),
}

impl<R> Visit<R> {
    /// The same with another result.
    pub fn map<T>(self, with: impl FnOnce(R) -> T) -> Visit<T> {
        match self {
            Self::Keep(result) => Visit::Keep(with(result)),
            Self::Remove(result) => Visit::Remove(with(result)),
        }
    }
}

/// Who looks, and when.
#[derive(Debug, Clone, Copy)]
pub struct Visitor {
    pub now: Moment,
    pub worker: WorkerId,
}

/// The packet that a flow begins with.
#[derive(Debug, Clone, Copy)]
pub struct Beginning {
    pub key: Key,
    pub segment: Segment,
    pub now: Moment,
    pub worker: WorkerId,
    pub random: u64,
}

/// What a new flow is given.
#[derive(Debug)]
pub struct NewFlow {
    pub target: Arc<FlowTarget>,
    /// Generation of the services that the target is of.
    pub generation: u64,
}

/// What a packet has shown of a passthrough flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observed {
    /// That the client is on the path to us.
    pub is_proven: bool,
    /// How its handshake goes, to be counted.
    pub handshake: Option<Handshake>,
}

/// What the limits of its frontend have said of a DSR flow.
#[derive(Debug)]
pub enum Admission {
    /// Nothing: it was under way before we knew of it. Its next SYN is for them.
    UnderWay,
    /// It may begin, and counts for its client as long as the permit is kept, where there are limits. Boxed, because there
    /// seldom are.
    Admitted(Option<Box<Permit>>),
}

/// A flow of either mode, under its lock.
pub trait FlowEntry {
    /// Its server.
    fn target(&self) -> &Arc<FlowTarget>;

    /// Compares its server with newer services, once for each generation. What is configured no more stays as it was:
    /// its flows live on.
    fn renew(&mut self, key: &Key, services: &Services);

    /// Whether a SYN may begin another flow in its place.
    fn can_reopen(&self) -> bool;

    /// For people.
    fn info(&self, key: &Key, now: Moment) -> FlowInfo;
}

/// A passthrough flow.
pub trait NatEntry: FlowEntry {
    /// Where its replies come from and go to: server and NAT address.
    fn reverse(&self) -> &Key;

    /// The way back to its client.
    fn back(&self) -> &ReturnPath;

    /// Takes a packet of a side in.
    fn observe(&mut self, side: Side, segment: &Segment, now: Moment) -> Observed;

    /// Whether a client's segment proves that its sender is on the path: then it may move the way back.
    fn proves_path(&self, segment: &Segment) -> bool;

    /// Whether a segment of a side with this sequence number is on its way, or has just been.
    fn is_under_way(&self, side: Side, sequence: u32) -> bool;

    /// Whether one more ICMP error about it is passed on.
    fn allows_error(&mut self, now: Moment) -> bool;

    /// The server's end.
    fn server(&self) -> SocketAddr {
        self.reverse().from()
    }

    /// Our end towards the server.
    fn nat(&self) -> SocketAddr {
        self.reverse().to()
    }
}

/// A DSR flow.
pub trait DsrEntry: FlowEntry {
    /// Takes a client's packet in. Gives what it shows of the handshake, to be counted.
    fn observe(&mut self, kind: SegmentKind, now: Moment) -> Option<Handshake>;
}

/// All flows, shared by the workers.
pub trait FlowStore: Debug + Send + Sync + 'static {
    /// What it has of a passthrough flow.
    type Nat: NatEntry;
    /// What it has of a DSR flow.
    type Dsr: DsrEntry + ?Sized;

    /// Looks at a live passthrough flow under its lock, and ends it if `look` says so; `None` if there is none.
    fn visit_nat<R>(
        &self,
        key: &Key,
        visitor: Visitor,
        look: impl FnOnce(&mut Self::Nat) -> Visit<R>,
    ) -> Option<R>;

    /// The passthrough flow (its forward key) that a packet from a server to a NAT address belongs to.
    fn nat_holder(&self, reverse: &Key) -> Option<Key>;

    /// Makes a passthrough flow with one of the NAT addresses that nobody holds towards its server, or whose holder gives
    /// way, and gives that. `None`: another worker has just made one of this key.
    ///
    /// # Errors
    /// Why there can be none.
    fn open_nat(
        &self,
        beginning: &Beginning,
        flow: NewFlow,
        origin: ReturnOrigin,
        reverse_keys: &(impl Iterator<Item = Key> + Clone),
    ) -> Result<Option<SocketAddr>, PacketReason>;

    /// Counts a passthrough flow for its client, which has proven to be who it says, until the flow is over.
    ///
    /// # Errors
    /// The client is at a limit: the flow must end.
    fn count_nat(&self, flow: &mut Self::Nat, client: IpAddr, now: Moment) -> Result<(), AccessReason>;

    /// Lets the replies of a passthrough flow go to where its client, which has proven to be there, sends from.
    fn follow_client(&self, flow: &mut Self::Nat, origin: ReturnOrigin, client: IpAddr);

    /// Whether a client holds all NAT ports that it may of a server: the one that packets with the key `towards` come from.
    fn is_share_full(&self, limit: &ShareLimit, towards: &Key, client: IpAddr) -> bool;

    /// Whether there may be passthrough flows.
    fn has_nat(&self) -> bool;

    /// Looks at a live DSR flow under its lock, and forgets it if `look` says so; `None` if there is none.
    fn visit_dsr<R>(
        &self,
        key: &Key,
        visitor: Visitor,
        look: impl FnOnce(&mut Self::Dsr) -> Visit<R>,
    ) -> Option<R>;

    /// Remembers a DSR flow, if there is a place for it.
    fn remember_dsr(&self, beginning: &Beginning, flow: NewFlow, admission: Admission);

    /// Whether there may be DSR flows.
    fn has_dsr(&self) -> bool;

    /// The ways back to clients.
    fn returns(&self) -> &ReturnHops;

    /// Parts that [`sweep`](Self::sweep) knows, from 0.
    fn parts(&self) -> usize;

    /// Forgets what has expired in one part. Returns the number of flows looked at.
    fn sweep(&self, part: usize, visitor: Visitor) -> usize;

    /// How full it is; without the fragments.
    fn usage(&self) -> Usage;

    /// Calls for every live passthrough flow.
    fn for_each_nat(&self, now: Moment, see: &mut dyn FnMut(&Key, &Self::Nat));

    /// Calls for every live flow of DSR.
    fn for_each_dsr(&self, now: Moment, see: &mut dyn FnMut(&Key, &Self::Dsr));

    /// VIPs and servers that live flows use, each pair once.
    fn in_use(&self, now: Moment) -> BTreeSet<(Endpoint, IpServerAddr)>;

    /// How many live flows of either mode have a 5-tuple that is wanted; closing ones do not count.
    fn count(&self, now: Moment, wanted: &dyn Fn(&FiveTuple) -> bool) -> u64;

    /// A live flow of either mode and its server, without changing anything.
    fn find(&self, key: &Key, now: Moment) -> Option<(FlowInfo, Arc<FlowTarget>)>;
}
