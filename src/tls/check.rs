//! What an operator should know about certificates before clients do.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use super::{
    certificates::{ChainFault, Pair},
    ocsp::OcspStatus,
    resolver::Certificates,
    x509::date,
};
use crate::base::HostPattern;

/// How long before its end a certificate is warned of.
pub const EXPIRY_WARNING: Duration = Duration::from_secs(21 * 24 * 3600);

/// What is wrong with a certificate that can be served all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateFinding {
    /// It has expired.
    Expired {
        /// When.
        at: SystemTime,
    },
    /// It expires within [`EXPIRY_WARNING`].
    ExpiresSoon {
        /// When.
        at: SystemTime,
        /// How long that is from now.
        left: Duration,
    },
    /// It is not yet valid.
    NotYetValid {
        /// From when on it is.
        from: SystemTime,
    },
    /// One of its chain has expired, or expires within [`EXPIRY_WARNING`].
    ChainExpires {
        /// Its subject.
        subject: String,
        /// When.
        at: SystemTime,
    },
    /// Its chain is in the wrong order.
    ChainOrder(ChainFault),
    /// It has no subjectAltName.
    NoNames,
    /// It is one of a CA.
    IsCa,
    /// Its OCSP response is out of date, and so is not sent.
    OcspExpired {
        /// Since when.
        at: SystemTime,
    },
    /// Its OCSP response says that it is revoked, or that the responder does not know it.
    OcspStatus(OcspStatus),
}

impl CertificateFinding {
    /// Everything that is wrong with a pair at a time.
    #[must_use]
    pub fn all(pair: &Pair, now: SystemTime) -> Vec<Self> {
        let facts = pair.facts();
        let mut found = Vec::new();
        if facts.not_before > now {
            found.push(Self::NotYetValid {
                from: facts.not_before,
            });
        }
        match facts.not_after.duration_since(now) {
            Err(_) => found.push(Self::Expired { at: facts.not_after }),
            Ok(left) if left <= EXPIRY_WARNING => {
                found.push(Self::ExpiresSoon {
                    at: facts.not_after,
                    left,
                });
            }
            Ok(_) => {}
        }
        if let Some((subject, at)) = pair.chain_expiry().filter(|(_, at)| ends_soon(*at, now)) {
            found.push(Self::ChainExpires {
                subject: subject.to_owned(),
                at,
            });
        }
        found.extend(pair.chain_fault().cloned().map(Self::ChainOrder));
        if !facts.has_alternative_names {
            found.push(Self::NoNames);
        }
        if facts.is_ca {
            found.push(Self::IsCa);
        }
        if let Some(response) = pair.ocsp() {
            if response.status != OcspStatus::Good {
                found.push(Self::OcspStatus(response.status));
            } else if let Some(at) = response.next_update.filter(|at| *at <= now) {
                found.push(Self::OcspExpired { at });
            }
        }
        found
    }
}

impl CertificateFinding {
    /// Whether it matters of a certificate that we show to servers, which look at no names.
    #[must_use]
    pub const fn concerns_clients(&self) -> bool {
        matches!(
            self,
            Self::Expired { .. }
                | Self::ExpiresSoon { .. }
                | Self::NotYetValid { .. }
                | Self::ChainExpires { .. }
                | Self::ChainOrder(_)
        )
    }
}

fn ends_soon(at: SystemTime, now: SystemTime) -> bool {
    at.duration_since(now).map_or(true, |left| left <= EXPIRY_WARNING)
}

/// The names of routes that no certificate covers: their clients would be shown one for another host. Of a pattern for
/// several names, whether there is a certificate for one of them.
#[must_use]
pub fn uncovered<'a>(
    certificates: &Certificates,
    wanted: impl IntoIterator<Item = &'a HostPattern>,
) -> Vec<&'a HostPattern> {
    let is_covered = |pattern: &HostPattern| match pattern.exact() {
        Some(host) => certificates.covers(host),
        None => certificates.names().any(|name| match name.strip_prefix('*') {
            Some(suffix) => pattern.matches(&format!("any{suffix}")),
            None => pattern.matches(name),
        }),
    };
    wanted
        .into_iter()
        .filter(|pattern| !is_covered(pattern))
        .collect()
}

impl fmt::Display for CertificateFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired { at } => write!(f, "it expired on {}: it is refused", date(*at)),
            Self::ExpiresSoon { at, left } => {
                let days = left.as_secs() / (24 * 3600);
                write!(f, "it expires on {}, in {days} days: renew it", date(*at))
            }
            Self::NotYetValid { from } => {
                write!(f, "it is valid from {}: until then it is refused", date(*from))
            }
            Self::ChainExpires { subject, at } => {
                write!(
                    f,
                    "{subject} of its chain expires on {}: get a new chain",
                    date(*at)
                )
            }
            Self::ChainOrder(fault) => fault.fmt(f),
            Self::NoNames => {
                f.write_str("it has no subjectAltName: current clients ignore the common name and refuse it")
            }
            Self::IsCa => f.write_str("it is the certificate of a CA: some clients refuse it as a server's"),
            Self::OcspExpired { at } => {
                write!(
                    f,
                    "its OCSP response was good until {} and is not sent: get a new one",
                    date(*at)
                )
            }
            Self::OcspStatus(status) => write!(f, "its OCSP response says {status}"),
        }
    }
}
