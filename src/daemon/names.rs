//! Names of hosts that are sent to, as this host knows them.

use std::net::IpAddr;

use crate::{
    base::Host,
    client::resolver::Resolver,
    config::{Families, HOSTS, RESOLV_CONF},
    privilege::{Client, What},
};

/// The addresses of a host, as this one knows them now.
pub async fn addresses(broker: &Client, host: &Host) -> Result<Vec<IpAddr>, String> {
    let name = match host {
        Host::Ip(ip) => return Ok(vec![*ip]),
        Host::Name(name) => name,
    };
    let read = async |path: &str| {
        let read = broker.read(What::TelemetryFile(path.into())).await;
        // a host without them has a name server of its own, and knows no names by itself
        read.map(|file| file.source.bytes).unwrap_or_default()
    };
    let (resolv_conf, hosts) = (read(RESOLV_CONF).await, read(HOSTS).await);
    let resolver = Resolver::of_host(&resolv_conf, &hosts).map_err(|error| error.to_string())?;
    let found = resolver.addresses(name.as_str(), Families::Any.all()).await;
    found
        .map(|answer| answer.records)
        .map_err(|error| error.to_string())
}
