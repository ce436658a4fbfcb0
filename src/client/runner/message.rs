//! What daemon and runner say to each other: one JSON document a message, descriptors beside it.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::{
    base::{CommandId, DnsProof},
    sys::fdpass::MAX_MESSAGE_BYTES,
};

/// Most bytes that a command may print.
pub const MAX_OUTPUT_BYTES: usize = 1 << 20;

/// Most bytes that a command is given on its standard input.
pub const MAX_INPUT_BYTES: usize = 1 << 20;

/// Commands that run at once, at most.
pub const MAX_RUNNING: usize = 32;

/// Longest text in a reply, in bytes: the end of what a command said on standard error, or why there is none.
const MAX_TEXT_BYTES: usize = 2_048;

/// Daemon to runner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Number of the request; the reply has the same one.
    pub number: u64,
    /// What to do.
    pub verb: Verb,
}

/// What the runner does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Run a command of the configuration; what it reads on standard input is in the sealed memfd that comes with it.
    Run(CommandId),
    /// The same, for a server: the one thing of a command that the daemon may choose, and no text.
    RunFor(CommandId, SocketAddr),
    /// The same, for a record of the DNS, which is no free text either.
    RunDns(CommandId, DnsProof),
    /// Say whether a process is a command, or was started by one.
    IsCommand(u32),
}

impl Verb {
    /// How many descriptors come with it: exactly.
    #[must_use]
    pub const fn descriptors(&self) -> usize {
        match self {
            Self::Run(_) | Self::RunFor(..) | Self::RunDns(..) => 1,
            Self::IsCommand(_) => 0,
        }
    }
}

/// Runner to daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reply {
    /// Number of the request; 0: that it is there.
    pub number: u64,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Outcome {
    /// The runner is confined and serves.
    Ready,
    /// The command has ended; what it printed comes with the reply, in a sealed memfd.
    Ended {
        /// How.
        how: Ended,
        /// The end of what it said on standard error.
        errors: String,
    },
    /// It did not run.
    NotRun {
        /// Why.
        why: String,
    },
    /// Whether the process is a command.
    IsCommand(bool),
}

/// How a command has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// By itself, with this exit status.
    Exit(i32),
    /// By this signal.
    Signal(i32),
    /// It took longer than its time-out.
    Timeout,
    /// It printed more than [`MAX_OUTPUT_BYTES`].
    TooMuchOutput,
}

impl Outcome {
    /// How many descriptors come with it: exactly.
    #[must_use]
    pub const fn descriptors(&self) -> usize {
        match self {
            Self::Ended { .. } => 1,
            Self::Ready | Self::NotRun { .. } | Self::IsCommand(_) => 0,
        }
    }

    /// A command has ended.
    #[must_use]
    pub fn ended(how: Ended, errors: &[u8]) -> Self {
        let errors = last(&String::from_utf8_lossy(errors)).to_owned();
        Self::Ended { how, errors }
    }

    /// A command did not run.
    #[must_use]
    pub fn not_run(why: &str) -> Self {
        Self::NotRun {
            why: last(why).to_owned(),
        }
    }
}

/// As much of the end of a text as fits.
fn last(text: &str) -> &str {
    let from = text.len().saturating_sub(MAX_TEXT_BYTES);
    let start = (from..=text.len()).find(|&at| text.is_char_boundary(at));
    start.and_then(|start| text.get(start..)).unwrap_or_default()
}

/// The bytes of a message; `None` if they would be too many, which those of this module never are.
#[must_use]
pub fn encode<T: Serialize>(message: &T) -> Option<Vec<u8>> {
    let bytes = serde_json::to_vec(message).ok()?;
    (bytes.len() <= MAX_MESSAGE_BYTES).then_some(bytes)
}

/// The message that bytes are, if they are one.
#[must_use]
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    serde_json::from_slice(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::DnsChange;

    #[test]
    fn messages_survive_the_way_whatever_a_command_has_said() {
        for verb in [
            Verb::Run(CommandId(u64::MAX)),
            Verb::RunFor(CommandId(1), "[fe80::1]:65535".parse().unwrap()),
            Verb::RunDns(
                CommandId(2),
                DnsProof {
                    change: DnsChange::Cleanup,
                    domain: "www.example.com".parse().unwrap(),
                    digest: "LPJNul-wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ".parse().unwrap(),
                },
            ),
            Verb::IsCommand(7),
        ] {
            let request = Request { number: 3, verb };
            let bytes = encode(&request).unwrap();
            assert_eq!(decode::<Request>(&bytes), Some(request));
        }
        let errors = "ß\u{1}".repeat(MAX_MESSAGE_BYTES).into_bytes();
        for outcome in [
            Outcome::ended(Ended::Exit(1), &errors),
            Outcome::ended(Ended::Timeout, b"\xff\xfe"),
            Outcome::not_run(&"x".repeat(100_000)),
            Outcome::IsCommand(true),
        ] {
            let reply = Reply {
                number: u64::MAX,
                outcome,
            };
            let bytes = encode(&reply).unwrap();
            assert_eq!(decode::<Reply>(&bytes), Some(reply));
        }
    }

    #[test]
    fn nothing_else_is_a_request() {
        for bytes in [
            "",
            "{}",
            r#"{"number":1,"verb":"run"}"#,
            r#"{"number":1,"verb":{"run":"/bin/sh"}}"#,
            r#"{"number":1,"verb":{"run":["/bin/sh"]}}"#,
            r#"{"number":1,"verb":{"run":1},"line":["/bin/sh"]}"#,
            r#"{"number":-1,"verb":{"run":1}}"#,
            r#"{"number":1,"verb":{"run_for":[1,"10.0.0.1:80; reboot"]}}"#,
            r#"{"number":1,"verb":{"run_for":[1,"localhost:80"]}}"#,
            r#"{"number":1,"verb":{"run_for":[1,"10.0.0.1:80","x"]}}"#,
            r#"{"number":1,"verb":{"run_dns":[1,"reboot"]}}"#,
            r#"{"number":1,"verb":{"run_dns":[1,{"change":"present","domain":"a b","digest":"LPJNul-wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ"}]}}"#,
        ] {
            assert_eq!(decode::<Request>(bytes.as_bytes()), None, "{bytes}");
        }
    }
}
