//! Sections and types of values that are about certificates that are ordered (ACME).

use std::ops::Range;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::json;

use super::{
    HOUR, Time, YEAR,
    access::FilePath,
    commands::CommandLine,
    discovery_fields::SourceSecret,
    field::{Field, Key, Node, bad_value, inline_schema, string},
    fields::word,
    routing::{List, one_or_several},
    section::section,
};
use crate::{
    base::{CertificateName, HttpUrl, ListenAddr, NotACertificateName, NotAHostName},
    config::{
        acme::{Challenge, DIRECTORIES},
        address,
        findings::Findings,
        words::Words as _,
    },
};

/// Most names of one certificate: what Let's Encrypt and most other CAs take.
const MAX_NAMES: usize = 100;

/// Most addresses of `contact`.
const MAX_CONTACTS: usize = 10;

/// Longest text that a CA gives: a `kid`, the name of a profile.
const MAX_TEXT_BYTES: usize = 256;

section! {
    /// Certificates that are ordered from a CA, and renewed, by themselves (ACME, RFC 8555), for frontends with tls.acme. Until the first one is there, clients of that frontend get another certificate of it, or none. With this section its user agrees to the CA's terms of service.
    Acme {
        /// The CA: "letsencrypt", "letsencrypt-staging" for tries, whose certificates no client believes, or the URL of another one's directory.
        directory (required): AcmeDirectory,
        /// Mail addresses that the CA may write to, or one. Default: none.
        contact: Contacts,
        /// PEM file of the CAs that sign the certificate of the directory's own server. Default: the CAs of the host, of Debian's package ca-certificates.
        ca: FilePath,
        /// How the CA sees that a name is ours, where tls.acme does not say: "tls-alpn-01" (default) by a TLS handshake on port 443, which frontends with tls answer while they serve; "http-01" by a request to port 80, answered on http_listen_addr; "dns-01" by a record that dns_hook makes, the only one for wildcards.
        challenge: Challenge,
        /// IP:port on which requests of the challenge http-01 are answered, such as "0.0.0.0:80"; anything else is answered with 404 there. A frontend on the same port leaves no room: use another challenge. Default: none.
        http_listen_addr: HttpListenAddr,
        /// External account binding, which some CAs ask for: what they call your account there, and its key.
        eab: ExternalAccount,
        /// The kind of certificate, where the CA has several (profiles), such as "shortlived". Default: the CA's own.
        profile: AcmeText,
        /// Command that puts a record into the DNS, for dns-01, and its arguments. It gets three more: "present" or "cleanup", the name of the TXT record, and its text; a name may have several at a time. It runs as Convey's user, without capabilities: see COMMANDS in convey(8).
        dns_hook: CommandLine,
        /// How long dns_hook may take. Default: "2m".
        dns_hook_timeout: Time<false, 600_000>,
        /// How long after dns_hook is through the CA is told to look: what name servers need to pass a record on. Default: 0.
        dns_wait: Time<true, HOUR>,
        /// Renew a certificate this long before its end. Default: when the CA advises it (ARI), or with the last third of its lifetime.
        renew_before: Time<false, YEAR>,
        /// false orders nothing: this load balancer takes the certificates that another one has ordered, from acme in state_dir, where they are to be copied to. Default: true.
        lead: bool,
    }
}

section! {
    /// The account at the CA that Convey's belongs to.
    ExternalAccount {
        /// What the CA calls it (key identifier).
        kid (required): AcmeText,
        /// Its HMAC key, in base64url: "file:/etc/convey/acme.key" is in that file, "${ACME_KEY}" in the environment of the service.
        hmac_key (required): SourceSecret,
    }
}

section! {
    /// A certificate that is ordered by [acme]. Frontends with the same names share it.
    OrderedCertificate {
        /// The names that it is for, or one: "www.example.com", or "*.example.com" for all right below example.com, which needs the challenge dns-01. The first is what it is called.
        names (required): CertificateNames,
        /// As in [acme], for this one.
        challenge: Challenge,
        /// As in [acme], for this one.
        profile: AcmeText,
    }
}

/// `directory`; `None` if it is none, which has been said.
#[derive(Debug, Clone)]
pub struct AcmeDirectory(pub Option<HttpUrl>);

impl Field for AcmeDirectory {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let words = DIRECTORIES.map(|(word, _)| format!("\"{word}\"")).join(", ");
        let help = format!("write {words}, or a URL such as \"https://ca.example.com/acme/directory\"");
        let Some(text) = string(value, "the name of a CA or a URL in quotes", findings) else {
            return Some(Self(None));
        };
        let known = DIRECTORIES.iter().find(|(word, _)| *word == text);
        let url = match known.map_or(text, |(_, url)| url).parse::<HttpUrl>() {
            Ok(url) if url.is_tls => Some(url),
            Ok(_) => bad_value(
                value,
                format!("`{}` is asked without TLS", findings.key()),
                "a CA is asked by https: write the URL so",
                findings,
            ),
            Err(_) if text.contains('@') => {
                let message = format!("`{}` has a user or a password in it", findings.key());
                bad_value(value, message, help, findings)
            }
            Err(error) => {
                let message = format!("\"{text}\" is not the directory of a CA: {error}");
                bad_value(value, message, help, findings)
            }
        };
        Some(Self(url))
    }
}
inline_schema!([] AcmeDirectory, _g => json_schema!({ "type": "string", "minLength": 1 }));

/// Mail addresses.
#[derive(Debug, Clone)]
pub struct Contacts(pub Vec<Box<str>>);

impl Field for Contacts {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let list = List {
            expected: "a mail address in quotes, or a list of them",
            empty: "write at least one, or leave the key out",
            most: MAX_CONTACTS,
            more: "write those that are read",
        };
        let read = |value: &Node<'_>, text: &str, findings: &mut Findings| {
            let address = text.strip_prefix("mailto:").unwrap_or(text);
            let is_plain = |part: &str| {
                let is_odd = |c: char| c.is_whitespace() || c.is_control() || "@,?&<>\"".contains(c);
                !part.is_empty() && !part.contains(is_odd)
            };
            match address.split_once('@') {
                Some((name, host)) if is_plain(name) && is_plain(host) && address.len() <= MAX_TEXT_BYTES => {
                    Some(address.into())
                }
                _ => bad_value(
                    value,
                    format!("\"{text}\" is not a mail address"),
                    "write one such as \"admin@example.com\"",
                    findings,
                ),
            }
        };
        let read = list.read(value, findings, read)?;
        Some(Self(read.into_iter().map(|(address, _)| address).collect()))
    }
}
inline_schema!([] Contacts, _g => one_or_several(&json!({ "type": "string", "minLength": 3, "maxLength": MAX_TEXT_BYTES + 7 }), MAX_CONTACTS));

/// Where HTTP-01 is answered; `None` if it is no address, which has been said.
#[derive(Debug, Clone, Copy)]
pub struct HttpListenAddr(pub Option<ListenAddr>);

impl Field for HttpListenAddr {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let text = string(value, "an address in quotes, such as \"0.0.0.0:80\"", findings);
        let address = text.and_then(|text| match address::parse_listen(text) {
            Ok(address) => Some(address),
            Err(fault) => bad_value(value, fault.message, fault.help, findings),
        });
        Some(Self(address))
    }
}
inline_schema!([] HttpListenAddr, _g => json_schema!({ "type": "string", "minLength": 3 }));

/// A text that a CA gives; `None` if it is none, which has been said.
#[derive(Debug, Clone)]
pub struct AcmeText(pub Option<Box<str>>);

impl Field for AcmeText {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let Some(text) = string(value, "a text in quotes", findings) else {
            return Some(Self(None));
        };
        let is_plain = !text.is_empty() && text.len() <= MAX_TEXT_BYTES && !text.contains(char::is_control);
        if is_plain {
            return Some(Self(Some(text.into())));
        }
        let message = format!(
            "`{}` must have from 1 to {MAX_TEXT_BYTES} characters, and no control characters",
            findings.key()
        );
        bad_value::<()>(value, message, "write it as the CA has it", findings);
        Some(Self(None))
    }
}
inline_schema!([] AcmeText, _g => json_schema!({ "type": "string", "minLength": 1, "maxLength": MAX_TEXT_BYTES }));

/// Names of a certificate, each with its place.
#[derive(Debug, Clone)]
pub struct CertificateNames(pub Vec<(CertificateName, Range<usize>)>);

impl Field for CertificateNames {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let list = List {
            expected: "the name of a host in quotes, or a list of them",
            empty: "write the names that clients ask for, such as \"www.example.com\"",
            most: MAX_NAMES,
            more: "order them with several frontends, or by a wildcard such as \"*.example.com\"",
        };
        // what could not be read is not missing
        let read = list.read(value, findings, name).unwrap_or_default();
        let mut names: Vec<(CertificateName, Range<usize>)> = Vec::new();
        for (name, span) in read {
            if names.iter().any(|(other, _)| *other == name) {
                findings.error(
                    span,
                    format!("{name} is in the list twice"),
                    "write each name once".to_owned(),
                );
            } else {
                names.push((name, span));
            }
        }
        Some(Self(names))
    }
}
inline_schema!([] CertificateNames, _g => one_or_several(&json!({ "type": "string", "minLength": 1, "maxLength": 255 }), MAX_NAMES));

fn name(value: &Node<'_>, text: &str, findings: &mut Findings) -> Option<CertificateName> {
    match text.parse() {
        Ok(name) => Some(name),
        Err(error) => {
            let help = match error {
                NotACertificateName::Host(NotAHostName::Address) => {
                    "CAs certify names by this way: write one"
                }
                NotACertificateName::Host(NotAHostName::Character) if !text.is_ascii() => {
                    "write it as the DNS has it (xn--…), which `idn2 NAME` prints"
                }
                _ => "write a name such as \"www.example.com\" or \"*.example.com\"",
            };
            let message = format!("\"{text}\" is not the name of a certificate: {error}");
            bad_value(value, message, help, findings)
        }
    }
}

super::fields::word_fields!(Challenge);
