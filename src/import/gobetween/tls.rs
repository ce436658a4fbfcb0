//! TLS that ends at a server, and TLS to its backends.

use crate::{
    config::CipherSuite,
    import::{
        At, Draft, SectionId, Value,
        fields::{Fields, Scalar},
        paths,
    },
};

/// `[servers.NAME.tls]`.
pub fn frontend(name: &str, mut fields: Fields<'_>, is_used: bool, has_acme: bool, draft: &mut Draft) {
    if !is_used {
        // gobetween wants it for protocol = "tls" alone, and ends TLS wherever it is
        draft.comment(
            fields.home(),
            "gobetween ends TLS wherever a server has this section, whatever its protocol.",
        );
    }
    let section = draft.section(&["frontends", name, "tls"]);
    let at = At::In(section);
    fields.set_home(at);
    let cert = fields.text(draft, "cert_path");
    let key = fields.text(draft, "key_path");
    let hosts = fields
        .list(draft, "acme_hosts")
        .filter(|(_, hosts)| !hosts.is_empty());
    if let (Some(cert), Some(key)) = (cert, key) {
        let pair = [("cert", path(cert, at, draft)), ("key", path(key, at, draft))];
        draft.set(section, &["certificates"], Value::List(vec![Value::table(pair)]));
    } else {
        for scalar in cert.into_iter().chain(key) {
            draft.no_equal(scalar.id, at, "a certificate and its key belong together");
        }
    }
    if let Some((id, hosts)) = hosts {
        draft.set(section, &["acme", "names"], hosts);
        match has_acme {
            true => draft.translated(id),
            false => draft.no_equal(
                id,
                at,
                "there is no [acme] here, without which gobetween orders nothing either",
            ),
        }
    }
    common(section, &mut fields, true, draft);
    fields.finish(draft);
}

/// `[servers.NAME.backends_tls]`.
pub fn backend(name: &str, mut fields: Fields<'_>, draft: &mut Draft) {
    let section = draft.section(&["backends", name, "tls"]);
    let at = At::In(section);
    fields.set_home(at);
    let ignore = fields.flag(draft, "ignore_verify");
    draft.set(section, &["verify"], !ignore.is_some_and(|(_, ignore)| ignore));
    ignore.into_iter().for_each(|(id, _)| draft.translated(id));
    for (key, name) in [
        ("root_ca_cert_path", "ca"),
        ("cert_path", "cert"),
        ("key_path", "key"),
    ] {
        if let Some(file) = fields.text(draft, key) {
            let file = path(file, at, draft);
            draft.set(section, &[name], file);
        }
    }
    common(section, &mut fields, false, draft);
    fields.finish(draft);
}

/// The path of a file, absolute.
fn path(scalar: Scalar<'_>, at: At, draft: &mut Draft) -> String {
    let (path, is_moved) = paths::file(scalar.text);
    match is_moved {
        true => draft.differs(scalar.id, at, paths::MOVED),
        false => draft.translated(scalar.id),
    }
    path
}

/// What both have.
fn common(section: SectionId, fields: &mut Fields<'_>, is_frontend: bool, draft: &mut Draft) {
    let at = At::In(section);
    let servers = "towards servers Convey offers TLS 1.2 and 1.3 with all of its cipher suites";
    for (key, name) in [("min_version", "min_version"), ("max_version", "max_version")] {
        let Some(version) = fields.text(draft, key) else {
            continue;
        };
        match version.text {
            _ if !is_frontend => draft.differs(version.id, at, servers),
            "tls1.2" | "tls1.3" => {
                draft.set(section, &[name], version.text.trim_start_matches("tls"));
                draft.translated(version.id);
            }
            _ => draft.no_equal(
                version.id,
                at,
                "versions of TLS before 1.2 are not supported: clients that have no newer one are refused",
            ),
        }
    }
    if let Some((id, ciphers)) = fields.list(draft, "ciphers") {
        let (known, others): (Vec<&str>, Vec<&str>) = ciphers
            .into_iter()
            .partition(|name| CipherSuite::ALL.iter().any(|suite| suite.label() == *name));
        match others.as_slice() {
            _ if !is_frontend => draft.differs(id, at, servers),
            [] => draft.translated(id),
            others => {
                let text = format!(
                    "Convey has no {}: only suites with forward secrecy and AEAD",
                    others.join(", ")
                );
                draft.no_equal(id, at, &text);
            }
        }
        if is_frontend && !known.is_empty() {
            draft.set(section, &["ciphers"], known);
        }
    }
    if let Some((id, _)) = fields.flag(draft, "prefer_server_ciphers") {
        draft.translated(id);
    }
    match fields.flag(draft, "session_tickets") {
        Some((id, true)) => draft.translated(id),
        said if is_frontend => {
            draft.set(section, &["tickets"], false);
            said.into_iter().for_each(|(id, _)| draft.translated(id));
        }
        said => said.into_iter().for_each(|(id, _)| draft.translated(id)),
    }
}
