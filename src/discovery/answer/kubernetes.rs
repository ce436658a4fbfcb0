//! What Kubernetes answers: a service, its pods, their nodes.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    num::NonZeroU16,
};

use serde::{Deserialize, de::DeserializeOwned};

use super::{
    Answer, Limits, Malformed,
    instances::{self, Instance, PassedOver, Share, choose},
    of_json,
};
use crate::config::{Families, ServicePort};

/// Where a service is on nodes, and whose.
#[derive(Debug, PartialEq, Eq)]
pub struct NodePort {
    /// The port of each node.
    pub port: NonZeroU16,
    /// Which pods are behind it, as the API takes it.
    pub selector: String,
}

#[derive(Deserialize)]
struct Service {
    spec: ServiceSpec,
}

// null or nothing at all where there is none
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServiceSpec {
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    selector: Option<BTreeMap<String, String>>,
    #[serde(default)]
    ports: Option<Vec<Port>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Port {
    #[serde(default)]
    name: Option<String>,
    port: u16,
    #[serde(default)]
    node_port: Option<u16>,
}

#[derive(Deserialize)]
struct List<T> {
    #[serde(default)]
    metadata: ListMetadata,
    #[serde(default = "Option::default")]
    items: Option<Vec<T>>,
}

#[derive(Deserialize, Default)]
struct ListMetadata {
    /// Where the rest of it is.
    #[serde(default, rename = "continue")]
    more: String,
}

#[derive(Deserialize)]
struct Pod {
    metadata: PodMetadata,
    spec: PodSpec,
    #[serde(default)]
    status: Option<PodStatus>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodMetadata {
    #[serde(default)]
    deletion_timestamp: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodSpec {
    #[serde(default)]
    node_name: Option<String>,
}

#[derive(Deserialize)]
struct PodStatus {
    #[serde(default)]
    phase: Option<String>,
}

#[derive(Deserialize)]
struct Node {
    status: NodeStatus,
}

#[derive(Deserialize)]
struct NodeStatus {
    #[serde(default)]
    addresses: Option<Vec<NodeAddress>>,
}

#[derive(Deserialize)]
struct NodeAddress {
    #[serde(rename = "type")]
    kind: String,
    address: String,
}

/// What EndpointSlices call a port of a service.
///
/// # Errors
/// The service has no such port, or is none.
pub fn port_name(bytes: &[u8], number: NonZeroU16) -> Result<String, Malformed> {
    let service: Service = read(bytes, "service")?;
    let port = service.port(&ServicePort::Number(number))?;
    Ok(port.name.clone().unwrap_or_default())
}

/// Where a service is on nodes.
///
/// # Errors
/// It is not, has no such port, or is none.
pub fn node_port(bytes: &[u8], port: &ServicePort) -> Result<NodePort, Malformed> {
    let service: Service = read(bytes, "service")?;
    let found = service.port(port)?;
    let kind = service.spec.kind.as_deref().unwrap_or("ClusterIP");
    let node_port = found.node_port.and_then(NonZeroU16::new);
    let selector: Vec<String> = (service.spec.selector.iter().flatten())
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    match (node_port, selector.as_slice()) {
        (None, _) => Err(Malformed::Document(format!(
            "port {port} of the service has no NodePort: its type is {}",
            short(kind)
        ))),
        (Some(_), []) => Err(Malformed::Document(
            "the service has no selector, so that nothing says which nodes its pods are on".to_owned(),
        )),
        (Some(port), selector) => Ok(NodePort {
            port,
            selector: selector.join(","),
        }),
    }
}

/// The nodes that pods run on, each once.
///
/// # Errors
/// It is no list of pods, or not the whole of it.
pub fn nodes(bytes: &[u8]) -> Result<BTreeSet<String>, Malformed> {
    let list: List<Pod> = read(bytes, "list of pods")?;
    if !list.metadata.more.is_empty() {
        let text = "the list of pods is cut off (metadata.continue)";
        return Err(Malformed::Document(text.to_owned()));
    }
    let runs = |pod: &Pod| {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        pod.metadata.deletion_timestamp.is_none() && phase.is_none_or(|phase| phase == "Running")
    };
    let pods = list.items.into_iter().flatten().filter(runs);
    Ok(pods.filter_map(|pod| pod.spec.node_name).collect())
}

/// The addresses that a node has inside of the cluster.
///
/// # Errors
/// It is no node.
pub fn node_addresses(bytes: &[u8]) -> Result<Vec<IpAddr>, Malformed> {
    let node: Node = read(bytes, "node")?;
    let addresses = node.status.addresses.into_iter().flatten();
    let internal = addresses.filter(|address| address.kind == "InternalIP");
    Ok(internal
        .filter_map(|address| address.address.parse().ok())
        .collect())
}

/// The servers that nodes are.
///
/// # Errors
/// There are too many.
pub fn of_nodes(
    nodes: &HashMap<String, Vec<IpAddr>>,
    port: NonZeroU16,
    family: Families,
    limits: Limits,
) -> Result<Answer, Malformed> {
    let mut passed_over = PassedOver::default();
    let mut found = Vec::new();
    let sorted: BTreeMap<_, _> = nodes.iter().collect();
    for (name, addresses) in sorted {
        match choose(addresses.iter().copied(), family) {
            Some(ip) => found.push(Instance {
                name: name.clone(),
                addr: SocketAddr::new(ip, port.get()),
                share: Share::default(),
            }),
            None => passed_over.note(&format!("node {name}"), "it has no InternalIP of the family"),
        }
    }
    instances::answer(&found, passed_over, limits)
}

impl Service {
    fn port(&self, wanted: &ServicePort) -> Result<&Port, Malformed> {
        let ports = || self.spec.ports.iter().flatten();
        let is_wanted = |port: &&Port| match wanted {
            ServicePort::Number(number) => port.port == number.get(),
            ServicePort::Name(name) => port.name.as_deref() == Some(name),
        };
        ports().find(is_wanted).ok_or_else(|| {
            let has: Vec<String> = ports().take(8).map(Port::called).collect();
            Malformed::Document(match has.as_slice() {
                [] => format!("the service has no port {wanted}, nor any other"),
                has => format!("the service has no port {wanted}; it has {}", has.join(", ")),
            })
        })
    }
}

impl Port {
    fn called(&self) -> String {
        match self.name.as_deref() {
            None | Some("") => self.port.to_string(),
            Some(name) => format!("{} ({})", self.port, short(name)),
        }
    }
}

/// A text from outside, as far as it fits into a line.
pub(super) fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}

fn read<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, Malformed> {
    serde_json::from_slice(bytes).map_err(|error| {
        Malformed::Document(format!(
            "the answer is no {what} as Kubernetes has it: {}",
            of_json(&error)
        ))
    })
}
