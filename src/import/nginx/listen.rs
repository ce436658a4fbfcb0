//! Where a server listens.

use super::{parse::Directive, time};
use crate::import::{
    At, Draft, MAX_MADE, NoteKind, SectionId, Value,
    address::{self, HostPort},
};

/// Least and most bytes of a socket's buffer.
const LEAST_BUFFER: u64 = 4_096;
const MOST_BUFFER: u64 = (1 << 30) - 1;

/// What `listen` lines of one frontend of Convey have in common.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Datagrams.
    pub is_udp: bool,
    /// TLS ends here.
    pub is_tls: bool,
    /// Clients send a PROXY header.
    pub has_proxy: bool,
    /// Keys of the frontend.
    pub keys: Vec<(&'static str, Value)>,
}

/// One line.
#[derive(Debug)]
pub struct Listen<'a> {
    /// The line.
    pub directive: &'a Directive,
    /// Addresses with a port each, or a socket.
    pub places: Vec<String>,
    /// How.
    pub options: Options,
    notes: Vec<(String, NoteKind, &'static str)>,
}

impl Listen<'_> {
    /// Says what is to be said, and that the line is translated.
    pub fn account(&self, draft: &mut Draft, out: SectionId) {
        self.account_at(draft, At::In(out));
    }

    /// The same, where it belongs to no section.
    pub fn account_at(&self, draft: &mut Draft, at: At) {
        draft.translated(self.directive.id);
        for (part, kind, text) in &self.notes {
            draft.note(self.directive.id, at, part, *kind, text);
        }
    }
}

/// Reads a line. So many addresses may still be made.
pub fn read<'a>(directive: &'a Directive, left: &mut usize) -> Listen<'a> {
    let mut listen = Listen {
        directive,
        places: Vec::new(),
        options: Options::default(),
        notes: Vec::new(),
    };
    for arg in directive.args.iter().skip(1) {
        option(arg, &mut listen);
    }
    match places(directive.arg(0)) {
        Ok(places) if places.len() <= *left => {
            *left -= places.len();
            listen.places = places;
        }
        Ok(_) => listen.notes.push((
            directive.arg(0).to_owned(),
            NoteKind::NoEqual,
            "there are too many addresses before it",
        )),
        Err(why) => listen
            .notes
            .push((directive.arg(0).to_owned(), NoteKind::NoEqual, why)),
    }
    listen
}

fn option(arg: &str, listen: &mut Listen<'_>) {
    let (name, value) = arg.split_once('=').unwrap_or((arg, ""));
    let options = &mut listen.options;
    match name {
        "udp" => options.is_udp = true,
        "ssl" => options.is_tls = true,
        "proxy_protocol" => options.has_proxy = true,
        "fastopen" => options.keys.push(("tcp_fast_open", true.into())),
        "deferred" => options.keys.push(("defer_accept", true.into())),
        "backlog" => {
            // -1, as 0, is the kernel's own
            if let Ok(backlog @ 1..) = value.parse::<u32>() {
                options.keys.push(("backlog", backlog.min(65_535).into()));
            }
        }
        "rcvbuf" | "sndbuf" => {
            if let Some(size) = time::size(value) {
                let key = if name == "rcvbuf" {
                    "receive_buffer"
                } else {
                    "send_buffer"
                };
                let fit = size.clamp(LEAST_BUFFER, MOST_BUFFER);
                buffer(key, fit, &mut options.keys);
                if fit != size {
                    let text = "buffers have 4096 bytes or more here, and less than 1 GiB";
                    listen.notes.push((arg.to_owned(), NoteKind::Differs, text));
                }
            }
        }
        "so_keepalive" => keep_alive(value, &mut options.keys),
        // so it is here anyway
        "reuseport" | "bind" | "default_server" | "ipv6only" => {}
        _ => listen.notes.push((arg.to_owned(), NoteKind::NoEqual, "")),
    }
}

fn buffer(key: &str, size: u64, keys: &mut Vec<(&'static str, Value)>) {
    match keys.iter_mut().find(|(known, _)| *known == "client_socket") {
        Some((_, Value::Table(entries))) => entries.push((key.to_owned(), size.into())),
        _ => keys.push(("client_socket", Value::table([(key, size)]))),
    }
}

/// `on`, `off` or `IDLE:INTERVAL:COUNT`.
fn keep_alive(value: &str, keys: &mut Vec<(&'static str, Value)>) {
    let mut table: Vec<(&str, Value)> = Vec::new();
    if value == "off" {
        table.push(("enabled", false.into()));
    }
    let mut parts = value.split(':');
    for key in ["idle", "interval"] {
        if let Some(time) = parts.next().and_then(time::parse) {
            table.push((key, Value::duration(time)));
        }
    }
    if let Some(count) = parts.next().and_then(|text| text.parse::<u32>().ok()) {
        table.push(("count", count.into()));
    }
    if !table.is_empty() {
        keys.push(("client_keepalive", Value::table(table)));
    }
}

fn places(text: &str) -> Result<Vec<String>, &'static str> {
    if text.starts_with("unix:") {
        return Ok(vec![text.to_owned()]);
    }
    let HostPort { host, port } = match text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
        true => HostPort {
            host: String::new(),
            port: Some(text.to_owned()),
        },
        false => HostPort::parse(text, false),
    };
    let host = match host.as_str() {
        "" | "*" => "0.0.0.0",
        host if host.parse::<std::net::IpAddr>().is_ok() => host,
        "localhost" => "127.0.0.1",
        _ => return Err("write the address that the name stands for"),
    };
    let port = port.unwrap_or_default();
    let (first, last) = port.split_once('-').unwrap_or((&port, &port));
    match (address::port(first), address::port(last)) {
        (Some(first), Some(last)) if first <= last && usize::from(last - first) < MAX_MADE => {
            // a range leads to as many ports of a server here, but to one port there
            Ok((first..=last).map(|port| address::joined(host, port)).collect())
        }
        (Some(first), Some(last)) if first <= last => {
            Err("a range of more than 4096 ports is not written out: name the ports that clients use")
        }
        _ => Err("this is no port and no range of ports"),
    }
}
