//! Sections and types of values that are about servers that come by themselves.

use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use toml::de::DeValue;

use super::{
    DAY, Int, Time,
    access::FilePath,
    commands::CommandLine,
    field::{Field, Key, Node, bad_value, inline_schema, string, wrong_type},
    fields::{bounded, word},
    routing,
    section::section,
};
use crate::{
    access::Network,
    config::{
        discovery::{AnswerFormat, DiscoveryKind, MAX_DISCOVERED, MaxRemoval, OnFailure},
        findings::Findings,
        words::Words as _,
    },
};

section! {
    /// Servers that a source outside this file names, beside those of the file. A server of the file goes before a discovered one of the same name or address. A server that is not named any more gets no new connections; established ones go on.
    Discovery {
        /// Where they come from: "file", or "exec", what a command prints.
        kind (required): DiscoveryKind,
        /// Kind "file": the file that names the servers. It is looked at every 5 s; replace it by renaming another over it, for a half-written one is refused as a whole.
        path: SourcePath,
        /// Kind "exec": the program that prints the servers, and its arguments, such as ["/usr/local/bin/servers", "web"]; no shell reads the line. It runs as Convey's user, without capabilities: see COMMANDS in convey(8).
        command: SourceCommand,
        /// Kind "exec": how long the command may run before it is ended, which is a failure. Default: "5s".
        timeout: Time<false, 600_000>,
        /// How an answer is written. "text" (default): a server a line, IP:port, then weight=, priority=, max_connections=, sni=, name= as wanted, or IP port weight priority; # begins a comment. "json": a list of objects with host, port, weight, priority, max_connections, sni, name, or an object with such a list in hosts.
        format: AnswerFormat,
        /// How long after an answer or a failure the source is asked again, ten percent more or less; a file that could be read is read when it changes. Default: "10s".
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
        /// Largest answer in bytes; a larger one is refused. Default: 1048576.
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

super::fields::word_fields!(DiscoveryKind, AnswerFormat, OnFailure);
