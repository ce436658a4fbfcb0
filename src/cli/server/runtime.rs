//! Closing connections of servers, adding and removing servers.

use std::io::Write as _;

use hyper::{Method, StatusCode};

use super::{Backends, connections, find, usage};
use crate::{
    admin::views::{AddedServer, Closed, NewServer},
    base::exit,
    cli::{
        args::AddServerArgs,
        client::{Asked, Client, Patience, percent_encode},
        outcome::{CommandResult, Failure},
        text::harmless,
    },
};

/// Closes connections of servers.
pub fn close(words: &[String], client: &Client) -> CommandResult {
    let backends: Backends = client.get("/v1/backends")?.parse()?;
    let servers = find(&backends, words).map_err(|problem| usage(problem.message))?;
    let mut out = std::io::stdout().lock();
    for named in servers {
        let filter = format!(
            "backend={}&server={}",
            percent_encode(named.backend.as_str()),
            percent_encode(named.name.as_str())
        );
        let count = close_connections(client, &filter)?;
        writeln!(out, "{}", closed(&named.to_string(), count))?;
        out.flush()?;
    }
    Ok(exit::OK)
}

/// Closes the connections that a filter of the API lets through.
pub fn close_connections(client: &Client, filter: &str) -> Result<Closed, Failure> {
    let target = format!("/v1/connections?{filter}");
    client.send(Asked::of(Method::DELETE, &target))?.parse()
}

/// What came of closing.
pub fn closed(name: &str, closed: Closed) -> String {
    let said = connections(closed.closed as u64);
    // nobody but their ends can close what is answered past us
    let others = match closed.dsr_flows {
        0 => String::new(),
        flows => format!(
            "; {} of mode dsr go on: only clients and servers can end them",
            connections(flows as u64)
        ),
    };
    harmless(&format!("{name}: closed {said}{others}")).into_owned()
}

/// Adds a server.
pub fn add(args: &AddServerArgs, client: &Client) -> CommandResult {
    let server = NewServer {
        name: args.name.clone(),
        addr: args.addr.clone(),
        weight: args.weight,
        priority: args.priority,
        max_connections: args.max_connections,
        sni: args.sni.clone(),
    };
    let body = serde_json::to_vec(&server)
        .map_err(|error| Failure::new(exit::SOFTWARE, format!("cannot write the request: {error}")))?;
    let target = format!("/v1/backends/{}/servers", percent_encode(&args.backend));
    let answer = client.post(&target, Some(body), Patience::Short)?;
    // an address that cannot be one is of the command line here, not of a configuration
    let added = answer.parse().map_err(|failure| match failure {
        Failure::Told { message, .. } if answer.status == StatusCode::UNPROCESSABLE_ENTITY => usage(message),
        other => other,
    })?;
    tell(&added, "added")
}

/// Removes servers that were added.
pub fn remove(words: &[String], client: &Client) -> CommandResult {
    let backends: Backends = client.get("/v1/backends")?.parse()?;
    let servers = find(&backends, words).map_err(|problem| usage(problem.message))?;
    for named in servers {
        let target = format!(
            "/v1/backends/{}/servers/{}",
            percent_encode(named.backend.as_str()),
            percent_encode(named.name.as_str())
        );
        let removed: AddedServer = client.send(Asked::of(Method::DELETE, &target))?.parse()?;
        tell(&removed, "removed")?;
    }
    Ok(exit::OK)
}

fn tell(server: &AddedServer, what: &str) -> CommandResult {
    let soon = match server.pending {
        true => ", as soon as the firewall rules are there",
        false => "",
    };
    let line = format!("{}/{}: {what}{soon}", server.backend, server.server);
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", harmless(&line))?;
    out.flush()?;
    Ok(exit::OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_closed_is_counted_and_what_cannot_be_is_said() {
        let said = |count, dsr_flows| {
            closed(
                "web/a",
                Closed {
                    closed: count,
                    dsr_flows,
                },
            )
        };
        assert_eq!(said(1, 0), "web/a: closed 1 connection");
        assert_eq!(said(0, 0), "web/a: closed 0 connections");
        let flows = said(2, 7);
        assert!(
            flows.starts_with("web/a: closed 2 connections; 7 connections of mode dsr go on"),
            "{flows}"
        );
    }
}
