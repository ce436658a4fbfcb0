//! A small dialect of configuration, so that each scenario says in a line what it is about.

use std::{collections::BTreeSet, fmt::Write, os::fd::OwnedFd, path::Path};

use convey::{
    config::{self, Diagnostic, Loaded, Options, PacketService, Severity, Source},
    privilege::{Channel, Children, ForkError, KernelOps, Start, Target},
};

/// User and group id of `nobody` and `nogroup` on Debian.
pub const NOBODY: u32 = 65_534;
/// A port that only CAP_NET_BIND_SERVICE binds.
pub const LOW_PORT: u16 = 81;

/// The bytes of a configuration.
pub fn source(text: &str) -> Source {
    Source {
        name: "test.conf".into(),
        bytes: text.as_bytes().to_vec(),
    }
}

/// Each line is `NAME ADDRESS`: a frontend and what it listens on. A frontend in a packet mode goes on with
/// `MODE INTERFACE SERVER`, where the interface may be `-` for none. The line `engine=xdp` is about all of them.
pub fn parse(source: &Source, options: Options) -> Result<Loaded, Vec<Diagnostic>> {
    let text = String::from_utf8_lossy(&source.bytes);
    // a file without any section would be an error of its own
    let frontends = text.lines().map(frontend);
    let translated = std::iter::once(Some("[global]\n".to_owned())).chain(frontends);
    let translated = translated.collect::<Option<String>>();
    let translated = translated.ok_or_else(|| vec![diagnostic(&source.name)])?;
    let toml = Source {
        name: source.name.clone(),
        bytes: translated.into_bytes(),
    };
    config::load(&toml, options)
}

/// Forks the broker of such a configuration, by a daemon that has no listeners yet.
pub fn fork(
    path: &Path,
    text: &str,
    target: Option<&Target>,
    executor: Box<dyn KernelOps>,
) -> Result<Channel, ForkError> {
    fork_after(Vec::new(), path, text, target, executor)
}

/// As [`fork`], after a process whose descriptors were kept.
pub fn fork_after(
    kept: Vec<(String, OwnedFd)>,
    path: &Path,
    text: &str,
    target: Option<&Target>,
    executor: Box<dyn KernelOps>,
) -> Result<Channel, ForkError> {
    let start = Start {
        parse,
        path,
        source: &source(text),
        options: Options::default(),
        target,
        kernel: executor,
        // it has no listeners yet
        bound: BTreeSet::new(),
        kept,
        keeps_sockets: false,
        hidden: Vec::new(),
    };
    let Children { broker, runner } = start.fork()?;
    // it ends with the daemon, not before
    std::mem::forget(runner);
    Ok(broker)
}

/// The services of a configuration in packet modes.
pub fn services(text: &str) -> Vec<PacketService> {
    parse(&source(text), Options::default())
        .unwrap()
        .config
        .packet_services()
}

fn frontend(line: &str) -> Option<String> {
    let words: Vec<_> = line.split_whitespace().collect();
    let (name, addr, packet) = match words.as_slice() {
        ["engine=xdp"] => return Some("[packet]\nengine = \"xdp\"\nmax_flows = 4096\n".to_owned()),
        [name, addr] => (name, addr, None),
        [name, addr, mode, interface, server] => (name, addr, Some((mode, interface, server))),
        _ => return None,
    };
    let mut toml = format!("[frontends.{name}]\nlisten_addr = \"{addr}\"\nbackend = \"{name}\"\n");
    let mut target = "127.0.0.9:9";
    if let Some((mode, interface, server)) = packet {
        target = server;
        writeln!(toml, "mode = \"{mode}\"").ok()?;
        if *interface != "-" {
            writeln!(toml, "interface = \"{interface}\"").ok()?;
        }
    } else {
        toml.push_str("tcp_user_timeout = \"7s\"\n");
    }
    writeln!(toml, "[backends.{name}]\nservers.a = {{ addr = \"{target}\" }}").ok()?;
    Some(toml)
}

fn diagnostic(file: &str) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        file: file.into(),
        line: 0,
        column: 0,
        span: 0..0,
        path: String::new(),
        message: "not `NAME ADDRESS`".into(),
        help: None,
    }
}
