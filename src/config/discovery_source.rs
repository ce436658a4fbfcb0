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
    families::Families,
    http_service::HttpService,
    named_server::NamedServer,
    platforms::{DockerQuery, KubernetesQuery, LxdFlavour, LxdQuery, NAMESPACE_FILE},
    secret::Secret,
    tls::{SYSTEM_CAS, ServerTrust},
};
use crate::base::{HostName, SocketPath};

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
    /// Containers that Docker runs.
    Docker {
        /// Which, and whom to ask.
        query: DockerQuery,
    },
    /// The pods behind a service of Kubernetes.
    Kubernetes {
        /// Which, and whom to ask.
        query: KubernetesQuery,
    },
    /// Instances that LXD or Incus runs.
    Lxd {
        /// Which, and whom to ask.
        query: LxdQuery,
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
    /// Whoever may operate the admin API: servers are added and removed one by one.
    Api,
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
    /// [`DiscoverySource::Docker`].
    Docker,
    /// [`DiscoverySource::Kubernetes`].
    Kubernetes,
    /// [`DiscoverySource::Lxd`] of LXD.
    Lxd,
    /// [`DiscoverySource::Lxd`] of Incus.
    Incus,
    /// [`DiscoverySource::Dns`].
    Dns,
    /// [`DiscoverySource::Srv`].
    Srv,
    /// [`DiscoverySource::Api`].
    Api,
}

impl DiscoveryKind {
    /// The cargo feature without which nothing asks it, and whether this build has that.
    #[must_use]
    pub const fn feature(self) -> Option<(&'static str, bool)> {
        match self {
            Self::Docker => Some(("docker", cfg!(feature = "docker"))),
            Self::Kubernetes => Some(("kubernetes", cfg!(feature = "kubernetes"))),
            Self::Lxd | Self::Incus => Some(("lxd", cfg!(feature = "lxd"))),
            Self::File | Self::Exec | Self::Http | Self::Consul | Self::Dns | Self::Srv | Self::Api => None,
        }
    }
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

impl DiscoverySource {
    /// The `kind`.
    #[must_use]
    pub const fn kind(&self) -> DiscoveryKind {
        match self {
            Self::File { .. } => DiscoveryKind::File,
            Self::Exec { .. } => DiscoveryKind::Exec,
            Self::Http { .. } => DiscoveryKind::Http,
            Self::Consul { .. } => DiscoveryKind::Consul,
            Self::Docker { .. } => DiscoveryKind::Docker,
            Self::Kubernetes { .. } => DiscoveryKind::Kubernetes,
            Self::Lxd { query } => match query.flavour {
                LxdFlavour::Lxd => DiscoveryKind::Lxd,
                LxdFlavour::Incus => DiscoveryKind::Incus,
            },
            Self::Dns { .. } | Self::Names { .. } => DiscoveryKind::Dns,
            Self::Srv { .. } => DiscoveryKind::Srv,
            Self::Api => DiscoveryKind::Api,
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
        (self.file().into_iter())
            .chain(self.needed_files())
            .chain(self.host_files().iter().map(Path::new))
    }

    /// Those without which it cannot be asked: CAs, certificates, keys, tokens.
    pub fn needed_files(&self) -> impl Iterator<Item = &Path> {
        let tls = self.service().filter(|service| service.url.is_tls);
        let ca = tls.and_then(|service| match &service.tls.trust {
            ServerTrust::System => Some(Path::new(SYSTEM_CAS)),
            ServerTrust::Ca(path) => Some(path),
            ServerTrust::Anybody => None,
        });
        let identity = tls.and_then(|service| service.tls.identity.as_ref());
        let identity = identity.map(|files| [Some(files.cert.as_path()), files.key.as_deref()]);
        (ca.into_iter())
            .chain(identity.into_iter().flatten().flatten())
            .chain(self.token_file())
            .chain(self.namespace_file())
    }

    /// The unix socket that the broker connects to for it.
    #[must_use]
    pub fn socket(&self) -> Option<SocketPath> {
        self.service()?.socket
    }

    /// The file that says which namespace a pod is in, where the configuration does not say which is meant.
    fn namespace_file(&self) -> Option<&Path> {
        match self {
            Self::Kubernetes { query } if query.namespace.is_none() => Some(Path::new(NAMESPACE_FILE)),
            _ => None,
        }
    }

    /// Those that names are looked up by as the host does it.
    fn host_files(&self) -> &'static [&'static str] {
        let is_of_host = match self {
            Self::Dns { query, .. } | Self::Srv { query } => query.resolvers.is_empty(),
            Self::Names { .. } => true,
            _ => self.service().is_some_and(HttpService::is_found_by_name),
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

    /// Whether it is asked for its servers.
    #[must_use]
    pub const fn is_asked(&self) -> bool {
        !matches!(self, Self::Api)
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
            Self::Docker { query } => Some(&query.engine),
            Self::Kubernetes { query } => Some(&query.api),
            Self::Lxd { query } => Some(&query.server),
            Self::File { .. }
            | Self::Exec { .. }
            | Self::Dns { .. }
            | Self::Srv { .. }
            | Self::Api
            | Self::Names { .. } => None,
        }
    }

    /// The variable of the environment that its token is in.
    #[must_use]
    pub fn token_variable(&self) -> Option<&str> {
        match self.service()?.token.as_ref()? {
            Secret::Variable(name) => Some(name),
            Secret::File(_) => None,
        }
    }

    /// What it is, with what [`Display`](fmt::Display) hides: two sources with the same one are the same.
    #[must_use]
    pub fn identity(&self) -> String {
        match self {
            // a query tells one from another, and is kept nowhere in words
            Self::Http { service, .. } if service.url.target.contains('?') => {
                format!("{self} {:016x}", hash_of(&service.url.target))
            }
            _ => self.to_string(),
        }
    }

    fn token_file(&self) -> Option<&Path> {
        self.service()?.token.as_ref()?.file()
    }
}

/// FNV-1a, the same in every version.
fn hash_of(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

impl fmt::Display for DiscoverySource {
    /// As an operator knows it: `file /etc/convey/web.servers`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, .. } => write!(f, "file {}", path.display()),
            Self::Exec { command, .. } => write!(f, "command {}", command.program()),
            Self::Http { service, .. } => service.fmt(f),
            Self::Consul { query } => write!(f, "service {} of {}", query.service, query.agent),
            Self::Docker { query } => query.fmt(f),
            Self::Kubernetes { query } => query.fmt(f),
            Self::Lxd { query } => query.fmt(f),
            Self::Dns { query, .. } => write!(f, "name {}", query.name),
            Self::Srv { query } => write!(f, "SRV records of {}", query.name),
            Self::Api => f.write_str("the admin API"),
            Self::Names { servers, .. } => match servers.as_slice() {
                [one] => write!(f, "name {}", one.host),
                several => write!(f, "names of {} servers", several.len()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::http_service::SourceTls;

    #[test]
    fn a_query_tells_sources_apart_and_is_shown_nowhere() {
        let source = |url: &str| DiscoverySource::Http {
            service: HttpService {
                url: url.parse().unwrap(),
                socket: None,
                tls: SourceTls::default(),
                token: None,
                timeout: Duration::from_secs(5),
            },
            format: AnswerFormat::Text,
        };
        let (one, other) = (source("http://a/x?key=s3cret"), source("http://a/x?key=other"));
        assert_eq!(
            (one.to_string().as_str(), other.to_string()),
            ("http://a/x?key=…", one.to_string())
        );
        assert_ne!(one.identity(), other.identity());
        assert!(!one.identity().contains("s3cret"));
        assert_eq!(source("http://a/x").identity(), "http://a/x");
    }
}
