//! What a frontend says about TLS, with the bytes of the files that it names.

use crate::config::{CipherSuite, CrlPolicy, Group, TlsVersion};

/// `[frontends.NAME.tls]`, without its certificates, which live in a [`CertificateStore`](super::CertificateStore).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSettings {
    /// The frontend's name: a session can be resumed at the frontend that it began at, and nowhere else. Two load balancers
    /// that share ticket keys share the sessions of frontends of one name.
    pub frontend: Box<str>,
    /// `min_version`.
    pub min_version: TlsVersion,
    /// `max_version`.
    pub max_version: TlsVersion,
    /// `ciphers`: the suites that may be used; of those, the client chooses. A version of which it names none keeps all of
    /// its suites, as with other programs, whose cipher lists are for TLS 1.2 only.
    pub ciphers: Vec<CipherSuite>,
    /// `groups`, the preferred one first; empty: [`Group::DEFAULT`].
    pub groups: Vec<Group>,
    /// `alpn`, the preferred protocol first; empty: the client's list is ignored. A client that offers only others is
    /// refused (RFC 7301, section 3.2), one that offers none is served.
    pub alpn: Vec<Box<str>>,
    /// `strict_sni`: a client that asks for no name, or for one that no certificate covers, is refused; else it gets the
    /// default certificate.
    pub strict_sni: bool,
    /// `client_auth` other than `none`.
    pub client_auth: Option<ClientAuthSettings>,
    /// `tickets`: whether clients keep their sessions themselves, encrypted. Without, sessions are kept here, in a bounded
    /// cache that a restart empties.
    pub tickets: bool,
    /// `key_log`: whether the secrets of connections are written where an operator can read them.
    pub key_log: bool,
}

/// How clients show who they are. A changed file means a new [`server_config`](super::server_config), which ends the sessions
/// of the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientAuthSettings {
    /// Whether a client without a certificate is refused.
    pub required: bool,
    /// The PEM file `client_ca`: who may sign clients' certificates.
    pub ca: Vec<u8>,
    /// The PEM files `client_crl`.
    pub crls: Vec<Vec<u8>>,
    /// `client_crl_policy`; of no meaning without lists.
    pub crl_policy: CrlPolicy,
}

impl ServerSettings {
    /// What a frontend that says nothing about TLS but its certificates gets.
    #[must_use]
    pub fn new(frontend: &str) -> Self {
        Self {
            frontend: frontend.into(),
            min_version: TlsVersion::Tls12,
            max_version: TlsVersion::Tls13,
            ciphers: Vec::new(),
            groups: Vec::new(),
            alpn: Vec::new(),
            strict_sni: false,
            client_auth: None,
            tickets: true,
            key_log: false,
        }
    }
}
