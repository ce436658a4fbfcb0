//! Platforms that run servers and know where they are: Docker, Kubernetes, LXD and Incus.

use std::{fmt, net::IpAddr, num::NonZeroU16, str::FromStr};

use super::{families::Families, http_service::HttpService};
use crate::base::{HttpUrl, NotAHttpUrl, NotASocketPath, SocketPath};

/// Where Docker listens unless told otherwise. Who may connect there may do what root may.
pub const DOCKER_SOCKET: &str = "/var/run/docker.sock";

/// Where Kubernetes puts what a pod shows the API.
pub const TOKEN_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// And whom it believes that it is the API.
pub const CA_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";

/// And which namespace it is in.
pub const NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// What a service is called by pods whose environment does not say where it is.
pub const KUBERNETES_API: &str = "https://kubernetes.default.svc";

/// Longest name or value of a label, in bytes.
pub const MAX_LABEL_BYTES: usize = 256;

/// `url`: where a service is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServicePlace {
    /// Over the network.
    Http(HttpUrl),
    /// At a unix socket of this host.
    Socket(SocketPath),
}

/// Why a text says no such place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAServicePlace {
    /// It is no URL.
    #[error(transparent)]
    Url(#[from] NotAHttpUrl),
    /// It is no unix socket.
    #[error(transparent)]
    Socket(#[from] NotASocketPath),
    /// It is what DOCKER_HOST has.
    #[error("tcp:// does not say whether it is asked with TLS")]
    Tcp,
}

/// What a container or an instance must have: `name=value`, or `name` with whatever value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelMatch {
    /// Its name.
    pub name: String,
    /// Its value; `None`: any.
    pub value: Option<String>,
}

/// Why a text is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotALabelMatch {
    /// There is no name.
    #[error("it has no name")]
    Empty,
    /// There are more than 256 bytes, or control characters.
    #[error("it has more than {MAX_LABEL_BYTES} bytes or a control character")]
    Odd,
}

/// Containers that Docker, or what speaks its API, is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockerQuery {
    /// `url`, `tls` and `timeout`.
    pub engine: HttpService,
    /// `labels`: a container has all of them.
    pub labels: Vec<LabelMatch>,
    /// `port`: in the container; `None`: its label `convey.port` says it.
    pub port: Option<NonZeroU16>,
    /// `network`, `host`, `host_env_var`.
    pub address: DockerAddress,
    /// `family`.
    pub family: Families,
}

/// At which address a container is a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DockerAddress {
    /// `network`: at the one that it has in this network, and its own port.
    Network(String),
    /// Where its port is published.
    Published {
        /// `host`: where it is published on all addresses; `None`: the host of `url`.
        host: Option<IpAddr>,
        /// `host_env_var`: a variable of the container's environment that goes before all that.
        variable: Option<String>,
    },
}

/// Endpoints of a service that Kubernetes is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubernetesQuery {
    /// `url`, `tls`, `token` and `timeout`.
    pub api: HttpService,
    /// Whether there is no `url`: the environment of the pod says where the API is.
    pub in_cluster: bool,
    /// `namespace`; `None`: that of the pod.
    pub namespace: Option<String>,
    /// `service`.
    pub service: String,
    /// `port`: of the service.
    pub port: ServicePort,
    /// `via`. Default endpoints.
    pub via: KubernetesVia,
    /// `family`.
    pub family: Families,
}

/// A port of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServicePort {
    /// By its number.
    Number(NonZeroU16),
    /// By its name.
    Name(String),
}

/// `via`: how pods are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KubernetesVia {
    /// At their own addresses.
    Endpoints,
    /// At the service's NodePort of the nodes that they are on.
    NodePort,
}

/// Instances that LXD or Incus is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LxdQuery {
    /// `kind`.
    pub flavour: LxdFlavour,
    /// `url`, `tls` and `timeout`.
    pub server: HttpService,
    /// `labels`: keys of the configuration, all of which an instance has.
    pub labels: Vec<LabelMatch>,
    /// `port`; `None`: the key `user.convey.port` of the instance says it.
    pub port: Option<NonZeroU16>,
    /// `interface`: whose address is the server's. Default eth0.
    pub interface: String,
    /// `family`.
    pub family: Families,
}

/// Which of the two, whose API is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LxdFlavour {
    /// LXD.
    Lxd,
    /// Incus.
    Incus,
}

impl LxdFlavour {
    /// Where it listens unless told otherwise: as Debian's package has it.
    #[must_use]
    pub const fn socket(self) -> &'static str {
        match self {
            Self::Lxd => "/var/lib/lxd/unix.socket",
            Self::Incus => "/var/lib/incus/unix.socket",
        }
    }
}

impl FromStr for ServicePlace {
    type Err = NotAServicePlace;

    fn from_str(text: &str) -> Result<Self, NotAServicePlace> {
        if text.starts_with("tcp://") {
            return Err(NotAServicePlace::Tcp);
        }
        let Some(path) = text.strip_prefix("unix:") else {
            return Ok(Self::Http(text.parse()?));
        };
        // as DOCKER_HOST has it
        let path = match path.strip_prefix("//") {
            Some(path) if path.starts_with('/') => path,
            _ => path,
        };
        Ok(Self::Socket(SocketPath::new(path)?))
    }
}

impl LabelMatch {
    /// Whether something with these labels is meant.
    #[must_use]
    pub fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        let has = label(&self.name);
        has.is_some_and(|has| self.value.as_ref().is_none_or(|wanted| wanted == has))
    }
}

impl FromStr for LabelMatch {
    type Err = NotALabelMatch;

    fn from_str(text: &str) -> Result<Self, NotALabelMatch> {
        if text.len() > MAX_LABEL_BYTES || text.contains(char::is_control) {
            return Err(NotALabelMatch::Odd);
        }
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, None),
        };
        match name {
            "" => Err(NotALabelMatch::Empty),
            name => Ok(Self {
                name: name.to_owned(),
                value,
            }),
        }
    }
}

impl fmt::Display for LabelMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match &self.value {
            Some(value) => write!(f, "={value}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for DockerQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "containers{} of {}", Labelled(&self.labels), self.engine)
    }
}

impl fmt::Display for LxdQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "instances{} of {}", Labelled(&self.labels), self.server)
    }
}

impl fmt::Display for KubernetesQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("service ")?;
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        match self.in_cluster {
            true => write!(f, "{} of this cluster", self.service),
            false => write!(f, "{} of {}", self.service, self.api),
        }
    }
}

/// Labels, each with a space before it.
struct Labelled<'a>(&'a [LabelMatch]);

impl fmt::Display for Labelled<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|label| write!(f, " {label}"))
    }
}

impl fmt::Display for ServicePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_at_a_url_or_a_socket() {
        for (text, is_socket) in [
            ("unix:/run/podman/podman.sock", true),
            ("unix:///var/run/docker.sock", true),
            ("https://docker.internal:2376", false),
        ] {
            let place: ServicePlace = text.parse().unwrap();
            assert_eq!(matches!(place, ServicePlace::Socket(_)), is_socket, "{text}");
        }
        for text in [
            "unix:run/docker.sock",
            "unix:",
            "unix:////x",
            "tcp://10.0.0.1:2375",
        ] {
            assert!(text.parse::<ServicePlace>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_label_has_a_value_or_any() {
        let label = |text: &str| text.parse::<LabelMatch>();
        let has = |name: &str| (name == "role").then_some("web");
        assert!(label("role=web").unwrap().matches(has));
        assert!(label("role").unwrap().matches(has));
        assert!(!label("role=").unwrap().matches(has));
        assert!(!label("tier").unwrap().matches(has));
        assert_eq!(label("a=b=c").unwrap().value.as_deref(), Some("b=c"));
        assert_eq!(label("=web"), Err(NotALabelMatch::Empty));
        assert_eq!(label("a\nb"), Err(NotALabelMatch::Odd));
    }
}
