//! TLS to servers: whom to believe that it is the server, and who we say we are.

use std::{sync::Arc, time::SystemTime};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{
        CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature,
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    sign::SingleCertAndKey,
};

use super::{
    certificates::Pair,
    pem::{PemError, PemFile},
    x509::{self, Facts},
};

/// Tickets that a thread keeps of one server: those of eight names, if clients choose the name. A server of TLS 1.3 sends
/// one or two with each connection, and each serves for one.
const SESSIONS: usize = 64;

/// `[backends.NAME.tls]`, with the bytes of the files that it names.
#[derive(Debug, Clone)]
pub struct ClientSettings {
    /// Whom to believe.
    pub trust: Trust,
    /// `cert` and `key`: what a server is shown that asks who we are.
    pub identity: Option<Arc<Pair>>,
    /// `alpn`, the preferred protocol first.
    pub alpn: Vec<Box<str>>,
}

/// Whom to believe that it is the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// The CAs of the host, as a PEM file. Those that cannot be used are left out.
    System(Vec<u8>),
    /// `ca`, as a PEM file: CAs, or the very certificates of servers, which are then believed whatever their names.
    Ca(Vec<u8>),
    /// `verify = false`: anybody.
    Anybody,
}

/// Why there can be no TLS to servers.
#[derive(Debug, thiserror::Error)]
pub enum ClientSettingsError {
    /// The file of CAs is no PEM file.
    #[error("ca: {0}")]
    Ca(PemError),
    /// It has no certificate that can be used.
    #[error("ca: the file has no certificate that can be used, only {kinds}")]
    NoCa {
        /// The kinds of its sections.
        kinds: String,
    },
    /// rustls refuses the combination.
    #[error("these settings cannot be used together: {0}")]
    Combination(Error),
}

/// What connections to the servers of a backend are opened with.
#[derive(Debug, Clone)]
pub struct ClientConfigs {
    /// Connections of clients; [`for_one_server`] gives it a memory for sessions.
    pub connections: Arc<ClientConfig>,
    /// Health checks. Each shakes hands in full, because a resumed session proves nothing about the certificate.
    pub checks: Arc<ClientConfig>,
    /// Health checks where no name can be expected: those of clients differ.
    pub checks_of_any_name: Arc<ClientConfig>,
}

/// Makes what connections to servers are opened with.
///
/// # Errors
/// The file of CAs cannot be used.
pub fn client_configs(settings: &ClientSettings) -> Result<ClientConfigs, ClientSettingsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = ServerVerifier::new(&settings.trust, &provider)?;
    let of_any_name = ServerVerifier {
        any_name: true,
        ..verifier.clone()
    };
    let checks = client_config(settings, &provider, verifier)?;
    Ok(ClientConfigs {
        connections: Arc::clone(&checks),
        checks,
        checks_of_any_name: client_config(settings, &provider, of_any_name)?,
    })
}

/// For the connections of one thread to one server: it remembers the sessions of this one, and no thread waits for another.
#[must_use]
pub fn for_one_server(config: &ClientConfig) -> Arc<ClientConfig> {
    let mut config = config.clone();
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    Arc::new(config)
}

fn client_config(
    settings: &ClientSettings,
    provider: &Arc<CryptoProvider>,
    verifier: ServerVerifier,
) -> Result<Arc<ClientConfig>, ClientSettingsError> {
    let config = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .map_err(ClientSettingsError::Combination)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match &settings.identity {
        Some(pair) => {
            let identity = SingleCertAndKey::from(pair.plain().as_ref().clone());
            config.with_client_cert_resolver(Arc::new(identity))
        }
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = settings
        .alpn
        .iter()
        .map(|name| name.as_bytes().to_vec())
        .collect();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Judges servers' certificates. Signatures are verified in any case: a certificate without its key proves nothing.
#[derive(Debug, Clone)]
struct ServerVerifier {
    judge: Judge,
    algorithms: WebPkiSupportedAlgorithms,
    /// Whether the certificate may be for another name.
    any_name: bool,
}

#[derive(Debug, Clone)]
enum Judge {
    Anybody,
    Known {
        /// `None`: no certificate of the file can be a CA's.
        cas: Option<Arc<WebPkiServerVerifier>>,
        /// Certificates that are a server's own. webpki refuses that of a CA as a server's, and self-signed ones are
        /// that more often than not.
        pinned: Vec<CertificateDer<'static>>,
    },
}

impl ServerVerifier {
    fn new(trust: &Trust, provider: &Arc<CryptoProvider>) -> Result<Self, ClientSettingsError> {
        let judge = match trust {
            Trust::Anybody => Judge::Anybody,
            Trust::System(pem) => Judge::of(pem, false, provider)?,
            Trust::Ca(pem) => Judge::of(pem, true, provider)?,
        };
        Ok(Self {
            judge,
            algorithms: provider.signature_verification_algorithms,
            any_name: false,
        })
    }
}

impl Judge {
    fn of(pem: &[u8], pins: bool, provider: &Arc<CryptoProvider>) -> Result<Self, ClientSettingsError> {
        let file = PemFile::new(pem).map_err(ClientSettingsError::Ca)?;
        let certificates = file.certificates().map_err(ClientSettingsError::Ca)?;
        let none = || ClientSettingsError::NoCa { kinds: file.kinds() };
        let mut roots = RootCertStore::empty();
        let (usable, _) = roots.add_parsable_certificates(certificates.iter().cloned());
        let readable = |der: &CertificateDer<'_>| Facts::read(der).is_ok();
        let pinned: Vec<_> = if pins {
            certificates.into_iter().filter(readable).collect()
        } else {
            Vec::new()
        };
        if usable == 0 && pinned.is_empty() {
            return Err(none());
        }
        let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        Ok(Self::Known {
            // an empty list of roots is the only error without revocation lists
            cas: builder.build().ok(),
            pinned,
        })
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Judge::Known { cas, pinned } = &self.judge else {
            return Ok(ServerCertVerified::assertion());
        };
        if pinned.contains(end_entity) {
            return pinned_is_valid(end_entity, now);
        }
        let Some(cas) = cas else {
            return Err(CertificateError::UnknownIssuer.into());
        };
        match cas.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // the name is looked at last
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.any_name => Ok(ServerCertVerified::assertion()),
            judged => judged,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// A pinned certificate ends as any other: whoever renews it changes the file too.
fn pinned_is_valid(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<ServerCertVerified, Error> {
    let facts = Facts::read(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let now: SystemTime = x509::time(std::time::Duration::from_secs(now.as_secs()));
    if now > facts.not_after {
        Err(CertificateError::Expired.into())
    } else if now < facts.not_before {
        Err(CertificateError::NotValidYet.into())
    } else {
        Ok(ServerCertVerified::assertion())
    }
}
