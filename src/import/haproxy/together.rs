//! What HAProxy has for each server and Convey for all servers of a backend together: PROXY headers, TLS and the like.

use super::{Context, parameters::Parameters, servers::Server, time, tls};
use crate::import::{At, NoteKind, SectionId, Value};

/// What Convey has for all servers of a backend together.
pub fn translate(servers: &[Server], out: SectionId, backend: &str, context: &mut Context<'_>) {
    let proxy: Vec<_> = servers
        .iter()
        .map(|server| server.parameters.send_proxy())
        .collect();
    if let Some(version) = proxy.iter().find_map(|version| *version) {
        context.draft.set(out, &["send_proxy"], version);
        let tlvs = servers
            .iter()
            .map(|server| server.parameters.tlvs())
            .max_by_key(Vec::len)
            .unwrap_or_default();
        if !tlvs.is_empty() {
            context.draft.set(out, &["send_proxy_tlvs"], tlvs);
        }
        unlike(
            servers,
            |server| server.send_proxy() == Some(version),
            "the PROXY header goes to all servers",
            out,
            context,
        );
    }
    slow_start(servers, out, context);
    if servers
        .iter()
        .any(|server| server.parameters.value("on-marked-down") == Some("shutdown-sessions"))
    {
        context.draft.set(out, &["on_down"], "close");
    }
    if servers.iter().any(|server| server.parameters.has("ssl")) {
        unlike(
            servers,
            |server| server.has("ssl"),
            "TLS is spoken to all servers",
            out,
            context,
        );
        to_servers(servers, backend, context);
    }
}

fn slow_start(servers: &[Server], out: SectionId, context: &mut Context<'_>) {
    let start = |server: &Server| server.parameters.value("slowstart").and_then(time::parse);
    if let Some(time) = servers.iter().find_map(start) {
        context.draft.set(out, &["slow_start"], Value::duration(time));
    }
}

/// Notes the servers that are not as the others.
fn unlike(
    servers: &[Server],
    is_alike: impl Fn(&Parameters) -> bool,
    what: &str,
    out: SectionId,
    context: &mut Context<'_>,
) {
    for server in servers.iter().filter(|server| !is_alike(&server.parameters)) {
        let text = format!("{what} of a backend, or to none: put it into a backend of its own");
        context.draft.differs(server.line.id, At::In(out), &text);
    }
}

/// TLS to the servers, as the first one that has it.
fn to_servers(servers: &[Server], backend: &str, context: &mut Context<'_>) {
    let Some(server) = servers.iter().find(|server| server.parameters.has("ssl")) else {
        return;
    };
    let parameters = &server.parameters;
    let section = context.draft.section(&["backends", backend, "tls"]);
    for (key, value) in tls_keys(parameters, &context.shared.ca_base, &context.shared.crt_base) {
        context.draft.set(section, &[key], value);
    }
    let name = parameters.value("verifyhost").or(parameters.value("sni"));
    let is_verified = parameters.value("verify") == Some("required") || parameters.value("ca-file").is_some();
    if is_verified && parameters.value("verify") != Some("none") && name.is_none() {
        let text = "HAProxy looks who signed the servers' certificates, not whom they are of; here they must be of the name that \
                    the server has in the configuration: see server_name";
        context.draft.note(
            server.line.id,
            At::In(section),
            "verify required",
            NoteKind::Differs,
            text,
        );
        context.draft.set(section, &["server_name"], "server");
    }
}

/// The keys of `tls` that follow from the words of a server.
pub fn tls_keys(parameters: &Parameters, ca_base: &str, crt_base: &str) -> Vec<(&'static str, Value)> {
    let mut keys: Vec<(&'static str, Value)> = Vec::new();
    let ca = parameters.value("ca-file");
    let is_verified = match parameters.value("verify") {
        Some("none") => false,
        Some(_) => true,
        None => ca.is_some(),
    };
    if !is_verified {
        keys.push(("verify", false.into()));
    }
    if let Some(ca) = ca.filter(|ca| is_verified && *ca != "@system-ca") {
        keys.push(("ca", tls::based(ca_base, ca).into()));
    }
    if let Some(name) = parameters.value("verifyhost").or(parameters.value("sni")) {
        let fixed = name.strip_prefix("str(").and_then(|name| name.strip_suffix(')'));
        let name = match (fixed, parameters.value("verifyhost")) {
            (_, Some(name)) | (Some(name), None) => name,
            // whatever the client asks for
            (None, None) => "client",
        };
        keys.push(("server_name", name.into()));
    }
    if let Some(path) = parameters.value("crt") {
        keys.push(("cert", tls::based(crt_base, path).into()));
    }
    if let Some(alpn) = parameters.value("alpn") {
        keys.push(("alpn", alpn.split(',').collect::<Vec<_>>().into()));
    }
    keys
}
