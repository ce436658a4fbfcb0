//! The numbers by which maps and flows name targets, and those by which NAT ports are counted towards servers. Pure.
//!
//! A target keeps its number as long as it is configured or a flow may have it: one that is configured no more is forgotten
//! once a whole scan of the flows that began after that has found none. Numbers are given again, incarnations never: a flow
//! names both. A server keeps its number as long as one of its targets has one.
//!
//! A number is of one mode. Where a frontend has another mode after a reload, flows of the old mode go on under the old number,
//! and what becomes of their server is what becomes of it in the new mode.

mod records;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use crate::{
    base::{FrontendName, ListenRange, Protocol, ServerKey},
    flow::FlowTarget,
};
pub use records::{Noted, Record};

/// The greatest number, as slots of a table have 16 bits. 0 stands for no target.
const MAX: u16 = u16::MAX;

/// What makes two targets the same for their flows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Its mode is dsr; else it is passthrough.
    pub is_dsr: bool,
    /// The frontend of the VIP.
    pub frontend: FrontendName,
    /// The server's name.
    pub server: ServerKey,
    /// The server's address.
    pub ip: IpAddr,
    /// How far its ports are above the VIP's, counted round at 65,536.
    pub shift: u16,
    /// Packets to it keep their addresses.
    pub has_vip: bool,
}

impl Identity {
    fn of(target: &FlowTarget, is_dsr: bool) -> Self {
        Self {
            is_dsr,
            frontend: target.frontend.clone(),
            server: target.server.clone(),
            ip: target.ip,
            shift: target.shift(),
            has_vip: target.has_vip,
        }
    }
}

/// A target as it is configured: behind these ports of a VIP.
#[derive(Debug, Clone, Copy)]
pub struct Configured<'a> {
    /// The target.
    pub target: &'a Arc<FlowTarget>,
    /// Its mode is dsr; else it is passthrough.
    pub is_dsr: bool,
    /// The protocol.
    pub protocol: Protocol,
    /// Address and ports.
    pub range: ListenRange,
}

impl Configured<'_> {
    /// Whether flows of a target that is configured no more, behind one of these ports, go on as this one's: the rule of
    /// `Services::renew`, which does not ask for a frontend's name or mode.
    fn takes_over(&self, before: &FlowTarget, places: &[(Protocol, ListenRange)]) -> bool {
        let (now, range) = (self.target, self.range);
        let is_same = (&now.server, now.ip, now.shift(), now.has_vip)
            == (&before.server, before.ip, before.shift(), before.has_vip);
        let meets = |(protocol, of): &(Protocol, ListenRange)| {
            let (these, those) = (range.ports(), of.ports());
            *protocol == self.protocol
                && of.ip() == range.ip()
                && these.first <= those.last
                && those.first <= these.last
        };
        is_same && places.iter().any(meets)
    }
}

/// A target that has a number.
#[derive(Debug, Clone)]
pub struct Numbered {
    /// Tells it from others that have had its number; never 0.
    pub incarnation: u32,
    /// The target as last configured; when it is configured no more, that which has taken its flows over, if one has.
    pub target: Arc<FlowTarget>,
    /// What it has its number as.
    identity: Identity,
    /// Where it was last configured.
    places: Vec<(Protocol, ListenRange)>,
    /// Whether its flows are of mode dsr; else they are of mode passthrough.
    pub is_dsr: bool,
    /// The number of its server, from 1.
    pub server: u16,
    /// Whether the program knows it.
    pub is_written: bool,
    /// Flows that user space has put into the maps since the number was given, or taken over.
    pub opened_here: u64,
    /// It was taken over, and nothing that is configured has taken its place yet: what is counted of it, nobody hears.
    pub is_left_behind: bool,
    /// The scan that was under way, or was the last one, when it was found to be configured no more.
    retired: Option<u64>,
}

impl Numbered {
    /// Whether it is configured.
    #[must_use]
    pub const fn is_configured(&self) -> bool {
        self.retired.is_none()
    }
}

/// The numbers of servers that have targets.
#[derive(Debug, Default)]
struct Servers {
    /// Number, and targets that have one.
    of: HashMap<ServerKey, (u16, usize)>,
    taken: BTreeSet<u16>,
    next: u16,
}

impl Servers {
    /// The number of a server, for one more target. `None`: there are none left, which are as many as those of targets.
    fn take(&mut self, server: &ServerKey) -> Option<u16> {
        if let Some((number, targets)) = self.of.get_mut(server) {
            *targets += 1;
            return Some(*number);
        }
        let number = free(self.next, |number| self.taken.contains(&number))?;
        self.next = number.wrapping_add(1);
        self.taken.insert(number);
        self.of.insert(server.clone(), (number, 1));
        Some(number)
    }

    /// A target has lost its number.
    fn give(&mut self, server: &ServerKey) {
        if let Some((number, targets)) = self.of.get_mut(server) {
            *targets -= 1;
            if *targets == 0 {
                self.taken.remove(number);
                self.of.remove(server);
            }
        }
    }
}

/// The first number from `next` on, round at the end, that is not taken.
fn free(next: u16, is_taken: impl Fn(u16) -> bool) -> Option<u16> {
    let next = next.max(1);
    (next..=MAX).chain(1..next).find(|number| !is_taken(*number))
}

/// Targets by number.
#[derive(Debug, Default)]
pub struct Numbers {
    of: HashMap<Identity, u16>,
    all: BTreeMap<u16, Numbered>,
    servers: Servers,
    /// The number after the one that was given last: the free one that has been free for longest is not worth knowing.
    next: u16,
    incarnations: u32,
    /// Scans of the flows that have begun.
    scans: u64,
    /// Rises whenever there is something else to [note](Self::noted).
    changes: u64,
    /// Something that is configured found no number left.
    is_short: bool,
}

impl Numbers {
    /// The number of a target in a mode, which it is given if it has none: then it does not count as configured. `None`: there
    /// are none left.
    pub fn take(&mut self, target: &Arc<FlowTarget>, is_dsr: bool) -> Option<u16> {
        let identity = Identity::of(target, is_dsr);
        if let Some(number) = self.of.get(&identity) {
            return Some(*number);
        }
        let number = free(self.next, |number| self.all.contains_key(&number))?;
        let server = self.servers.take(&target.server)?;
        self.incarnations = self.incarnations.wrapping_add(1).max(1);
        self.next = number.wrapping_add(1);
        self.changes += 1;
        self.of.insert(identity.clone(), number);
        self.all.insert(
            number,
            Numbered {
                incarnation: self.incarnations,
                target: Arc::clone(target),
                identity,
                places: Vec::new(),
                is_dsr,
                server,
                is_written: false,
                opened_here: 0,
                is_left_behind: false,
                retired: Some(self.scans),
            },
        );
        Some(number)
    }

    /// Takes exactly these for configured. Those among them that could not be given a number are left out.
    pub fn configure<'a>(&mut self, targets: impl IntoIterator<Item = Configured<'a>>) {
        self.is_short = false;
        let mut by_number: HashMap<u16, Vec<Configured<'_>>> = HashMap::new();
        let mut by_server: HashMap<&ServerKey, Vec<Configured<'_>>> = HashMap::new();
        for configured in targets {
            by_server
                .entry(&configured.target.server)
                .or_default()
                .push(configured);
            match self.take(configured.target, configured.is_dsr) {
                Some(number) => by_number.entry(number).or_default().push(configured),
                None => self.is_short = true,
            }
        }
        let scans = self.scans;
        for (number, numbered) in &mut self.all {
            if let Some(places @ [.., last]) = by_number.get(number).map(Vec::as_slice) {
                let places: Vec<_> = places.iter().map(|at| (at.protocol, at.range)).collect();
                if numbered.places != places {
                    numbered.places = places;
                    self.changes += 1;
                }
                numbered.target = Arc::clone(last.target);
                numbered.is_left_behind = false;
                numbered.retired = None;
                continue;
            }
            numbered.retired.get_or_insert(scans);
            let of_server = by_server.get(&numbered.target.server).map(Vec::as_slice);
            let mut others = of_server.unwrap_or_default().iter();
            if let Some(now) = others.find(|now| now.takes_over(&numbered.target, &numbered.places)) {
                numbered.target = Arc::clone(now.target);
                numbered.is_left_behind = false;
            }
        }
    }

    /// Whether something that is configured has no number, though there is one left.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.is_short && self.all.len() < usize::from(MAX)
    }

    /// The number of a target in a mode, if it has one.
    #[must_use]
    pub fn number(&self, target: &FlowTarget, is_dsr: bool) -> Option<u16> {
        self.of.get(&Identity::of(target, is_dsr)).copied()
    }

    /// Whether a server has a number.
    #[must_use]
    pub fn has_server(&self, server: u16) -> bool {
        self.servers.taken.contains(&server)
    }

    /// All that is configured has been written into the maps.
    pub fn written(&mut self) {
        let configured = self.all.values_mut().filter(|numbered| numbered.is_configured());
        configured.for_each(|numbered| numbered.is_written = true);
    }

    /// What has a number.
    #[must_use]
    pub fn get(&self, number: u16) -> Option<&Numbered> {
        self.all.get(&number)
    }

    /// The target that a flow names.
    #[must_use]
    pub fn of_flow(&self, number: u32, incarnation: u32) -> Option<&Numbered> {
        let numbered = self.all.get(&u16::try_from(number).ok()?)?;
        (numbered.incarnation == incarnation).then_some(numbered)
    }

    /// All that have one, by number.
    pub fn iter(&self) -> impl Iterator<Item = (u16, &Numbered)> {
        self.all.iter().map(|(number, numbered)| (*number, numbered))
    }

    /// Counts a flow that user space has put into the maps.
    pub fn opened(&mut self, number: u16) {
        if let Some(numbered) = self.all.get_mut(&number) {
            numbered.opened_here += 1;
        }
    }

    /// A scan of all flows begins.
    pub const fn scan_begins(&mut self) {
        self.scans += 1;
    }

    /// A scan has ended. Forgets what was configured no more before it began, and is named by no flow that it has found. Gives
    /// the numbers that are free now, with what had them.
    pub fn scan_ended(&mut self, has_flows: impl Fn(u16) -> bool) -> Vec<(u16, Numbered)> {
        let scans = self.scans;
        let is_over = |number: u16, numbered: &Numbered| {
            numbered.retired.is_some_and(|scan| scan < scans) && !has_flows(number)
        };
        let over: Vec<_> = (self.all.iter())
            .filter(|(number, numbered)| is_over(**number, numbered))
            .map(|(number, numbered)| (*number, numbered.clone()))
            .collect();
        self.changes += u64::from(!over.is_empty());
        for (number, numbered) in &over {
            self.all.remove(number);
            self.of.remove(&numbered.identity);
            self.servers.give(&numbered.target.server);
        }
        over
    }
}

#[cfg(test)]
mod tests;
