//! Cipher suites (`ciphers`).

use std::{fmt, str::FromStr};

use super::TlsVersion;

/// A cipher suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CipherSuite {
    /// TLS 1.3.
    Aes256Gcm,
    /// TLS 1.3.
    Aes128Gcm,
    /// TLS 1.3.
    Chacha20,
    /// TLS 1.2, certificates with an ECDSA or Ed25519 key.
    EcdsaAes256Gcm,
    /// TLS 1.2, certificates with an ECDSA or Ed25519 key.
    EcdsaAes128Gcm,
    /// TLS 1.2, certificates with an ECDSA or Ed25519 key.
    EcdsaChacha20,
    /// TLS 1.2, certificates with an RSA key.
    RsaAes256Gcm,
    /// TLS 1.2, certificates with an RSA key.
    RsaAes128Gcm,
    /// TLS 1.2, certificates with an RSA key.
    RsaChacha20,
}

/// What keys certificates have, as far as a suite of TLS 1.2 depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyType {
    /// Elliptic curves: ECDSA and Ed25519.
    Ecdsa,
    /// RSA.
    Rsa,
}

/// A text that names no suite that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct CipherError {
    /// The reason.
    pub why: NoCipher,
}

/// Why a suite cannot be used. Each is a property of the suite, so that no setting changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NoCipher {
    /// A list or a keyword of OpenSSL's cipher strings.
    CipherString,
    /// No encryption.
    NoEncryption,
    /// No certificate, so that anybody can be in between.
    Anonymous,
    /// RC4, DES, 3DES, IDEA, SEED, export.
    Broken,
    /// Keys that both sides were given beforehand, or passwords.
    SharedSecret,
    /// Classic Diffie-Hellman.
    FiniteField,
    /// Static Diffie-Hellman.
    StaticDiffieHellman,
    /// ARIA, Camellia, GOST, SM4.
    Regional,
    /// The client encrypts its secret with the certificate's key.
    StaticRsa,
    /// CCM.
    Ccm,
    /// CBC.
    Cbc,
    /// Nothing that is known.
    Unknown,
}

impl CipherSuite {
    /// Every suite, in the order of preference of a client that has none.
    pub const ALL: [Self; 9] = [
        Self::Aes256Gcm,
        Self::Aes128Gcm,
        Self::Chacha20,
        Self::EcdsaAes256Gcm,
        Self::EcdsaAes128Gcm,
        Self::EcdsaChacha20,
        Self::RsaAes256Gcm,
        Self::RsaAes128Gcm,
        Self::RsaChacha20,
    ];

    /// Its place in [`ALL`](Self::ALL).
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Its name in the registry of IANA ("TLS Cipher Suites"), which the configuration is printed with.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Aes256Gcm => "TLS_AES_256_GCM_SHA384",
            Self::Aes128Gcm => "TLS_AES_128_GCM_SHA256",
            Self::Chacha20 => "TLS_CHACHA20_POLY1305_SHA256",
            Self::EcdsaAes256Gcm => "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
            Self::EcdsaAes128Gcm => "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
            Self::EcdsaChacha20 => "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
            Self::RsaAes256Gcm => "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
            Self::RsaAes128Gcm => "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            Self::RsaChacha20 => "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        }
    }

    /// As OpenSSL, HAProxy and nginx call it; those of TLS 1.3 have one name everywhere.
    #[must_use]
    pub const fn openssl(self) -> &'static str {
        match self {
            Self::Aes256Gcm | Self::Aes128Gcm | Self::Chacha20 => self.label(),
            Self::EcdsaAes256Gcm => "ECDHE-ECDSA-AES256-GCM-SHA384",
            Self::EcdsaAes128Gcm => "ECDHE-ECDSA-AES128-GCM-SHA256",
            Self::EcdsaChacha20 => "ECDHE-ECDSA-CHACHA20-POLY1305",
            Self::RsaAes256Gcm => "ECDHE-RSA-AES256-GCM-SHA384",
            Self::RsaAes128Gcm => "ECDHE-RSA-AES128-GCM-SHA256",
            Self::RsaChacha20 => "ECDHE-RSA-CHACHA20-POLY1305",
        }
    }

    /// As Go, and so gobetween, called it before it had IANA's name.
    const fn go(self) -> Option<&'static str> {
        match self {
            Self::EcdsaChacha20 => Some("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305"),
            Self::RsaChacha20 => Some("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305"),
            _ => None,
        }
    }

    /// The version of TLS that it belongs to.
    #[must_use]
    pub const fn version(self) -> TlsVersion {
        match self.key_type() {
            None => TlsVersion::Tls13,
            Some(_) => TlsVersion::Tls12,
        }
    }

    /// The keys of certificates that it goes with; `None`: all.
    #[must_use]
    pub const fn key_type(self) -> Option<KeyType> {
        match self {
            Self::Aes256Gcm | Self::Aes128Gcm | Self::Chacha20 => None,
            Self::EcdsaAes256Gcm | Self::EcdsaAes128Gcm | Self::EcdsaChacha20 => Some(KeyType::Ecdsa),
            Self::RsaAes256Gcm | Self::RsaAes128Gcm | Self::RsaChacha20 => Some(KeyType::Rsa),
        }
    }
}

impl fmt::Display for CipherSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.label())
    }
}

impl FromStr for CipherSuite {
    type Err = CipherError;

    /// Reads the name of IANA, OpenSSL or Go, in any case.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is = |name: &str| name.eq_ignore_ascii_case(text);
        Self::ALL
            .into_iter()
            .find(|suite| is(suite.label()) || is(suite.openssl()) || suite.go().is_some_and(is))
            .ok_or_else(|| CipherError {
                why: NoCipher::of(text),
            })
    }
}

impl NoCipher {
    /// Why a suite other than the nine cannot be used, from the parts of its name: IANA's and OpenSSL's names say what a
    /// suite consists of.
    fn of(text: &str) -> Self {
        let name = text.to_ascii_uppercase().replace('_', "-");
        if is_cipher_string(&name) {
            return Self::CipherString;
        }
        let parts: Vec<&str> = name.split('-').collect();
        let has = |wanted: &[&str]| parts.iter().any(|part| wanted.contains(part));
        let begins =
            |wanted: &[&str]| (parts.iter()).any(|part| wanted.iter().any(|start| part.starts_with(start)));
        let is_aead = begins(&["GCM", "CCM", "POLY1305"]);
        let encrypts = begins(&["AES", "CHACHA20", "CBC"]);
        if has(&["NULL"]) {
            Self::NoEncryption
        } else if has(&["ADH", "AECDH", "ANON"]) {
            Self::Anonymous
        } else if begins(&["EXP", "RC2", "RC4", "DES", "3DES", "IDEA", "SEED"]) {
            Self::Broken
        } else if has(&["PSK", "RSAPSK", "SRP", "KRB5", "ECCPWD"]) {
            Self::SharedSecret
        } else if has(&["DHE", "EDH"]) {
            Self::FiniteField
        } else if has(&["DH", "ECDH"]) {
            Self::StaticDiffieHellman
        } else if begins(&["ARIA", "CAMELLIA", "GOST", "GOSTR", "SM4", "MAGMA", "KUZNYECHIK"]) {
            Self::Regional
        } else if encrypts && is_static_rsa(&parts) {
            Self::StaticRsa
        } else if begins(&["CCM"]) {
            Self::Ccm
        } else if encrypts && !is_aead && has(&["SHA", "SHA256", "SHA384", "MD5"]) {
            Self::Cbc
        } else {
            Self::Unknown
        }
    }
}

/// Whether a name in capitals is an expression or a keyword of `openssl ciphers`.
fn is_cipher_string(name: &str) -> bool {
    const KEYWORDS: [&str; 27] = [
        "DEFAULT",
        "COMPLEMENTOFDEFAULT",
        "ALL",
        "COMPLEMENTOFALL",
        "HIGH",
        "MEDIUM",
        "LOW",
        "FIPS",
        "SUITEB128",
        "SUITEB192",
        "KRSA",
        "RSA",
        "KEECDH",
        "EECDH",
        "KECDHE",
        "ECDHE",
        "EDH",
        "KDHE",
        "ARSA",
        "AECDSA",
        "ECDSA",
        "AES",
        "AES128",
        "AES256",
        "AESGCM",
        "CHACHA20",
        "TLSV1.2",
    ];
    name.contains([':', ',', ';', ' ', '+', '!', '@']) || KEYWORDS.contains(&name)
}

/// Whether the name has no key exchange (OpenSSL), or RSA as such (IANA). Names of TLS 1.3 have none either.
fn is_static_rsa(parts: &[&str]) -> bool {
    match parts {
        ["TLS", "RSA", "WITH", ..] | ["RSA", ..] => true,
        [first, ..] => first.starts_with("AES"),
        [] => false,
    }
}

impl fmt::Display for NoCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::CipherString => {
                "cipher strings of OpenSSL are not supported: write the name of one suite in each string of the list"
            }
            Self::NoEncryption => "not supported: it does not encrypt",
            Self::Anonymous => "not supported: without a certificate, anybody can be the server",
            Self::Broken => "not supported: RC4, DES, 3DES, IDEA, SEED and export ciphers are broken",
            Self::SharedSecret => "not supported: Convey has certificates, no shared keys or passwords",
            Self::FiniteField => "not supported: classic Diffie-Hellman is slow, and clients have its ECDHE counterpart",
            Self::StaticDiffieHellman => "not supported: static Diffie-Hellman has no forward secrecy",
            Self::Regional => "not supported: ARIA, Camellia, GOST and SM4 ciphers are not available",
            Self::StaticRsa => {
                "not supported: RSA key exchange has no forward secrecy; write its counterpart that begins with ECDHE-RSA"
            }
            Self::Ccm => "not supported: CCM ciphers are not available; write the counterpart with GCM",
            Self::Cbc => "not supported: CBC ciphers have been attacked time and again; write the counterpart with GCM",
            Self::Unknown => "no cipher suite of this name is known",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// What `openssl ciphers -stdname ALL:COMPLEMENTOFALL:eNULL:@SECLEVEL=0` of OpenSSL 3.0 prints: the names of IANA and its own.
    const OPENSSL: &str = include_str!("openssl.txt");

    fn why(text: &str) -> NoCipher {
        text.parse::<CipherSuite>().unwrap_err().why
    }

    #[test]
    fn the_nine_suites_are_read_by_both_names_in_any_case() {
        for suite in CipherSuite::ALL {
            for name in [suite.label(), suite.openssl()] {
                assert_eq!(name.parse(), Ok(suite));
                assert_eq!(name.to_lowercase().parse(), Ok(suite));
            }
        }
        let names: HashSet<_> = (CipherSuite::ALL.iter())
            .flat_map(|suite| [suite.label(), suite.openssl()])
            .collect();
        assert_eq!(names.len(), 9 + 6, "those of TLS 1.3 have one name");
        let go = "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305";
        assert_eq!(go.parse(), Ok(CipherSuite::RsaChacha20));
    }

    #[test]
    fn every_suite_that_openssl_knows_is_one_of_the_nine_or_refused_with_a_reason() {
        let mut supported = HashSet::new();
        let mut refused = 0;
        for line in OPENSSL.lines() {
            let (iana, openssl) = line.split_once(' ').unwrap();
            match (iana.parse::<CipherSuite>(), openssl.parse::<CipherSuite>()) {
                (Ok(one), Ok(other)) => {
                    assert_eq!(one, other, "{line}");
                    assert_eq!((one.label(), one.openssl()), (iana, openssl));
                    supported.insert(one);
                }
                (Err(one), Err(other)) => {
                    assert_eq!(one, other, "{line}");
                    assert!(
                        !matches!(one.why, NoCipher::Unknown | NoCipher::CipherString),
                        "{line}"
                    );
                    refused += 1;
                }
                mixed => panic!("{line}: {mixed:?}"),
            }
        }
        assert_eq!(supported.len(), CipherSuite::ALL.len());
        assert!(refused > 140, "{refused}");
    }

    #[test]
    fn the_reason_is_the_one_that_matters() {
        for (name, reason) in [
            ("ECDHE-RSA-AES128-SHA", NoCipher::Cbc),
            ("TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA384", NoCipher::Cbc),
            ("AES256-GCM-SHA384", NoCipher::StaticRsa),
            ("AES128-SHA", NoCipher::StaticRsa),
            ("TLS_RSA_WITH_AES_128_CBC_SHA", NoCipher::StaticRsa),
            ("DHE-RSA-AES256-GCM-SHA384", NoCipher::FiniteField),
            ("EDH-RSA-AES256-SHA", NoCipher::FiniteField),
            ("ECDH-RSA-AES128-SHA", NoCipher::StaticDiffieHellman),
            ("RC4-SHA", NoCipher::Broken),
            ("ECDHE-RSA-RC4-SHA", NoCipher::Broken),
            ("DES-CBC3-SHA", NoCipher::Broken),
            ("ECDHE-RSA-DES-CBC3-SHA", NoCipher::Broken),
            ("TLS_RSA_WITH_3DES_EDE_CBC_SHA", NoCipher::Broken),
            ("TLS_RSA_WITH_RC4_128_MD5", NoCipher::Broken),
            ("EXP-RC2-CBC-MD5", NoCipher::Broken),
            ("IDEA-CBC-SHA", NoCipher::Broken),
            ("SEED-SHA", NoCipher::Broken),
            ("TLS_AES_128_CCM_SHA256", NoCipher::Ccm),
            ("TLS_AES_128_CCM_8_SHA256", NoCipher::Ccm),
            ("ECDHE-ECDSA-AES256-CCM8", NoCipher::Ccm),
            ("ECDHE-RSA-CAMELLIA128-SHA256", NoCipher::Regional),
            ("GOST2001-GOST89-GOST89", NoCipher::Regional),
            ("TLS_SM4_GCM_SM3", NoCipher::Regional),
            ("PSK-AES256-GCM-SHA384", NoCipher::SharedSecret),
            ("SRP-RSA-AES-256-CBC-SHA", NoCipher::SharedSecret),
            ("ADH-AES128-SHA", NoCipher::Anonymous),
            ("TLS_DH_anon_WITH_AES_128_GCM_SHA256", NoCipher::Anonymous),
            ("NULL-SHA256", NoCipher::NoEncryption),
        ] {
            assert_eq!(why(name), reason, "{name}");
            assert!(reason.to_string().starts_with("not supported: "), "{reason}");
        }
    }

    #[test]
    fn cipher_strings_are_told_from_unknown_names() {
        for text in [
            "HIGH:!aNULL:!MD5",
            "DEFAULT",
            "EECDH+AESGCM",
            "kEECDH",
            "ALL",
            "DEFAULT@SECLEVEL=1",
        ] {
            assert_eq!(why(text), NoCipher::CipherString, "{text}");
        }
        let two = "ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384";
        assert_eq!(why(two), NoCipher::CipherString);
        for text in [
            "",
            "ECDHE-RSA-AES256-GCM-SHA512",
            "TLS13_AES_256_GCM_SHA384",
            "colour",
        ] {
            assert_eq!(why(text), NoCipher::Unknown, "{text}");
        }
    }

    #[test]
    fn each_key_type_and_version_has_three_suites() {
        for (version, key_type) in [
            (TlsVersion::Tls13, None),
            (TlsVersion::Tls12, Some(KeyType::Ecdsa)),
            (TlsVersion::Tls12, Some(KeyType::Rsa)),
        ] {
            let of_both = |suite: &&CipherSuite| suite.version() == version && suite.key_type() == key_type;
            assert_eq!(CipherSuite::ALL.iter().filter(of_both).count(), 3);
        }
    }
}
