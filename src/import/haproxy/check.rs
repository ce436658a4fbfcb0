//! Health checks.

mod http;
mod probe;

use super::{
    Context,
    file::Line,
    parameters::Parameters,
    proxies::Proxy,
    servers::{self, Server},
    time,
};
use crate::import::{At, NoteKind, SectionId, Value};

/// Translates the checks of a backend.
pub fn translate(
    proxy: &Proxy,
    servers: &[Server],
    backend: &str,
    out: SectionId,
    context: &mut Context<'_>,
) {
    passive(servers, out, context);
    agent(servers, backend, context);
    let checked: Vec<&Server> = servers
        .iter()
        .filter(|server| server.parameters.has("check"))
        .collect();
    let Some(first) = checked.first() else {
        context
            .draft
            .set(out, &["health_check"], Value::table([("enabled", false)]));
        return;
    };
    let section = context.draft.section(&["backends", backend, "health_check"]);
    for server in servers
        .iter()
        .filter(|server| !server.parameters.has("check") && server.template.is_none())
    {
        let text = "it is not checked there: here all servers of a backend are";
        context.draft.differs(server.line.id, At::In(section), text);
    }
    kind(proxy, &first.parameters, section, backend, context);
    timing(proxy, &checked, section, context);
    if let Some(port) = servers::port_of_checks(servers) {
        context.draft.set(section, &["port"], port);
    }
    // as HAProxy's servers are, until checks say otherwise
    context.draft.set(section, &["initial"], "up");
    let sends = first.parameters.send_proxy().is_some()
        && (first.parameters.has("check-send-proxy")
            || (first.parameters.value("port").is_none() && first.parameters.value("addr").is_none()));
    if sends {
        context.draft.set(section, &["send_proxy"], true);
    } else if first.parameters.has("check-send-proxy") {
        let text = "a check sends the header that connections send, and here they send none";
        let part = "check-send-proxy";
        context
            .draft
            .note(first.line.id, At::In(section), part, NoteKind::NoEqual, text);
    }
}

fn timing(proxy: &Proxy, checked: &[&Server], section: SectionId, context: &mut Context<'_>) {
    let Some(first) = checked.first() else { return };
    let of = |parameters: &Parameters, word: &str| parameters.value(word).and_then(time::parse);
    let interval = of(&first.parameters, "inter").unwrap_or(std::time::Duration::from_secs(2));
    let mut keys = vec![("interval", interval)];
    let line = proxy.last_of("timeout", "check");
    let timeout = line.and_then(|line| time::parse(line.word(2)));
    if let Some(line) = line {
        context.draft.translated(line.id);
    }
    keys.push((
        "timeout",
        timeout.filter(|time| !time.is_zero()).unwrap_or(interval),
    ));
    keys.push((
        "fast_interval",
        of(&first.parameters, "fastinter").unwrap_or(interval),
    ));
    for (key, time) in keys {
        context.draft.set(section, &[key], Value::duration(time));
    }
    for key in ["rise", "fall"] {
        if let Some(number) = first
            .parameters
            .value(key)
            .and_then(|text| text.parse::<u32>().ok())
        {
            context.draft.set(section, &[key], number);
        }
    }
    let words = [
        "inter",
        "fastinter",
        "rise",
        "fall",
        "check-ssl",
        "check-send-proxy",
    ];
    let text = "all servers of a backend are checked alike here, as the first one";
    servers::unlike(
        checked.iter().copied(),
        first,
        &words,
        text,
        At::In(section),
        context,
    );
}

/// `observe`: what becomes of connections.
fn passive(servers: &[Server], out: SectionId, context: &mut Context<'_>) {
    let observer = servers
        .iter()
        .find(|server| server.parameters.value("observe").is_some());
    let Some(observer) = observer else {
        let value = Value::table([("enabled", false)]);
        return context.draft.set(out, &["passive_check"], value);
    };
    let limit = observer.parameters.value("error-limit");
    let limit = limit.and_then(|text| text.parse::<u32>().ok()).unwrap_or(10);
    let value = Value::table([("max_failures", limit.max(1))]);
    context.draft.set(out, &["passive_check"], value);
    let layer = observer.parameters.value("observe").unwrap_or_default();
    let mut notes = Vec::new();
    if layer == "layer7" {
        notes.push("Convey reads no HTTP: connections that fail count, not answers");
    }
    if observer.parameters.value("on-error").is_none() {
        notes.push(
            "a failed check is counted there; here a server is ejected for a while after max_failures, whatever its checks say",
        );
    }
    let part = format!("observe {layer}");
    for text in notes {
        context
            .draft
            .note(observer.line.id, At::In(out), &part, NoteKind::Differs, text);
    }
    let words = ["observe", "error-limit", "on-error"];
    let text = "all servers of a backend are observed alike here, as the first one of which it is said";
    servers::unlike(servers, observer, &words, text, At::In(out), context);
}

fn agent(servers: &[Server], backend: &str, context: &mut Context<'_>) {
    let Some(server) = servers.iter().find(|server| server.parameters.has("agent-check")) else {
        return;
    };
    let section = context.draft.section(&["backends", backend, "agent_check"]);
    let parameters = &server.parameters;
    if let Some(port) = parameters
        .value("agent-port")
        .and_then(crate::import::address::port)
    {
        context.draft.set(section, &["port"], port);
    }
    if let Some(text) = parameters.value("agent-send") {
        context.draft.set(section, &["send"], text);
    }
    if let Some(time) = parameters.value("agent-inter").and_then(time::parse) {
        context.draft.set(section, &["interval"], Value::duration(time));
    }
    let (asked, others): (Vec<&Server>, Vec<&Server>) = servers
        .iter()
        .partition(|server| server.parameters.has("agent-check"));
    for other in others {
        let text = "no agent is asked about it there: here all servers of a backend have one";
        context.draft.differs(other.line.id, At::In(section), text);
    }
    let words = ["agent-port", "agent-send", "agent-inter"];
    let text = "the agents of a backend are asked alike here, as the first one";
    servers::unlike(asked, server, &words, text, At::In(section), context);
}

/// What a check does.
fn kind(
    proxy: &Proxy,
    parameters: &Parameters,
    section: SectionId,
    backend: &str,
    context: &mut Context<'_>,
) {
    let options = [
        "httpchk",
        "tcp-check",
        "redis-check",
        "mysql-check",
        "pgsql-check",
        "smtpchk",
        "ldap-check",
        "ssl-hello-chk",
        "external-check",
        "spop-check",
    ];
    // of those that are set, the last one counts
    let chosen = proxy
        .lines
        .iter()
        .rev()
        .find(|line| line.name() == "option" && !line.is_negated && options.contains(&line.word(1)));
    for line in proxy
        .lines
        .iter()
        .filter(|line| line.name() == "option" && options.contains(&line.word(1)))
    {
        context.draft.translated(line.id);
    }
    let has_tls = parameters.has("ssl") || parameters.has("check-ssl");
    if parameters.has("check-ssl") && !parameters.has("ssl") {
        let tls = context
            .draft
            .section(&["backends", backend, "health_check", "tls"]);
        for (key, value) in
            super::together::tls_keys(parameters, &context.shared.ca_base, &context.shared.crt_base)
        {
            context.draft.set(tls, &[key], value);
        }
    }
    let Some(line) = chosen else { return };
    let at = if line.is_inherited {
        At::Top
    } else {
        At::In(section)
    };
    let simple = match line.word(1) {
        "httpchk" => return http::translate(proxy, line, section, at, context),
        "tcp-check" => return probe::translate(proxy, section, context),
        "redis-check" => "redis",
        "mysql-check" => "mysql",
        "pgsql-check" => {
            if line.word(2) == "user" {
                context.draft.set(section, &["user"], line.word(3));
            }
            "postgresql"
        }
        "smtpchk" => "smtp",
        "ssl-hello-chk" => {
            if !has_tls {
                let tls = context
                    .draft
                    .section(&["backends", backend, "health_check", "tls"]);
                context.draft.set(tls, &["verify"], false);
            }
            "tls"
        }
        "external-check" => return external(proxy, line, section, at, context),
        _ => {
            context.draft.no_equal(
                line.id,
                at,
                "servers have to accept a connection only: see kind = \"probe\" and \"exec\"",
            );
            return;
        }
    };
    context.draft.set(section, &["kind"], simple);
}

fn external(proxy: &Proxy, line: &Line, section: SectionId, at: At, context: &mut Context<'_>) {
    let command = proxy
        .lines
        .iter()
        .rev()
        .find(|line| line.name() == "external-check" && line.word(1) == "command");
    let Some(command) = command else {
        context.draft.no_equal(line.id, at, "it names no command");
        return;
    };
    context.draft.set(section, &["kind"], "exec");
    context.draft.set(
        section,
        &["command"],
        vec![command.word(2), "-", "-", "$host", "$port"],
    );
    let text = "a command gets the server's address and port as HAProxy passes them, but not the proxy's, nor its variables";
    context.draft.differs(command.id, at, text);
}

#[cfg(test)]
mod tests;
