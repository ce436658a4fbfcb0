//! A certificate with its chain and key, as it is served.

use std::{fmt, sync::Arc, time::SystemTime};

use rustls::{
    SignatureAlgorithm,
    crypto::aws_lc_rs::sign::any_supported_type,
    pki_types::CertificateDer,
    sign::{CertifiedKey, SigningKey},
};

use super::{
    ocsp::{self, OcspError, OcspResponse},
    pem::{PemError, PemFile},
    x509::{Facts, X509Error},
};
use crate::base::by_label;

/// The files of a pair, as their bytes.
#[derive(Clone, Copy)]
pub struct PairFiles<'a> {
    /// The certificate, and the chain after it; the key too if there is no `key`.
    pub certificate: &'a [u8],
    /// The key; `None`: it is in `certificate` (a bundle, as HAProxy has it).
    pub key: Option<&'a [u8]>,
    /// An OCSP response for the certificate, in DER.
    pub ocsp: Option<&'a [u8]>,
}

/// A certificate that can be served.
#[derive(Debug, Clone)]
pub struct Pair {
    /// Without an OCSP response.
    certified: Arc<CertifiedKey>,
    /// With it.
    stapled: Option<(Arc<CertifiedKey>, OcspResponse)>,
    facts: Facts,
    kind: KeyKind,
    chain_fault: Option<ChainFault>,
    /// The certificate of the chain that ends first.
    chain_expiry: Option<(String, SystemTime)>,
}

/// What a certificate's key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyKind {
    /// ECDSA: the cheapest to serve, so preferred.
    Ecdsa,
    /// Ed25519: few clients have it.
    Ed25519,
    /// RSA: every client has it.
    Rsa,
}

/// A certificate of the chain that is not signed by the next one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the chain is in the wrong order: certificate {number} ({subject}) is issued by {issuer}, and certificate {next} is {found}; \
     each must be followed by its issuer"
)]
pub struct ChainFault {
    /// Its place in the file, from 1.
    pub number: usize,
    /// The place of the one after it.
    pub next: usize,
    /// Its subject.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// Who comes after it.
    pub found: String,
}

/// Why files are no pair.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PairError {
    /// The certificate's file is no PEM file.
    #[error("certificate: {0}")]
    CertificateFile(PemError),
    /// The key's file is no PEM file, or the key is of a form that is not read.
    #[error("key: {0}")]
    KeyFile(PemError),
    /// The certificate's file has none.
    #[error("the file has no certificate, only {kinds}")]
    NoCertificate {
        /// The kinds of its sections.
        kinds: String,
    },
    /// The key's file has none.
    #[error("the file has no private key, only {kinds}")]
    NoKey {
        /// The kinds of its sections.
        kinds: String,
    },
    /// It has several.
    #[error("the file has {count} private keys: one is expected")]
    Keys {
        /// How many.
        count: usize,
    },
    /// A certificate cannot be read.
    #[error("certificate {number} of the file cannot be read: {why}")]
    Unreadable {
        /// Its place in the file, from 1.
        number: usize,
        /// What is wrong.
        why: X509Error,
    },
    /// The key is not of a kind that can sign.
    #[error(
        "the key cannot be used: RSA from 2048 bits, ECDSA on P-256, P-384 or P-521, and Ed25519 are supported"
    )]
    UnsupportedKey,
    /// The key belongs to another certificate of the file.
    #[error(
        "the chain is in the wrong order: the key belongs to certificate {number} ({subject}), which must be the first of the file"
    )]
    LeafNotFirst {
        /// Its place in the file, from 1.
        number: usize,
        /// Its subject.
        subject: String,
    },
    /// The key belongs to no certificate of the file.
    #[error("key and certificate do not match: the certificate of {subject} has another public key")]
    KeyMismatch {
        /// Subject of the first certificate.
        subject: String,
    },
    /// The OCSP response.
    #[error("OCSP response: {0}")]
    Ocsp(#[from] OcspError),
    /// A file could not be read: which, and why.
    #[error("{0}")]
    NotRead(String),
}

impl Pair {
    /// Whether clients see the same of both.
    #[must_use]
    pub fn looks_like(&self, other: &Self) -> bool {
        let response = |pair: &Self| pair.stapled.as_ref().and_then(|(key, _)| key.ocsp.clone());
        self.certified.cert == other.certified.cert && response(self) == response(other)
    }

    /// Reads a pair.
    ///
    /// # Errors
    /// The files are not what they should be; the error says which, and what to do.
    pub fn parse(files: PairFiles<'_>) -> Result<Self, PairError> {
        let certificate_file = PemFile::new(files.certificate).map_err(PairError::CertificateFile)?;
        let chain = certificate_file
            .certificates()
            .map_err(PairError::CertificateFile)?;
        if chain.is_empty() {
            let kinds = certificate_file.kinds();
            return Err(PairError::NoCertificate { kinds });
        }
        let key = match files.key {
            Some(bytes) => signing_key(&PemFile::new(bytes).map_err(PairError::KeyFile)?)?,
            None => signing_key(&certificate_file)?,
        };
        let kind = KeyKind::of(&*key).ok_or(PairError::UnsupportedKey)?;
        let facts = facts(&chain)?;
        check_key(&*key, &facts)?;
        let chain_fault = chain_fault(&facts);
        let mut facts = facts.into_iter();
        // there is one: the chain is not empty
        let leaf = facts.next().ok_or(PairError::UnsupportedKey)?;
        let chain_expiry = facts
            .map(|issuer| (issuer.subject, issuer.not_after))
            .min_by_key(|(_, at)| *at);
        let certified = CertifiedKey {
            cert: chain,
            key,
            ocsp: None,
        };
        let stapled = files.ocsp.map(|bytes| {
            let response = ocsp::parse(bytes, &leaf)?;
            let ocsp = Some(bytes.to_vec());
            let certified = CertifiedKey {
                ocsp,
                ..certified.clone()
            };
            Ok::<_, OcspError>((Arc::new(certified), response))
        });
        Ok(Self {
            stapled: stapled.transpose()?,
            certified: Arc::new(certified),
            facts: leaf,
            kind,
            chain_fault,
            chain_expiry,
        })
    }

    /// Names and validity.
    #[must_use]
    pub const fn facts(&self) -> &Facts {
        &self.facts
    }

    /// What its key is.
    #[must_use]
    pub const fn kind(&self) -> KeyKind {
        self.kind
    }

    /// Where its chain is in the wrong order. It is served as it is: most clients put it in order.
    #[must_use]
    pub const fn chain_fault(&self) -> Option<&ChainFault> {
        self.chain_fault.as_ref()
    }

    /// The certificate of its chain, besides itself, that expires first, and when.
    #[must_use]
    pub fn chain_expiry(&self) -> Option<(&str, SystemTime)> {
        self.chain_expiry.as_ref().map(|(subject, at)| (&**subject, *at))
    }

    /// What its OCSP response says, if it has one.
    #[must_use]
    pub fn ocsp(&self) -> Option<&OcspResponse> {
        self.stapled.as_ref().map(|(_, response)| response)
    }

    pub(super) fn key(&self) -> &dyn SigningKey {
        &*self.certified.key
    }

    /// Without the OCSP response, which is nothing for servers.
    pub(super) const fn plain(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }

    /// What rustls serves at a time: the OCSP response is left out once it is out of date.
    pub(super) fn certified_at(&self, clock: impl FnOnce() -> SystemTime) -> &Arc<CertifiedKey> {
        match &self.stapled {
            Some((stapled, response)) if response.is_good(clock()) => stapled,
            _ => &self.certified,
        }
    }
}

fn signing_key(file: &PemFile<'_>) -> Result<Arc<dyn SigningKey>, PairError> {
    let mut keys = file.keys().map_err(PairError::KeyFile)?;
    match (keys.pop(), keys.len()) {
        (None, _) => Err(PairError::NoKey { kinds: file.kinds() }),
        (Some(key), 0) => any_supported_type(&key).map_err(|_| PairError::UnsupportedKey),
        (Some(_), others) => Err(PairError::Keys { count: others + 1 }),
    }
}

fn facts(chain: &[CertificateDer<'_>]) -> Result<Vec<Facts>, PairError> {
    let read = |(index, certificate): (usize, &CertificateDer<'_>)| {
        let number = index + 1;
        Facts::read(certificate).map_err(|why| PairError::Unreadable { number, why })
    };
    chain.iter().enumerate().map(read).collect()
}

/// Whether the key is that of the first certificate.
fn check_key(key: &dyn SigningKey, chain: &[Facts]) -> Result<(), PairError> {
    // every kind that is read has it
    let public = key.public_key().ok_or(PairError::UnsupportedKey)?;
    let owner = chain.iter().position(|facts| facts.public_key == public.as_ref());
    let subject = |index: usize| {
        chain
            .get(index)
            .map(|facts| facts.subject.clone())
            .unwrap_or_default()
    };
    match owner {
        Some(0) => Ok(()),
        Some(index) => Err(PairError::LeafNotFirst {
            number: index + 1,
            subject: subject(index),
        }),
        None => Err(PairError::KeyMismatch { subject: subject(0) }),
    }
}

/// The first certificate that is not followed by its issuer.
fn chain_fault(chain: &[Facts]) -> Option<ChainFault> {
    let mut pairs = chain.iter().zip(chain.iter().skip(1)).enumerate();
    let (index, (one, next)) = pairs.find(|(_, (one, next))| one.issuer_der != next.subject_der)?;
    Some(ChainFault {
        number: index + 1,
        next: index + 2,
        subject: one.subject.clone(),
        issuer: one.issuer.clone(),
        found: next.subject.clone(),
    })
}

impl KeyKind {
    /// Every kind, in the order in which they are preferred.
    pub const ALL: [Self; 3] = [Self::Ecdsa, Self::Ed25519, Self::Rsa];

    /// The label in logs and the API.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ecdsa => "ecdsa",
            Self::Ed25519 => "ed25519",
            Self::Rsa => "rsa",
        }
    }

    fn of(key: &dyn SigningKey) -> Option<Self> {
        match key.algorithm() {
            SignatureAlgorithm::ECDSA => Some(Self::Ecdsa),
            SignatureAlgorithm::ED25519 => Some(Self::Ed25519),
            SignatureAlgorithm::RSA => Some(Self::Rsa),
            _ => None,
        }
    }
}

by_label!(KeyKind, KeyKind::ALL);

impl fmt::Debug for PairFiles<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PairFiles")
    }
}
