//! Names of servers, each asked for by itself: one that fails keeps nobody from knowing the others.

use std::{net::IpAddr, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, timeout_at},
};

use crate::{
    client::resolver::Resolver,
    config::{Families, NamedServer},
};

/// Names that are asked for at the same time.
const AT_ONCE: usize = 32;

/// What came of asking.
pub(super) struct Found {
    /// Each server with its addresses, or why there are none.
    pub(super) names: Vec<(NamedServer, Result<Vec<IpAddr>, String>)>,
    /// How long the shortest of the answers may be believed.
    pub(super) ttl: Duration,
}

/// Asks for the names of servers, all within a time.
pub(super) async fn ask(servers: &[NamedServer], resolver: &Resolver, within: Duration) -> Found {
    let until = Instant::now() + within;
    let mut found = Found {
        names: Vec::with_capacity(servers.len()),
        ttl: Duration::MAX,
    };
    let mut asking = JoinSet::new();
    for server in servers {
        if asking.len() >= AT_ONCE {
            found.take(asking.join_next().await);
        }
        let (server, resolver) = (server.clone(), resolver.clone());
        asking.spawn(async move {
            let asked = resolver.addresses(server.host.as_str(), Families::Any.all());
            let answer = match timeout_at(until, asked).await {
                Ok(answer) => answer.map_err(|error| error.to_string()),
                Err(_) => Err(format!(
                    "{}: no answer within {} s",
                    server.host,
                    within.as_secs()
                )),
            };
            (server, answer.map(|answer| (answer.records, answer.ttl)))
        });
    }
    while let Some(asked) = asking.join_next().await {
        found.take(Some(asked));
    }
    found.names.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
    found
}

type Asked = (NamedServer, Result<(Vec<IpAddr>, Duration), String>);

impl Found {
    fn take(&mut self, asked: Option<Result<Asked, tokio::task::JoinError>>) {
        // one that was cancelled is of a runtime that ends
        let Some(Ok((server, answer))) = asked else { return };
        let addresses = answer.map(|(addresses, ttl)| {
            self.ttl = self.ttl.min(ttl);
            addresses
        });
        self.names.push((server, addresses));
    }
}
