//! OCSP responses (RFC 6960) that are stapled to a certificate. Clients verify them; here they are only read, for a response
//! that is out of date or somebody else's makes clients refuse a good certificate.

use std::time::SystemTime;

use x509_cert::der::{Decode, oid::AssociatedOid};
use x509_ocsp::{BasicOcspResponse, CertStatus, OcspResponse as Response, OcspResponseStatus};

use super::x509::{Facts, hexadecimal, time};
use crate::base::by_label;

/// What a response says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OcspResponse {
    /// About the certificate.
    pub status: OcspStatus,
    /// Until when it counts; `None`: it does not say.
    pub next_update: Option<SystemTime>,
}

/// What a responder knows of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OcspStatus {
    /// It is not revoked.
    Good,
    /// It is.
    Revoked,
    /// The responder does not know it.
    Unknown,
}

/// Why bytes are no response for a certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OcspError {
    /// They are none.
    #[error("the file is not an OCSP response in DER, as `openssl ocsp -respout` writes it ({0})")]
    Unreadable(String),
    /// The responder refused to answer.
    #[error("the responder did not answer but refused: {0}")]
    Refused(String),
    /// It is about other certificates.
    #[error("it is for another certificate")]
    OtherCertificate,
}

impl OcspResponse {
    /// Whether it helps the certificate at a time.
    #[must_use]
    pub fn is_good(&self, now: SystemTime) -> bool {
        self.status == OcspStatus::Good && self.next_update.is_none_or(|end| now < end)
    }
}

impl OcspStatus {
    /// Every status.
    pub const ALL: [Self; 3] = [Self::Good, Self::Revoked, Self::Unknown];

    /// The label in logs and the API.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Revoked => "revoked",
            Self::Unknown => "unknown",
        }
    }
}

by_label!(OcspStatus, OcspStatus::ALL);

/// Reads a response for a certificate.
///
/// # Errors
/// It is none, or not for this certificate.
pub(super) fn parse(bytes: &[u8], certificate: &Facts) -> Result<OcspResponse, OcspError> {
    let unreadable = |error: x509_cert::der::Error| OcspError::Unreadable(error.to_string());
    let response = Response::from_der(bytes).map_err(unreadable)?;
    if response.response_status != OcspResponseStatus::Successful {
        return Err(OcspError::Refused(format!("{:?}", response.response_status)));
    }
    let basic = response
        .response_bytes
        .filter(|bytes| bytes.response_type == BasicOcspResponse::OID)
        .ok_or_else(|| OcspError::Unreadable("it has no basic response".to_owned()))?;
    let basic = BasicOcspResponse::from_der(basic.response.as_bytes()).map_err(unreadable)?;
    let mut singles = basic.tbs_response_data.responses.iter();
    let single = singles
        .find(|single| hexadecimal(single.cert_id.serial_number.as_bytes()) == certificate.serial)
        .ok_or(OcspError::OtherCertificate)?;
    Ok(OcspResponse {
        status: match single.cert_status {
            CertStatus::Good(_) => OcspStatus::Good,
            CertStatus::Revoked(_) => OcspStatus::Revoked,
            CertStatus::Unknown(_) => OcspStatus::Unknown,
        },
        next_update: single.next_update.map(|at| time(at.0.to_unix_duration())),
    })
}
