//! TLS that ends at a server.

use super::{parse::Directive, scope::Scope, time};
use crate::import::{At, Draft, NoteKind, SectionId, Value, names};

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
        .text("ssl_client_certificate", draft)
        .or_else(|| scope.text("ssl_trusted_certificate", draft));
    if let Some(auth) = auth {
        draft.set(out, &["client_auth"], auth);
        if let Some(ca) = ca {
            draft.set(out, &["client_ca"], ca);
        }
        if let Some(crl) = scope.text("ssl_crl", draft) {
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

fn certificates(scope: &Scope<'_>, out: SectionId, draft: &mut Draft) {
    let keys = scope.all("ssl_certificate_key");
    let mut pairs: Vec<Value> = Vec::new();
    for (index, certificate) in scope.all("ssl_certificate").into_iter().enumerate() {
        let key: Option<&&Directive> = keys.get(index);
        let is_fixed =
            |directive: &Directive| !directive.arg(0).contains('$') && !directive.arg(0).starts_with("data:");
        draft.translated(certificate.id);
        if let Some(key) = key {
            draft.translated(key.id);
        }
        if !is_fixed(certificate) || key.is_some_and(|key| !is_fixed(key)) {
            draft.no_equal(
                certificate.id,
                At::In(out),
                "name the files, or their directory in certificate_dir",
            );
            continue;
        }
        let mut pair = vec![("cert", Value::from(certificate.arg(0)))];
        match key {
            Some(key) if key.arg(0) != certificate.arg(0) => pair.push(("key", key.arg(0).into())),
            _ => {}
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
