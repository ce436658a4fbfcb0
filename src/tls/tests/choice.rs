//! Versions, suites, groups, protocols, and which certificate a client gets.

use std::sync::Arc;

use rustls::{
    ClientConfig, ServerConfig, SignatureScheme,
    version::{TLS12, TLS13},
};

use super::lab::*;
use crate::{
    config::{CipherSuite, Group, TlsVersion},
    tls::*,
};

fn plain(ca: &Ca) -> (Arc<CertificateStore>, ServerSettings) {
    let pair = ca.issue(Key::P256, &["a.test"]).pair();
    (store(&[&pair]), ServerSettings::new("web"))
}

fn session(client: Client, server: &Arc<ServerConfig>) -> Result<Session, HandshakeFailure> {
    connect(&client.arc(), server, "a.test")
        .map(|connected| connected.session())
        .map_err(|refused| refused.failure())
}

#[test]
fn client_and_frontend_agree_on_the_newest_version_that_both_have() {
    let ca = Ca::new("ca");
    let (store, settings) = plain(&ca);
    let both = server(&settings, &store);
    let version = |client| session(client, &both).unwrap().version;
    assert_eq!(version(Client::of(&ca)), TlsVersion::Tls13);
    assert_eq!(version(Client::of(&ca).version(&TLS12)), TlsVersion::Tls12);
}

#[test]
fn a_client_outside_the_versions_of_the_frontend_is_refused() {
    let ca = Ca::new("ca");
    let (store, settings) = plain(&ca);
    let only = |version| ServerSettings {
        min_version: version,
        max_version: version,
        ..settings.clone()
    };
    let only13 = server(&only(TlsVersion::Tls13), &store);
    let only12 = server(&only(TlsVersion::Tls12), &store);
    assert_eq!(
        session(Client::of(&ca), &only12).unwrap().version,
        TlsVersion::Tls12
    );
    let too_old = session(Client::of(&ca).version(&TLS12), &only13);
    assert_eq!(too_old, Err(HandshakeFailure::Version));
    let too_new = session(Client::of(&ca).version(&TLS13), &only12);
    assert_eq!(too_new, Err(HandshakeFailure::Version));
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let ca = Ca::new("ca");
    let (store, settings) = plain(&ca);
    let why = |settings: &ServerSettings| {
        server_config(settings, &store, &process(&keys(1)))
            .unwrap_err()
            .to_string()
    };
    let versions = ServerSettings {
        min_version: TlsVersion::Tls13,
        max_version: TlsVersion::Tls12,
        ..settings.clone()
    };
    assert_eq!(why(&versions), "min_version 1.3 is above max_version 1.2");
    let groups = ServerSettings {
        groups: vec![Group::X25519MlKem768],
        ..settings
    };
    assert!(
        why(&groups).starts_with("groups names none that TLS 1.2 can use"),
        "{}",
        why(&groups)
    );
}

#[test]
fn every_suite_can_be_the_only_one_of_its_version() {
    let ca = Ca::new("ca");
    let ecdsa = ca.issue(Key::P256, &["a.test"]).pair();
    let rsa = ca.issue(Key::Rsa, &["a.test"]).pair();
    let store = store(&[&ecdsa, &rsa]);
    for suite in CipherSuite::ALL {
        let settings = ServerSettings {
            ciphers: vec![suite],
            min_version: suite.version(),
            max_version: suite.version(),
            ..ServerSettings::new("web")
        };
        let agreed = session(Client::of(&ca), &server(&settings, &store)).unwrap();
        assert_eq!((agreed.cipher, agreed.version), (suite, suite.version()));
    }
}

#[test]
fn a_list_of_ciphers_leaves_alone_the_version_that_it_does_not_name() {
    let ca = Ca::new("ca");
    let (store, settings) = plain(&ca);
    let settings = ServerSettings {
        ciphers: vec![CipherSuite::EcdsaChacha20],
        ..settings
    };
    let server = server(&settings, &store);
    assert_eq!(
        session(Client::of(&ca), &server).unwrap().version,
        TlsVersion::Tls13
    );
    let old = session(Client::of(&ca).version(&TLS12), &server).unwrap();
    assert_eq!(old.cipher, CipherSuite::EcdsaChacha20);
}

#[test]
fn a_client_without_a_common_suite_is_refused() {
    let ca = Ca::new("ca");
    let (store, settings) = plain(&ca);
    let settings = ServerSettings {
        ciphers: vec![CipherSuite::RsaAes128Gcm],
        max_version: TlsVersion::Tls12,
        ..settings
    };
    let refused = session(Client::of(&ca), &server(&settings, &store));
    // its suites are for RSA keys, and the only certificate has another
    assert_eq!(refused, Err(HandshakeFailure::Cipher));
}

#[test]
fn a_client_without_a_common_suite_is_told_so_by_the_alert_for_it() {
    // RFC 8446, section 6: level fatal, handshake_failure
    const ALERT: [u8; 2] = [2, 40];
    let ca = Ca::new("ca");
    let (store, settings) = plain(&ca);
    for (version, suite) in [
        (TlsVersion::Tls12, CipherSuite::EcdsaAes128Gcm),
        (TlsVersion::Tls13, CipherSuite::Aes128Gcm),
    ] {
        let settings = ServerSettings {
            ciphers: vec![suite],
            min_version: version,
            max_version: version,
            ..settings.clone()
        };
        let mut client = Client::of(&ca);
        client
            .provider
            .cipher_suites
            .retain(|other| !format!("{:?}", other.suite()).contains("AES_128"));
        let mut connected = start(&client.arc(), &server(&settings, &store), "a.test");
        let refused = to_server(&mut connected.client, &mut connected.server).unwrap_err();
        assert_eq!(refused.failure(), HandshakeFailure::Cipher);
        let mut wire = Vec::new();
        connected.server.write_tls(&mut wire).unwrap();
        assert_eq!(wire.get(5..), Some(&ALERT[..]), "{version}: {wire:?}");
    }
}

#[test]
fn the_post_quantum_group_is_chosen_when_the_client_has_it() {
    let ca = Ca::new("ca");
    let (store, settings) = plain(&ca);
    let server = server(&settings, &store);
    let agreed = session(Client::of(&ca), &server).unwrap();
    assert_eq!(agreed.group, Some(Group::X25519MlKem768));
    let mut classic = Client::of(&ca);
    classic
        .provider
        .kx_groups
        .retain(|group| group.name() == rustls::NamedGroup::X25519);
    assert_eq!(session(classic, &server).unwrap().group, Some(Group::X25519));
}

#[test]
fn every_group_can_be_the_only_one() {
    let ca = Ca::new("ca");
    let (store, settings) = plain(&ca);
    for group in Group::ALL {
        let settings = ServerSettings {
            groups: vec![group],
            min_version: TlsVersion::Tls13,
            ..settings.clone()
        };
        let mut client = Client::of(&ca);
        client.provider.kx_groups = rustls::crypto::aws_lc_rs::ALL_KX_GROUPS.to_vec();
        let agreed = session(client, &server(&settings, &store)).unwrap();
        assert_eq!(agreed.group, Some(group));
    }
}

#[test]
fn the_first_protocol_of_the_frontend_that_the_client_offers_is_agreed_on() {
    let ca = Ca::new("ca");
    let (store, settings) = plain(&ca);
    let settings = ServerSettings {
        alpn: vec!["h2".into(), "http/1.1".into()],
        ..settings
    };
    let server = server(&settings, &store);
    let offering = |names: &[&str]| -> Arc<ClientConfig> {
        let mut config = Client::of(&ca).config();
        config.alpn_protocols = names.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    };
    let alpn = |names: &[&str]| {
        connect(&offering(names), &server, "a.test")
            .map(|connected| connected.session().alpn)
            .map_err(|refused| refused.failure())
    };
    assert_eq!(alpn(&["http/1.1", "h2"]), Ok(Some("h2".into())));
    assert_eq!(alpn(&["http/1.1"]), Ok(Some("http/1.1".into())));
    assert_eq!(alpn(&[]), Ok(None));
    assert_eq!(alpn(&["imap"]), Err(HandshakeFailure::Alpn));
}

#[test]
fn a_client_gets_the_certificate_of_the_name_that_it_asks_for() {
    let ca = Ca::new("ca");
    let default = ca.issue(Key::P256, &["default.test"]).pair();
    let exact = ca.issue(Key::P256, &["www.wild.test", "exact.test"]).pair();
    let wildcard = ca.issue(Key::P256, &["*.wild.test"]).pair();
    let server = server(
        &ServerSettings::new("web"),
        &store(&[&default, &exact, &wildcard]),
    );
    let client = Client::of(&ca).arc();
    let shown = |host: &str| connect(&client, &server, host).unwrap().shown().clone();
    let is = |pair: &Arc<Pair>| pair.certified_at(clock).cert[0].clone();
    assert_eq!(shown("default.test"), is(&default));
    assert_eq!(shown("exact.test"), is(&exact));
    assert_eq!(
        shown("WWW.wild.test"),
        is(&exact),
        "an exact name goes before a wildcard"
    );
    assert_eq!(shown("other.wild.test"), is(&wildcard));
}

#[test]
fn a_client_without_a_known_name_gets_the_first_certificate_unless_the_frontend_is_strict() {
    let ca = Ca::new("ca");
    let first = ca.issue(Key::P256, &["first.test", "10.0.0.1"]).pair();
    let second = ca.issue(Key::P256, &["*.second.test"]).pair();
    let store = store(&[&first, &second]);
    let lenient = server(&ServerSettings::new("web"), &store);
    let strict = ServerSettings {
        strict_sni: true,
        ..ServerSettings::new("web")
    };
    let strict = server(&strict, &store);
    let client = Client::of(&ca).arc();
    let mut silent = Client::of(&ca).config();
    silent.enable_sni = false;
    let silent = Arc::new(silent);

    assert!(connect(&silent, &lenient, "first.test").is_ok());
    assert!(
        connect(&client, &lenient, "10.0.0.1").is_ok(),
        "an address is no name to ask for"
    );
    for host in ["unknown.test", "second.test", "a.b.second.test"] {
        let refused = connect(&client, &lenient, host).unwrap_err();
        assert!(
            matches!(refused, Refused::Client(_)),
            "it was shown another host's: {refused:?}"
        );
        let refused = connect(&client, &strict, host).unwrap_err();
        assert_eq!(refused.failure(), HandshakeFailure::NoCertificate, "{host}");
    }
    let refused = connect(&silent, &strict, "first.test").unwrap_err();
    assert_eq!(refused.failure(), HandshakeFailure::NoCertificate);
    assert!(connect(&client, &strict, "a.second.test").is_ok());
}

#[test]
fn both_kinds_of_keys_side_by_side_serve_each_client_what_it_can_use() {
    let ca = Ca::new("ca");
    let rsa = ca.issue(Key::Rsa, &["a.test", "*.wild.test"]).pair();
    let ecdsa = ca.issue(Key::P256, &["a.test", "*.wild.test"]).pair();
    let is_rsa =
        |scheme| [SignatureScheme::RSA_PSS_SHA256, SignatureScheme::RSA_PKCS1_SHA256].contains(&scheme);
    for order in [[&rsa, &ecdsa], [&ecdsa, &rsa]] {
        let server = server(&ServerSettings::new("web"), &store(&order));
        for version in VERSIONS {
            for host in ["a.test", "b.wild.test"] {
                let shown = |client: Client| {
                    let client = client.version(version).arc();
                    connect(&client, &server, host).unwrap().shown().clone()
                };
                let is = |pair: &Arc<Pair>| pair.certified_at(clock).cert[0].clone();
                assert_eq!(shown(Client::of(&ca)), is(&ecdsa), "the cheaper one");
                assert_eq!(shown(Client::of(&ca).schemes(is_rsa)), is(&rsa));
            }
            // the default certificate too
            let mut silent = Client::of(&ca).schemes(is_rsa).version(version).config();
            silent.enable_sni = false;
            assert!(connect(&Arc::new(silent), &server, "a.test").is_ok());
        }
    }
}

#[test]
fn every_kind_of_key_can_be_served() {
    let ca = Ca::new("ca");
    for key in [Key::P256, Key::P384, Key::Ed25519, Key::Rsa] {
        let server = server(
            &ServerSettings::new("web"),
            &store(&[&ca.issue(key, &["a.test"]).pair()]),
        );
        for version in VERSIONS {
            assert!(session(Client::of(&ca).version(version), &server).is_ok());
        }
    }
}

#[test]
fn what_is_no_tls_is_told_from_tls() {
    let ca = Ca::new("ca");
    let (store, settings) = plain(&ca);
    let config = server(&settings, &store);
    let failure = |bytes: &[u8]| {
        let mut server = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
        server.read_tls(&mut &*bytes).unwrap();
        server
            .process_new_packets()
            .map_err(|error| HandshakeFailure::of(&error))
            .unwrap_err()
    };
    assert_eq!(
        failure(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"),
        HandshakeFailure::NotTls
    );
    assert_eq!(
        failure(b"\x16\x03\x01\x00\x04\x01\x00\x00\x00"),
        HandshakeFailure::Protocol
    );
    assert_eq!(
        failure(b"\x15\x03\x01\x00\x02\x02\x28"),
        HandshakeFailure::ClientAlert
    );
}
