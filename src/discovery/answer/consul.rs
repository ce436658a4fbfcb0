//! Consul's `/v1/health/service/NAME`: a list of instances, each with the node that it is on.

use serde::Deserialize;

use super::{Answer, Collector, Limits, Malformed, Named, Place, of_json};

/// What stands before a name in a tag, as gobetween has it: `sni=www.example.com`.
const SNI: &str = "sni=";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Instance {
    node: Node,
    service: Service,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    #[serde(default)]
    address: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    /// Empty: that of the node.
    #[serde(default)]
    address: String,
    #[serde(default)]
    port: u16,
    // null where there are none
    #[serde(default)]
    tags: Option<Vec<String>>,
    #[serde(default)]
    weights: Option<Weights>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Weights {
    passing: u64,
}

/// Reads an answer.
pub(super) fn parse(bytes: &[u8], limits: Limits) -> Result<Answer, Malformed> {
    let instances: Vec<Instance> = serde_json::from_slice(bytes).map_err(|error| {
        Malformed::Document(format!(
            "the answer is no list of instances as Consul has it: {}",
            of_json(&error)
        ))
    })?;
    let mut collector = Collector::new(limits);
    for (instance, place) in instances.iter().zip((1..).map(Place::Element)) {
        let Instance { node, service } = instance;
        let host = match service.address.as_str() {
            "" => &node.address,
            address => address,
        };
        let addr = match host.contains(':') {
            true => format!("[{host}]:{}", service.port),
            false => format!("{host}:{}", service.port),
        };
        let mut tags = service.tags.iter().flatten();
        let named = Named {
            weight: service.weights.as_ref().map(|weights| weights.passing),
            sni: tags.find_map(|tag| tag.strip_prefix(SNI)),
            ..Named::default()
        };
        collector.add(place, &addr, &named)?;
    }
    Ok(collector.finish())
}
