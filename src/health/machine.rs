//! The pure state machine of one server's health. Time and random numbers are arguments.
//!
//! ```text
//!             first result decides alone                     `fall` failures in a row, or ejected by passive failures
//!  checking ─────────────────────────────► up or down    up ─────────────────────────────────────────────────────► down
//!                                                           ◄─────────────────────────────────────────────────────
//!            `rise` successes in a row, whatever had taken it out; without checks: the end of the ejection
//! ```
//!
//! A passive ejection lasts `ejection_time` times the number of ejections in close succession, at most
//! `max_ejection_time` (the scheme of Envoy's outlier detection). One ejection is forgotten for each `ejection_time`
//! that the server was up.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    balance::hash::below,
    base::{ServerState, ServerTlsFailure},
    config::{HealthCheck, PassiveCheck},
    snapshot::{Health, initial_state},
};

/// How a server's health is found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckSettings {
    /// Active checks.
    pub check: Option<HealthCheck>,
    /// What failing connects of real traffic do.
    pub passive: Option<PassiveCheck>,
}

/// The outcome of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckResult {
    /// The server answered.
    Passed,
    /// It did not, and why.
    Failed(Arc<str>),
    /// The check could not be made, and why; it says nothing of the server.
    NotMade(Arc<str>),
}

/// One server's health.
#[derive(Debug, Clone)]
pub struct Machine {
    settings: CheckSettings,
    health: Health,
    /// Results in a row that speak against the present state.
    streak: u32,
    /// Whether coming up is coming back: the server was up before, or has failed.
    comes_back: bool,
    /// Ejections in close succession.
    ejections: u32,
    /// End of the ejection that keeps it down.
    ejected_until: Option<Instant>,
}

impl Machine {
    /// A server about which nothing is known yet. `comes_back` says that it served before (it was in maintenance), so
    /// that its slow start applies.
    #[must_use]
    pub fn new(settings: CheckSettings, comes_back: bool, now: Instant) -> Self {
        let state = initial_state(settings.check.as_ref());
        let is_up = state == ServerState::Up;
        Self {
            settings,
            health: Health {
                ramp_from: (is_up && comes_back).then_some(now),
                ..Health::new(state, now)
            },
            streak: 0,
            comes_back: comes_back || is_up,
            ejections: 0,
            ejected_until: None,
        }
    }

    /// A server that takes the place of one that was up: it counts as up until checks fail.
    #[must_use]
    pub fn presumed_up(settings: CheckSettings, now: Instant) -> Self {
        let mut machine = Self::new(settings, false, now);
        machine.health.state = ServerState::Up;
        machine.comes_back = true;
        machine
    }

    /// What is known of the server.
    #[must_use]
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Takes other settings. The state stays, but without checks nothing could bring a server up that is down, so it
    /// then counts as up (as soon as its ejection is over, if it has one).
    pub fn reconfigure(&mut self, settings: CheckSettings, now: Instant) {
        self.settings = settings;
        if self.settings.passive.is_none() {
            self.ejected_until = None;
            self.health.is_ejected = false;
        }
        if self.settings.check.is_none() {
            self.streak = 0;
        }
        self.time_passed(now);
    }

    /// Takes the result of a check.
    pub fn checked(&mut self, result: CheckResult, now: Instant) {
        let Some(check) = &self.settings.check else {
            return;
        };
        let (rise, fall) = (check.rise.get(), check.fall.get());
        match (result, self.health.state) {
            (CheckResult::NotMade(reason), _) => self.health.reason = Some(reason),
            (CheckResult::Passed, ServerState::Up) => {
                self.streak = 0;
                self.health.reason = None;
            }
            (CheckResult::Passed, state) => {
                self.streak = self.streak.saturating_add(1);
                if state == ServerState::Checking || self.streak >= rise {
                    self.come_up(now);
                } else {
                    self.health.is_ejected = self.is_ejected(now);
                }
            }
            (CheckResult::Failed(reason), ServerState::Up) => {
                self.streak = self.streak.saturating_add(1);
                self.health.reason = Some(Arc::clone(&reason));
                if self.streak >= fall {
                    self.go_down(reason, now);
                }
            }
            (CheckResult::Failed(reason), ServerState::Checking) => self.go_down(reason, now),
            (CheckResult::Failed(reason), _) => {
                self.streak = 0;
                self.comes_back = true;
                self.health.is_ejected = false;
                self.health.reason = Some(reason);
            }
        }
    }

    /// So many connects of real traffic failed in a row, the last by the server's TLS if that has a reason, that the passive
    /// check takes the server out. Ignored if it has
    /// none, or if the server is out already.
    pub fn connects_failed(&mut self, tls: Option<ServerTlsFailure>, now: Instant) {
        let Some(passive) = &self.settings.passive else {
            return;
        };
        if self.health.state != ServerState::Up {
            return;
        }
        let up_for = now.saturating_duration_since(self.health.since);
        let forgotten = up_for.as_nanos() / passive.ejection_time.as_nanos().max(1);
        self.ejections = self
            .ejections
            .saturating_sub(u32::try_from(forgotten).unwrap_or(u32::MAX))
            .saturating_add(1);
        let time = passive
            .ejection_time
            .saturating_mul(self.ejections)
            .min(passive.max_ejection_time);
        let why = tls.map_or_else(String::new, |why| format!(" ({})", why.sentence()));
        let reason = format!(
            "{} consecutive connection failures{why}; ejected for {time:?}",
            passive.max_failures
        );
        self.ejected_until = Some(now + time);
        // a check that has begun to fail is not overruled
        let is_ejected = self.streak == 0;
        self.go_down(reason.into(), now);
        self.health.is_ejected = is_ejected;
    }

    /// Ends an ejection whose time is over, if no check has to pass first. To be called at [`wake_at`](Self::wake_at).
    pub fn time_passed(&mut self, now: Instant) {
        if self.settings.check.is_none() && self.health.state != ServerState::Up && !self.is_ejected(now) {
            self.come_up(now);
        }
    }

    /// When [`time_passed`](Self::time_passed) would change something.
    #[must_use]
    pub fn wake_at(&self) -> Option<Instant> {
        match self.settings.check {
            Some(_) => None,
            None => self.ejected_until,
        }
    }

    /// Time from the start of one check to the start of the next, with a tenth of jitter either way taken from random
    /// bits, so that checks of many servers or by many load balancers do not march in step. `None` without checks.
    #[must_use]
    pub fn next_check(&self, random: u64) -> Option<Duration> {
        let check = self.settings.check.as_ref()?;
        let is_changing = self.health.state == ServerState::Checking || self.streak > 0;
        let pause = if is_changing {
            check.fast_interval
        } else {
            check.interval
        };
        Some(with_jitter(pause, random))
    }

    fn is_ejected(&self, now: Instant) -> bool {
        self.ejected_until.is_some_and(|until| now < until)
    }

    fn come_up(&mut self, now: Instant) {
        self.health = Health {
            state: ServerState::Up,
            since: now,
            ramp_from: self.comes_back.then_some(now),
            is_ejected: false,
            reason: None,
            ..self.health.clone()
        };
        self.streak = 0;
        self.comes_back = true;
        self.ejected_until = None;
    }

    fn go_down(&mut self, reason: Arc<str>, now: Instant) {
        self.health = Health {
            state: ServerState::Down,
            since: now,
            ramp_from: None,
            is_ejected: false,
            reason: Some(reason),
            ..self.health.clone()
        };
        self.streak = 0;
        self.comes_back = true;
    }
}

/// A time, up to a tenth shorter or longer as random bits will have it.
pub fn with_jitter(pause: Duration, random: u64) -> Duration {
    let tenth = u64::try_from(pause.as_nanos() / 10).unwrap_or(u64::MAX / 4);
    pause.saturating_sub(Duration::from_nanos(tenth))
        + Duration::from_nanos(below(random, tenth.saturating_mul(2).saturating_add(1)))
}

#[cfg(test)]
mod tests;
