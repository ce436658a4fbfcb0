//! Waiting until nothing is connected to servers any more.

use std::{io::Write as _, thread::sleep, time::Duration};

use super::{Backends, connections};
use crate::{
    admin::views::{Connections, Server},
    base::{BackendName, ServerName, ServerState, exit},
    cli::{
        client::{Client, percent_encode},
        outcome::{CommandResult, Failure},
        progress::{Progress, STEP},
        text::harmless,
    },
};

/// What a server still has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// BACKEND/SERVER.
    pub name: String,
    /// Connections, UDP sessions and flows.
    pub connections: u64,
}

/// A server that is waited for.
pub type Waited = (BackendName, ServerName);

/// Waits until the servers have no connections, and says meanwhile how many there are. After `limit` it is over all the same,
/// with a status that says so; and so it is when somebody has taken back that they get no new ones.
pub fn wait_until_drained(client: &Client, limit: Option<Duration>, servers: &[Waited]) -> CommandResult {
    let mut progress = Progress::start();
    loop {
        let backends: Backends = client.get("/v1/backends")?.parse()?;
        let mut left = Vec::new();
        for (backend, server) in servers {
            let name = format!("{backend}/{server}");
            let view = backends.get(backend).and_then(|view| view.servers.get(server));
            if view.is_some_and(is_in_service) {
                progress.end();
                say(&format!(
                    "{name} gets new connections again: somebody has taken it back"
                ))?;
                return Ok(exit::NOT_YET);
            }
            let connections = match view {
                Some(view) => view.traffic.connections_current,
                None => of_removed(client, backend, server)?,
            };
            left.push(Left { name, connections });
        }
        left.retain(|left| left.connections > 0);
        if left.is_empty() {
            progress.end();
            say(&format!(
                "no connections left after {} s",
                progress.elapsed().as_secs()
            ))?;
            return Ok(exit::OK);
        }
        if limit.is_some_and(|limit| progress.elapsed() >= limit) {
            progress.end();
            say(&format!(
                "{}, after {} s",
                in_words(&left),
                progress.elapsed().as_secs()
            ))?;
            return Ok(exit::NOT_YET);
        }
        progress.tell(|| in_words(&left));
        sleep(STEP);
    }
}

/// Whether nobody keeps new connections from it any more.
fn is_in_service(server: &Server) -> bool {
    server.eligible
        && !matches!(
            server.state.known(),
            Some(ServerState::Draining | ServerState::Maintenance)
        )
}

/// The connections of a server that the configuration has no more: they outlive it.
fn of_removed(client: &Client, backend: &BackendName, server: &ServerName) -> Result<u64, Failure> {
    let target = format!(
        "/v1/connections?limit=1&backend={}&server={}",
        percent_encode(backend.as_str()),
        percent_encode(server.as_str())
    );
    let answer = client.get(&target)?;
    // with the last of them the name is gone
    let found = answer.parse::<Connections>();
    Ok(found.map_or(0, |found| found.total as u64))
}

fn say(line: &str) -> Result<(), Failure> {
    Ok(writeln!(std::io::stdout(), "{}", harmless(line))?)
}

/// Servers that are named one by one.
const NAMED: usize = 3;

fn in_words(left: &[Left]) -> String {
    let sum = left.iter().map(|left| left.connections).sum();
    let each = |left: &Left| format!("{} {}", left.name, left.connections);
    let named: Vec<String> = left.iter().take(NAMED).map(each).collect();
    let more = if left.len() > NAMED { ", …" } else { "" };
    format!("{} left: {}{more}", connections(sum), named.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_summed_and_the_first_servers_are_named() {
        let left = |name: &str, connections| Left {
            name: name.to_owned(),
            connections,
        };
        assert_eq!(in_words(&[left("web/a", 1)]), "1 connection left: web/a 1");
        let many: Vec<_> = (0..5).map(|n| left(&format!("web/{n}"), 2)).collect();
        assert_eq!(
            in_words(&many),
            "10 connections left: web/0 2, web/1 2, web/2 2, …"
        );
    }
}
