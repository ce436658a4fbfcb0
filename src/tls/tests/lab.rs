//! A CA, its certificates, clients, and handshakes in memory.

use std::{
    cell::Cell,
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    RsaKeySize,
};
use rustls::{
    ClientConfig, ClientConnection, Error, RootCertStore, ServerConfig, ServerConnection, SignatureScheme,
    SupportedProtocolVersion,
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
    version::{TLS12, TLS13},
};

use crate::tls::*;

/// Both versions, the newer first.
pub const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];

/// A CA.
pub struct Ca {
    pub certificate: Certificate,
    pub issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key, as files.
pub struct Files {
    pub certificate: String,
    pub key: String,
}

/// Which key a certificate is made with.
#[derive(Clone, Copy)]
pub enum Key {
    P256,
    P384,
    Ed25519,
    Rsa,
}

impl Key {
    pub fn pair(self) -> KeyPair {
        // one RSA key serves all tests: finding the primes takes long
        static RSA: OnceLock<String> = OnceLock::new();
        match self {
            Self::P256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
            Self::P384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
            Self::Ed25519 => KeyPair::generate_for(&rcgen::PKCS_ED25519),
            Self::Rsa => KeyPair::from_pem(RSA.get_or_init(|| {
                let key = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048);
                key.unwrap().serialize_pem()
            })),
        }
        .unwrap()
    }
}

impl Ca {
    pub fn new(name: &str) -> Self {
        let key = Key::P256.pair();
        let params = Self::params(name);
        let certificate = params.self_signed(&key).unwrap();
        Self {
            certificate,
            issuer: Issuer::new(params, key),
        }
    }

    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
    }

    /// A CA below this one.
    pub fn intermediate(&self, name: &str) -> Self {
        let key = Key::P256.pair();
        let params = Self::params(name);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Self {
            certificate,
            issuer: Issuer::new(params, key),
        }
    }

    /// A certificate for these names, the first of which is its common name.
    pub fn issue(&self, key: Key, names: &[&str]) -> Files {
        self.sign(key, &params(names))
    }

    pub fn sign(&self, key: Key, params: &CertificateParams) -> Files {
        let key = key.pair();
        Files {
            certificate: params.signed_by(&key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).unwrap();
        roots
    }
}

/// What a certificate for these names is made of.
pub fn params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names.clone()).unwrap();
    params
        .distinguished_name
        .push(DnType::CommonName, names[0].as_str());
    params
}

impl Files {
    pub fn pair(&self) -> Arc<Pair> {
        Arc::new(self.parsed().unwrap())
    }

    pub fn parsed(&self) -> Result<Pair, PairError> {
        Pair::parse(PairFiles {
            certificate: self.certificate.as_bytes(),
            key: Some(self.key.as_bytes()),
            ocsp: None,
        })
    }

    /// As a client takes them.
    pub fn der(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        use rustls::pki_types::pem::PemObject;
        let chain = CertificateDer::pem_slice_iter(self.certificate.as_bytes()).map(Result::unwrap);
        (
            chain.collect(),
            PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap(),
        )
    }
}

thread_local! {
    static NOW: Cell<SystemTime> = Cell::new(SystemTime::now());
}

/// The clock of tests, which goes only when it is told to: one a thread, and so one a test.
pub fn clock() -> SystemTime {
    NOW.get()
}

pub fn pass(time: Duration) {
    NOW.set(NOW.get() + time);
}

/// A fresh process with these ticket keys.
pub fn process(keys: &TicketKeys) -> Shared {
    Shared {
        key_log: Arc::new(rustls::NoKeyLog),
        tickets: TicketKeyRing::new(keys),
        sessions: SessionCache::new(),
        clock,
    }
}

pub fn keys(seed: u8) -> TicketKeys {
    TicketKeys::new(clock(), [seed; KEY_BYTES])
}

pub fn store(pairs: &[&Arc<Pair>]) -> Arc<CertificateStore> {
    let named = pairs.iter().enumerate();
    CertificateStore::new(
        named
            .map(|(index, pair)| (index.to_string().into(), Arc::clone(pair)))
            .collect(),
    )
}

/// A frontend with these settings in a process of its own.
pub fn server(settings: &ServerSettings, store: &Arc<CertificateStore>) -> Arc<ServerConfig> {
    server_config(settings, store, &process(&keys(1))).unwrap()
}

/// Who a client trusts, what it speaks, and who it says it is.
pub struct Client {
    pub roots: RootCertStore,
    pub versions: Vec<&'static SupportedProtocolVersion>,
    pub provider: CryptoProvider,
    pub identity: Option<Files>,
}

impl Client {
    pub fn of(ca: &Ca) -> Self {
        Self {
            roots: ca.roots(),
            versions: VERSIONS.to_vec(),
            provider: aws_lc_rs::default_provider(),
            identity: None,
        }
    }

    pub fn version(mut self, version: &'static SupportedProtocolVersion) -> Self {
        self.versions = vec![version];
        self
    }

    pub fn identity(mut self, files: Files) -> Self {
        self.identity = Some(files);
        self
    }

    /// One that can verify signatures of these schemes only.
    pub fn schemes(mut self, wanted: impl Fn(SignatureScheme) -> bool) -> Self {
        let all = self.provider.signature_verification_algorithms;
        let mapping = all
            .mapping
            .iter()
            .copied()
            .filter(|(scheme, _)| wanted(*scheme))
            .collect::<Vec<_>>();
        self.provider.signature_verification_algorithms = WebPkiSupportedAlgorithms {
            all: all.all,
            mapping: mapping.leak(),
        };
        self
    }

    pub fn config(self) -> ClientConfig {
        let config = ClientConfig::builder_with_provider(Arc::new(self.provider))
            .with_protocol_versions(&self.versions)
            .unwrap()
            .with_root_certificates(self.roots);
        match self.identity.as_ref().map(Files::der) {
            Some((chain, key)) => config.with_client_auth_cert(chain, key).unwrap(),
            None => config.with_no_client_auth(),
        }
    }

    pub fn arc(self) -> Arc<ClientConfig> {
        Arc::new(self.config())
    }
}

/// The side that refused, and why.
#[derive(Debug)]
pub enum Refused {
    Client(Error),
    Server(Error),
}

impl Refused {
    /// The failure that the server would log.
    pub fn failure(&self) -> HandshakeFailure {
        match self {
            Self::Server(error) => HandshakeFailure::of(error),
            Self::Client(error) => panic!("the client refused: {error}"),
        }
    }
}

/// A connection after its handshake.
#[derive(Debug)]
pub struct Connected {
    pub client: ClientConnection,
    pub server: ServerConnection,
}

impl Connected {
    pub fn session(&self) -> Session {
        Session::of(&self.server).unwrap()
    }

    /// The certificate that the client was shown.
    pub fn shown(&self) -> &CertificateDer<'static> {
        &self.client.peer_certificates().unwrap()[0]
    }
}

pub fn start(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>, host: &str) -> Connected {
    let name = ServerName::try_from(host.to_owned()).unwrap();
    Connected {
        client: ClientConnection::new(Arc::clone(client), name).unwrap(),
        server: ServerConnection::new(Arc::clone(server)).unwrap(),
    }
}

/// A whole handshake, tickets included.
pub fn connect(
    client: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
    host: &str,
) -> Result<Connected, Refused> {
    let mut connected = start(client, server, host);
    finish(&mut connected)?;
    Ok(connected)
}

/// Carries bytes both ways until neither side has any.
pub fn finish(connected: &mut Connected) -> Result<(), Refused> {
    let Connected { client, server } = connected;
    while client.wants_write() || server.wants_write() {
        to_server(client, server)?;
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets().map_err(Refused::Client)?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok(())
}

/// Carries what the client has to say.
pub fn to_server(client: &mut ClientConnection, server: &mut ServerConnection) -> Result<(), Refused> {
    let mut wire = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut wire).unwrap();
    }
    let mut rest = wire.as_slice();
    while !rest.is_empty() {
        server.read_tls(&mut rest).unwrap();
        server.process_new_packets().map_err(Refused::Server)?;
    }
    Ok(())
}
