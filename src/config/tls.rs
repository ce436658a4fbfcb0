//! TLS that ends at a frontend (`[frontends.NAME.tls]`), resolved.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::tls_names::{CipherSuite, ClientAuth, CrlPolicy, Group, TlsVersion};

/// `[frontends.NAME.tls]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrontendTls {
    /// `certificates`, the default one first. Empty only if there is a `certificate_dir`.
    pub certificates: Vec<CertificateFiles>,
    /// `certificate_dir`: more certificates, after those, in the order of their names.
    pub certificate_dir: Option<PathBuf>,
    /// `min_version`, default 1.2.
    pub min_version: TlsVersion,
    /// `max_version`, default 1.3.
    pub max_version: TlsVersion,
    /// `ciphers`; a version of which it names none keeps all of its suites.
    pub ciphers: Vec<CipherSuite>,
    /// `groups`, the preferred one first; empty: [`Group::DEFAULT`].
    pub groups: Vec<Group>,
    /// `alpn`, the preferred protocol first; empty: the client's list is ignored.
    pub alpn: Vec<Box<str>>,
    /// `strict_sni`: a name that no certificate covers, and none, are refused. Default false: they get the first certificate.
    pub strict_sni: bool,
    /// `client_auth`, default none.
    pub client_auth: ClientAuth,
    /// `client_ca`; there unless `client_auth` is none.
    pub client_ca: Option<PathBuf>,
    /// `client_crl`.
    pub client_crl: Vec<PathBuf>,
    /// `client_crl_policy`, default complete.
    pub client_crl_policy: CrlPolicy,
    /// `tickets`. Default true.
    pub tickets: bool,
    /// `key_log`: the secrets of connections are written to a file in the state directory. Default false.
    pub key_log: bool,
    /// `handshake_timeout`. Default 10 s.
    pub handshake_timeout: Duration,
    /// `max_handshakes` under way. Default 1,000.
    pub max_handshakes: u32,
}

/// The files of a certificate, all absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// `cert`: it and its chain, and the key unless `key` is there.
    pub cert: PathBuf,
    /// `key`.
    pub key: Option<PathBuf>,
    /// `ocsp`: a response for it.
    pub ocsp: Option<PathBuf>,
}

impl FrontendTls {
    /// Every file that it names, without those of `certificate_dir`.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let pairs = self.certificates.iter().flat_map(|files| {
            let others = [&files.key, &files.ocsp];
            std::iter::once(&files.cert).chain(others.into_iter().flatten())
        });
        (pairs.chain(&self.client_ca).chain(&self.client_crl)).map(PathBuf::as_path)
    }
}
