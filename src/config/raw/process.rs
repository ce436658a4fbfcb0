//! Types of values that are about the process and its log: `[global]`, `[admin]`, `access_log`.

use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use toml::de::DeValue;

use super::field::{Field, Key, Node, bad_value, inline_schema, string, wrong_type};
use crate::{
    base::SocketMode,
    config::{
        findings::Findings,
        model::{AccessLog, HashSeed},
    },
};

/// Longest path of a unix socket on Linux, in bytes: `sun_path` has 108 with the NUL (unix(7)).
const MAX_PATH_BYTES: usize = 107;

/// Longest `hash_seed` in bytes.
const MAX_SEED_BYTES: usize = 128;

/// Longest path of a directory in bytes: PATH_MAX (`linux/limits.h`) less room for a file's name in it.
const MAX_DIRECTORY_BYTES: usize = 4_096 - 256;

/// `state_dir`, `certificate_dir`.
#[derive(Debug, Clone)]
pub struct DirectoryPath(pub PathBuf);

/// `user`.
#[derive(Debug, Clone)]
pub struct UserName(pub String);

/// `socket_group`.
#[derive(Debug, Clone)]
pub struct GroupName(pub String);

/// `socket`; `None` for `""`.
#[derive(Debug, Clone)]
pub struct SocketPath(pub Option<PathBuf>);

impl Field for AccessLog {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let expected = "true, false or \"errors\"";
        match value.get_ref() {
            DeValue::Boolean(true) => Some(Self::All),
            DeValue::Boolean(false) => Some(Self::Off),
            DeValue::String(text) if text == "errors" => Some(Self::Errors),
            DeValue::String(text) if matches!(text.as_ref(), "true" | "false") => {
                let help = format!("leave out the quotes: {} = {text}", findings.key());
                wrong_type(value, expected, Some(help), findings)
            }
            DeValue::String(text) => bad_value(
                value,
                format!("`{}` cannot be \"{text}\"", findings.key()),
                format!("write {expected}"),
                findings,
            ),
            _ => wrong_type(value, expected, None, findings),
        }
    }
}
inline_schema!([] AccessLog, _g => json_schema!({ "anyOf": [{ "type": "boolean" }, { "const": "errors" }] }));

/// Whether it can be the name of a user or a group.
fn is_account(text: &str) -> bool {
    let is_odd = |c: char| c.is_control() || c.is_whitespace() || c == ':' || c == '/';
    !text.is_empty() && text.len() <= 255 && !text.contains(is_odd)
}

impl Field for GroupName {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let text = string(value, "the name of a group, in quotes", findings)?;
        if is_account(text) {
            return Some(Self(text.to_owned()));
        }
        bad_value(
            value,
            format!("\"{text}\" is not the name of a group"),
            "write a name such as \"www-data\", or leave the key out",
            findings,
        )
    }
}
inline_schema!([] GroupName, _g => json_schema!({ "type": "string", "minLength": 1, "maxLength": 255 }));

impl Field for SocketMode {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let text = string(value, "permissions in quotes, such as \"0660\"", findings)?;
        if let Some(mode) = Self::parse(text) {
            return Some(mode);
        }
        bad_value(
            value,
            format!("\"{text}\" is not a mode of a socket"),
            "write \"0600\" for the user that convey runs as, \"0660\" for its group too, or \"0666\" for every user",
            findings,
        )
    }
}
inline_schema!([] SocketMode, _g => json_schema!({ "type": "string", "pattern": "^0?[2367][0-7]{2}$" }));

impl Field for UserName {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let text = string(value, "the name of a user, in quotes", findings)?;
        if is_account(text) {
            return Some(Self(text.to_owned()));
        }
        bad_value(
            value,
            format!("\"{text}\" is not the name of a user"),
            "write a name such as \"convey\", or leave the key out",
            findings,
        )
    }
}
inline_schema!([] UserName, _g => json_schema!({ "type": "string", "minLength": 1, "maxLength": 255 }));

impl Field for SocketPath {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let text = string(value, "a path in quotes", findings)?;
        if text.is_empty() {
            return Some(Self(None));
        }
        if !text.starts_with('/') || text.ends_with('/') {
            let help =
                "write an absolute path, such as \"/run/convey/admin.sock\", or \"\" for no control socket";
            return bad_value(
                value,
                format!("\"{text}\" is not an absolute path of a file"),
                help,
                findings,
            );
        }
        if text.len() > MAX_PATH_BYTES || text.contains(char::is_control) {
            let message = format!("`{}` is not a valid path of a socket", findings.key());
            let help = format!("the limit is {MAX_PATH_BYTES} bytes, without control characters");
            return bad_value(value, message, help, findings);
        }
        Some(Self(Some(PathBuf::from(text))))
    }
}
inline_schema!([] SocketPath, _g => json_schema!({ "type": "string", "pattern": "^(/.*[^/])?$", "maxLength": MAX_PATH_BYTES }));

impl Field for DirectoryPath {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let text = string(value, "a path in quotes", findings)?;
        let is_path = text.starts_with('/') && !text.ends_with('/') && !text.contains(char::is_control);
        if is_path && text.len() <= MAX_DIRECTORY_BYTES {
            return Some(Self(PathBuf::from(text)));
        }
        let (whose, example) = match findings.key() {
            "certificate_dir" => ("", "/etc/convey/certificates"),
            _ => (" for Convey", "/var/lib/convey"),
        };
        bad_value(
            value,
            format!("\"{text}\" is not the absolute path of a directory{whose}"),
            format!("write a path such as \"{example}\", without a slash at its end"),
            findings,
        )
    }
}
inline_schema!([] DirectoryPath, _g => json_schema!({ "type": "string", "pattern": "^/.*[^/]$", "maxLength": MAX_DIRECTORY_BYTES }));

impl Field for HashSeed {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let text = string(value, "a secret text in quotes", findings)?;
        // what is wrong with it is said without it
        match text.len() {
            0 => bad_value(
                value,
                "`hash_seed` is empty".to_owned(),
                "write random text, such as what `openssl rand -hex 16` prints, or leave the key out for the published hash",
                findings,
            ),
            1..=MAX_SEED_BYTES => Some(Self(text.to_owned())),
            long => bad_value(
                value,
                format!("`hash_seed` is {long} bytes"),
                format!("the limit is {MAX_SEED_BYTES}; 32 random bytes are enough"),
                findings,
            ),
        }
    }
}
inline_schema!([] HashSeed, _g => json_schema!({ "type": "string", "minLength": 1, "maxLength": MAX_SEED_BYTES }));
