//! Certificates of clients: who may sign them, and which are revoked.

use std::sync::Arc;

use rustls::{
    CertRevocationListError, RootCertStore,
    crypto::CryptoProvider,
    pki_types::CertificateRevocationListDer,
    server::{VerifierBuilderError, WebPkiClientVerifier, danger::ClientCertVerifier},
};

use super::{
    pem::{PemError, PemFile},
    settings::ClientAuthSettings,
};
use crate::config::CrlPolicy;

/// Why clients' certificates cannot be judged.
#[derive(Debug, thiserror::Error)]
pub enum ClientAuthError {
    /// `client_ca` is no PEM file.
    #[error("client_ca: {0}")]
    Ca(PemError),
    /// `client_ca` has no certificate.
    #[error("client_ca: the file has no certificate, only {kinds}")]
    NoCa {
        /// The kinds of its sections.
        kinds: String,
    },
    /// A certificate of `client_ca` cannot be one of a CA.
    #[error("client_ca: certificate {number} cannot be used: {why}")]
    CaCertificate {
        /// Its place in the file, from 1.
        number: usize,
        /// What is wrong.
        why: rustls::Error,
    },
    /// A file of `client_crl` is no PEM file.
    #[error("client_crl, file {file}: {why}")]
    Crl {
        /// Its place in the configuration, from 1.
        file: usize,
        /// What is wrong.
        why: PemError,
    },
    /// A file of `client_crl` has no list.
    #[error("client_crl, file {file}: it has no revocation list, only {kinds}")]
    NoCrl {
        /// Its place in the configuration, from 1.
        file: usize,
        /// The kinds of its sections.
        kinds: String,
    },
    /// A list cannot be used.
    #[error("client_crl: a list cannot be used ({0:?})")]
    UnusableCrl(CertRevocationListError),
    /// Another reason.
    #[error("client certificates: {0}")]
    Other(VerifierBuilderError),
}

/// What judges clients' certificates.
///
/// # Errors
/// A file cannot be used.
pub(super) fn verifier(
    auth: &ClientAuthSettings,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, ClientAuthError> {
    let roots = Arc::new(roots(&auth.ca)?);
    let mut builder = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider));
    if !auth.required {
        builder = builder.allow_unauthenticated();
    }
    if !auth.crls.is_empty() {
        builder = builder.with_crls(crls(&auth.crls)?);
    }
    // a list that is out of date says nothing of what was revoked since: as one that is missing, and as OpenSSL has it
    // (X509_V_ERR_CRL_HAS_EXPIRED); what it lists stays revoked for who asks no more of it
    builder = match auth.crl_policy {
        CrlPolicy::Complete => builder.enforce_revocation_expiration(),
        CrlPolicy::Listed => builder.allow_unknown_revocation_status(),
    };
    builder.build().map_err(|error| match error {
        VerifierBuilderError::InvalidCrl(why) => ClientAuthError::UnusableCrl(why),
        other => ClientAuthError::Other(other),
    })
}

fn roots(ca: &[u8]) -> Result<RootCertStore, ClientAuthError> {
    let file = PemFile::new(ca).map_err(ClientAuthError::Ca)?;
    let certificates = file.certificates().map_err(ClientAuthError::Ca)?;
    if certificates.is_empty() {
        return Err(ClientAuthError::NoCa { kinds: file.kinds() });
    }
    let mut roots = RootCertStore::empty();
    for (index, certificate) in certificates.into_iter().enumerate() {
        let number = index + 1;
        roots
            .add(certificate)
            .map_err(|why| ClientAuthError::CaCertificate { number, why })?;
    }
    Ok(roots)
}

fn crls(files: &[Vec<u8>]) -> Result<Vec<CertificateRevocationListDer<'static>>, ClientAuthError> {
    let mut all = Vec::new();
    for (index, bytes) in files.iter().enumerate() {
        let file = index + 1;
        let of_file = |why| ClientAuthError::Crl { file, why };
        let pem = PemFile::new(bytes).map_err(of_file)?;
        let lists = pem.crls().map_err(of_file)?;
        if lists.is_empty() {
            let kinds = pem.kinds();
            return Err(ClientAuthError::NoCrl { file, kinds });
        }
        all.extend(lists);
    }
    Ok(all)
}
