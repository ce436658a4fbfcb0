//! The directory of ready-made scripts for the servers of DSR frontends.

use std::path::PathBuf;

use super::state_dir::StateDir;
use crate::{
    backend_setup,
    config::{Config, Mode},
    pools::Pools,
    privilege::Target,
};

/// The directory.
#[derive(Debug)]
pub struct Scripts {
    /// Where it is, if there is a state directory.
    directory: Option<PathBuf>,
    /// Where the state directory is or would be.
    state: PathBuf,
}

impl Scripts {
    /// Makes the directory in the state directory, if there is one. Must run before the privileges are dropped.
    pub fn find(state: &StateDir, target: Option<&Target>) -> Self {
        Self {
            directory: state.subdirectory("backend-setup", target),
            state: state.place().to_owned(),
        }
    }

    /// Writes the scripts of a configuration; what fails is a warning, for traffic does not depend on it.
    pub fn write(&self, config: &Config, pools: &Pools) {
        let Some(directory) = &self.directory else {
            if config.frontends.values().any(|f| f.mode == Mode::Dsr) {
                tracing::info!(
                    event = "no_scripts",
                    "there is no {}: the scripts for DSR servers are not written, but `convey backend-script` prints them",
                    self.state.display()
                );
            }
            return;
        };
        match backend_setup::write_all(config, pools, directory) {
            Ok(0) => {}
            Ok(count) => tracing::info!(
                event = "scripts_written",
                "{count} script(s) for DSR servers are in {}",
                directory.display()
            ),
            Err(errors) => {
                for error in errors {
                    tracing::warn!(
                        event = "scripts_failed",
                        "write the scripts for DSR servers: {error}"
                    );
                }
            }
        }
    }
}
