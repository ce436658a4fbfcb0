//! Where lines about connections go that only the broker may open.

use std::{collections::BTreeSet, path::PathBuf};

use crate::{base::SocketPath, config::Config};

/// Where logs go by a configuration.
#[derive(Debug, Clone)]
pub struct LogPlaces {
    /// Files that are appended to.
    pub files: BTreeSet<PathBuf>,
    /// Unix sockets that are sent to.
    pub sockets: BTreeSet<SocketPath>,
}

impl LogPlaces {
    /// Those of a configuration.
    pub fn of(config: &Config) -> Self {
        Self {
            files: config.log_files(),
            sockets: config.log_sockets(),
        }
    }
}
