//! Patterns of host names, as routes and servers name the names that clients ask for.

use std::{fmt, str::FromStr};

/// Longest pattern in bytes; a host name has 253 at most (RFC 1035, section 2.3.4).
pub const MAX_PATTERN_BYTES: usize = 1_024;

/// Most memory that a compiled expression may take, in bytes.
const MAX_REGEX_BYTES: usize = 256 << 10;

/// Which host names are meant. Case does not matter, nor does a dot at the end.
#[derive(Debug, Clone)]
pub struct HostPattern {
    text: Box<str>,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    /// `www.example.com`.
    Exact,
    /// `*.example.com`: every name below it, however deep.
    Suffix,
    /// `www.*`.
    Prefix,
    /// `~EXPRESSION`, somewhere in the name unless it is anchored.
    Regex(regex::bytes::Regex),
}

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostPatternError {
    /// It is empty.
    #[error("it is empty")]
    Empty,
    /// It has more than [`MAX_PATTERN_BYTES`].
    #[error("it is longer than {MAX_PATTERN_BYTES} bytes")]
    TooLong,
    /// It has a star elsewhere than as its first or last label.
    #[error("a star stands for the first labels (*.example.com) or the last ones (www.*)")]
    Star,
    /// It has a character that no host name has.
    #[error("a host name has letters, digits, hyphens, underscores and dots")]
    Character,
    /// It begins with `~` and is no regular expression.
    #[error("it is no regular expression: {0}")]
    Regex(String),
}

impl HostPattern {
    /// Whether it means a host name, which is in lower case and has no dot at its end.
    #[must_use]
    pub fn matches(&self, host: &str) -> bool {
        match &self.kind {
            Kind::Exact => *host == *self.text,
            // the dot stays, and there is something before it
            Kind::Suffix => host
                .strip_suffix(&self.text[1..])
                .is_some_and(|rest| !rest.is_empty()),
            Kind::Prefix => {
                (host.strip_prefix(&self.text[..self.text.len() - 1])).is_some_and(|rest| !rest.is_empty())
            }
            Kind::Regex(regex) => regex.is_match(host.as_bytes()),
        }
    }

    /// The pattern as text, in lower case unless it is an expression.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The domain, with the dot before it, below which it means every name; `None` if it means others.
    #[must_use]
    pub fn domain(&self) -> Option<&str> {
        matches!(self.kind, Kind::Suffix).then(|| &self.text[1..])
    }

    /// Of two patterns that mean one name, the greater is the more exact: a name in full, then the longest domain, then the
    /// longest beginning, then an expression.
    #[must_use]
    pub fn exactness(&self) -> (u8, usize) {
        match self.kind {
            Kind::Exact => (3, 0),
            Kind::Suffix => (2, self.text.len()),
            Kind::Prefix => (1, self.text.len()),
            Kind::Regex(_) => (0, 0),
        }
    }

    /// The one name that it means; `None` if it may mean several.
    #[must_use]
    pub fn exact(&self) -> Option<&str> {
        matches!(self.kind, Kind::Exact).then_some(&self.text)
    }
}

impl FromStr for HostPattern {
    type Err = HostPatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > MAX_PATTERN_BYTES {
            return Err(HostPatternError::TooLong);
        }
        if let Some(expression) = text.strip_prefix('~') {
            let regex = regex::bytes::RegexBuilder::new(expression)
                .unicode(false)
                .case_insensitive(true)
                .size_limit(MAX_REGEX_BYTES)
                .build()
                .map_err(|error| HostPatternError::Regex(last_line(&error)))?;
            return Ok(Self {
                text: text.into(),
                kind: Kind::Regex(regex),
            });
        }
        let text = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        if text.is_empty() {
            return Err(HostPatternError::Empty);
        }
        let (kind, name) = if let Some(name) = text.strip_prefix("*.") {
            (Kind::Suffix, name)
        } else if let Some(name) = text.strip_suffix(".*") {
            (Kind::Prefix, name)
        } else {
            (Kind::Exact, text.as_str())
        };
        if name.contains('*') {
            return Err(HostPatternError::Star);
        }
        if !is_host_name(name) {
            return Err(HostPatternError::Character);
        }
        Ok(Self {
            text: text.as_str().into(),
            kind,
        })
    }
}

fn is_host_name(name: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty() && (label.bytes()).all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    name.split('.').all(is_label)
}

/// The errors of the crate are drawings of several lines that end with the reason.
fn last_line(error: &regex::Error) -> String {
    let text = error.to_string();
    let line = text.lines().last().unwrap_or_default().trim();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

impl PartialEq for HostPattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for HostPattern {}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, host: &str) -> bool {
        pattern.parse::<HostPattern>().unwrap().matches(host)
    }

    #[test]
    fn a_name_means_itself_in_any_case() {
        for pattern in ["www.example.com", "WWW.Example.COM", "www.example.com."] {
            assert!(matches(pattern, "www.example.com"), "{pattern}");
            assert!(!matches(pattern, "example.com") && !matches(pattern, "a.www.example.com"));
        }
    }

    #[test]
    fn a_star_in_front_means_every_name_below_and_not_the_name_itself() {
        let pattern = "*.example.com";
        assert!(matches(pattern, "www.example.com") && matches(pattern, "a.b.example.com"));
        for other in [
            "example.com",
            ".example.com",
            "badexample.com",
            "www.example.com.org",
        ] {
            assert!(!matches(pattern, other), "{other}");
        }
    }

    #[test]
    fn a_star_at_the_end_means_every_name_that_begins_so() {
        let pattern = "mail.*";
        assert!(matches(pattern, "mail.example.com"));
        assert!(!matches(pattern, "mail.") && !matches(pattern, "mailer.example.com"));
    }

    #[test]
    fn an_expression_means_what_it_matches_in_any_case() {
        assert!(matches(r"~^db\d+\.example\.com$", "db12.example.com"));
        assert!(matches("~EXAMPLE", "www.example.com"));
        assert!(!matches(r"~^db\d+\.", "xdb1.example.com"));
    }

    #[test]
    fn what_no_host_can_be_called_is_refused_with_a_reason() {
        let refused = |text: &str| text.parse::<HostPattern>().unwrap_err();
        assert_eq!(refused(""), HostPatternError::Empty);
        assert_eq!(refused("."), HostPatternError::Empty);
        for text in [
            "a.*.com",
            "*",
            "**.example.com",
            "*.*",
            "w*.example.com",
            "*example.com",
        ] {
            assert_eq!(refused(text), HostPatternError::Star, "{text}");
        }
        for text in [
            "exämple.com",
            "a b",
            "https://example.com",
            "a..b",
            "example.com:443",
            ".example.com",
        ] {
            assert_eq!(refused(text), HostPatternError::Character, "{text}");
        }
        assert_eq!(refused(&"a".repeat(2_000)), HostPatternError::TooLong);
        assert!(matches!(refused("~("), HostPatternError::Regex(why) if why == "unclosed group"));
        assert!(
            matches!(refused(r"~\w{1000}{1000}"), HostPatternError::Regex(_)),
            "it would take too much memory"
        );
    }
}
