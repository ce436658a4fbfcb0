//! Wiring: start order, reload, signals, shutdown, readiness. The only place where the I/O modules meet.
//!
//! ```text
//! start:  what systemd kept ─ read, parse ─ control socket ─ fork broker ─ drop and prove ─ logging ─ workers, checks ─ bind ─ READY
//! loop:   signals · file changes · commands · health · passive failures · slow start · watchdog · broker's death
//! end:    listeners retired, or left to systemd ─ connections drained (shutdown_timeout) ─ threads joined
//! ```
//! Until privileges are dropped there is one thread. Afterwards: this control thread (reload, checks), the admin thread
//! (control socket, `/stats`), the workers, the broker's client, the logging thread, the file watcher's, and the one that saves overrides.

mod coalesce;
mod control;
mod health;
mod live;
pub mod logging;
mod notify;
mod overrides;
mod plane;
mod reload;
mod run;
mod saved;
mod scripts;
mod start;
mod state;
mod state_dir;
mod status;
mod stop;
mod watch;

use std::{path::PathBuf, process::ExitCode};

use crate::{base::exit::Exit, config};

/// What the command line says about the daemon.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// The configuration file.
    pub config_path: PathBuf,
    /// What `-p` and `-d` say.
    pub options: config::Options,
}

/// Why the daemon ends. What is said has been said where the operator looks: on stderr before logging runs, in the
/// log afterwards.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
struct Fatal {
    exit: Exit,
    message: String,
}

impl Fatal {
    fn new(exit: Exit, message: impl std::fmt::Display) -> Self {
        Self {
            exit,
            message: message.to_string(),
        }
    }
}

/// Runs the daemon to its end.
#[must_use]
pub fn run(options: RunOptions) -> ExitCode {
    match start::start(options) {
        Ok(exit) => exit.into(),
        Err(fatal) => {
            eprintln!("{}", fatal.message);
            fatal.exit.into()
        }
    }
}
