//! What sources are asked by: URLs, names, secrets, paths into answers.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU16,
};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::json;
use toml::de::DeValue;

use super::{
    access::FilePath,
    field::{Field, Key, Node, bad_value, inline_schema, string},
    fields::bounded,
    routing::{List, one_or_several},
    section::section,
};
use crate::{
    base::HostName,
    config::{
        answer_format::{JsonPath, LinePattern},
        findings::Findings,
        platforms::{LabelMatch, MAX_LABEL_BYTES, NotAServicePlace, ServicePlace, ServicePort},
        secret::{NotASecret, Secret},
    },
};

/// Most name servers of a source.
const MAX_RESOLVERS: usize = 8;

/// The port of name servers.
const DNS_PORT: u16 = 53;

section! {
    /// Whom to believe that it is the server that is asked. Files are read again when they change.
    SourceTls {
        /// Refuse a server whose certificate nobody vouches for, or that is for another name. false believes anybody. Default: true.
        verify: bool,
        /// PEM file of the CAs that sign the server's certificate, or of the certificate itself, which is then accepted whatever its name. Default: the CAs of the host, of Debian's package ca-certificates.
        ca: FilePath,
        /// The name that the server is asked for (SNI) and that its certificate must have. Default: the host of the URL.
        server_name: SourceName,
        /// The certificate that the server is shown if it asks for one, and its chain; the private key, too, unless `key` names another file. Default: none.
        cert: FilePath,
        /// The private key of the certificate, unencrypted. Default: it is in cert.
        key: FilePath,
    }
}

section! {
    /// Where in an answer of format "json" what is: keys with dots between them, and numbers of elements in brackets, such as "nodes[0].ip".
    JsonPaths {
        /// The list of servers, such as "data.items". Default: the answer is the list, or has it in hosts.
        servers: SourceJsonPath,
        /// In each of them the IP address. Default: host, or addr.host.
        host: SourceJsonPath,
        /// The port. Default: port, or addr.port.
        port: SourceJsonPath,
        /// The name. Default: name.
        name: SourceJsonPath,
        /// The weight. Default: weight.
        weight: SourceJsonPath,
        /// The priority. Default: priority.
        priority: SourceJsonPath,
        /// Most open connections. Default: max_connections.
        max_connections: SourceJsonPath,
        /// Names (SNI) that the server is for. Default: sni.
        sni: SourceJsonPath,
    }
}

/// Types that are read from a text, or else from nothing, which has been said: a mistake is not a missing key.
macro_rules! texts {
    ($($(#[$about:meta])* $name:ident($inner:ty): $expected:literal, $help:expr);+ $(;)?) => {
        $(
            $(#[$about])*
            #[derive(Debug, Clone)]
            pub struct $name(pub Option<$inner>);

            impl Field for $name {
                fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
                    let read = string(value, $expected, findings).and_then(|text| match text.parse::<$inner>() {
                        Ok(read) => Some(read),
                        Err(error) => {
                            let message = format!("`{}` cannot be {}: {error}", findings.key(), shown(text, &error));
                            bad_value(value, message, $help(&error), findings)
                        }
                    });
                    Some(Self(read))
                }
            }
            inline_schema!([] $name, _g => json_schema!({ "type": "string", "minLength": 1 }));
        )+
    };
}

texts! {
    /// The URL of a web server, or the path of its socket.
    SourceUrl(ServicePlace): "a URL in quotes", |error: &NotAServicePlace| match error {
        NotAServicePlace::Url(_) => "write a URL such as \"http://10.0.0.5:8080/servers\"",
        NotAServicePlace::Socket(_) => "write an absolute path such as \"unix:/var/run/docker.sock\"",
        NotAServicePlace::Tcp => "write https:// with a section tls (Docker's port for that is 2376), or http:// (2375), where whoever reaches it may do what root may",
    };
    /// The address of a host.
    SourceHost(IpAddr): "an IP address in quotes", |_: &_| "write the address alone, such as \"10.0.0.5\"";
    /// The name of a host or service.
    SourceName(HostName): "a name in quotes", |_: &_| "write the name alone, such as \"web.internal\"";
    /// Where a secret is.
    SourceSecret(Secret): "the place of a secret in quotes", |_: &_|
        "write it to a file that only Convey's user may read and name that, \"file:/etc/convey/token\", or a variable of the environment, \"${TOKEN}\"";
    /// A way into a JSON document.
    SourceJsonPath(JsonPath): "a path in quotes", |_: &_| "write a path such as \"data.items\" or \"nodes[0].ip\"";
    /// An expression.
    SourcePattern(LinePattern): "an expression in quotes", |_: &_|
        "write one such as '^(?P<host>\\S+):(?P<port>\\d+)', in single quotes, where a backslash is one";
}

/// What was written, unless it may be a secret or have one in it.
fn shown(text: &str, error: &dyn std::any::Any) -> String {
    let is_secret = matches!(error.downcast_ref(), Some(NotASecret::Itself))
        || (error.is::<NotAServicePlace>() && text.contains('@'));
    match is_secret {
        true => "that".to_owned(),
        false => format!("\"{text}\""),
    }
}

/// A port by its number or its name; `None` if it is none, which has been said.
#[derive(Debug, Clone)]
pub struct SourcePort(pub Option<ServicePort>);

impl Field for SourcePort {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        if let DeValue::String(name) = value.get_ref() {
            return Some(Self(source_word(value, name, findings).map(ServicePort::Name)));
        }
        let port = bounded(value, 1, u16::MAX.into(), "an integer", findings);
        let number = port.and_then(|port| NonZeroU16::new(u16::try_from(port).ok()?));
        Some(Self(number.map(ServicePort::Number)))
    }
}
inline_schema!([] SourcePort, _g => json_schema!({
    "anyOf": [{ "type": "integer", "minimum": 1, "maximum": u16::MAX }, { "type": "string", "minLength": 1, "maxLength": MAX_NAME_BYTES }]
}));

/// Most labels of a source.
const MAX_LABELS: usize = 16;

/// What containers or instances must have.
#[derive(Debug, Clone)]
pub struct SourceLabels(pub Vec<LabelMatch>);

impl Field for SourceLabels {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let list = List {
            expected: "a label in quotes, or a list of them",
            empty: "write at least one label, or leave the key out for all that run",
            most: MAX_LABELS,
            more: "give the containers one label that says it all",
        };
        let read = list.read(value, findings, |value, text, findings| {
            match text.parse::<LabelMatch>() {
                Ok(label) => Some(label),
                Err(error) => {
                    let message = format!("\"{}\" is not a label: {error}", text.escape_debug());
                    bad_value(
                        value,
                        message,
                        "write it as \"role=web\", or \"role\" for any value",
                        findings,
                    )
                }
            }
        })?;
        Some(Self(read.into_iter().map(|(label, _)| label).collect()))
    }
}
inline_schema!([] SourceLabels, _g => one_or_several(&json!({ "type": "string", "minLength": 1, "maxLength": MAX_LABEL_BYTES }), MAX_LABELS));

/// Most tags of a source.
const MAX_TAGS: usize = 16;

/// Longest name in bytes.
const MAX_NAME_BYTES: usize = 256;

/// The name of a service, a network and the like; `None` if it is none, which has been said.
#[derive(Debug, Clone)]
pub struct SourceWord(pub Option<String>);

impl Field for SourceWord {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let text = string(value, "a name in quotes", findings);
        Some(Self(text.and_then(|text| source_word(value, text, findings))))
    }
}
inline_schema!([] SourceWord, _g => json_schema!({ "type": "string", "minLength": 1, "maxLength": MAX_NAME_BYTES }));

/// Tags of a service.
#[derive(Debug, Clone)]
pub struct ConsulTags(pub Vec<String>);

impl Field for ConsulTags {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let list = List {
            expected: "a tag in quotes, or a list of them",
            empty: "write at least one tag, or leave the key out for any",
            most: MAX_TAGS,
            more: "give the instances one tag that says it all",
        };
        let read = list.read(value, findings, source_word)?;
        Some(Self(read.into_iter().map(|(tag, _)| tag).collect()))
    }
}
inline_schema!([] ConsulTags, _g => one_or_several(&json!({ "type": "string", "minLength": 1, "maxLength": MAX_NAME_BYTES }), MAX_TAGS));

fn source_word(value: &Node<'_>, text: &str, findings: &mut Findings) -> Option<String> {
    if text.is_empty() || text.len() > MAX_NAME_BYTES || text.contains(char::is_control) {
        let message = format!(
            "`{}` must have from 1 to {MAX_NAME_BYTES} characters, and no control characters",
            findings.key()
        );
        return bad_value(
            value,
            message,
            "write it as it is known there, such as \"web\"",
            findings,
        );
    }
    Some(text.to_owned())
}

/// Name servers.
#[derive(Debug, Clone)]
pub struct Resolvers(pub Vec<SocketAddr>);

impl Field for Resolvers {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let list = List {
            expected: "the address of a name server in quotes, or a list of them",
            empty: "write at least one, such as \"10.0.0.53\", or leave the key out for those of the host",
            most: MAX_RESOLVERS,
            more: "name those that are asked first",
        };
        let read = list.read(value, findings, |value, text, findings| {
            resolver(value, text, findings)
        })?;
        Some(Self(read.into_iter().map(|(addr, _)| addr).collect()))
    }
}
inline_schema!([] Resolvers, _g => one_or_several(&json!({ "type": "string", "minLength": 2 }), MAX_RESOLVERS));

fn resolver(value: &Node<'_>, text: &str, findings: &mut Findings) -> Option<SocketAddr> {
    let ip = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, DNS_PORT));
    match ip.or_else(|_| text.parse::<SocketAddr>()) {
        Ok(addr) if addr.port() != 0 && !addr.ip().is_unspecified() => Some(addr),
        _ => bad_value(
            value,
            format!("\"{text}\" is not the address of a name server"),
            "write its IP address, such as \"10.0.0.53\", \"10.0.0.53:5353\" or \"[2001:db8::53]:53\"",
            findings,
        ),
    }
}
