//! Frontends whose servers are other frontends, which lead back: a connection would go round until no more can be made.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Range,
};

use super::reached::Listeners;
use crate::{
    base::{Protocol, ServerAddr, SocketPath},
    config::{
        findings::Findings,
        model::{Config, Frontend},
        raw,
        users::Users,
    },
};

/// Where connections go: from frontends to backends, and by their servers to frontends again.
#[derive(Default)]
struct Ways<'a> {
    backends: BTreeMap<&'a str, Vec<&'a str>>,
    frontends: BTreeMap<&'a str, Vec<Way<'a>>>,
}

/// A server that is a frontend.
struct Way<'a> {
    to: &'a str,
    server: &'a str,
    span: Range<usize>,
}

/// A frontend on a way, and how far its ways on were followed: backends, and servers of the one in turn.
struct Step<'a> {
    frontend: &'a str,
    backend: usize,
    way: usize,
}

/// Finds circles of several frontends; one that leads to itself is said elsewhere. To be called for a configuration without
/// errors: one in which an address is listened at once.
pub fn check(file: &raw::File, config: &Config, users: &Users<'_>, findings: &mut Findings) {
    let ways = ways(file, config, users);
    let mut done = BTreeSet::new();
    for start in ways.backends.keys() {
        follow(start, &ways, &mut done, findings);
    }
}

/// The ways of mode proxy that lead on.
fn ways<'a>(file: &'a raw::File, config: &'a Config, users: &Users<'_>) -> Ways<'a> {
    let listeners = Listeners::of(config);
    let at_paths: HashMap<SocketPath, &str> = (config.frontends.iter())
        .flat_map(|(name, frontend)| frontend.sockets.iter().map(move |path| (*path, name.as_str())))
        .collect();
    let mut ways = Ways::default();
    for (backend, at) in file.backends.iter().flat_map(|at| &at.value.0) {
        let proxied: Vec<&Frontend> = (users.of_backend(backend).iter().copied())
            .filter(|user| !user.mode.is_packet())
            .collect();
        let protocols: BTreeSet<Protocol> = proxied.iter().map(|user| user.protocol).collect();
        let furthest = proxied.iter().map(|user| listeners.furthest(user.name.as_str()));
        let furthest = furthest.max().unwrap_or(0);
        let mut seen = BTreeSet::new();
        for (server, at) in at.value.servers.iter().flat_map(|at| &at.value.0) {
            let Some(addr) = at.value.fixed().filter(|addr| seen.insert(addr.value)) else {
                continue;
            };
            let reached = match addr.value {
                ServerAddr::Unix(path) => at_paths.get(&path).copied().into_iter().collect(),
                ServerAddr::Ip(_) => listeners.reached(addr.value, furthest),
            };
            let is_spoken = |to: &&str| {
                let frontend = config.frontends.get(*to);
                frontend.is_some_and(|frontend| protocols.contains(&frontend.protocol))
            };
            let on = reached.into_iter().filter(is_spoken).map(|to| Way {
                to,
                server,
                span: addr.span.clone(),
            });
            ways.frontends.entry(backend).or_default().extend(on);
        }
        if ways
            .frontends
            .get(backend.as_str())
            .is_some_and(|ways| !ways.is_empty())
        {
            for user in proxied {
                if let Some((from, _)) = config.frontends.get_key_value(user.name.as_str()) {
                    ways.backends.entry(from.as_str()).or_default().push(backend);
                }
            }
        }
    }
    ways
}

/// Follows the ways from a frontend, none twice; says where one leads back to a frontend that it came by.
fn follow<'a>(start: &'a str, ways: &Ways<'a>, done: &mut BTreeSet<&'a str>, findings: &mut Findings) {
    let step = |frontend| Step {
        frontend,
        backend: 0,
        way: 0,
    };
    let mut path = Vec::new();
    if done.insert(start) {
        path.push(step(start));
    }
    while let Some(here) = path.last_mut() {
        let backend = ways
            .backends
            .get(here.frontend)
            .and_then(|all| all.get(here.backend));
        let Some(backend) = backend else {
            path.pop();
            continue;
        };
        let Some(way) = ways.frontends.get(backend).and_then(|all| all.get(here.way)) else {
            (here.backend, here.way) = (here.backend + 1, 0);
            continue;
        };
        here.way += 1;
        if let Some(first) = path.iter().position(|step| step.frontend == way.to) {
            let circle: Vec<&str> = path.iter().skip(first).map(|step| step.frontend).collect();
            if circle.len() > 1 {
                say(&circle, backend, way, findings);
            }
        } else if done.insert(way.to) {
            path.push(step(way.to));
        }
    }
}

fn say(circle: &[&str], backend: &str, way: &Way<'_>, findings: &mut Findings) {
    let all = circle.iter().copied().chain([way.to]);
    let all: Vec<String> = all.map(|name| format!("`{name}`")).collect();
    findings.within_all(
        &["backends", backend, "servers", way.server, "addr"],
        |findings| {
            findings.warn(
                way.span.clone(),
                format!(
                    "frontends lead to each other: {}; connections would loop",
                    all.join(" -> ")
                ),
                "write the address of the server behind the load balancer".to_owned(),
            );
        },
    );
}
