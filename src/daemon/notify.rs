//! Telling systemd how it goes. Without NOTIFY_SOCKET nothing is sent.

use std::{cell::RefCell, time::Duration};

use sd_notify::NotifyState;

/// The service manager's ear.
#[derive(Debug)]
pub struct Notifier {
    watchdog: Option<Duration>,
    /// The status line as last sent, so that it is sent only when it changes.
    status: RefCell<String>,
}

impl Notifier {
    /// Reads what systemd asked for in the environment.
    #[must_use]
    pub fn from_environment() -> Self {
        Self {
            watchdog: sd_notify::watchdog_enabled(),
            status: RefCell::default(),
        }
    }

    /// How often the watchdog wants to hear of us: half its time-out.
    #[must_use]
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog.map(|timeout| timeout / 2)
    }

    /// Start or reload is finished.
    pub fn ready(&self, status: &str) {
        status.clone_into(&mut self.status.borrow_mut());
        send(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// A reload begins; must be followed by [`ready`](Self::ready), successful or not.
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => send(&[
                NotifyState::Reloading,
                now,
                NotifyState::Status("reloading the configuration"),
            ]),
            Err(error) => tracing::debug!(event = "notify_failed", "read the monotonic clock: {error}"),
        }
        self.status.borrow_mut().clear();
    }

    /// The status line of `systemctl status`.
    pub fn status(&self, status: &str) {
        if *self.status.borrow() != status {
            status.clone_into(&mut self.status.borrow_mut());
            send(&[NotifyState::Status(status)]);
        }
    }

    /// The end has begun.
    pub fn stopping(&self, status: &str) {
        status.clone_into(&mut self.status.borrow_mut());
        send(&[NotifyState::Stopping, NotifyState::Status(status)]);
    }

    /// The loops that must be alive are.
    pub fn watchdog(&self) {
        send(&[NotifyState::Watchdog]);
    }
}

fn send(state: &[NotifyState<'_>]) {
    // the manager may be gone; we work without it
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(event = "notify_failed", "notify the service manager: {error}");
    }
}
