//! What a check says to a server, and what the answer means: bytes in, a verdict out. Pure.
//!
//! The kinds of protocols are a table over the same three parts as the operator's own probe: what is said first, what the
//! answer has to be, what is said last.

mod databases;
mod datagrams;
mod http;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, fmt, time::Duration};

use crate::{
    base::{Protocol, ServerAddr},
    config::{Check, Expected, HttpCheck, ProbeRegex},
};

/// Most bytes of an answer that are looked at.
pub const MAX_ANSWER_BYTES: usize = 16_384;

/// Most bytes of an answer that a text quotes.
const MAX_QUOTED_BYTES: usize = 60;

/// Most bytes of a text of a server's that is handed on.
const MAX_SAID_BYTES: usize = 200;

/// One exchange with a server.
#[derive(Debug, Clone)]
pub struct Dialogue {
    /// How it goes.
    pub protocol: Protocol,
    /// What is said first; may be empty.
    pub first: Vec<u8>,
    /// What is said when the server has passed, so that it does not take us for broken off.
    pub last: &'static [u8],
    wants: Wants,
}

/// What an answer has to be.
#[derive(Debug, Clone)]
enum Wants {
    /// Nothing.
    Nothing,
    /// It begins with one of these.
    Begins(Vec<Cow<'static, [u8]>>),
    /// This is found in it.
    Matches(ProbeRegex),
    /// An answer of HTTP.
    Http(HttpCheck),
    /// A whole greeting of SMTP.
    Smtp,
    /// A greeting of MySQL.
    Mysql,
    /// A first answer of PostgreSQL.
    Postgresql,
    /// An answer to the query of this number.
    Dns { id: u16, is_named: bool },
    /// An answer to the query of this time.
    Ntp { stamp: [u8; 8] },
}

/// What is to be thought of an answer, or of its beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// More of it is needed.
    More,
    /// The server passes.
    Passed,
    /// It does not.
    Failed(Fault),
}

/// Why a server does not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It answered something else.
    Answered {
        /// What, or the beginning of it.
        answer: String,
        /// What was expected.
        expected: String,
    },
    /// It closed the connection, after this if anything.
    Closed {
        /// What came before, quoted.
        after: Option<String>,
        /// What was expected.
        expected: String,
    },
    /// It did not answer in time, or not whole.
    Silent {
        /// The time.
        limit: Duration,
        /// What came, quoted.
        so_far: Option<String>,
        /// What was expected.
        expected: String,
    },
    /// It says itself that it does not work.
    Says(String),
}

/// What a parser makes of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Reading {
    /// It may become right.
    More,
    /// It is.
    Right,
    /// It is none.
    Wrong,
    /// It says that the server does not work.
    Says(String),
}

/// How an answer ended, if it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It goes on.
    Open,
    /// The server closed the connection.
    Closed,
    /// It was a datagram, or more than is looked at.
    Whole,
}

impl Dialogue {
    /// That of a check of a server, with some random bits for what has to differ each time; `None` if a connect says it all.
    #[must_use]
    pub fn of(check: &Check, server: ServerAddr, random: u64) -> Option<Self> {
        let stream = |first: &[u8], last: &'static [u8], wants| Self {
            protocol: Protocol::Tcp,
            first: first.to_vec(),
            last,
            wants,
        };
        let datagram = |first: Vec<u8>, wants| Self {
            protocol: Protocol::Udp,
            first,
            last: b"",
            wants,
        };
        Some(match check {
            Check::Tcp | Check::Tls(_) | Check::Exec(_) => return None,
            Check::Http(check) => stream(&http::request(check, server), b"", Wants::Http(check.clone())),
            Check::Probe(probe) => Self {
                protocol: probe.protocol,
                first: (probe.send.as_ref()).map_or_else(Vec::new, |send| send.bytes().to_vec()),
                last: b"",
                wants: Wants::of(probe.expect.as_ref()),
            },
            // one that wants a password is there
            Check::Redis => stream(b"PING\r\n", b"", Wants::begins(&[b"+PONG", b"-NOAUTH"])),
            Check::Postgresql { user } => {
                stream(&databases::postgresql_startup(user), b"", Wants::Postgresql)
            }
            Check::Mysql => stream(b"", b"", Wants::Mysql),
            Check::Smtp => stream(b"", b"QUIT\r\n", Wants::Smtp),
            Check::Dns { name } => {
                let [high, low, ..] = random.to_be_bytes();
                let id = u16::from_be_bytes([high, low]);
                let is_named = name.is_some();
                datagram(
                    datagrams::dns_query(id, name.as_deref()),
                    Wants::Dns { id, is_named },
                )
            }
            Check::Ntp => {
                let stamp = random.to_be_bytes();
                datagram(datagrams::ntp_query(stamp), Wants::Ntp { stamp })
            }
        })
    }

    /// Whether nothing need be answered.
    #[must_use]
    pub const fn wants_nothing(&self) -> bool {
        matches!(self.wants, Wants::Nothing)
    }

    /// What is to be thought of what has been heard so far. Never [`Verdict::More`] of an answer that has ended.
    #[must_use]
    pub fn judge(&self, answer: &[u8], end: End) -> Verdict {
        let reading = match &self.wants {
            Wants::Nothing => Reading::Right,
            Wants::Begins(with) => begins(with, answer),
            Wants::Matches(regex) if regex.is_in(answer) => Reading::Right,
            Wants::Matches(_) => Reading::More,
            Wants::Http(check) => http::judge(check, answer, end),
            Wants::Smtp => smtp(answer),
            Wants::Mysql => databases::mysql(answer),
            Wants::Postgresql => databases::postgresql(answer),
            Wants::Dns { id, is_named } => datagrams::dns(answer, *id, *is_named),
            Wants::Ntp { stamp } => datagrams::ntp(answer, *stamp),
        };
        let expected = self.wants.to_string();
        match (reading, end) {
            (Reading::Right, _) => Verdict::Passed,
            (Reading::Says(why), _) => Verdict::Failed(Fault::Says(why)),
            (Reading::More, End::Open) => Verdict::More,
            (Reading::More, End::Closed) => Verdict::Failed(Fault::Closed {
                after: some_quoted(answer),
                expected,
            }),
            (Reading::More | Reading::Wrong, _) => Verdict::Failed(Fault::Answered {
                answer: quoted(answer),
                expected,
            }),
        }
    }

    /// Why a server fails that has said no more than this within a time.
    #[must_use]
    pub fn silent(&self, so_far: &[u8], limit: Duration) -> Fault {
        Fault::Silent {
            limit,
            so_far: some_quoted(so_far),
            expected: self.wants.to_string(),
        }
    }
}

impl Wants {
    fn begins(with: &[&'static [u8]]) -> Self {
        Self::Begins(with.iter().map(|begin| Cow::Borrowed(*begin)).collect())
    }

    fn of(expected: Option<&Expected>) -> Self {
        match expected {
            None => Self::Nothing,
            Some(Expected::Begins(bytes)) => Self::Begins(vec![Cow::Owned(bytes.bytes().to_vec())]),
            Some(Expected::Matches(regex)) => Self::Matches(regex.clone()),
        }
    }
}

impl fmt::Display for Wants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("anything"),
            Self::Begins(with) => f.write_str(&with.first().map_or_else(String::new, |begin| quoted(begin))),
            Self::Matches(regex) => write!(f, "a match of {}", quoted(regex.pattern().as_bytes())),
            Self::Http(_) => f.write_str("an answer of HTTP"),
            Self::Smtp => f.write_str("\"220 \""),
            Self::Mysql => f.write_str("a greeting of MySQL"),
            Self::Postgresql => f.write_str("an answer of PostgreSQL"),
            Self::Dns { .. } => f.write_str("an answer of DNS"),
            Self::Ntp { .. } => f.write_str("an answer of NTP"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered { answer, expected } => write!(f, "answered {answer} instead of {expected}"),
            Self::Closed {
                after: Some(after),
                expected,
            } => write!(f, "closed the connection after {after} (expected {expected})"),
            Self::Closed {
                after: None,
                expected,
            } => {
                write!(f, "closed the connection without an answer (expected {expected})")
            }
            Self::Silent {
                limit,
                so_far: Some(so_far),
                expected,
            } => write!(f, "no more than {so_far} within {limit:?} (expected {expected})"),
            Self::Silent {
                limit,
                so_far: None,
                expected,
            } => write!(f, "no answer within {limit:?} (expected {expected})"),
            Self::Says(what) => f.write_str(what),
        }
    }
}

fn begins(with: &[Cow<'static, [u8]>], answer: &[u8]) -> Reading {
    if with.iter().any(|begin| answer.starts_with(begin)) {
        Reading::Right
    } else if with.iter().any(|begin| begin.starts_with(answer)) {
        Reading::More
    } else {
        Reading::Wrong
    }
}

/// A greeting may have several lines, of which the last has no dash (RFC 5321, 4.2.1). It is waited for: servers turn away
/// who speaks before they have ended.
fn smtp(answer: &[u8]) -> Reading {
    for line in answer.split_inclusive(|byte| *byte == b'\n') {
        if !line.starts_with(b"220") {
            return match b"220".starts_with(line) {
                true => Reading::More,
                false => Reading::Wrong,
            };
        }
        match line.get(3) {
            Some(b'-') => {}
            Some(b' ' | b'\r' | b'\n') if line.ends_with(b"\n") => return Reading::Right,
            Some(b' ' | b'\r') | None => return Reading::More,
            Some(_) => return Reading::Wrong,
        }
    }
    Reading::More
}

/// What is wrong with what a command has printed, if anything is.
#[must_use]
pub fn judge_printed(expect: Option<&Expected>, printed: &[u8]) -> Option<Fault> {
    let dialogue = Dialogue {
        protocol: Protocol::Tcp,
        first: Vec::new(),
        last: b"",
        wants: Wants::of(expect),
    };
    let printed = printed.get(..MAX_ANSWER_BYTES).unwrap_or(printed);
    match dialogue.judge(printed, End::Whole) {
        Verdict::Failed(Fault::Answered { answer, expected }) => {
            Some(Fault::Says(format!("printed {answer} instead of {expected}")))
        }
        Verdict::Failed(fault) => Some(fault),
        Verdict::Passed | Verdict::More => None,
    }
}

/// Bytes in quotes, cut short, with escapes for what cannot be printed.
fn quoted(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    for byte in bytes.iter().take(MAX_QUOTED_BYTES) {
        match byte {
            b'\'' => out.push('\''),
            byte => out.extend(byte.escape_ascii().map(char::from)),
        }
    }
    out.push('"');
    if bytes.len() > MAX_QUOTED_BYTES {
        out.push('…');
    }
    out
}

fn some_quoted(bytes: &[u8]) -> Option<String> {
    (!bytes.is_empty()).then(|| quoted(bytes))
}

/// What a server says, as a piece of a line.
fn said(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(MAX_SAID_BYTES).collect::<String>().trim().to_owned()
}
