//! One question to a server's agent.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::{
    agent::MAX_ANSWER_BYTES,
    channel::{Channel as _, text},
    connect::{self, CheckSockets, Way},
};
use crate::{base::ServerAddr, config::AgentCheck};

/// Asks it: the first line of its answer, or why there is none.
pub async fn ask(
    addr: ServerAddr,
    way: Way,
    agent: AgentCheck,
    sockets: Option<&dyn CheckSockets>,
) -> Result<Vec<u8>, String> {
    let limit: Duration = agent.timeout;
    let until = Instant::now() + limit;
    let answer = timeout_at(until, async {
        let Some(addr) = addr.on_network() else {
            // the configuration has none
            return Err("a unix socket has no port for an agent".to_owned());
        };
        let mut connected = connect::connect(addr, &way, false, sockets)
            .await
            .map_err(|error| error.to_string())?;
        if let Some(send) = &agent.send {
            let said = connected.say(send.bytes()).await;
            said.map_err(|error| format!("connection lost: {}", text(&error)))?;
        }
        let mut answer = Vec::new();
        loop {
            let mut buffer = [0; MAX_ANSWER_BYTES];
            let heard = match connected.hear(&mut buffer).await {
                Ok(heard) => heard,
                Err(error) if answer.is_empty() => {
                    return Err(format!("connection lost: {}", text(&error)));
                }
                // a reset after an answer ends it
                Err(_) => 0,
            };
            answer.extend(buffer.iter().take(heard.min(MAX_ANSWER_BYTES - answer.len())));
            let is_line = answer.iter().any(|byte| matches!(byte, b'\n' | b'\r'));
            if heard == 0 || is_line || answer.len() == MAX_ANSWER_BYTES {
                return Ok(answer);
            }
        }
    });
    answer
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {limit:?}")))
}
