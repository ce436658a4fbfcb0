//! Types of values that are about clients: access rules, limits, lists of networks.

use std::{collections::BTreeMap, ops::Range, path::PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use toml::de::DeValue;

use super::field::{Field, Key, Located, Node, bad_value, inline_schema, read_key, string, wrong_type};
use crate::{
    access::{Action, Rule, RuleError},
    config::{findings::Findings, words::nearest},
};

/// Longest path of a file in bytes: PATH_MAX (`linux/limits.h`) with the NUL.
pub(super) const MAX_PATH_BYTES: usize = 4_095;

/// Most rules of a frontend: more networks belong in a list.
const MAX_RULES: usize = 1_000;

/// `rules`, each with its place.
#[derive(Debug, Clone)]
pub struct RuleList(pub Vec<(Rule, Range<usize>)>);

/// Files by name.
#[derive(Debug, Clone)]
pub struct Files(pub BTreeMap<String, Located<FilePath>>);

/// The path of a file.
#[derive(Debug, Clone)]
pub struct FilePath(pub PathBuf);

impl Field for Action {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        match string(value, "\"allow\" or \"deny\"", findings)? {
            "allow" => Some(Self::Allow),
            "deny" => Some(Self::Deny),
            other => {
                let help = match nearest(other, ["allow", "deny"]) {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => "write \"allow\" or \"deny\"".to_owned(),
                };
                let message = format!("`{}` cannot be \"{other}\"", findings.key());
                bad_value(value, message, help, findings)
            }
        }
    }
}
inline_schema!([] Action, _g => json_schema!({ "enum": ["allow", "deny"] }));

impl Field for RuleList {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let DeValue::Array(list) = value.get_ref() else {
            let help = "write a list, such as rules = [\"deny 10.0.0.0/8\"]".to_owned();
            return wrong_type(value, "a list of rules", Some(help), findings);
        };
        if list.iter().count() > MAX_RULES {
            return bad_value(
                value,
                format!("`{}` has more than {MAX_RULES} rules", findings.key()),
                "put the networks into a file and name it in [network_lists]",
                findings,
            );
        }
        Some(Self(
            list.iter().filter_map(|item| rule(item, findings)).collect(),
        ))
    }
}
inline_schema!([] RuleList, _g => json_schema!({
    "type": "array", "items": { "type": "string" }
}));

fn rule(value: &Node<'_>, findings: &mut Findings) -> Option<(Rule, Range<usize>)> {
    let text = string(value, "a rule in quotes, such as \"deny 10.0.0.0/8\"", findings)?;
    match text.parse() {
        Ok(rule) => Some((rule, value.span())),
        Err(error) => {
            let help = match &error {
                RuleError::Network(text, _) if !text.contains(['.', ':', '/']) => {
                    format!("write \"file:{text}\" for a list of [network_lists]")
                }
                _ => "write \"allow NETWORK\", \"deny NETWORK\", or \"allow file:NAME\"".to_owned(),
            };
            bad_value(
                value,
                format!("\"{text}\" is not a rule: {error}"),
                help,
                findings,
            )
        }
    }
}

impl Field for Files {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let DeValue::Table(table) = value.get_ref() else {
            let help = format!(
                "write a section [{}] with NAME = \"/path/of/a/file\"",
                findings.path()
            );
            return wrong_type(value, "a table of files by name", Some(help), findings);
        };
        let files = table
            .iter()
            .filter_map(|(name, value)| Some((name.get_ref().to_string(), read_key(name, value, findings)?)));
        Some(Self(files.collect()))
    }
}
inline_schema!([] Files, generator => {
    let of = generator.subschema_for::<FilePath>();
    json_schema!({ "type": "object", "additionalProperties": of, "propertyNames": { "minLength": 1, "maxLength": crate::base::name::MAX_NAME_BYTES } })
});

impl Field for FilePath {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let text = string(value, "a path in quotes", findings)?;
        if is_path(text) {
            return Some(Self(PathBuf::from(text)));
        }
        let example = match findings.key() {
            "cert" | "key" | "ocsp" => "/etc/convey/certificates/www.pem",
            "path" => "/etc/convey/web.servers",
            "client_ca" => "/etc/convey/certificates/clients.pem",
            "ca" => "/etc/convey/certificates/ca.pem",
            "tokens_file" => "/etc/convey/tokens",
            "ticket_keys_file" => "/etc/convey/ticket.keys",
            _ => "/etc/convey/office.list",
        };
        bad_value(
            value,
            format!("\"{text}\" is not an absolute path of a file"),
            format!("write a path such as \"{example}\""),
            findings,
        )
    }
}
/// Whether a text is the absolute path of a file.
pub(super) fn is_path(text: &str) -> bool {
    let is_absolute = text.starts_with('/') && !text.ends_with('/');
    is_absolute && !text.contains(char::is_control) && text.len() <= MAX_PATH_BYTES
}

inline_schema!([] FilePath, _g => json_schema!({ "type": "string", "pattern": "^/.*[^/]$", "maxLength": MAX_PATH_BYTES }));
