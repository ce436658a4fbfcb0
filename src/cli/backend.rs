//! `convey backend`.

use std::io::Write as _;

use super::{
    args::BackendCommand,
    client::{Client, Patience, percent_encode},
    outcome::{CommandResult, Failure},
    server::{Backends, close_connections, closed, report, split_weight, usage, wait_until_drained},
};
use crate::{
    admin::{
        lookup,
        views::{Backend, ServerAction, ServerRequest},
    },
    base::{BackendName, exit},
};

/// Does what is asked for each backend, and prints what has come of it.
pub fn run(command: &BackendCommand, client: &Client) -> CommandResult {
    let (words, force, action) = match command {
        BackendCommand::Drain(args) => (&args.common.backends[..], args.common.force, ServerAction::Drain),
        BackendCommand::Maintenance(args) => (&args.backends[..], args.force, ServerAction::Maintenance),
        BackendCommand::Ready(args) => (&args.backends[..], args.force, ServerAction::Ready),
        BackendCommand::Weight(args) => {
            let (words, weight) = split_weight(&args.backends_and_weight)?;
            (words, args.force, ServerAction::Weight { weight })
        }
        BackendCommand::Close(args) => return close(&args.backends, client),
    };
    let backends: Backends = client.get("/v1/backends")?.parse()?;
    // before the first is changed
    let names = find(&backends, words)?;
    let request = ServerRequest {
        action,
        force: force.force,
    };
    for name in &names {
        tell(name, &send(name, &request, client)?)?;
    }
    let BackendCommand::Drain(args) = command else {
        return Ok(exit::OK);
    };
    let Some(limit) = args.wait.limit() else {
        return Ok(exit::OK);
    };
    let servers = names.iter().flat_map(|name| {
        let servers = backends
            .get(*name)
            .into_iter()
            .flat_map(|view| view.servers.keys());
        servers.map(|server| ((*name).clone(), server.clone()))
    });
    wait_until_drained(client, limit, &servers.collect::<Vec<_>>())
}

fn send(name: &BackendName, request: &ServerRequest, client: &Client) -> Result<Backend, Failure> {
    let body = serde_json::to_vec(request)
        .map_err(|error| Failure::new(exit::SOFTWARE, format!("cannot write the request: {error}")))?;
    let target = format!("/v1/backends/{}", percent_encode(name.as_str()));
    client.post(&target, Some(body), Patience::Short)?.parse()
}

fn tell(name: &BackendName, backend: &Backend) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    if backend.servers.is_empty() {
        writeln!(out, "{name}: no servers")?;
    }
    for (server, view) in &backend.servers {
        writeln!(out, "{}", report(&format!("{name}/{server}"), view))?;
    }
    Ok(out.flush()?)
}

fn close(words: &[String], client: &Client) -> CommandResult {
    let backends: Backends = client.get("/v1/backends")?.parse()?;
    let mut out = std::io::stdout().lock();
    for name in find(&backends, words)? {
        let count = close_connections(client, &format!("backend={}", percent_encode(name.as_str())))?;
        writeln!(out, "{}", closed(name.as_str(), count))?;
        out.flush()?;
    }
    Ok(exit::OK)
}

/// The backends that words name, each once.
fn find<'a>(backends: &'a Backends, words: &[String]) -> Result<Vec<&'a BackendName>, Failure> {
    let mut found = Vec::new();
    for word in words {
        let Some((name, _)) = backends.get_key_value(word.as_str()) else {
            let known = backends.keys().map(BackendName::as_str);
            return Err(usage(lookup::no_backend(word, known).message));
        };
        if !found.contains(&name) {
            found.push(name);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::picture::tests::backends_of;

    #[test]
    fn backends_are_named_each_once_and_an_unknown_one_is_told_with_the_others() {
        let backends = backends_of(&[("web", &["a"]), ("db", &["a"])]);
        let found = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            find(&backends, &words)
                .map(|names| names.into_iter().map(BackendName::as_str).collect::<Vec<_>>())
        };
        assert_eq!(found(&["web", "db", "web"]), Ok(vec!["web", "db"]));
        let Err(Failure::Told { message, .. }) = found(&["wbe"]) else {
            panic!("it is no backend")
        };
        assert_eq!(
            message,
            "no backend `wbe`: did you mean `web`? (backends: db, web)"
        );
    }
}
