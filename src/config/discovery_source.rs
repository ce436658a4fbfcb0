//! Where discovered servers come from: what each kind of source is asked, and how.

use std::{
    fmt,
    net::SocketAddr,
    num::NonZeroU16,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    answer_format::AnswerFormat,
    commands::Command,
    secret::Secret,
    tls::{CertificateFiles, SYSTEM_CAS, ServerTrust},
};
use crate::base::{HostName, HttpUrl, IpFamily};

/// What names the servers: two backends with equal ones get the same answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiscoverySource {
    /// A file, which the broker reads.
    File {
        /// Its path, absolute.
        path: PathBuf,
        /// How it is written.
        format: AnswerFormat,
    },
    /// What a command prints.
    Exec {
        /// The command, with the source's time-out.
        command: Command,
        /// How it is written.
        format: AnswerFormat,
    },
    /// What a web server answers.
    Http {
        /// What is asked for.
        service: HttpService,
        /// How the answer is written.
        format: AnswerFormat,
    },
    /// The addresses of a host's name.
    Dns {
        /// The name, and who is asked.
        query: NameQuery,
        /// The port of each server.
        port: NonZeroU16,
    },
    /// The SRV records of a service's name (RFC 2782).
    Srv {
        /// The name, and who is asked.
        query: NameQuery,
    },
}

/// `kind` of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DiscoveryKind {
    /// [`DiscoverySource::File`].
    File,
    /// [`DiscoverySource::Exec`].
    Exec,
    /// [`DiscoverySource::Http`].
    Http,
    /// [`DiscoverySource::Dns`].
    Dns,
    /// [`DiscoverySource::Srv`].
    Srv,
}

/// A name that name servers are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameQuery {
    /// `name`.
    pub name: HostName,
    /// `resolvers`: who is asked, in this order; empty: those of the host, after its hosts file.
    pub resolvers: Vec<SocketAddr>,
    /// `family`.
    pub family: Families,
    /// `min_ttl`: records are believed no shorter than this. Default 5 s.
    pub min_ttl: Duration,
    /// `max_ttl`: and no longer than this. Default 5 min.
    pub max_ttl: Duration,
    /// `timeout`: of asking, all tries included. Default 5 s.
    pub timeout: Duration,
}

/// `family`: which addresses of a name are servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Families {
    /// IPv4 and IPv6.
    Any,
    /// IPv4 alone.
    Ipv4,
    /// IPv6 alone.
    Ipv6,
}

/// A web server that is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpService {
    /// `url`.
    pub url: HttpUrl,
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

impl Families {
    /// The families.
    #[must_use]
    pub const fn all(self) -> &'static [IpFamily] {
        match self {
            Self::Any => &[IpFamily::V4, IpFamily::V6],
            Self::Ipv4 => &[IpFamily::V4],
            Self::Ipv6 => &[IpFamily::V6],
        }
    }
}

impl DiscoverySource {
    /// The `kind`.
    #[must_use]
    pub const fn kind(&self) -> DiscoveryKind {
        match self {
            Self::File { .. } => DiscoveryKind::File,
            Self::Exec { .. } => DiscoveryKind::Exec,
            Self::Http { .. } => DiscoveryKind::Http,
            Self::Dns { .. } => DiscoveryKind::Dns,
            Self::Srv { .. } => DiscoveryKind::Srv,
        }
    }

    /// The file that is the source.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File { path, .. } => Some(path),
            _ => None,
        }
    }

    /// Every file that the broker reads for it.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let tls = self.service().filter(|service| service.url.is_tls);
        let ca = tls.and_then(|service| match &service.tls.trust {
            ServerTrust::System => Some(Path::new(SYSTEM_CAS)),
            ServerTrust::Ca(path) => Some(path),
            ServerTrust::Anybody => None,
        });
        let identity = tls.and_then(|service| service.tls.identity.as_ref());
        let identity = identity.map(|files| [Some(files.cert.as_path()), files.key.as_deref()]);
        (self.file().into_iter())
            .chain(ca)
            .chain(identity.into_iter().flatten().flatten())
            .chain(self.token_file())
    }

    /// The files that no command may open: keys and tokens.
    pub fn secret_files(&self) -> impl Iterator<Item = &Path> {
        let identity = (self.service()).and_then(|service| service.tls.identity.as_ref());
        let key = identity.map(|files| files.key.as_ref().unwrap_or(&files.cert).as_path());
        key.into_iter().chain(self.token_file())
    }

    /// The command that the runner starts for it.
    #[must_use]
    pub const fn command(&self) -> Option<&Command> {
        match self {
            Self::Exec { command, .. } => Some(command),
            _ => None,
        }
    }

    const fn service(&self) -> Option<&HttpService> {
        match self {
            Self::Http { service, .. } => Some(service),
            _ => None,
        }
    }

    fn token_file(&self) -> Option<&Path> {
        self.service()?.token.as_ref()?.file()
    }
}

impl fmt::Display for DiscoverySource {
    /// As an operator knows it: `file /etc/convey/web.servers`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, .. } => write!(f, "file {}", path.display()),
            Self::Exec { command, .. } => write!(f, "command {}", command.program()),
            Self::Http { service, .. } => write!(f, "{}", service.url),
            Self::Dns { query, .. } => write!(f, "name {}", query.name),
            Self::Srv { query } => write!(f, "SRV records of {}", query.name),
        }
    }
}
