//! Services that are asked over HTTP.

use std::{fmt, time::Duration};

use super::{
    secret::Secret,
    tls::{CertificateFiles, ServerTrust},
};
use crate::base::{Host, HostName, HttpUrl, SocketPath};

/// A web server that is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpService {
    /// `url`; of one at a unix socket what requests call it.
    pub url: HttpUrl,
    /// The unix socket that it is asked at, which the broker connects to.
    pub socket: Option<SocketPath>,
    /// `tls`, whose defaults an `https` URL has without the section.
    pub tls: SourceTls,
    /// `token`: sent as `Authorization: Bearer`.
    pub token: Option<Secret>,
    /// `timeout`: of the whole exchange. Default 5 s.
    pub timeout: Duration,
}

/// TLS to what is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceTls {
    /// Whom to believe.
    pub trust: ServerTrust,
    /// `server_name`: what its certificate is verified for; `None`: the host of the URL.
    pub server_name: Option<HostName>,
    /// `cert` and `key`: what it is shown if it asks who we are.
    pub identity: Option<CertificateFiles>,
}

impl Default for SourceTls {
    fn default() -> Self {
        Self {
            trust: ServerTrust::System,
            server_name: None,
            identity: None,
        }
    }
}

impl HttpService {
    /// Whether its host is a name that has to be asked for.
    #[must_use]
    pub const fn is_found_by_name(&self) -> bool {
        self.socket.is_none() && matches!(self.url.host, Host::Name(_))
    }
}

impl fmt::Display for HttpService {
    /// Where it is, without the values of a query, in which secrets may be.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.socket {
            Some(path) => path.fmt(f),
            None => f.write_str(&self.url.without_values()),
        }
    }
}
