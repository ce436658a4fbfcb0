//! What a command is to put into the DNS, so that a CA believes that a domain is ours: nothing of it is free text.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::host_name::HostName;

/// Characters of a SHA-256 digest in base64url without padding (RFC 8555, section 8.4).
const DIGEST: usize = 43;

/// The label that the record stands below.
const LABEL: &str = "_acme-challenge.";

/// A TXT record for a CA.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DnsProof {
    /// What to do with it.
    pub change: DnsChange,
    /// The domain that it is about, without the label that it stands below.
    #[serde(serialize_with = "write_domain", deserialize_with = "read_domain")]
    pub domain: HostName,
    /// What it says.
    pub digest: Digest,
}

/// What to do with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DnsChange {
    /// Add it to those of its name that are there.
    Present,
    /// Remove it.
    Cleanup,
}

/// 43 characters of base64url.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Digest(Box<str>);

/// A text that is no digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not {DIGEST} characters of base64url")]
pub struct NotADigest;

impl DnsProof {
    /// The name of the record.
    #[must_use]
    pub fn record(&self) -> String {
        format!("{LABEL}{}", self.domain.without_dot())
    }
}

impl DnsChange {
    /// The word that the command gets.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Present => "present",
            Self::Cleanup => "cleanup",
        }
    }
}

impl Digest {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Digest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        match text.len() == DIGEST && text.bytes().all(is_plain) {
            true => Ok(Self(text.into())),
            false => Err(NotADigest),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

fn write_domain<S: Serializer>(domain: &HostName, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(domain.as_str())
}

fn read_domain<'de, D: Deserializer<'de>>(deserializer: D) -> Result<HostName, D::Error> {
    let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
    text.parse().map_err(de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST_OF_RFC: &str = "LPJNul-wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ";

    #[test]
    fn a_digest_is_43_characters_that_mean_nothing_to_a_shell() {
        assert_eq!(DIGEST_OF_RFC.parse::<Digest>().unwrap().as_str(), DIGEST_OF_RFC);
        for text in [
            "",
            "a",
            "$(reboot)-wow4m6DsqxbninhsWHlwfp0JecwQzYpOL",
            &"a".repeat(44),
        ] {
            assert_eq!(text.parse::<Digest>(), Err(NotADigest), "{text}");
        }
    }

    #[test]
    fn it_survives_the_way_to_the_runner_and_nothing_else_does() {
        let proof = DnsProof {
            change: DnsChange::Present,
            domain: "example.com".parse().unwrap(),
            digest: DIGEST_OF_RFC.parse().unwrap(),
        };
        assert_eq!(proof.record(), "_acme-challenge.example.com");
        let text = serde_json::to_string(&proof).unwrap();
        assert_eq!(serde_json::from_str::<DnsProof>(&text).unwrap(), proof);
        for wrong in [
            text.replace("example.com", "example.com; reboot"),
            text.replace("LPJN", "LP N"),
            text.replace("present", "remove"),
            text.replace("\"domain\"", "\"x\":1,\"domain\""),
        ] {
            assert!(serde_json::from_str::<DnsProof>(&wrong).is_err(), "{wrong}");
        }
    }
}
