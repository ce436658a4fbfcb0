//! What CAs look at to see that names are ours.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::failure::{Failure, FailureKind};
use crate::tls;

/// Where it is shown.
#[derive(Debug, Clone, Default)]
pub struct Proofs {
    /// By TLS frontends.
    pub tls: Arc<tls::Challenges>,
    /// By the listener for HTTP-01.
    pub http: Arc<HttpTokens>,
}

/// What is answered to requests for HTTP-01, by token.
#[derive(Debug, Default)]
pub struct HttpTokens(Mutex<BTreeMap<Box<str>, Box<str>>>);

/// A proof, which is shown until this is dropped.
#[derive(Debug)]
pub enum Shown {
    /// By TLS frontends.
    Tls(#[expect(dead_code, reason = "held for its end")] tls::Shown),
    /// By the listener for HTTP-01.
    Http(#[expect(dead_code, reason = "held for its end")] ShownToken),
}

/// See [`Shown::Http`].
#[derive(Debug)]
pub struct ShownToken {
    tokens: Arc<HttpTokens>,
    token: Box<str>,
}

impl HttpTokens {
    /// What the CA is answered that asks for a token.
    #[must_use]
    pub fn answer(&self, token: &str) -> Option<String> {
        self.lock().get(token).map(ToString::to_string)
    }

    fn show(self: &Arc<Self>, token: &str, text: &str) -> ShownToken {
        self.lock().insert(token.into(), text.into());
        ShownToken {
            tokens: Arc::clone(self),
            token: token.into(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Box<str>, Box<str>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ShownToken {
    fn drop(&mut self) {
        self.tokens.lock().remove(&self.token);
    }
}

impl Proofs {
    /// Shows a text to who asks for a token (RFC 8555, section 8.3).
    #[must_use]
    pub fn show_by_http(&self, token: &str, text: &str) -> Shown {
        Shown::Http(self.http.show(token, text))
    }

    /// Shows a digest to who opens TLS for a name (RFC 8737).
    ///
    /// # Errors
    /// The certificate that has it cannot be made.
    pub fn show_by_tls(&self, name: &str, digest: &[u8]) -> Result<Shown, Failure> {
        let failed = |error: &dyn std::fmt::Display| {
            Failure::new(
                FailureKind::Unusable,
                format!("make the certificate of a challenge: {error}"),
            )
        };
        let key = KeyPair::generate().map_err(|error| failed(&error))?;
        let mut params = CertificateParams::new([name.to_owned()]).map_err(|error| failed(&error))?;
        params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
        let certificate = params.self_signed(&key).map_err(|error| failed(&error))?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let shown = self.tls.show(name, certificate.der().clone(), &key);
        Ok(Shown::Tls(shown.map_err(|error| failed(&error))?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_answered_until_the_ca_has_asked() {
        let proofs = Proofs::default();
        let shown = proofs.show_by_http("token", "token.thumb");
        assert_eq!(proofs.http.answer("token").as_deref(), Some("token.thumb"));
        assert_eq!(proofs.http.answer("other"), None);
        drop(shown);
        assert_eq!(proofs.http.answer("token"), None);
    }

    #[test]
    fn a_digest_is_shown_by_a_certificate_of_the_name() {
        let proofs = Proofs::default();
        let shown = proofs.show_by_tls("www.example", &[7; 32]).unwrap();
        assert_eq!(proofs.tls.configs().load().len(), 1);
        drop(shown);
        assert!(proofs.tls.configs().load().is_empty());
    }
}
