//! What the control loop does about certificates that are ordered: each of these returns at once.

use std::{sync::Arc, time::SystemTime};

use hyper::StatusCode;
use tokio::task::spawn_blocking;

use super::{AcmeDone, Done, files, held, random};
use crate::{
    acme::{Bundle, Failure},
    admin::views::Problem,
    daemon::Control,
};

impl Control {
    /// At the start, before anything is served: the certificates that are there.
    pub(in crate::daemon) fn first_certificates(&mut self) {
        self.acme.follow(self.state.config());
        let (names, directory) = (self.acme.to_see(false), self.acme.directory.clone());
        if names.is_empty() {
            // nothing is ordered
        } else if let Some(directory) = directory {
            let found = files::look(&directory, &names);
            self.acme.take(found);
        } else {
            tracing::warn!(
                event = "acme_no_directory",
                "acme: nothing is ordered, for there is no directory in which certificates could be kept: see [global] state_dir"
            );
        }
        for name in names.keys() {
            self.acme.seen.entry(Arc::clone(name)).or_default();
        }
        self.acme.plan();
        self.serve_ordered();
        self.acme
            .troubles
            .say_missing(&self.acme.orders, &self.acme.bundles);
        self.acme.update_statuses(SystemTime::now());
    }

    /// Another configuration is in effect: what is there of its orders is served at once.
    pub(in crate::daemon) fn follow_acme(&mut self) {
        self.acme.follow(self.state.config());
        self.serve_ordered();
        self.look_for_certificates(false);
        self.acme_due();
    }

    /// Does what is due.
    pub(in crate::daemon) fn acme_due(&mut self) {
        if self.stopping.is_some() || !self.ready {
            return;
        }
        let now = SystemTime::now();
        self.acme.begin(now);
        self.acme.update_statuses(now);
    }

    /// Does what is due, while nothing tells of it, and looks at what another load balancer has ordered.
    pub(in crate::daemon) fn acme_tick(&mut self) {
        let before = Arc::clone(&self.acme.statuses);
        let leads = self.acme.acme.as_ref().is_none_or(|acme| acme.lead);
        if !leads && self.stopping.is_none() {
            self.look_for_certificates(true);
        }
        self.acme_due();
        if *before != *self.acme.statuses {
            self.publish_status();
        }
    }

    /// Reads files of certificates beside the control loop.
    fn look_for_certificates(&mut self, all: bool) {
        let (names, directory) = (self.acme.to_see(all), self.acme.directory.clone());
        let Some(directory) = directory.filter(|_| !names.is_empty() && !self.acme.is_looking) else {
            return;
        };
        self.acme.is_looking = true;
        self.acme.jobs.spawn(async move {
            let looked = spawn_blocking(move || files::look(&directory, &names));
            Done::Found(looked.await.unwrap_or_default())
        });
    }

    /// A job has ended.
    pub(in crate::daemon) fn acme_done(&mut self, done: AcmeDone) {
        let now = SystemTime::now();
        match done.0 {
            Some(Done::Found(found)) => {
                self.acme.is_looking = false;
                if self.acme.take(found) {
                    self.serve_ordered();
                }
                self.acme.plan();
                // a reload may have come meanwhile
                self.look_for_certificates(false);
            }
            Some(Done::Ordered(name, result)) => self.ordered(&name, result, now),
            Some(Done::Advised(name, result)) => {
                let is_current =
                    (self.acme.running.take()).is_some_and(|running| self.acme.is_current(&running));
                match result {
                    Ok(advice) if is_current => {
                        self.acme.planner.advised(&name, advice.as_ref(), now, random());
                    }
                    Err(failure) if is_current => self.acme.planner.not_advised(&name, &failure, now),
                    Ok(_) | Err(_) => {}
                }
            }
            // one of two kinds has panicked: neither is under way any more, or it will say so itself
            None => {
                self.acme.is_looking = false;
                if let Some(running) = self.acme.running.take() {
                    let name = Arc::clone(running.step.name());
                    self.acme
                        .planner
                        .failed(&name, &Failure::internal(), now, random());
                }
            }
        }
        self.acme_due();
        self.acme.update_statuses(now);
        self.publish_status();
    }

    fn ordered(
        &mut self,
        name: &Arc<str>,
        result: Result<(Arc<Bundle>, Result<(), String>), Failure>,
        now: SystemTime,
    ) {
        let Some(running) = self.acme.running.take() else {
            return;
        };
        match result {
            Ok((bundle, kept)) => {
                if let Err(why) = kept {
                    tracing::warn!(
                        event = "acme_not_kept",
                        "acme: certificate {name} is in use, but cannot be kept: {why}; after a restart another one is ordered"
                    );
                }
                self.acme.planner.lets_us();
                if !self.acme.orders.contains_key(name) {
                    return;
                }
                self.acme.troubles.issued(name, &bundle);
                self.acme.planner.hold(name, held(&bundle), Some(now));
                self.acme.bundles.insert(Arc::clone(name), bundle);
                self.serve_ordered();
            }
            Err(failure) => {
                let is_current = self.acme.is_current(&running);
                if is_current {
                    self.acme.planner.failed(name, &failure, now, random());
                    let due = self.acme.planner.due(name).map(|(due, _)| due);
                    let held = self.acme.planner.held(name).map(|held| held.not_after);
                    self.acme.troubles.failed(name, &failure, due, held, now);
                }
            }
        }
    }

    /// Has frontends serve the certificates that were ordered for them.
    fn serve_ordered(&self) {
        self.tls.serve_ordered(|name| self.acme.of_frontend(name));
    }

    /// An operator wants certificates now; which are ordered.
    pub(in crate::daemon) fn renew_certificates(
        &mut self,
        name: Option<&str>,
    ) -> Result<Vec<String>, Problem> {
        let refuse = |status, why: String| Err(Problem::new(status, why));
        match &self.acme.acme {
            None => {
                return refuse(
                    StatusCode::CONFLICT,
                    "the configuration has no section [acme]".to_owned(),
                );
            }
            Some(acme) if !acme.lead => {
                let why = "this load balancer orders nothing (lead = false in [acme]): ask the one that does";
                return refuse(StatusCode::CONFLICT, why.to_owned());
            }
            Some(_) if self.acme.directory.is_none() => {
                let why = "nothing is ordered without a state directory: see [global] state_dir";
                return refuse(StatusCode::CONFLICT, why.to_owned());
            }
            Some(_) => {}
        }
        let names: Vec<Arc<str>> = match name {
            Some(name) => (self.acme.orders.keys())
                .filter(|known| ***known == *name)
                .cloned()
                .collect(),
            None => self.acme.orders.keys().cloned().collect(),
        };
        if let (Some(name), true) = (name, names.is_empty()) {
            let known: Vec<&str> = self.acme.orders.keys().map(|name| &**name).take(20).collect();
            let why = format!(
                "no certificate \"{name}\" is ordered; those that are: {}",
                known.join(", ")
            );
            return refuse(StatusCode::NOT_FOUND, why);
        }
        let asked = names.iter().filter(|name| self.acme.planner.ask(name));
        let asked = asked.map(ToString::to_string).collect();
        self.acme_due();
        self.publish_status();
        Ok(asked)
    }
}
