//! LXD's and Incus's `/1.0/instances?recursion=2`: a list of instances with their configuration and their state.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use serde::Deserialize;

use super::{
    Answer, Limits, Malformed,
    instances::{self, Instance, PassedOver, Share, choose},
    of_json,
};
use crate::config::LxdQuery;

/// What stands before keys that are the operator's own.
const USER: &str = "user.";

#[derive(Deserialize)]
struct Envelope {
    metadata: Vec<Machine>,
}

// null where there is nothing
#[derive(Deserialize)]
struct Machine {
    name: String,
    status: String,
    #[serde(default)]
    config: Option<BTreeMap<String, String>>,
    /// With what its profiles say.
    #[serde(default)]
    expanded_config: Option<BTreeMap<String, String>>,
    #[serde(default)]
    state: Option<State>,
}

#[derive(Deserialize)]
struct State {
    #[serde(default)]
    network: Option<BTreeMap<String, Interface>>,
}

#[derive(Deserialize)]
struct Interface {
    #[serde(default)]
    addresses: Option<Vec<Address>>,
}

#[derive(Deserialize)]
struct Address {
    address: String,
    #[serde(default)]
    scope: String,
}

/// Reads an answer.
pub(super) fn parse(bytes: &[u8], query: &LxdQuery, limits: Limits) -> Result<Answer, Malformed> {
    let envelope: Envelope = serde_json::from_slice(bytes).map_err(|error| {
        Malformed::Document(format!(
            "the answer is no list of instances as LXD and Incus have it: {}",
            of_json(&error)
        ))
    })?;
    let mut passed_over = PassedOver::default();
    let mut found = Vec::new();
    for machine in envelope
        .metadata
        .iter()
        .filter(|machine| machine.is_wanted(query))
    {
        match machine.server(query) {
            Ok(instance) => found.push(instance),
            Err(why) => passed_over.note(&format!("instance {}", machine.name), &why),
        }
    }
    instances::answer(&found, passed_over, limits)
}

impl Machine {
    fn is_wanted(&self, query: &LxdQuery) -> bool {
        self.status == "Running"
            && query
                .labels
                .iter()
                .all(|label| label.matches(|key| self.key(key)))
    }

    fn key(&self, key: &str) -> Option<&str> {
        let configs = [&self.expanded_config, &self.config];
        configs
            .into_iter()
            .flatten()
            .find_map(|config| config.get(key))
            .map(String::as_str)
    }

    fn server(&self, query: &LxdQuery) -> Result<Instance, String> {
        let label = |name: &str| self.key(&format!("{USER}{name}"));
        let port = instances::port(label, query.port)?;
        let interface = label("convey.interface").unwrap_or(&query.interface);
        let networks = self.state.as_ref().and_then(|state| state.network.as_ref());
        let joined = networks.and_then(|networks| networks.get(interface));
        let joined = joined.ok_or_else(|| format!("it has no interface {interface}"))?;
        let addresses = joined.addresses.iter().flatten();
        // an address of a link is no server's
        let global = addresses.filter(|address| address.scope != "link" && address.scope != "local");
        let ips = global.filter_map(|address| address.address.parse::<IpAddr>().ok());
        let ip = choose(ips, query.family)
            .ok_or_else(|| format!("its interface {interface} has no address of the family"))?;
        Ok(Instance {
            name: self.name.clone(),
            addr: SocketAddr::new(ip, port),
            share: Share::of(label)?,
        })
    }
}
