//! The section `[frontends.NAME.connection_log]` and the types of its values.

use std::{num::NonZeroU32, path::PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use toml::de::DeValue;

use super::{
    access::{MAX_PATH_BYTES, is_path},
    field::{Field, Key, Node, bad_value, inline_schema, string, wrong_type},
    fields::{word, word_fields},
    section::section,
};
use crate::config::{
    connection_log::{Facility, SyslogServer},
    findings::Findings,
    model::{AccessLog, LogFormat},
    words::Words,
};

section! {
    /// Where the lines go that access_log has for connections, and which of them. A frontend takes the keys that it does not set from [defaults.connection_log].
    ConnectionLog {
        /// "1/100": of the connections that ended as both sides wanted, log the first of every 100. Those that ended otherwise are always logged. Default: "1/1", each of them.
        sample: Sample,
        /// What goes to the journal, or to stderr: true (default), false, or "errors" for connections that ended otherwise than both sides wanted, where all of them have another place below.
        journal: AccessLog,
        /// File that lines are appended to, too; it is made if it is missing, for the user that Convey runs as (mode 0640). The package has the directory /var/log/convey for it, and logrotate rotates what is there. Whoever renames the file has the next one opened by SIGUSR1: `systemctl kill --kill-whom=main -s USR1 convey`. "" for none where [defaults] names one. Default: none.
        file: LogPath,
        /// Syslog server that lines are sent to, too: "udp://HOST[:PORT]" or "tcp://HOST[:PORT]" in the form of RFC 5424 (by TCP with octet counting), port 514 unless given; or "unix:/dev/log", the socket of this host. Connections that ended as both sides wanted have the severity info, others warning. "" for none where [defaults] names one. Default: none.
        syslog: SyslogTarget,
        /// Form of the lines in file and syslog: "text" (default), or "json" with every field by its name.
        format: LogFormat,
        /// Facility of messages to syslog: "daemon" (default), "user", "local0" to "local7".
        facility: Facility,
    }
}

/// `sample`.
#[derive(Debug, Clone, Copy)]
pub struct Sample(pub NonZeroU32);

/// `file`; `None` for `""`.
#[derive(Debug, Clone)]
pub struct LogPath(pub Option<PathBuf>);

/// `syslog`; `None` for `""`.
#[derive(Debug, Clone)]
pub struct SyslogTarget(pub Option<SyslogServer>);

word_fields!(Facility);

impl Field for Sample {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        const HELP: &str = "write \"1/100\" for the first of every 100, \"1/1\" for each";
        if let DeValue::Integer(number) = value.get_ref() {
            let help = format!("write \"1/{number}\"");
            return wrong_type(value, "a part such as \"1/100\"", Some(help), findings);
        }
        let text = string(value, "a part such as \"1/100\"", findings)?;
        let number = text
            .strip_prefix("1/")
            .filter(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()));
        if let Some(number) = number.and_then(|number| number.parse().ok()) {
            return Some(Self(number));
        }
        let message = format!("\"{text}\" is not a part of the connections");
        match text.strip_prefix("1:") {
            Some(rest) if rest.parse::<NonZeroU32>().is_ok() => {
                bad_value(value, message, format!("write \"1/{rest}\""), findings)
            }
            _ => bad_value(value, message, HELP, findings),
        }
    }
}
inline_schema!([] Sample, _g => json_schema!({ "type": "string", "minLength": 3 }));

impl Field for LogPath {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let text = string(value, "a path in quotes", findings)?;
        if text.is_empty() {
            return Some(Self(None));
        }
        if is_path(text) {
            return Some(Self(Some(PathBuf::from(text))));
        }
        bad_value(
            value,
            format!("\"{text}\" is not an absolute path of a file"),
            "write a path such as \"/var/log/convey/connections.log\", or \"\" for none",
            findings,
        )
    }
}
inline_schema!([] LogPath, _g => json_schema!({ "type": "string", "pattern": "^(/.*[^/])?$", "maxLength": MAX_PATH_BYTES }));

impl Field for SyslogTarget {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let text = string(value, "a syslog server in quotes", findings)?;
        if text.is_empty() {
            return Some(Self(None));
        }
        match text.parse() {
            Ok(server) => Some(Self(Some(server))),
            Err(why) => {
                let help = match text.starts_with('/') {
                    true => format!("write \"unix:{text}\""),
                    false => "write one such as \"udp://192.0.2.9:514\", \"tcp://logs.example.com\" or \"unix:/dev/log\"".to_owned(),
                };
                bad_value(
                    value,
                    format!("\"{text}\" is not a syslog server: {why}"),
                    help,
                    findings,
                )
            }
        }
    }
}
inline_schema!([] SyslogTarget, _g => json_schema!({ "type": "string" }));
