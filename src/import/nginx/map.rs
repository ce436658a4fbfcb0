//! `map`: which backend a name leads to.

use super::parse::Directive;
use crate::base::HostPattern;

/// What a map asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    /// The name in the ClientHello.
    Name,
    /// The port that the client has connected to.
    Port,
}

/// A line of a map.
#[derive(Debug)]
pub struct Entry<'a> {
    /// The line.
    pub directive: &'a Directive,
    /// Patterns of names as Convey has them, or `:PORT`.
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
    /// What it asks.
    pub asks: Asks,
    /// Its lines.
    pub entries: Vec<Entry<'a>>,
    /// What all else is mapped to.
    pub default: &'a str,
    /// Lines without an equal, and why.
    pub others: Vec<(&'a Directive, String)>,
}

/// Reads a map.
///
/// # Errors
/// Convey cannot ask what it asks: why.
pub fn read(map: &Directive) -> Result<Map<'_>, String> {
    let asks = match map.arg(0) {
        "$ssl_preread_server_name" | "$ssl_server_name" => Asks::Name,
        "$server_port" => Asks::Port,
        other => {
            return Err(format!(
                "routes cannot ask for {other}: see sni, alpn, source and destination"
            ));
        }
    };
    let has_hostnames = map.inner().iter().any(|line| line.name == "hostnames");
    let mut read = Map {
        asks,
        entries: Vec::new(),
        default: "",
        others: Vec::new(),
    };
    for (index, line) in map.inner().iter().enumerate() {
        match (line.name.as_str(), line.args.as_slice()) {
            ("default", [value]) => read.default = value,
            ("hostnames" | "volatile", []) => {}
            (key, [value]) => match patterns(key, asks, has_hostnames) {
                Ok(patterns) => read.entries.push(Entry {
                    directive: line,
                    rank: rank(key, has_hostnames, index),
                    patterns,
                    value,
                }),
                Err(why) => read.others.push((line, why)),
            },
            _ => read.others.push((line, String::new())),
        }
    }
    read.entries.sort_by_key(|entry| entry.rank);
    Ok(read)
}

fn patterns(key: &str, asks: Asks, has_hostnames: bool) -> Result<Vec<String>, String> {
    if asks == Asks::Port {
        return match crate::import::address::port(key) {
            Some(port) => Ok(vec![format!(":{port}")]),
            None => Err("it is not a port".to_owned()),
        };
    }
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
