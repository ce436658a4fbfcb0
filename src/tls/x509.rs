//! What certificates say of themselves. Nothing here is verified: that is for those who are shown them.

use std::{
    fmt::Write as _,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64ct::{Base64UrlUnpadded, Encoding as _};
use x509_cert::{
    certificate::{CertificateInner, Raw},
    der::{Decode, Encode, oid::db::rfc4519::COMMON_NAME},
    ext::pkix::{AuthorityKeyIdentifier, BasicConstraints, SubjectAltName, name::GeneralName},
    name::RdnSequence,
};

/// Longest subject that is kept or logged, in bytes.
pub const MAX_SUBJECT: usize = 256;

/// Most names of one certificate that are looked at: public CAs allow 100, a few of them 2,000.
const MAX_NAMES: usize = 10_000;

/// What is known of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Its subject (RFC 4514), at most [`MAX_SUBJECT`] bytes; if it has none, as some public CAs have it, its first host name.
    pub subject: String,
    /// Who signed it, likewise.
    pub issuer: String,
    /// The host names that it is for, in lower case, a wildcard as `*.example.com`: those of its subjectAltName, or its
    /// common name if it has none.
    pub names: Vec<Box<str>>,
    /// Whether it has a subjectAltName with a host name or an address.
    pub has_alternative_names: bool,
    /// From when on it is valid.
    pub not_before: SystemTime,
    /// Until when.
    pub not_after: SystemTime,
    /// Whether it is the certificate of a CA.
    pub is_ca: bool,
    /// Its serial number in hexadecimal digits.
    pub serial: String,
    /// What its CA calls it that advises when to renew it (RFC 9773, section 4.1): the identifier of who has signed it and its
    /// serial number, in base64url; `None` if it does not say who has.
    pub renewal_id: Option<(String, String)>,
    pub(super) subject_der: Vec<u8>,
    pub(super) issuer_der: Vec<u8>,
    /// The key with its algorithm, in DER.
    pub(super) public_key: Vec<u8>,
}

/// Bytes that are no certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it is not an X.509 certificate ({0})")]
pub struct X509Error(String);

impl Facts {
    /// Reads a certificate in DER.
    ///
    /// # Errors
    /// It is none.
    pub fn read(der: &[u8]) -> Result<Self, X509Error> {
        let tbs = parse(der)?.tbs_certificate;
        let alternative = tbs.get::<SubjectAltName>().map_err(|error| fault(&error))?;
        let alternative = alternative.map(|(_, names)| names.0).unwrap_or_default();
        let constraints = tbs.get::<BasicConstraints>().map_err(|error| fault(&error))?;
        let authority = tbs.get::<AuthorityKeyIdentifier>().ok().flatten();
        let authority = authority.and_then(|(_, authority)| authority.key_identifier);
        let is_name =
            |name: &GeneralName| matches!(name, GeneralName::DnsName(_) | GeneralName::IpAddress(_));
        let has_alternative_names = alternative.iter().any(is_name);
        let names: Vec<Box<str>> = if has_alternative_names {
            alternative.iter().filter_map(dns_name).take(MAX_NAMES).collect()
        } else {
            common_name(&tbs.subject)
                .map(lower)
                .filter(|name| is_host(name))
                .into_iter()
                .collect()
        };
        let subject = if tbs.subject.is_empty() {
            names.first().cloned().map(String::from).unwrap_or_default()
        } else {
            bounded(&tbs.subject)
        };
        Ok(Self {
            subject,
            issuer: bounded(&tbs.issuer),
            names,
            has_alternative_names,
            not_before: time(tbs.validity.not_before.to_unix_duration()),
            not_after: time(tbs.validity.not_after.to_unix_duration()),
            is_ca: constraints.is_some_and(|(_, constraints)| constraints.ca),
            serial: hexadecimal(tbs.serial_number.as_bytes()),
            renewal_id: authority.map(|authority| {
                let [authority, serial] = [authority.as_bytes(), tbs.serial_number.as_bytes()];
                (
                    Base64UrlUnpadded::encode_string(authority),
                    Base64UrlUnpadded::encode_string(serial),
                )
            }),
            subject_der: encoded(&tbs.subject)?,
            issuer_der: encoded(&tbs.issuer)?,
            public_key: encoded(&tbs.subject_public_key_info)?,
        })
    }
}

/// Who a certificate is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its subject (RFC 4514), at most [`MAX_SUBJECT`] bytes and without control characters; empty if it cannot be read.
    pub subject: Box<str>,
    /// Its common name, likewise.
    pub common_name: Box<str>,
}

impl Identity {
    /// Reads it from a certificate in DER.
    pub(super) fn read(der: &[u8]) -> Self {
        let certificate = parse(der).ok();
        let subject = certificate
            .as_ref()
            .map(|certificate| &certificate.tbs_certificate.subject);
        let common = subject.and_then(common_name).unwrap_or_default();
        Self {
            subject: subject.map(bounded).unwrap_or_default().into(),
            common_name: printable(common).into(),
        }
    }
}

/// A day and time for people.
#[must_use]
pub fn date(time: SystemTime) -> String {
    let timestamp = jiff::Timestamp::try_from(time);
    timestamp.map_or_else(
        |_| "a distant day".to_owned(),
        |at| at.strftime("%Y-%m-%d %H:%M UTC").to_string(),
    )
}

/// As X.509 has it, but for the profile of RFC 5280, which many a private CA does not know.
fn parse(der: &[u8]) -> Result<CertificateInner<Raw>, X509Error> {
    CertificateInner::from_der(der).map_err(|error| fault(&error))
}

fn encoded(part: &impl Encode) -> Result<Vec<u8>, X509Error> {
    part.to_der().map_err(|error| fault(&error))
}

fn fault(error: &x509_cert::der::Error) -> X509Error {
    X509Error(error.to_string())
}

pub(super) fn time(since_epoch: Duration) -> SystemTime {
    UNIX_EPOCH.checked_add(since_epoch).unwrap_or(UNIX_EPOCH)
}

fn dns_name(name: &GeneralName) -> Option<Box<str>> {
    match name {
        GeneralName::DnsName(name) => Some(lower(name.as_str())).filter(|name| is_host(name)),
        _ => None,
    }
}

fn lower(name: &str) -> Box<str> {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.to_ascii_lowercase().into()
}

/// Whether a client can ask for the name, or for one that the wildcard stands for.
fn is_host(name: &str) -> bool {
    let host = name.strip_prefix("*.").unwrap_or(name);
    let is_label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    host.split('.').all(is_label)
}

fn common_name(subject: &RdnSequence) -> Option<&str> {
    let attributes = subject.0.iter().flat_map(|rdn| rdn.0.iter());
    let mut names = attributes.filter(|attribute| attribute.oid == COMMON_NAME);
    let value = names.next_back()?.value.value();
    std::str::from_utf8(value).ok()
}

pub(super) fn bounded(name: &RdnSequence) -> String {
    let mut text = String::new();
    // a name that cannot be written in full is shown as far as it goes
    let _ = write!(text, "{name}");
    printable(&text)
}

/// A text for logs: cut at [`MAX_SUBJECT`], and without control characters.
fn printable(whole: &str) -> String {
    const MORE: char = '…';
    let mut text = String::new();
    for c in whole.chars() {
        let before = text.len();
        if c.is_control() {
            text.extend(c.escape_default());
        } else {
            text.push(c);
        }
        if text.len() > MAX_SUBJECT - MORE.len_utf8() {
            text.truncate(before);
            text.push(MORE);
            break;
        }
    }
    text
}

pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // a String takes everything
        let _ = write!(text, "{byte:02x}");
        text
    })
}
