//! OCSP responses beside certificates.

use std::time::{Duration, UNIX_EPOCH};

use x509_cert::{
    Certificate,
    der::{
        DateTime, Decode, Encode,
        asn1::{BitString, Null, ObjectIdentifier, OctetString},
        oid::AssociatedOid,
    },
    spki::AlgorithmIdentifierOwned,
};
use x509_ocsp::{
    BasicOcspResponse, CertId, CertStatus, OcspGeneralizedTime, OcspResponse as Response, OcspResponseStatus,
    ResponderId, ResponseBytes, ResponseData, RevokedInfo, SingleResponse, Version,
};

use super::lab::*;
use crate::tls::*;

fn at(year: u16) -> OcspGeneralizedTime {
    DateTime::new(year, 1, 1, 0, 0, 0).unwrap().into()
}

/// A response as a responder makes it, but for the signature, which is for clients to verify.
fn response(certificate: &[u8], cert_status: CertStatus, until: Option<u16>) -> Vec<u8> {
    let certificate = Certificate::from_der(certificate).unwrap();
    let algorithm = AlgorithmIdentifierOwned {
        oid: ObjectIdentifier::new_unwrap("1.3.14.3.2.26"),
        parameters: None,
    };
    let hash = OctetString::new([0; 20]).unwrap();
    let single = SingleResponse {
        cert_id: CertId {
            hash_algorithm: algorithm.clone(),
            issuer_name_hash: hash.clone(),
            issuer_key_hash: hash.clone(),
            serial_number: certificate.tbs_certificate.serial_number,
        },
        cert_status,
        this_update: at(2025),
        next_update: until.map(at),
        single_extensions: None,
    };
    let basic = BasicOcspResponse {
        tbs_response_data: ResponseData {
            version: Version::V1,
            responder_id: ResponderId::ByKey(hash),
            produced_at: at(2025),
            responses: vec![single],
            response_extensions: None,
        },
        signature_algorithm: algorithm,
        signature: BitString::from_bytes(&[0]).unwrap(),
        certs: None,
    };
    let bytes = ResponseBytes {
        response_type: BasicOcspResponse::OID,
        response: OctetString::new(basic.to_der().unwrap()).unwrap(),
    };
    let response = Response {
        response_status: OcspResponseStatus::Successful,
        response_bytes: Some(bytes),
    };
    response.to_der().unwrap()
}

fn pair(files: &Files, ocsp: &[u8]) -> Result<Pair, PairError> {
    Pair::parse(PairFiles {
        certificate: files.certificate.as_bytes(),
        key: Some(files.key.as_bytes()),
        ocsp: Some(ocsp),
    })
}

#[test]
fn a_response_is_sent_until_it_is_out_of_date() {
    let files = Ca::new("ca").issue(Key::P256, &["a.test"]);
    let good = response(&files.der().0[0], CertStatus::Good(Null), Some(2030));
    let pair = pair(&files, &good).unwrap();
    let end = UNIX_EPOCH + Duration::from_secs(1_893_456_000);
    let sent = |now| pair.certified_at(|| now).ocsp.as_deref();
    assert_eq!(sent(end - Duration::from_secs(1)), Some(&good[..]));
    assert_eq!(sent(end), None);
    assert!(CertificateFinding::all(&pair, end - Duration::from_secs(1)).is_empty());
    let expired = CertificateFinding::OcspExpired { at: end };
    assert_eq!(CertificateFinding::all(&pair, end), [expired]);
}

#[test]
fn a_response_without_an_end_is_sent_for_ever() {
    let files = Ca::new("ca").issue(Key::P256, &["a.test"]);
    let good = response(&files.der().0[0], CertStatus::Good(Null), None);
    assert!(pair(&files, &good).unwrap().certified_at(clock).ocsp.is_some());
}

#[test]
fn a_response_that_would_harm_the_certificate_is_not_sent_and_found() {
    let files = Ca::new("ca").issue(Key::P256, &["a.test"]);
    let revoked = CertStatus::Revoked(RevokedInfo {
        revocation_time: at(2025),
        revocation_reason: None,
    });
    for (status, word) in [
        (revoked, OcspStatus::Revoked),
        (CertStatus::Unknown(Null), OcspStatus::Unknown),
    ] {
        let pair = pair(&files, &response(&files.der().0[0], status, Some(2100))).unwrap();
        assert_eq!(pair.certified_at(clock).ocsp, None);
        let found = CertificateFinding::all(&pair, clock());
        assert_eq!(found, [CertificateFinding::OcspStatus(word)]);
    }
}

#[test]
fn what_is_no_response_for_the_certificate_is_refused() {
    let ca = Ca::new("ca");
    let (files, other) = (ca.issue(Key::P256, &["a.test"]), ca.issue(Key::P256, &["a.test"]));
    let why = |bytes: &[u8]| pair(&files, bytes).unwrap_err().to_string();
    let others = response(&other.der().0[0], CertStatus::Good(Null), None);
    assert_eq!(why(&others), "OCSP response: it is for another certificate");
    let refused = Response {
        response_status: OcspResponseStatus::TryLater,
        response_bytes: None,
    };
    assert!(
        why(&refused.to_der().unwrap())
            .starts_with("OCSP response: the responder did not answer but refused")
    );
    for bytes in [
        &b""[..],
        b"-----BEGIN OCSP RESPONSE-----",
        &others[..others.len() - 1],
    ] {
        assert!(why(bytes).starts_with("OCSP response: the file is not an OCSP response in DER"));
    }
}
