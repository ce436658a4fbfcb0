//! The numbers by which maps and flows name targets. Pure.
//!
//! A target keeps its number as long as it is configured or a flow may have it: one that is configured no more is forgotten
//! once a whole scan of the flows that began after that has found none. Numbers are given again, incarnations never: a flow
//! names both.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use crate::{
    base::{FrontendName, ServerKey},
    flow::FlowTarget,
};

/// The greatest number, as slots of a table have 16 bits. 0 stands for no target.
const MAX: u16 = u16::MAX;

/// What makes two targets the same for their flows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Identity {
    frontend: FrontendName,
    server: ServerKey,
    ip: IpAddr,
    shift: u16,
    has_vip: bool,
}

impl Identity {
    fn of(target: &FlowTarget) -> Self {
        Self {
            frontend: target.frontend.clone(),
            server: target.server.clone(),
            ip: target.ip,
            shift: target.shift(),
            has_vip: target.has_vip,
        }
    }
}

/// A target that has a number.
#[derive(Debug, Clone)]
pub struct Numbered {
    /// Tells it from others that have had its number; never 0.
    pub incarnation: u32,
    /// The target as last configured.
    pub target: Arc<FlowTarget>,
    /// Flows that user space has put into the map since the number was given.
    pub opened_here: u64,
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

/// Targets by number.
#[derive(Debug, Default)]
pub struct Numbers {
    of: HashMap<Identity, u16>,
    all: BTreeMap<u16, Numbered>,
    /// The number after the one that was given last: the free one that has been free for longest is not worth knowing.
    next: u16,
    incarnations: u32,
    /// Scans of the flows that have begun.
    scans: u64,
}

impl Numbers {
    /// The number of a target, which it is given if it has none: then it does not count as configured. `None`: there are none
    /// left.
    pub fn take(&mut self, target: &Arc<FlowTarget>) -> Option<u16> {
        let identity = Identity::of(target);
        if let Some(number) = self.of.get(&identity) {
            return Some(*number);
        }
        let number = self.free()?;
        self.incarnations = self.incarnations.wrapping_add(1).max(1);
        self.next = number.wrapping_add(1);
        self.of.insert(identity, number);
        self.all.insert(
            number,
            Numbered {
                incarnation: self.incarnations,
                target: Arc::clone(target),
                opened_here: 0,
                retired: Some(self.scans),
            },
        );
        Some(number)
    }

    fn free(&self) -> Option<u16> {
        let next = self.next.max(1);
        (next..=MAX)
            .chain(1..next)
            .find(|number| !self.all.contains_key(number))
    }

    /// Takes exactly these for configured. Those among them that could not be given a number are left out.
    pub fn configure<'a>(&mut self, targets: impl IntoIterator<Item = &'a Arc<FlowTarget>>) {
        let mut configured = HashMap::new();
        for target in targets {
            if let Some(number) = self.take(target) {
                configured.insert(number, target);
            }
        }
        let scans = self.scans;
        for (number, numbered) in &mut self.all {
            match configured.get(number) {
                Some(target) => {
                    numbered.target = Arc::clone(target);
                    numbered.retired = None;
                }
                None => {
                    numbered.retired.get_or_insert(scans);
                }
            }
        }
    }

    /// The number of a target, if it has one.
    #[must_use]
    pub fn number(&self, target: &FlowTarget) -> Option<u16> {
        self.of.get(&Identity::of(target)).copied()
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

    /// Counts a flow that user space has put into the map.
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
        for (number, numbered) in &over {
            self.all.remove(number);
            self.of.remove(&Identity::of(&numbered.target));
        }
        over
    }
}

#[cfg(test)]
mod tests;
