//! Types of values that are about where connections go and what precedes them: routes, names of hosts, PROXY headers.

use std::{net::IpAddr, ops::Range};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::json;
use toml::de::DeValue;

use super::{
    Route,
    field::{Field, Key, Located, Node, bad_value, inline_schema, string, wrong_type},
    fields::word,
    section,
};
use crate::{
    access::{RuleError, RuleSubject},
    base::{HostPattern, HostPatternError, MAX_PATTERN_BYTES},
    config::{
        destination,
        findings::Findings,
        routing::{Destination, NonTls, ProxyTlv, SentTlvs, UnexpectedSni},
        words::Words,
    },
};

/// Most names, protocols, networks or destinations of one route, each.
pub const MAX_ITEMS: usize = 100;

/// Most networks of `from`.
pub const MAX_NETWORKS: usize = 1_000;

/// Most routes of a frontend: they are tried one by one.
const MAX_ROUTES: usize = 1_000;

/// Longest name of a protocol in bytes (RFC 7301, section 3.1).
const MAX_ALPN_BYTES: usize = 255;

/// Patterns of host names, each with its place.
#[derive(Debug, Clone)]
pub struct HostPatterns(pub Vec<(HostPattern, Range<usize>)>);

/// Names of protocols.
#[derive(Debug, Clone)]
pub struct AlpnNames(pub Vec<Box<str>>);

/// Networks and lists of networks, at most so many, each with its place.
#[derive(Debug, Clone)]
pub struct Subjects<const MAX: usize>(pub Vec<(RuleSubject, Range<usize>)>);

/// `from` of `proxy_protocol`: networks and lists of networks, and where `"unix"` stands.
#[derive(Debug, Clone, Default)]
pub struct ProxyPeers(pub Vec<(RuleSubject, Range<usize>)>, pub Option<Range<usize>>);

/// Local addresses and ports, each with its place.
#[derive(Debug, Clone)]
pub struct Destinations(pub Vec<(Destination, Range<usize>)>);

/// `[[routes]]` in their order.
#[derive(Debug, Clone)]
pub struct Routes(pub Vec<Located<Route>>);

/// `send_proxy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyVersion {
    /// No header.
    Off,
    /// Text.
    V1,
    /// Binary.
    V2,
}

/// `send_proxy_tlvs`.
#[derive(Debug, Clone, Copy)]
pub struct TlvList(pub SentTlvs);

impl Words for ProxyVersion {
    const ALL: &'static [(Self, &'static str)] = &[(Self::Off, "off"), (Self::V1, "v1"), (Self::V2, "v2")];
}

/// What a list is of, for those who got it wrong.
pub(super) struct List {
    /// What must be written.
    pub expected: &'static str,
    /// What to write in place of an empty list.
    pub empty: &'static str,
    /// Most items.
    pub most: usize,
    /// What to do with more.
    pub more: &'static str,
}

impl List {
    /// Reads one item or a list of them, each with its place.
    pub fn read<T>(
        &self,
        value: &Node<'_>,
        findings: &mut Findings,
        item: impl Fn(&Node<'_>, &str, &mut Findings) -> Option<T>,
    ) -> Option<Vec<(T, Range<usize>)>> {
        let read = |value: &Node<'_>, findings: &mut Findings| {
            let text = string(value, self.expected, findings)?;
            Some((item(value, text, findings)?, value.span()))
        };
        let DeValue::Array(items) = value.get_ref() else {
            return read(value, findings).map(|item| vec![item]);
        };
        if items.is_empty() {
            let message = format!("`{}` is an empty list", findings.key());
            return bad_value(value, message, self.empty, findings);
        }
        if items.len() > self.most {
            let message = format!("`{}` has {} entries", findings.key(), items.len());
            let help = format!("the limit is {}: {}", self.most, self.more);
            return bad_value(value, message, help, findings);
        }
        Some(items.iter().filter_map(|item| read(item, findings)).collect())
    }
}

/// The schema of a string, or of a list of at most so many of them.
pub(super) fn one_or_several(item: &serde_json::Value, most: usize) -> Schema {
    json_schema!({
        "anyOf": [item, { "type": "array", "items": item, "minItems": 1, "maxItems": most }],
    })
}

impl Field for HostPatterns {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let list = List {
            expected: "a host name in quotes, or a list of them",
            empty: "write at least one name, or leave the key out to match every name and none",
            most: MAX_ITEMS,
            more: "use patterns such as \"*.example.com\", or several routes to one backend",
        };
        list.read(value, findings, host_pattern).map(Self)
    }
}
inline_schema!([] HostPatterns, _g => one_or_several(
    &json!({ "type": "string", "minLength": 1, "maxLength": MAX_PATTERN_BYTES }), MAX_ITEMS
));

fn host_pattern(value: &Node<'_>, text: &str, findings: &mut Findings) -> Option<HostPattern> {
    if text.parse::<IpAddr>().is_ok() {
        return bad_value(
            value,
            format!("\"{text}\" is an IP address, which clients never ask for by SNI"),
            "write a host name; `destination` is for this host's addresses, `source` for the clients'",
            findings,
        );
    }
    match text.parse() {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            let help = match &error {
                HostPatternError::Character if !text.is_ascii() => {
                    "write it as DNS has it, in letters of ASCII (xn--…)"
                }
                HostPatternError::Character => "write the host name alone, such as \"www.example.com\"",
                HostPatternError::Regex(_) => {
                    "`~` begins a regular expression: write one such as \"~^www[0-9]+\\.example\\.com$\""
                }
                HostPatternError::Empty | HostPatternError::TooLong | HostPatternError::Star => {
                    "write \"www.example.com\", \"*.example.com\", \"www.*\" or \"~REGEX\""
                }
            };
            let message = format!("\"{text}\" is not a host name or a pattern: {error}");
            bad_value(value, message, help, findings)
        }
    }
}

impl Field for AlpnNames {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let list = List {
            expected: "the name of a protocol in quotes, or a list of them",
            empty: "write at least one name, such as \"h2\", or leave the key out",
            most: MAX_ITEMS,
            more: "clients offer a few",
        };
        let names = list.read(value, findings, alpn)?;
        Some(Self(names.into_iter().map(|(name, _)| name).collect()))
    }
}
inline_schema!([] AlpnNames, _g => one_or_several(
    &json!({ "type": "string", "minLength": 1, "maxLength": MAX_ALPN_BYTES }), MAX_ITEMS
));

fn alpn(value: &Node<'_>, text: &str, findings: &mut Findings) -> Option<Box<str>> {
    if text.is_empty() || text.len() > MAX_ALPN_BYTES || text.contains(char::is_control) {
        return bad_value(
            value,
            format!("\"{text}\" is not the name of a protocol"),
            "write a name that clients offer by ALPN, such as \"h2\" or \"http/1.1\"",
            findings,
        );
    }
    let registered = match text.to_ascii_lowercase().as_str() {
        "http2" | "http/2" | "http/2.0" => Some("h2"),
        "http1" | "http1.1" | "http/1" | "http" => Some("http/1.1"),
        "http3" | "http/3" => Some("h3"),
        _ => None,
    };
    if let Some(registered) = registered {
        findings.warn(
            value.span(),
            format!("clients do not offer \"{text}\" by ALPN"),
            format!("write \"{registered}\", the registered name"),
        );
    }
    Some(text.into())
}

impl<const MAX: usize> Field for Subjects<MAX> {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let list = List {
            expected: "a network in quotes, or a list of them",
            empty: "write at least one network, such as \"10.0.0.0/8\"",
            most: MAX,
            more: "put the networks into a file and name it in [network_lists]",
        };
        // one that could not be read is not missing
        Some(Self(list.read(value, findings, subject).unwrap_or_default()))
    }
}
inline_schema!([const MAX: usize] Subjects<MAX>, _g => one_or_several(
    &json!({ "type": "string", "minLength": 1 }), MAX
));

impl Field for ProxyPeers {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let list = List {
            expected: "a network in quotes, or a list of them",
            empty: "write at least one network, such as \"10.0.0.0/8\"",
            most: MAX_NETWORKS,
            more: "put the networks into a file and name it in [network_lists]",
        };
        let peer = |value: &Node<'_>, text: &str, findings: &mut Findings| match text {
            // of a frontend's own sockets, whatever their paths
            "unix" | "unix:" => Some(None),
            text => subject(value, text, findings).map(Some),
        };
        // one that could not be read is not missing
        let mut peers = Self::default();
        for (peer, span) in list.read(value, findings, peer).unwrap_or_default() {
            match peer {
                Some(network) => peers.0.push((network, span)),
                None => peers.1 = Some(span),
            }
        }
        Some(peers)
    }
}
inline_schema!([] ProxyPeers, _g => one_or_several(
    &json!({ "type": "string", "minLength": 1 }), MAX_NETWORKS
));

fn subject(value: &Node<'_>, text: &str, findings: &mut Findings) -> Option<RuleSubject> {
    match text.parse() {
        Ok(subject) => Some(subject),
        Err(error) => {
            let (why, help) = match error {
                RuleError::Network(_, _) if !text.contains(['.', ':', '/']) => (
                    "it is not an IP address or network".to_owned(),
                    format!("write \"file:{text}\" for a list of [network_lists]"),
                ),
                RuleError::Network(_, why) => (
                    why.to_string(),
                    "write a network such as \"10.0.0.0/8\", an address, or \"file:NAME\"".to_owned(),
                ),
                other => (
                    other.to_string(),
                    "write \"file:\" and a name of [network_lists]".to_owned(),
                ),
            };
            bad_value(
                value,
                format!("\"{text}\" is not a network: {why}"),
                help,
                findings,
            )
        }
    }
}

impl Field for Destinations {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let list = List {
            expected: "an address, a port, or both, in quotes, or a list of them",
            empty: "write at least one, such as \":443\", or leave the key out",
            most: MAX_ITEMS,
            more: "use networks and ranges of ports",
        };
        let read = |value: &Node<'_>, text: &str, findings: &mut Findings| {
            destination::parse(text).map_or_else(
                |found| bad_value(value, found.message, found.help, findings),
                Some,
            )
        };
        list.read(value, findings, read).map(Self)
    }
}
inline_schema!([] Destinations, _g => one_or_several(&json!({ "type": "string", "minLength": 1 }), MAX_ITEMS));

impl Field for Routes {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let each = |findings: &Findings| {
            format!(
                "write each route as a section with two brackets: [[{}]]",
                findings.path()
            )
        };
        let DeValue::Array(items) = value.get_ref() else {
            let help = each(findings);
            return wrong_type(value, "a list of routes", Some(help), findings);
        };
        if items.is_empty() {
            let message = format!("`{}` is an empty list", findings.key());
            return bad_value(value, message, each(findings), findings);
        }
        if items.len() > MAX_ROUTES {
            return bad_value(
                value,
                format!("`{}` has {} routes", findings.key(), items.len()),
                format!(
                    "the limit is {MAX_ROUTES}: one route can have {MAX_ITEMS} names, and a server names of its own"
                ),
                findings,
            );
        }
        let mut routes = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            if !item.get_ref().is_table() {
                let help = each(findings);
                wrong_type::<()>(item, "a list of sections", Some(help), findings);
                continue;
            }
            let read = findings.within(&index.to_string(), |findings| section::read_item(item, findings));
            routes.extend(read.map(|route| Located {
                value: route,
                span: item.span(),
                key: item.span(),
            }));
        }
        Some(Self(routes))
    }
}
inline_schema!([] Routes, generator => {
    let of = generator.subschema_for::<Route>();
    json_schema!({ "type": "array", "items": of, "minItems": 1, "maxItems": MAX_ROUTES })
});

impl Field for TlvList {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let DeValue::Array(items) = value.get_ref() else {
            let help = format!("write a list, such as {} = [\"crc32c\"]", findings.key());
            return wrong_type(value, "a list of words", Some(help), findings);
        };
        let mut sent = SentTlvs::default();
        for item in items {
            if let Some(tlv) = word::<ProxyTlv>(item, findings) {
                *sent.flag(tlv) = true;
            }
        }
        Some(Self(sent))
    }
}
inline_schema!([] TlvList, _g => {
    let words: Vec<&str> = ProxyTlv::ALL.iter().map(|(_, word)| *word).collect();
    json_schema!({ "type": "array", "items": { "enum": words } })
});

super::fields::word_fields!(ProxyVersion, UnexpectedSni, NonTls);
