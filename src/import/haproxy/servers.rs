//! The servers of a backend, each with what `default-server` says before it.

use std::rc::Rc;

use super::{file::Line, parameters::Parameters, proxies::Proxy};

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
