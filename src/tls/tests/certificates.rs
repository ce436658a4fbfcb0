//! Files of certificates and keys, as operators have them.

use base64ct::{Base64, Encoding};
use x509_cert::der::{Decode, Reader, SliceReader, asn1::AnyRef};

use super::lab::*;
use crate::tls::*;

fn parse(certificate: &str, key: Option<&str>) -> Result<Pair, PairError> {
    Pair::parse(PairFiles {
        certificate: certificate.as_bytes(),
        key: key.map(str::as_bytes),
        ocsp: None,
    })
}

fn why(certificate: &str, key: Option<&str>) -> String {
    parse(certificate, key).unwrap_err().to_string()
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = Base64::encode_string(der);
    let lines = text
        .as_bytes()
        .chunks(64)
        .map(|line| String::from_utf8_lossy(line) + "\n");
    let body: String = lines.collect();
    format!("-----BEGIN {label}-----\n{body}-----END {label}-----\n")
}

/// The key within PKCS #8: PKCS #1 of RSA, SEC1 of elliptic curves.
fn inner_key(files: &Files) -> Vec<u8> {
    let (_, key) = files.der();
    let outer = AnyRef::from_der(key.secret_der()).unwrap();
    let mut reader = SliceReader::new(outer.value()).unwrap();
    let [_version, _algorithm, key]: [AnyRef<'_>; 3] = std::array::from_fn(|_| reader.decode().unwrap());
    key.value().to_vec()
}

#[test]
fn a_pair_is_two_files_or_a_bundle_in_any_order_and_with_any_text_between() {
    let ca = Ca::new("ca");
    for key in [Key::P256, Key::P384, Key::Ed25519, Key::Rsa] {
        let files = ca.issue(key, &["a.test"]);
        let (certificate, key) = (&files.certificate, &files.key);
        assert!(parse(certificate, Some(key)).is_ok());
        for bundle in [
            format!("{certificate}{key}"),
            format!("{key}{certificate}"),
            format!("subject=CN = a.test\nissuer=CN = ca\n{certificate}\n\n# the key\n{key}\n"),
            format!("\u{feff}{certificate}{key}").replace('\n', "\r\n"),
            format!("-----BEGIN DH PARAMETERS-----\nMAYCAQ\n-----END DH PARAMETERS-----\n{certificate}{key}"),
        ] {
            assert!(parse(&bundle, None).is_ok(), "{bundle}");
        }
    }
}

#[test]
fn keys_of_older_formats_are_read() {
    let ca = Ca::new("ca");
    let rsa = ca.issue(Key::Rsa, &["a.test"]);
    assert!(parse(&rsa.certificate, Some(&pem("RSA PRIVATE KEY", &inner_key(&rsa)))).is_ok());
    let ecdsa = ca.issue(Key::P256, &["a.test"]);
    // as `openssl ecparam -genkey` writes it
    let parameters = pem("EC PARAMETERS", b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07");
    let key = parameters + &pem("EC PRIVATE KEY", &inner_key(&ecdsa));
    assert!(parse(&ecdsa.certificate, Some(&key)).is_ok());
}

#[test]
fn a_pair_tells_names_validity_and_kind() {
    let ca = Ca::new("The CA");
    let mut params = params(&["Www.A.test", "*.b.test", "10.0.0.1"]);
    params.not_before = rcgen::date_time_ymd(2025, 1, 1);
    params.not_after = rcgen::date_time_ymd(2045, 1, 1);
    let pair = ca.sign(Key::Rsa, &params).pair();
    let facts = pair.facts();
    assert_eq!(facts.names, ["www.a.test".into(), "*.b.test".into()]);
    assert!(facts.has_alternative_names && !facts.is_ca);
    assert_eq!(
        (facts.subject.as_str(), facts.issuer.as_str()),
        ("CN=Www.A.test", "CN=The CA")
    );
    let seconds = |time: std::time::SystemTime| time.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert_eq!(seconds(facts.not_before), 1_735_689_600);
    assert_eq!(seconds(facts.not_after), 2_366_841_600);
    assert_eq!(pair.kind(), KeyKind::Rsa);
}

#[test]
fn a_certificate_without_alternative_names_is_found_by_its_common_name() {
    let ca = Ca::new("ca");
    let mut params = params(&["old.test"]);
    params.subject_alt_names.clear();
    let pair = ca.sign(Key::P256, &params).pair();
    assert_eq!(pair.facts().names, ["old.test".into()]);
    assert!(!pair.facts().has_alternative_names);
    assert!(store(&[&pair]).current().covers("old.test"));
}

#[test]
fn a_certificate_without_a_subject_is_called_by_its_first_name() {
    let ca = Ca::new("ca");
    let mut params = params(&["a.test", "b.test"]);
    params.distinguished_name = rcgen::DistinguishedName::new();
    let files = ca.sign(Key::P256, &params);
    assert_eq!(files.pair().facts().subject, "a.test");
    let other = ca.issue(Key::P256, &["c.test"]);
    let reason = "key and certificate do not match: the certificate of a.test has another public key";
    assert_eq!(why(&files.certificate, Some(&other.key)), reason);
}

#[test]
fn a_file_that_is_something_else_is_refused_with_what_it_is() {
    let ca = Ca::new("ca");
    let files = ca.issue(Key::P256, &["a.test"]);
    let (certificate, key) = (files.certificate.as_str(), files.key.as_str());
    assert_eq!(why("", Some(key)), "certificate: the file is empty");
    assert_eq!(why(certificate, Some(" \n")), "key: the file is empty");
    assert_eq!(
        why("hello\n", Some(key)),
        "certificate: the file is not PEM: no line begins with -----BEGIN"
    );
    assert_eq!(
        why(key, Some(key)),
        "the file has no certificate, only PRIVATE KEY"
    );
    assert_eq!(
        why(certificate, Some(certificate)),
        "the file has no private key, only CERTIFICATE"
    );
    assert_eq!(
        why(certificate, None),
        "the file has no private key, only CERTIFICATE"
    );
    let request = pem("CERTIFICATE REQUEST", b"0");
    assert_eq!(
        why(&request, Some(key)),
        "the file has no certificate, only CERTIFICATE REQUEST"
    );
    let two = format!("{key}{}", ca.issue(Key::P256, &["b.test"]).key);
    assert_eq!(
        why(certificate, Some(&two)),
        "the file has 2 private keys: one is expected"
    );
    let (chain, _) = files.der();
    let binary = Pair::parse(PairFiles {
        certificate: &chain[0],
        key: Some(key.as_bytes()),
        ocsp: None,
    });
    assert_eq!(binary.unwrap_err(), PairError::CertificateFile(PemError::Binary));
}

#[test]
fn a_damaged_file_is_refused_with_the_place() {
    let ca = Ca::new("ca");
    let files = ca.issue(Key::P256, &["a.test"]);
    let cut = &files.certificate[..files.certificate.len() / 2];
    let reason = "certificate: the section CERTIFICATE on line 1 has no end: the file is cut off";
    assert_eq!(why(cut, Some(&files.key)), reason);
    let joined = format!("# two\n{cut}\n{}", files.certificate);
    let reason = "certificate: the section CERTIFICATE on line 2 has no end: the file is cut off";
    assert_eq!(why(&joined, Some(&files.key)), reason);
    let odd = files.key.replacen("\nM", "\n§", 1);
    let reason = "key: the section PRIVATE KEY on line 1 is damaged: it is not base64";
    assert_eq!(why(&files.certificate, Some(&odd)), reason);
    let text = why(&pem("CERTIFICATE", b"0123"), Some(&files.key));
    assert!(
        text.starts_with("certificate 1 of the file cannot be read: it is not an X.509 certificate"),
        "{text}"
    );
    let garbage = pem("PRIVATE KEY", b"0123");
    assert!(why(&files.certificate, Some(&garbage)).starts_with("the key cannot be used: "));
}

#[test]
fn a_key_that_needs_a_password_is_refused_with_how_to_write_it() {
    let files = Ca::new("ca").issue(Key::P256, &["a.test"]);
    let new = pem("ENCRYPTED PRIVATE KEY", b"0123");
    let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
    for key in [new.as_str(), old] {
        assert_eq!(
            why(&files.certificate, Some(key)),
            format!("key: {}", PemError::EncryptedKey)
        );
    }
    let unread = pem("OPENSSH PRIVATE KEY", b"0123");
    let reason = "key: sections of kind OPENSSH PRIVATE KEY are not supported: convert it with openssl";
    assert_eq!(why(&files.certificate, Some(&unread)), reason);
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let ca = Ca::new("ca");
    let (one, other) = (ca.issue(Key::P256, &["a.test"]), ca.issue(Key::P256, &["b.test"]));
    let reason = "key and certificate do not match: the certificate of CN=a.test has another public key";
    assert_eq!(why(&one.certificate, Some(&other.key)), reason);
    let rsa = ca.issue(Key::Rsa, &["c.test"]);
    assert_eq!(
        why(&one.certificate, Some(&rsa.key)),
        reason,
        "of another kind too"
    );
}

#[test]
fn a_chain_that_does_not_begin_with_the_certificate_of_the_key_is_refused() {
    let ca = Ca::new("ca");
    let below = ca.intermediate("below");
    let files = below.issue(Key::P256, &["a.test"]);
    let reversed = below.certificate.pem() + &files.certificate;
    let reason = "the chain is in the wrong order: the key belongs to certificate 2 (CN=a.test), which must be the first of the file";
    assert_eq!(why(&reversed, Some(&files.key)), reason);
}

#[test]
fn a_chain_in_another_wrong_order_is_served_and_found() {
    let ca = Ca::new("root");
    let (above, below) = (ca.intermediate("above"), ca.intermediate("other"));
    let deep = above.intermediate("deep");
    let files = deep.issue(Key::P256, &["a.test"]);
    let chain = |parts: &[&Ca]| {
        let certificates: String = parts.iter().map(|ca| ca.certificate.pem()).collect();
        parse(&(files.certificate.clone() + &certificates), Some(&files.key)).unwrap()
    };
    assert_eq!(chain(&[]).chain_fault(), None);
    assert_eq!(chain(&[&deep, &above]).chain_fault(), None);
    assert_eq!(
        chain(&[&deep, &above, &ca]).chain_fault(),
        None,
        "the root may be there"
    );
    let fault = chain(&[&above, &deep]).chain_fault().unwrap().to_string();
    let reason = "the chain is in the wrong order: certificate 1 (CN=a.test) is issued by CN=deep, and certificate 2 is CN=above; \
                  each must be followed by its issuer";
    assert_eq!(fault, reason);
    assert_eq!(chain(&[&deep, &below]).chain_fault().unwrap().number, 2);
}
