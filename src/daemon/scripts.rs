//! The directory of ready-made scripts for the servers of DSR frontends.

use std::{
    env, fs,
    os::unix::fs::lchown,
    path::{Path, PathBuf},
};

use crate::{
    backend_setup,
    config::{Config, Mode},
    pools::Pools,
    privilege::Target,
};

/// Where the state is kept: what systemd says (StateDirectory=), else the package's directory.
const STATE: &str = "/var/lib/convey";

/// The directory, if there is one.
#[derive(Debug)]
pub struct Scripts(Option<PathBuf>);

impl Scripts {
    /// Makes the directory in the state directory, if that exists. Must run before the privileges are dropped: the
    /// daemon could neither make it nor own it afterwards.
    pub fn find(target: Option<&Target>) -> Self {
        let state = env::var_os("STATE_DIRECTORY")
            // systemd separates several with colons; ours is the first
            .and_then(|all| env::split_paths(&all).next())
            .unwrap_or_else(|| PathBuf::from(STATE));
        let directory = state.join("backend-setup");
        let made = state.is_dir() && (directory.is_dir() || fs::create_dir(&directory).is_ok());
        if made && let Some(target) = target {
            // writing says it if this has failed
            let _ = lchown(&directory, Some(target.uid), Some(target.gid));
        }
        Self(made.then_some(directory))
    }

    /// The directory.
    pub fn directory(&self) -> Option<&Path> {
        self.0.as_deref()
    }

    /// Writes the scripts of a configuration; what fails is a warning, for traffic does not depend on it.
    pub fn write(&self, config: &Config, pools: &Pools) {
        let Some(directory) = &self.0 else {
            if config.frontends.values().any(|f| f.mode == Mode::Dsr) {
                tracing::info!(
                    event = "no_scripts",
                    "there is no {STATE}: the scripts for DSR servers are not written, but `convey backend-script` prints them"
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
