//! The certificates that clients get.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base::FrontendName;

/// `GET /v1/certificates`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Certificates {
    /// By frontend, in the order in which they are preferred.
    pub certificates: Vec<ServedCertificate>,
}

/// A certificate that clients get.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServedCertificate {
    /// The frontend.
    pub frontend: FrontendName,
    /// Its path in the configuration, or what it is ordered as.
    pub name: String,
    /// Whether it is ordered from a CA.
    pub ordered: bool,
    /// Its subject.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// The host names that it is for.
    pub names: Vec<String>,
    /// The kind of its key: `ecdsa`, `rsa` or `ed25519`.
    pub key: String,
    /// From when on it is valid (RFC 3339, UTC).
    pub not_before: String,
    /// Until when.
    pub not_after: String,
    /// Seconds until it expires, negative since it has.
    pub expires_seconds: f64,
    /// Its serial number in hexadecimal digits.
    pub serial: String,
}
