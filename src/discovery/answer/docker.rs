//! Docker's `/containers/json`: a list of containers with labels, published ports, and networks with the addresses that they
//! have there.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
};

use serde::Deserialize;

use super::{
    Answer, Limits, Malformed,
    instances::{self, Instance, PassedOver, Share, choose},
    of_json,
};
use crate::config::{DockerAddress, DockerQuery};

/// The containers of an answer.
#[derive(Debug)]
pub struct Containers(Vec<Container>);

// null where there is nothing
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Container {
    id: String,
    #[serde(default)]
    names: Option<Vec<String>>,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    state: Option<String>,
    /// Such as `Up 5 minutes (unhealthy)`.
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    ports: Option<Vec<Port>>,
    #[serde(default)]
    network_settings: Option<Networks>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Port {
    #[serde(rename = "IP", default)]
    ip: Option<String>,
    private_port: u16,
    #[serde(default)]
    public_port: Option<u16>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Networks {
    #[serde(default)]
    networks: Option<BTreeMap<String, Option<Network>>>,
}

#[derive(Debug, Default, Deserialize)]
struct Network {
    #[serde(rename = "IPAddress", default)]
    ipv4: Option<String>,
    #[serde(rename = "GlobalIPv6Address", default)]
    ipv6: Option<String>,
}

impl Containers {
    /// Reads a list.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let read = serde_json::from_slice(bytes).map(Self);
        read.map_err(|error| {
            Malformed::Document(format!(
                "the answer is no list of containers as Docker has it: {}",
                of_json(&error)
            ))
        })
    }

    /// The ids of those that may be servers.
    pub fn ids<'a>(&'a self, query: &'a DockerQuery) -> impl Iterator<Item = &'a str> {
        let wanted = self.0.iter().filter(|container| container.is_wanted(query));
        wanted.map(|container| container.id.as_str())
    }

    /// What a variable of a container's environment is, by what Docker says of the container itself (`/containers/ID/json`).
    ///
    /// # Errors
    /// It says something else.
    pub fn variable(bytes: &[u8], name: &str) -> Result<Option<String>, Malformed> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Inspected {
            config: Config,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Config {
            #[serde(default)]
            env: Option<Vec<String>>,
        }
        let inspected: Inspected = serde_json::from_slice(bytes).map_err(|error| {
            Malformed::Document(format!(
                "the answer is no container as Docker has it: {}",
                of_json(&error)
            ))
        })?;
        let mut variables = inspected.config.env.iter().flatten();
        let value = variables.find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        Ok(value.filter(|value| !value.is_empty()).map(str::to_owned))
    }

    /// The servers. `host` is where a port is that is published on all addresses; `told`, by id, what containers say
    /// themselves.
    ///
    /// # Errors
    /// There are too many.
    pub fn answer(
        &self,
        query: &DockerQuery,
        host: IpAddr,
        told: &HashMap<String, String>,
        limits: Limits,
    ) -> Result<Answer, Malformed> {
        let mut passed_over = PassedOver::default();
        let mut found = Vec::new();
        for container in self.0.iter().filter(|container| container.is_wanted(query)) {
            let places = container
                .is_usable()
                .and_then(|()| container.places(query, host, told.get(&container.id).map(String::as_str)))
                .and_then(|places| Ok((places, container.share()?)));
            match places {
                Ok((places, share)) => found.extend(places.into_iter().map(|addr| Instance {
                    name: container.name().to_owned(),
                    addr,
                    share: share.clone(),
                })),
                Err(why) => passed_over.note(&format!("container {}", container.name()), &why),
            }
        }
        instances::answer(&found, passed_over, limits)
    }
}

impl Container {
    /// Whether it runs and has the labels. Docker has been asked for no others; what speaks its API may not have understood.
    fn is_wanted(&self, query: &DockerQuery) -> bool {
        let runs = self
            .state
            .as_deref()
            .is_none_or(|state| state.eq_ignore_ascii_case("running"));
        runs && query
            .labels
            .iter()
            .all(|label| label.matches(|name| self.label(name)))
    }

    /// Whether its health is good, or nothing is known of it.
    fn is_usable(&self) -> Result<(), String> {
        let status = self.status.as_deref().unwrap_or_default();
        if status.contains("(unhealthy)") {
            return Err("it is unhealthy".to_owned());
        }
        if status.contains("(health: starting)") || status.contains("(starting)") {
            return Err("its health is not known yet (starting)".to_owned());
        }
        Ok(())
    }

    fn label(&self, name: &str) -> Option<&str> {
        self.labels.as_ref()?.get(name).map(String::as_str)
    }

    /// Names begin with a slash; those with another one inside are links of others.
    fn name(&self) -> &str {
        let mut names = self
            .names
            .iter()
            .flatten()
            .map(|name| name.trim_start_matches('/'));
        let own = names.find(|name| !name.is_empty() && !name.contains('/'));
        own.unwrap_or_else(|| self.id.get(..12).unwrap_or(&self.id))
    }

    fn share(&self) -> Result<Share, String> {
        // gobetween's label
        Ok(Share::of(|name| self.label(name))?.or_sni(self.label("sni")))
    }

    fn places(
        &self,
        query: &DockerQuery,
        host: IpAddr,
        told: Option<&str>,
    ) -> Result<BTreeSet<SocketAddr>, String> {
        let port = instances::port(|name| self.label(name), query.port)?;
        match &query.address {
            DockerAddress::Network(network) => {
                let addresses = self.addresses_in(network)?;
                let ip = choose(addresses, query.family)
                    .ok_or_else(|| format!("it has no such address in the network {network}"))?;
                Ok(BTreeSet::from([SocketAddr::new(ip, port)]))
            }
            DockerAddress::Published { .. } => self.published(query, port, host, told),
        }
    }

    fn addresses_in(&self, network: &str) -> Result<Vec<IpAddr>, String> {
        let networks = self
            .network_settings
            .as_ref()
            .and_then(|all| all.networks.as_ref());
        let joined = networks.and_then(|networks| networks.get(network));
        let joined = joined.ok_or_else(|| format!("it is not in the network {network}"))?;
        let texts = joined
            .iter()
            .flat_map(|joined| [&joined.ipv4, &joined.ipv6])
            .flatten();
        Ok(texts.filter_map(|text| text.parse().ok()).collect())
    }

    /// Where a port is published; each port of the host once, whatever addresses lead there.
    fn published(
        &self,
        query: &DockerQuery,
        port: u16,
        host: IpAddr,
        told: Option<&str>,
    ) -> Result<BTreeSet<SocketAddr>, String> {
        let told = match told {
            None => None,
            Some(text) => Some(text.trim().parse::<IpAddr>().map_err(|_| {
                "the variable of its environment (host_env_var) has no IP address".to_owned()
            })?),
        };
        let mut addresses: BTreeMap<u16, Vec<IpAddr>> = BTreeMap::new();
        for published in self
            .ports
            .iter()
            .flatten()
            .filter(|published| published.private_port == port)
        {
            let Some(public) = published.public_port.filter(|port| *port != 0) else {
                continue;
            };
            let own = published.ip.as_deref().and_then(|ip| ip.parse::<IpAddr>().ok());
            let own = own.filter(|ip| !ip.is_unspecified());
            addresses
                .entry(public)
                .or_default()
                .push(told.or(own).unwrap_or(host));
        }
        if addresses.is_empty() {
            return Err(format!("it does not publish its port {port}"));
        }
        let places: BTreeSet<SocketAddr> = (addresses.into_iter())
            .filter_map(|(port, addresses)| Some(SocketAddr::new(choose(addresses, query.family)?, port)))
            .collect();
        match places.is_empty() {
            true => Err(format!(
                "it publishes its port {port} on no address of the family"
            )),
            false => Ok(places),
        }
    }
}
