//! What an operator should look at, most of it in the packet modes: made of counters on the control loop's tick, noted in the status
//! while it lasts, and logged.
//!
//! ```text
//! counters of servers, verdicts ─► AlertWatch::look ─┬─► log, at most once a minute each
//!                                                    └─► Status ─► `convey status`
//! ```

mod handshakes;
mod shortages;
mod texts;

use std::{sync::Arc, time::Instant};

use super::Control;
use crate::{
    admin::status::Alerts,
    base::{AccessReason, Alert, PacketReason, ServerDrop, ServerKey, ServerState},
    snapshot::Snapshot,
};
use handshakes::{HandshakeNews, Handshakes};
use shortages::{Case, Shortage, Shortages, Subject};

/// What is remembered from one tick to the next. Pure.
#[derive(Debug, Default)]
pub struct AlertWatch {
    shortages: Shortages,
    handshakes: Handshakes,
    active: Arc<Alerts>,
}

/// What is to be logged after a look.
#[derive(Debug, Default)]
struct Findings {
    shortages: Vec<Shortage>,
    handshakes: Vec<HandshakeNews>,
}

impl AlertWatch {
    /// What an operator should look at now.
    pub const fn active(&self) -> &Arc<Alerts> {
        &self.active
    }

    /// Compares the counters with those of the look before.
    fn look(&mut self, snapshot: &Snapshot, packets: &[(PacketReason, u64)], now: Instant) -> Findings {
        let servers: Vec<_> = (snapshot.servers())
            // those that a frontend in a packet mode uses
            .filter(|(backend, _)| backend.maglev.is_some())
            .map(|(backend, server)| {
                let key = ServerKey {
                    backend: backend.config.name.clone(),
                    server: server.name.clone(),
                };
                let is_up = server.state == ServerState::Up;
                (key, is_up, server.live.counters.totals())
            })
            .collect();
        let of_servers = servers.iter().flat_map(|(key, _, totals)| {
            ServerDrop::ALL.iter().zip(totals.dropped).map(|(drop, count)| {
                let case = Case {
                    subject: Subject::Server(key.clone()),
                    alert: drop.alert(),
                };
                (case, count)
            })
        });
        let of_all = packets.iter().filter_map(|(reason, count)| {
            let alert = Alert::of_all_servers(*reason)?;
            let subject = Subject::All;
            Some((Case { subject, alert }, *count))
        });
        let counters = of_all.chain(of_servers).chain(of_frontends(snapshot));
        let shortages = self.shortages.look(counters, now);
        let counted = (servers.iter()).map(|(key, is_up, totals)| (key, *is_up, &totals.handshakes));
        let handshakes = self.handshakes.look(counted, now);
        let lasting = self.shortages.lasting(now).chain(self.handshakes.failing());
        let mut active = Alerts::new();
        for Case { subject, alert } in lasting {
            let server = match subject {
                Subject::All => None,
                Subject::Server(key) => Some(key),
                // the status has its refusals by reason
                Subject::Frontend(_) => continue,
            };
            active.entry(server).or_default().insert(alert);
        }
        if *self.active != active {
            self.active = Arc::new(active);
        }
        Findings {
            shortages,
            handshakes,
        }
    }
}

/// What frontends refuse, in any mode, that an operator should hear of.
fn of_frontends(snapshot: &Snapshot) -> impl Iterator<Item = (Case, u64)> {
    snapshot.frontends.values().flat_map(|view| {
        let refused = AccessReason::ALL.iter().zip(view.live.counters.totals().refused);
        refused.filter_map(|(reason, count)| {
            let alert = Alert::of_refusals(*reason)?;
            let subject = Subject::Frontend(view.config.name.clone());
            Some((Case { subject, alert }, count))
        })
    })
}

impl Control {
    /// Looks for what an operator should know, and says it.
    pub(super) fn look_for_alerts(&mut self, now: Instant) {
        let engine = self.packets.engine().load_full();
        let packets = engine.map_or_else(Vec::new, |engine| engine.report().packets);
        let before = Arc::clone(self.alerts.active());
        let snapshot = Arc::clone(self.state.snapshot());
        let findings = self.alerts.look(&snapshot, &packets, now);
        if !Arc::ptr_eq(&before, self.alerts.active()) {
            self.publish_status();
        }
        for shortage in &findings.shortages {
            texts::log_shortage(shortage);
        }
        for news in &findings.handshakes {
            texts::log_handshakes(news, &snapshot);
        }
    }
}

#[cfg(test)]
mod tests;
