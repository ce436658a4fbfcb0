//! What the broker has read for TLS.

use std::{
    collections::{BTreeSet, HashMap},
    path::{Path, PathBuf},
};

use crate::{
    config::{self, CertificateFiles},
    privilege::{What, read_archive},
    tls::has_private_key,
};

/// What was read.
#[derive(Debug, Default)]
pub struct Contents {
    /// Files by their paths; of those that could not be read, why.
    files: HashMap<PathBuf, Result<Vec<u8>, String>>,
    /// What each `certificate_dir` has; of those that could not be read, why.
    directories: HashMap<PathBuf, Result<Vec<CertificateFiles>, String>>,
}

impl Contents {
    /// Takes what was read.
    pub fn add(&mut self, what: What, read: Result<Vec<u8>, String>) {
        match what {
            What::TlsFile(path) | What::TokensFile(path) => {
                self.files.insert(path, read);
            }
            What::CertificateDir(path) => {
                let found = read.and_then(|bytes| self.add_directory(&path, &bytes));
                self.directories.insert(path, found);
            }
            What::Config
            | What::NetworkList(_)
            | What::DiscoveryFile(_)
            | What::AcmeFile(_)
            | What::TelemetryFile(_) => {}
        }
    }

    fn add_directory(&mut self, dir: &Path, archive: &[u8]) -> Result<Vec<CertificateFiles>, String> {
        let files = read_archive(archive).map_err(|why| format!("{}: {why}", dir.display()))?;
        let names: BTreeSet<&str> = files.iter().map(|(name, _)| *name).collect();
        for (name, content) in files {
            let content = content.map(<[u8]>::to_vec).map_err(str::to_owned);
            self.files.entry(dir.join(name)).or_insert(content);
        }
        let has_key = |name: &str| self.bytes(&dir.join(name)).is_ok_and(has_private_key);
        Ok(config::certificates_of(dir, &names, has_key).0)
    }

    /// The bytes of a file.
    ///
    /// # Errors
    /// Why there are none.
    pub fn bytes(&self, path: &Path) -> Result<&[u8], String> {
        match self.files.get(path) {
            Some(Ok(bytes)) => Ok(bytes),
            Some(Err(why)) => Err(why.clone()),
            None => Err(format!("{} was not read", path.display())),
        }
    }

    /// The certificates of a directory.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub fn directory(&self, path: &Path) -> Result<&[CertificateFiles], String> {
        match self.directories.get(path) {
            Some(Ok(found)) => Ok(found),
            Some(Err(why)) => Err(why.clone()),
            None => Err(format!("{} was not read", path.display())),
        }
    }
}
