//! What is about the process: its log, API, metrics, profiler and certificates.

use std::net::SocketAddr;

use super::super::{
    At, Draft, Value,
    fields::{Fields, Scalar},
};

/// Translates those sections.
pub fn translate(root: &mut Fields<'_>, draft: &mut Draft) {
    if let Some(fields) = root.table(draft, "logging", At::Top) {
        logging(fields, draft);
    }
    if let Some(fields) = root.table(draft, "api", At::Top) {
        api(fields, draft);
    }
    if let Some(fields) = root.table(draft, "metrics", At::Top) {
        metrics(fields, draft);
    }
    if let Some(mut fields) = root.table(draft, "profiler", At::Top) {
        let enabled = fields.flag(draft, "enabled");
        let bind = fields.text(draft, "bind");
        match enabled {
            Some((id, true)) => {
                draft.no_equal(
                    id,
                    At::Top,
                    "Convey has no profiler: perf and `convey support` look into a running one",
                );
            }
            Some((id, false)) => draft.translated(id),
            None => {}
        }
        bind.into_iter().for_each(|bind| draft.translated(bind.id));
        fields.finish(draft);
    }
    if let Some(fields) = root.table(draft, "acme", At::Top) {
        acme(fields, draft);
    }
}

fn logging(mut fields: Fields<'_>, draft: &mut Draft) {
    let section = draft.section(&["global"]);
    let at = At::In(section);
    fields.set_home(at);
    if let Some(level) = fields.text(draft, "level") {
        match level.text {
            "debug" | "info" | "warn" | "error" => {
                draft.set(section, &["log_level"], level.text);
                draft.translated(level.id);
            }
            _ => draft.no_equal(
                level.id,
                at,
                "log_level is \"error\", \"warn\", \"info\", \"debug\" or \"trace\"",
            ),
        }
    }
    if let Some(format) = fields.text(draft, "format") {
        match format.text {
            "text" | "json" => {
                draft.set(section, &["log_format"], format.text);
                draft.translated(format.id);
            }
            _ => draft.no_equal(format.id, at, "log_format is \"text\" or \"json\""),
        }
    }
    if let Some(output) = fields.text(draft, "output") {
        let text =
            "Convey logs to stderr, under systemd to the journal; connection_log of a frontend writes files";
        match output.text {
            "stderr" => draft.translated(output.id),
            _ => draft.differs(output.id, at, text),
        }
    }
    fields.finish(draft);
}

/// A place to listen on as Go has it, where an empty host is all addresses.
fn place(text: &str) -> Option<SocketAddr> {
    match text.strip_prefix(':') {
        Some(port) => format!("0.0.0.0:{port}").parse().ok(),
        None => text.replace("localhost:", "127.0.0.1:").parse().ok(),
    }
}

fn api(mut fields: Fields<'_>, draft: &mut Draft) {
    let enabled = fields.flag(draft, "enabled");
    let is_on = enabled.is_some_and(|(_, enabled)| enabled);
    let section = draft.section(&["admin"]);
    let at = if is_on { At::In(section) } else { At::Top };
    fields.set_home(at);
    enabled.into_iter().for_each(|(id, _)| draft.translated(id));
    let bind = fields.text(draft, "bind");
    let auth = fields.table(draft, "basic_auth", at);
    let tls = fields.table(draft, "tls", at);
    let cors = fields.flag(draft, "cors");
    let (login, password) = match auth {
        Some(mut auth) => {
            let read = (auth.text(draft, "login"), auth.text(draft, "password"));
            auth.finish(draft);
            read
        }
        None => (None, None),
    };
    let paths = tls.map(|mut tls| {
        let read = (tls.text(draft, "cert_path"), tls.text(draft, "key_path"));
        tls.finish(draft);
        read
    });
    let all = [
        bind,
        login,
        password,
        paths.and_then(|(cert, _)| cert),
        paths.and_then(|(_, key)| key),
    ];
    if !is_on {
        // nothing of it is in effect there either
        all.into_iter()
            .flatten()
            .for_each(|scalar| draft.translated(scalar.id));
        cors.into_iter().for_each(|(id, _)| draft.translated(id));
        fields.finish(draft);
        return;
    }
    match bind.map(|bind| (bind, place(bind.text))) {
        Some((bind, Some(addr))) if addr.ip().is_loopback() => {
            draft.set(section, &["listen_addr"], addr.to_string());
            draft.differs(bind.id, at, "Convey's API is another one: GET /v1/openapi.json describes it. There everybody may read");
        }
        Some((bind, _)) => draft.no_equal(
            bind.id,
            at,
            "off loopback Convey's API needs a certificate and tokens, [admin] tls and tokens_file; on this host its socket \
             /run/convey/admin.sock serves `convey` and curl --unix-socket",
        ),
        None => {}
    }
    let tokens = "Convey's API knows tokens: `convey token NAME --role configure` prints one for tokens_file";
    if let Some(login) = login {
        draft.no_equal(login.id, at, tokens);
    }
    if let Some(password) = password {
        draft.no_equal(password.id, at, tokens);
    }
    if let Some((Some(cert), Some(key))) = paths {
        draft.set(
            section,
            &["tls"],
            Value::table([("cert", cert.text), ("key", key.text)]),
        );
        draft.translated(cert.id);
        draft.translated(key.id);
    }
    match cors {
        Some((id, true)) => draft.no_equal(
            id,
            at,
            "allowed_origins names the pages that may use the API from a browser",
        ),
        Some((id, false)) => draft.translated(id),
        None => {}
    }
    fields.finish(draft);
}

fn metrics(mut fields: Fields<'_>, draft: &mut Draft) {
    let enabled = fields.flag(draft, "enabled");
    let bind = fields.text(draft, "bind");
    enabled.into_iter().for_each(|(id, _)| draft.translated(id));
    if enabled.is_some_and(|(_, enabled)| enabled) {
        let section = draft.section(&["stats"]);
        let at = At::In(section);
        let addr = bind.map_or("0.0.0.0:9284", |bind| bind.text);
        match place(addr) {
            Some(addr) if addr.port() > 0 => {
                draft.set(section, &["port"], addr.port());
                draft.set(section, &["listen_addr"], addr.ip().to_string());
                let text =
                    "GET /metrics there has Convey's own names of metrics: dashboards and alerts need others";
                bind.into_iter().for_each(|bind| draft.differs(bind.id, at, text));
            }
            _ => bind.into_iter().for_each(|bind| {
                draft.no_equal(
                    bind.id,
                    At::Top,
                    "an address and a port are needed: [stats] listen_addr and port",
                );
            }),
        }
    } else {
        bind.into_iter().for_each(|bind| draft.translated(bind.id));
    }
    fields.finish(draft);
}

fn acme(mut fields: Fields<'_>, draft: &mut Draft) {
    let section = draft.section(&["acme"]);
    let at = At::In(section);
    fields.set_home(at);
    draft.set(section, &["directory"], "letsencrypt");
    let challenge: Option<Scalar<'_>> = fields.text(draft, "challenge");
    draft.set(section, &["challenge"], "http-01");
    if let Some(challenge) = challenge {
        match challenge.text {
            "http" => draft.translated(challenge.id),
            _ => draft.differs(
                challenge.id,
                at,
                "gobetween knows \"http\" alone; \"tls-alpn-01\" needs no port 80, \"dns-01\" a dns_hook",
            ),
        }
    }
    let bind = fields.text(draft, "http_bind");
    let addr = bind.map_or("0.0.0.0:80", |bind| bind.text);
    match place(addr) {
        Some(addr) => {
            draft.set(section, &["http_listen_addr"], addr.to_string());
            bind.into_iter().for_each(|bind| draft.translated(bind.id));
        }
        None => bind
            .into_iter()
            .for_each(|bind| draft.no_equal(bind.id, at, "http_listen_addr is IP:port")),
    }
    if let Some(cache) = fields.text(draft, "cache_dir") {
        draft.differs(
            cache.id,
            at,
            "certificates and account are kept in state_dir, and are ordered anew",
        );
    }
    fields.finish(draft);
}
