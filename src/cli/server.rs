//! `convey server`.

mod drained;
mod named;
mod runtime;

use std::{collections::BTreeSet, io::Write};

use super::{
    args::{DrainWaitArgs, ServerCommand},
    client::{Client, Patience, percent_encode},
    outcome::{CommandResult, Failure},
    text::harmless,
};
use crate::{
    admin::views::{Server, ServerAction, ServerRequest},
    base::exit,
};
pub use drained::wait_until_drained;
pub use named::{Backends, Named, find};
pub use runtime::{close_connections, closed};

/// Does what is asked for each server, and prints what has come of it.
pub fn run(command: &ServerCommand, client: &Client) -> CommandResult {
    match command {
        ServerCommand::Drain(args) => over(
            &args.common.servers,
            args.common.force.force,
            ServerAction::Drain,
            args.wait,
            client,
        ),
        ServerCommand::Maintenance(args) => {
            let action = ServerAction::Maintenance;
            over(
                &args.servers,
                args.force.force,
                action,
                DrainWaitArgs::default(),
                client,
            )
        }
        ServerCommand::Ready(args) => over(
            &args.servers,
            args.force.force,
            ServerAction::Ready,
            DrainWaitArgs::default(),
            client,
        ),
        ServerCommand::Weight(args) => {
            let (words, weight) = split_weight(&args.servers_and_weight)?;
            let action = ServerAction::Weight { weight };
            over(words, args.force.force, action, DrainWaitArgs::default(), client)
        }
        ServerCommand::Close(args) => runtime::close(&args.servers, client),
        ServerCommand::Add(args) => runtime::add(args, client),
        ServerCommand::Remove(args) => runtime::remove(&args.servers, client),
    }
}

/// Sends a request for each server and prints its state afterwards.
fn over(
    words: &[String],
    force: bool,
    action: ServerAction,
    wait: DrainWaitArgs,
    client: &Client,
) -> CommandResult {
    let request = ServerRequest { action, force };
    let backends: Backends = client.get("/v1/backends")?.parse()?;
    let servers = find(&backends, words).map_err(|problem| usage(problem.message))?;
    if servers.len() > 1 && !request.force {
        leaves_one(&backends, &servers, request.action)?;
    }
    let mut out = std::io::stdout().lock();
    for named in &servers {
        let server = send(*named, &request, client)?;
        writeln!(out, "{}", report(&named.to_string(), &server))?;
        out.flush()?;
    }
    match wait.limit() {
        None => Ok(exit::OK),
        Some(limit) => {
            let waited: Vec<_> = (servers.iter())
                .map(|named| (named.backend.clone(), named.name.clone()))
                .collect();
            wait_until_drained(client, limit, &waited)
        }
    }
}

fn send(named: Named<'_>, request: &ServerRequest, client: &Client) -> Result<Server, Failure> {
    let target = format!(
        "/v1/backends/{}/servers/{}",
        percent_encode(named.backend.as_str()),
        percent_encode(named.name.as_str())
    );
    let body = serde_json::to_vec(request)
        .map_err(|error| Failure::new(exit::SOFTWARE, format!("cannot write the request: {error}")))?;
    client.post(&target, Some(body), Patience::Short)?.parse()
}

/// The daemon refuses to take the last eligible server of a backend; of several, that is to be known before the first goes.
fn leaves_one(backends: &Backends, servers: &[Named<'_>], action: ServerAction) -> Result<(), Failure> {
    let takes = match action {
        ServerAction::Drain | ServerAction::Maintenance => true,
        ServerAction::Weight { weight } => weight == 0,
        ServerAction::Ready => false,
    };
    let affected: BTreeSet<_> = servers.iter().map(|named| named.backend).collect();
    for backend in affected.into_iter().filter(|_| takes) {
        let Some(view) = backends.get(backend) else {
            continue;
        };
        let goes = |name| {
            servers
                .iter()
                .any(|named| named.backend == backend && named.name == name)
        };
        let mut eligible = view
            .servers
            .iter()
            .filter(|(_, server)| server.eligible)
            .peekable();
        if eligible.peek().is_some() && eligible.all(|(name, _)| goes(name)) {
            return Err(usage(format!(
                "backend {backend} would have no eligible server left, so that new connections are refused; nothing was \
                 changed. --force does it anyway"
            )));
        }
    }
    Ok(())
}

/// Names, and a weight after them.
pub fn split_weight(words: &[String]) -> Result<(&[String], u16), Failure> {
    let Some((weight, words)) = words.split_last() else {
        return Err(usage("pass BACKEND/SERVER and a weight"));
    };
    let weight = weight.parse().map_err(|_| {
        usage(format!(
            "`{weight}` is not a valid weight: pass a whole number from 0 to 65535"
        ))
    })?;
    Ok((words, weight))
}

/// What is wrong with the command line.
pub fn usage(message: impl Into<String>) -> Failure {
    Failure::new(exit::USAGE, message)
}

/// A number of connections, in words.
pub fn connections(count: u64) -> String {
    match count {
        1 => "1 connection".to_owned(),
        count => format!("{count} connections"),
    }
}

/// A server after a request about it, in a line.
pub fn report(name: &str, server: &Server) -> String {
    let connections = connections(server.traffic.connections_current);
    let overridden = match &server.overridden {
        Some(overridden) => format!(" (override: {overridden})"),
        None => String::new(),
    };
    let line = format!(
        "{name}: {}{overridden}, weight {}, {connections}",
        server.state, server.weight
    );
    harmless(&line).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{
        args::{Cli, Command},
        picture::tests::{a_server, backends_of},
    };
    use clap::Parser;

    #[test]
    fn a_weight_is_a_whole_number_below_65536() {
        for line in [
            "weight web/a 65536",
            "weight web/a x",
            "weight web a",
            "weight web/a -1",
        ] {
            let line = format!("convey server {line}");
            let is_usage = match Cli::try_parse_from(line.split(' ')).map(|cli| cli.command) {
                Ok(Some(Command::Server(ServerCommand::Weight(args)))) => matches!(
                    split_weight(&args.servers_and_weight),
                    Err(Failure::Told {
                        exit: exit::USAGE,
                        ..
                    })
                ),
                Ok(other) => panic!("{other:?}"),
                Err(_) => true,
            };
            assert!(is_usage, "{line}");
        }
    }

    #[test]
    fn several_servers_go_together_or_not_at_all() {
        let mut backends = backends_of(&[("web", &["one", "two", "three"]), ("db", &["x", "y"])]);
        let web = backends.get_mut("web").expect("the backend");
        web.servers.get_mut("three").expect("the server").eligible = false;
        let judged = |words: &[&str], action| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            let servers = find(&backends, &words).expect("servers");
            leaves_one(&backends, &servers, action).is_ok()
        };
        assert!(judged(&["web/one", "db/x"], ServerAction::Drain));
        assert!(judged(&["web/three", "web/one"], ServerAction::Drain));
        assert!(!judged(&["web/*"], ServerAction::Drain));
        assert!(!judged(&["web/one", "web/two"], ServerAction::Maintenance));
        assert!(!judged(&["db/*"], ServerAction::Weight { weight: 0 }));
        assert!(judged(&["db/*"], ServerAction::Weight { weight: 1 }));
        assert!(judged(&["web/*", "db/*"], ServerAction::Ready));
    }

    #[test]
    fn the_answer_says_the_state_and_who_waits() {
        let mut server = Server {
            overridden: "draining".parse().ok(),
            weight: 2,
            ..a_server(crate::base::ServerState::Draining)
        };
        server.traffic.connections_current = 7;
        assert_eq!(
            report("web/a", &server),
            "web/a: draining (override: draining), weight 2, 7 connections"
        );
    }
}
