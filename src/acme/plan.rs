//! When a CA is asked for what: pure. Time and randomness are arguments.
//!
//! ```text
//!            missing, other names, another CA ─► order, at once
//! held ──────► advice of the CA, else two thirds of its lifetime, or renew_before ─► order
//!                                                       └ fails: later, ever later, but never before the CA lets us
//! ```
//! One thing at a time: a CA counts what it is asked for.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    advice::{Advice, CertificateId},
    failure::{Failure, FailureKind},
};

/// How long after the first of several failures in a row: of the connection, and of anything else. Let's Encrypt lets five fail
/// in an hour for one name.
const FIRST_REST: Duration = Duration::from_secs(30);
const FIRST_RETRY: Duration = Duration::from_secs(300);

/// How long after a failure at most, if the CA does not say more.
const LAST_RETRY: Duration = Duration::from_secs(12 * 3600);

/// How long after it could not be asked a CA is asked again for its advice.
const ADVICE_RETRY: Duration = Duration::from_secs(3600);

/// How old a certificate is at least when it is renewed by advice that the one before was renewed by already, unless a tenth of
/// its lifetime is less: a CA whose advice is wrong is not asked again and again.
const YOUNGEST: Duration = Duration::from_secs(6 * 3600);

/// What a frontend wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The names of the certificate.
    pub names: BTreeSet<Box<str>>,
    /// The directory of the CA.
    pub directory: Arc<str>,
    /// The profile.
    pub profile: Option<Box<str>>,
    /// How long before its end it is renewed; `None`: as the CA advises, else with the last third of its lifetime.
    pub renew_before: Option<Duration>,
}

/// What is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The names of the certificate.
    pub names: BTreeSet<Box<str>>,
    /// Who has issued it.
    pub directory: Arc<str>,
    /// With which profile.
    pub profile: Option<Box<str>>,
    /// From when on it is valid.
    pub not_before: SystemTime,
    /// Until when.
    pub not_after: SystemTime,
    /// What the CA calls it.
    pub id: Option<CertificateId>,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The certificate of this name is ordered; the one that it replaces, if the CA wants to know.
    Order(Arc<str>, Option<CertificateId>),
    /// The CA is asked when it had best be renewed.
    Advice(Arc<str>, CertificateId),
}

impl Step {
    /// The certificate that it is about.
    #[must_use]
    pub const fn name(&self) -> &Arc<str> {
        match self {
            Self::Order(name, _) | Self::Advice(name, _) => name,
        }
    }
}

/// Why a certificate is ordered, or will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// There is none.
    Missing,
    /// There is one that is for other names, of another CA or of another profile.
    Changed,
    /// An operator wants it.
    Asked,
    /// It is to be renewed.
    Renewal,
}

/// What the certificates of a configuration need.
#[derive(Debug, Default)]
pub struct Planner {
    lives: BTreeMap<Arc<str>, Life>,
    /// Until then the CA is left alone.
    rest_until: Option<SystemTime>,
}

/// A certificate from its first order on.
#[derive(Debug)]
struct Life {
    wanted: Wanted,
    held: Option<Held>,
    /// When it was issued, if it was renewed because the CA has advised so.
    renewed_by_advice: Option<SystemTime>,
    /// Where in the time of renewal it is renewed, so that not all are at once.
    spread: u64,
    /// When the CA advises to renew it.
    advised: Option<SystemTime>,
    /// When it is asked for that; `None`: never, it gives none.
    ask_advice: Option<SystemTime>,
    failures: u32,
    retry_at: Option<SystemTime>,
    is_asked: bool,
}

impl Life {
    fn why(&self) -> Why {
        match &self.held {
            _ if self.is_asked => Why::Asked,
            None => Why::Missing,
            Some(held) => {
                let is_same = held.names == self.wanted.names
                    && held.directory == self.wanted.directory
                    && held.profile == self.wanted.profile;
                if is_same { Why::Renewal } else { Why::Changed }
            }
        }
    }

    /// When it is ordered, if nothing fails.
    fn wanted_at(&self) -> SystemTime {
        match (&self.held, self.why()) {
            (Some(held), Why::Renewal) => {
                let due = held.renewed_at(self.wanted.renew_before, self.advised, self.spread);
                let age = YOUNGEST.min(held.lifetime() / 10);
                self.renewed_by_advice.map_or(due, |at| due.max(at + age))
            }
            _ => SystemTime::UNIX_EPOCH,
        }
    }

    fn due(&self) -> SystemTime {
        match self.retry_at.filter(|_| !self.is_asked) {
            Some(retry_at) => self.wanted_at().max(retry_at),
            None => self.wanted_at(),
        }
    }
}

impl Held {
    fn lifetime(&self) -> Duration {
        self.not_after.duration_since(self.not_before).unwrap_or_default()
    }

    fn renewed_at(&self, before: Option<Duration>, advised: Option<SystemTime>, spread: u64) -> SystemTime {
        let rest = before.unwrap_or(self.lifetime() / 3).min(self.lifetime());
        // a tenth of it earlier at most
        let own = self.not_after - rest - fraction(rest / 10, spread);
        match (advised, before) {
            (Some(advised), None) => advised.min(self.not_after),
            (Some(advised), Some(_)) => advised.min(own),
            (None, _) => own,
        }
    }
}

impl Planner {
    /// Goes on with these certificates; `random` is drawn for each that is new.
    pub fn follow(&mut self, wanted: &BTreeMap<Arc<str>, Wanted>, mut random: impl FnMut() -> u64) {
        self.lives.retain(|name, _| wanted.contains_key(name));
        let mut is_other = false;
        for (name, wanted) in wanted {
            let life = self.lives.entry(Arc::clone(name)).or_insert_with(|| Life {
                wanted: wanted.clone(),
                held: None,
                renewed_by_advice: None,
                spread: random(),
                advised: None,
                ask_advice: Some(SystemTime::UNIX_EPOCH),
                failures: 0,
                retry_at: None,
                is_asked: false,
            });
            if life.wanted != *wanted {
                is_other |= life.wanted.directory != wanted.directory;
                life.wanted = wanted.clone();
                (life.failures, life.retry_at) = (0, None);
                (life.advised, life.ask_advice) = (None, Some(SystemTime::UNIX_EPOCH));
            }
        }
        if is_other {
            self.rest_until = None;
        }
    }

    /// What is there of a certificate, found, or issued at this time; its failures are over.
    pub fn hold(&mut self, name: &str, held: Held, issued: Option<SystemTime>) {
        if let Some(life) = self.lives.get_mut(name) {
            let is_by_advice = |issued: &SystemTime| life.advised.is_some_and(|at| at <= *issued);
            life.renewed_by_advice = issued.filter(is_by_advice);
            life.held = Some(held);
            (life.advised, life.ask_advice) = (None, Some(SystemTime::UNIX_EPOCH));
            (life.failures, life.retry_at, life.is_asked) = (0, None, false);
        }
    }

    /// The CA has issued something: it can be asked.
    pub const fn lets_us(&mut self) {
        self.rest_until = None;
    }

    /// An order has failed.
    pub fn failed(&mut self, name: &str, failure: &Failure, now: SystemTime, random: u64) {
        let Some(life) = self.lives.get_mut(name) else {
            return;
        };
        life.is_asked = false;
        if failure.kind == FailureKind::GivenUp {
            return;
        }
        life.failures = life.failures.saturating_add(1);
        let until = now + rest(failure, life.failures, random);
        life.retry_at = Some(until);
        if concerns_ca(failure.kind) {
            self.rest_until = Some(until);
        }
    }

    /// What the CA has advised; `None`: nothing, and it will not.
    pub fn advised(&mut self, name: &str, advice: Option<&Advice>, now: SystemTime, random: u64) {
        let Some(life) = self.lives.get_mut(name) else {
            return;
        };
        life.ask_advice = advice.map(|advice| now + advice.believed);
        let Some(advice) = advice else {
            life.advised = None;
            return;
        };
        // a moment that was drawn stays as long as it is in the window, for else it would move on with each question
        let is_kept = life
            .advised
            .is_some_and(|at| (advice.start..=advice.end).contains(&at));
        if !is_kept {
            let window = advice.end.duration_since(advice.start).unwrap_or_default();
            life.advised = Some(advice.start + fraction(window, random));
        }
    }

    /// The CA could not be asked for its advice: what was known is believed a while longer.
    pub fn not_advised(&mut self, name: &str, failure: &Failure, now: SystemTime) {
        if let Some(life) = self.lives.get_mut(name) {
            life.ask_advice = Some(now + failure.retry_after.unwrap_or_default().max(ADVICE_RETRY));
        }
    }

    /// What failed is tried anew, for it is asked otherwise now.
    pub fn start_over(&mut self) {
        self.rest_until = None;
        for life in self.lives.values_mut() {
            (life.failures, life.retry_at) = (0, None);
        }
    }

    /// An operator wants a certificate now; whether there is such a one.
    pub fn ask(&mut self, name: &str) -> bool {
        self.lives
            .get_mut(name)
            .map(|life| life.is_asked = true)
            .is_some()
    }

    /// What is to be done now, if anything is.
    #[must_use]
    pub fn next(&self, now: SystemTime) -> Option<Step> {
        let rests = self.rest_until.is_some_and(|until| until > now);
        let orders = (self.lives.iter())
            .filter(|(_, life)| life.due() <= now && (!rests || life.is_asked))
            .min_by_key(|(_, life)| (!life.is_asked, life.due()));
        if let Some((name, life)) = orders {
            // a CA lets who replaces one of its own order more
            let own = life
                .held
                .as_ref()
                .filter(|held| held.directory == life.wanted.directory);
            let replaced = own
                .filter(|_| life.advised.is_some())
                .and_then(|held| held.id.clone());
            return Some(Step::Order(Arc::clone(name), replaced));
        }
        self.lives.iter().filter(|_| !rests).find_map(|(name, life)| {
            let is_due = life.ask_advice.is_some_and(|at| at <= now) && life.why() == Why::Renewal;
            let id = life.held.as_ref().filter(|_| is_due)?.id.clone()?;
            Some(Step::Advice(Arc::clone(name), id))
        })
    }

    /// When a certificate is ordered next, and why.
    #[must_use]
    pub fn due(&self, name: &str) -> Option<(SystemTime, Why)> {
        let life = self.lives.get(name)?;
        let rest = self
            .rest_until
            .filter(|_| !life.is_asked && life.retry_at.is_some());
        let due = life.due();
        Some((rest.map_or(due, |rest| due.max(rest)), life.why()))
    }

    /// What is there of a certificate.
    #[must_use]
    pub fn held(&self, name: &str) -> Option<&Held> {
        self.lives.get(name)?.held.as_ref()
    }
}

/// Whether it would fail for other certificates too.
const fn concerns_ca(kind: FailureKind) -> bool {
    matches!(
        kind,
        FailureKind::Unreachable
            | FailureKind::Silent
            | FailureKind::Malformed
            | FailureKind::RateLimited
            | FailureKind::Account
            | FailureKind::Unusable
            | FailureKind::Storage
    )
}

/// How long after so many failures in a row, up to a tenth longer.
fn rest(failure: &Failure, failures: u32, random: u64) -> Duration {
    let first = match failure.kind {
        FailureKind::Unreachable | FailureKind::Silent | FailureKind::Malformed => FIRST_REST,
        _ => FIRST_RETRY,
    };
    let doubled = first.saturating_mul(1 << failures.saturating_sub(1).min(20));
    let own = doubled.min(LAST_RETRY);
    (own + fraction(own / 10, random)).max(failure.retry_after.unwrap_or_default())
}

/// A part of a time, by a random number.
fn fraction(time: Duration, random: u64) -> Duration {
    let part = (random >> 32) as u32;
    Duration::from_secs_f64(time.as_secs_f64() * f64::from(part) / f64::from(u32::MAX))
}
