//! Sections and types of values that are about servers that come by themselves.

use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use toml::de::DeValue;

use super::{
    DAY, Int, Time,
    access::FilePath,
    commands::CommandLine,
    discovery_fields::{
        ConsulTags, JsonPaths, Resolvers, SourceHost, SourceLabels, SourceName, SourcePattern, SourcePort,
        SourceSecret, SourceTls, SourceUrl, SourceWord,
    },
    field::{Field, Key, Node, bad_value, inline_schema, string, wrong_type},
    fields::{bounded, word},
    routing,
    section::section,
};
use crate::{
    access::Network,
    config::{
        answer_format::FormatKind,
        discovery::{MAX_DISCOVERED, MaxRemoval, OnFailure},
        discovery_source::DiscoveryKind,
        families::Families,
        findings::Findings,
        platforms::KubernetesVia,
        words::Words as _,
    },
};

section! {
    /// Servers that a source outside this file names, beside those of the file. A server of the file goes before a discovered one of the same name or address. A server that is not named any more gets no new connections; established ones go on.
    Discovery {
        /// Where they come from: "file"; "exec", what a command prints; "http", what a web server answers; "consul", the instances of a service whose checks pass; "docker", containers; "kubernetes", the pods of a service; "lxd" and "incus", instances; "dns", the addresses of a name; "srv", the SRV records of a name; "api", nobody but operators, who add and remove servers through the admin API.
        kind (required): DiscoveryKind,
        /// Kind "file": the file that names the servers. It is looked at every 5 s; replace it by renaming another over it, for a half-written one is refused as a whole.
        path: SourcePath,
        /// Kind "exec": the program that prints the servers, and its arguments, such as ["/usr/local/bin/servers", "web"]; no shell reads the line. It runs as Convey's user, without capabilities: see COMMANDS in convey(8).
        command: SourceCommand,
        /// Kind "http": what is asked for (GET), such as "https://inventory.example.com/servers/web". Redirections are not followed. Kind "consul": the agent, default "http://127.0.0.1:8500". Kind "docker": the engine, default "unix:/var/run/docker.sock"; whoever may connect there may do on that host what root may, Convey's broker included. Kind "kubernetes": the API; default: that of the cluster whose pod Convey runs in. Kinds "lxd" and "incus": the server, default "unix:/var/lib/lxd/unix.socket" or "unix:/var/lib/incus/unix.socket"; that socket is root, too.
        url: SourceUrl,
        /// With https: whom to believe that it is the server. Default: whom the CAs of the host vouch for, by the name in url; of kind "kubernetes" without url, the CA that pods are given.
        tls: SourceTls,
        /// Kinds "http" and "kubernetes": sent as Authorization: Bearer; kind "consul": as X-Consul-Token. "file:/etc/convey/inventory.token" is in that file, "${INVENTORY_TOKEN}" in the environment of the service. Default: none; of kind "kubernetes" without url, that of the pod's service account.
        token: SourceSecret,
        /// Kind "consul": the name of the service. Its instances are known within a second of a change (blocking queries); a tag such as "sni=www.example.com" is the sni of a server. Kind "kubernetes": the name of the service, whose changes are known as soon.
        service: SourceWord,
        /// Kind "consul": a tag that instances must have, or a list of them. Default: any.
        tags: ConsulTags,
        /// Kind "consul": where to look. Default: the datacenter of the agent.
        datacenter: SourceWord,
        /// Kinds "docker", "lxd" and "incus": what servers have, such as "role=web", or "role" with any value, or a list of such, all of which count; of LXD and Incus, keys of the instance's configuration such as "user.role=web". Default: all that run.
        labels: SourceLabels,
        /// Kind "docker": the network whose address of a container is the server's, with its own port. Default: the published port, at the address that it is published on.
        network: SourceWord,
        /// Kind "docker" without network: the address of the Docker host, for ports published on all addresses. Default: the host of url, 127.0.0.1 with a socket.
        host: SourceHost,
        /// Kind "docker" without network: a variable of the container's environment with the address that its port is published on.
        host_env_var: SourceWord,
        /// Kind "kubernetes": the namespace of the service. Without url default: that of the pod.
        namespace: SourceWord,
        /// Kind "kubernetes": "endpoints" (default), pods at their own addresses (EndpointSlices), or "node_port", the nodes that they run on at the NodePort of the service.
        via: KubernetesVia,
        /// Kinds "lxd" and "incus": the interface whose address is the server's; the key user.convey.interface of an instance goes before it. Default: "eth0".
        interface: SourceWord,
        /// Kinds "dns" and "srv": the name that name servers are asked for, such as "web.internal" or "_http._tcp.example.com". With a dot at its end no search list counts.
        name: SourceName,
        /// Kind "dns": the port of each server. Kind "docker": the port in the container, unless its label convey.port says another. Kinds "lxd" and "incus": as that, of the key user.convey.port. Kind "kubernetes": a port of the service, by its number or its name.
        port: SourcePort,
        /// Kinds "dns" and "srv": name servers to ask, such as "10.0.0.53" or "10.0.0.53:5353", or a list of them, each when the one before fails. Default: those of the host (resolv.conf), after its hosts file.
        resolvers: Resolvers,
        /// Kinds "dns", "srv" and "kubernetes": which addresses are servers: "any" (default), "ipv4" or "ipv6". Kinds "docker", "lxd", "incus" and via "node_port": which one of several, "any" the IPv4 one if there is one.
        family: Families,
        /// Kinds "dns" and "srv": an answer is asked for again when its time to live has passed, but not before this time. Default: "5s".
        min_ttl: Time<false, DAY>,
        /// Kinds "dns" and "srv": and at the latest after this time. Default: "5m".
        max_ttl: Time<false, DAY>,
        /// How long a command may run, and a server's whole answer may take; longer is a failure. Not of kind "file". Default: "5s".
        timeout: Time<false, 600_000>,
        /// How an answer of the kinds "file", "exec" and "http" is written. "text" (default): a server a line, IP:port, then weight=, priority=, max_connections=, sni=, name= as wanted, or IP port weight priority; # begins a comment. "json": a list of objects with host, port, weight, priority, max_connections, sni, name, or an object with such a list in hosts; json says where else they are. "regex": a server a line that pattern reads.
        format: FormatKind,
        /// Format "json": where in the answer what is, if not there.
        json: JsonPaths,
        /// Format "regex": an expression with the groups host and port, and as wanted weight, priority, max_connections, sni, name: "^(?P<host>\\S+):(?P<port>\\d+)". Lines that it does not match count for nothing.
        pattern: SourcePattern,
        /// How long after an answer or a failure the source is asked again, ten percent more or less. A file is read when it changes, names by their time to live, Consul and Kubernetes tell of changes: there it is the time after a failure. Docker tells of changes and is asked besides. Default: "10s".
        interval: Time<false, DAY>,
        /// What happens to the servers when the source fails, or its answer cannot be used: "keep" (default) those of the last good answer, over restarts too, or "empty": there are none until the next good one.
        on_failure: OnFailure,
        /// Most servers; an answer with more is refused. Default: 1000.
        max_servers: Int<1, { MAX_DISCOVERED as u64 }>,
        /// An answer with fewer usable servers is held: those in effect stay. 0 obeys an answer without any. Default: 1.
        min_servers: Int<0, { MAX_DISCOVERED as u64 }>,
        /// An answer that would drop more servers at once than these is held: "50%" of those in effect (default; one may always go), or a number. "100%" obeys every answer. Reloading with another value judges it again.
        max_removal: MaxRemoval,
        /// Networks that discovered servers may be in, or a list of them; others are left out and said. Default: all addresses but loopback, link-local and multicast ones and those of this host.
        servers_within: Networks,
        /// Largest answer in bytes, of all kinds but "dns" and "srv"; a larger one is refused. Default: 1048576.
        max_answer_bytes: Int<1, 16_777_216>,
    }
}

/// A command line; `None` if something else was given, which has been said.
#[derive(Debug, Clone)]
pub struct SourceCommand(pub Option<Vec<String>>);

impl Field for SourceCommand {
    fn read(key: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        Some(Self(
            CommandLine::read(key, value, findings).map(|command| command.0),
        ))
    }
}

impl JsonSchema for SourceCommand {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        CommandLine::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        CommandLine::json_schema(generator)
    }
}

/// The path of a file; `None` if something else was given, which has been said.
#[derive(Debug, Clone)]
pub struct SourcePath(pub Option<PathBuf>);

impl Field for SourcePath {
    fn read(key: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        Some(Self(FilePath::read(key, value, findings).map(|path| path.0)))
    }
}
inline_schema!([] SourcePath, generator => generator.subschema_for::<FilePath>());

/// One or several networks.
#[derive(Debug, Clone)]
pub struct Networks(pub Vec<Network>);

fn network(value: &Node<'_>, findings: &mut Findings) -> Option<Network> {
    let text = string(value, "a network in quotes, such as \"10.0.0.0/8\"", findings)?;
    match text.parse() {
        Ok(network) => Some(network),
        Err(error) => bad_value(
            value,
            format!("\"{text}\" is not a network: {error}"),
            "write a network such as \"10.0.0.0/8\" or \"2001:db8::/32\"",
            findings,
        ),
    }
}

impl Field for Networks {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let DeValue::Array(list) = value.get_ref() else {
            return network(value, findings).map(|network| Self(vec![network]));
        };
        let count = list.iter().count();
        if count == 0 || count > routing::MAX_NETWORKS {
            let message = match count {
                0 => format!("`{}` is an empty list", findings.key()),
                _ => format!(
                    "`{}` has more than {} networks",
                    findings.key(),
                    routing::MAX_NETWORKS
                ),
            };
            let help = "write at least one network, such as \"10.0.0.0/8\", or leave the key out";
            return bad_value(value, message, help, findings);
        }
        Some(Self(
            list.iter().filter_map(|item| network(item, findings)).collect(),
        ))
    }
}
inline_schema!([] Networks, _g => json_schema!({
    "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" }, "minItems": 1, "maxItems": routing::MAX_NETWORKS }]
}));

impl Field for MaxRemoval {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let help = "write a share such as \"50%\", or a number of servers such as 3";
        match value.get_ref() {
            DeValue::Integer(_) => {
                let count = bounded(
                    value,
                    0,
                    MAX_DISCOVERED.into(),
                    "a share such as \"50%\" or an integer",
                    findings,
                )?;
                u32::try_from(count).ok().map(Self::Count)
            }
            DeValue::String(text) => {
                let percent = text
                    .strip_suffix('%')
                    .and_then(|digits| digits.parse::<u8>().ok());
                match percent.filter(|percent| *percent <= 100 && !text.starts_with('+')) {
                    Some(percent) => Some(Self::Percent(percent)),
                    None => bad_value(
                        value,
                        format!("\"{text}\" is not a share of servers"),
                        help,
                        findings,
                    ),
                }
            }
            _ => wrong_type(
                value,
                "a share such as \"50%\" or an integer",
                Some(help.to_owned()),
                findings,
            ),
        }
    }
}
inline_schema!([] MaxRemoval, _g => json_schema!({
    "anyOf": [{ "type": "string", "pattern": "^[0-9]{1,3}%$" }, { "type": "integer", "minimum": 0, "maximum": MAX_DISCOVERED }]
}));

super::fields::word_fields!(DiscoveryKind, FormatKind, OnFailure, Families, KubernetesVia);
