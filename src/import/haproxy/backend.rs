//! A backend: how its servers are chosen, reached and checked.

use super::{
    Context, check,
    file::Line,
    parameters::Parameters,
    proxies::Proxy,
    servers::{self, Server},
    time, together,
};
use crate::import::{
    At, MAX_MADE, NoteKind, SectionId, Value,
    address::{self, HostPort},
};

/// Translates a backend.
pub fn translate(proxy: &Proxy, context: &mut Context<'_>) {
    let Some(name) = context.names.get(&proxy.name).cloned() else {
        return;
    };
    let out = context.draft.section(&["backends", &name]);
    let servers = servers::of(proxy);
    balance(proxy, &servers, out, context);
    times(proxy, out, context);
    fallback(proxy, out, context);
    stick(proxy, out, context);
    source(proxy, &servers, out, context);
    for server in &servers {
        write(server, proxy, &servers, &name, out, context);
    }
    together::translate(&servers, out, &name, context);
    check::translate(proxy, &servers, &name, out, context);
}

fn balance(proxy: &Proxy, servers: &[Server], out: SectionId, context: &mut Context<'_>) {
    if let Some(line) = proxy.last("hash-balance-factor") {
        if let Some(factor) = line.word(1).parse::<u32>().ok().filter(|factor| *factor > 100) {
            context.draft.set(out, &["hash_balance_factor"], factor);
        }
        context.draft.translated(line.id);
    }
    if let Some(line) = proxy.last("hash-type") {
        // which hash is used cannot be seen from outside
        context.draft.translated(line.id);
    }
    let Some(line) = proxy.last("balance") else { return };
    let at = if line.is_inherited { At::Top } else { At::In(out) };
    let algorithm = line.word(1);
    let value = match algorithm {
        "roundrobin" | "static-rr" => "round_robin",
        "leastconn" => "least_connections",
        "source" => "source_hash",
        "first" => {
            let names: Vec<&str> = servers.iter().map(|server| server.name.as_str()).collect();
            if !names.is_sorted() {
                let text = "servers fill up in the order of their names here, there in the order of the file: rename them";
                context.draft.differs(line.id, at, text);
            }
            "first"
        }
        "random" | "random(2)" => "power_of_two",
        _ if algorithm.starts_with("random(1)") => "random",
        _ if algorithm.starts_with("random(") => "least_connections",
        "hash" if line.word(2) == "src" => "source_hash",
        _ => {
            let why = "Convey knows the client's address only: see source_hash, and `sticky`; servers are chosen in turn";
            context.draft.no_equal(line.id, at, why);
            "round_robin"
        }
    };
    // in turn is what Convey does without the key
    if value != "round_robin" {
        context.draft.set(out, &["balance"], value);
    }
    context.draft.translated(line.id);
}

fn times(proxy: &Proxy, out: SectionId, context: &mut Context<'_>) {
    for (word, key) in [("connect", "connect_timeout"), ("queue", "queue_timeout")] {
        let line = match proxy.last_of("timeout", word) {
            // that of a connect counts for the queue, too
            None if word == "queue" => proxy.last_of("timeout", "connect"),
            line => line,
        };
        let Some((line, time)) = line.and_then(|line| Some((line, time::parse(line.word(2))?))) else {
            continue;
        };
        if !time.is_zero() {
            context.draft.set(out, &[key], Value::duration(time));
        }
        context.draft.translated(line.id);
    }
    if let Some(line) = proxy.last("retries")
        && let Ok(retries) = line.word(1).parse::<u32>()
    {
        context.draft.set(out, &["retries"], retries);
        context.draft.translated(line.id);
    }
}

fn fallback(proxy: &Proxy, out: SectionId, context: &mut Context<'_>) {
    let other = context.fallbacks.iter().find(|(of, _)| *of == proxy.name);
    if let Some(other) = other.and_then(|(_, other)| context.names.get(other)).cloned() {
        context.draft.set(out, &["fallback"], other);
    }
}

/// `stick-table type ip … ` with `stick on src`: a client stays with its server.
fn stick(proxy: &Proxy, out: SectionId, context: &mut Context<'_>) {
    let is_on_src = |line: &&Line| {
        let is_stick = matches!(
            (line.name(), line.word(1)),
            ("stick", "on" | "match" | "store-request")
        );
        is_stick && line.word(2) == "src" && line.words.len() == 3
    };
    // one that only finds entries, or only makes them, does nothing alone
    let has = |word: &str| {
        proxy
            .lines
            .iter()
            .filter(is_on_src)
            .any(|line| line.word(1) == word)
    };
    if !has("on") && !(has("match") && has("store-request")) {
        return;
    }
    let Some(table) = proxy.lines.iter().find(|line| line.name() == "stick-table") else {
        return;
    };
    let argument = |word: &str| {
        let at = table.words.iter().position(|known| known == word)?;
        table.words.get(at + 1)
    };
    let mut sticky: Vec<(&str, Value)> = Vec::new();
    match argument("expire")
        .and_then(|text| time::parse(text))
        .filter(|time| !time.is_zero())
    {
        Some(time) => sticky.push(("ttl", Value::duration(time))),
        None => {
            let text = "entries that never expire: here they do after a day";
            context.draft.differs(table.id, At::In(out), text);
            sticky.push(("ttl", "1d".into()));
        }
    }
    if let Some(size) = argument("size").and_then(|text| time::size(text)) {
        sticky.push(("max_entries", size.clamp(1, 1_000_000).into()));
    }
    sticky.push(("prefix6", 128_u32.into()));
    context.draft.set(out, &["sticky"], Value::table(sticky));
    for line in proxy.lines.iter().filter(is_on_src) {
        context.draft.translated(line.id);
    }
    context.draft.translated(table.id);
    if let Some(peers) = argument("peers") {
        let text = "load balancers do not tell each other where clients are";
        let part = format!("peers {peers}");
        context
            .draft
            .note(table.id, At::In(out), &part, NoteKind::NoEqual, text);
    }
}

/// Where connections to the servers come from.
fn source(proxy: &Proxy, servers: &[Server], out: SectionId, context: &mut Context<'_>) {
    let mut all: Vec<(Line, Parameters)> = Vec::new();
    if let Some(line) = proxy.last("source") {
        let mut parameters = Parameters::default();
        parameters.take(&line.words);
        all.push((line.clone(), parameters));
    }
    let own = servers
        .iter()
        .find(|server| server.parameters.value("source").is_some());
    all.extend(own.map(|server| (server.line.clone(), (*server.parameters).clone())));
    for (line, parameters) in all {
        let host = HostPort::parse(parameters.value("source").unwrap_or_default(), true).host;
        let at = if line.is_inherited { At::Top } else { At::In(out) };
        if host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| !ip.is_unspecified())
        {
            context.draft.set(out, &["source_addr"], host);
        }
        if let Some(interface) = parameters.value("interface") {
            context
                .draft
                .set(out, &["server_socket"], Value::table([("interface", interface)]));
        }
        context.draft.translated(line.id);
        if let Some(usesrc) = parameters.value("usesrc") {
            let text = "set source = \"client\" in the frontends that lead here; `convey check` says which routes that takes";
            let part = format!("usesrc {usesrc}");
            context.draft.note(line.id, at, &part, NoteKind::Differs, text);
        }
    }
}

/// One server, or what a template stands for.
fn write(
    server: &Server,
    proxy: &Proxy,
    servers: &[Server],
    backend: &str,
    out: SectionId,
    context: &mut Context<'_>,
) {
    let id = server.line.id;
    context.draft.translated(id);
    for (part, why) in server.parameters.without_equal() {
        context.draft.note(id, At::In(out), &part, NoteKind::NoEqual, why);
    }
    let Some(addr) = addr(server, &proxy.name, out, context) else {
        return;
    };
    let mut keys: Vec<(&str, Value)> = vec![("addr", addr.clone().into())];
    if let Some(count) = server.template {
        let text = "each address of the name is a server, however many there are";
        if count > MAX_MADE || address_is_ip(&addr) {
            context
                .draft
                .differs(id, At::In(out), "a template for one address is one server here");
        } else {
            keys.push(("resolve", "all".into()));
            context.draft.differs(id, At::In(out), text);
        }
    }
    let parameters = &server.parameters;
    if parameters.has("disabled") {
        let text = "in maintenance until somebody enables it: weight 0 keeps it out of service here";
        context
            .draft
            .note(id, At::In(out), "disabled", NoteKind::Differs, text);
        keys.push(("weight", 0_u32.into()));
    } else {
        let weight = parameters
            .value("weight")
            .and_then(|text| text.parse::<u32>().ok());
        keys.extend(
            weight
                .filter(|weight| *weight != 1)
                .map(|weight| ("weight", weight.into())),
        );
    }
    if parameters.has("backup") {
        // without the option one after another
        let at = servers
            .iter()
            .filter(|other| other.parameters.has("backup"))
            .position(|other| other.line.id == id);
        let place = if proxy.option("allbackups").is_some() {
            0
        } else {
            at.unwrap_or(0)
        };
        keys.push(("priority", u64::try_from(place + 2).unwrap_or(2).into()));
    }
    if let Some(most) = parameters
        .value("maxconn")
        .and_then(|text| text.parse::<u32>().ok())
        .filter(|most| *most > 0)
    {
        keys.push(("max_connections", most.into()));
    }
    let check_host = parameters.value("addr");
    let check_port = parameters.value("port").and_then(address::port);
    let host = HostPort::parse(&addr, false).host;
    match (check_host, check_port) {
        (Some(host), Some(port)) => keys.push(("check_addr", address::joined(host, port).into())),
        (Some(host), None) => keys.push(("check_addr", host.into())),
        (None, Some(port)) if address_is_ip(&addr) => {
            keys.push(("check_addr", address::joined(&host, port).into()));
        }
        (None, Some(port)) => {
            let text = "set `port` in health_check, if it is the same for all servers";
            context
                .draft
                .note(id, At::In(out), &format!("port {port}"), NoteKind::NoEqual, text);
        }
        (None, None) => {}
    }
    let name = context.draft.server_name(backend, &server.name);
    context.draft.set(out, &["servers", &name], Value::table(keys));
}

fn address_is_ip(addr: &str) -> bool {
    HostPort::parse(addr, false).ip().is_some()
}

/// The address, with the port that follows from the clients' if it has none.
fn addr(server: &Server, backend: &str, out: SectionId, context: &mut Context<'_>) -> Option<String> {
    let text = server.address.as_str();
    let text = ["ipv4@", "ipv6@", "tcp@", "tcp4@", "tcp6@"]
        .iter()
        .find_map(|kind| text.strip_prefix(kind))
        .unwrap_or(text);
    if let Some(path) = text
        .strip_prefix("unix@")
        .or_else(|| text.starts_with('/').then_some(text))
    {
        return Some(format!("unix:{path}"));
    }
    let id = server.line.id;
    if text.contains('@') || text.contains("${") {
        context.draft.no_equal(
            id,
            At::In(out),
            "Convey connects to addresses, names of hosts and sockets with a path",
        );
        return None;
    }
    let HostPort { host, port } = HostPort::parse(text, true);
    if !address::is_host(&host) {
        context.draft.no_equal(
            id,
            At::In(out),
            "its address is neither an IP address nor the name of a host",
        );
        return None;
    }
    let port = port.unwrap_or_default();
    if let Some(port) = address::port(&port) {
        return Some(address::joined(&host, port));
    }
    let offset = match port.as_str() {
        "" => Some(0),
        port => port.parse::<i32>().ok(),
    };
    let from = context.ports.get(backend).map(Vec::as_slice).unwrap_or_default();
    let first = from.first().map(|(first, _)| i32::from(*first));
    let made = first
        .zip(offset)
        .and_then(|(first, offset)| u16::try_from(first.checked_add(offset)?).ok());
    let Some(made) = made.filter(|port| *port > 0) else {
        context
            .draft
            .no_equal(id, At::In(out), "its port depends on the frontend: write it");
        return None;
    };
    if from.len() > 1 {
        let text = "its port is the one that the client has connected to: here it is the first of the frontends' ports";
        context.draft.differs(id, At::In(out), text);
    }
    Some(address::joined(&host, made))
}
