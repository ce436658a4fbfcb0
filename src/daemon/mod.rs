//! Wiring: start order, reload, signals, shutdown, readiness.

use std::{path::PathBuf, process::ExitCode};

use crate::config;

/// What the command line says about a run.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// The configuration file.
    pub config_path: PathBuf,
    /// What the command line adds to it.
    pub options: config::Options,
}

/// Runs the daemon until it is told to end.
#[must_use]
pub fn run(options: RunOptions) -> ExitCode {
    let _ = options;
    todo!()
}
