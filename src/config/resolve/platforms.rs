//! What platforms that run servers are asked, by their kind.

use std::num::NonZeroU16;

use super::{
    source_service::{place_of_api, service, url_of},
    value,
};
use crate::{
    base::Host,
    config::{
        discovery_source::DiscoveryKind,
        families::Families,
        findings::Findings,
        http_service::HttpService,
        platforms::{
            CA_FILE, DOCKER_SOCKET, DockerAddress, DockerQuery, KUBERNETES_API, KubernetesQuery,
            KubernetesVia, LabelMatch, LxdFlavour, LxdQuery, ServicePlace, ServicePort, TOKEN_FILE,
        },
        raw,
        secret::Secret,
        tls::ServerTrust,
    },
};

/// The interface that images of LXD and Incus have.
const INTERFACE: &str = "eth0";

/// A word that may be missing; `None` if it is wrong, which has been said.
macro_rules! word {
    ($raw:expr, $key:ident) => {
        match &$raw.$key {
            Some(at) => Some(at.value.0.clone()?),
            None => None,
        }
    };
}

/// The number that `port` is; `None` if it is missing or none, and none is said.
pub fn port_number(raw: &raw::Discovery, kind: DiscoveryKind, findings: &mut Findings) -> Option<NonZeroU16> {
    let at = raw.port.as_ref()?;
    match &at.value.0 {
        Some(ServicePort::Number(number)) => Some(*number),
        Some(ServicePort::Name(name)) => {
            let message = format!("`port` of kind \"{}\" is a number, not \"{name}\"", kind.label());
            findings.within("port", |findings| {
                findings.error(at.span.clone(), message, "write one such as 8080".to_owned());
            });
            None
        }
        None => None,
    }
}

/// Containers; `None` if a key is wrong, which has been said.
pub fn docker(raw: &raw::Discovery, kind: DiscoveryKind, findings: &mut Findings) -> Option<DockerQuery> {
    let socket = format!("unix:{DOCKER_SOCKET}");
    let place = place_of_api(raw, &socket, kind.label(), findings)?;
    let engine = service(raw, place, findings)?;
    let port = port_number(raw, kind, findings);
    if raw.port.is_some() && port.is_none() {
        return None;
    }
    let host = match &raw.host {
        Some(at) => Some(at.value.0?),
        None => None,
    };
    let variable = word!(raw, host_env_var);
    if let (Some(at), Some((name, _))) = (
        &raw.host_env_var,
        variable.as_deref().and_then(|v| v.split_once('=')),
    ) {
        let help = match name {
            "" => "write its name, such as \"HOST\"".to_owned(),
            name => format!("write \"{name}\"; the container's environment has the value"),
        };
        findings.within("host_env_var", |findings| {
            let message = "`host_env_var` is the name of a variable, in which there is no =".to_owned();
            findings.error(at.span.clone(), message, help);
        });
    }
    let address = match word!(raw, network) {
        Some(network) => {
            let published = [
                ("host", raw.host.as_ref().map(|at| &at.key)),
                ("host_env_var", raw.host_env_var.as_ref().map(|at| &at.key)),
            ];
            for (key, place) in published {
                if let Some(place) = place {
                    findings.within(key, |findings| {
                        findings.error(
                            place.clone(),
                            format!("`{key}` is about published ports, and `network` takes the containers' own addresses"),
                            "leave one of them out".to_owned(),
                        );
                    });
                }
            }
            DockerAddress::Network(network)
        }
        None => DockerAddress::Published { host, variable },
    };
    if let DockerAddress::Published {
        host: None,
        variable: None,
    } = &address
        && is_here(&engine)
        && raw.servers_within.is_none()
        && let Some(at) = &raw.kind
    {
        findings.within("kind", |findings| {
            findings.warn(
                at.span.clone(),
                "the ports that containers publish on all addresses are at 127.0.0.1, which is left out",
                "write network = \"bridge\" for the containers' own addresses, or servers_within = \"127.0.0.0/8\"".to_owned(),
            );
        });
    }
    Some(DockerQuery {
        engine,
        labels: labels(raw),
        port,
        address,
        family: value(raw.family.as_ref(), Families::Any, |v| v),
    })
}

/// Whether a service is on this host.
fn is_here(service: &HttpService) -> bool {
    service.socket.is_some() || matches!(service.url.host, Host::Ip(ip) if ip.is_loopback())
}

/// The pods of a service; `None` if a key is missing or wrong, which has been said.
pub fn kubernetes(
    raw: &raw::Discovery,
    kind: DiscoveryKind,
    needs: impl Fn(&str, &str, &mut Findings),
    findings: &mut Findings,
) -> Option<KubernetesQuery> {
    let in_cluster = raw.url.is_none();
    let place = place_of_api(raw, KUBERNETES_API, kind.label(), findings)?;
    let url = url_of(raw, place, kind.label(), findings)?;
    let api = service(raw, ServicePlace::Http(url), findings);
    if raw.service.is_none() {
        needs("service", "\"web\"", findings);
    }
    if raw.port.is_none() {
        needs("port", "80, or its name \"http\"", findings);
    }
    if raw.namespace.is_none() && !in_cluster {
        needs("namespace", "\"default\"", findings);
    }
    let mut api = api?;
    if in_cluster {
        api.token.get_or_insert_with(|| Secret::File(TOKEN_FILE.into()));
        if api.tls.trust == ServerTrust::System {
            api.tls.trust = ServerTrust::Ca(CA_FILE.into());
        }
    }
    let namespace = word!(raw, namespace);
    if namespace.is_none() && !in_cluster {
        return None;
    }
    Some(KubernetesQuery {
        api,
        in_cluster,
        namespace,
        service: raw.service.as_ref()?.value.0.clone()?,
        port: raw.port.as_ref()?.value.0.clone()?,
        via: value(raw.via.as_ref(), KubernetesVia::Endpoints, |v| v),
        family: value(raw.family.as_ref(), Families::Any, |v| v),
    })
}

/// Instances; `None` if a key is wrong, which has been said.
pub fn lxd(
    raw: &raw::Discovery,
    flavour: LxdFlavour,
    kind: DiscoveryKind,
    findings: &mut Findings,
) -> Option<LxdQuery> {
    let socket = format!("unix:{}", flavour.socket());
    let place = place_of_api(raw, &socket, kind.label(), findings)?;
    let server = service(raw, place, findings)?;
    let without = match (&server.socket, server.url.is_tls, &server.tls.identity) {
        (Some(_), ..) | (None, true, Some(_)) => None,
        (None, false, _) => Some("on the network LXD and Incus listen with TLS alone, and this asks without"),
        (None, true, None) => {
            Some("LXD and Incus tell nobody of their instances who has no certificate that they trust")
        }
    };
    if let (Some(why), Some(at)) = (without, &raw.url) {
        findings.within("url", |findings| {
            let help = "write https:// with tls = { cert = \"/etc/convey/lxd.crt\", key = \"/etc/convey/lxd.key\" }, and have \
                        that certificate trusted there";
            findings.warn(at.span.clone(), why, help.to_owned());
        });
    }
    let port = port_number(raw, kind, findings);
    if raw.port.is_some() && port.is_none() {
        return None;
    }
    Some(LxdQuery {
        flavour,
        server,
        labels: labels(raw),
        port,
        interface: word!(raw, interface).unwrap_or_else(|| INTERFACE.to_owned()),
        family: value(raw.family.as_ref(), Families::Any, |v| v),
    })
}

fn labels(raw: &raw::Discovery) -> Vec<LabelMatch> {
    value(raw.labels.as_ref(), Vec::new(), |v| v.0)
}
