//! `convey server drain|maintenance|ready|weight`.

use std::io::Write;

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

/// A server as the operator named it.
#[derive(Debug, PartialEq, Eq)]
struct Named {
    backend: String,
    server: String,
}

/// Sends the request and prints the server's state afterwards.
pub fn run(command: &ServerCommand, client: &Client) -> CommandResult {
    let (named, request) = parse(command)?;
    let target = format!(
        "/v1/backends/{}/servers/{}",
        percent_encode(&named.backend),
        percent_encode(&named.server)
    );
    let body = serde_json::to_vec(&request)
        .map_err(|error| Failure::new(exit::SOFTWARE, format!("cannot write the request: {error}")))?;
    let server: Server = client.post(&target, Some(body), Patience::Short)?.parse()?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", report(&named, &server))?;
    Ok(exit::OK)
}

fn parse(command: &ServerCommand) -> Result<(Named, ServerRequest), Failure> {
    let (server, force, action) = match command {
        ServerCommand::Drain(args) => (args.server.as_slice(), args.force, ServerAction::Drain),
        ServerCommand::Maintenance(args) => (args.server.as_slice(), args.force, ServerAction::Maintenance),
        ServerCommand::Ready(args) => (args.server.as_slice(), args.force, ServerAction::Ready),
        ServerCommand::Weight(args) => {
            let Some((weight, server)) = args.server_and_weight.split_last() else {
                return Err(usage("pass BACKEND/SERVER and a weight"));
            };
            let weight = weight.parse().map_err(|_| {
                usage(format!(
                    "`{weight}` is not a valid weight: pass a whole number from 0 to 65535"
                ))
            })?;
            (server, args.force, ServerAction::Weight { weight })
        }
    };
    let request = ServerRequest {
        action,
        force: force.force,
    };
    Ok((named(server)?, request))
}

fn named(words: &[String]) -> Result<Named, Failure> {
    let (backend, server) = match words {
        [both] => {
            let mut parts = both.split('/');
            match (parts.next(), parts.next(), parts.next()) {
                (Some(backend), Some(server), None) => (backend, server),
                (_, None, _) => {
                    return Err(usage(format!(
                        "`{both}` does not name a server: pass BACKEND/SERVER, such as web/a"
                    )));
                }
                _ => {
                    return Err(usage(format!(
                        "`{both}` has more than one slash: pass BACKEND and SERVER as two arguments"
                    )));
                }
            }
        }
        [backend, server] => (backend.as_str(), server.as_str()),
        _ => return Err(usage("pass BACKEND/SERVER")),
    };
    if backend.is_empty() || server.is_empty() {
        return Err(usage(
            "the names of the backend and the server must not be empty: pass BACKEND/SERVER",
        ));
    }
    Ok(Named {
        backend: backend.to_owned(),
        server: server.to_owned(),
    })
}

fn usage(message: impl Into<String>) -> Failure {
    Failure::new(exit::USAGE, message)
}

fn report(named: &Named, server: &Server) -> String {
    let connections = match server.traffic.connections_current {
        1 => "1 connection".to_owned(),
        count => format!("{count} connections"),
    };
    let overridden = match &server.overridden {
        Some(overridden) => format!(" (override: {overridden})"),
        None => String::new(),
    };
    let line = format!(
        "{}/{}: {}{overridden}, weight {}, {connections}",
        named.backend, named.server, server.state, server.weight
    );
    harmless(&line).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        admin::views::Traffic,
        base::{ServerAddr, ServerState},
        cli::args::{Cli, Command},
    };
    use clap::Parser;

    fn order(line: &str) -> Result<(Named, ServerRequest), Failure> {
        match Cli::try_parse_from(line.split(' '))
            .expect("good grammar")
            .command
        {
            Some(Command::Server(command)) => parse(&command),
            other => panic!("{other:?}"),
        }
    }

    fn web_a(action: ServerAction) -> Result<(Named, ServerRequest), Failure> {
        let named = Named {
            backend: "web".into(),
            server: "a".into(),
        };
        let force = false;
        Ok((named, ServerRequest { action, force }))
    }

    #[test]
    fn a_server_is_named_in_one_word_or_two() {
        assert_eq!(order("convey server drain web/a"), web_a(ServerAction::Drain));
        assert_eq!(order("convey server drain web a"), web_a(ServerAction::Drain));
        assert_eq!(
            order("convey server ready web/a --socket x"),
            web_a(ServerAction::Ready)
        );
        assert_eq!(
            order("convey server maintenance web/a"),
            web_a(ServerAction::Maintenance)
        );
        assert_eq!(
            order("convey server weight web/a 0"),
            web_a(ServerAction::Weight { weight: 0 })
        );
        assert_eq!(
            order("convey server weight web a 65535"),
            web_a(ServerAction::Weight { weight: 65535 })
        );
    }

    #[test]
    fn the_last_eligible_server_goes_only_by_force() {
        for line in [
            "convey server drain --force web/a",
            "convey server maintenance web a --force",
            "convey server weight --force web/a 0",
        ] {
            let (_, request) = order(line).expect("good usage");
            assert!(request.force, "{line}");
        }
    }

    #[test]
    fn what_names_no_server_is_bad_usage() {
        for line in [
            "convey server drain web",
            "convey server drain web/",
            "convey server drain a/b/c",
            "convey server weight web/a 65536",
            "convey server weight web/a x",
            "convey server weight web a",
        ] {
            assert!(
                matches!(
                    order(line),
                    Err(Failure::Told {
                        exit: exit::USAGE,
                        ..
                    })
                ),
                "{line}"
            );
        }
    }

    #[test]
    fn names_with_slashes_are_given_as_two_words() {
        let (named, _) = order("convey server drain a/b c/d").expect("two words");
        assert_eq!((named.backend.as_str(), named.server.as_str()), ("a/b", "c/d"));
    }

    #[test]
    fn the_answer_says_the_state_and_who_waits() {
        let server = Server {
            addr: ServerAddr::new("10.0.0.1:80".parse().expect("an address")),
            state: ServerState::Draining.into(),
            state_seconds: None,
            state_reason: None,
            eligible: false,
            weight: 2,
            configured_weight: 2,
            effective_percent: 0,
            priority: 1,
            max_connections: None,
            overridden: "draining".parse().ok(),
            traffic: Traffic {
                connections_current: 7,
                ..Traffic::default()
            },
            packet: None,
        };
        let named = Named {
            backend: "web".into(),
            server: "a".into(),
        };
        assert_eq!(
            report(&named, &server),
            "web/a: draining (override: draining), weight 2, 7 connections"
        );
    }
}
