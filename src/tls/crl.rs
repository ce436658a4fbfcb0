//! Revocation lists that are out of date.

use std::time::SystemTime;

use x509_cert::{crl::CertificateList, der::Decode};

use super::{
    pem::PemFile,
    x509::{bounded, date, time},
};
use crate::config::CrlPolicy;

/// A list whose time is over: its issuer should have published another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaleList {
    /// The CA whose list it is.
    pub issuer: String,
    /// When it should have been replaced.
    pub since: SystemTime,
}

impl StaleList {
    /// Those of a PEM file at a time. What cannot be read as a list is none here: whoever uses it says so.
    #[must_use]
    pub fn all(file: &[u8], now: SystemTime) -> Vec<Self> {
        let lists = PemFile::new(file).and_then(|pem| pem.crls()).unwrap_or_default();
        let stale = lists.iter().filter_map(|der| {
            let list = CertificateList::from_der(der).ok()?.tbs_cert_list;
            let since = time(list.next_update?.to_unix_duration());
            (since <= now).then(|| Self {
                issuer: bounded(&list.issuer),
                since,
            })
        });
        stale.collect()
    }

    /// What that means with a policy, and what to do.
    #[must_use]
    pub fn sentence(&self, policy: CrlPolicy) -> String {
        let so = match policy {
            CrlPolicy::Complete => {
                "clients with certificates of this CA are refused: get its new list, or set client_crl_policy = \"listed\""
            }
            CrlPolicy::Listed => "what has been revoked since is not known: get its new list",
        };
        let Self { issuer, since } = self;
        format!(
            "the revocation list of {issuer} is out of date since {}; {so}",
            date(*since)
        )
    }
}
