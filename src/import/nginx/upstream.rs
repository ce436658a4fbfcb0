//! Upstreams as backends.

use std::{collections::BTreeMap, time::Duration};

use super::{Context, parse::Directive, scope::Scope, time, tls};
use crate::import::{
    At, Draft, NoteKind, SectionId, Value,
    address::{self, HostPort},
};

/// How a server of `stream` uses an upstream: what Convey has in the backend.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Use {
    connect_timeout: Duration,
    /// Further tries; `None`: as many as there are servers.
    retries: Option<u32>,
    send_proxy: Option<&'static str>,
    source_addr: Option<String>,
    /// TLS to the servers: keys and values as text, in TOML.
    tls: Option<Vec<(&'static str, String)>>,
    /// Certificates of servers are checked.
    verifies: bool,
}

/// Backends that were made: their names by what is passed to and how.
#[derive(Debug, Default)]
pub struct Made {
    names: BTreeMap<(String, Use), String>,
}

impl Use {
    /// What a server says, whose first frontend is `out`.
    pub fn of(scope: &Scope<'_>, out: SectionId, draft: &mut Draft) -> Self {
        let seconds = |text: &str| time::parse(text);
        let is_retrying = scope.text("proxy_next_upstream", draft) != Some("off");
        let tries = scope
            .text("proxy_next_upstream_tries", draft)
            .and_then(|text| text.parse::<u32>().ok());
        let source = scope.all("proxy_bind").pop();
        let address = source
            .filter(|bind| bind.args.len() == 1 && bind.arg(0) != "off")
            .map(|bind| bind.arg(0));
        let source_addr = address
            .filter(|text| text.parse::<std::net::IpAddr>().is_ok())
            .map(str::to_owned);
        if let Some(bind) = source.filter(|bind| source_addr.is_some() || bind.arg(0) == "off") {
            draft.translated(bind.id);
        }
        let verifies = scope.is_on("proxy_ssl_verify", draft);
        Self {
            connect_timeout: scope
                .text("proxy_connect_timeout", draft)
                .and_then(seconds)
                .unwrap_or(Duration::from_secs(60)),
            retries: match (is_retrying, tries) {
                (false, _) => Some(0),
                (true, Some(tries)) if tries > 0 => Some(tries - 1),
                (true, _) => None,
            },
            send_proxy: scope.is_on("proxy_protocol", draft).then_some("v1"),
            source_addr,
            tls: scope
                .is_on("proxy_ssl", draft)
                .then(|| tls_keys(scope, verifies, out, draft)),
            verifies,
        }
    }

    /// The same for connections, or for datagrams.
    pub fn of_protocol(&self, is_udp: bool, scope: &Scope<'_>, out: SectionId, draft: &mut Draft) -> Self {
        let mut of_protocol = self.clone();
        if is_udp && self.send_proxy.is_some() {
            of_protocol.send_proxy = Some("v2");
            if let Some(directive) = scope.take("proxy_protocol", draft) {
                let text = "datagrams get a PROXY header of version 2 here: the servers must read that one";
                draft.differs(directive.id, At::In(out), text);
            }
        }
        of_protocol
    }
}

fn tls_keys(
    scope: &Scope<'_>,
    verifies: bool,
    out: SectionId,
    draft: &mut Draft,
) -> Vec<(&'static str, String)> {
    let mut keys = Vec::new();
    let names = [
        ("proxy_ssl_trusted_certificate", "ca"),
        ("proxy_ssl_certificate", "cert"),
        ("proxy_ssl_certificate_key", "key"),
    ];
    for (name, key) in names {
        let directive = scope.take(name, draft).filter(|_| verifies || key != "ca");
        let path = directive.and_then(|directive| tls::file(directive, out, draft));
        keys.extend(path.map(|path| (key, path)));
    }
    let sends_name = scope.is_on("proxy_ssl_server_name", draft);
    let name = scope
        .text("proxy_ssl_name", draft)
        .map(|name| match name.starts_with('$') {
            true => "client",
            false => name,
        });
    if let Some(name) = name.filter(|_| sends_name || verifies) {
        keys.push(("server_name", name.to_owned()));
    }
    keys
}

/// The backend for what a server passes its connections to: an upstream, or an address; `None` if there is none.
pub fn backend(
    target: &str,
    how: &Use,
    asking: &Directive,
    at: At,
    context: &mut Context<'_>,
) -> Option<String> {
    let key = (target.to_owned(), how.clone());
    if let Some(name) = context.backends.names.get(&key) {
        return Some(name.clone());
    }
    let upstream = context.upstreams.get(target).copied();
    let direct = upstream.is_none().then(|| addr(target)).flatten();
    if upstream.is_none() && direct.is_none() {
        let text = format!("`{target}` is neither an upstream of this file nor an address with a port");
        context.draft.no_equal(asking.id, at, &text);
        return None;
    }
    let servers_in_it = upstream.map_or(1, |upstream| upstream.inner().len());
    let Some(left) = context.left.checked_sub(servers_in_it) else {
        context.draft.no_equal(
            asking.id,
            at,
            "there are more backends before it than any real file has",
        );
        return None;
    };
    context.left = left;
    let name = context.draft.backend_name(target);
    let out = context.draft.section(&["backends", &name]);
    let count = match (upstream, direct) {
        (Some(upstream), _) => servers(upstream, &name, out, context),
        (None, Some(addr)) => {
            let server = context.draft.server_name(&name, "server1");
            let mut keys: Vec<(&str, Value)> = vec![("addr", addr.clone().into())];
            if is_name(&addr) {
                keys.push(("resolve", "all".into()));
            }
            context.draft.set(out, &["servers", &server], Value::table(keys));
            context
                .draft
                .set(out, &["passive_check"], Value::table([("enabled", false)]));
            1
        }
        (None, None) => 0,
    };
    settings(how, target, count, &name, out, context);
    context.backends.names.insert(key, name.clone());
    Some(name)
}

/// An upstream that nothing passes connections to.
pub fn unused(upstream: &Directive, context: &mut Context<'_>) {
    let name = context.draft.backend_name(upstream.arg(0));
    let out = context.draft.section(&["backends", &name]);
    servers(upstream, &name, out, context);
    context
        .draft
        .set(out, &["health_check"], Value::table([("enabled", false)]));
}

fn settings(how: &Use, target: &str, count: usize, name: &str, out: SectionId, context: &mut Context<'_>) {
    let draft = &mut *context.draft;
    if !how.connect_timeout.is_zero() {
        draft.set(out, &["connect_timeout"], Value::duration(how.connect_timeout));
    }
    let others = u32::try_from(count.saturating_sub(1)).unwrap_or(u32::MAX);
    draft.set(out, &["retries"], how.retries.unwrap_or(others).min(MAX_RETRIES));
    if let Some(version) = how.send_proxy {
        draft.set(out, &["send_proxy"], version);
    }
    if let Some(source) = &how.source_addr {
        draft.set(out, &["source_addr"], source.as_str());
    }
    // only connections of clients tell it that a server does not answer
    draft.set(out, &["health_check"], Value::table([("enabled", false)]));
    if let Some(keys) = &how.tls {
        let tls = draft.section(&["backends", name, "tls"]);
        if !how.verifies {
            draft.set(tls, &["verify"], false);
        }
        for (key, value) in keys {
            draft.set(tls, &[key], value.as_str());
        }
        if how.verifies && !keys.iter().any(|(key, _)| *key == "server_name") {
            draft.set(tls, &["server_name"], HostPort::parse(target, false).host);
        }
    }
}

/// Most retries that a backend may have.
const MAX_RETRIES: u32 = 100;

/// Writes the servers of an upstream and how they are chosen; says how many.
fn servers(upstream: &Directive, backend: &str, out: SectionId, context: &mut Context<'_>) -> usize {
    context.draft.translated(upstream.id);
    let servers: Vec<&Directive> = upstream
        .inner()
        .iter()
        .filter(|inner| inner.name == "server")
        .collect();
    for inner in upstream.inner() {
        balance(inner, out, context.draft);
    }
    for (index, server) in servers.iter().enumerate() {
        let Some(addr) = addr(server.arg(0)) else {
            context
                .draft
                .no_equal(server.id, At::In(out), "it is not an address with a port");
            continue;
        };
        let keys = keys(server, &addr, out, context.draft);
        let name = context
            .draft
            .server_name(backend, &format!("server{}", index + 1));
        context.draft.set(out, &["servers", &name], Value::table(keys));
        context.draft.translated(server.id);
    }
    passive(&servers, out, context.draft);
    servers.len()
}

fn keys(server: &Directive, addr: &str, out: SectionId, draft: &mut Draft) -> Vec<(&'static str, Value)> {
    let mut keys: Vec<(&'static str, Value)> = vec![("addr", addr.into())];
    if is_name(addr) {
        keys.push(("resolve", "all".into()));
    }
    let mut weight: Option<u32> = None;
    for arg in server.args.iter().skip(1) {
        let (name, value) = arg.split_once('=').unwrap_or((arg, ""));
        match name {
            "weight" => weight = weight.or_else(|| value.parse().ok()),
            "down" => weight = Some(0),
            "backup" => keys.push(("priority", 2_u32.into())),
            "max_conns" => {
                if let Some(most) = value.parse::<u32>().ok().filter(|most| *most > 0) {
                    keys.push(("max_connections", most.into()));
                }
            }
            "max_fails" | "fail_timeout" | "resolve" => {}
            "slow_start" => {
                let text = "see slow_start of the backend";
                draft.note(server.id, At::In(out), arg, NoteKind::NoEqual, text);
            }
            _ => draft.note(server.id, At::In(out), arg, NoteKind::NoEqual, ""),
        }
    }
    if let Some(weight) = weight.filter(|weight| *weight != 1) {
        keys.push(("weight", weight.into()));
    }
    keys
}

/// `max_fails` and `fail_timeout`, which Convey has for all servers of a backend together.
fn passive(servers: &[&Directive], out: SectionId, draft: &mut Draft) {
    let of = |server: &Directive| {
        let arg = |name: &str| {
            let mut args = server.args.iter().filter_map(|arg| arg.split_once('='));
            args.find(|(key, _)| *key == name)
                .map(|(_, value)| value.to_owned())
        };
        let fails = arg("max_fails")
            .and_then(|text| text.parse::<u32>().ok())
            .unwrap_or(1);
        let time = arg("fail_timeout")
            .and_then(|text| time::parse(&text))
            .unwrap_or(Duration::from_secs(10));
        (fails, time)
    };
    let Some(first) = servers.first() else { return };
    let (fails, time) = of(first);
    // of a single server nginx does not count failures
    let value = if servers.len() == 1 || fails == 0 || time.is_zero() {
        Value::table([("enabled", false)])
    } else {
        Value::table([
            ("max_failures", Value::from(fails)),
            ("ejection_time", Value::duration(time)),
            ("max_ejection_time", Value::duration(time)),
        ])
    };
    draft.set(out, &["passive_check"], value);
    for server in servers.iter().filter(|server| of(server) != (fails, time)) {
        let text = "max_fails and fail_timeout: failures of all servers of a backend count alike here, as those of the first one";
        draft.differs(server.id, At::In(out), text);
    }
}

fn balance(directive: &Directive, out: SectionId, draft: &mut Draft) {
    let value = match (directive.name.as_str(), directive.arg(0)) {
        ("server", _) => return,
        ("least_conn", _) => "least_connections",
        ("hash", "$remote_addr" | "$binary_remote_addr" | "${remote_addr}") | ("ip_hash", _) => "source_hash",
        ("hash", _) => {
            let text = "Convey knows the client's address only: see source_hash; servers are chosen in turn";
            return draft.no_equal(directive.id, At::In(out), text);
        }
        ("random", "two") => {
            if directive.arg(1).starts_with("least_time") {
                draft.differs(
                    directive.id,
                    At::In(out),
                    "the one with fewer connections is chosen, not the faster one",
                );
            }
            "power_of_two"
        }
        ("random", _) => "random",
        ("least_time", _) => {
            draft.differs(
                directive.id,
                At::In(out),
                "the one with the fewest connections is chosen, not the fastest",
            );
            "least_connections"
        }
        // shared memory, and names that are asked for as the host does it
        ("zone", _) => return draft.translated(directive.id),
        ("resolver" | "resolver_timeout", _) => {
            let text =
                "names are resolved as this host does it; see discovery with kind = \"dns\" for resolvers";
            return draft.no_equal(directive.id, At::In(out), text);
        }
        _ => return draft.no_equal(directive.id, At::In(out), ""),
    };
    draft.set(out, &["balance"], value);
    draft.translated(directive.id);
}

/// The address of a server as Convey has it.
fn addr(text: &str) -> Option<String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return Some(format!("unix:{path}"));
    }
    if text.contains('$') {
        return None;
    }
    let HostPort { host, port } = HostPort::parse(text, false);
    let port = address::port(&port?)?;
    address::is_host(&host).then(|| address::joined(&host, port))
}

fn is_name(addr: &str) -> bool {
    !addr.starts_with("unix:") && HostPort::parse(addr, false).ip().is_none()
}
