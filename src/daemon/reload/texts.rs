//! What a reload says of itself.

use crate::{
    admin::views::{ReloadFailed, Reloaded},
    config::{self, Diagnostic, Severity, Source},
    privilege::BrokerError,
};

pub fn log_success(trigger: &str, reloaded: &Reloaded) {
    if reloaded.changes.is_empty() {
        return;
    }
    tracing::info!(
        event = "reloaded",
        generation = reloaded.config_generation,
        "reload ({trigger}): generation {}: {}",
        reloaded.config_generation,
        reloaded.changes.join("; ")
    );
    if reloaded.cut > 0 {
        tracing::warn!(
            event = "connections_cut",
            cut = reloaded.cut,
            "reload ({trigger}): cut {} connection(s) whose address changed between mode proxy and a packet mode",
            reloaded.cut
        );
    }
    if !reloaded.needs_restart.is_empty() {
        tracing::warn!(
            event = "needs_restart",
            "needs a restart to take effect: {}",
            reloaded.needs_restart.join(", ")
        );
    }
}

/// The errors of a broken file; its warnings can wait until it works.
pub fn broken(mut findings: Vec<Diagnostic>, source: &Source) -> ReloadFailed {
    findings.retain(|finding| finding.severity == Severity::Error);
    ReloadFailed {
        message: config::render(&findings, source, false).trim_end().to_owned(),
        config_error: true,
    }
}

pub fn failure(error: &BrokerError) -> ReloadFailed {
    ReloadFailed {
        message: error.to_string(),
        config_error: matches!(error, BrokerError::Unreadable(_)),
    }
}

/// A step has ended by a defect of ours.
pub fn panicked() -> ReloadFailed {
    ReloadFailed {
        message: "internal error during the reload (a bug in convey): see the log".to_owned(),
        config_error: false,
    }
}
