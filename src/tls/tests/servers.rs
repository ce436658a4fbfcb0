//! TLS to servers: whom we believe, and who we say we are.

use std::sync::Arc;

use rcgen::{BasicConstraints, IsCa, date_time_ymd};
use rustls::{ClientConfig, ClientConnection, ServerConfig};

use super::lab::*;
use crate::{base::ServerTlsFailure, config::CrlPolicy, tls::*};

fn trusting(pem: &str) -> Arc<ClientConfig> {
    with(Trust::Ca(pem.as_bytes().to_vec()))
}

fn with(trust: Trust) -> Arc<ClientConfig> {
    let settings = ClientSettings {
        trust,
        identity: None,
        alpn: Vec::new(),
    };
    opened_with(&settings).unwrap()
}

fn opened_with(settings: &ClientSettings) -> Result<Arc<ClientConfig>, ClientSettingsError> {
    client_configs(settings).map(|configs| for_one_server(&configs.connections))
}

fn serving(files: &Files) -> Arc<ServerConfig> {
    server(&ServerSettings::new("server"), &store(&[&files.pair()]))
}

/// Why we refuse the server.
fn refusal(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>, host: &str) -> ServerTlsFailure {
    match connect(client, server, host).unwrap_err() {
        Refused::Client(error) => server_failure(&error),
        Refused::Server(error) => panic!("the server refused: {error}"),
    }
}

/// As `openssl req -x509` makes them: a server's certificate that is a CA's too.
fn self_signed(end: i32) -> Files {
    let key = Key::P256.pair();
    let mut params = params(&["server"]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_before = date_time_ymd(2001, 1, 1);
    params.not_after = date_time_ymd(end, 1, 1);
    Files {
        certificate: params.self_signed(&key).unwrap().pem(),
        key: key.serialize_pem(),
    }
}

#[test]
fn a_server_is_believed_by_the_ca_and_its_name_only() {
    let ca = Ca::new("ca");
    let server = serving(&ca.issue(Key::P256, &["a.test", "10.0.0.1"]));
    let client = trusting(&ca.certificate.pem());
    assert!(connect(&client, &server, "a.test").is_ok());
    assert!(connect(&client, &server, "10.0.0.1").is_ok());
    assert_eq!(
        refusal(&client, &server, "b.test"),
        ServerTlsFailure::CertificateName
    );
    let stranger = trusting(&Ca::new("another").certificate.pem());
    assert_eq!(
        refusal(&stranger, &server, "a.test"),
        ServerTlsFailure::CertificateUnknownCa
    );
}

#[test]
fn the_cas_of_the_host_are_believed_and_those_that_cannot_be_read_are_left_out() {
    let ca = Ca::new("ca");
    let odd = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let system = with(Trust::System(
        (odd.to_owned() + &ca.certificate.pem()).into_bytes(),
    ));
    assert!(connect(&system, &serving(&ca.issue(Key::P256, &["a.test"])), "a.test").is_ok());
    let own = self_signed(2100);
    let system = with(Trust::System(own.certificate.clone().into_bytes()));
    assert!(
        connect(&system, &serving(&own), "server").is_err(),
        "the host's CAs are no pins"
    );
}

#[test]
fn a_server_with_a_certificate_of_its_own_making_is_believed_if_it_is_the_very_one() {
    let own = self_signed(2100);
    let client = trusting(&own.certificate);
    for version in VERSIONS {
        let mut settings = ServerSettings::new("server");
        settings.max_version = match version.version {
            rustls::ProtocolVersion::TLSv1_2 => crate::config::TlsVersion::Tls12,
            _ => crate::config::TlsVersion::Tls13,
        };
        let server = server(&settings, &store(&[&own.pair()]));
        assert!(connect(&client, &server, "any.name").is_ok());
    }
    let another = serving(&self_signed(2100));
    assert!(
        connect(&client, &another, "server").is_err(),
        "the same names, another key"
    );
}

#[test]
fn a_pinned_certificate_expires_as_any_other() {
    let own = self_signed(2002);
    let why = refusal(&trusting(&own.certificate), &serving(&own), "server");
    assert_eq!(why, ServerTlsFailure::CertificateExpired);
}

#[test]
fn anybody_is_believed_where_nothing_is_verified() {
    assert!(connect(&with(Trust::Anybody), &serving(&self_signed(2002)), "any.name").is_ok());
}

#[test]
fn a_server_that_asks_is_shown_our_certificate() {
    let ca = Ca::new("ca");
    let settings = ServerSettings {
        client_auth: Some(ClientAuthSettings {
            required: true,
            ca: ca.certificate.pem().into_bytes(),
            crls: Vec::new(),
            crl_policy: CrlPolicy::Complete,
        }),
        alpn: vec!["imap".into()],
        ..ServerSettings::new("server")
    };
    let server = server(&settings, &store(&[&ca.issue(Key::P256, &["a.test"]).pair()]));
    let mut settings = ClientSettings {
        trust: Trust::Ca(ca.certificate.pem().into_bytes()),
        identity: Some(ca.issue(Key::P256, &["convey"]).pair()),
        alpn: vec!["imap".into()],
    };
    let client = opened_with(&settings).unwrap();
    for resumed in [false, true] {
        let session = connect(&client, &server, "a.test").unwrap().session();
        assert_eq!(&*session.client.unwrap().common_name, "convey");
        assert_eq!(
            (session.alpn.as_deref(), session.resumed),
            (Some("imap"), resumed)
        );
    }
    settings.identity = None;
    let refused = connect(&opened_with(&settings).unwrap(), &server, "a.test").unwrap_err();
    assert_eq!(refused.failure(), HandshakeFailure::ClientCertificateMissing);
}

#[test]
fn what_a_server_sends_in_place_of_a_handshake_has_a_reason() {
    let client = with(Trust::Anybody);
    let failure = |bytes: &[u8]| {
        let mut client = ClientConnection::new(Arc::clone(&client), "a.test".try_into().unwrap()).unwrap();
        client.read_tls(&mut &*bytes).unwrap();
        server_failure(&client.process_new_packets().unwrap_err())
    };
    assert_eq!(
        failure(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        ServerTlsFailure::NotTls
    );
    let alert = |number: u8| failure(&[0x15, 3, 3, 0, 2, 2, number]);
    assert_eq!(alert(40), ServerTlsFailure::Incompatible);
    assert_eq!(alert(116), ServerTlsFailure::OurCertificate);
    assert_eq!(alert(120), ServerTlsFailure::Alpn);
    assert_eq!(alert(80), ServerTlsFailure::ServerAlert);
}

#[test]
fn a_file_without_a_ca_is_refused_with_what_it_has() {
    let why = |pem: &str| {
        let settings = ClientSettings {
            trust: Trust::Ca(pem.as_bytes().to_vec()),
            identity: None,
            alpn: Vec::new(),
        };
        opened_with(&settings).unwrap_err().to_string()
    };
    assert_eq!(why(""), "ca: the file is empty");
    let key = self_signed(2100).key;
    assert_eq!(
        why(&key),
        "ca: the file has no certificate that can be used, only PRIVATE KEY"
    );
    let odd = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert_eq!(
        why(odd),
        "ca: the file has no certificate that can be used, only CERTIFICATE"
    );
}

#[test]
fn checks_shake_hands_in_full_each_time_and_may_leave_the_name_alone() {
    let ca = Ca::new("ca");
    let server = serving(&ca.issue(Key::P256, &["a.test"]));
    let settings = ClientSettings {
        trust: Trust::Ca(ca.certificate.pem().into_bytes()),
        identity: None,
        alpn: Vec::new(),
    };
    let configs = client_configs(&settings).unwrap();
    for _ in 0..2 {
        let session = connect(&configs.checks, &server, "a.test").unwrap().session();
        assert!(!session.resumed);
        assert!(connect(&configs.checks_of_any_name, &server, "10.0.0.1").is_ok());
    }
    assert_eq!(
        refusal(&configs.checks, &server, "10.0.0.1"),
        ServerTlsFailure::CertificateName
    );
    let stranger = serving(&Ca::new("another").issue(Key::P256, &["a.test"]));
    assert_eq!(
        refusal(&configs.checks_of_any_name, &stranger, "a.test"),
        ServerTlsFailure::CertificateUnknownCa
    );
}
