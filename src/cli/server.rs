//! `convey server drain|maintenance|ready|weight`.

mod named;

use std::{collections::BTreeSet, io::Write};

use super::{
    args::ServerCommand,
    client::{Client, Patience, percent_encode},
    outcome::{CommandResult, Failure},
    text::harmless,
};
use crate::{
    admin::views::{Server, ServerAction, ServerRequest},
    base::exit,
};
use named::{Backends, Named};

/// Sends a request for each server and prints its state afterwards.
pub fn run(command: &ServerCommand, client: &Client) -> CommandResult {
    let (words, request) = parse(command)?;
    let backends: Backends = client.get("/v1/backends")?.parse()?;
    let servers = named::find(&backends, words).map_err(|problem| usage(problem.message))?;
    if servers.len() > 1 && !request.force {
        leaves_one(&backends, &servers, request.action)?;
    }
    let mut out = std::io::stdout().lock();
    for named in servers {
        let server = send(named, &request, client)?;
        writeln!(out, "{}", report(&named.to_string(), &server))?;
        out.flush()?;
    }
    Ok(exit::OK)
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

fn parse(command: &ServerCommand) -> Result<(&[String], ServerRequest), Failure> {
    let (words, force, action) = match command {
        ServerCommand::Drain(args) => (args.servers.as_slice(), args.force, ServerAction::Drain),
        ServerCommand::Maintenance(args) => (args.servers.as_slice(), args.force, ServerAction::Maintenance),
        ServerCommand::Ready(args) => (args.servers.as_slice(), args.force, ServerAction::Ready),
        ServerCommand::Weight(args) => {
            let Some((weight, words)) = args.servers_and_weight.split_last() else {
                return Err(usage("pass BACKEND/SERVER and a weight"));
            };
            let weight = weight.parse().map_err(|_| {
                usage(format!(
                    "`{weight}` is not a valid weight: pass a whole number from 0 to 65535"
                ))
            })?;
            (words, args.force, ServerAction::Weight { weight })
        }
    };
    let request = ServerRequest {
        action,
        force: force.force,
    };
    Ok((words, request))
}

fn usage(message: impl Into<String>) -> Failure {
    Failure::new(exit::USAGE, message)
}

fn report(name: &str, server: &Server) -> String {
    let connections = match server.traffic.connections_current {
        1 => "1 connection".to_owned(),
        count => format!("{count} connections"),
    };
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

    fn request(line: &str) -> Result<(Vec<String>, ServerRequest), Failure> {
        match Cli::try_parse_from(line.split(' '))
            .expect("good grammar")
            .command
        {
            Some(Command::Server(command)) => {
                parse(&command).map(|(words, request)| (words.to_vec(), request))
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_command_is_a_request_for_the_servers_that_follow() {
        for (line, words, action) in [
            ("drain web/a", &["web/a"][..], ServerAction::Drain),
            ("drain web/a web/b", &["web/a", "web/b"], ServerAction::Drain),
            ("ready web a --socket x", &["web", "a"], ServerAction::Ready),
            ("maintenance web/*", &["web/*"], ServerAction::Maintenance),
            ("weight web/a 0", &["web/a"], ServerAction::Weight { weight: 0 }),
            (
                "weight web a 65535",
                &["web", "a"],
                ServerAction::Weight { weight: 65535 },
            ),
        ] {
            let (found, request) = request(&format!("convey server {line}")).expect(line);
            assert_eq!(
                (found, request.action),
                (words.iter().map(|w| (*w).to_owned()).collect(), action)
            );
            assert!(!request.force);
        }
    }

    #[test]
    fn the_last_eligible_server_goes_only_by_force() {
        for line in [
            "convey server drain --force web/a",
            "convey server maintenance web a --force",
            "convey server weight --force web/a 0",
        ] {
            let (_, request) = request(line).expect("good usage");
            assert!(request.force, "{line}");
        }
    }

    #[test]
    fn a_weight_is_a_whole_number_below_65536() {
        for line in [
            "weight web/a 65536",
            "weight web/a x",
            "weight web a",
            "weight web/a -1",
        ] {
            let line = format!("convey server {line}");
            let is_usage = match Cli::try_parse_from(line.split(' ')) {
                Ok(_) => matches!(
                    request(&line),
                    Err(Failure::Told {
                        exit: exit::USAGE,
                        ..
                    })
                ),
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
            let servers = named::find(&backends, &words).expect("servers");
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
