//! Client certificates: right, wrong, missing, revoked.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use rcgen::{
    CertificateRevocationListParams, KeyIdMethod, RevocationReason, RevokedCertParams, SerialNumber,
    date_time_ymd,
};
use rustls::ServerConfig;

use super::lab::*;
use crate::{config::CrlPolicy, tls::*};

fn auth(ca: &Ca) -> ClientAuthSettings {
    ClientAuthSettings {
        required: true,
        ca: ca.certificate.pem().into_bytes(),
        crls: Vec::new(),
        crl_policy: CrlPolicy::Complete,
    }
}

fn frontend(ca: &Ca, auth: ClientAuthSettings) -> Arc<ServerConfig> {
    let settings = ServerSettings {
        client_auth: Some(auth),
        ..ServerSettings::new("web")
    };
    server(&settings, &store(&[&ca.issue(Key::P256, &["a.test"]).pair()]))
}

/// What clients with this certificate, or none, are told, whatever their version.
fn outcome(
    ca: &Ca,
    server: &Arc<ServerConfig>,
    identity: Option<&Files>,
) -> Result<Option<Box<str>>, HandshakeFailure> {
    let [new, old] = VERSIONS.map(|version| {
        let mut client = Client::of(ca).version(version);
        client.identity = identity.map(|files| Files {
            certificate: files.certificate.clone(),
            key: files.key.clone(),
        });
        connect(&client.arc(), server, "a.test")
            .map(|connected| connected.session().client.map(|client| client.subject))
            .map_err(|refused| refused.failure())
    });
    assert_eq!(new, old, "both versions agree");
    new
}

/// A client's certificate with this serial number.
fn client(ca: &Ca, serial: u64) -> Files {
    let mut params = params(&["client"]);
    params.serial_number = Some(SerialNumber::from(serial));
    ca.sign(Key::P256, &params)
}

/// A list of revoked serial numbers, in PEM.
fn crl(ca: &Ca, serials: &[u64]) -> Vec<u8> {
    crl_until(ca, serials, 2100)
}

/// One that is to be replaced at the beginning of a year.
fn crl_until(ca: &Ca, serials: &[u64], year: i32) -> Vec<u8> {
    let revoked = serials.iter().map(|serial| RevokedCertParams {
        serial_number: SerialNumber::from(*serial),
        revocation_time: date_time_ymd(2025, 1, 1),
        reason_code: Some(RevocationReason::KeyCompromise),
        invalidity_date: None,
    });
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(2020, 1, 1),
        next_update: date_time_ymd(year, 1, 1),
        crl_number: SerialNumber::from(1_u64),
        issuing_distribution_point: None,
        revoked_certs: revoked.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(&ca.issuer).unwrap().pem().unwrap().into_bytes()
}

#[test]
fn a_list_that_is_out_of_date_is_as_none_where_lists_must_be_complete_and_counts_elsewhere() {
    let ca = Ca::new("ca");
    let with = |crl_policy| {
        let crls = vec![crl_until(&ca, &[2], 2021)];
        let auth = ClientAuthSettings {
            crls,
            crl_policy,
            ..auth(&ca)
        };
        let server = frontend(&ca, auth);
        [1, 2].map(|serial| outcome(&ca, &server, Some(&client(&ca, serial))))
    };
    assert_eq!(
        with(CrlPolicy::Complete)[0],
        Err(HandshakeFailure::ClientCertificateUnlisted)
    );
    assert_eq!(
        with(CrlPolicy::Listed),
        [
            Ok(Some("CN=client".into())),
            Err(HandshakeFailure::ClientCertificateRevoked)
        ]
    );
}

#[test]
fn lists_that_are_out_of_date_are_named_with_what_that_means() {
    let ca = Ca::new("ca");
    let file = [crl_until(&ca, &[], 2021), crl(&ca, &[])].concat();
    let end = SystemTime::UNIX_EPOCH + Duration::from_secs(1_609_459_200);
    assert_eq!(StaleList::all(&file, end - Duration::from_secs(1)), []);
    let stale = StaleList::all(&file, end);
    let [list] = stale.as_slice() else {
        panic!("{stale:?}")
    };
    let said = list.sentence(CrlPolicy::Complete);
    assert!(
        said.starts_with("the revocation list of CN=ca is out of date since 2021-01-01 00:00 UTC; clients"),
        "{said}"
    );
    assert!(list.sentence(CrlPolicy::Listed).contains("is not known"));
    assert_eq!(StaleList::all(b"nothing of the kind", end), []);
}

#[test]
fn a_client_with_a_certificate_of_the_ca_is_served_and_known() {
    let ca = Ca::new("ca");
    let server = frontend(&ca, auth(&ca));
    assert_eq!(
        outcome(&ca, &server, Some(&client(&ca, 1))),
        Ok(Some("CN=client".into()))
    );
}

#[test]
fn a_client_without_a_certificate_is_refused_where_one_is_required() {
    let ca = Ca::new("ca");
    let required = frontend(&ca, auth(&ca));
    assert_eq!(
        outcome(&ca, &required, None),
        Err(HandshakeFailure::ClientCertificateMissing)
    );
    let optional = ClientAuthSettings {
        required: false,
        ..auth(&ca)
    };
    let optional = frontend(&ca, optional);
    assert_eq!(outcome(&ca, &optional, None), Ok(None));
    assert_eq!(
        outcome(&ca, &optional, Some(&client(&ca, 1))),
        Ok(Some("CN=client".into()))
    );
}

#[test]
fn a_wrong_certificate_is_refused_even_where_none_is_needed() {
    let (ca, stranger) = (Ca::new("ca"), Ca::new("stranger"));
    for required in [true, false] {
        let server = frontend(
            &ca,
            ClientAuthSettings {
                required,
                ..auth(&ca)
            },
        );
        let refused = outcome(&ca, &server, Some(&client(&stranger, 1)));
        assert_eq!(refused, Err(HandshakeFailure::ClientCertificateUnknownCa));
    }
}

#[test]
fn an_expired_certificate_is_refused() {
    let ca = Ca::new("ca");
    let mut old = params(&["client"]);
    old.not_before = date_time_ymd(2001, 1, 1);
    old.not_after = date_time_ymd(2002, 1, 1);
    let server = frontend(&ca, auth(&ca));
    let refused = outcome(&ca, &server, Some(&ca.sign(Key::P256, &old)));
    assert_eq!(refused, Err(HandshakeFailure::ClientCertificateExpired));
}

#[test]
fn a_revoked_certificate_is_refused_under_each_policy() {
    let ca = Ca::new("ca");
    for crl_policy in [CrlPolicy::Complete, CrlPolicy::Listed] {
        let server = frontend(
            &ca,
            ClientAuthSettings {
                crls: vec![crl(&ca, &[2])],
                crl_policy,
                ..auth(&ca)
            },
        );
        assert!(outcome(&ca, &server, Some(&client(&ca, 1))).is_ok());
        let revoked = outcome(&ca, &server, Some(&client(&ca, 2)));
        assert_eq!(revoked, Err(HandshakeFailure::ClientCertificateRevoked));
    }
}

#[test]
fn a_certificate_whose_issuer_has_no_list_is_refused_unless_only_the_listed_ones_are() {
    let (ca, other) = (Ca::new("ca"), Ca::new("other"));
    let with = |crl_policy| {
        let mut both = auth(&ca);
        both.ca.extend(other.certificate.pem().bytes());
        both.crls = vec![crl(&ca, &[2])];
        both.crl_policy = crl_policy;
        frontend(&ca, both)
    };
    let unlisted = client(&other, 1);
    let complete = outcome(&ca, &with(CrlPolicy::Complete), Some(&unlisted));
    assert_eq!(complete, Err(HandshakeFailure::ClientCertificateUnlisted));
    assert!(outcome(&ca, &with(CrlPolicy::Listed), Some(&unlisted)).is_ok());
}

#[test]
fn an_intermediate_of_the_ca_needs_a_list_too_under_the_complete_policy() {
    let ca = Ca::new("ca");
    let below = ca.intermediate("below");
    let mut files = client(&below, 7);
    files.certificate += &below.certificate.pem();
    let with = |crls| frontend(&ca, ClientAuthSettings { crls, ..auth(&ca) });
    let both = with(vec![crl(&ca, &[]), crl(&below, &[])]);
    assert!(outcome(&ca, &both, Some(&files)).is_ok());
    let one = with(vec![crl(&below, &[])]);
    assert_eq!(
        outcome(&ca, &one, Some(&files)),
        Err(HandshakeFailure::ClientCertificateUnlisted)
    );
}

#[test]
fn files_that_are_no_ca_or_no_list_are_refused_with_the_reason() {
    let ca = Ca::new("ca");
    let why = |auth: ClientAuthSettings| {
        let settings = ServerSettings {
            client_auth: Some(auth),
            ..ServerSettings::new("web")
        };
        server_config(&settings, &store(&[]), &process(&keys(1)))
            .unwrap_err()
            .to_string()
    };
    let with_ca = |ca_file: &[u8]| {
        why(ClientAuthSettings {
            ca: ca_file.to_vec(),
            ..auth(&ca)
        })
    };
    let with_crl = |file: &[u8]| {
        why(ClientAuthSettings {
            crls: vec![crl(&ca, &[]), file.to_vec()],
            ..auth(&ca)
        })
    };
    assert_eq!(with_ca(b" \n"), "client_ca: the file is empty");
    let key = client(&ca, 1).key;
    assert_eq!(
        with_ca(key.as_bytes()),
        "client_ca: the file has no certificate, only PRIVATE KEY"
    );
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let two = ca.certificate.pem() + broken;
    assert!(with_ca(two.as_bytes()).starts_with("client_ca: certificate 2 cannot be used: "));
    assert_eq!(with_crl(b""), "client_crl, file 2: the file is empty");
    let certificate = ca.certificate.pem();
    let reason = "client_crl, file 2: it has no revocation list, only CERTIFICATE";
    assert_eq!(with_crl(certificate.as_bytes()), reason);
    let broken = "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n";
    assert!(with_crl(broken.as_bytes()).starts_with("client_crl: a list cannot be used ("));
}

#[test]
fn the_subject_in_the_log_is_bounded_and_has_no_control_characters() {
    let ca = Ca::new("ca");
    let server = frontend(&ca, auth(&ca));
    let subject = |name: &str| {
        let mut params = params(&["client"]);
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        outcome(&ca, &server, Some(&ca.sign(Key::P256, &params)))
            .unwrap()
            .unwrap()
    };
    let forged = subject("a\nconvey: all is well\u{1b}[2J, O=Bank");
    assert!(!forged.chars().any(char::is_control), "{forged:?}");
    assert!(
        forged.contains(r"\,"),
        "a comma of the name is none between names: {forged}"
    );
    let long = subject(&"ü".repeat(5_000));
    assert!(long.len() <= MAX_SUBJECT && long.ends_with('…'), "{long}");
}
