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
    named_server::NamedServer,
    secret::Secret,
    tls::{CertificateFiles, SYSTEM_CAS, ServerTrust},
};
use crate::base::{Host, HostName, HttpUrl, IpFamily};

/// Where the host says which name servers it asks (resolv.conf(5)), and which names it knows itself (hosts(5)).
pub const RESOLV_CONF: &str = "/etc/resolv.conf";
/// See [`RESOLV_CONF`].
pub const HOSTS: &str = "/etc/hosts";

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
    /// The instances of a service that Consul knows, as long as their checks pass.
    Consul {
        /// Which, and whom to ask.
        query: ConsulQuery,
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
    /// The names of the backend's own servers: no section of the file, but their `addr`.
    Names {
        /// The servers, in the order of their names.
        servers: Vec<NamedServer>,
        /// How long the answers are waited for.
        timeout: Duration,
        /// How long they are believed at least.
        min_ttl: Duration,
        /// And at most.
        max_ttl: Duration,
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
    /// [`DiscoverySource::Consul`].
    Consul,
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

/// A service that Consul is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsulQuery {
    /// `url`, `tls`, `token` and `timeout`: of the agent. The target of its URL stands before the API's paths.
    pub agent: HttpService,
    /// `service`.
    pub service: String,
    /// `tags`: an instance has all of them.
    pub tags: Vec<String>,
    /// `datacenter`; `None`: the agent's own.
    pub datacenter: Option<String>,
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
            Self::Consul { .. } => DiscoveryKind::Consul,
            Self::Dns { .. } | Self::Names { .. } => DiscoveryKind::Dns,
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
            .chain(self.host_files().iter().map(Path::new))
    }

    /// Those that names are looked up by as the host does it.
    fn host_files(&self) -> &'static [&'static str] {
        let is_of_host = match self {
            Self::Dns { query, .. } | Self::Srv { query } => query.resolvers.is_empty(),
            Self::Http { service, .. }
            | Self::Consul {
                query: ConsulQuery { agent: service, .. },
            } => {
                matches!(service.url.host, Host::Name(_))
            }
            Self::Names { .. } => true,
            Self::File { .. } | Self::Exec { .. } => false,
        };
        if is_of_host { &[RESOLV_CONF, HOSTS] } else { &[] }
    }

    /// The files that no command may open: keys and tokens.
    pub fn secret_files(&self) -> impl Iterator<Item = &Path> {
        let identity = (self.service()).and_then(|service| service.tls.identity.as_ref());
        let key = identity.map(|files| files.key.as_ref().unwrap_or(&files.cert).as_path());
        key.into_iter().chain(self.token_file())
    }

    /// The servers of the file that are names.
    #[must_use]
    pub fn named(&self) -> &[NamedServer] {
        match self {
            Self::Names { servers, .. } => servers,
            _ => &[],
        }
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
            Self::Consul { query } => Some(&query.agent),
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
            Self::Consul { query } => write!(f, "service {} of {}", query.service, query.agent.url),
            Self::Dns { query, .. } => write!(f, "name {}", query.name),
            Self::Srv { query } => write!(f, "SRV records of {}", query.name),
            Self::Names { servers, .. } => match servers.as_slice() {
                [one] => write!(f, "name {}", one.host),
                several => write!(f, "names of {} servers", several.len()),
            },
        }
    }
}
