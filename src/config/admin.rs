//! The control socket and the admin API (`[admin]`), resolved.

use std::path::{Path, PathBuf};

use super::tls::CertificateFiles;
use crate::base::{HostName, ListenAddr, Origin, Role};

/// `[admin]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// `socket`: path of the control socket; `None` (`socket = ""`) turns it off. Default `/run/convey/admin.sock`, or
    /// [`Options::default_socket`](super::Options).
    pub socket: Option<PathBuf>,
    /// `listen_addr` and what belongs to it: the API on TCP; `None`: it is on the socket alone.
    pub api: Option<AdminApi>,
    /// `allow_config_writes`: the API may replace the configuration file. Default false.
    pub allow_config_writes: bool,
}

/// The admin API on TCP. Off loopback it has `tls` and tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminApi {
    /// `listen_addr`.
    pub listen: ListenAddr,
    /// `tls`; without `ocsp`.
    pub tls: Option<CertificateFiles>,
    /// Who may ask.
    pub entry: AdminEntry,
    /// `allowed_hosts`: names that it answers to besides addresses, localhost, names without a dot, and those of its
    /// certificate.
    pub allowed_hosts: Vec<HostName>,
    /// `allowed_origins`: web pages of other hosts that may ask.
    pub allowed_origins: Vec<Origin>,
}

/// Who may ask the API on TCP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminEntry {
    /// `tokens_file`: who has one of its tokens, on loopback too.
    Tokens(PathBuf),
    /// `loopback_role`, default read: whoever is on this host.
    Loopback(Role),
}

impl Admin {
    /// The files of the certificate of the API on TCP.
    pub(crate) fn tls_files(&self) -> impl Iterator<Item = &Path> {
        let tls = self.api.iter().filter_map(|api| api.tls.as_ref());
        tls.flat_map(|files| std::iter::once(&files.cert).chain(&files.key))
            .map(PathBuf::as_path)
    }

    /// The file of the tokens for the API on TCP.
    #[must_use]
    pub fn tokens_file(&self) -> Option<&Path> {
        match &self.api.as_ref()?.entry {
            AdminEntry::Tokens(path) => Some(path),
            AdminEntry::Loopback(_) => None,
        }
    }
}
