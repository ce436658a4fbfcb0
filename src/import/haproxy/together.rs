//! What HAProxy has for each server and Convey for all servers of a backend together: PROXY headers, TLS and the like.

use super::{
    Context,
    parameters::Parameters,
    servers::{self, Server},
    time, tls,
};
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
        if let Some(counts) = servers.iter().max_by_key(|server| server.parameters.tlvs().len()) {
            let text = "the PROXY headers of a backend say the same to all servers: all that is asked for";
            let words = ["proxy-v2-options"];
            let with = servers
                .iter()
                .filter(|server| server.parameters.send_proxy().is_some());
            servers::unlike(with, counts, &words, text, At::In(out), context);
        }
        without(
            servers,
            |server| server.send_proxy() == Some(version),
            "the PROXY header goes to all servers",
            out,
            context,
        );
    }
    slow_start(servers, out, context);
    let closing = servers
        .iter()
        .find(|server| server.parameters.value("on-marked-down") == Some("shutdown-sessions"));
    if let Some(counts) = closing {
        context.draft.set(out, &["on_down"], "close");
        let text = "connections are closed to each server of the backend that goes down, or to none";
        servers::unlike(servers, counts, &["on-marked-down"], text, At::In(out), context);
    }
    if servers.iter().any(|server| server.parameters.has("ssl")) {
        without(
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
    let Some((counts, time)) = servers.iter().find_map(|server| Some((server, start(server)?))) else {
        return;
    };
    context.draft.set(out, &["slow_start"], Value::duration(time));
    let text = "all servers of a backend start alike here, as the first one of which it is said";
    servers::unlike(servers, counts, &["slowstart"], text, At::In(out), context);
}

/// Notes the servers that are not as the others.
fn without(
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

/// TLS to the servers, as the first one has it that is verified: where none is, as the first one.
fn to_servers(servers: &[Server], backend: &str, context: &mut Context<'_>) {
    let with_tls: Vec<&Server> = servers
        .iter()
        .filter(|server| server.parameters.has("ssl"))
        .collect();
    let verified = with_tls.iter().find(|server| is_verified(&server.parameters));
    let Some(server) = verified.or(with_tls.first()).copied() else {
        return;
    };
    let parameters = &server.parameters;
    let section = context.draft.section(&["backends", backend, "tls"]);
    for (key, value) in tls_keys(parameters, &context.shared.ca_base, &context.shared.crt_base) {
        context.draft.set(section, &[key], value);
    }
    let name = parameters.value("verifyhost").or(parameters.value("sni"));
    if is_verified(parameters) && name.is_none() {
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
    let words = ["verify", "ca-file", "verifyhost", "sni", "crt", "alpn"];
    let text = "TLS to all servers of a backend is alike here, as the first one has it that is verified: a server that is to be \
                reached otherwise needs a backend of its own";
    servers::unlike(with_tls, server, &words, text, At::In(section), context);
}

/// Whether it matters who signed a server's certificate.
fn is_verified(parameters: &Parameters) -> bool {
    match parameters.value("verify") {
        Some("none") => false,
        Some(_) => true,
        None => parameters.value("ca-file").is_some(),
    }
}

/// The keys of `tls` that follow from the words of a server.
pub fn tls_keys(parameters: &Parameters, ca_base: &str, crt_base: &str) -> Vec<(&'static str, Value)> {
    let mut keys: Vec<(&'static str, Value)> = Vec::new();
    let ca = parameters.value("ca-file");
    let is_verified = is_verified(parameters);
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
