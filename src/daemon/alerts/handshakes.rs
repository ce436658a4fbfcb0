//! Servers with which no TCP handshake completes. Pure.

use std::{collections::HashMap, time::Instant};

use super::shortages::{Case, MINUTE, Subject};
use crate::base::{Alert, Handshake, ServerKey};

/// Incomplete handshakes within a minute, and no complete one meanwhile, that are one too many.
const ENOUGH: u64 = 10;

/// Counters by discriminant of [`Handshake`].
type Counted = [u64; Handshake::ALL.len()];

/// What is to be said of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandshakeNews {
    /// None of so many handshakes completed.
    Failing {
        server: ServerKey,
        alert: Alert,
        handshakes: u64,
    },
    /// One has completed since that was said.
    Completing { server: ServerKey },
}

/// What was counted before, by server.
#[derive(Debug, Default)]
pub struct Handshakes(HashMap<ServerKey, Known>);

#[derive(Debug, Clone, Default)]
struct Known {
    counted: Counted,
    passthrough: Track,
    dsr: Track,
}

/// The handshakes of one mode since the last that completed.
#[derive(Debug, Clone, Default)]
struct Track {
    since: Option<Instant>,
    unanswered: u64,
    others: u64,
    failing: Option<Alert>,
}

/// The handshakes of one mode since the last look.
struct Step {
    completed: u64,
    /// Without anything of the server; in DSR that cannot be told.
    unanswered: u64,
    /// Those that are incomplete otherwise, and what that means.
    others: u64,
    others_mean: Alert,
}

impl Handshakes {
    /// Takes each server's counters as they are now, and whether it is up: one that is not, is said to be so. Gives what is
    /// to be said, once for each spell. Servers that are not named are forgotten.
    pub fn look<'a>(
        &mut self,
        servers: impl Iterator<Item = (&'a ServerKey, bool, &'a Counted)>,
        now: Instant,
    ) -> Vec<HandshakeNews> {
        let mut before = std::mem::take(&mut self.0);
        let mut news = Vec::new();
        for (server, is_up, counted) in servers.filter(|(.., counted)| counted.iter().any(|count| *count > 0))
        {
            let mut known = before.remove(server).unwrap_or_default();
            let grown = |handshake: Handshake| {
                let count = |counted: &Counted| counted.get(handshake as usize).copied().unwrap_or(0);
                let (now, then) = (count(counted), count(&known.counted));
                // one that is below its earlier value has begun anew
                now.checked_sub(then).unwrap_or(now)
            };
            let passthrough = Step {
                completed: grown(Handshake::Completed),
                unanswered: grown(Handshake::Unanswered),
                others: grown(Handshake::Unacknowledged),
                others_mean: Alert::Unacknowledged,
            };
            let dsr = Step {
                completed: grown(Handshake::DsrCompleted),
                unanswered: 0,
                others: grown(Handshake::DsrIncomplete),
                others_mean: Alert::DsrIncomplete,
            };
            known.counted = *counted;
            for (track, step) in [(&mut known.passthrough, passthrough), (&mut known.dsr, dsr)] {
                if is_up {
                    news.extend(track.take(server, &step, now));
                } else {
                    *track = Track::default();
                }
            }
            self.0.insert(server.clone(), known);
        }
        news
    }

    /// The servers with which none completes.
    pub fn failing(&self) -> impl Iterator<Item = Case> {
        self.0.iter().flat_map(|(server, known)| {
            let failing = [known.passthrough.failing, known.dsr.failing];
            failing.into_iter().flatten().map(|alert| Case {
                subject: Subject::Server(server.clone()),
                alert,
            })
        })
    }
}

impl Track {
    fn take(&mut self, server: &ServerKey, step: &Step, now: Instant) -> Option<HandshakeNews> {
        if step.completed > 0 {
            let was_failing = std::mem::take(self).failing.is_some();
            return was_failing.then(|| HandshakeNews::Completing {
                server: server.clone(),
            });
        }
        if step.unanswered + step.others == 0 || self.failing.is_some() {
            return None;
        }
        let is_recent = (self.since).is_some_and(|since| now.duration_since(since) < MINUTE);
        if !is_recent {
            *self = Self {
                since: Some(now),
                ..Self::default()
            };
        }
        self.unanswered += step.unanswered;
        self.others += step.others;
        let handshakes = self.unanswered + self.others;
        if handshakes < ENOUGH {
            return None;
        }
        let alert = if self.unanswered >= self.others {
            Alert::Unanswered
        } else {
            step.others_mean
        };
        self.failing = Some(alert);
        Some(HandshakeNews::Failing {
            server: server.clone(),
            alert,
            handshakes,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::base::{BackendName, ServerName};

    fn server() -> ServerKey {
        ServerKey {
            backend: BackendName::new("web").expect("a name"),
            server: ServerName::new("a").expect("a name"),
        }
    }

    /// Servers that are looked at every five seconds.
    struct Site {
        handshakes: Handshakes,
        counted: Counted,
        is_up: bool,
        now: Instant,
    }

    impl Site {
        fn new() -> Self {
            Self {
                handshakes: Handshakes::default(),
                counted: Counted::default(),
                is_up: true,
                now: Instant::now(),
            }
        }

        fn look(&mut self, more: &[(Handshake, u64)]) -> Vec<HandshakeNews> {
            for (handshake, count) in more {
                self.counted[*handshake as usize] += count;
            }
            self.now += Duration::from_secs(5);
            let server = server();
            (self.handshakes).look([(&server, self.is_up, &self.counted)].into_iter(), self.now)
        }

        fn failing(&self) -> Vec<Alert> {
            self.handshakes.failing().map(|case| case.alert).collect()
        }
    }

    fn failing(alert: Alert, handshakes: u64) -> HandshakeNews {
        HandshakeNews::Failing {
            server: server(),
            alert,
            handshakes,
        }
    }

    #[test]
    fn a_server_with_which_no_handshake_completes_is_warned_of_once_until_one_does() {
        let mut site = Site::new();
        assert_eq!(site.look(&[(Handshake::DsrIncomplete, 6)]), []);
        assert_eq!(
            site.look(&[(Handshake::DsrIncomplete, 6)]),
            [failing(Alert::DsrIncomplete, 12)]
        );
        assert_eq!(site.look(&[(Handshake::DsrIncomplete, 50)]), []);
        assert_eq!(site.failing(), [Alert::DsrIncomplete]);
        assert_eq!(
            site.look(&[(Handshake::DsrCompleted, 1), (Handshake::DsrIncomplete, 3)]),
            [HandshakeNews::Completing { server: server() }]
        );
        assert_eq!(site.failing(), []);
        assert_eq!(
            site.look(&[(Handshake::DsrIncomplete, 10)]).len(),
            1,
            "another spell"
        );
    }

    #[test]
    fn a_flood_beside_honest_clients_is_no_fault_of_the_server() {
        let mut site = Site::new();
        for _ in 0..20 {
            let flood = [(Handshake::Unacknowledged, 100_000), (Handshake::Completed, 1)];
            assert_eq!(site.look(&flood), []);
        }
        assert_eq!(site.failing(), []);
    }

    #[test]
    fn passthrough_tells_a_silent_server_from_silent_clients() {
        for (more, alert) in [
            (
                [(Handshake::Unanswered, 9), (Handshake::Unacknowledged, 1)],
                Alert::Unanswered,
            ),
            (
                [(Handshake::Unanswered, 1), (Handshake::Unacknowledged, 9)],
                Alert::Unacknowledged,
            ),
        ] {
            assert_eq!(Site::new().look(&more), [failing(alert, 10)]);
        }
    }

    #[test]
    fn the_modes_of_a_server_are_told_apart() {
        let mut site = Site::new();
        let mixed = [(Handshake::Completed, 100), (Handshake::DsrIncomplete, 10)];
        assert_eq!(site.look(&mixed), [failing(Alert::DsrIncomplete, 10)]);
        assert_eq!(site.look(&mixed), [], "DSR fails on");
        assert_eq!(site.failing(), [Alert::DsrIncomplete]);
    }

    #[test]
    fn a_few_now_and_then_are_not_enough() {
        let mut site = Site::new();
        for _ in 0..100 {
            assert_eq!(site.look(&[(Handshake::Unanswered, 3)]), []);
            for _ in 0..12 {
                site.look(&[]);
            }
        }
    }

    #[test]
    fn a_server_that_is_not_up_is_not_warned_of_nor_noted() {
        let mut site = Site::new();
        site.is_up = false;
        assert_eq!(site.look(&[(Handshake::Unanswered, 100)]), []);
        site.is_up = true;
        assert_eq!(
            site.look(&[(Handshake::Unanswered, 9)]),
            [],
            "what came before does not count"
        );
        assert_eq!(site.look(&[(Handshake::Unanswered, 9)]).len(), 1);
        site.is_up = false;
        assert_eq!(site.look(&[]), []);
        assert_eq!(site.failing(), []);
    }
}
