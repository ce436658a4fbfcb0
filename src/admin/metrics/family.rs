//! A metric family: its name, what it means, and where its samples come from.

use super::scrape::Scrape;
use crate::snapshot::histogram::Times;

/// A metric family.
#[derive(Debug)]
pub struct Family {
    /// Its name, without unit and suffix.
    pub name: &'static str,
    /// Its unit, the last part of its name.
    pub unit: Option<&'static str>,
    /// What it is, without a full stop.
    pub help: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// What it is about.
    pub scope: Scope,
    /// Gives its samples to whoever takes them.
    pub samples: fn(&Scrape, &mut Samples<'_>),
}

/// The kind of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// It only grows, from the start of the process on.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Times by buckets.
    Histogram,
    /// Words about something that is there, with the value 1.
    Info,
}

/// What a family is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The process, its configuration and its log.
    Process,
    /// Frontends.
    Frontend,
    /// Backends.
    Backend,
    /// Servers.
    Server,
    /// Sources of servers, and certificates.
    Source,
    /// The packet modes.
    Packet,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 6] = [
        Self::Process,
        Self::Frontend,
        Self::Backend,
        Self::Server,
        Self::Source,
        Self::Packet,
    ];

    /// The word for it in queries.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Frontend => "frontend",
            Self::Backend => "backend",
            Self::Server => "server",
            Self::Source => "source",
            Self::Packet => "packet",
        }
    }
}

/// A label: its name and its value.
pub type Label<'a> = (&'static str, &'a str);

/// Takes samples.
pub type Samples<'a> = dyn FnMut(&[Label<'_>], Value) + 'a;

/// The value of a sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// A number that is counted.
    Count(u64),
    /// A number that is measured, in its family's unit.
    Number(f64),
    /// Of a histogram.
    Times(Times),
    /// Of an info.
    Info,
}

impl Family {
    /// One that is counted.
    pub const fn counter(
        scope: Scope,
        name: &'static str,
        help: &'static str,
        samples: fn(&Scrape, &mut Samples<'_>),
    ) -> Self {
        Self {
            name,
            unit: None,
            help,
            kind: Kind::Counter,
            scope,
            samples,
        }
    }

    /// One that goes up and down.
    pub const fn gauge(
        scope: Scope,
        name: &'static str,
        help: &'static str,
        samples: fn(&Scrape, &mut Samples<'_>),
    ) -> Self {
        Self {
            kind: Kind::Gauge,
            ..Self::counter(scope, name, help, samples)
        }
    }

    /// Times in seconds by buckets.
    pub const fn histogram(
        scope: Scope,
        name: &'static str,
        help: &'static str,
        samples: fn(&Scrape, &mut Samples<'_>),
    ) -> Self {
        Self {
            kind: Kind::Histogram,
            ..Self::counter(scope, name, help, samples).in_unit("seconds")
        }
    }

    /// Words.
    pub const fn info(
        scope: Scope,
        name: &'static str,
        help: &'static str,
        samples: fn(&Scrape, &mut Samples<'_>),
    ) -> Self {
        Self {
            kind: Kind::Info,
            ..Self::counter(scope, name, help, samples)
        }
    }

    /// The same in a unit.
    pub const fn in_unit(self, unit: &'static str) -> Self {
        Self {
            unit: Some(unit),
            ..self
        }
    }

    /// Its whole name, without the suffix of its kind.
    #[must_use]
    pub fn full_name(&self) -> String {
        match self.unit {
            Some(unit) => format!("{}_{unit}", self.name),
            None => self.name.to_owned(),
        }
    }
}

impl From<bool> for Value {
    fn from(yes: bool) -> Self {
        Self::Count(yes.into())
    }
}

impl From<u64> for Value {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

impl From<u32> for Value {
    fn from(count: u32) -> Self {
        Self::Count(count.into())
    }
}

impl From<usize> for Value {
    fn from(count: usize) -> Self {
        Self::Count(count as u64)
    }
}

impl Value {
    /// Of a histogram; `None` of one without anything: what never happened has no buckets.
    #[must_use]
    pub fn times(times: Times) -> Option<Self> {
        (times.count() > 0).then_some(Self::Times(times))
    }
}
