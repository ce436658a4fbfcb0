//! A backend: how its servers are chosen, reached and checked.

use std::time::Duration;

use super::{
    Context, check,
    file::Line,
    parameters::Parameters,
    proxies::Proxy,
    servers::{self, Server},
    time, together,
};
use crate::{
    config::CheckAddr,
    import::{
        At, MAX_MADE, NoteKind, SectionId, Value,
        address::{self, HostPort},
    },
};

/// Most that connect_timeout and queue_timeout can be.
const MOST_WAITING: Duration = Duration::from_secs(3_600);

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
    let check_port = servers::port_of_checks(&servers);
    for server in &servers {
        match is_service(server) {
            true => service(server, &name, context),
            false => write(server, proxy, &servers, check_port, out, context),
        }
    }
    together::translate(&servers, out, &name, context);
    check::translate(proxy, &servers, &name, out, context);
}

/// Says once what HAProxy does where a file says nothing, and Convey otherwise.
pub fn unsaid(proxies: &[Proxy], context: &mut Context<'_>) {
    let mut backends = proxies
        .iter()
        .filter(|proxy| context.names.contains_key(&proxy.name) && proxy.is_backend)
        .peekable();
    if backends.peek().is_none() {
        return;
    }
    let (mut is_tried_again, mut is_endless) = (false, false);
    for proxy in backends {
        let retries = proxy.last("retries").map_or("", |line| line.word(1));
        is_tried_again |= retries != "0" && proxy.option("redispatch").is_none();
        is_endless |= proxy.last_of("timeout", "connect").is_none();
    }
    if is_tried_again {
        let text = "Without `option redispatch` HAProxy tries the same server again, 3 times if `retries` does not say otherwise; \
                    Convey tries others, 2 if `retries` does not.";
        context.draft.comment(At::Top, text);
    }
    if is_endless {
        let text = "Without `timeout connect` HAProxy waits for a server without an end; Convey 5 s for its connection and as long \
                    in the queue: see connect_timeout and queue_timeout.";
        context.draft.comment(At::Top, text);
    }
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
        if time.is_zero() {
            let at = if line.is_inherited { At::Top } else { At::In(out) };
            let text = "it has no end there: here it is 5 s, see connect_timeout and queue_timeout";
            context.draft.differs(line.id, at, text);
            continue;
        }
        if time > MOST_WAITING {
            let at = if line.is_inherited { At::Top } else { At::In(out) };
            let text = "longer than Convey ever waits: here it is an hour";
            context.draft.differs(line.id, at, text);
        }
        context
            .draft
            .set(out, &[key], Value::duration(time.min(MOST_WAITING)));
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
    let sticks = has("on") || (has("match") && has("store-request"));
    if !sticks {
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
    let expire = argument("expire").and_then(|text| time::parse(text));
    match expire.filter(|time| !time.is_zero()) {
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

/// Where connections to the servers come from: what the backend says, or all of its servers.
fn source(proxy: &Proxy, servers: &[Server], out: SectionId, context: &mut Context<'_>) {
    fn key(parameters: &Parameters) -> [Option<&str>; 3] {
        ["source", "interface", "usesrc"].map(|word| parameters.value(word))
    }
    let common = proxy.last("source").map(|line| {
        let mut parameters = Parameters::default();
        parameters.take(&line.words);
        (line.clone(), parameters)
    });
    let own = |server: &&Server| server.parameters.value("source").is_some();
    let first = servers.first().filter(own);
    let all = first.filter(|first| {
        servers
            .iter()
            .all(|server| key(&server.parameters) == key(&first.parameters))
    });
    if let Some((line, _)) = &common {
        context.draft.translated(line.id);
    }
    let chosen = all
        .map(|server| (server.line.clone(), (*server.parameters).clone()))
        .or(common);
    let chosen_key = chosen.as_ref().map(|(_, parameters)| key(parameters));
    for server in servers
        .iter()
        .filter(own)
        .filter(|server| Some(key(&server.parameters)) != chosen_key)
    {
        let part = format!("source {}", server.parameters.value("source").unwrap_or_default());
        let text = "connections to all servers of a backend come from one address here: put it into a backend of its own, with \
                    source_addr";
        context
            .draft
            .note(server.line.id, At::In(out), &part, NoteKind::NoEqual, text);
    }
    let Some((line, parameters)) = chosen else { return };
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
    if let Some(usesrc) = parameters.value("usesrc") {
        let text = "set source = \"client\" in the frontends that lead here; `convey check` says which routes that takes";
        let part = format!("usesrc {usesrc}");
        context.draft.note(line.id, at, &part, NoteKind::Differs, text);
    }
}

/// Whether a server's address is the name of a service, which SRV records are about.
fn is_service(server: &Server) -> bool {
    server.address.starts_with('_') && server.address.contains("._")
}

/// Servers that SRV records name.
fn service(server: &Server, backend: &str, context: &mut Context<'_>) {
    let id = server.line.id;
    let section = context.draft.section(&["backends", backend, "discovery"]);
    let at = At::In(section);
    context.draft.translated(id);
    if context.draft.get(section, &["kind"]).is_some() {
        let text = "a backend has one source of servers: put it into a backend of its own";
        return context.draft.no_equal(id, at, text);
    }
    for (part, why) in server.parameters.without_equal() {
        context.draft.note(id, at, &part, NoteKind::NoEqual, why);
    }
    let name = HostPort::parse(&server.address, true).host;
    context.draft.set(section, &["kind"], "srv");
    context.draft.set(section, &["name"], name);
    let text = "each SRV record is a server, however many there are, with its weight and its priority";
    context.draft.differs(id, at, text);
    for word in ["maxconn", "weight", "addr", "port"] {
        if let Some(value) = server.parameters.value(word) {
            let text = "a server that is discovered is what its record says";
            context
                .draft
                .note(id, at, &format!("{word} {value}"), NoteKind::NoEqual, text);
        }
    }
    for word in ["backup", "disabled"] {
        if server.parameters.has(word) {
            let text = "discovered servers are in service as soon as they are named";
            context.draft.note(id, at, word, NoteKind::NoEqual, text);
        }
    }
}

/// One server, or what a template stands for.
fn write(
    server: &Server,
    proxy: &Proxy,
    servers: &[Server],
    check_port: Option<u16>,
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
    if let Some(checked) = check_addr(server, &addr, check_port, out, context) {
        keys.push(("check_addr", checked.into()));
    }
    let backend = context.names.get(&proxy.name).cloned().unwrap_or_default();
    let name = context.draft.server_name(&backend, &server.name);
    context.draft.set(out, &["servers", &name], Value::table(keys));
}

/// Where a server is checked, if that is not its address; `common` is the port of all checks.
fn check_addr(
    server: &Server,
    addr: &str,
    common: Option<u16>,
    out: SectionId,
    context: &mut Context<'_>,
) -> Option<String> {
    let (id, at) = (server.line.id, At::In(out));
    let own = HostPort::parse(addr, false);
    let is_named = own.ip().is_none() && !addr.starts_with("unix:");
    let said = server.parameters.value("addr");
    let host = said.filter(|host| !is_named && host.parse::<CheckAddr>().is_ok());
    if let Some(said) = said.filter(|_| host.is_none()) {
        let text = match is_named {
            true => "each address of a name is checked itself",
            false => {
                "checks go to an address, not to a name: here to that of the server, if check_addr does not say another"
            }
        };
        context
            .draft
            .note(id, at, &format!("addr {said}"), NoteKind::NoEqual, text);
    }
    match (host, server.parameters.value("port").and_then(address::port)) {
        (Some(host), Some(port)) => Some(address::joined(host, port)),
        (Some(host), None) => Some(host.to_owned()),
        (None, None) => None,
        (None, Some(port)) if own.ip().is_some() => Some(address::joined(&own.host, port)),
        (None, Some(port)) if common == Some(port) => None,
        (None, Some(port)) => {
            let text = "set `port` in health_check, if it is the same for all servers";
            context
                .draft
                .note(id, at, &format!("port {port}"), NoteKind::NoEqual, text);
            None
        }
    }
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
