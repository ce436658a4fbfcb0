//! Where a frontend listens, and with which TLS.

use super::{file::Line, time, tls};
use crate::import::{
    At, Draft, Files, MAX_MADE, NoteKind, SectionId, Value,
    address::{self, HostPort},
};

/// What `bind` lines of one frontend of Convey have in common.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// TLS ends here.
    pub tls: Option<tls::Ended>,
    /// Every client sends a PROXY header.
    pub accepts_proxy: bool,
    /// Keys of the frontend.
    pub keys: Vec<(&'static str, Value)>,
}

/// A range of ports at a host, or a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Host, first and last port.
    Ports(String, u16, u16),
    /// `unix:/path`.
    Unix(String),
}

impl Place {
    /// As `listen_addr` has it.
    pub fn text(&self) -> String {
        match self {
            Self::Ports(host, first, last) if first == last => address::joined(host, first),
            Self::Ports(host, first, last) => address::joined(host, format!("{first}-{last}")),
            Self::Unix(path) => path.clone(),
        }
    }

    /// Each port by itself.
    pub fn single(&self) -> Vec<Self> {
        match self {
            Self::Ports(host, first, last) => (*first..=*last)
                .map(|port| Self::Ports(host.clone(), port, port))
                .collect(),
            Self::Unix(_) => vec![self.clone()],
        }
    }
}

/// What one line says, and what is to be noted about its parts where the frontend stands.
#[derive(Debug)]
pub struct Bind {
    /// The line.
    pub line: Line,
    /// Where.
    pub places: Vec<Place>,
    /// How.
    pub options: Options,
    /// Parts without an equal, or with another meaning.
    pub notes: Vec<(String, NoteKind, String)>,
}

impl Bind {
    /// Says what is to be said, and that the line is translated.
    pub fn account(&self, draft: &mut Draft, out: SectionId) {
        draft.translated(self.line.id);
        for (part, kind, text) in &self.notes {
            draft.note(self.line.id, At::In(out), part, *kind, text);
        }
    }
}

/// Reads a `bind` line.
pub fn read(line: &Line, shared: &tls::Shared, is_http: bool, files: &mut dyn Files) -> Bind {
    let mut bind = Bind {
        line: line.clone(),
        places: Vec::new(),
        options: Options::default(),
        notes: Vec::new(),
    };
    for address in line.word(1).split(',').filter(|address| !address.is_empty()) {
        match place(address) {
            Ok(place) => bind.places.push(place),
            Err(why) => bind.notes.push((address.to_owned(), NoteKind::NoEqual, why)),
        }
    }
    let words = line.from(2);
    let is_tls = words.iter().any(|word| word == "ssl");
    let mut tls = tls::Reader::new(shared, is_http);
    if is_tls {
        // what the line says itself counts more
        let mut defaults = shared.tls_words.iter();
        while let Some(word) = defaults.next() {
            tls.take(word, &mut defaults, files);
        }
        // noted where those defaults stand
        tls.notes.clear();
    }
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if tls.take(word, &mut words, files) {
            continue;
        }
        option(word, &mut words, &mut bind);
    }
    if is_tls {
        bind.notes.append(&mut tls.notes);
        bind.options.tls = Some(tls.ended);
    }
    bind
}

fn option(word: &str, words: &mut std::slice::Iter<'_, String>, bind: &mut Bind) {
    let mut argument = || words.next().cloned().unwrap_or_default();
    let no = |part: String, why: &str| (part, NoteKind::NoEqual, why.to_owned());
    match word {
        "accept-proxy" => bind.options.accepts_proxy = true,
        "defer-accept" => bind.options.keys.push(("defer_accept", true.into())),
        "tfo" => bind.options.keys.push(("tcp_fast_open", true.into())),
        "interface" => bind.options.keys.push(("interface", argument().into())),
        "backlog" => match argument().parse::<u32>() {
            Ok(backlog) => bind.options.keys.push(("backlog", backlog.into())),
            Err(_) => bind.notes.push(no(word.to_owned(), "it is not a number")),
        },
        "tcp-ut" => {
            let text = argument();
            match time::parse(&text) {
                Some(time) => bind
                    .options
                    .keys
                    .push(("tcp_user_timeout", Value::duration(time))),
                None => bind
                    .notes
                    .push(no(format!("{word} {text}"), "it is not a length of time")),
            }
        }
        "mode" => {
            let text = argument();
            let digits = format!("{text:0>4}");
            bind.options.keys.push(("socket_mode", digits.into()));
        }
        "group" => bind.options.keys.push(("socket_group", argument().into())),
        // names, and how the work is spread over threads
        "name" | "id" | "process" | "thread" | "shards" | "nice" | "label" | "guid-prefix" => {
            argument();
        }
        // IPv4 is taken as well, unless the system says otherwise
        "v4v6" => {}
        "v6only" => bind.notes.push((
            word.to_owned(),
            NoteKind::Differs,
            "\"[::]\" takes IPv4 as well here: name the IPv6 addresses instead".to_owned(),
        )),
        "transparent" => bind.notes.push((
            word.to_owned(),
            NoteKind::NoEqual,
            "the address must be one of this host: see interface, and the mode dsr".to_owned(),
        )),
        "user" | "uid" | "gid" => {
            let part = format!("{word} {}", argument());
            bind.notes.push(no(
                part,
                "a socket belongs to the user that Convey runs as: see socket_group",
            ));
        }
        "maxconn" => {
            let part = format!("{word} {}", argument());
            bind.notes.push(no(part, "see max_connections of the frontend"));
        }
        "mss" | "namespace" | "level" | "severity-output" | "expose-fd" | "proto" | "cc" | "idle-ping"
        | "quic-cc-algo" | "quic-socket" | "tcp-md5sig" | "npn" | "tls-ticket-keys" => {
            let part = format!("{word} {}", argument());
            bind.notes.push(no(part, ""));
        }
        word => bind.notes.push(no(word.to_owned(), "")),
    }
}

/// Where an address of `bind` is.
fn place(text: &str) -> Result<Place, String> {
    let text = text
        .strip_prefix("ipv4@")
        .or_else(|| text.strip_prefix("ipv6@"))
        .unwrap_or(text);
    let text = text
        .strip_prefix("tcp@")
        .or_else(|| text.strip_prefix("tcp4@"))
        .unwrap_or(text);
    let text = text.strip_prefix("tcp6@").unwrap_or(text);
    if let Some(path) = text
        .strip_prefix("unix@")
        .or_else(|| text.starts_with('/').then_some(text))
    {
        return Ok(Place::Unix(format!("unix:{path}")));
    }
    if let Some((kind, _)) = text.split_once('@') {
        let why = match kind {
            "udp" | "udp4" | "udp6" => "this protocol does not go through a proxy of TCP",
            "quic4" | "quic6" => "Convey speaks no QUIC: forward it with protocol = \"udp\"",
            _ => "Convey listens on addresses and on sockets with a path",
        };
        return Err(why.to_owned());
    }
    let HostPort { host, port } = HostPort::parse(text, true);
    let host = match host.as_str() {
        "" | "*" => "0.0.0.0".to_owned(),
        host if host.parse::<std::net::IpAddr>().is_ok() => host.to_owned(),
        host => {
            return Err(format!(
                "`{host}` is not an address: write the one that it stands for"
            ));
        }
    };
    let port = port.unwrap_or_default();
    let (first, last) = port.split_once('-').unwrap_or((&port, &port));
    match (address::port(first), address::port(last)) {
        (Some(first), Some(last)) if first <= last && usize::from(last - first) < MAX_MADE => {
            Ok(Place::Ports(host, first, last))
        }
        _ => Err(format!(
            "`{port}` is not a port or a range of at most {MAX_MADE} ports"
        )),
    }
}
