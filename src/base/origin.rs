//! Where a web page is from, as browsers say it.

use std::{fmt, str::FromStr};

use super::http_url::{HttpUrl, NotAHttpUrl};

/// Scheme, host and port of a web page (RFC 6454): `https://dashboard.example.com`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin(HttpUrl);

/// Why a text is no origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAnOrigin {
    /// It is no URL.
    #[error(transparent)]
    Url(#[from] NotAHttpUrl),
    /// It says more than where a page is from.
    #[error("it has a path: write scheme, host and port alone, such as https://dashboard.example.com")]
    Path,
}

impl Origin {
    /// Whether the page is of the very host that is asked, as the `Host` of the request has it. Where TLS ends at a proxy in
    /// front, the page has another scheme than the request.
    #[must_use]
    pub fn is_of(&self, host: &str, is_tls: bool) -> bool {
        if is_tls && !self.0.is_tls {
            return false;
        }
        let scheme = if self.0.is_tls { "https" } else { "http" };
        format!("{scheme}://{host}")
            .parse::<Self>()
            .is_ok_and(|own| own == *self)
    }
}

impl FromStr for Origin {
    type Err = NotAnOrigin;

    fn from_str(text: &str) -> Result<Self, NotAnOrigin> {
        let url: HttpUrl = text.parse()?;
        let authority = text.split_once("://").map_or("", |(_, rest)| rest);
        if authority.contains(['/', '?']) {
            return Err(NotAnOrigin::Path);
        }
        Ok(Self(url))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.0.is_tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.0.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Origin {
        text.parse().unwrap()
    }

    #[test]
    fn an_origin_is_one_however_it_is_written() {
        assert_eq!(origin("https://A.example:443"), origin("https://a.example"));
        assert_ne!(origin("https://a.example:8443"), origin("https://a.example"));
        assert_ne!(origin("http://a.example"), origin("https://a.example"));
        assert_eq!(
            origin("HTTP://[2001:db8::1]:80").to_string(),
            "http://[2001:db8::1]"
        );
        for text in [
            "null",
            "a.example",
            "ftp://a.example",
            "https://u:p@a.example",
            "*",
            "",
        ] {
            assert!(text.parse::<Origin>().is_err(), "{text}");
        }
        assert_eq!("https://a.example/".parse::<Origin>(), Err(NotAnOrigin::Path));
        assert_eq!("https://a.example?q".parse::<Origin>(), Err(NotAnOrigin::Path));
    }

    #[test]
    fn a_page_is_of_the_host_that_is_asked_if_host_and_port_are_the_same() {
        assert!(origin("https://a.example").is_of("a.example", true));
        assert!(origin("https://a.example:8443").is_of("A.example:8443", true));
        assert!(
            origin("https://a.example").is_of("a.example", false),
            "a proxy ends TLS"
        );
        assert!(origin("http://127.0.0.1:7001").is_of("127.0.0.1:7001", false));
        assert!(
            !origin("http://a.example").is_of("a.example", true),
            "another scheme"
        );
        assert!(
            !origin("https://a.example:8443").is_of("a.example", true),
            "another port"
        );
        assert!(!origin("https://evil.example").is_of("a.example", true));
        assert!(!origin("https://a.example").is_of("a.example/", true));
    }
}
