//! `map`: which backend a name leads to.

use super::parse::Directive;
use crate::base::HostPattern;

/// What a map asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    /// The name in the ClientHello.
    Name,
    /// The protocols in the ClientHello (ALPN).
    Protocol,
    /// The client's address.
    Source,
    /// The port that the client has connected to.
    Port,
}

/// A line of a map.
#[derive(Debug)]
pub struct Entry<'a> {
    /// The line.
    pub directive: &'a Directive,
    /// What a route asks for: patterns of names, protocols, addresses, or `:PORT`.
    pub patterns: Vec<String>,
    /// What it is mapped to.
    pub value: &'a str,
    /// In which order lines are tried: a name in full, then the longest domain, then the longest beginning, then
    /// expressions as they follow each other.
    rank: (u8, usize),
}

/// A map, its lines in the order in which they are tried.
#[derive(Debug)]
pub struct Map<'a> {
    /// What it asks, or why no route can ask that; then it has no lines.
    pub asks: Result<Asks, String>,
    /// Its lines.
    pub entries: Vec<Entry<'a>>,
    /// What all else is mapped to.
    pub default: &'a str,
    /// Lines without an equal, and why.
    pub others: Vec<(&'a Directive, String)>,
    /// A line without an equal refuses connections.
    pub is_refusing_more: bool,
}

/// Reads a map.
pub fn read(map: &Directive) -> Map<'_> {
    let asks = match map.arg(0) {
        "$ssl_preread_server_name" | "$ssl_server_name" => Ok(Asks::Name),
        "$ssl_preread_alpn_protocols" => Ok(Asks::Protocol),
        "$remote_addr" => Ok(Asks::Source),
        "$server_port" => Ok(Asks::Port),
        "$ssl_preread_protocol" => {
            Err("routes do not ask for the version of TLS: all go where its default says".to_owned())
        }
        other => Err(format!(
            "routes ask for sni, alpn, source and destination, not for {other}: all go where its default says"
        )),
    };
    let has_hostnames = map.inner().iter().any(|line| line.name == "hostnames");
    let mut read = Map {
        asks,
        entries: Vec::new(),
        default: "",
        others: Vec::new(),
        is_refusing_more: false,
    };
    for (index, line) in map.inner().iter().enumerate() {
        match (line.name.as_str(), line.args.as_slice()) {
            ("default", [value]) => read.default = value,
            ("hostnames" | "volatile", []) => {}
            (key, [value]) => match read.asks.as_ref().map(|asks| patterns(key, *asks, has_hostnames)) {
                Ok(Ok(patterns)) => read.entries.push(Entry {
                    directive: line,
                    rank: rank(key, has_hostnames, index),
                    patterns,
                    value,
                }),
                Ok(Err(why)) => {
                    read.is_refusing_more |= value.is_empty();
                    read.others.push((line, why));
                }
                Err(_) => read.is_refusing_more |= value.is_empty(),
            },
            _ => read.others.push((line, String::new())),
        }
    }
    read.entries.sort_by_key(|entry| entry.rank);
    read
}

fn patterns(key: &str, asks: Asks, has_hostnames: bool) -> Result<Vec<String>, String> {
    match asks {
        Asks::Name => names(key, has_hostnames),
        Asks::Protocol => match protocol(key) {
            Some(protocol) => Ok(vec![protocol]),
            None => Err("a route asks for a protocol that is among those of the client, not for all of them: see alpn".to_owned()),
        },
        Asks::Source => match key.parse::<std::net::IpAddr>() {
            Ok(ip) => Ok(vec![ip.to_string()]),
            Err(_) => Err("a route asks for addresses and networks: see source".to_owned()),
        },
        Asks::Port => match crate::import::address::port(key) {
            Some(port) => Ok(vec![format!(":{port}")]),
            None => Err("it is not a port".to_owned()),
        },
    }
}

/// The protocol that a key finds in the client's list: `~\bh2\b`, or the one that is always alone (RFC 8737).
fn protocol(key: &str) -> Option<String> {
    const ACME: &str = "acme-tls/1";
    if key == ACME {
        return Some(ACME.to_owned());
    }
    let word = key.strip_prefix("~\\b")?.strip_suffix("\\b")?;
    let name = word.replace("\\.", ".").replace("\\/", "/").replace("\\-", "-");
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "./-".contains(c);
    // what looks for `h2` finds it in `h2-14` as well, and a dot is any character
    let is_name = !name.is_empty() && name.len() <= 255 && name.chars().all(is_plain);
    is_name.then_some(name)
}

fn names(key: &str, has_hostnames: bool) -> Result<Vec<String>, String> {
    let patterns = if let Some(expression) = key.strip_prefix("~*").or_else(|| key.strip_prefix('~')) {
        vec![format!("~{expression}")]
    } else if let Some(domain) = key.strip_prefix('.').filter(|_| has_hostnames) {
        vec![domain.to_owned(), format!("*.{domain}")]
    } else if key.contains('*') && !has_hostnames {
        return Err("without `hostnames` a star stands for itself, which no name has".to_owned());
    } else {
        vec![key.strip_prefix('\\').unwrap_or(key).to_owned()]
    };
    for pattern in &patterns {
        if let Err(why) = pattern.parse::<HostPattern>() {
            return Err(format!("no route can ask for it: {why}"));
        }
    }
    Ok(patterns)
}

fn rank(key: &str, has_hostnames: bool, index: usize) -> (u8, usize) {
    if key.starts_with('~') {
        (3, index)
    } else if has_hostnames && (key.starts_with("*.") || key.starts_with('.')) {
        (1, usize::MAX - key.len())
    } else if has_hostnames && key.ends_with(".*") {
        (2, usize::MAX - key.len())
    } else {
        (0, index)
    }
}
