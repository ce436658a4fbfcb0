//! Proofs for a CA that asks by TLS (TLS-ALPN-01, RFC 8737): who offers the protocol `acme-tls/1` and nothing else, and asks for
//! a name that a CA is to look at now, is shown a certificate of its own. Nobody else is: connections of clients are served
//! meanwhile as ever.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{
    ServerConfig,
    crypto::aws_lc_rs::{default_provider, sign::any_ecdsa_type},
    pki_types::{CertificateDer, PrivateKeyDer},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use crate::snapshot::ChallengeConfigs;

/// The protocol that a CA offers (RFC 8737, section 4).
pub const ACME_TLS: &str = "acme-tls/1";

/// What CAs are shown now, by name. Threads read it while it changes; nobody waits.
#[derive(Debug, Default)]
pub struct Challenges {
    shown: Arc<ChallengeConfigs>,
    /// Who writes, one after the other.
    writing: Mutex<()>,
}

/// A proof, which is shown until this is dropped.
#[derive(Debug)]
pub struct Shown {
    challenges: Arc<Challenges>,
    name: Box<str>,
}

/// Why a proof cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum ChallengeError {
    /// Its key is none.
    #[error("the key of the challenge's certificate: {0}")]
    Key(rustls::Error),
    /// rustls refuses it.
    #[error("the challenge's certificate: {0}")]
    Settings(rustls::Error),
}

impl Challenges {
    /// Shows a certificate to a CA that asks for a name, which is in lower case.
    ///
    /// # Errors
    /// Certificate and key cannot be used.
    pub fn show(
        self: &Arc<Self>,
        name: &str,
        certificate: CertificateDer<'static>,
        key: &PrivateKeyDer<'_>,
    ) -> Result<Shown, ChallengeError> {
        let config = config(certificate, key)?;
        self.change(|shown| {
            shown.insert(name.into(), Arc::new(config));
        });
        Ok(Shown {
            challenges: Arc::clone(self),
            name: name.into(),
        })
    }

    /// What is shown now, as the frontends see it.
    #[must_use]
    pub const fn configs(&self) -> &Arc<ChallengeConfigs> {
        &self.shown
    }

    fn change(&self, change: impl FnOnce(&mut HashMap<Box<str>, Arc<ServerConfig>>)) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut shown = HashMap::clone(&self.shown.load());
        change(&mut shown);
        self.shown.store(Arc::new(shown));
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        let name = std::mem::take(&mut self.name);
        self.challenges.change(|shown| {
            shown.remove(&name);
        });
    }
}

/// What a client is served with that has sent a ClientHello with this name and these protocols; `None`: it is none of a CA that
/// looks at a name of ours.
#[must_use]
pub fn challenge_of<'a>(
    shown: &ChallengeConfigs,
    name: Option<&str>,
    mut protocols: impl Iterator<Item = &'a [u8]>,
) -> Option<Arc<ServerConfig>> {
    let is_of_ca = protocols.next() == Some(ACME_TLS.as_bytes()) && protocols.next().is_none();
    let name = name.filter(|_| is_of_ca)?.to_ascii_lowercase();
    shown.load().get(&*name).cloned()
}

fn config(
    certificate: CertificateDer<'static>,
    key: &PrivateKeyDer<'_>,
) -> Result<ServerConfig, ChallengeError> {
    let key = any_ecdsa_type(key).map_err(ChallengeError::Key)?;
    let certified = Arc::new(CertifiedKey::new(vec![certificate], key));
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(ChallengeError::Settings)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(One(certified)));
    config.alpn_protocols = vec![ACME_TLS.as_bytes().to_vec()];
    // each look is one of its own
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// The one certificate, whoever asks.
#[derive(Debug)]
struct One(Arc<CertifiedKey>);

impl ResolvesServerCert for One {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(challenges: &Arc<Challenges>, name: &str) -> Shown {
        let pair = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(pair.signing_key.serialize_der().into());
        challenges.show(name, pair.cert.der().clone(), &key).unwrap()
    }

    #[test]
    fn only_a_ca_that_looks_at_a_name_is_shown_its_proof_and_only_for_so_long() {
        let challenges = Arc::new(Challenges::default());
        let is_empty = || challenges.configs().load().is_empty();
        assert!(is_empty());
        let one = shown(&challenges, "one.example");
        let other = shown(&challenges, "other.example");
        let is_shown = |name, protocols: &[&str]| {
            let protocols = protocols.iter().map(|protocol| protocol.as_bytes());
            challenge_of(challenges.configs(), name, protocols).is_some()
        };
        assert!(is_shown(Some("one.example"), &[ACME_TLS]));
        assert!(is_shown(Some("ONE.example"), &[ACME_TLS]));
        for (name, protocols) in [
            (None, &[ACME_TLS][..]),
            (Some("third.example"), &[ACME_TLS]),
            (Some("one.example"), &[]),
            (Some("one.example"), &["h2"]),
            (Some("one.example"), &[ACME_TLS, "h2"]),
        ] {
            assert!(!is_shown(name, protocols), "{name:?} {protocols:?}");
        }
        drop(one);
        assert!(!is_shown(Some("one.example"), &[ACME_TLS]) && is_shown(Some("other.example"), &[ACME_TLS]));
        drop(other);
        assert!(is_empty());
    }
}
