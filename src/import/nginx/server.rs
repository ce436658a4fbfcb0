//! A `server` of `stream` as a frontend.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Context, access, explain,
    listen::{self, Listen, Options},
    map::{self, Asks, Map},
    parse::Directive,
    scope::Scope,
    time, tls,
    upstream::{self, Use},
};
use crate::import::{At, NoteKind, SectionId, Value};

/// Where the connections of a server go.
#[derive(Debug, Default)]
struct Ways {
    /// Patterns of names, or destinations, with a backend; `None` rejects.
    routes: Vec<(Vec<String>, Option<String>)>,
    /// What is asked for them.
    asks: Option<Asks>,
    /// The backend of all others.
    backend: Option<String>,
}

/// Most patterns of a route.
const MOST_PATTERNS: usize = 100;

/// Translates a server.
pub fn translate(block: &Directive, scope: &Scope<'_>, context: &mut Context<'_>) {
    let own = |name: &str| {
        scope
            .own()
            .iter()
            .filter(|directive| directive.name == name)
            .collect::<Vec<_>>()
    };
    let listens: Vec<Listen<'_>> = own("listen")
        .into_iter()
        .map(|line| listen::read(line, &mut context.left))
        .collect();
    let groups = groups(&listens);
    let pass = own("proxy_pass").pop();
    let Some(pass) = pass.filter(|_| !groups.is_empty()) else {
        let addresses: Vec<String> = listens
            .iter()
            .map(|listen| listen.directive.args.join(" "))
            .collect();
        let addresses = addresses.join(", ");
        let text = match pass {
            None => format!("it passes connections nowhere that Convey could; it listens on {addresses}"),
            Some(pass) => format!(
                "Convey cannot listen where it does ({addresses}); it passes connections to {}",
                pass.arg(0)
            ),
        };
        context
            .draft
            .note(block.id, At::Top, "server", NoteKind::NoEqual, &text);
        for listen in listens.iter().filter(|_| pass.is_some()) {
            listen.account_at(context.draft, At::Top);
        }
        for inner in block.inner() {
            context.draft.translated(inner.id);
        }
        return;
    };
    context.draft.translated(block.id);
    let wanted = match pass.arg(0).contains(['$', ':']) {
        true => name_of(&groups),
        false => pass.arg(0).to_owned(),
    };
    let mut outs: Vec<(SectionId, String)> = Vec::new();
    for _ in &groups {
        let name = context.draft.frontend_name(&wanted);
        outs.push((context.draft.section(&["frontends", &name]), name));
    }
    let Some((first, _)) = outs.first().cloned() else {
        return;
    };
    let how = Use::of(scope, first, context.draft);
    let mut of_protocols: BTreeMap<bool, Ways> = BTreeMap::new();
    for ((options, places), (out, name)) in groups.iter().zip(&outs) {
        for listen in listens.iter().filter(|listen| listen.options == *options) {
            listen.account(context.draft, *out);
        }
        families(places, block, *out, context);
        context
            .draft
            .set(*out, &["listen_addr"], Value::one_or_more(places.clone()));
        frontend(options, scope, *out, name, context);
        let ways = of_protocols.entry(options.is_udp).or_insert_with(|| {
            let how = how.of_protocol(options.is_udp, scope, *out, context.draft);
            ways(pass, &how, *out, context)
        });
        write_ways(ways, pass, (options, scope), *out, name, context);
    }
    for listen in listens.iter().filter(|listen| listen.places.is_empty()) {
        listen.account(context.draft, first);
    }
    explain::server(scope, At::In(first), context.draft);
}

fn groups(listens: &[Listen<'_>]) -> Vec<(Options, Vec<String>)> {
    let mut groups: Vec<(Options, Vec<String>)> = Vec::new();
    for listen in listens.iter().filter(|listen| !listen.places.is_empty()) {
        match groups.iter_mut().find(|(options, _)| *options == listen.options) {
            Some((_, places)) => places.extend(listen.places.iter().cloned()),
            None => groups.push((listen.options.clone(), listen.places.clone())),
        }
    }
    groups
}

/// A server has no name: that of its first address.
fn name_of(groups: &[(Options, Vec<String>)]) -> String {
    let Some((options, places)) = groups.first() else {
        return String::new();
    };
    let port = places
        .first()
        .and_then(|place| place.rsplit_once(':'))
        .map_or("", |(_, port)| port);
    let port = port.rsplit('/').next().unwrap_or(port);
    let protocol = if options.is_udp { "udp" } else { "tcp" };
    format!("{protocol}-{port}")
}

/// `[::]` takes IPv4 as well here.
fn families(places: &[String], block: &Directive, out: SectionId, context: &mut Context<'_>) {
    let listens = block.inner().iter().filter(|inner| inner.name == "listen");
    if listens
        .flat_map(|listen| &listen.args)
        .any(|arg| arg == "ipv6only=off")
    {
        return;
    }
    let known: BTreeSet<&str> = places.iter().map(String::as_str).collect();
    for place in places {
        let Some(port) = place.strip_prefix("[::]:") else {
            continue;
        };
        if !known.contains(format!("0.0.0.0:{port}").as_str()) {
            let text = "nginx takes IPv6 only there (ipv6only=on); here this address takes IPv4 as well";
            context.draft.note(
                block.id,
                At::In(out),
                &format!("listen {place}"),
                NoteKind::Differs,
                text,
            );
        }
    }
}

fn ways(pass: &Directive, how: &Use, out: SectionId, context: &mut Context<'_>) -> Ways {
    let at = At::In(out);
    let target = pass.arg(0);
    let variable = target
        .strip_prefix("${")
        .and_then(|rest| rest.strip_suffix('}'))
        .map(|name| format!("${name}"));
    let variable = variable.unwrap_or_else(|| target.to_owned());
    if !variable.starts_with('$') {
        let backend = upstream::backend(target, how, pass, at, context);
        context.draft.translated(pass.id);
        return Ways {
            backend,
            ..Ways::default()
        };
    }
    let Some(block) = context.maps.get(variable.as_str()).copied() else {
        context.draft.no_equal(
            pass.id,
            at,
            "no map makes this variable, so the servers are not known: write them as a backend",
        );
        return Ways::default();
    };
    context.draft.translated(pass.id);
    context.draft.translated(block.id);
    let map = map::read(block);
    let Some(left) = context.left.checked_sub(map.entries.len()) else {
        context
            .draft
            .no_equal(block.id, at, "more servers use large maps than any real file has");
        return Ways::default();
    };
    context.left = left;
    for line in block.inner() {
        context.draft.translated(line.id);
    }
    of_map(&map, block, how, at, context)
}

fn of_map(map: &Map<'_>, block: &Directive, how: &Use, at: At, context: &mut Context<'_>) -> Ways {
    if let Err(why) = &map.asks {
        context.draft.no_equal(block.id, at, why);
    }
    for (line, why) in &map.others {
        context.draft.no_equal(line.id, at, why);
    }
    let mut ways = Ways {
        asks: map.asks.as_ref().ok().copied(),
        ..Ways::default()
    };
    for entry in &map.entries {
        // what leads nowhere is refused there, too
        let backend = match entry.value {
            "" => None,
            value => upstream::backend(value, how, entry.directive, at, context),
        };
        match ways.routes.last_mut() {
            Some((patterns, last))
                if *last == backend && patterns.len() + entry.patterns.len() <= MOST_PATTERNS =>
            {
                patterns.extend(entry.patterns.iter().cloned());
            }
            _ => ways.routes.push((entry.patterns.clone(), backend)),
        }
    }
    match map.default {
        "" => {}
        // who is refused there must not come in here
        default if map.is_refusing_more => {
            let text = format!(
                "lines of it that have no equal refuse connections, and these would come to its default `{default}`: that is left out. Write \
                 it as `backend` if it is for all"
            );
            context.draft.no_equal(block.id, at, &text);
        }
        default => ways.backend = upstream::backend(default, how, block, at, context),
    }
    ways
}

fn write_ways(
    ways: &Ways,
    pass: &Directive,
    (options, scope): (&Options, &Scope<'_>),
    out: SectionId,
    name: &str,
    context: &mut Context<'_>,
) {
    let mut backend = ways.backend.as_deref();
    let mut routes = ways.routes.as_slice();
    if ways.asks == Some(Asks::Source) && access::knows_peers_only(options, scope) {
        let text = "without set_real_ip_from the map asks for the load balancer that connects, and routes for the client that the PROXY \
                    header names: there is no route here";
        context.draft.no_equal(pass.id, At::In(out), text);
        backend = backend.filter(|_| routes.iter().all(|(_, backend)| backend.is_some()));
        routes = &[];
    }
    match backend {
        Some(backend) => context.draft.set(out, &["backend"], backend),
        None if routes.iter().any(|(_, backend)| backend.is_some()) => {}
        None => unknown_servers(out, name, context),
    }
    let key = match ways.asks {
        Some(Asks::Name) => "sni",
        Some(Asks::Protocol) => "alpn",
        Some(Asks::Source) => "source",
        Some(Asks::Port) => "destination",
        None => return,
    };
    for (patterns, backend) in routes {
        let route = context.draft.item(&["frontends", name, "routes"]);
        context
            .draft
            .set(route, &[key], Value::one_or_more(patterns.clone()));
        match backend {
            Some(backend) => context.draft.set(route, &["backend"], backend.as_str()),
            None => context.draft.set(route, &["reject"], true),
        }
    }
    let needs_hello = ["sni", "alpn"].contains(&key) && !routes.is_empty();
    if needs_hello && !options.is_tls {
        let timeout = scope.text("preread_timeout", context.draft).and_then(time::parse);
        let timeout = timeout.unwrap_or(std::time::Duration::from_secs(30));
        context
            .draft
            .set(out, &["client_hello_timeout"], Value::duration(timeout));
        // what has no name has an empty one there
        if backend.is_some() {
            context.draft.set(out, &["non_tls"], "backend");
        }
    }
}

/// A backend without servers, which refuses connections: a frontend has one.
fn unknown_servers(out: SectionId, name: &str, context: &mut Context<'_>) {
    let backend = context.draft.backend_name(name);
    context.draft.set(out, &["backend"], backend.as_str());
    let section = context.draft.section(&["backends", &backend]);
    let text = "Which servers these connections go to is not known, and without one they are refused: add them here.";
    context.draft.comment(At::In(section), text);
}

/// Everything of a frontend but where its connections go.
fn frontend(options: &Options, scope: &Scope<'_>, out: SectionId, name: &str, context: &mut Context<'_>) {
    let draft = &mut *context.draft;
    if options.is_udp {
        draft.set(out, &["protocol"], "udp");
    }
    for (key, value) in &options.keys {
        draft.set(out, &[key], value.clone());
    }
    let idle = scope.text("proxy_timeout", draft).and_then(time::parse);
    draft.set(
        out,
        &["idle_timeout"],
        Value::duration(idle.unwrap_or(std::time::Duration::from_secs(600))),
    );
    for (name, key) in [
        ("proxy_upload_rate", "upload_rate"),
        ("proxy_download_rate", "download_rate"),
    ] {
        if let Some(rate) = scope
            .text(name, draft)
            .and_then(time::size)
            .filter(|rate| *rate > 0)
        {
            draft.set(out, &[key], rate);
        }
    }
    if let Some(log) = scope.all("access_log").pop().filter(|log| log.arg(0) == "off") {
        draft.set(out, &["access_log"], false);
        draft.translated(log.id);
    }
    let is_transparent =
        |bind: &&Directive| bind.arg(1) == "transparent" && bind.arg(0).starts_with("$remote_addr");
    if let Some(bind) = scope.all("proxy_bind").pop().filter(is_transparent) {
        draft.set(out, &["source"], "client");
        draft.differs(
            bind.id,
            At::In(out),
            "`convey check` says which routes that takes",
        );
    }
    if options.is_udp {
        let udp = draft.section(&["frontends", name, "udp"]);
        for (name, key) in [
            ("proxy_requests", "max_requests"),
            ("proxy_responses", "max_responses"),
        ] {
            if let Some(number) = scope.text(name, draft).and_then(|text| text.parse::<u32>().ok()) {
                responses(key, number, udp, draft, scope);
            }
        }
    }
    if options.is_tls {
        let section = draft.section(&["frontends", name, "tls"]);
        tls::write(scope, section, draft);
    }
    access::write(options, scope, name, draft);
    limits(options, scope, out, name, context);
}

fn responses(key: &str, number: u32, udp: SectionId, draft: &mut crate::import::Draft, scope: &Scope<'_>) {
    if number > 0 {
        draft.set(udp, &[key], number);
    } else if let Some(directive) = scope
        .all("proxy_responses")
        .pop()
        .filter(|_| key == "max_responses")
    {
        let text = "no answer is expected there, so that sessions end at once: here after idle_timeout";
        draft.differs(directive.id, At::In(udp), text);
    }
}

fn limits(options: &Options, scope: &Scope<'_>, out: SectionId, name: &str, context: &mut Context<'_>) {
    for limit in scope.all("limit_conn") {
        let number = limit.arg(1).parse::<u32>().ok().filter(|number| *number > 0);
        match number.filter(|_| context.client_zones.contains(&limit.arg(0))) {
            Some(number) => {
                let section = context.draft.section(&["frontends", name, "limits"]);
                let table = Value::table([("prefix6", 128_u32), ("connections", number)]);
                context.draft.set(section, &["per_client"], table);
                context.draft.translated(limit.id);
                if access::knows_peers_only(options, scope) {
                    let text = "without set_real_ip_from it counts connections of the load balancer that connects, here those of the client \
                                that the PROXY header names";
                    context.draft.differs(limit.id, At::In(section), text);
                }
            }
            None => {
                let text = "limits are per client (limits.per_client), per frontend and per server (max_connections)";
                context.draft.no_equal(limit.id, At::In(out), text);
            }
        }
    }
}
