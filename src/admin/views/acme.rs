//! Certificates that are ordered, as they are shown.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CertificateState, Word};
use crate::{base::FrontendName, config::Challenge};

/// `GET /v1/acme`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Acme {
    /// The CA, as the configuration has it; `None`: it has no section `[acme]`.
    pub directory: Option<String>,
    /// Whether this load balancer orders, or takes what another has ordered.
    pub leads: bool,
    /// The certificates, by name.
    pub certificates: Vec<Certificate>,
}

/// A certificate that is ordered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Certificate {
    /// What it is called: its first name.
    pub name: String,
    /// The names that it is ordered for.
    pub names: Vec<String>,
    /// The frontends that serve it.
    pub frontends: Vec<FrontendName>,
    /// How the CA sees that the names are ours.
    pub challenge: Word<Challenge>,
    /// How it is.
    pub state: Word<CertificateState>,
    /// Seconds since its order began that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordering_seconds: Option<f64>,
    /// Seconds until it expires, negative once it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_seconds: Option<f64>,
    /// Its serial number in hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Seconds until it is ordered next: 0 if that is now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_order_seconds: Option<f64>,
    /// Why the last order failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<CertificateProblem>,
}

/// Why an order failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CertificateProblem {
    /// The reason in one word.
    pub reason: String,
    /// In words, those of the CA if it has said something.
    pub text: String,
    /// Seconds since it is so.
    pub seconds: f64,
}

/// `POST /v1/acme/renew`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Renewing {
    /// The certificates that are ordered.
    pub certificates: Vec<String>,
}

/// Query of `POST /v1/acme/renew`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RenewQuery {
    /// The certificate; `None`: all.
    pub name: Option<String>,
}
