//! The end of a reload: what is said of it, and to whom.

use std::time::Instant;

use super::{
    LOOK_AGAIN,
    machine::{Ask, ReloadOutcome},
    texts::log_success,
};
use crate::{admin::views::Reloaded, config::Diff, daemon::Control};

impl Control {
    /// Says how a reload has ended, and answers those who wait for it.
    pub(super) fn finish(&mut self, ask: Ask, outcome: ReloadOutcome) {
        let asker = (ask.tickets.first()).and_then(|ticket| self.reload.waiting.get(ticket));
        let asker = asker.map(|(by, _)| by.clone());
        let trigger = &match &asker {
            Some(by) => format!("{}, {by}", ask.trigger.label()),
            None => ask.trigger.label().to_owned(),
        };
        let new = self.reload.new.take();
        for line in new.iter().flat_map(|new| &new.warning_lines) {
            tracing::warn!(event = "config_warning", "{line}");
        }
        if !matches!(outcome, ReloadOutcome::NotLooked(_)) {
            self.reload.has_warned = false;
        }
        let result = match outcome {
            ReloadOutcome::Nothing => Ok((Diff::default(), String::new())),
            ReloadOutcome::Unchanged { had_failed } => {
                if had_failed {
                    tracing::info!(
                        event = "reload",
                        "reload ({trigger}): the configuration is valid again and matches what is running"
                    );
                }
                Ok((Diff::default(), new.map(|new| new.warnings).unwrap_or_default()))
            }
            ReloadOutcome::Committed => Ok(new.map(|new| (new.diff, new.warnings)).unwrap_or_default()),
            ReloadOutcome::Refused(why) => Err(why),
            ReloadOutcome::Failed(failed) => {
                tracing::error!(
                    event = "reload_failed",
                    generation = self.config_generation,
                    "reload ({trigger}) failed; still using generation {}:\n{}",
                    self.config_generation,
                    failed.message
                );
                Err(failed)
            }
            ReloadOutcome::NotLooked(why) => {
                self.reload.look_again = Some(Instant::now() + LOOK_AGAIN);
                if !std::mem::replace(&mut self.reload.has_warned, true) {
                    tracing::warn!(
                        event = "look_failed",
                        "cannot check the configuration file for changes: {}; trying again every {LOOK_AGAIN:?}",
                        why.message
                    );
                }
                Err(why)
            }
        };
        let result = result.map(|(diff, warnings)| Reloaded {
            config_generation: self.config_generation,
            changes: diff.changes,
            needs_restart: self.needs_restart.clone(),
            cut: std::mem::take(&mut self.reload.cut).1.total(),
            backends: diff.backends,
            warnings,
        });
        if let Ok(reloaded) = &result {
            log_success(trigger, reloaded);
            let by = asker.as_ref().unwrap_or(trigger);
            self.take_text(by.clone(), &reloaded.changes);
        }
        self.publish_status();
        for ticket in ask.tickets {
            if let Some((_, answer)) = self.reload.waiting.remove(&ticket) {
                // whoever asked may have gone
                let _ = answer.send(result.clone());
            }
        }
        // failed or not, systemd must hear that the reload is over
        if std::mem::take(&mut self.reload.is_announced) {
            self.notify.ready(&self.status_line());
        } else if self.ready {
            self.notify.status(&self.status_line());
        }
    }
}
