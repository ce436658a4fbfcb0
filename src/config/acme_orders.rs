//! What a configuration orders, and what is needed for it.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use super::{
    acme::{Acme, CertificateOrder, Challenge},
    discovery_source::{HOSTS, RESOLV_CONF},
    model::Config,
    tls::SYSTEM_CAS,
};
use crate::base::ListenAddr;

impl Config {
    /// Where HTTP-01 is answered, if a certificate is ordered so.
    #[must_use]
    pub fn acme_http(&self) -> Option<ListenAddr> {
        let acme = self.acme.as_ref().filter(|acme| acme.lead)?;
        let orders = self.ordered_certificates();
        let is_used = orders
            .values()
            .any(|order| order.challenge(acme) == Challenge::Http01);
        acme.http_listen_addr.filter(|_| is_used)
    }

    /// The certificates that its frontends order, by their names, each once.
    #[must_use]
    pub fn ordered_certificates(&self) -> BTreeMap<Arc<str>, &CertificateOrder> {
        if self.acme.is_none() {
            return BTreeMap::new();
        }
        let frontends = self
            .frontends
            .values()
            .filter_map(|frontend| frontend.tls.as_ref());
        (frontends.filter_map(|tls| tls.acme.as_ref()))
            .map(|order| (order.name(), order))
            .collect()
    }

    /// Every file that `[acme]` names or needs, if a frontend orders a certificate.
    pub(crate) fn acme_files(&self) -> impl Iterator<Item = &Path> {
        let has_orders = !self.ordered_certificates().is_empty();
        let acme = self.acme.iter().filter(move |_| has_orders);
        acme.flat_map(files)
    }
}

/// Every file that asking the CA needs.
fn files(acme: &Acme) -> impl Iterator<Item = &Path> {
    let ca = acme.ca.as_deref().unwrap_or(Path::new(SYSTEM_CAS));
    let key = acme.external_account.as_ref().and_then(|eab| eab.hmac_key.file());
    // the CA's own URLs may name other hosts than the directory's
    let of_host = [RESOLV_CONF, HOSTS].map(Path::new);
    let is_used = acme.lead;
    (std::iter::once(ca).chain(key).chain(of_host)).filter(move |_| is_used)
}
