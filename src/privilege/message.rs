//! What daemon and broker say to each other: one JSON document a message, descriptors beside it.

use serde::{Deserialize, Serialize};

use super::ListenerRef;
use crate::sys::fdpass::MAX_MESSAGE_BYTES;

/// Longest text in a reply, in bytes: far below [`MAX_MESSAGE_BYTES`] even if every byte must be escaped.
const MAX_TEXT_BYTES: usize = 4096;

/// Daemon to broker. Carries no descriptor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Number of the request; the reply has the same one.
    pub number: u64,
    /// What to do.
    pub verb: Verb,
}

/// The few things that the broker does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Bind and listen.
    Bind(ListenerRef),
    /// Read the configuration file, adopt it if valid, pass its bytes.
    ReadConfig,
}

/// Broker to daemon. Number 0 is what it says of itself at start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reply {
    /// Number of the request.
    pub number: u64,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Outcome {
    /// The broker is confined and serves.
    Ready,
    /// The listening socket comes with the reply.
    Bound,
    /// A sealed memfd with the bytes of the file comes with the reply.
    Config,
    /// The policy does not allow it.
    Refused {
        /// Why.
        why: String,
    },
    /// A system call failed.
    Failed {
        /// Which step of what.
        step: String,
        /// The error number, 0 if there is none.
        errno: i32,
    },
    /// The configuration file cannot be read.
    Unreadable {
        /// Why, and what to do.
        why: String,
    },
}

impl Outcome {
    /// How many descriptors come with it: exactly.
    #[must_use]
    pub const fn descriptors(&self) -> usize {
        match self {
            Self::Bound | Self::Config => 1,
            Self::Ready | Self::Refused { .. } | Self::Failed { .. } | Self::Unreadable { .. } => 0,
        }
    }

    /// A refusal.
    #[must_use]
    pub fn refused(why: &str) -> Self {
        Self::Refused { why: shorten(why) }
    }

    /// A file that cannot be read.
    #[must_use]
    pub fn unreadable(why: &str) -> Self {
        Self::Unreadable { why: shorten(why) }
    }

    /// A step that failed.
    #[must_use]
    pub fn failed(step: &str, errno: i32) -> Self {
        Self::Failed {
            step: shorten(step),
            errno,
        }
    }
}

fn shorten(text: &str) -> String {
    let end = (0..=text.len().min(MAX_TEXT_BYTES))
        .rev()
        .find(|&at| text.is_char_boundary(at))
        .unwrap_or(0);
    text.get(..end).unwrap_or_default().to_owned()
}

/// Why bytes are not a message.
#[derive(Debug, thiserror::Error)]
pub enum FormError {
    /// More than fits.
    #[error("a message of {0} bytes is longer than {MAX_MESSAGE_BYTES}")]
    TooLong(usize),
    /// Not what the type says.
    #[error("malformed message: {0}")]
    Malformed(#[from] serde_json::Error),
}

/// The bytes of a message.
///
/// # Errors
/// It is too long.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FormError> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() > MAX_MESSAGE_BYTES {
        Err(FormError::TooLong(bytes.len()))
    } else {
        Ok(bytes)
    }
}

/// The message that bytes are.
///
/// # Errors
/// They are no such message: unknown fields and verbs, missing fields and trailing bytes included.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, FormError> {
    Ok(serde_json::from_slice(bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_survive_the_way() {
        for verb in [
            Verb::Bind(ListenerRef::Stats),
            Verb::Bind(ListenerRef::Frontend {
                name: "größe".into(),
                addr: crate::base::ListenAddr(([127, 0, 0, 1], 80).into()),
            }),
            Verb::ReadConfig,
        ] {
            let request = Request { number: 7, verb };
            assert_eq!(decode::<Request>(&encode(&request).unwrap()).unwrap(), request);
        }
    }

    #[test]
    fn nothing_but_a_known_message_is_taken() {
        for bytes in [
            "",
            "{}",
            "null",
            r#"{"number":1,"verb":"read_file"}"#,
            r#"{"number":1,"verb":{"read_config":"/etc/shadow"}}"#,
            r#"{"number":1,"verb":"read_config","path":"/etc/shadow"}"#,
            r#"{"number":1,"verb":{"bind":{"frontend":{"name":"web","addr":"0.0.0.0:80","as":"root"}}}}"#,
            r#"{"number":-1,"verb":"read_config"}"#,
            r#"{"number":1,"verb":"read_config"} {"number":2,"verb":"read_config"}"#,
            "\u{0}\u{1}\u{2}",
        ] {
            assert!(decode::<Request>(bytes.as_bytes()).is_err(), "{bytes} was taken");
        }
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character_and_fits() {
        let outcome = Outcome::refused(&"ß\u{1}".repeat(MAX_MESSAGE_BYTES));
        let reply = Reply {
            number: u64::MAX,
            outcome,
        };
        let bytes = encode(&reply).unwrap();
        assert_eq!(decode::<Reply>(&bytes).unwrap(), reply);
    }
}
