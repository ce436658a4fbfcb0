//! What the broker has applied, and that it stays so.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use super::demand;
use crate::{
    config::PacketService,
    firewall,
    privilege::{BrokerError, Client, Served},
};

/// How often is looked whether the firewall rules are still there. It runs a few short programs.
const CHECK: Duration = Duration::from_secs(10);

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
    /// The last warning or error, which is said once.
    last_logged: Option<String>,
}

impl InstalledRules {
    /// Nothing is in effect yet, as far as this process goes.
    pub const fn new(record: PathBuf) -> Self {
        Self {
            record,
            in_effect: Vec::new(),
            is_certain: true,
            checked: None,
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
        self.in_effect = shared.to_vec();
        self.is_certain = true;
        self.checked = Some(Instant::now());
        self.log_change(served.warning.clone(), |warning| {
            tracing::warn!(event = "firewall_warning", "{warning}");
        });
        Ok(served)
    }

    /// Whether it is time for [`check`](Self::check).
    pub fn are_due(&self) -> bool {
        self.checked.is_none_or(|last| last.elapsed() >= CHECK)
    }

    /// Looks whether the rules are still what they should be, and mends them: whoever reloads a host's firewall may have
    /// taken them out (Debian's nftables.service begins with `flush ruleset`), and an earlier process may have left some
    /// that its successor's configuration does not need.
    pub async fn check(&mut self, broker: &Client) {
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
            Ok(_) => tracing::warn!(
                event = "rules_restored",
                "chain CONVEY was changed by another program and has been restored; connections in packet modes may have \
                 been reset meanwhile"
            ),
            Err(error) => self.log_change(Some(error.to_string()), |why| {
                tracing::error!(
                    event = "firewall_failed",
                    "cannot verify the firewall rules: {why}"
                );
            }),
        }
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
