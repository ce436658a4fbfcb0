//! The words of TLS in the configuration: versions, cipher suites, key exchange groups, client certificates. Every value is
//! one that the product can do; a word that other programs know and this one does not is an error of its own, which says why.

mod ciphers;
mod groups;

use std::{fmt, str::FromStr};

pub use ciphers::{CipherError, CipherSuite, KeyType, NoCipher};
pub use groups::{Group, GroupError};

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

/// Why a text is no version that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TlsVersionError {
    /// It names one that is obsolete.
    #[error(
        "{0} is obsolete (RFC 8996) and not supported: write \"1.2\" or \"1.3\"; a client that speaks nothing newer needs a \
         server that ends its TLS, behind a frontend without [tls]"
    )]
    Obsolete(ObsoleteVersion),
    /// It names none.
    #[error("versions are \"1.2\" and \"1.3\"")]
    Unknown,
}

/// Versions before TLS 1.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ObsoleteVersion {
    /// SSL 2.0.
    Ssl2,
    /// SSL 3.0.
    Ssl3,
    /// TLS 1.0.
    Tls10,
    /// TLS 1.1.
    Tls11,
}

/// `client_auth`: whether clients show a certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum ClientAuth {
    /// They are not asked for one.
    #[default]
    None,
    /// They are asked; one that shows none is served, one that shows a wrong one is refused.
    Optional,
    /// One that shows none is refused too.
    Required,
}

/// `client_crl_policy`: what the revocation lists of `client_crl` must say of a client's certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum CrlPolicy {
    /// Every certificate of the chain but the root needs a list of its issuer, and must not be in it.
    #[default]
    Complete,
    /// Only what a list names is refused; certificates whose issuer has no list here pass.
    Listed,
}

impl TlsVersion {
    /// Both, the older first.
    pub const ALL: [Self; 2] = [Self::Tls12, Self::Tls13];

    /// The word for it in the configuration.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Tls12 => "1.2",
            Self::Tls13 => "1.3",
        }
    }

    /// As OpenSSL, HAProxy and nginx write it in their logs.
    #[must_use]
    pub const fn protocol(self) -> &'static str {
        match self {
            Self::Tls12 => "TLSv1.2",
            Self::Tls13 => "TLSv1.3",
        }
    }
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.label())
    }
}

impl FromStr for TlsVersion {
    type Err = TlsVersionError;

    /// Reads `1.2`, `TLSv1.2`, `tls1.2`, `TLS 1.2`, `TLSv1_2`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let folded = text.trim().to_ascii_lowercase().replace('_', ".");
        if let Some(number) = folded.strip_prefix("ssl") {
            return Err(match number.trim_start_matches(separator) {
                "2" | "2.0" => TlsVersionError::Obsolete(ObsoleteVersion::Ssl2),
                "3" | "3.0" => TlsVersionError::Obsolete(ObsoleteVersion::Ssl3),
                _ => TlsVersionError::Unknown,
            });
        }
        let number = folded.strip_prefix("tls").unwrap_or(&folded);
        match number.trim_start_matches(separator) {
            "1.2" => Ok(Self::Tls12),
            "1.3" => Ok(Self::Tls13),
            "1" | "1.0" => Err(TlsVersionError::Obsolete(ObsoleteVersion::Tls10)),
            "1.1" => Err(TlsVersionError::Obsolete(ObsoleteVersion::Tls11)),
            _ => Err(TlsVersionError::Unknown),
        }
    }
}

/// What may stand between the protocol and the number.
const fn separator(c: char) -> bool {
    matches!(c, 'v' | ' ' | '-' | '.')
}

impl fmt::Display for ObsoleteVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ssl2 => "SSL 2.0",
            Self::Ssl3 => "SSL 3.0",
            Self::Tls10 => "TLS 1.0",
            Self::Tls11 => "TLS 1.1",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_in_the_spelling_of_any_program() {
        for text in [
            "1.2", "TLSv1.2", "tls1.2", "TLS 1.2", "TLSv1_2", "TLS1.2", "tls-1.2", " 1.2 ",
        ] {
            assert_eq!(text.parse(), Ok(TlsVersion::Tls12), "{text}");
            assert_eq!(text.replace(['2'], "3").parse(), Ok(TlsVersion::Tls13), "{text}");
        }
        for version in TlsVersion::ALL {
            assert_eq!(version.label().parse(), Ok(version));
            assert_eq!(version.protocol().parse(), Ok(version));
        }
    }

    #[test]
    fn an_obsolete_version_is_refused_with_what_to_write() {
        for (text, name) in [
            ("1.0", "TLS 1.0"),
            ("tls1", "TLS 1.0"),
            ("TLSv1", "TLS 1.0"),
            ("TLSv1.0", "TLS 1.0"),
            ("TLSv1.1", "TLS 1.1"),
            ("1.1", "TLS 1.1"),
            ("SSLv3", "SSL 3.0"),
            ("ssl2", "SSL 2.0"),
        ] {
            let why = text.parse::<TlsVersion>().unwrap_err().to_string();
            assert!(why.starts_with(&format!("{name} is obsolete")), "{text}: {why}");
            assert!(why.contains("write \"1.2\""), "{why}");
        }
        for text in [
            "",
            "1.4",
            "2",
            "tls",
            "sslv1",
            "DTLSv1.2",
            "1.2.",
            "tls1.2 tls1.3",
        ] {
            assert_eq!(
                text.parse::<TlsVersion>(),
                Err(TlsVersionError::Unknown),
                "{text}"
            );
        }
    }
}
