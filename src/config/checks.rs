//! `kind` of `[backends.NAME.health_check]`: what a server has to do to pass.

use std::{
    fmt::{self, Write as _},
    num::NonZeroU16,
    str::FromStr,
    time::Duration,
};

use super::commands::Command;
use crate::base::Protocol;

/// Longest `send` and `expect`, in bytes.
pub const MAX_PROBE_BYTES: usize = 4_096;

/// Most memory that a compiled pattern of `expect` may take, in bytes.
const MAX_REGEX_BYTES: usize = 1 << 20;

/// What a check says to a server, and what it wants to hear.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Check {
    /// A connect; a TLS handshake where the backend has `tls`.
    #[default]
    Tcp,
    /// A TLS handshake.
    Tls(TlsCheck),
    /// A request of HTTP/1.1.
    Http(HttpCheck),
    /// A command of the operator's.
    Exec(ExecCheck),
    /// What the operator says.
    Probe(Probe),
    /// Redis and Valkey: `PING`.
    Redis,
    /// PostgreSQL: the first message of a session.
    Postgresql {
        /// `user` that is named in it. Default convey.
        user: String,
    },
    /// MySQL and MariaDB: their greeting.
    Mysql,
    /// SMTP: the greeting, and QUIT.
    Smtp,
    /// A query by UDP.
    Dns {
        /// `name` that has to exist; `None`: the root's, which any answer but a failure passes.
        name: Option<String>,
    },
    /// A query by UDP.
    Ntp,
}

/// `kind` of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CheckKind {
    /// [`Check::Tcp`].
    Tcp,
    /// [`Check::Tls`].
    Tls,
    /// [`Check::Http`].
    Http,
    /// [`Check::Exec`].
    Exec,
    /// [`Check::Probe`].
    Probe,
    /// [`Check::Redis`].
    Redis,
    /// [`Check::Postgresql`].
    Postgresql,
    /// [`Check::Mysql`].
    Mysql,
    /// [`Check::Smtp`].
    Smtp,
    /// [`Check::Dns`].
    Dns,
    /// [`Check::Ntp`].
    Ntp,
}

/// Kind "tls".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlsCheck {
    /// `min_days_left`: whole days for which the server's certificate has to be valid still. 0: they are not counted.
    pub min_days_left: u32,
}

/// `[backends.NAME.agent_check]`: each server's own word on what it should get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentCheck {
    /// `port` at which its agent listens.
    pub port: NonZeroU16,
    /// `send`: what the agent is told first. Default nothing.
    pub send: Option<ProbeBytes>,
    /// `interval` between two questions. Default 2 s.
    pub interval: Duration,
    /// `timeout` of one. Default 1 s, or the interval if that is shorter.
    pub timeout: Duration,
}

/// Kind "probe". Something is sent or expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// `protocol`. Default TCP.
    pub protocol: Protocol,
    /// `send`: at once, before anything is heard. By UDP always something.
    pub send: Option<ProbeBytes>,
    /// `expect`. `None`: any end but a refusal passes.
    pub expect: Option<Expected>,
}

/// Kind "http".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpCheck {
    /// `method`. Default GET.
    pub method: HttpMethod,
    /// `path`, with its query. Default /.
    pub path: Box<str>,
    /// `host` of the request. `None`: the server's address and port.
    pub host: Option<Box<str>>,
    /// `status` that pass. Default 200 to 399.
    pub status: Vec<StatusRange>,
    /// `expect`: what is somewhere in the body.
    pub expect: Option<Expected>,
}

/// Kind "exec": exit status 0 passes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecCheck {
    /// `command`, which is run for each server, with the check's time-out; see [`at_server`](super::commands::at_server).
    pub command: Command,
    /// `expect`: how what it prints begins, or what is in it.
    pub expect: Option<Expected>,
}

/// `method` of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HttpMethod {
    /// GET.
    Get,
    /// HEAD: the answer has no body.
    Head,
    /// OPTIONS.
    Options,
}

/// Statuses of HTTP, of which both ends belong to it: 100 to 599.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusRange {
    first: u16,
    last: u16,
}

/// Bytes, as they are written: 1 to [`MAX_PROBE_BYTES`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeBytes {
    /// As text.
    Text(String),
    /// `hex`.
    Hex(Vec<u8>),
}

/// `expect`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// What the answer begins with.
    Begins(ProbeBytes),
    /// `regex`: what is found somewhere in the answer.
    Matches(ProbeRegex),
}

/// A pattern over bytes.
#[derive(Debug, Clone)]
pub struct ProbeRegex(regex::bytes::Regex);

impl Check {
    /// Its `kind`.
    #[must_use]
    pub const fn kind(&self) -> CheckKind {
        match self {
            Self::Tcp => CheckKind::Tcp,
            Self::Tls(_) => CheckKind::Tls,
            Self::Http(_) => CheckKind::Http,
            Self::Exec(_) => CheckKind::Exec,
            Self::Probe(_) => CheckKind::Probe,
            Self::Redis => CheckKind::Redis,
            Self::Postgresql { .. } => CheckKind::Postgresql,
            Self::Mysql => CheckKind::Mysql,
            Self::Smtp => CheckKind::Smtp,
            Self::Dns { .. } => CheckKind::Dns,
            Self::Ntp => CheckKind::Ntp,
        }
    }

    /// The command that the runner starts for it.
    #[must_use]
    pub const fn command(&self) -> Option<&Command> {
        match self {
            Self::Exec(exec) => Some(&exec.command),
            _ => None,
        }
    }

    /// Whether it can be made over TLS.
    #[must_use]
    pub const fn may_be_over_tls(&self) -> bool {
        !matches!(self, Self::Exec(_)) && matches!(self.protocol(), Protocol::Tcp)
    }

    /// What its packets are; those of a command are its own.
    #[must_use]
    pub const fn protocol(&self) -> Protocol {
        match self {
            Self::Probe(probe) => probe.protocol,
            Self::Dns { .. } | Self::Ntp => Protocol::Udp,
            Self::Tcp
            | Self::Tls(_)
            | Self::Http(_)
            | Self::Exec(_)
            | Self::Redis
            | Self::Postgresql { .. }
            | Self::Mysql
            | Self::Smtp => Protocol::Tcp,
        }
    }
}

impl StatusRange {
    /// What is taken for health where nothing is said, as HAProxy does.
    pub const DEFAULT: Self = Self {
        first: 200,
        last: 399,
    };

    /// From one to another; `None` if there are no such statuses.
    #[must_use]
    pub fn new(first: u16, last: u16) -> Option<Self> {
        let are_some = (100..=599).contains(&first) && (first..=599).contains(&last);
        are_some.then_some(Self { first, last })
    }

    /// Whether a status is one of these.
    #[must_use]
    pub fn contains(self, status: u16) -> bool {
        (self.first..=self.last).contains(&status)
    }
}

impl FromStr for StatusRange {
    type Err = ();

    /// `200` or `200-399`.
    fn from_str(text: &str) -> Result<Self, ()> {
        let number = |text: &str| match text.len() {
            3 if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().map_err(drop),
            _ => Err(()),
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Self::new(number(first)?, number(last)?).ok_or(())
    }
}

impl fmt::Display for StatusRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

impl ProbeBytes {
    /// The bytes that are meant.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Hex(bytes) => bytes,
        }
    }

    /// Reads pairs of hexadecimal digits, with or without blanks between them; `None` if they are none.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits: Vec<u8> = (text.chars().filter(|c| !c.is_ascii_whitespace()))
            .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
            .collect::<Option<_>>()?;
        let (pairs, rest) = digits.as_chunks::<2>();
        let bytes = pairs.iter().map(|[high, low]| high << 4 | low).collect();
        rest.is_empty().then_some(Self::Hex(bytes))
    }
}

/// The digits that [`ProbeBytes::from_hex`] reads.
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _infallible = write!(out, "{byte:02x}");
        out
    })
}

impl ProbeRegex {
    /// Compiles a pattern over bytes: classes such as `\d` are of ASCII.
    ///
    /// # Errors
    /// Why it is none, in a line.
    pub fn new(pattern: &str) -> Result<Self, String> {
        let built = regex::bytes::RegexBuilder::new(pattern)
            .unicode(false)
            .size_limit(MAX_REGEX_BYTES)
            .dfa_size_limit(MAX_REGEX_BYTES)
            .build();
        built.map(Self).map_err(|error| {
            let text = error.to_string();
            let line = text.lines().last().unwrap_or_default().trim();
            line.strip_prefix("error: ").unwrap_or(line).to_owned()
        })
    }

    /// As it is written.
    #[must_use]
    pub fn pattern(&self) -> &str {
        self.0.as_str()
    }

    /// Whether it is found in an answer.
    #[must_use]
    pub fn is_in(&self, answer: &[u8]) -> bool {
        self.0.is_match(answer)
    }
}

impl PartialEq for ProbeRegex {
    fn eq(&self, other: &Self) -> bool {
        self.pattern() == other.pattern()
    }
}

impl Eq for ProbeRegex {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_read_as_they_are_written() {
        let bytes = |text: &str| ProbeBytes::from_hex(text);
        assert_eq!(
            bytes("00ff 7F\n0a"),
            Some(ProbeBytes::Hex(vec![0, 0xff, 0x7f, 10]))
        );
        assert_eq!(
            bytes(&to_hex(&[0, 255, 16])),
            Some(ProbeBytes::Hex(vec![0, 255, 16]))
        );
        for wrong in ["0", "0x00", "zz", "00f", "é0"] {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn statuses_are_one_or_a_range() {
        let range = |text: &str| text.parse::<StatusRange>();
        for text in ["200", "200-399", "100-599"] {
            assert_eq!(range(text).unwrap().to_string(), text);
        }
        assert!(range("200-204").is_ok_and(|range| range.contains(204) && !range.contains(205)));
        for wrong in [
            "",
            "20",
            "2xx",
            "600",
            "399-200",
            "099",
            "+20",
            "200-",
            "200-399-400",
        ] {
            assert!(range(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_pattern_is_over_bytes_and_bounded() {
        let regex = ProbeRegex::new(r"^\x00\w+\s").unwrap();
        assert!(regex.is_in(b"\0abc \xff") && !regex.is_in("\0é".as_bytes()));
        assert!(ProbeRegex::new("(").is_err());
        assert!(ProbeRegex::new("((a{100}){100}){100}").is_err());
    }
}
