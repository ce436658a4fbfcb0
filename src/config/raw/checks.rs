//! Sections that are about whether servers work.

use std::net::IpAddr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use toml::de::{DeTable, DeValue};

use super::{
    BackendTls, DAY, HOUR, Int, Time,
    commands::CommandLine,
    field::{Field, Key, Node, bad_value, inline_schema, string, wrong_type},
    fields::{bounded, word, word_fields},
    section::section,
};
use crate::{
    base::Protocol,
    config::{
        check_addr::{CheckAddr, NotACheckAddr},
        checks::{CheckKind, Expected, HttpMethod, MAX_PROBE_BYTES, ProbeBytes, ProbeRegex, StatusRange},
        findings::Findings,
        model::InitialState,
        words::Words as _,
    },
};

/// Longest name of a user.
const MAX_USER_BYTES: usize = 63;

/// Longest name of a query: what DNS has room for.
const MAX_QUERY_BYTES: usize = 253;

section! {
    /// Active checks of every server.
    HealthCheck {
        /// Whether servers are checked. Default: true.
        enabled: bool,
        /// What a server has to do. "tcp" (default): accept a connection, and shake hands where the backend or this section has `tls`, which holds for the kinds "http", "probe", "redis", "postgresql", "mysql" and "smtp" too. "tls": shake hands, with a certificate that is valid for `min_days_left` still. "http": answer a request of HTTP/1.1 with a `status`. "probe": answer `send` with `expect`. "exec": have a command exit with 0. "redis", "postgresql", "mysql", "smtp": speak that protocol. "dns", "ntp": answer a query by UDP.
        kind: CheckKind,
        /// Another port that is checked; `check_addr` of a server may name one too. Default: the server's.
        port: Int<1, 65_535>,
        /// Source address of the checks. Default: the backend's `source_addr`.
        source_addr: IpAddr,
        /// TLS of the checks, where the backend has no `tls` or another one: such as of servers whose TLS goes through to clients. Its server_name "client" expects no name.
        tls: BackendTls,
        /// Kind "tls": days for which the server's certificate has to be valid still; with fewer left the check fails. Default: 0, they are not counted; an expired one fails all the same unless verify = false.
        min_days_left: Int<0, 3_650>,
        /// Kind "probe": "tcp" (default) or "udp".
        protocol: Protocol,
        /// Kind "probe": what is sent, such as "PING\r\n" or { hex = "0d0a" }; at most 4096 bytes. Default: nothing.
        send: Given<ProbeBytes>,
        /// Kind "http": what is somewhere in the first 16384 bytes of the answer's body. Kind "exec": what the command prints begins with. Kind "probe": what the answer begins with, such as "+PONG" or { hex = "2b" }, or { regex = "^[+]PONG" }, which may be anywhere in its first 16384 bytes; by UDP the first datagram counts. Default: nothing need be answered; by UDP a server that is silent until the timeout passes, and fails if ICMP says that nothing listens there.
        expect: Given<Expected>,
        /// Kind "http": "GET" (default), "HEAD" or "OPTIONS".
        method: HttpMethod,
        /// Kind "http": the path that is asked for, with its query if it has one. Default: "/".
        path: RequestPath,
        /// Kind "http": the Host header, a name and a port where it needs one. Default: the server's address and port.
        host: HostHeader,
        /// Kind "http": the statuses that pass, such as 200 or "200-399", or a list of them. Default: "200-399". No redirection is followed.
        status: Statuses,
        /// Kind "exec": the program that is run for each server, and its arguments, such as ["/usr/local/bin/check", "$host", "$port"], in which `$host` and `$port` stand for the server's IP address and port; no shell reads the line. It runs as Convey's user, without capabilities: see COMMANDS in convey(8).
        command: Given<CommandLine>,
        /// Kind "postgresql": the user that is named; no password is needed, and where there is such a role the server's log stays quiet. Default: "convey".
        user: UserText,
        /// Kind "dns": a host name that the server must know. Default: none; any answer but a failure passes.
        name: QueryName,
        /// Time between two checks of a server. Default: "2s".
        interval: Time<false, DAY>,
        /// Time limit of one check. Default: "1s", or the interval if that is shorter.
        timeout: Time<false, HOUR>,
        /// Consecutive successes that bring a server up. Default: 2.
        rise: Int<1, 1000>,
        /// Consecutive failures that take a server down. Default: 3.
        fall: Int<1, 1000>,
        /// Interval while the state is changing. Default: "1s", or the interval if that is shorter.
        fast_interval: Time<false, DAY>,
        /// Begin each check with a PROXY header too, which says that the connection is Convey's own; needs send_proxy. Default: false.
        send_proxy: bool,
        /// Check an address once for all backends that want the same of it, at the shortest of their intervals; each counts rise and fall by itself. Both backends need the key. Default: false.
        share: bool,
        /// State before the first check: "up", "down", or "check" (default), which lets the first result decide.
        initial: InitialState,
    }
}

section! {
    /// Beside the checks an agent on each server is asked what the server should get, with the words of HAProxy's agent-check: a line of "up", "down", "failed", "stopped" (each with #REASON if wanted), "ready", "drain", "maint", "75%" (of the configured weight) or "maxconn:30", several with blanks between them. What it does not mention stays as it was, also when the agent cannot be reached; after a restart it is asked anew. What an operator sets with `convey server` goes before it.
    AgentCheck {
        /// The port at which the agent listens, at the address of the server or of its `check_addr`.
        port (required): Int<1, 65_535>,
        /// What the agent is told first, such as "web\n"; at most 4096 bytes. Default: nothing.
        send: Given<ProbeBytes>,
        /// Time between two questions. Default: "2s".
        interval: Time<false, DAY>,
        /// Time limit of one question. Default: "1s", or the interval if that is shorter.
        timeout: Time<false, HOUR>,
    }
}

section! {
    /// Passive checks: connects of clients that fail.
    PassiveCheck {
        /// Whether failed connects count. Default: true.
        enabled: bool,
        /// Consecutive failures that eject a server. Default: 3.
        max_failures: Int<1, 1000>,
        /// Duration of the first ejection; each further one is longer by as much. Default: "10s".
        ejection_time: Time<false, DAY>,
        /// Longest duration of an ejection. Default: "5m", or ejection_time if that is longer.
        max_ejection_time: Time<false, DAY>,
    }
}

/// A value that is there; `None` if it is wrong, which has been said.
#[derive(Debug, Clone)]
pub struct Given<T>(pub Option<T>);

impl<T: Field> Field for Given<T> {
    fn read(key: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        Some(Self(T::read(key, value, findings)))
    }
}
inline_schema!([T: Field] Given<T>, generator => generator.subschema_for::<T>());

/// The name of a user of a server.
#[derive(Debug, Clone)]
pub struct UserText(pub String);

/// What a request asks for.
#[derive(Debug, Clone)]
pub struct RequestPath(pub String);

/// A Host header.
#[derive(Debug, Clone)]
pub struct HostHeader(pub String);

/// Statuses of HTTP.
#[derive(Debug, Clone)]
pub struct Statuses(pub Vec<StatusRange>);

/// Longest path of a request, and most statuses.
const MAX_REQUEST_BYTES: usize = 2_048;
const MAX_STATUSES: usize = 32;

impl Field for RequestPath {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let text = string(value, "a path in quotes, such as \"/health\"", findings)?;
        let is_plain = text.len() <= MAX_REQUEST_BYTES && text.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_plain || !text.starts_with('/') || text.contains('#') {
            return bad_value(
                value,
                "not a path of a request".to_owned(),
                "write one such as \"/health?full=1\", with %20 for a space",
                findings,
            );
        }
        Some(Self(text.to_owned()))
    }
}
inline_schema!([] RequestPath, _g => json_schema!({ "type": "string", "minLength": 1, "maxLength": MAX_REQUEST_BYTES }));

impl Field for CheckAddr {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let text = string(
            value,
            "an address in quotes, such as \"10.9.0.11:8080\"",
            findings,
        )?;
        match text.parse() {
            Ok(addr) => Some(addr),
            Err(why) => bad_value(
                value,
                format!("\"{text}\" is {why}"),
                match why {
                    NotACheckAddr::NoHost => {
                        "write one such as \"10.9.0.11\", \"10.9.0.11:8080\" or \"[2001:db8::11]:8080\""
                    }
                    NotACheckAddr::LinkLocal => "write another address of that host, such as \"fd00::11\"",
                },
                findings,
            ),
        }
    }
}
inline_schema!([] CheckAddr, _g => json_schema!({ "type": "string", "minLength": 2, "maxLength": 47 }));

impl Field for HostHeader {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let text = string(value, "a host in quotes, such as \"www.example.com\"", findings)?;
        let is_known = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
        if text.is_empty() || text.len() > MAX_QUERY_BYTES || !text.bytes().all(is_known) {
            return bad_value(
                value,
                "not a Host header".to_owned(),
                "write a name, and a port where it needs one: \"www.example.com:8080\"",
                findings,
            );
        }
        Some(Self(text.to_owned()))
    }
}
inline_schema!([] HostHeader, _g => json_schema!({ "type": "string", "minLength": 1, "maxLength": MAX_QUERY_BYTES }));

fn statuses(value: &Node<'_>, findings: &mut Findings) -> Option<StatusRange> {
    let help = "write one such as 200, or a range such as \"200-399\"";
    match value.get_ref() {
        DeValue::Integer(_) => {
            let status = bounded(value, 100, 599, "a status of HTTP", findings)?;
            let status = u16::try_from(status).ok()?;
            StatusRange::new(status, status)
        }
        DeValue::String(text) => match text.parse() {
            Ok(range) => Some(range),
            Err(()) => bad_value(
                value,
                format!("\"{text}\" is not a status of HTTP, nor a range of them"),
                help,
                findings,
            ),
        },
        _ => wrong_type(
            value,
            "a status of HTTP, a range, or a list of them",
            Some(help.to_owned()),
            findings,
        ),
    }
}

impl Field for Statuses {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let DeValue::Array(list) = value.get_ref() else {
            return statuses(value, findings).map(|range| Self(vec![range]));
        };
        if !(1..=MAX_STATUSES).contains(&list.iter().count()) {
            let message = format!("`{}` has 1 to {MAX_STATUSES} statuses or ranges", findings.key());
            return bad_value(
                value,
                message,
                "write at least one, or leave the key out",
                findings,
            );
        }
        Some(Self(
            list.iter().filter_map(|item| statuses(item, findings)).collect(),
        ))
    }
}
inline_schema!([] Statuses, _g => json_schema!({
    "anyOf": [
        { "type": "integer", "minimum": 100, "maximum": 599 },
        { "type": "string", "minLength": 3, "maxLength": 7 },
        { "type": "array", "minItems": 1, "maxItems": MAX_STATUSES, "items": {
            "anyOf": [{ "type": "integer", "minimum": 100, "maximum": 599 }, { "type": "string", "minLength": 3, "maxLength": 7 }]
        } },
    ]
}));

/// A name that a server is asked for.
#[derive(Debug, Clone)]
pub struct QueryName(pub String);

impl Field for ProbeBytes {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        match value.get_ref() {
            DeValue::String(text) => probe_text(text, value, findings),
            DeValue::Table(table) => match only(table) {
                Some(("hex", value)) => hex(value, findings),
                _ => not_bytes(value, "{ hex = \"0d0a\" }", findings),
            },
            _ => wrong_type(value, "a string, or { hex = \"…\" }", None, findings),
        }
    }
}
inline_schema!([] ProbeBytes, _g => json_schema!({
    "anyOf": [{ "type": "string", "minLength": 1, "maxLength": MAX_PROBE_BYTES }, one_key("hex")]
}));

impl Field for Expected {
    fn read(key: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        match value.get_ref() {
            DeValue::String(_) => ProbeBytes::read(key, value, findings).map(Self::Begins),
            DeValue::Table(table) => match only(table) {
                Some(("hex", value)) => hex(value, findings).map(Self::Begins),
                Some(("regex", value)) => regex(value, findings).map(Self::Matches),
                _ => not_bytes(value, "{ hex = \"0d0a\" } or { regex = \"…\" }", findings),
            },
            _ => wrong_type(
                value,
                "a string, { hex = \"…\" } or { regex = \"…\" }",
                None,
                findings,
            ),
        }
    }
}
inline_schema!([] Expected, _g => json_schema!({
    "anyOf": [{ "type": "string", "minLength": 1, "maxLength": MAX_PROBE_BYTES }, one_key("hex"), one_key("regex")]
}));

fn one_key(key: &str) -> serde_json::Value {
    serde_json::json!({
        "type": "object", "properties": { key: { "type": "string", "minLength": 1 } }, "required": [key], "additionalProperties": false
    })
}

fn only<'a>(table: &'a DeTable<'a>) -> Option<(&'a str, &'a Node<'a>)> {
    let mut keys = table.iter();
    let (key, value) = keys.next()?;
    keys.next().is_none().then_some((key.get_ref().as_ref(), value))
}

fn not_bytes<T>(value: &Node<'_>, form: &str, findings: &mut Findings) -> Option<T> {
    let message = format!("`{}` has other keys than one of these", findings.key());
    bad_value(value, message, format!("write a string, or {form}"), findings)
}

fn probe_text(text: &str, value: &Node<'_>, findings: &mut Findings) -> Option<ProbeBytes> {
    let escape = ["\\r", "\\n", "\\x", "\\0", "\\t"]
        .into_iter()
        .find(|escape| text.contains(escape));
    if let Some(escape) = escape {
        findings.warn(
            value.span(),
            format!(
                "`{}` has a backslash: {escape} is not read as an escape here",
                findings.key()
            ),
            "in double quotes \"\\r\\n\" ends a line; other bytes are written { hex = \"00ff\" }".to_owned(),
        );
    }
    fits(ProbeBytes::Text(text.to_owned()), value, findings)
}

fn hex(value: &Node<'_>, findings: &mut Findings) -> Option<ProbeBytes> {
    findings.within("hex", |findings| {
        let text = string(value, "a string of hexadecimal digits", findings)?;
        match ProbeBytes::from_hex(text) {
            Some(bytes) => fits(bytes, value, findings),
            None => bad_value(
                value,
                "these are not pairs of hexadecimal digits".to_owned(),
                "write two digits a byte, such as \"0d0a\" or \"0d 0a\"",
                findings,
            ),
        }
    })
}

fn fits(bytes: ProbeBytes, value: &Node<'_>, findings: &mut Findings) -> Option<ProbeBytes> {
    match bytes.bytes().len() {
        1..=MAX_PROBE_BYTES => Some(bytes),
        0 => bad_value(
            value,
            format!("`{}` is empty", findings.key()),
            "write at least one byte, or leave the key out",
            findings,
        ),
        _ => bad_value(
            value,
            format!("`{}` is longer than {MAX_PROBE_BYTES} bytes", findings.key()),
            "a check says and wants to hear something short",
            findings,
        ),
    }
}

fn regex(value: &Node<'_>, findings: &mut Findings) -> Option<ProbeRegex> {
    findings.within("regex", |findings| {
        let pattern = string(value, "a pattern in quotes", findings)?;
        if pattern.is_empty() || pattern.len() > MAX_PROBE_BYTES {
            return bad_value(
                value,
                format!("a pattern has 1 to {MAX_PROBE_BYTES} bytes"),
                "write what the answer must contain, such as '^220 '",
                findings,
            );
        }
        match ProbeRegex::new(pattern) {
            Ok(regex) => Some(regex),
            Err(why) => bad_value(
                value,
                format!("not a regular expression: {why}"),
                "write it in single quotes, in which a backslash stays one: '^\\d+ OK'",
                findings,
            ),
        }
    })
}

impl Field for UserText {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let text = string(value, "the name of a user, in quotes", findings)?;
        if text.is_empty() || text.len() > MAX_USER_BYTES || text.chars().any(char::is_control) {
            let help = format!("write 1 to {MAX_USER_BYTES} printable bytes, such as \"convey\"");
            return bad_value(value, "not the name of a user".to_owned(), help, findings);
        }
        Some(Self(text.to_owned()))
    }
}
inline_schema!([] UserText, _g => json_schema!({ "type": "string", "minLength": 1, "maxLength": MAX_USER_BYTES }));

impl Field for QueryName {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let text = string(value, "a host name in quotes", findings)?;
        let name = text.strip_suffix('.').unwrap_or(text);
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
        };
        if name.len() > MAX_QUERY_BYTES || !name.split('.').all(is_label) {
            return bad_value(
                value,
                format!("\"{text}\" is not a host name"),
                "write a name that the servers know, such as \"www.example.com\"",
                findings,
            );
        }
        Some(Self(name.to_owned()))
    }
}
inline_schema!([] QueryName, _g => json_schema!({ "type": "string", "minLength": 1, "maxLength": MAX_QUERY_BYTES + 1 }));

word_fields!(CheckKind, HttpMethod);
