//! The directory of ready-made scripts for the servers of DSR frontends.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::task::spawn_blocking;

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
    turn: Arc<Turn>,
}

impl Scripts {
    /// Makes the directory in the state directory, if there is one. Must run before the privileges are dropped.
    pub fn find(state: &StateDir, target: Option<&Target>) -> Self {
        Self {
            directory: state.subdirectory("backend-setup", target),
            state: state.place().to_owned(),
            turn: Arc::default(),
        }
    }

    /// Has the scripts of a configuration written, beside the control loop; what fails is a warning, for traffic does not
    /// depend on it. To be called within the runtime.
    pub fn write(&self, config: &Config, pools: &Pools) {
        let Some(directory) = self.directory.clone() else {
            if config.frontends.values().any(|f| f.mode == Mode::Dsr) {
                tracing::info!(
                    event = "no_scripts",
                    "{} does not exist: scripts for DSR servers are not written; `convey backend-script` prints them",
                    self.state.display()
                );
            }
            return;
        };
        let (config, pools, turn) = (config.clone(), pools.clone(), Arc::clone(&self.turn));
        let number = turn.announce();
        spawn_blocking(move || turn.take(number, || write(&config, &pools, &directory)));
    }
}

/// Has only the last of what is announced done, one at a time.
#[derive(Debug, Default)]
struct Turn {
    announced: AtomicU64,
    busy: Mutex<()>,
}

impl Turn {
    fn announce(&self) -> u64 {
        self.announced.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn take(&self, number: u64, work: impl FnOnce()) {
        let _one_at_a_time = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        if self.announced.load(Ordering::Relaxed) == number {
            work();
        }
    }
}

fn write(config: &Config, pools: &Pools, directory: &Path) {
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
                    "cannot write the scripts for DSR servers: {error}"
                );
            }
        }
    }
}
