//! Key exchange groups (`groups`).

use std::{fmt, str::FromStr};

/// A group in which client and server agree on keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Group {
    /// X25519 and ML-KEM-768 together: safe from a quantum computer, and if ML-KEM is broken (TLS 1.3 only).
    X25519MlKem768,
    /// Curve25519 (RFC 7748).
    X25519,
    /// NIST P-256.
    Secp256r1,
    /// NIST P-384.
    Secp384r1,
    /// P-256 and ML-KEM-768 together (TLS 1.3 only).
    Secp256r1MlKem768,
    /// ML-KEM-768 alone (TLS 1.3 only).
    MlKem768,
    /// ML-KEM-1024 alone (TLS 1.3 only).
    MlKem1024,
}

/// Why a text is no group that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// A finite field of the classic Diffie-Hellman exchange.
    #[error(
        "finite-field Diffie-Hellman groups are not supported: they are slow, and every client has a curve"
    )]
    FiniteField,
    /// A curve that exists elsewhere.
    #[error("this group is not supported: those that are cover every current client")]
    Unsupported,
    /// A list in OpenSSL's syntax.
    #[error("write one group in each string of the list")]
    List,
    /// No group that is known.
    #[error("no group of this name is known")]
    Unknown,
}

impl Group {
    /// Every group.
    pub const ALL: [Self; 7] = [
        Self::X25519MlKem768,
        Self::X25519,
        Self::Secp256r1,
        Self::Secp384r1,
        Self::Secp256r1MlKem768,
        Self::MlKem768,
        Self::MlKem1024,
    ];

    /// Those of a frontend that names none, the preferred one first.
    pub const DEFAULT: [Self; 4] = [
        Self::X25519MlKem768,
        Self::X25519,
        Self::Secp256r1,
        Self::Secp384r1,
    ];

    /// Its name in the registry of IANA ("TLS Supported Groups"), which the configuration is printed with.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::X25519MlKem768 => "X25519MLKEM768",
            Self::X25519 => "x25519",
            Self::Secp256r1 => "secp256r1",
            Self::Secp384r1 => "secp384r1",
            Self::Secp256r1MlKem768 => "SecP256r1MLKEM768",
            Self::MlKem768 => "MLKEM768",
            Self::MlKem1024 => "MLKEM1024",
        }
    }

    /// Its other names, in any case: OpenSSL's and NIST's.
    const fn aliases(self) -> &'static [&'static str] {
        match self {
            Self::Secp256r1 => &["prime256v1", "P-256", "P256"],
            Self::Secp384r1 => &["P-384", "P384"],
            _ => &[],
        }
    }

    /// Whether it exists in TLS 1.3 only.
    #[must_use]
    pub const fn is_tls13_only(self) -> bool {
        match self {
            Self::X25519 | Self::Secp256r1 | Self::Secp384r1 => false,
            Self::X25519MlKem768 | Self::Secp256r1MlKem768 | Self::MlKem768 | Self::MlKem1024 => true,
        }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.label())
    }
}

impl FromStr for Group {
    type Err = GroupError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is = |name: &&str| name.eq_ignore_ascii_case(text);
        let found = Self::ALL
            .into_iter()
            .find(|group| is(&group.label()) || group.aliases().iter().any(&is));
        found.ok_or_else(|| why_not(text))
    }
}

fn why_not(text: &str) -> GroupError {
    const ELSEWHERE: [&str; 11] = [
        "p-521",
        "p521",
        "secp",
        "sect",
        "x448",
        "brainpoolp",
        "curvesm2",
        "x25519kyber",
        "p256kyber",
        "mlkem512",
        "p384mlkem",
    ];
    let folded = text.to_ascii_lowercase();
    if folded.contains([':', ',', ';', '/', ' ', '*', '?', '+']) {
        GroupError::List
    } else if folded.starts_with("ffdhe") || folded.starts_with("modp") {
        GroupError::FiniteField
    } else if ELSEWHERE.iter().any(|start| folded.starts_with(start)) {
        GroupError::Unsupported
    } else {
        GroupError::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_read_by_the_name_of_iana_openssl_and_nist() {
        for group in Group::ALL {
            assert_eq!(group.label().parse(), Ok(group));
            assert_eq!(group.label().to_uppercase().parse(), Ok(group));
        }
        for (text, group) in [
            ("P-256", Group::Secp256r1),
            ("prime256v1", Group::Secp256r1),
            ("p-384", Group::Secp384r1),
            ("X25519", Group::X25519),
            ("x25519mlkem768", Group::X25519MlKem768),
        ] {
            assert_eq!(text.parse(), Ok(group), "{text}");
        }
    }

    #[test]
    fn a_group_of_another_program_is_refused_with_the_reason() {
        for text in [
            "secp521r1",
            "P-521",
            "X448",
            "sect571r1",
            "brainpoolP256r1",
            "SecP384r1MLKEM1024",
        ] {
            assert_eq!(text.parse::<Group>(), Err(GroupError::Unsupported), "{text}");
        }
        assert_eq!("ffdhe2048".parse::<Group>(), Err(GroupError::FiniteField));
        for text in ["X25519:P-256", "X25519, P-256", "*X25519MLKEM768 / P-256"] {
            assert_eq!(text.parse::<Group>(), Err(GroupError::List), "{text}");
        }
        for text in ["", "auto", "25519"] {
            assert_eq!(text.parse::<Group>(), Err(GroupError::Unknown), "{text}");
        }
    }

    #[test]
    fn the_preferred_group_is_safe_from_quantum_computers_and_others_follow_for_older_clients() {
        assert_eq!(Group::DEFAULT[0], Group::X25519MlKem768);
        assert!(Group::DEFAULT[1..].iter().all(|group| !group.is_tls13_only()));
    }
}
