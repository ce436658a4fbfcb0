//! Failed logins: counted, and limited for each host and in total; the log is told once a minute at most.
//!
//! Whoever has a token is let in whatever others have tried: tokens are too long to be guessed, and one forgotten script
//! must not keep operators out. The limit is on what those cost who have none.

use std::{
    collections::HashMap,
    fmt,
    net::IpAddr,
    num::NonZeroU32,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{access::Bucket, admin::shares::Sharer, base::by_label};

/// Failed logins of a host that are answered 401 in a minute; more are answered 429.
const PER_HOST: NonZeroU32 = NonZeroU32::MIN.saturating_add(9);

/// Those of all together.
const IN_TOTAL: NonZeroU32 = NonZeroU32::MIN.saturating_add(119);

/// Hosts of which is known how often they have failed; further ones share one limit.
const MAX_HOSTS: usize = 1_024;

/// For so long the log is told no more.
const QUIET: Duration = Duration::from_secs(60);

/// Why a login has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginFailure {
    /// The header is of another form.
    Malformed,
    /// Nobody has such a token.
    UnknownToken,
}

impl LoginFailure {
    const ALL: [Self; 2] = [Self::Malformed, Self::UnknownToken];

    /// The label in structured logs.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnknownToken => "unknown_token",
        }
    }

    /// What is wrong.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Malformed => "the Authorization header is not `Bearer TOKEN`",
            Self::UnknownToken => "the token is not one of tokens_file",
        }
    }
}

by_label!(LoginFailure, LoginFailure::ALL);

/// The failed logins of an endpoint.
#[derive(Debug)]
pub struct FailedLogins {
    count: Arc<AtomicU64>,
    began: Instant,
    limits: Mutex<Limits>,
    said: Mutex<Said>,
}

impl FailedLogins {
    /// None yet; `count` grows with each.
    pub fn new(count: Arc<AtomicU64>, now: Instant) -> Self {
        Self {
            count,
            began: now,
            limits: Mutex::default(),
            said: Mutex::default(),
        }
    }

    /// Takes note of one, and has the log told of it, now or from a task. Whether there have been too many.
    pub fn note(self: &Arc<Self>, from: IpAddr, why: LoginFailure) -> bool {
        self.count.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let verdict = {
            let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
            said.note(from, why, now)
        };
        match verdict {
            Say::Now(line) => line.log(),
            Say::At(due) => {
                let this = Arc::clone(self);
                tokio::spawn(async move {
                    tokio::time::sleep_until(due.into()).await;
                    let line = {
                        let mut said = this.said.lock().unwrap_or_else(PoisonError::into_inner);
                        said.rest(Instant::now())
                    };
                    if let Some(line) = line {
                        line.log();
                    }
                });
            }
            Say::Later => {}
        }
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        limits.is_too_many(from, now.saturating_duration_since(self.began))
    }
}

/// What each host has left.
#[derive(Debug, Default)]
struct Limits {
    hosts: HashMap<Sharer, Bucket>,
    /// Of those that have no place of their own.
    others: Bucket,
    all: Bucket,
}

impl Limits {
    /// Counts a failed login at a time since the beginning.
    fn is_too_many(&mut self, from: IpAddr, at: Duration) -> bool {
        // buckets count by the thousandth of a second; these are filled in a minute
        let at = u64::try_from(at.as_millis() / 60).unwrap_or(u64::MAX);
        let host = Sharer::remote(from);
        if !self.hosts.contains_key(&host) && self.hosts.len() >= MAX_HOSTS {
            // those that say what a new one would
            self.hosts.retain(|_, bucket| !bucket.is_full(PER_HOST, at));
        }
        let has_room = self.hosts.len() < MAX_HOSTS || self.hosts.contains_key(&host);
        let own = match has_room {
            true => self.hosts.entry(host).or_default(),
            false => &mut self.others,
        };
        let (own, all) = (own.take(PER_HOST, at), self.all.take(IN_TOTAL, at));
        !(own && all)
    }
}

/// What the log has been told.
#[derive(Debug, Default)]
struct Said {
    /// When it was last.
    at: Option<Instant>,
    /// What it has not been told since.
    rest: Option<Line>,
}

/// What to do about the log.
#[derive(Debug, PartialEq, Eq)]
enum Say {
    /// Tell it this.
    Now(Line),
    /// Ask again then.
    At(Instant),
    /// Somebody will ask.
    Later,
}

/// What the log is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Line {
    count: u64,
    last: IpAddr,
    why: LoginFailure,
}

impl Said {
    fn note(&mut self, from: IpAddr, why: LoginFailure, now: Instant) -> Say {
        let one = Line {
            count: 1,
            last: from,
            why,
        };
        let quiet_until = self.at.map(|at| at + QUIET);
        match (quiet_until.filter(|until| *until > now), &mut self.rest) {
            (_, Some(rest)) => {
                *rest = Line {
                    count: rest.count + 1,
                    ..one
                };
                Say::Later
            }
            (Some(until), None) => {
                self.rest = Some(one);
                Say::At(until)
            }
            (None, None) => {
                self.at = Some(now);
                Say::Now(one)
            }
        }
    }

    /// What has come since, if something has.
    fn rest(&mut self, now: Instant) -> Option<Line> {
        let rest = self.rest.take()?;
        self.at = Some(now);
        Some(rest)
    }
}

impl Line {
    fn log(self) {
        let Self { count, last, why } = self;
        tracing::warn!(event = "admin_login_failed", count, client = %last, reason = why.label(), "{self}");
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, last, why } = self;
        match count {
            1 => write!(f, "failed login at the admin API from {last}: {}", why.sentence()),
            count => write!(
                f,
                "{count} failed logins at the admin API, the last from {last}: {}",
                why.sentence()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(0x0a00_0000 + number).into()
    }

    #[test]
    fn a_host_may_fail_some_times_in_a_minute_and_others_have_limits_of_their_own() {
        let mut limits = Limits::default();
        let at = |seconds: u64| Duration::from_secs(1_000 + seconds);
        let answered = |limits: &mut Limits, from, seconds| {
            (0..100)
                .filter(|_| !limits.is_too_many(from, at(seconds)))
                .count()
        };
        let most = PER_HOST.get() as usize;
        assert_eq!(answered(&mut limits, host(1), 0), most);
        assert_eq!(answered(&mut limits, host(1), 5), 0);
        assert_eq!(answered(&mut limits, host(1), 6), 1);
        assert!(!limits.is_too_many(host(2), at(60)), "another host");
        assert_eq!(answered(&mut limits, host(1), 3_600), most);
    }

    #[test]
    fn any_number_of_hosts_takes_bounded_memory_and_is_answered_a_bounded_number_of_times() {
        let mut limits = Limits::default();
        let at = Duration::from_secs(1_000);
        let answered = (0..10_000)
            .filter(|number| !limits.is_too_many(host(*number), at))
            .count();
        assert_eq!(answered, IN_TOTAL.get() as usize);
        assert_eq!(limits.hosts.len(), MAX_HOSTS);
        assert!(limits.is_too_many(host(200_000), at));
        // and a minute later everybody is as good as new
        let later = at + Duration::from_secs(120);
        assert!(!limits.is_too_many(host(200_000), later));
        assert_eq!(limits.hosts.len(), 1);
    }

    #[test]
    fn the_log_is_told_at_once_and_then_of_all_others_once_a_minute() {
        let mut said = Said::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let why = LoginFailure::UnknownToken;
        let Say::Now(first) = said.note(host(1), why, at(0)) else {
            panic!("nothing is said")
        };
        assert_eq!(
            first.to_string(),
            "failed login at the admin API from 10.0.0.1: the token is not one of tokens_file"
        );
        assert_eq!(said.note(host(2), why, at(1)), Say::At(at(60)));
        for _ in 0..9_998 {
            assert_eq!(said.note(host(3), why, at(59)), Say::Later);
        }
        let rest = said.rest(at(60)).unwrap();
        assert_eq!(
            rest.to_string(),
            "9999 failed logins at the admin API, the last from 10.0.0.3: the token is not one of tokens_file"
        );
        assert_eq!(said.rest(at(60)), None);
        assert_eq!(said.note(host(2), why, at(61)), Say::At(at(120)), "quiet again");
        assert!(said.rest(at(120)).is_some());
        assert!(matches!(said.note(host(2), why, at(200)), Say::Now(_)));
    }
}
