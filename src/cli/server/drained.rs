//! Waiting until nothing is connected to servers any more.

use std::{io::Write as _, thread::sleep, time::Duration};

use super::{Backends, connections};
use crate::{
    base::{BackendName, ServerName, exit},
    cli::{
        client::Client,
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

impl Left {
    /// Of a server; `None` if it is gone, and with it what counts its connections.
    pub fn of(backends: &Backends, backend: &BackendName, server: &ServerName) -> Option<Self> {
        let view = backends.get(backend)?.servers.get(server)?;
        Some(Self {
            name: format!("{backend}/{server}"),
            connections: view.traffic.connections_current,
        })
    }
}

/// Waits until the servers have no connections, and says meanwhile how many there are. After `limit` it is over all the same,
/// with a status that says so.
pub fn wait_until_drained(
    client: &Client,
    limit: Option<Duration>,
    left: &dyn Fn(&Backends) -> Vec<Left>,
) -> CommandResult {
    let mut progress = Progress::start();
    loop {
        let backends: Backends = client.get("/v1/backends")?.parse()?;
        let left: Vec<Left> = left(&backends)
            .into_iter()
            .filter(|left| left.connections > 0)
            .collect();
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
