//! An exchange with a server: says what a dialogue has, over a stream or by UDP, and hears until it is decided.

use std::{io, os::fd::OwnedFd, time::Duration};

use tokio::{
    net::UdpSocket,
    time::{Instant, timeout_at},
};

use super::{
    channel::{Channel, text},
    probe::{Dialogue, End, Fault, MAX_ANSWER_BYTES, Verdict},
};

/// How long after its last word a server may take to close the connection, which is not its health.
const LEAVE: Duration = Duration::from_millis(200);

/// Why an exchange did not end well.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The server did not do what it has to.
    #[error("{0}")]
    Fault(Fault),
    /// The connection broke.
    #[error("connection lost: {}", text(.0))]
    Broken(io::Error),
    /// No datagram reached the server, as ICMP or the host says.
    #[error("{}", text(.0))]
    Unreachable(io::Error),
}

/// Over a stream, until a time; `limit` is how long that was.
///
/// # Errors
/// The server does not pass.
pub(super) async fn over_stream(
    channel: &mut impl Channel,
    dialogue: &Dialogue,
    until: Instant,
    limit: Duration,
) -> Result<(), ExchangeError> {
    let mut answer = Vec::new();
    let result = match timeout_at(until, converse(channel, dialogue, &mut answer)).await {
        Ok(result) => result,
        Err(_) => Err(ExchangeError::Fault(dialogue.silent(&answer, limit))),
    };
    if result.is_ok() {
        let _ = timeout_at(until.min(Instant::now() + LEAVE), leave(channel, dialogue.last)).await;
    }
    result
}

async fn converse(
    channel: &mut impl Channel,
    dialogue: &Dialogue,
    answer: &mut Vec<u8>,
) -> Result<(), ExchangeError> {
    // one that refuses us may have said why before it closed
    let said = channel.say(&dialogue.first).await;
    loop {
        let mut buffer = [0; 2_048];
        let end = if dialogue.wants_nothing() {
            return said.map_err(ExchangeError::Broken);
        } else {
            let heard = match channel.hear(&mut buffer).await {
                Ok(heard) => heard,
                Err(error) if answer.is_empty() => return Err(ExchangeError::Broken(error)),
                // a reset after an answer ends it
                Err(_) => 0,
            };
            answer.extend(buffer.iter().take(heard.min(MAX_ANSWER_BYTES - answer.len())));
            match (heard, answer.len()) {
                (0, _) => End::Closed,
                (_, MAX_ANSWER_BYTES) => End::Whole,
                _ => End::Open,
            }
        };
        match dialogue.judge(answer, end) {
            Verdict::More => {}
            Verdict::Passed => return Ok(()),
            Verdict::Failed(fault) => return Err(ExchangeError::Fault(fault)),
        }
    }
}

/// Takes leave, and hears the server out: closing while something comes would reset the connection.
async fn leave(channel: &mut impl Channel, last: &[u8]) -> io::Result<()> {
    channel.say(last).await?;
    channel.finish().await?;
    let mut rest = [0; 512];
    while channel.hear(&mut rest).await? > 0 {}
    Ok(())
}

/// By UDP over a connected socket; what is sent begins with `header`.
///
/// # Errors
/// The server does not pass.
pub(super) async fn by_datagrams(
    socket: OwnedFd,
    header: &[u8],
    dialogue: &Dialogue,
    until: Instant,
    limit: Duration,
) -> Result<(), ExchangeError> {
    let unreachable = ExchangeError::Unreachable;
    let socket = UdpSocket::from_std(socket.into()).map_err(unreachable)?;
    let exchange = async {
        socket.send(&[header, &dialogue.first].concat()).await?;
        let mut answer = vec![0; MAX_ANSWER_BYTES];
        let heard = socket.recv(&mut answer).await?;
        answer.truncate(heard);
        Ok(answer)
    };
    let answer = match timeout_at(until, exchange).await {
        Ok(answer) => answer.map_err(unreachable)?,
        // nothing said that there is nobody
        Err(_) if dialogue.wants_nothing() => return Ok(()),
        Err(_) => return Err(ExchangeError::Fault(dialogue.silent(b"", limit))),
    };
    match dialogue.judge(&answer, End::Whole) {
        Verdict::Failed(fault) => Err(ExchangeError::Fault(fault)),
        Verdict::Passed | Verdict::More => Ok(()),
    }
}
