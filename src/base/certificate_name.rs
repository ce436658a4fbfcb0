//! Names that certificates are ordered for.

use std::{fmt, str::FromStr};

use super::host_name::{HostName, NotAHostName};

/// `www.example.com`, or `*.example.com` for every name right below `example.com`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CertificateName {
    host: HostName,
    is_wildcard: bool,
}

/// Why a text is no name that a certificate is ordered for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotACertificateName {
    /// It is no name of a host.
    #[error(transparent)]
    Host(NotAHostName),
    /// It is an address.
    #[error("it is an IP address, and certificates are ordered for names")]
    Address,
    /// There is an underscore, which no CA takes.
    #[error("a certificate is for host names, which have no underscore")]
    Underscore,
    /// The star is not alone before the first dot.
    #[error("a star stands for the whole first part of a name, as in *.example.com")]
    Star,
}

impl CertificateName {
    /// The name of the host; of a wildcard, what follows the star and its dot. That is what a CA looks at.
    #[must_use]
    pub const fn host(&self) -> &HostName {
        &self.host
    }

    /// Whether it is for every name right below [`host`](Self::host).
    #[must_use]
    pub const fn is_wildcard(&self) -> bool {
        self.is_wildcard
    }
}

impl FromStr for CertificateName {
    type Err = NotACertificateName;

    fn from_str(text: &str) -> Result<Self, NotACertificateName> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let (host, is_wildcard) = match text.strip_prefix("*.") {
            Some(host) => (host, true),
            None => (text, false),
        };
        if host.contains('*') {
            return Err(NotACertificateName::Star);
        }
        let host: HostName = host.parse().map_err(|error| match error {
            NotAHostName::Address => NotACertificateName::Address,
            other => NotACertificateName::Host(other),
        })?;
        if host.as_str().contains('_') {
            return Err(NotACertificateName::Underscore);
        }
        Ok(Self { host, is_wildcard })
    }
}

impl fmt::Display for CertificateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_wildcard {
            true => write!(f, "*.{}", self.host),
            false => self.host.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_for_a_host_or_for_all_right_below_one() {
        for (text, name, is_wildcard) in [
            ("WWW.Example.com", "www.example.com", false),
            ("example.com.", "example.com", false),
            ("*.example.com", "*.example.com", true),
        ] {
            let read: CertificateName = text.parse().unwrap();
            assert_eq!(
                (read.to_string().as_str(), read.is_wildcard()),
                (name, is_wildcard)
            );
            assert!(!read.host().as_str().contains('*'));
        }
        for (text, why) in [
            ("", NotACertificateName::Host(NotAHostName::Empty)),
            ("192.0.2.1", NotACertificateName::Address),
            ("a_b.example", NotACertificateName::Underscore),
            ("www.*.example", NotACertificateName::Star),
            ("w*.example", NotACertificateName::Star),
            ("*", NotACertificateName::Star),
        ] {
            assert_eq!(text.parse::<CertificateName>(), Err(why), "{text}");
        }
    }
}
