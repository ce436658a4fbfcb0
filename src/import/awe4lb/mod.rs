//! awe4lb's configuration, version 0.7: JSON, or the YAML that its editor shows.

mod discovery;
mod hosts;
mod matching;
mod place;

use super::{
    At, Draft, Files, InputFile, SectionId, Unreadable, Value,
    address::joined,
    fields::{Case, Document, Fields},
    paths, tree,
};
use place::{Match, Takes};

/// Translates a file.
///
/// # Errors
/// It is no JSON and no YAML, or has no servers.
pub fn translate(file: &InputFile, draft: &mut Draft, _files: &mut dyn Files) -> Result<(), Unreadable> {
    let document = tree::json_or_yaml(&file.text)
        .map_err(|error| Unreadable::new(&file.name, error.line, error.message))?;
    let table = document.table().into_iter().flatten().cloned().collect();
    let shape = Document {
        file: &file.name,
        case: Case::Exact,
        unknown: "awe4lb 0.7 has no such key here and ignores it: look at its spelling, and at what it stands below",
    };
    let mut root = Fields::new(shape, &table, At::Top);
    if !root.has("servers") {
        return Err(Unreadable::new(
            &file.name,
            1,
            "there are no `servers`, which a configuration of awe4lb has",
        ));
    }
    for key in ["id", "description", "active"] {
        root.scalar(draft, key)
            .into_iter()
            .for_each(|scalar| draft.translated(scalar.id));
    }
    draft.comment(
        At::Top,
        "Convey does some things that awe4lb does not: a connect that fails is tried again on other servers (retries = 2), a server whose \
         connects fail is left alone for a while (passive_check), an idle connection is closed after 10m (idle_timeout), a connect has \
         5s (connect_timeout), and servers may speak first.",
    );
    for fields in root.tables(draft, "servers", At::Top) {
        server(fields, draft);
    }
    root.finish(draft);
    Ok(())
}

const LEFT_OUT: &str = "its server is left out";

/// A server: a frontend, and a backend for each of its matches.
fn server(mut fields: Fields<'_>, draft: &mut Draft) {
    let id = fields.text(draft, "id");
    let name = draft.frontend_name(id.map_or("server", |id| id.text));
    let addr = fields
        .table(draft, "addr", At::Top)
        .and_then(|addr| socket(addr, draft));
    let Some((host, port)) = addr else {
        draft.comment(
            At::Top,
            &format!("Server {name} has no addr that can be read, and is left out."),
        );
        fields.leave_out(draft, LEFT_OUT);
        return;
    };
    let Some(ip) = listen_ip(&host) else {
        let text = format!(
            "Server {name} listens on the name {host}: Convey listens on addresses, so write the one that this host has under it. It is left out."
        );
        draft.comment(At::Top, &text);
        fields.leave_out(draft, LEFT_OUT);
        return;
    };
    let frontend = draft.section(&["frontends", &name]);
    let at = At::In(frontend);
    fields.set_home(at);
    id.into_iter().for_each(|id| draft.translated(id.id));
    draft.set(frontend, &["listen_addr"], joined(ip, port));
    let is_udp = fields.has("udp");
    if let Some(table) = fields.table(draft, "udp", at) {
        udp(table, frontend, draft);
    }
    let tls = fields.table(draft, "tls", at);
    let ends_tls = tls.is_some();
    let mut certificates = Vec::new();
    if let Some(table) = tls {
        certificates.extend(server_tls(&name, table, draft));
    }
    let mut tables = fields.tables(draft, "match", at);
    let is_own = tables.is_empty();
    if is_own {
        // as its documentation has it in one place
        draft.comment(
            at,
            "Its pool stands in the server itself: awe4lb 0.7 wants it in a match, and it is taken for one without a condition.",
        );
        tables.push(fields);
    } else {
        fields.finish(draft);
    }
    let count = tables.len();
    let (mut takes_all, mut has_routes) = (false, false);
    for (number, table) in (1..).zip(tables) {
        let wanted = match count {
            1 => name.clone(),
            _ => format!("{name}-{number}"),
        };
        let backend_name = draft.backend_name(&wanted);
        let place = Match {
            frontend_name: &name,
            frontend,
            backend: draft.section(&["backends", &backend_name]),
            backend_name,
            is_udp,
            ends_tls,
            is_settled: takes_all,
        };
        let takes = matching::translate(&place, table, &mut certificates, draft);
        takes_all |= takes == Takes::All;
        has_routes |= takes == Takes::Some;
    }
    if has_routes && !takes_all {
        // what no match takes is closed
        let route = draft.item(&["frontends", &name, "routes"]);
        draft.set(route, &["source"], vec!["0.0.0.0/0", "::/0"]);
        draft.set(route, &["reject"], true);
    }
    if !certificates.is_empty() {
        let section = draft.section(&["frontends", &name, "tls"]);
        draft.set(section, &["certificates"], Value::List(certificates));
    }
}

/// A host and a port.
fn socket(mut fields: Fields<'_>, draft: &mut Draft) -> Option<(String, u16)> {
    let host = fields.text(draft, "host");
    let port = fields.parsed(draft, "port", "a port from 1 to 65535", |text| {
        text.parse::<u16>().ok().filter(|port| *port > 0)
    });
    host.iter()
        .map(|host| host.id)
        .chain(port.map(|(id, _)| id))
        .for_each(|id| draft.translated(id));
    fields.finish(draft);
    Some((host?.text.to_owned(), port?.1))
}

fn listen_ip(host: &str) -> Option<&str> {
    match host {
        "localhost" => Some("127.0.0.1"),
        host => host.parse::<std::net::IpAddr>().is_ok().then_some(host),
    }
}

fn udp(mut fields: Fields<'_>, frontend: SectionId, draft: &mut Draft) {
    let at = At::In(frontend);
    draft.set(frontend, &["protocol"], "udp");
    let idle = fields.number(draft, "idleTimeoutMs");
    let millis = idle.map_or(60_000, |(_, millis)| millis).clamp(1, 31_536_000_000);
    draft.set(
        frontend,
        &["idle_timeout"],
        Value::duration(std::time::Duration::from_millis(millis)),
    );
    if let Some((id, _)) = idle {
        draft.differs(
            id,
            at,
            "awe4lb counts from a session's first datagram, whatever comes after; Convey from its last",
        );
    }
    let sessions = fields.number(draft, "maxSessions");
    let most = sessions.map_or(4_096, |(_, most)| most).clamp(1, 10_000_000);
    draft.set(frontend, &["udp", "max_sessions"], most);
    if let Some((id, _)) = sessions {
        draft.differs(
            id,
            at,
            "datagrams that would begin more sessions are dropped; awe4lb forgets the oldest session instead",
        );
    }
    let buffer = fields.number(draft, "bufferSize");
    let size = buffer.map_or(16_384, |(_, size)| size).clamp(1, 65_535);
    draft.set(frontend, &["udp", "buffer_size"], size);
    buffer.into_iter().for_each(|(id, _)| draft.translated(id));
    fields.finish(draft);
}

/// `tls` of a server; its certificate, if it has one.
fn server_tls(name: &str, mut fields: Fields<'_>, draft: &mut Draft) -> Option<Value> {
    let section = draft.section(&["frontends", name, "tls"]);
    let at = At::In(section);
    fields.set_home(at);
    if let Some((id, protocols)) = fields.list(draft, "protocols") {
        let has = |version| protocols.contains(&version);
        match (has("TLSv1.2"), has("TLSv1.3")) {
            (true, true) | (false, false) => {}
            (true, false) => draft.set(section, &["max_version"], "1.2"),
            (false, true) => draft.set(section, &["min_version"], "1.3"),
        }
        match protocols
            .iter()
            .all(|name| matches!(*name, "TLSv1.2" | "TLSv1.3"))
        {
            true => draft.translated(id),
            false => draft.no_equal(
                id,
                at,
                "versions of TLS before 1.2 are not supported: clients that have no newer one are refused",
            ),
        }
    }
    if let Some((id, ciphers)) = fields.list(draft, "ciphers") {
        let is_known = |name: &&str| {
            crate::config::CipherSuite::ALL
                .iter()
                .any(|suite| suite.label() == *name)
        };
        let (known, others): (Vec<&str>, Vec<&str>) = ciphers.into_iter().partition(is_known);
        match others.is_empty() {
            true => draft.translated(id),
            false => {
                let text = format!(
                    "Convey has no {}: only suites with forward secrecy and AEAD",
                    others.join(", ")
                );
                draft.no_equal(id, at, &text);
            }
        }
        if !known.is_empty() {
            draft.set(section, &["ciphers"], known);
        }
    }
    let base = fields
        .table(draft, "base", at)
        .and_then(|base| certificate(base, None, draft));
    fields.finish(draft);
    base
}

/// A certificate and its key. `open` is about TLS to the servers of a backend.
fn certificate(mut fields: Fields<'_>, backend: Option<&str>, draft: &mut Draft) -> Option<Value> {
    let cert = fields.text(draft, "certPath");
    let key = fields.text(draft, "keyPath");
    let open = fields.flag(draft, "open");
    for scalar in cert.iter().chain(&key) {
        match paths::file(scalar.text).1 {
            false => draft.translated(scalar.id),
            true => draft.differs(scalar.id, fields.home(), paths::MOVED),
        }
    }
    match (open, backend) {
        (Some((id, true)), Some(backend)) => {
            let section = draft.section(&["backends", backend, "tls"]);
            draft.set(section, &["verify"], false);
            draft.differs(
                id,
                At::In(section),
                "TLS to the servers, whose certificates nobody looks at: `ca` and verify = true would",
            );
        }
        (Some((id, true)), None) => draft.no_equal(
            id,
            fields.home(),
            "TLS to servers is a matter of each backend: [backends.NAME.tls]",
        ),
        (Some((id, false)), _) => draft.translated(id),
        (None, _) => {}
    }
    fields.finish(draft);
    let (cert, key) = (paths::file(cert?.text).0, paths::file(key?.text).0);
    Some(Value::table([("cert", cert), ("key", key)]))
}
