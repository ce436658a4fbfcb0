//! Numbers as they are noted for who comes after, and as they are taken over from who was before.

use std::sync::Arc;

use super::{Identity, Numbered, Numbers, Servers};
use crate::{
    base::{ListenRange, Protocol, ServerKey},
    flow::FlowTarget,
};

/// Incarnations that may have been given since numbers were last noted: as many as there are numbers.
const NOT_NOTED: u32 = 1 << 16;

/// A number that a target has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The number, from 1.
    pub number: u16,
    /// That of its server, from 1.
    pub server: u16,
    /// Tells it from others that have had its number; never 0.
    pub incarnation: u32,
    /// What it has its number as.
    pub identity: Identity,
    /// Where it was last configured.
    pub places: Vec<(Protocol, ListenRange)>,
}

/// All that is noted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Noted {
    /// The last incarnation that was given.
    pub incarnations: u32,
    /// By number.
    pub records: Vec<Record>,
}

impl Servers {
    /// A target of the server has that number for it. Whether it can be so.
    fn enter(&mut self, server: &ServerKey, number: u16) -> bool {
        if let Some((has, targets)) = self.of.get_mut(server) {
            *targets += 1;
            return *has == number;
        }
        self.of.insert(server.clone(), (number, 1));
        number != 0 && self.taken.insert(number)
    }
}

impl Numbers {
    /// What there is to note.
    #[must_use]
    pub fn noted(&self) -> Noted {
        let record = |(number, numbered): (&u16, &Numbered)| Record {
            number: *number,
            server: numbered.server,
            incarnation: numbered.incarnation,
            identity: numbered.identity.clone(),
            places: numbered.places.clone(),
        };
        Noted {
            incarnations: self.incarnations,
            records: self.all.iter().map(record).collect(),
        }
    }

    /// Rises whenever [`noted`](Self::noted) is something else.
    #[must_use]
    pub const fn changes(&self) -> u64 {
        self.changes
    }

    /// The numbers of an engine before this one. None of its targets is configured until that is said; `target`: what stands for
    /// one meanwhile. `None`: two targets have one number, or two servers, or what is noted is wrong otherwise.
    #[must_use]
    pub fn taken_over(noted: Noted, target: impl Fn(&Record) -> Arc<FlowTarget>) -> Option<Self> {
        let mut numbers = Self {
            incarnations: noted.incarnations.wrapping_add(NOT_NOTED),
            changes: 1,
            ..Self::default()
        };
        for record in noted.records {
            let target = target(&record);
            numbers.enter(record, target)?;
        }
        let last = numbers.all.keys().next_back().copied().unwrap_or(0);
        let last_server = numbers.servers.taken.last().copied().unwrap_or(0);
        (numbers.next, numbers.servers.next) = (last.wrapping_add(1), last_server.wrapping_add(1));
        Some(numbers)
    }

    fn enter(&mut self, record: Record, target: Arc<FlowTarget>) -> Option<()> {
        let Record {
            number,
            server,
            incarnation,
            identity,
            places,
        } = record;
        let is_right = number != 0
            && incarnation != 0
            && self.servers.enter(&identity.server, server)
            && self.of.insert(identity.clone(), number).is_none();
        let numbered = Numbered {
            incarnation,
            target,
            is_dsr: identity.is_dsr,
            identity,
            places,
            server,
            is_written: false,
            opened_here: 0,
            is_left_behind: true,
            retired: Some(self.scans),
        };
        let is_new = self.all.insert(number, numbered).is_none();
        (is_right && is_new).then_some(())
    }

    /// The program knows those of which this says so, by number and incarnation.
    pub fn known(&mut self, is_known: impl Fn(u16, u32) -> bool) {
        for (number, numbered) in &mut self.all {
            numbered.is_written = is_known(*number, numbered.incarnation);
        }
    }
}
