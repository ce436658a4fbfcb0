//! `[frontends.NAME.connection_log]`: where the lines about connections go, and which of them.

use std::{fmt, num::NonZeroU32, path::PathBuf, str::FromStr};

use crate::base::{Host, NotAHttpUrl, SocketPath, TerminationReason, host_and_port};

/// Port of syslog by UDP (RFC 5426), and by custom that by TCP (RFC 6587).
const SYSLOG_PORT: u16 = 514;

/// Where what `access_log` wants goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionLog {
    /// `sample`: of the connections that ended as both sides wanted one of so many is logged. Default 1: each.
    pub sample: NonZeroU32,
    /// `journal`: what of that goes to the journal, or to stderr. Default all.
    pub journal: AccessLog,
    /// `file`: it is appended to this one.
    pub file: Option<PathBuf>,
    /// `syslog`: it is sent there.
    pub syslog: Option<SyslogServer>,
    /// `format` of file and syslog. Default text.
    pub format: LogFormat,
    /// `facility` of syslog. Default daemon.
    pub facility: Facility,
}

impl Default for ConnectionLog {
    fn default() -> Self {
        Self {
            sample: NonZeroU32::MIN,
            journal: AccessLog::All,
            file: None,
            syslog: None,
            format: LogFormat::Text,
            facility: Facility::Daemon,
        }
    }
}

/// Whom messages of syslog are sent to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SyslogServer {
    /// `udp://HOST:PORT`: a message a datagram (RFC 5426).
    Udp(HostPort),
    /// `tcp://HOST:PORT`: messages after their length (RFC 6587, octet counting).
    Tcp(HostPort),
    /// `unix:/dev/log`: a socket of this host, a message a datagram.
    Unix(SocketPath),
}

/// A host with a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    /// Which host.
    pub host: Host,
    /// Its port.
    pub port: u16,
}

/// Why a text names no syslog server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotASyslogServer {
    /// Nothing that is known stands before it.
    #[error("it begins neither with udp:// nor with tcp:// nor with unix:/")]
    Scheme,
    /// The path of a socket.
    #[error("it is not the path of a socket")]
    Path,
    /// The host or the port.
    #[error("{0}")]
    Host(#[from] NotAHttpUrl),
}

impl FromStr for SyslogServer {
    type Err = NotASyslogServer;

    fn from_str(text: &str) -> Result<Self, NotASyslogServer> {
        if text.starts_with("unix:") {
            return text.parse().map(Self::Unix).map_err(|_| NotASyslogServer::Path);
        }
        let (scheme, authority) = text.split_once("://").ok_or(NotASyslogServer::Scheme)?;
        let new = match scheme.to_ascii_lowercase().as_str() {
            "udp" => Self::Udp,
            "tcp" => Self::Tcp,
            _ => return Err(NotASyslogServer::Scheme),
        };
        let (host, port) = host_and_port(authority.trim_end_matches('/'))?;
        let port = port.unwrap_or(SYSLOG_PORT);
        Ok(new(HostPort { host, port }))
    }
}

impl fmt::Display for SyslogServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp(to) => write!(f, "udp://{}:{}", to.host, to.port),
            Self::Tcp(to) => write!(f, "tcp://{}:{}", to.host, to.port),
            Self::Unix(path) => path.fmt(f),
        }
    }
}

/// `facility`: which part of a host messages are of (RFC 5424, section 6.2.1). The discriminant is its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Facility {
    /// Programs of people.
    User = 1,
    /// Programs that run by themselves.
    Daemon = 3,
    /// For the site to choose.
    Local0 = 16,
    /// As [`Facility::Local0`].
    Local1,
    /// As [`Facility::Local0`].
    Local2,
    /// As [`Facility::Local0`].
    Local3,
    /// As [`Facility::Local0`].
    Local4,
    /// As [`Facility::Local0`].
    Local5,
    /// As [`Facility::Local0`].
    Local6,
    /// As [`Facility::Local0`].
    Local7,
}

/// Shape of log lines on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One readable line an event.
    Text,
    /// One JSON object a line.
    Json,
}

/// `access_log` of a frontend: which connections are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AccessLog {
    /// `true`: each.
    All,
    /// `"errors"`: those that ended otherwise than both sides wanted.
    Errors,
    /// `false`: none.
    Off,
}

impl AccessLog {
    /// Whether a connection that ended so is logged.
    #[must_use]
    pub fn wants(self, reason: TerminationReason) -> bool {
        match self {
            Self::All => true,
            Self::Errors => !reason.is_orderly(),
            Self::Off => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_syslog_server_has_a_transport_a_host_and_the_port_of_syslog() {
        for (text, shown) in [
            ("udp://192.0.2.9", "udp://192.0.2.9:514"),
            ("UDP://192.0.2.9:5140", "udp://192.0.2.9:5140"),
            ("tcp://logs.example.com/", "tcp://logs.example.com:514"),
            ("tcp://[2001:db8::9]:601", "tcp://[2001:db8::9]:601"),
            ("unix:/dev/log", "unix:/dev/log"),
        ] {
            assert_eq!(text.parse::<SyslogServer>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_is_wrong_with_a_syslog_server_is_said() {
        for (text, why) in [
            ("192.0.2.9:514", NotASyslogServer::Scheme),
            ("/dev/log", NotASyslogServer::Scheme),
            ("tls://192.0.2.9", NotASyslogServer::Scheme),
            ("unix:dev/log", NotASyslogServer::Path),
            ("udp://192.0.2.9:0", NotAHttpUrl::Port.into()),
        ] {
            assert_eq!(text.parse::<SyslogServer>(), Err(why), "{text}");
        }
        assert!("udp://".parse::<SyslogServer>().is_err());
    }

    #[test]
    fn facilities_have_the_numbers_of_rfc_5424() {
        let numbers = [
            Facility::User,
            Facility::Daemon,
            Facility::Local0,
            Facility::Local7,
        ]
        .map(|f| f as u8);
        assert_eq!(numbers, [1, 3, 16, 23]);
    }
}
