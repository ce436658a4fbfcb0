//! The servers of a backend, each with what `default-server` says before it.

use std::rc::Rc;

use super::{Context, file::Line, parameters::Parameters, proxies::Proxy, time};
use crate::import::{
    At, NoteKind,
    address::{self, HostPort},
};

/// A server as the file has it.
pub struct Server {
    /// Its line.
    pub line: Line,
    /// HAProxy's name.
    pub name: String,
    /// Where it is, as it is written.
    pub address: String,
    /// How many it stands for, if it is a template.
    pub template: Option<usize>,
    /// Its own words, and those of `default-server`.
    pub parameters: Rc<Parameters>,
}

/// The servers of a backend, in the order of the file.
pub fn of(proxy: &Proxy) -> Vec<Server> {
    let mut defaults = Rc::new(Parameters::default());
    let mut servers = Vec::new();
    for line in &proxy.lines {
        let (name, address, template, from) = match line.name() {
            "default-server" => {
                Rc::make_mut(&mut defaults).take(line.from(1));
                continue;
            }
            "server" => (line.word(1), line.word(2), None, 3),
            "dispatch" => ("dispatch", line.word(1), None, 2),
            "server-template" => (line.word(1), line.word(3), Some(count(line.word(2))), 4),
            _ => continue,
        };
        let own = line.from(from);
        let mut parameters = Rc::clone(&defaults);
        if !own.is_empty() {
            Rc::make_mut(&mut parameters).take(own);
        }
        servers.push(Server {
            line: line.clone(),
            name: name.to_owned(),
            address: address.to_owned(),
            template,
            parameters,
        });
    }
    servers
}

/// `5` or `1-5`.
fn count(text: &str) -> usize {
    let (first, last) = text.split_once('-').unwrap_or(("1", text));
    match (first.parse::<usize>(), last.parse::<usize>()) {
        (Ok(first), Ok(last)) if first <= last => last - first + 1,
        _ => 1,
    }
}

/// Notes where servers say otherwise than the one that counts for all of them, of words that Convey has for a backend.
pub fn unlike<'a>(
    servers: impl IntoIterator<Item = &'a Server>,
    counts: &Server,
    words: &[&str],
    what: &str,
    at: At,
    context: &mut Context<'_>,
) {
    let is_same = |one: &str, other: &str| {
        one == other || time::parse(one).is_some_and(|one| time::parse(other) == Some(one))
    };
    for server in servers {
        let mut missing = Vec::new();
        for word in words {
            match (said(&server.parameters, word), said(&counts.parameters, word)) {
                (Some(own), Some(other)) if is_same(own, other) => {}
                (None, None) => {}
                (Some(own), _) => {
                    let part = format!("{word} {own}");
                    context
                        .draft
                        .note(server.line.id, at, part.trim_end(), NoteKind::Differs, what);
                }
                (None, Some(_)) => missing.push(format!("`{word}`")),
            }
        }
        if !missing.is_empty() {
            let text = format!("it says nothing of {}: {what}", missing.join(", "));
            context.draft.differs(server.line.id, at, &text);
        }
    }
}

/// What is said of a word: its argument, or nothing more.
fn said<'a>(parameters: &'a Parameters, word: &str) -> Option<&'a str> {
    let flag = parameters.has(word).then_some("");
    parameters.value(word).or(flag)
}

/// The port of all checks, if it cannot be said of each server, as some are names of hosts.
pub fn port_of_checks(servers: &[Server]) -> Option<u16> {
    let is_socket = |server: &Server| server.address.starts_with('/') || server.address.starts_with("unix@");
    let port = |server: &Server| server.parameters.value("port").and_then(address::port);
    let mut checked = servers
        .iter()
        .filter(|server| server.parameters.has("check"))
        .peekable();
    let first = port(checked.peek()?)?;
    let is_named = checked
        .clone()
        .any(|server| HostPort::parse(&server.address, true).ip().is_none());
    let is_all = checked.all(|server| port(server) == Some(first) && !is_socket(server));
    (is_all && is_named).then_some(first)
}
