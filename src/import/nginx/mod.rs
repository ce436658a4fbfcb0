//! nginx's configuration: the section `stream`. What it does with HTTP has no equal.
//!
//! A `server` becomes a frontend, one for each kind of address that it listens on; an `upstream` a backend, one for each way in
//! which servers of `stream` use it, since nginx has times, retries, the PROXY header and TLS to the servers where clients
//! connect, and Convey where the servers are.

mod access;
mod explain;
mod listen;
mod map;
mod parse;
mod scope;
mod server;
mod time;
mod tls;
mod upstream;

use std::collections::{BTreeMap, BTreeSet};

use super::{At, Draft, Files, InputFile, Unreadable};
use parse::Directive;
use scope::Scope;

/// Most addresses, servers and routes that are made of one file.
const MAX_MADE_IN_ALL: usize = 200_000;

/// What is known while a file is translated.
struct Context<'a> {
    draft: &'a mut Draft,
    /// Blocks `upstream` by their names.
    upstreams: BTreeMap<&'a str, &'a Directive>,
    /// Blocks `map` by the variables that they make.
    maps: BTreeMap<&'a str, &'a Directive>,
    /// Zones of `limit_conn` that count the connections of a client.
    client_zones: BTreeSet<&'a str>,
    /// Backends that were made, by what they were made of.
    backends: upstream::Made,
    /// Addresses, servers and routes that may still be made: several servers may use one upstream, one map.
    left: usize,
}

/// Translates a file.
///
/// # Errors
/// It is no configuration of nginx.
pub fn translate(file: &InputFile, draft: &mut Draft, files: &mut dyn Files) -> Result<(), Unreadable> {
    let directives = parse::read(file, draft, files)?;
    let is_block = |directive: &Directive| {
        ["stream", "http", "mail", "events", "server", "upstream"].contains(&directive.name.as_str())
    };
    if !directives
        .iter()
        .any(|directive| directive.block.is_some() && is_block(directive))
    {
        let message = "there is no block `stream`, `http` or `server`: is this a configuration of nginx?";
        return Err(Unreadable::new(&file.name, 1, message));
    }
    let mut is_found = false;
    for directive in &directives {
        match directive.name.as_str() {
            "stream" if directive.block.is_some() => {
                is_found = true;
                draft.translated(directive.id);
                stream(directive.inner(), draft);
            }
            "http" | "mail" => http(directive, draft),
            _ => {}
        }
    }
    // a file that is included in `stream`
    if !is_found && directives.iter().any(is_of_stream) {
        stream(&directives, draft);
    }
    for directive in &directives {
        explain::main(directive, draft);
    }
    Ok(())
}

/// A server that passes connections on, not requests.
fn is_of_stream(directive: &Directive) -> bool {
    directive.name == "server" && directive.inner().iter().any(|inner| inner.name == "proxy_pass")
}

fn http(directive: &Directive, draft: &mut Draft) {
    let why = match directive.name.as_str() {
        "http" => {
            "Convey does not speak HTTP: nothing of it is translated. Where its servers only pass requests on, a frontend can pass \
             their connections on"
        }
        _ => "Convey does not speak the protocols of mail: a frontend can pass their connections on",
    };
    draft.no_equal(directive.id, At::Top, why);
    for server in directive.inner().iter().filter(|inner| inner.name == "server") {
        let all = |name: &str| -> String {
            let found: Vec<String> = (server.inner().iter().filter(|inner| inner.name == name))
                .map(|inner| inner.args.join(" "))
                .collect();
            found.join(", ")
        };
        let mut text = format!("it listens on {}", all("listen"));
        let names = all("server_name");
        if !names.is_empty() {
            text.push_str(&format!(" for {names}"));
        }
        draft.note(server.id, At::Top, "server", super::NoteKind::NoEqual, &text);
    }
}

fn stream(directives: &[Directive], draft: &mut Draft) {
    let outer = scope::by_name(directives);
    let named = |name: &str| outer.get(name).into_iter().flatten().copied();
    let mut context = Context {
        upstreams: named("upstream")
            .map(|upstream| (upstream.arg(0), upstream))
            .collect(),
        maps: named("map").map(|map| (map.arg(1), map)).collect(),
        client_zones: (named("limit_conn_zone"))
            .filter(|zone| ["$remote_addr", "$binary_remote_addr"].contains(&zone.arg(0)))
            .filter_map(|zone| zone.args.iter().find_map(|arg| arg.strip_prefix("zone=")))
            .map(|zone| zone.split(':').next().unwrap_or(zone))
            .collect(),
        backends: upstream::Made::default(),
        left: MAX_MADE_IN_ALL,
        draft,
    };
    for block in named("server") {
        server::translate(block, &Scope::new(&outer, block.inner()), &mut context);
    }
    for upstream in named("upstream") {
        if !context.draft.is_accounted_for(upstream.id) {
            upstream::unused(upstream, &mut context);
        }
    }
    explain::stream(directives, context.draft);
}

#[cfg(test)]
mod tests;
