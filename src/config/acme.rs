//! `[acme]` and the certificates that frontends order by it.

use std::{path::PathBuf, sync::Arc, time::Duration};

use super::{commands::Command, secret::Secret};
use crate::base::{CertificateName, HostPattern, HttpUrl, ListenAddr};

/// The directories of Let's Encrypt, by one word each.
pub const DIRECTORIES: [(&str, &str); 2] = [
    ("letsencrypt", "https://acme-v02.api.letsencrypt.org/directory"),
    (
        "letsencrypt-staging",
        "https://acme-staging-v02.api.letsencrypt.org/directory",
    ),
];

/// `[acme]`: who issues certificates, and how it is shown that names are ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acme {
    /// `directory`: where the CA is asked.
    pub directory: HttpUrl,
    /// `contact`: mail addresses that the CA is told.
    pub contact: Vec<Box<str>>,
    /// `ca`: who vouches for the directory's server; `None`: the CAs of the host.
    pub ca: Option<PathBuf>,
    /// `challenge` of certificates that name none. Default TLS-ALPN-01.
    pub challenge: Challenge,
    /// `http_listen_addr`: where HTTP-01 is answered; `None` nowhere.
    pub http_listen_addr: Option<ListenAddr>,
    /// `eab`: the account at the CA that ours belongs to.
    pub external_account: Option<ExternalAccount>,
    /// `profile` of certificates that name none; `None`: the CA's default.
    pub profile: Option<Box<str>>,
    /// `dns_hook`, with `dns_hook_timeout`: puts records for DNS-01 into the DNS, and removes them.
    pub dns_hook: Option<Command>,
    /// `dns_wait`: how long records need to be seen everywhere. Default 0.
    pub dns_wait: Duration,
    /// `renew_before`: how long before its end a certificate is renewed; `None`: as the CA advises, else a third of its
    /// lifetime.
    pub renew_before: Option<Duration>,
    /// `lead`: whether this one orders. Default true; else it takes what another has put into the state directory.
    pub lead: bool,
}

/// `eab`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalAccount {
    /// `kid`: what the CA calls it.
    pub kid: Box<str>,
    /// `hmac_key`: in base64url, as CAs give it.
    pub hmac_key: Secret,
}

/// How it is shown that a name is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Challenge {
    /// The CA opens TLS to port 443 of the name (RFC 8737).
    TlsAlpn01,
    /// The CA asks port 80 of the name (RFC 8555, section 8.3).
    Http01,
    /// The CA asks for a TXT record below the name (RFC 8555, section 8.4).
    Dns01,
}

/// `acme` of a frontend: the certificate that is ordered for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateOrder {
    /// `names`, each once; the first is what the certificate is called.
    pub names: Vec<CertificateName>,
    /// `challenge`; `None`: that of `[acme]`.
    pub challenge: Option<Challenge>,
    /// `profile`; `None`: that of `[acme]`.
    pub profile: Option<Box<str>>,
}

impl CertificateOrder {
    /// What the certificate is called: its first name.
    #[must_use]
    pub fn name(&self) -> Arc<str> {
        self.names
            .first()
            .map(ToString::to_string)
            .unwrap_or_default()
            .into()
    }

    /// Whether it is for a name of a route, or for one of several that a pattern stands for.
    #[must_use]
    pub fn covers(&self, pattern: &HostPattern) -> bool {
        self.names.iter().any(|name| {
            let host = name.host().as_str();
            match pattern.exact() {
                Some(exact) if name.is_wildcard() => {
                    exact.split_once('.').is_some_and(|(_, suffix)| suffix == host)
                }
                Some(exact) => exact == host,
                None if name.is_wildcard() => pattern.matches(&format!("any.{host}")),
                None => pattern.matches(host),
            }
        })
    }

    /// How it is shown that its names are ours.
    #[must_use]
    pub fn challenge(&self, acme: &Acme) -> Challenge {
        self.challenge.unwrap_or(acme.challenge)
    }

    /// What kind of certificate the CA is asked for.
    #[must_use]
    pub fn profile<'a>(&'a self, acme: &'a Acme) -> Option<&'a str> {
        self.profile.as_deref().or(acme.profile.as_deref())
    }
}

impl Acme {
    /// The directory as the file has it.
    #[must_use]
    pub fn directory_text(&self) -> String {
        let url = self.directory.to_string();
        let word = DIRECTORIES.iter().find(|(_, known)| *known == url);
        word.map_or(url, |(word, _)| (*word).to_owned())
    }
}
