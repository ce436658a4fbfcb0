//! Reload: parse and resolve everything, prepare what can fail, swap, retire the old. Before the swap nothing changes.

use std::{net::TcpListener, sync::Arc};

use super::{
    control::{Control, Inboxes},
    listeners::{Predecessors, kept_as},
};
use crate::{
    admin::{
        self, HttpListener,
        views::{ReloadFailed, Reloaded},
    },
    base::Endpoint,
    config::{self, Config, Diagnostic, Diff, Loaded, Severity, Source},
    privilege::{BrokerError, ListenerRef},
};

/// What asked for a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// SIGHUP.
    Signal,
    /// The file, or something near it, has changed.
    FileChange,
    /// `convey reload`.
    Request,
}

impl Trigger {
    const fn label(self) -> &'static str {
        match self {
            Self::Signal => "SIGHUP",
            Self::FileChange => "file change",
            Self::Request => "request",
        }
    }
}

/// What becomes of the `/stats` endpoint.
pub(super) enum StatsChange {
    /// It stays as it is.
    Keep,
    /// It is served on another address, or no longer.
    To(Option<(Endpoint, HttpListener)>),
}

impl Control {
    /// Reloads the configuration.
    ///
    /// # Errors
    /// What is wrong; then nothing has changed.
    pub(super) async fn reload(
        &mut self,
        trigger: Trigger,
        inboxes: &mut Inboxes,
    ) -> Result<Reloaded, ReloadFailed> {
        if self.stopping.is_some() {
            return Err(ReloadFailed {
                message: "convey is stopping and takes no new configuration".to_owned(),
                config_error: false,
            });
        }
        let source = self.broker.read_config().map_err(|e| failure(&e));
        if trigger == Trigger::FileChange && self.last_source == source {
            // something else in the directory has changed, perhaps our own log file
            return Ok(self.reloaded(Diff::default(), String::new()));
        }
        self.last_source = source.clone();
        self.notify.reloading();
        let result = match source {
            Ok(source) => self.try_reload(trigger, &source, inboxes).await,
            Err(failed) => Err(failed),
        };
        match &result {
            Ok(reloaded) => self.log_success(trigger, reloaded),
            Err(failed) => {
                self.last_reload_error = Some(failed.message.clone());
                tracing::error!(
                    event = "reload_failed",
                    generation = self.config_generation,
                    "reload ({}) failed, still running generation {}:\n{}",
                    trigger.label(),
                    self.config_generation,
                    failed.message
                );
            }
        }
        // failed or not, systemd must hear that the reload is over
        self.notify.ready(&self.status_line());
        result
    }

    async fn try_reload(
        &mut self,
        trigger: Trigger,
        source: &Source,
        inboxes: &mut Inboxes,
    ) -> Result<Reloaded, ReloadFailed> {
        let Loaded { mut config, warnings } =
            config::load(source, self.options).map_err(|findings| broken(findings, source))?;
        let warnings = match warnings.as_slice() {
            [] => String::new(),
            some => config::render(some, source, false).trim_end().to_owned(),
        };
        config.keep(self.state.config());
        let diff = config::diff(self.state.config(), &config);
        if diff.changes.is_empty() {
            self.packets.check_rules(&self.broker);
            if self.last_reload_error.take().is_some() {
                tracing::info!(
                    event = "reload",
                    "reload ({}): the configuration is valid again, and as it runs",
                    trigger.label()
                );
            }
            return Ok(self.reloaded(diff, warnings));
        }
        let prepared = self
            .listeners
            .prepare(
                &config,
                &self.broker,
                self.workers.count(),
                &mut Predecessors::default(),
            )
            .map_err(|e| failure(&e))?;
        let stats = self.prepare_stats(Some(&config)).map_err(|e| failure(&e))?;
        let mut pools = self.state.pools().clone();
        pools.apply(&config);
        let packets = self
            .packets
            .prepare(&config, &pools, &self.broker, self.state.published())
            .await
            .map_err(|e| ReloadFailed {
                message: e.to_string(),
                config_error: false,
            })?;

        // nothing below can fail
        self.log.set_level(config.global.log_level);
        self.log.set_format(config.global.log_format);
        self.state.apply(config);
        self.saved.follow(self.state.pools());
        self.config_generation += 1;
        self.last_reload_error = None;
        // the workers go on with the old snapshot until the new one has a server to use
        self.servers_to_use(&mut inboxes.health).await;
        self.publish();
        // first, for their places are needed
        self.notify
            .forget(prepared.removed.iter().copied().map(kept_as).collect());
        for endpoint in prepared.removed {
            self.listeners.remove(endpoint);
            tokio::spawn(self.workers.retire(endpoint));
        }
        self.keep(&prepared.added);
        self.listen(prepared.added);
        self.packets.commit(packets, self.state.config(), &self.broker);
        self.scripts.write(self.state.config(), self.state.pools());
        self.swap_stats(stats);
        self.watch_file(&inboxes.file_changes_tx);
        // against what the process was started with: a second reload does not make a restart unnecessary
        self.needs_restart = config::diff(&self.booted, self.state.config()).needs_restart;
        Ok(self.reloaded(diff, warnings))
    }

    fn reloaded(&self, diff: Diff, warnings: String) -> Reloaded {
        Reloaded {
            config_generation: self.config_generation,
            changes: diff.changes,
            needs_restart: self.needs_restart.clone(),
            warnings,
        }
    }

    fn log_success(&self, trigger: Trigger, reloaded: &Reloaded) {
        if !reloaded.warnings.is_empty() {
            tracing::warn!(event = "config_warning", "{}", reloaded.warnings);
        }
        if reloaded.changes.is_empty() {
            return;
        }
        tracing::info!(
            event = "reloaded",
            generation = reloaded.config_generation,
            "reload ({}): generation {}: {}",
            trigger.label(),
            reloaded.config_generation,
            reloaded.changes.join("; ")
        );
        if !reloaded.needs_restart.is_empty() {
            tracing::warn!(
                event = "needs_restart",
                "takes effect after a restart: {}",
                reloaded.needs_restart.join(", ")
            );
        }
    }

    /// Binds the `/stats` listener that a configuration (at the start: our own) asks for, if it is another one than
    /// we have.
    pub(super) fn prepare_stats(&self, config: Option<&Config>) -> Result<StatsChange, BrokerError> {
        let wanted = config
            .unwrap_or(self.state.config())
            .stats
            .as_ref()
            .map(|stats| Endpoint::tcp(stats.listen.0));
        if wanted == self.stats.as_ref().map(|(endpoint, _)| *endpoint) {
            return Ok(StatsChange::Keep);
        }
        let Some(endpoint) = wanted else {
            return Ok(StatsChange::To(None));
        };
        let socket = self.broker.bind(&ListenerRef::Stats)?;
        let listener = admin::serve_stats(TcpListener::from(socket), Arc::clone(self.state.published()))
            .map_err(|source| BrokerError::Failed {
                step: format!("serve /stats on {}", endpoint.addr),
                source,
            })?;
        Ok(StatsChange::To(Some((endpoint, listener))))
    }

    /// Puts a prepared `/stats` endpoint in force.
    pub(super) fn swap_stats(&mut self, change: StatsChange) {
        if let StatsChange::To(stats) = change {
            self.stats = stats;
        }
    }
}

/// The errors of a broken file; its warnings can wait until it works.
fn broken(mut findings: Vec<Diagnostic>, source: &Source) -> ReloadFailed {
    findings.retain(|finding| finding.severity == Severity::Error);
    ReloadFailed {
        message: config::render(&findings, source, false).trim_end().to_owned(),
        config_error: true,
    }
}

fn failure(error: &BrokerError) -> ReloadFailed {
    ReloadFailed {
        message: error.to_string(),
        config_error: matches!(error, BrokerError::Unreadable(_)),
    }
}
