//! TLS that ends at a server.

use super::{parse::Directive, scope::Scope, time};
use crate::import::{At, Draft, NoteKind, SectionId, Value, names, paths};

/// Writes the section `tls` of a frontend.
pub fn write(scope: &Scope<'_>, out: SectionId, draft: &mut Draft) {
    certificates(scope, out, draft);
    versions(scope, out, draft);
    lists(scope, out, draft);
    let at = At::In(out);
    if let Some(alpn) = scope.take("ssl_alpn", draft) {
        draft.set(out, &["alpn"], alpn.args.clone());
    }
    let verify = scope.take("ssl_verify_client", draft);
    let auth = match verify.map(|verify| verify.arg(0)) {
        Some("on") => Some("required"),
        Some("optional") => Some("optional"),
        Some("optional_no_ca") => {
            if let Some(verify) = verify {
                draft.no_equal(
                    verify.id,
                    at,
                    "a certificate of a client is believed only if a CA has signed it",
                );
            }
            None
        }
        _ => None,
    };
    let ca = scope
        .take("ssl_client_certificate", draft)
        .or_else(|| scope.take("ssl_trusted_certificate", draft));
    if let Some(auth) = auth {
        draft.set(out, &["client_auth"], auth);
        if let Some(ca) = ca.and_then(|ca| file(ca, out, draft)) {
            draft.set(out, &["client_ca"], ca);
        }
        if let Some(crl) = (scope.take("ssl_crl", draft)).and_then(|crl| file(crl, out, draft)) {
            draft.set(out, &["client_crl"], crl);
        }
    }
    if scope.text("ssl_session_tickets", draft) == Some("off") {
        draft.set(out, &["tickets"], false);
    }
    if let Some(time) = scope.text("ssl_handshake_timeout", draft).and_then(time::parse) {
        draft.set(out, &["handshake_timeout"], Value::duration(time));
    }
    // how sessions are kept, and which side's order of ciphers counts
    for name in [
        "ssl_session_cache",
        "ssl_session_timeout",
        "ssl_prefer_server_ciphers",
        "ssl_dhparam",
        "ssl_verify_depth",
        "ssl_preread",
    ] {
        scope.take(name, draft);
    }
}

/// The path of a file that a directive names, as Convey has it; `None`, with a note, if it names none.
pub fn file(directive: &Directive, out: SectionId, draft: &mut Draft) -> Option<String> {
    let text = directive.arg(0);
    let is_file = !text.contains('$')
        && !["data:", "engine:", "store:"]
            .iter()
            .any(|kind| text.starts_with(kind));
    if !is_file {
        let text = "name the files, or their directory in certificate_dir";
        draft.no_equal(directive.id, At::In(out), text);
        return None;
    }
    let (path, is_moved) = paths::file(text);
    if is_moved {
        draft.differs(directive.id, At::In(out), paths::MOVED);
    }
    Some(path)
}

fn certificates(scope: &Scope<'_>, out: SectionId, draft: &mut Draft) {
    let keys = scope.all("ssl_certificate_key");
    let mut pairs: Vec<Value> = Vec::new();
    for (index, certificate) in scope.all("ssl_certificate").into_iter().enumerate() {
        let key: Option<&&Directive> = keys.get(index);
        draft.translated(certificate.id);
        if let Some(key) = key {
            draft.translated(key.id);
        }
        let Some(cert) = file(certificate, out, draft) else {
            continue;
        };
        let mut pair = vec![("cert", Value::from(cert.as_str()))];
        match key.map(|key| file(key, out, draft)) {
            Some(Some(key)) if key != cert => pair.push(("key", key.into())),
            // a certificate without its key is of no use
            Some(None) => continue,
            Some(Some(_)) | None => {}
        }
        pairs.push(Value::table(pair));
    }
    if !pairs.is_empty() {
        draft.set(out, &["certificates"], pairs);
    }
}

fn versions(scope: &Scope<'_>, out: SectionId, draft: &mut Draft) {
    let Some(protocols) = scope.take("ssl_protocols", draft) else {
        return;
    };
    let has = |version: &str| protocols.args.iter().any(|arg| arg == version);
    let old: Vec<&str> = protocols
        .args
        .iter()
        .map(String::as_str)
        .filter(|arg| !["TLSv1.2", "TLSv1.3"].contains(arg))
        .collect();
    if !old.is_empty() {
        let part = format!("ssl_protocols {}", old.join(" "));
        draft.note(
            protocols.id,
            At::In(out),
            &part,
            NoteKind::Differs,
            "Convey speaks TLS 1.2 and 1.3 only",
        );
    }
    match (has("TLSv1.2"), has("TLSv1.3")) {
        (true, false) => draft.set(out, &["max_version"], "1.2"),
        (false, true) => draft.set(out, &["min_version"], "1.3"),
        (true, true) | (false, false) => {}
    }
}

fn lists(scope: &Scope<'_>, out: SectionId, draft: &mut Draft) {
    if let Some(ciphers) = scope.take("ssl_ciphers", draft) {
        let names::Sorted { known, unknown } = names::ciphers(ciphers.arg(0));
        if !unknown.is_empty() {
            let part = format!("ssl_ciphers {}", unknown.join(":"));
            let text = match known.is_empty() {
                true => "Convey has none of these: its own choice of suites holds",
                false => "Convey does not have these: the others hold",
            };
            draft.note(ciphers.id, At::In(out), &part, NoteKind::Differs, text);
        }
        if let Some(suites) = names::suites(&[], &known) {
            draft.set(out, &["ciphers"], suites);
        }
    }
    let Some(curves) = scope
        .take("ssl_ecdh_curve", draft)
        .filter(|curves| curves.arg(0) != "auto")
    else {
        return;
    };
    let names::Sorted { known, unknown } = names::groups(curves.arg(0));
    if !unknown.is_empty() {
        let part = format!("ssl_ecdh_curve {}", unknown.join(":"));
        draft.note(
            curves.id,
            At::In(out),
            &part,
            NoteKind::Differs,
            "Convey does not have these groups",
        );
    }
    if !known.is_empty() {
        draft.set(out, &["groups"], known);
    }
}
