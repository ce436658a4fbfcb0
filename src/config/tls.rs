//! TLS that ends at a frontend (`[frontends.NAME.tls]`) and TLS to servers (`[backends.NAME.tls]`), resolved.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    time::Duration,
};

use rustls::pki_types::ServerName as TlsName;

use super::{
    acme::CertificateOrder,
    tls_names::{CipherSuite, ClientAuth, CrlPolicy, Group, TlsVersion},
};
use crate::base::{ServerAddr, ServerName};

/// `[frontends.NAME.tls]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrontendTls {
    /// `certificates`, the default one first. Empty only if there is a `certificate_dir`, or an `acme`.
    pub certificates: Vec<CertificateFiles>,
    /// `certificate_dir`: more certificates, after those, in the order of their names.
    pub certificate_dir: Option<PathBuf>,
    /// `acme`: another, which is ordered, after those.
    pub acme: Option<CertificateOrder>,
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

/// The CAs of the host, as Debian's package ca-certificates keeps them.
pub const SYSTEM_CAS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// `[backends.NAME.tls]`: connections to the servers go through TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendTls {
    /// `verify` and `ca`.
    pub trust: ServerTrust,
    /// `server_name`, default the address.
    pub server_name: ServerNameFrom,
    /// `cert` and `key`: what a server is shown that asks for a certificate.
    pub identity: Option<CertificateFiles>,
    /// `alpn`, default the client's.
    pub alpn: ServerAlpn,
}

/// `verify` and `ca`: whom to believe that it is the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerTrust {
    /// Whom the CAs of the host vouch for.
    System,
    /// `ca`: whom those of this file vouch for, or who has the very certificate that is in it.
    Ca(PathBuf),
    /// `verify = false`: anybody.
    Anybody,
}

/// What a server's certificate must have if that has neither a name nor an address: one of a unix socket, which is on this
/// host.
pub const LOCAL_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// `server_name`: the name that a server is asked for and that its certificate must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerNameFrom {
    /// `"address"`: none is asked for, and the certificate must have the server's IP address.
    Address,
    /// `"server"`: what the server is called in the configuration.
    Server,
    /// `"client"`: the one that the client has asked for; of one that has not, as `Address`.
    Client,
    /// This one.
    Fixed(Box<str>),
}

/// `alpn`: the protocols that a server is offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerAlpn {
    /// `"client"`: the one that was agreed on with the client, if its TLS ends here and there is one.
    Client,
    /// `"off"`: none.
    Off,
    /// These, the preferred one first.
    Offered(Vec<Box<str>>),
}

impl ServerNameFrom {
    /// The words for what is no name.
    pub const WORDS: [(Self, &'static str); 3] = [
        (Self::Address, "address"),
        (Self::Server, "server"),
        (Self::Client, "client"),
    ];

    /// As it is written in the configuration; of a host that is called as one of the words, with a dot at the end.
    #[must_use]
    pub fn label(&self) -> String {
        match self {
            Self::Address => "address".to_owned(),
            Self::Server => "server".to_owned(),
            Self::Client => "client".to_owned(),
            Self::Fixed(name) if Self::WORDS.iter().any(|(_, word)| **name == **word) => format!("{name}."),
            Self::Fixed(name) => name.to_string(),
        }
    }
}

impl ServerNameFrom {
    /// The name that a server of this name and address is asked for, and that its certificate must have, where a client has
    /// asked for this one. An address is verified, but not asked for; that of a unix socket is [`LOCAL_ADDRESS`].
    #[must_use]
    pub fn of_server(&self, server: &ServerName, addr: ServerAddr, asked: Option<&str>) -> TlsName<'static> {
        let name = match self {
            Self::Address => None,
            Self::Server => Some(server.as_str()),
            Self::Client => asked,
            Self::Fixed(name) => Some(&**name),
        };
        let name = name.and_then(|name| TlsName::try_from(name).ok());
        name.map_or_else(
            || TlsName::from(addr.ip().unwrap_or(LOCAL_ADDRESS)),
            |name| name.to_owned(),
        )
    }
}

impl BackendTls {
    /// Every file that it names or needs.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let ca = match &self.trust {
            ServerTrust::System => Some(Path::new(SYSTEM_CAS)),
            ServerTrust::Ca(path) => Some(path.as_path()),
            ServerTrust::Anybody => None,
        };
        let identity = (self.identity.iter())
            .flat_map(|files| std::iter::once(&files.cert).chain(&files.key))
            .map(PathBuf::as_path);
        ca.into_iter().chain(identity)
    }
}
