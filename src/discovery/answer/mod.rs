//! What sources answer: bytes to servers. Pure: no I/O, no clock.
//!
//! An answer is taken whole or not at all, for one that was cut off in the middle must not take servers away. What is wrong
//! is said with its place; of a text from outside no more than a line's worth, and no control characters.

mod consul;
#[cfg(feature = "docker")]
mod docker;
#[cfg_attr(
    not(all(feature = "docker", feature = "kubernetes", feature = "lxd")),
    allow(dead_code, reason = "each platform takes its part of it")
)]
mod instances;
mod json;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
#[cfg(feature = "lxd")]
mod lxd;
#[cfg(feature = "kubernetes")]
mod slices;
#[cfg(test)]
mod tests;
mod text;

use std::{
    collections::{HashMap, HashSet},
    fmt,
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
};

use crate::{
    base::{HostPattern, IpServerAddr, ServerName},
    config::{AnswerFormat, Discovery, NamedServer, Resolve, Server},
};
#[cfg(feature = "docker")]
pub use docker::Containers;
pub use instances::PassedOver;
#[cfg(feature = "kubernetes")]
pub use slices::{Slices, SlicesChange, SlicesEvent};

/// Longest word of an answer in bytes.
const MAX_WORD_BYTES: usize = 1_024;

/// Most different names (`sni`) of an answer's servers: each is chosen among by itself.
const MAX_NAMES: usize = 256;

/// How much of an answer is taken.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes.
    pub bytes: usize,
    /// Servers, those named twice once.
    pub servers: usize,
}

impl Limits {
    /// Those of a source.
    #[must_use]
    pub fn of(settings: &Discovery) -> Self {
        Self {
            bytes: usize::try_from(settings.max_answer_bytes).unwrap_or(usize::MAX),
            servers: usize::try_from(settings.max_servers.get()).unwrap_or(usize::MAX),
        }
    }
}

/// The servers that a source names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// Sorted by name; each address and each name once.
    pub servers: Vec<Server>,
    /// How many were named again at the same address; the first counts.
    pub duplicates: usize,
    /// Of what the source says nothing this time: those servers stay.
    pub unanswered: Vec<Unanswered>,
    /// What the source names that is no server.
    pub passed_over: PassedOver,
}

/// The name of a server that nothing is known of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unanswered {
    /// The server.
    pub server: NamedServer,
    /// Why.
    pub why: String,
}

/// What is wrong with an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// More bytes than wanted.
    #[error("the answer has more than {0} bytes (max_answer_bytes)")]
    TooLarge(usize),
    /// More servers than wanted.
    #[error("the answer has more than {0} servers (max_servers)")]
    TooMany(usize),
    /// No UTF-8.
    #[error("the answer is not text (UTF-8)")]
    NotText,
    /// No JSON, or another document.
    #[error("{0}")]
    Document(String),
    /// One server of it.
    #[error("{0}: {1}")]
    Server(Place, String),
}

/// What is wrong with JSON, without what stands there: that may be long, or a secret.
fn of_json(error: &serde_json::Error) -> String {
    let (line, column) = (error.line(), error.column());
    let text = error.to_string();
    let what = match error.classify() {
        serde_json::error::Category::Data if text.starts_with("missing field `") => text,
        serde_json::error::Category::Data => "a value of another type than belongs there".to_owned(),
        _ => return text,
    };
    match line {
        // of a part that was read before
        0 => what,
        _ if what.contains(" at line ") => what,
        _ => format!("{what} at line {line} column {column}"),
    }
}

/// Where in an answer something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A line, from 1.
    Line(usize),
    /// An element of the list, from 1.
    Element(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, "line {line}"),
            Self::Element(index) => write!(f, "server {index}"),
        }
    }
}

/// Reads an answer.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn parse(format: &AnswerFormat, bytes: &[u8], limits: Limits) -> Result<Answer, Malformed> {
    if bytes.len() > limits.bytes {
        return Err(Malformed::TooLarge(limits.bytes));
    }
    match format {
        AnswerFormat::Text => text::parse(bytes, limits),
        AnswerFormat::Json(paths) => json::parse(bytes, paths, limits),
        AnswerFormat::Regex(pattern) => text::parse_by(pattern, bytes, limits),
    }
}

/// Reads the instances of a service, as Consul answers with them.
///
/// # Errors
/// The first thing that is wrong with them.
pub fn of_consul(bytes: &[u8], limits: Limits) -> Result<Answer, Malformed> {
    consul::parse(bytes, limits)
}

/// Reads the instances that LXD or Incus answers with.
///
/// # Errors
/// They are none, or too many.
#[cfg(feature = "lxd")]
pub fn of_lxd(bytes: &[u8], query: &crate::config::LxdQuery, limits: Limits) -> Result<Answer, Malformed> {
    lxd::parse(bytes, query, limits)
}

/// A server that has no text of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// Where it is.
    pub addr: SocketAddr,
    /// Its share, 0 for next to none.
    pub weight: u16,
    /// The lowest is used first.
    pub priority: u16,
}

/// The servers of records, such as name servers have.
///
/// # Errors
/// There are too many.
pub fn of_records(records: impl IntoIterator<Item = Record>, limits: Limits) -> Result<Answer, Malformed> {
    let mut collector = Collector::new(limits);
    for (record, number) in records.into_iter().zip(1..) {
        let named = Named {
            // a server without a share would get nothing at all, which RFC 2782 does not want
            weight: Some(record.weight.max(1).into()),
            priority: Some(record.priority.into()),
            ..Named::default()
        };
        let place = Place::Element(number);
        if record.addr.port() == 0 {
            return Err(Malformed::Server(place, format!("{} has port 0", record.addr)));
        }
        collector.add_at(place, IpServerAddr::new(record.addr), &named)?;
    }
    Ok(collector.finish())
}

/// A server as it is named, its numbers not looked at yet.
#[derive(Debug, Default)]
struct Named<'a> {
    name: Option<&'a str>,
    weight: Option<u64>,
    priority: Option<u64>,
    max_connections: Option<u64>,
    sni: Option<&'a str>,
}

/// The servers that names of the file stand for, each with its addresses or why there are none.
///
/// # Errors
/// There are too many.
pub fn of_names(
    names: &[(NamedServer, Result<Vec<IpAddr>, String>)],
    limits: Limits,
) -> Result<Answer, Malformed> {
    let mut collector = Collector::new(limits);
    let mut unanswered = Vec::new();
    for ((server, found), number) in names.iter().zip(1..) {
        let addresses = match found {
            Ok(addresses) => addresses,
            Err(why) => {
                let (server, why) = (server.clone(), why.clone());
                unanswered.push(Unanswered { server, why });
                continue;
            }
        };
        let lowest = addresses.iter().min();
        let chosen: Vec<IpAddr> = match server.resolve {
            Resolve::First => lowest.copied().into_iter().collect(),
            Resolve::All => addresses.clone(),
        };
        for ip in chosen {
            let name = server.at(ip);
            let named = Named {
                name: Some(&name),
                weight: Some(server.weight.into()),
                priority: Some(server.priority.into()),
                max_connections: server.max_connections.map(|most| most.get().into()),
                sni: None,
            };
            let addr = IpServerAddr::new(SocketAddr::new(ip, server.port.get()));
            if let Some(added) = collector.add_at(Place::Element(number), addr, &named)? {
                added.sni.clone_from(&server.sni);
            }
        }
    }
    let mut answer = collector.finish();
    answer.unanswered = unanswered;
    Ok(answer)
}

/// A server that an operator names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// Its name; `None`: its address.
    pub name: Option<&'a str>,
    /// `IP:port`.
    pub addr: &'a str,
    /// Its share. Default 1.
    pub weight: Option<u64>,
    /// The lowest is used first. Default 1.
    pub priority: Option<u64>,
    /// Its limit of connections; 0: none.
    pub max_connections: Option<u64>,
    /// The name that it serves.
    pub sni: Option<&'a str>,
}

/// The server that an operator names.
///
/// # Errors
/// What is wrong with it.
pub fn of_wanted(wanted: &Wanted<'_>) -> Result<Server, Malformed> {
    let mut collector = Collector::new(Limits { bytes: 0, servers: 1 });
    let named = Named {
        name: wanted.name,
        weight: wanted.weight,
        priority: wanted.priority,
        max_connections: wanted.max_connections,
        sni: wanted.sni,
    };
    let place = Place::Element(1);
    collector.add(place, wanted.addr, &named)?;
    let server = collector.answer.servers.pop();
    server.ok_or_else(|| Malformed::Server(place, "it has no address".into()))
}

/// Collects the servers of an answer.
struct Collector {
    limits: Limits,
    answer: Answer,
    addresses: HashSet<IpServerAddr>,
    names: HashMap<ServerName, Place>,
    patterns: HashSet<String>,
}

impl Collector {
    fn new(limits: Limits) -> Self {
        Self {
            limits,
            answer: Answer::default(),
            addresses: HashSet::new(),
            names: HashMap::new(),
            patterns: HashSet::new(),
        }
    }

    /// Takes a server at an address, `IP:port`.
    fn add(&mut self, place: Place, addr: &str, named: &Named<'_>) -> Result<(), Malformed> {
        let wrong = |why: String| Malformed::Server(place, why);
        plain(addr).map_err(wrong)?;
        let addr = crate::config::parse_server(addr)
            .map_err(|fault| wrong(format!("{}; {}", fault.message, fault.help)))?;
        self.add_at(place, addr, named).map(drop)
    }

    /// Takes a server, unless it has been named before.
    fn add_at(
        &mut self,
        place: Place,
        addr: IpServerAddr,
        named: &Named<'_>,
    ) -> Result<Option<&mut Server>, Malformed> {
        let wrong = |why: String| Malformed::Server(place, why);
        let server = self.server(addr, named).map_err(wrong)?;
        if !self.addresses.insert(addr) {
            self.answer.duplicates += 1;
            return Ok(None);
        }
        if self.answer.servers.len() >= self.limits.servers {
            return Err(Malformed::TooMany(self.limits.servers));
        }
        if let Some(before) = self.names.insert(server.name.clone(), place) {
            return Err(wrong(format!("the name {} is that of {before} too", server.name)));
        }
        self.answer.servers.push(server);
        Ok(self.answer.servers.last_mut())
    }

    fn server(&mut self, addr: IpServerAddr, named: &Named<'_>) -> Result<Server, String> {
        let name = match named.name {
            Some(name) => {
                plain(name)?;
                ServerName::new(name).map_err(|error| error.to_string())?
            }
            None => ServerName::new(&addr.to_string()).map_err(|error| error.to_string())?,
        };
        let most = u64::from(u32::MAX);
        let max_connections = number("max_connections", named.max_connections, 0, most)?;
        Ok(Server {
            name,
            addr: addr.into(),
            weight: u16::try_from(number("weight", named.weight, 1, u16::MAX.into())?).unwrap_or(u16::MAX),
            priority: u16::try_from(number("priority", named.priority, 1, u16::MAX.into())?)
                .unwrap_or(u16::MAX),
            // 0 is no limit, as in gobetween
            max_connections: u32::try_from(max_connections).ok().and_then(NonZeroU32::new),
            sni: match named.sni {
                Some(sni) if !sni.is_empty() => vec![self.pattern(sni)?],
                _ => Vec::new(),
            },
            check_addr: None,
        })
    }

    fn pattern(&mut self, sni: &str) -> Result<HostPattern, String> {
        plain(sni)?;
        if sni.starts_with('~') {
            // compiled, they take far more memory than an answer
            return Err(format!(
                "sni {sni} is a regular expression, which only the configuration may have"
            ));
        }
        let pattern: HostPattern = sni.parse().map_err(|error| format!("sni {sni}: {error}"))?;
        self.patterns.insert(pattern.as_str().to_owned());
        if self.patterns.len() > MAX_NAMES {
            return Err(format!(
                "the answer has more than {MAX_NAMES} different names in sni"
            ));
        }
        Ok(pattern)
    }

    fn finish(mut self) -> Answer {
        self.answer.servers.sort_by(|a, b| a.name.cmp(&b.name));
        self.answer
    }
}

/// A number in bounds, or what it is without one.
fn number(key: &str, value: Option<u64>, default: u64, most: u64) -> Result<u64, String> {
    match value {
        None => Ok(default),
        Some(value) if value <= most => Ok(value),
        Some(value) => Err(format!("{key} is {value}, and {most} is the most")),
    }
}

/// A number of digits alone.
fn digits(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

/// Refuses words that would break a log line.
fn plain(word: &str) -> Result<(), String> {
    if word.len() > MAX_WORD_BYTES {
        return Err(format!("a word has more than {MAX_WORD_BYTES} bytes"));
    }
    match word.chars().find(|c| c.is_control()) {
        Some(control) => Err(format!(
            "there is a control character ({})",
            control.escape_unicode()
        )),
        None => Ok(()),
    }
}
