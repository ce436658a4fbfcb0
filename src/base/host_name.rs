//! Names of hosts and services, as name servers are asked for them.

use std::{fmt, str::FromStr};

/// Longest name in bytes without a dot at its end (RFC 1035, section 2.3.4).
const LONGEST: usize = 253;

/// Longest part between dots in bytes.
const LONGEST_LABEL: usize = 63;

/// A name such as `app.example.com` or `_http._tcp.example.com`, in lower case. With a dot at its end no search list counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(Box<str>);

/// Why a text is no such name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAHostName {
    /// There is nothing.
    #[error("it is empty")]
    Empty,
    /// There is nothing between two dots, or before the first.
    #[error("nothing is between two dots")]
    EmptyLabel,
    /// There are more than 253 bytes, or more than 63 between two dots.
    #[error("it has more than {LONGEST} characters, or more than {LONGEST_LABEL} between two dots")]
    TooLong,
    /// There is a character that no host name has.
    #[error("a host name has letters, digits, hyphens, underscores and dots")]
    Character,
    /// A part begins or ends with a hyphen.
    #[error("a hyphen stands between letters or digits")]
    Hyphen,
    /// Its last part is a number, as an address has it.
    #[error("it looks like an IP address and is none")]
    Address,
}

impl HostName {
    /// The name, with the dot at its end if it has one.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name without a dot at its end: as certificates and HTTP have it.
    #[must_use]
    pub fn without_dot(&self) -> &str {
        self.0.strip_suffix('.').unwrap_or(&self.0)
    }
}

impl FromStr for HostName {
    type Err = NotAHostName;

    fn from_str(text: &str) -> Result<Self, NotAHostName> {
        if text.is_empty() {
            return Err(NotAHostName::Empty);
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        let is_known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if !name.chars().all(is_known) {
            return Err(NotAHostName::Character);
        }
        if name.len() > LONGEST || name.split('.').any(|label| label.len() > LONGEST_LABEL) {
            return Err(NotAHostName::TooLong);
        }
        if name.split('.').any(str::is_empty) {
            return Err(NotAHostName::EmptyLabel);
        }
        if (name.split('.')).any(|label| label.starts_with('-') || label.ends_with('-')) {
            return Err(NotAHostName::Hyphen);
        }
        let last = name.rsplit('.').next().unwrap_or_default();
        if last.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(NotAHostName::Address);
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_name_servers_can_be_asked_for() {
        for (text, name) in [
            ("App.Example.com", "app.example.com"),
            ("localhost", "localhost"),
            ("_http._tcp.example.com.", "_http._tcp.example.com."),
            ("1.a", "1.a"),
        ] {
            assert_eq!(text.parse::<HostName>().unwrap().as_str(), name);
        }
        let (long, labels) = ("a".repeat(64), format!("{}a", "a.".repeat(127)));
        for (text, why) in [
            ("", NotAHostName::Empty),
            (".", NotAHostName::EmptyLabel),
            ("a..b", NotAHostName::EmptyLabel),
            (".a", NotAHostName::EmptyLabel),
            ("a b", NotAHostName::Character),
            ("bücher.example", NotAHostName::Character),
            ("http://a", NotAHostName::Character),
            ("-a.example", NotAHostName::Hyphen),
            ("a-.example", NotAHostName::Hyphen),
            ("10.0.0.300", NotAHostName::Address),
            (&*long, NotAHostName::TooLong),
            (&*labels, NotAHostName::TooLong),
        ] {
            assert_eq!(text.parse::<HostName>(), Err(why), "{text}");
        }
    }
}
