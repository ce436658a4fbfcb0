//! EndpointSlices of a service (discovery.k8s.io/v1): as a list, and what changes of it.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use serde::Deserialize;

use super::{
    Answer, Limits, Malformed,
    instances::{self, Instance, PassedOver, Share},
    kubernetes::short,
    of_json,
};
use crate::{base::IpFamily, config::Families};

/// Most slices of a service; Kubernetes puts a hundred endpoints into each.
const MAX_SLICES: usize = 10_000;

/// Most endpoints of a service, those that are not ready included.
const MAX_ENDPOINTS: usize = 50_000;

/// The slices of a service as they are known now.
#[derive(Debug, Clone, Default)]
pub struct Slices {
    by_name: BTreeMap<String, Arc<Slice>>,
    endpoints: usize,
    version: String,
}

/// What a line of a watch says.
#[derive(Debug)]
pub struct SlicesEvent(Event);

#[derive(Debug)]
enum Event {
    Put(Named, Slice),
    Gone(Named),
    /// Nothing has changed up to this version.
    Bookmark(String),
    TooOld,
    /// Of a later version of the API.
    Unknown,
}

/// A slice's name, and the version it has come with.
#[derive(Debug)]
struct Named {
    name: String,
    version: String,
}

/// What a line of a watch changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlicesChange {
    /// Slices are others than before.
    Some,
    /// Nothing but how new what is known is.
    None,
    /// What is known is too old to tell what changes of it.
    TooOld,
}

#[derive(Debug, Default)]
struct Slice {
    family: Option<IpFamily>,
    ports: Vec<(String, Option<u16>)>,
    endpoints: Vec<Endpoint>,
}

#[derive(Debug)]
struct Endpoint {
    /// Its pod, or else what it is called at all.
    name: Option<String>,
    /// The first; others mean nothing (kube-proxy does not look at them either).
    address: String,
    is_ready: bool,
}

#[derive(Deserialize)]
struct RawList {
    metadata: RawMetadata,
    #[serde(default)]
    items: Option<Vec<RawSlice>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct RawMetadata {
    #[serde(default)]
    name: String,
    #[serde(default)]
    resource_version: String,
    /// Of a list: where the rest of it is.
    #[serde(default, rename = "continue")]
    more: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawSlice {
    metadata: RawMetadata,
    address_type: String,
    #[serde(default)]
    endpoints: Option<Vec<RawEndpoint>>,
    #[serde(default)]
    ports: Option<Vec<RawPort>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawEndpoint {
    #[serde(default)]
    addresses: Option<Vec<String>>,
    #[serde(default)]
    conditions: Option<RawConditions>,
    #[serde(default)]
    hostname: Option<String>,
    #[serde(default)]
    target_ref: Option<RawTarget>,
}

#[derive(Deserialize, Default)]
struct RawConditions {
    /// Nothing is true.
    #[serde(default)]
    ready: Option<bool>,
    #[serde(default)]
    terminating: Option<bool>,
}

#[derive(Deserialize)]
struct RawTarget {
    #[serde(default)]
    name: Option<String>,
}

#[derive(Deserialize)]
struct RawPort {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    port: Option<u16>,
}

#[derive(Deserialize)]
struct RawEvent {
    #[serde(rename = "type")]
    kind: String,
    object: serde_json::Value,
}

#[derive(Deserialize)]
struct RawStatus {
    #[serde(default)]
    code: u16,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct RawBookmark {
    metadata: RawMetadata,
}

impl Slices {
    /// Reads a list.
    ///
    /// # Errors
    /// It is none, or far too long.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let list: RawList = serde_json::from_slice(bytes).map_err(|error| {
            Malformed::Document(format!(
                "the answer is no list of EndpointSlices as Kubernetes has it: {}",
                of_json(&error)
            ))
        })?;
        if !list.metadata.more.is_empty() {
            let text = "the list of EndpointSlices is cut off (metadata.continue)";
            return Err(Malformed::Document(text.to_owned()));
        }
        let mut slices = Self {
            version: list.metadata.resource_version,
            ..Self::default()
        };
        for slice in list.items.into_iter().flatten() {
            let (named, slice) = slice.taken();
            slices.put(named.name, slice)?;
        }
        Ok(slices)
    }

    /// How new this is, as Kubernetes says it.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Takes what a line of a watch says.
    ///
    /// # Errors
    /// There are far too many.
    pub fn apply(&mut self, event: SlicesEvent) -> Result<SlicesChange, Malformed> {
        match event.0 {
            Event::Put(Named { name, version }, slice) => {
                self.version = version;
                self.put(name, slice)?;
                Ok(SlicesChange::Some)
            }
            Event::Gone(Named { name, version }) => {
                self.version = version;
                self.remove(&name);
                Ok(SlicesChange::Some)
            }
            Event::Bookmark(version) => {
                self.version = version;
                Ok(SlicesChange::None)
            }
            Event::TooOld => Ok(SlicesChange::TooOld),
            Event::Unknown => Ok(SlicesChange::None),
        }
    }

    /// The servers at the port that slices call so: endpoints that are ready and do not end.
    ///
    /// # Errors
    /// There are too many.
    pub fn answer(&self, port: &str, family: Families, limits: Limits) -> Result<Answer, Malformed> {
        let mut passed_over = PassedOver::default();
        let mut found: BTreeMap<SocketAddr, String> = BTreeMap::new();
        for (name, slice) in &self.by_name {
            let Some(of_slice) = slice.family else {
                passed_over.note(&format!("slice {name}"), "its endpoints have no IP addresses");
                continue;
            };
            if !family.all().contains(&of_slice) {
                continue;
            }
            let number = slice.ports.iter().find(|(called, _)| called == port);
            let Some(number) = number
                .and_then(|(_, number)| *number)
                .filter(|number| *number != 0)
            else {
                if !slice.endpoints.is_empty() {
                    passed_over.note(
                        &format!("slice {name}"),
                        &format!("it has no port called \"{port}\""),
                    );
                }
                continue;
            };
            for endpoint in slice.endpoints.iter().filter(|endpoint| endpoint.is_ready) {
                match endpoint.address.parse() {
                    // while one moves from slice to slice it is in both
                    Ok(ip) => {
                        let called = || endpoint.name.clone().unwrap_or_default();
                        found.entry(SocketAddr::new(ip, number)).or_insert_with(called);
                    }
                    Err(_) => passed_over.note(
                        &format!("slice {name}"),
                        &format!("{} is not an IP address", endpoint.address),
                    ),
                }
            }
        }
        let instances = found.into_iter().map(|(addr, name)| Instance {
            name,
            addr,
            share: Share::default(),
        });
        let instances: Vec<_> = instances.collect();
        instances::answer(&instances, passed_over, limits)
    }

    fn put(&mut self, name: String, slice: Slice) -> Result<(), Malformed> {
        self.remove(&name);
        self.endpoints += slice.endpoints.len();
        self.by_name.insert(name, Arc::new(slice));
        if self.by_name.len() > MAX_SLICES || self.endpoints > MAX_ENDPOINTS {
            return Err(Malformed::TooMany(MAX_ENDPOINTS));
        }
        Ok(())
    }

    fn remove(&mut self, name: &str) {
        if let Some(slice) = self.by_name.remove(name) {
            self.endpoints -= slice.endpoints.len();
        }
    }
}

impl SlicesEvent {
    /// Reads a line of a watch.
    ///
    /// # Errors
    /// It cannot be read, or says that the watch has failed.
    pub fn parse(line: &[u8]) -> Result<Self, Malformed> {
        let unreadable = |error: serde_json::Error| {
            Malformed::Document(format!(
                "the answer is no watch of EndpointSlices as Kubernetes has it: {}",
                of_json(&error)
            ))
        };
        let event: RawEvent = serde_json::from_slice(line).map_err(unreadable)?;
        Ok(Self(match event.kind.as_str() {
            kind @ ("ADDED" | "MODIFIED" | "DELETED") => {
                let slice: RawSlice = serde_json::from_value(event.object).map_err(unreadable)?;
                let (named, slice) = slice.taken();
                match kind {
                    "DELETED" => Event::Gone(named),
                    _ => Event::Put(named, slice),
                }
            }
            "BOOKMARK" => {
                let bookmark: RawBookmark = serde_json::from_value(event.object).map_err(unreadable)?;
                Event::Bookmark(bookmark.metadata.resource_version)
            }
            "ERROR" => {
                let status: RawStatus = serde_json::from_value(event.object).map_err(unreadable)?;
                match status.code {
                    410 => Event::TooOld,
                    code => {
                        return Err(Malformed::Document(format!(
                            "Kubernetes ends the watch: {code} {}",
                            short(&status.message)
                        )));
                    }
                }
            }
            _ => Event::Unknown,
        }))
    }
}

impl RawSlice {
    fn taken(self) -> (Named, Slice) {
        let endpoints = self.endpoints.into_iter().flatten().filter_map(Endpoint::of);
        let ports = self.ports.into_iter().flatten();
        let slice = Slice {
            family: match self.address_type.as_str() {
                "IPv4" => Some(IpFamily::V4),
                "IPv6" => Some(IpFamily::V6),
                _ => None,
            },
            ports: ports
                .map(|port| (port.name.unwrap_or_default(), port.port))
                .collect(),
            endpoints: endpoints.collect(),
        };
        let named = Named {
            name: self.metadata.name,
            version: self.metadata.resource_version,
        };
        (named, slice)
    }
}

impl Endpoint {
    fn of(raw: RawEndpoint) -> Option<Self> {
        let conditions = raw.conditions.unwrap_or_default();
        let pod = raw.target_ref.and_then(|target| target.name);
        Some(Self {
            name: pod.or(raw.hostname),
            address: raw.addresses?.into_iter().next()?,
            // one that ends is ready for nobody new, whatever its service says of those that are not
            is_ready: conditions.ready.unwrap_or(true) && !conditions.terminating.unwrap_or(false),
        })
    }
}
