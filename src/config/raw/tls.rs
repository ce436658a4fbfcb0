//! Types of values that are about TLS.

use std::{ops::Range, path::PathBuf};

use rustls::pki_types::ServerName;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::json;
use toml::de::DeValue;

use super::{
    Certificate,
    access::{MAX_PATH_BYTES, is_path},
    field::{Field, Key, Located, Node, bad_value, inline_schema, string, wrong_type},
    fields::word,
    routing::{AlpnNames, List, one_or_several},
    section,
};
use crate::config::{
    findings::Findings,
    tls_names::{CipherSuite, ClientAuth, CrlPolicy, Group, TlsVersion},
    words::{Words, nearest},
};

/// Most certificates of a frontend: each is several files that are read and watched.
const MAX_CERTIFICATES: usize = 1_000;

/// Most files of `client_crl`.
const MAX_CRLS: usize = 100;

/// `certificates` in their order.
#[derive(Debug, Clone)]
pub struct Certificates(pub Vec<Located<Certificate>>);

/// Files, each with its place.
#[derive(Debug, Clone)]
pub struct FilePaths(pub Vec<(PathBuf, Range<usize>)>);

/// `ciphers`, each with its place.
#[derive(Debug, Clone)]
pub struct Ciphers(pub Vec<(CipherSuite, Range<usize>)>);

/// `server_name` of a backend.
#[derive(Debug, Clone)]
pub struct ServerNameFrom(pub crate::config::tls::ServerNameFrom);

/// `alpn` of a backend.
#[derive(Debug, Clone)]
pub struct ServerAlpn(pub crate::config::tls::ServerAlpn);

/// `groups`, each with its place.
#[derive(Debug, Clone)]
pub struct Groups(pub Vec<(Group, Range<usize>)>);

impl Field for Certificates {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let example = |value: &Node<'_>| {
            let path = match value.get_ref() {
                DeValue::String(path) if is_path(path) => path.as_ref(),
                _ => "/etc/convey/certificates/www.pem",
            };
            format!("write [{{ cert = {} }}]", crate::config::quote::string(path))
        };
        let DeValue::Array(items) = value.get_ref() else {
            let help = example(value);
            wrong_type::<()>(value, "a list of certificates", Some(help), findings);
            // what could not be read is not missing
            return Some(Self(Vec::new()));
        };
        if items.is_empty() {
            let message = format!("`{}` is an empty list", findings.key());
            bad_value::<()>(value, message, example(value), findings);
        }
        if items.len() > MAX_CERTIFICATES {
            let message = format!("`{}` has {} certificates", findings.key(), items.len());
            let help = format!("the limit is {MAX_CERTIFICATES}: one certificate can have many names");
            bad_value::<()>(value, message, help, findings);
        }
        let mut certificates = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate().take(MAX_CERTIFICATES) {
            if !item.get_ref().is_table() {
                let help = example(item);
                wrong_type::<()>(item, "a list of sections", Some(help), findings);
                continue;
            }
            let read = findings.within(&index.to_string(), |f| section::read_item(item, f));
            certificates.extend(read.map(|certificate| Located {
                value: certificate,
                span: item.span(),
                key: item.span(),
            }));
        }
        Some(Self(certificates))
    }
}
inline_schema!([] Certificates, generator => {
    let of = generator.subschema_for::<Certificate>();
    json_schema!({ "type": "array", "items": of, "minItems": 1, "maxItems": MAX_CERTIFICATES })
});

impl Field for FilePaths {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let list = List {
            expected: "a path in quotes, or a list of them",
            empty: "write at least one path, or leave the key out",
            most: MAX_CRLS,
            more: "a file can have several lists",
        };
        let read = |value: &Node<'_>, text: &str, findings: &mut Findings| {
            if is_path(text) {
                return Some(PathBuf::from(text));
            }
            bad_value(
                value,
                format!("\"{text}\" is not an absolute path of a file"),
                "write a path such as \"/etc/convey/certificates/revoked.pem\"",
                findings,
            )
        };
        list.read(value, findings, read).map(Self)
    }
}
inline_schema!([] FilePaths, _g => one_or_several(
    &json!({ "type": "string", "pattern": "^/.*[^/]$", "maxLength": MAX_PATH_BYTES }), MAX_CRLS
));

impl Field for TlsVersion {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let expected = "a version of TLS, \"1.2\" or \"1.3\"";
        let DeValue::String(text) = value.get_ref() else {
            let help = match value.get_ref() {
                DeValue::Float(number) => Some(format!(
                    "put it in quotes: {} = \"{}\"",
                    findings.key(),
                    number.as_str()
                )),
                _ => None,
            };
            return wrong_type(value, expected, help, findings);
        };
        match text.parse() {
            Ok(version) => Some(version),
            Err(why) => bad_value(
                value,
                format!("`{}` cannot be \"{text}\"", findings.key()),
                format!("{why}"),
                findings,
            ),
        }
    }
}
inline_schema!([] TlsVersion, _g => {
    let [ours, others] = [TlsVersion::label, TlsVersion::protocol].map(|name| TlsVersion::ALL.map(name));
    let words = [ours, others].concat();
    json_schema!({ "enum": words })
});

impl Field for Ciphers {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let list = List {
            expected: "the name of a cipher suite in quotes, or a list of them",
            empty: "write at least one, or leave the key out for all",
            most: CipherSuite::ALL.len(),
            more: "there are no more suites: write each once",
        };
        let read = |value: &Node<'_>, text: &str, findings: &mut Findings| match text.parse() {
            Ok(suite) => Some(suite),
            Err(error) => {
                let message = format!("cipher \"{text}\": {error}");
                let names = CipherSuite::ALL.map(CipherSuite::openssl);
                bad_value(value, message, known(text, names), findings)
            }
        };
        let read = list.read(value, findings, read)?;
        Some(Self(once(read, findings)))
    }
}
inline_schema!([] Ciphers, _g => one_or_several(
    &json!({ "type": "string", "minLength": 1 }), CipherSuite::ALL.len()
));

impl Field for Groups {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let list = List {
            expected: "the name of a group in quotes, or a list of them",
            empty: "write at least one, or leave the key out for the default",
            most: Group::ALL.len(),
            more: "there are no more groups: write each once",
        };
        let read = |value: &Node<'_>, text: &str, findings: &mut Findings| match text.parse() {
            Ok(group) => Some(group),
            Err(error) => {
                let error: crate::config::tls_names::GroupError = error;
                let message = format!("group \"{text}\": {error}");
                bad_value(
                    value,
                    message,
                    known(text, Group::ALL.map(Group::label)),
                    findings,
                )
            }
        };
        let read = list.read(value, findings, read)?;
        Some(Self(once(read, findings)))
    }
}
inline_schema!([] Groups, _g => one_or_several(
    &json!({ "type": "string", "minLength": 1 }), Group::ALL.len()
));

impl Field for ServerNameFrom {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        use crate::config::tls::ServerNameFrom as From;
        let text = string(
            value,
            "a host name in quotes, or \"server\", \"client\" or \"address\"",
            findings,
        )?;
        if let Some((word, _)) = From::WORDS.into_iter().find(|(_, word)| *word == text) {
            return Some(Self(word));
        }
        let host = text.strip_suffix('.').unwrap_or(text);
        // what other programs fetch the client's name with
        let is_fetch = text.ends_with("_sni") || text.starts_with('$');
        if is_tls_name(host) && !is_fetch {
            return Some(Self(From::Fixed(host.to_ascii_lowercase().into())));
        }
        let help = match text {
            _ if text.contains('*') => "a server is asked for one name: write it without a star",
            _ if text.contains(['/', ':']) => "write the name alone, without a scheme, a port or a path",
            _ if is_fetch => "write \"client\" for the name that the client asks for",
            _ => "write a host name such as \"www.example.com\", or \"server\", \"client\" or \"address\"",
        };
        bad_value(value, format!("\"{text}\" is not a host name"), help, findings)
    }
}
inline_schema!([] ServerNameFrom, _g => json_schema!({
    "type": "string", "minLength": 1, "maxLength": 254
}));

/// Whether a certificate can be verified for this name: that of a host, or an IP address.
pub fn is_tls_name(text: &str) -> bool {
    ServerName::try_from(text).is_ok()
}

impl Field for ServerAlpn {
    fn read(key: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        use crate::config::tls::ServerAlpn as Alpn;
        Some(Self(match value.get_ref() {
            DeValue::String(word) if word == "client" => Alpn::Client,
            DeValue::String(word) if word == "off" => Alpn::Off,
            _ => Alpn::Offered(AlpnNames::read(key, value, findings)?.0),
        }))
    }
}
inline_schema!([] ServerAlpn, generator => generator.subschema_for::<AlpnNames>());

/// What could be written.
fn known<const N: usize>(text: &str, names: [&'static str; N]) -> String {
    // as `nearest` folds what it compares
    let folded = names.map(|name| name.replace('-', "_"));
    let near = nearest(text, folded.iter().map(String::as_str));
    let near = near.and_then(|near| folded.iter().position(|name| name == near));
    match near.and_then(|index| names.get(index)) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => format!("known here: {}", names.join(", ")),
    }
}

/// A list without what it has twice, which is an error.
fn once<T: Copy + PartialEq + std::fmt::Display>(
    items: Vec<(T, Range<usize>)>,
    findings: &mut Findings,
) -> Vec<(T, Range<usize>)> {
    let mut seen: Vec<(T, Range<usize>)> = Vec::new();
    for (item, span) in items {
        if seen.iter().any(|(other, _)| *other == item) {
            let message = format!("{item} is in the list twice");
            findings.error(span, message, "write each once".to_owned());
        } else {
            seen.push((item, span));
        }
    }
    seen
}

super::fields::word_fields!(ClientAuth, CrlPolicy);
