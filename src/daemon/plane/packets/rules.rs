//! What the broker has applied, and that it stays so.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use super::demand;
use crate::{
    admin::status::{KeptRule, RulesStatus},
    config::PacketService,
    firewall,
    privilege::{BrokerError, Client, Served},
};

/// How often is looked whether the firewall rules are still there, when nobody tells of changes. It runs a few short programs.
const CHECK: Duration = Duration::from_secs(3);

/// As [`CHECK`], when the broker tells of changes: at once, and this is for what it may have missed.
const CHECK_WATCHED: Duration = Duration::from_secs(10);

/// How often is logged at most that rules were restored.
const LOG_RESTORED: Duration = Duration::from_secs(60);

/// The services whose rules and filters are in effect.
#[derive(Debug)]
pub struct InstalledRules {
    /// Where the firewall notes what it has done.
    record: PathBuf,
    in_effect: Vec<PacketService>,
    /// False after a request that the broker may carry out late.
    is_certain: bool,
    /// When the rules were last seen to be right; `None` as long as an earlier process's may be there.
    checked: Option<Instant>,
    /// Whether the broker tells of changes.
    is_watched: bool,
    status: RulesStatus,
    /// When it was last logged that rules were restored.
    logged_restored: Option<Instant>,
    /// The last warning or error, which is said once.
    last_logged: Option<String>,
}

impl InstalledRules {
    /// Nothing is in effect yet, as far as this process goes.
    pub fn new(record: PathBuf) -> Self {
        Self {
            record,
            in_effect: Vec::new(),
            is_certain: true,
            checked: None,
            is_watched: false,
            status: RulesStatus::default(),
            logged_restored: None,
            last_logged: None,
        }
    }

    /// What the broker has applied.
    pub fn in_effect(&self) -> &[PacketService] {
        &self.in_effect
    }

    /// Whether exactly these services are in effect.
    pub fn are_for(&self, services: &[PacketService]) -> bool {
        self.is_certain && self.in_effect == services
    }

    /// Where the firewall notes what it has done.
    pub fn record(&self) -> &Path {
        &self.record
    }

    /// Applies rules and filters for exactly these services.
    ///
    /// # Errors
    /// The broker refused or failed; what was in effect still is. If it was silent, it may apply them yet: they count as
    /// in effect too, until something else is applied.
    pub async fn serve(
        &mut self,
        services: Vec<PacketService>,
        broker: &Client,
    ) -> Result<Served, BrokerError> {
        let shared: Arc<[PacketService]> = services.into();
        let served = match broker.serve(Arc::clone(&shared)).await {
            Ok(served) => served,
            Err(error) => {
                if matches!(error, BrokerError::Silent(_)) {
                    self.in_effect = demand::union(&self.in_effect, &shared);
                    self.is_certain = false;
                }
                return Err(error);
            }
        };
        if *self.in_effect != *shared {
            self.status.kept = kept(&shared);
        }
        self.in_effect = shared.to_vec();
        self.is_certain = true;
        self.is_watched = served.is_watched;
        self.status.error = None;
        self.checked = Some(Instant::now());
        self.log_change(served.warning.clone(), |warning| {
            tracing::warn!(event = "firewall_warning", "{warning}");
        });
        Ok(served)
    }

    /// How they are, for people.
    pub const fn status(&self) -> &RulesStatus {
        &self.status
    }

    /// When to [`check`](Self::check) next; `None` as long as nothing is in effect.
    pub fn due(&self) -> Option<Instant> {
        let every = if self.is_watched { CHECK_WATCHED } else { CHECK };
        (self.checked.filter(|_| !self.in_effect.is_empty())).map(|last| last + every)
    }

    /// Whether nobody has looked yet for what an earlier process may have left.
    pub const fn is_first_due(&self) -> bool {
        self.checked.is_none()
    }

    /// Looks whether the rules are still what they should be, and mends them: whoever reloads a host's firewall may have
    /// taken them out (Debian's nftables.service begins with `flush ruleset`), and an earlier process may have left some
    /// that its successor's configuration does not need.
    pub async fn check(&mut self, broker: &Client) {
        self.look(broker).await;
        tracing::debug!(event = "rules_checked", "the firewall rules were checked");
    }

    async fn look(&mut self, broker: &Client) {
        let is_first = self.checked.is_none();
        if self.in_effect.is_empty() && !(is_first && firewall::has_left_rules(&self.record)) {
            self.checked = Some(Instant::now());
            return;
        }
        match self.serve(self.in_effect.clone(), broker).await {
            Ok(served) if !served.has_changed => {}
            Ok(_) if is_first => {
                tracing::info!(
                    event = "rules_cleared",
                    "removed stale firewall rules of an earlier run"
                );
            }
            Ok(_) => self.restored(),
            Err(error) => {
                self.checked = Some(Instant::now());
                self.status.error = Some(error.to_string());
                self.log_change(Some(error.to_string()), |why| {
                    tracing::error!(
                        event = "firewall_failed",
                        "cannot verify the firewall rules: {why}"
                    );
                });
            }
        }
    }

    /// Notes it, and says so; a program that goes on changing them does not fill the log.
    fn restored(&mut self) {
        self.status.restored += 1;
        self.status.last_restored = Some(Instant::now());
        if (self.logged_restored).is_some_and(|last| last.elapsed() < LOG_RESTORED) {
            return;
        }
        self.logged_restored = Some(Instant::now());
        tracing::warn!(
            event = "rules_restored",
            restored = self.status.restored,
            "chain CONVEY was changed by another program and has been restored; connections in packet modes may have been \
             reset meanwhile"
        );
    }

    fn log_change(&mut self, text: Option<String>, log: impl FnOnce(&str)) {
        if let Some(text) = text
            .as_deref()
            .filter(|text| self.last_logged.as_deref() != Some(*text))
        {
            log(text);
        }
        self.last_logged = text;
    }
}

/// The rules for services, for people.
fn kept(services: &[PacketService]) -> Arc<[KeptRule]> {
    let rules = firewall::plan(services).into_iter();
    rules
        .map(|rule| KeptRule {
            v6: rule.v6,
            text: rule.text,
        })
        .collect()
}
