//! How LXD and Incus are asked: for their instances, with what they are connected to.

use tokio::time::timeout;

use super::{
    Answered, Failure,
    answer::{self, Limits},
    caller::{Caller, below, parsed},
    service::TokenHeader,
};
use crate::config::LxdQuery;

/// Asks for the instances.
pub(super) async fn ask(caller: &mut Caller, query: &LxdQuery, limits: Limits) -> Result<Answered, Failure> {
    let server = &query.server;
    let target = below(server, "/1.0/instances?recursion=2");
    let asked = timeout(
        server.timeout,
        caller.body(server, &target, TokenHeader::Authorization, limits),
    );
    let bytes = asked.await.unwrap_or(Err(Failure::Silent(server.timeout)))?;
    let query = query.clone();
    Ok(Answered {
        answer: parsed(move || answer::of_lxd(&bytes, &query, limits)).await?,
        ttl: None,
    })
}
