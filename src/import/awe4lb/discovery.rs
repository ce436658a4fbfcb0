//! `discover` of a match.

use std::time::Duration;

use crate::import::{At, Draft, SectionId, Value, fields::Fields, paths};

/// Translates it.
pub fn translate(name: &str, mut fields: Fields<'_>, draft: &mut Draft) {
    let section = draft.section(&["backends", name, "discovery"]);
    let at = At::In(section);
    fields.set_home(at);
    if let Some(http) = fields.table(draft, "http", at) {
        draft.set(section, &["kind"], "http");
        http_source(section, http, draft);
    } else if let Some(exec) = fields.table(draft, "exec", at) {
        draft.set(section, &["kind"], "exec");
        exec_source(section, exec, draft);
    } else if let Some(k8s) = fields.table(draft, "k8s", at) {
        draft.set(section, &["kind"], "kubernetes");
        kubernetes(section, k8s, draft);
    }
    let millis = |said: Option<(_, u64)>, usual, most: u64| {
        Value::duration(Duration::from_millis(
            said.map_or(usual, |(_, millis)| millis).clamp(1, most),
        ))
    };
    let interval = fields.number(draft, "intervalMs");
    let timeout = fields.number(draft, "timeoutMs");
    draft.set(section, &["interval"], millis(interval, 10_000, 86_400_000));
    draft.set(section, &["timeout"], millis(timeout, 9_900, 600_000));
    for (id, _) in interval.into_iter().chain(timeout) {
        draft.translated(id);
    }
    draft.comment(
        at,
        "An answer that would drop more than half of the servers at once, or all of them, is held: see min_servers and max_removal. awe4lb \
         obeys every answer.",
    );
    fields.finish(draft);
}

fn format(section: SectionId, fields: &mut Fields<'_>, draft: &mut Draft) {
    if let Some(format) = fields.text(draft, "format") {
        match format.text {
            "text" | "json" => {
                draft.set(section, &["format"], format.text);
                draft.translated(format.id);
            }
            _ => draft.no_equal(format.id, At::In(section), "format is \"text\" or \"json\""),
        }
    }
}

fn http_source(section: SectionId, mut fields: Fields<'_>, draft: &mut Draft) {
    if let Some(endpoint) = fields.text(draft, "endpoint") {
        draft.set(section, &["url"], endpoint.text);
        draft.translated(endpoint.id);
    }
    format(section, &mut fields, draft);
    fields.finish(draft);
}

fn exec_source(section: SectionId, mut fields: Fields<'_>, draft: &mut Draft) {
    let at = At::In(section);
    let mut words = Vec::new();
    if let Some(command) = fields.text(draft, "command") {
        let (program, is_moved) = paths::program(command.text);
        words.push(program);
        match is_moved {
            true => draft.differs(command.id, at, paths::MOVED),
            false => draft.differs(
                command.id,
                at,
                "it runs as Convey's user in its own directory, without capabilities: see COMMANDS in convey(8). Hosts are IP addresses",
            ),
        }
    }
    if let Some((id, args)) = fields.list(draft, "args") {
        words.extend(args.into_iter().map(str::to_owned));
        draft.translated(id);
    }
    if !words.is_empty() {
        draft.set(section, &["command"], words);
    }
    format(section, &mut fields, draft);
    fields.finish(draft);
}

fn kubernetes(section: SectionId, mut fields: Fields<'_>, draft: &mut Draft) {
    let at = At::In(section);
    if let Some(uri) = fields.text(draft, "apiUri") {
        draft.set(section, &["url"], uri.text.trim_end_matches('/'));
        draft.translated(uri.id);
        if uri.text.starts_with("https:") {
            draft.comment(
                at,
                "awe4lb believes any API server: tls = { ca = \"…\" } has it verified.",
            );
            draft.set(section, &["tls"], Value::table([("verify", false)]));
        }
    }
    if let Some(path) = fields.text(draft, "tokenPath") {
        draft.set(section, &["token"], format!("file:{}", path.text));
        draft.translated(path.id);
    }
    for key in ["namespace", "service"] {
        if let Some(scalar) = fields.text(draft, key) {
            draft.set(section, &[key], scalar.text);
            draft.translated(scalar.id);
        }
    }
    if let Some((id, port)) = fields.number(draft, "port") {
        draft.set(section, &["port"], port.clamp(1, u16::MAX.into()));
        draft.translated(id);
    }
    draft.set(section, &["via"], "node_port");
    draft.comment(at, "The nodes that its ready pods run on; awe4lb looks for pods with the label app = the service's name.");
    fields.finish(draft);
}
