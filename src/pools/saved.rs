//! Overrides as they are kept over a restart: a small JSON document.
//!
//! ```text
//! file ─ decode ─► Saved ─ restore ─► Pools ─ follow ─► Saved ─ encode ─► file
//! ```
//! They go by the names of backend and server, as within one run: a server that has moved keeps its override, and one that
//! the configuration does not have any more has none. What a file says of such servers is ignored, and left out of the file
//! when it is written next.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::{AdminState, Override, Pools};
use crate::base::{BackendName, ServerKey, ServerName};

/// Largest file that is read, in bytes: more than [`MAX_OVERRIDES`] with the longest names need.
pub const MAX_FILE_BYTES: usize = 16 << 20;

/// Most overrides that a file keeps; of more the first by name.
pub const MAX_OVERRIDES: usize = 10_000;

/// The version of the document that is written, and the only one that is read.
const VERSION: u64 = 1;

/// Overrides that outlive the process, by the servers' names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Saved {
    overrides: BTreeMap<ServerKey, SavedOverride>,
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SavedOverride {
    /// What an operator has set.
    pub overridden: Override,
    /// When it became what it is, in seconds since 1970.
    pub since: u64,
}

/// Why a file is none of ours.
#[derive(Debug, thiserror::Error)]
pub enum ForeignFile {
    /// It is not the document that is written here.
    #[error("it is not what Convey writes: {0}")]
    Syntax(#[from] serde_json::Error),
    /// It is another version's.
    #[error("it has version {0}, and this Convey reads version {VERSION}")]
    Version(u64),
    /// Too many overrides, or one that cannot be.
    #[error("it is not what Convey writes: {0}")]
    Content(String),
}

#[derive(Deserialize)]
struct AnyVersion {
    version: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u64,
    overrides: Vec<Line>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    backend: String,
    server: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    admin: Option<AdminState>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    weight: Option<u16>,
    since: u64,
}

impl Saved {
    /// The overrides in effect; those that are as before keep their time, others are of now (seconds since 1970).
    #[must_use]
    pub fn follow(&self, pools: &Pools, now: u64) -> Self {
        let servers = pools.iter().flat_map(|pool| {
            let set = pool
                .servers()
                .iter()
                .filter(|server| !server.overridden.is_none());
            set.map(|server| (pool.key(server), server.overridden))
        });
        let overrides = (servers.chain(pools.absent()))
            .map(|(key, overridden)| {
                let before = self.overrides.get(&key).copied();
                let same = before.filter(|before| before.overridden == overridden);
                let since = same.map_or(now, |same| same.since);
                (key, SavedOverride { overridden, since })
            })
            .collect();
        Self { overrides }
    }

    /// Sets the overrides of the servers that there are, or that may still be discovered.
    pub fn restore(&self, pools: &mut Pools) {
        for (key, saved) in &self.overrides {
            pools.restore_override(key, saved.overridden);
        }
    }

    /// Whether there is one of a server.
    #[must_use]
    pub fn has(&self, key: &ServerKey) -> bool {
        self.overrides.contains_key(key)
    }

    /// Every override, by the names of backend and server.
    pub fn iter(&self) -> impl Iterator<Item = (&ServerKey, &SavedOverride)> {
        self.overrides.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.overrides.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.overrides.is_empty()
    }

    /// The document: of more than [`MAX_OVERRIDES`] the first.
    ///
    /// # Errors
    /// None is known: all of it can be JSON.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        let line = |(key, saved): (&ServerKey, &SavedOverride)| Line {
            backend: key.backend.to_string(),
            server: key.server.to_string(),
            admin: saved.overridden.admin,
            weight: saved.overridden.weight,
            since: saved.since,
        };
        let mut bytes = serde_json::to_vec_pretty(&Document {
            version: VERSION,
            overrides: self.iter().take(MAX_OVERRIDES).map(line).collect(),
        })?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Reads a document.
    ///
    /// # Errors
    /// It is not one that [`Self::encode`] makes.
    pub fn decode(bytes: &[u8]) -> Result<Self, ForeignFile> {
        let AnyVersion { version } = serde_json::from_slice(bytes)?;
        if version != VERSION {
            return Err(ForeignFile::Version(version));
        }
        let Document { overrides: lines, .. } = serde_json::from_slice(bytes)?;
        if lines.len() > MAX_OVERRIDES {
            let why = format!("{} overrides, and {MAX_OVERRIDES} are the most", lines.len());
            return Err(ForeignFile::Content(why));
        }
        let mut overrides = BTreeMap::new();
        for line in lines {
            let (key, saved) = line.read()?;
            if overrides.insert(key.clone(), saved).is_some() {
                return Err(ForeignFile::Content(format!("server {key} is there twice")));
            }
        }
        Ok(Self { overrides })
    }
}

impl Line {
    fn read(self) -> Result<(ServerKey, SavedOverride), ForeignFile> {
        let wrong = |why: &dyn fmt::Display| ForeignFile::Content(why.to_string());
        let key = ServerKey {
            backend: BackendName::new(&self.backend).map_err(|e| wrong(&e))?,
            server: ServerName::new(&self.server).map_err(|e| wrong(&e))?,
        };
        let overridden = Override {
            admin: self.admin,
            weight: self.weight,
        };
        if overridden.is_none() {
            return Err(wrong(&format_args!("the override of {key} sets nothing")));
        }
        let since = self.since;
        Ok((key, SavedOverride { overridden, since }))
    }
}

impl fmt::Display for Override {
    /// What is set: `draining, weight 5`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.admin, self.weight) {
            (None, None) => f.write_str("ready"),
            (Some(admin), None) => f.write_str(admin.label()),
            (None, Some(weight)) => write!(f, "weight {weight}"),
            (Some(admin), Some(weight)) => write!(f, "{}, weight {weight}", admin.label()),
        }
    }
}

impl AdminState {
    /// Its name.
    const fn label(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::Maintenance => "maintenance",
        }
    }
}
