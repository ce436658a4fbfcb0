//! What rustls has for the names of the configuration.

use rustls::{
    CipherSuite as RustlsSuite, NamedGroup, SupportedCipherSuite, SupportedProtocolVersion,
    crypto::{
        CryptoProvider, SupportedKxGroup,
        aws_lc_rs::{self, cipher_suite, kx_group},
    },
    version,
};

use crate::config::{CipherSuite, Group, TlsVersion};

/// A provider with these suites and groups only, in this order.
pub(super) fn provider(suites: &[CipherSuite], groups: &[Group]) -> CryptoProvider {
    CryptoProvider {
        cipher_suites: suites.iter().copied().map(suite).collect(),
        kx_groups: groups.iter().copied().map(group).collect(),
        ..aws_lc_rs::default_provider()
    }
}

/// The version as rustls has it.
pub(super) const fn protocol_version(version: TlsVersion) -> &'static SupportedProtocolVersion {
    match version {
        TlsVersion::Tls12 => &version::TLS12,
        TlsVersion::Tls13 => &version::TLS13,
    }
}

const fn suite(suite: CipherSuite) -> SupportedCipherSuite {
    match suite {
        CipherSuite::Aes256Gcm => cipher_suite::TLS13_AES_256_GCM_SHA384,
        CipherSuite::Aes128Gcm => cipher_suite::TLS13_AES_128_GCM_SHA256,
        CipherSuite::Chacha20 => cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        CipherSuite::EcdsaAes256Gcm => cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        CipherSuite::EcdsaAes128Gcm => cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        CipherSuite::EcdsaChacha20 => cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        CipherSuite::RsaAes256Gcm => cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        CipherSuite::RsaAes128Gcm => cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        CipherSuite::RsaChacha20 => cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    }
}

const fn group(group: Group) -> &'static dyn SupportedKxGroup {
    match group {
        Group::X25519MlKem768 => kx_group::X25519MLKEM768,
        Group::X25519 => kx_group::X25519,
        Group::Secp256r1 => kx_group::SECP256R1,
        Group::Secp384r1 => kx_group::SECP384R1,
        Group::Secp256r1MlKem768 => kx_group::SECP256R1MLKEM768,
        Group::MlKem768 => kx_group::MLKEM768,
        Group::MlKem1024 => kx_group::MLKEM1024,
    }
}

/// The suite that was agreed on, in our words.
pub(super) fn own_suite(negotiated: RustlsSuite) -> Option<CipherSuite> {
    CipherSuite::ALL
        .into_iter()
        .find(|own| suite(*own).suite() == negotiated)
}

/// The group that was agreed on, in our words.
pub(super) fn own_group(negotiated: NamedGroup) -> Option<Group> {
    Group::ALL
        .into_iter()
        .find(|own| group(*own).name() == negotiated)
}
