//! `[servers.NAME.healthcheck]`.

use std::time::Duration;

use super::{go, model::Server};
use crate::import::{
    At, Draft, SectionId, Value,
    fields::{Fields, Scalar},
    paths,
};

/// Translates the checks of a server.
pub fn translate(fields: Option<Fields<'_>>, server: &Server, draft: &mut Draft) {
    let section = draft.section(&["backends", &server.backend_name, "health_check"]);
    let Some(mut fields) = fields else {
        draft.comment(At::In(section), "gobetween checks only what it is told to. Without this line Convey connects to each server every 2s.");
        draft.set(section, &["enabled"], false);
        return;
    };
    let at = At::In(section);
    fields.set_home(at);
    let kind = fields.text(draft, "kind");
    match kind.map(|kind| kind.text) {
        Some("ping") => {
            draft.set(section, &["kind"], "tcp");
            if server.is_udp {
                kind.into_iter().for_each(|kind| {
                    draft.differs(
                        kind.id,
                        at,
                        "gobetween refuses it for UDP: the servers must accept TCP on that port, too",
                    );
                });
                draft.set(section, &["enabled"], true);
            }
        }
        Some("probe") => {
            draft.set(section, &["kind"], "probe");
            probe(section, &mut fields, draft);
        }
        Some("exec") => {
            draft.set(section, &["kind"], "exec");
            exec(section, &mut fields, draft);
        }
        None | Some("none") => {
            draft.set(section, &["enabled"], false);
            kind.into_iter().for_each(|kind| draft.translated(kind.id));
            for key in ["interval", "timeout", "passes", "fails", "initial_status"] {
                fields
                    .scalar(draft, key)
                    .into_iter()
                    .for_each(|scalar| draft.translated(scalar.id));
            }
            fields.finish(draft);
            return;
        }
        Some(_) => {
            kind.into_iter().for_each(|kind| {
                draft.no_equal(
                    kind.id,
                    at,
                    "gobetween 0.8 has \"none\", \"ping\", \"probe\" and \"exec\"; a connect takes its place",
                );
            });
        }
    }
    kind.into_iter().for_each(|kind| draft.translated(kind.id));
    times(section, &mut fields, draft);
    fields.finish(draft);
}

fn times(section: SectionId, fields: &mut Fields<'_>, draft: &mut Draft) {
    let at = At::In(section);
    let interval = fields.parsed(draft, "interval", "a time such as \"2s\"", go::duration);
    let every = interval.map_or(Duration::ZERO, |(_, time)| time);
    let every = if every.is_zero() {
        Duration::from_secs(2)
    } else {
        every
    };
    let every = every.min(Duration::from_secs(86_400));
    if let Some((id, time)) = interval {
        match time.is_zero() {
            false => draft.translated(id),
            true => draft.no_equal(id, at, "gobetween refuses 0; the interval became 2s"),
        }
    }
    let timeout = fields.parsed(draft, "timeout", "a time such as \"1s\"", go::duration);
    let limit = timeout
        .map(|(_, time)| time)
        .filter(|time| !time.is_zero())
        .unwrap_or(every);
    if let Some((id, time)) = timeout {
        match time.is_zero() {
            false => draft.translated(id),
            true => draft.differs(id, at, "a check always has a limit: the interval"),
        }
    }
    draft.set(section, &["interval"], Value::duration(every));
    draft.set(
        section,
        &["timeout"],
        Value::duration(limit.min(Duration::from_secs(3_600))),
    );
    for (key, name) in [("passes", "rise"), ("fails", "fall")] {
        let number = fields.number(draft, key);
        let count = number.map_or(1, |(_, number)| number).clamp(1, 1_000);
        draft.set(section, &[name], count);
        number.into_iter().for_each(|(id, _)| draft.translated(id));
    }
    draft.set(section, &["fast_interval"], Value::duration(every));
    let status = fields.text(draft, "initial_status");
    let initial = match status.map(|status| status.text) {
        Some("unhealthy") => "down",
        _ => "up",
    };
    draft.set(section, &["initial"], initial);
    if let Some(status) = status {
        match status.text {
            "healthy" | "unhealthy" => draft.translated(status.id),
            _ => draft.no_equal(status.id, at, "gobetween knows \"healthy\" and \"unhealthy\""),
        }
    }
}

fn probe(section: SectionId, fields: &mut Fields<'_>, draft: &mut Draft) {
    let at = At::In(section);
    if let Some(protocol) = fields.text(draft, "probe_protocol") {
        match protocol.text {
            "tcp" | "udp" => {
                draft.set(section, &["protocol"], protocol.text);
                draft.translated(protocol.id);
            }
            "tls" => {
                draft.set(section, &["tls"], Value::table([("verify", false)]));
                draft.differs(
                    protocol.id,
                    at,
                    "certificates of checked servers are not verified, as long as tls.verify is false",
                );
            }
            _ => draft.no_equal(
                protocol.id,
                at,
                "protocol is \"tcp\" or \"udp\"; tls = { … } shakes hands first",
            ),
        }
    }
    let strategy = fields.text(draft, "probe_strategy");
    let is_regex = strategy.is_some_and(|strategy| strategy.text == "regexp");
    if let Some(strategy) = strategy {
        match strategy.text {
            "starts_with" | "regexp" => draft.translated(strategy.id),
            _ => draft.no_equal(strategy.id, at, "gobetween knows \"starts_with\" and \"regexp\""),
        }
    }
    if let Some(send) = fields.scalar(draft, "probe_send") {
        bytes(section, "send", send, draft);
    }
    match fields.scalar(draft, "probe_recv") {
        Some(recv) if is_regex && regex::Regex::new(recv.text).is_ok() && !recv.text.is_empty() => {
            draft.set(section, &["expect"], Value::table([("regex", recv.text)]));
            draft.translated(recv.id);
        }
        Some(recv) if is_regex => draft.no_equal(
            recv.id,
            at,
            "this expression is none here: look-around and back-references are not known",
        ),
        Some(recv) => bytes(section, "expect", recv, draft),
        None => {}
    }
    if let Some((id, _)) = fields.number(draft, "probe_recv_len") {
        draft.differs(
            id,
            at,
            "the expression is looked for in the first 16384 bytes of the answer, as they come",
        );
    }
}

/// A text with Go's escapes.
fn bytes(section: SectionId, key: &str, scalar: Scalar<'_>, draft: &mut Draft) {
    let at = At::In(section);
    let value = go::unquoted(scalar.text).filter(|bytes| (1..=4_096).contains(&bytes.len()));
    let Some(bytes) = value else {
        draft.no_equal(
            scalar.id,
            at,
            "1 to 4096 bytes are needed, and a backslash begins an escape of Go",
        );
        return;
    };
    let text = String::from_utf8(bytes).map_err(std::string::FromUtf8Error::into_bytes);
    // a backslash that stays would be warned of
    let value = match text {
        Ok(text) if !text.contains('\\') => Value::Text(text),
        Ok(text) => hex(text.as_bytes()),
        Err(bytes) => hex(&bytes),
    };
    draft.set(section, &[key], value);
    draft.translated(scalar.id);
}

fn hex(bytes: &[u8]) -> Value {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Value::table([("hex", digits)])
}

fn exec(section: SectionId, fields: &mut Fields<'_>, draft: &mut Draft) {
    let at = At::In(section);
    let command = fields.text(draft, "exec_command");
    if let Some(command) = command {
        let (program, is_moved) = paths::program(command.text);
        draft.set(section, &["command"], vec![program.as_str(), "$host", "$port"]);
        match is_moved {
            true => draft.differs(command.id, at, paths::MOVED),
            false => draft.differs(
                command.id,
                at,
                "it runs as Convey's user, without capabilities, and has to exit with 0 besides: see COMMANDS in convey(8)",
            ),
        }
    }
    if let Some(positive) = fields.text(draft, "exec_expected_positive_output") {
        draft.set(section, &["expect"], positive.text);
        draft.differs(positive.id, at, "what the command prints has to begin with it");
    }
    if let Some(negative) = fields.text(draft, "exec_expected_negative_output") {
        draft.translated(negative.id);
    }
}
