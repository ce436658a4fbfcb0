//! A frontend: where it listens, and what becomes of its connections.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    Context,
    bind::{self, Bind, Options, Place},
    file::Line,
    proxies::Proxy,
    rules::{self, Rules},
    time,
};
use crate::import::{At, NoteKind, SectionId, Value};

/// Most ports that are listed one by one.
const MAX_LISTED: usize = 256;

/// Translates a frontend: into one for each kind of address that it has.
pub fn translate(proxy: &Proxy, backends: &BTreeMap<&str, &Proxy>, context: &mut Context<'_>) {
    let binds: Vec<Bind> = (proxy.lines.iter().filter(|line| line.name() == "bind"))
        .map(|line| bind::read(line, &context.shared, proxy.is_http(), context.files))
        .collect();
    if is_statistics(proxy) {
        let why = "it only shows statistics: see [stats], `convey status` and the page of [admin]";
        context.draft.no_equal(proxy.header.id, At::Top, why);
        for line in proxy.lines.iter().filter(|line| !line.is_inherited) {
            context.draft.translated(line.id);
        }
        return;
    }
    if let Some(mode) = proxy.last("mode").filter(|line| line.word(1) == "health") {
        let why =
            "it only answers those who check HAProxy itself: see `convey status`, and /readyz of [admin]";
        context.draft.no_equal(proxy.header.id, At::Top, why);
        context.draft.translated(mode.id);
        for line in proxy.lines.iter().filter(|line| !line.is_inherited) {
            context.draft.translated(line.id);
        }
        return;
    }
    let groups = groups(&binds);
    let mut outs: Vec<(SectionId, String)> = Vec::new();
    for (options, _) in &groups {
        let wanted = match (&options.tls, outs.is_empty()) {
            (Some(_), false) => format!("{}-tls", proxy.name),
            _ => proxy.name.clone(),
        };
        let name = context.draft.frontend_name(&wanted);
        outs.push((context.draft.section(&["frontends", &name]), name));
    }
    let Some((first, _)) = outs.first().cloned() else {
        let why = "it listens nowhere, as far as this can be said here: what it says is left out with it";
        context.draft.no_equal(proxy.header.id, At::Top, why);
        let is_left_out =
            |line: &&Line| !line.is_inherited && (!proxy.is_backend || OF_FRONTENDS.contains(&line.name()));
        for line in proxy.lines.iter().filter(is_left_out) {
            context.draft.translated(line.id);
        }
        for bind in &binds {
            for (part, kind, text) in &bind.notes {
                context.draft.note(bind.line.id, At::Top, part, *kind, text);
            }
        }
        return;
    };
    context.frontends.insert(proxy.name.clone(), first);
    heading(proxy, first, context);
    let rules = rules::read(proxy, first, context);
    for ((options, places), (out, name)) in groups.iter().zip(&outs) {
        for bind in binds.iter().filter(|bind| bind.options == *options) {
            bind.account(context.draft, *out);
        }
        let default = rules.default.as_deref().and_then(|name| backends.get(name));
        let keeps_ranges = default.is_some_and(|backend| has_relative_ports(backend));
        listen(places, keeps_ranges, *out, proxy, context);
        one(options, &rules, *out, name, context);
        settings(proxy, backends, &rules, *out, context);
        let looks = rules.routes.iter().any(super::routes::Route::needs_hello);
        if rules.rejects_other_than_tls && !looks && options.tls.is_none() {
            let text = "without a route by `sni` or `alpn` Convey does not look whether a connection begins with TLS: those that do \
                        not are accepted here, too";
            let part = "tcp-request content reject";
            context
                .draft
                .note(proxy.header.id, At::In(*out), part, NoteKind::NoEqual, text);
        }
    }
    note_ports(&groups, &rules, context);
    context.fallbacks.extend(rules.fallbacks);
}

/// What a section without an address says for nobody, although it may have servers that others use.
const OF_FRONTENDS: [&str; 6] = [
    "acl",
    "default_backend",
    "maxconn",
    "tcp-request",
    "use_backend",
    "http-request",
];

/// Whether clients see nothing but statistics.
fn is_statistics(proxy: &Proxy) -> bool {
    let shows = proxy
        .lines
        .iter()
        .any(|line| line.name() == "stats" && !line.is_inherited)
        || proxy
            .lines
            .iter()
            .any(|line| line.words.iter().any(|word| word == "prometheus-exporter"));
    let forwards = [
        "default_backend",
        "use_backend",
        "server",
        "server-template",
        "dispatch",
    ];
    shows && !proxy.lines.iter().any(|line| forwards.contains(&line.name()))
}

fn heading(proxy: &Proxy, out: SectionId, context: &mut Context<'_>) {
    if proxy.is_http() {
        let kind = if proxy.is_backend { "listen" } else { "frontend" };
        let text = "its mode is http: Convey forwards the connections as TCP. One connection stays with one server, and nothing of \
                    HTTP is looked at or added (headers, paths, cookies, redirects)";
        let part = format!("{kind} {}", proxy.name);
        context
            .draft
            .note(proxy.header.id, At::Above(out), &part, NoteKind::Differs, text);
    }
}

/// Places by their options, in the order of the lines.
fn groups(binds: &[Bind]) -> Vec<(Options, Vec<Place>)> {
    let mut groups: Vec<(Options, Vec<Place>)> = Vec::new();
    for bind in binds.iter().filter(|bind| !bind.places.is_empty()) {
        match groups.iter_mut().find(|(options, _)| *options == bind.options) {
            Some((_, places)) => places.extend(bind.places.iter().cloned()),
            None => groups.push((bind.options.clone(), bind.places.clone())),
        }
    }
    groups
}

/// Whether the servers' ports follow from the one that a client has connected to.
fn has_relative_ports(backend: &Proxy) -> bool {
    backend
        .lines
        .iter()
        .filter(|line| line.name() == "server")
        .any(|line| {
            let port = line.word(2).rsplit_once(':').map_or("", |(_, port)| port);
            port.is_empty() || port.starts_with(['+', '-'])
        })
}

fn listen(places: &[Place], keeps_ranges: bool, out: SectionId, proxy: &Proxy, context: &mut Context<'_>) {
    let mut single: Vec<Place> = Vec::new();
    for place in places {
        if single.len() > MAX_LISTED {
            break;
        }
        // a range leads to as many ports of a server here
        if keeps_ranges {
            single.push(place.clone());
        } else {
            single.extend(place.single().into_iter().take(MAX_LISTED + 1));
        }
    }
    if single.len() > MAX_LISTED {
        let text = format!(
            "its ranges have more than {MAX_LISTED} ports that lead to one of a server: the others are left out"
        );
        let part = format!("bind of {}", proxy.name);
        context
            .draft
            .note(proxy.header.id, At::In(out), &part, NoteKind::NoEqual, &text);
        single.truncate(MAX_LISTED);
    }
    let texts: Vec<String> = single.iter().map(Place::text).collect();
    context
        .draft
        .set(out, &["listen_addr"], Value::one_or_more(texts));
}

/// What is of this frontend alone.
fn one(options: &Options, rules: &Rules, out: SectionId, name: &str, context: &mut Context<'_>) {
    let draft = &mut *context.draft;
    let backend = rules.default.as_ref().and_then(|name| context.names.get(name));
    if let Some(backend) = backend {
        draft.set(out, &["backend"], backend.as_str());
    }
    for (key, value) in &options.keys {
        draft.set(out, &[key], value.clone());
    }
    if rules.routes.iter().any(super::routes::Route::needs_hello) {
        if let Some(timeout) = rules.hello_timeout.filter(|time| !time.is_zero()) {
            draft.set(out, &["client_hello_timeout"], Value::duration(timeout));
        }
        if !rules.rejects_other_than_tls && backend.is_some() && options.tls.is_none() {
            draft.set(out, &["non_tls"], "backend");
        }
    }
    if options.accepts_proxy {
        let section = draft.section(&["frontends", name, "proxy_protocol"]);
        match rules.before_header.only_these() {
            // who else connects is reset, as there
            Some(networks) => draft.set(section, &["from"], networks),
            None => {
                let text = "accept-proxy: HAProxy believes whoever connects: name the load balancers in front of it alone";
                draft.comment(At::In(section), text);
                draft.set(section, &["from"], vec!["0.0.0.0/0", "::/0"]);
            }
        }
    } else if let Some(networks) = &rules.proxies {
        let section = draft.section(&["frontends", name, "proxy_protocol"]);
        draft.set(section, &["from"], networks.clone());
        draft.set(section, &["required"], false);
    }
    if let Some(tls) = &options.tls {
        let section = draft.section(&["frontends", name, "tls"]);
        if !tls.certificates.is_empty() {
            let pairs: Vec<Value> = tls
                .certificates
                .iter()
                .map(|path| Value::table([("cert", path.as_str())]))
                .collect();
            draft.set(section, &["certificates"], pairs);
        }
        if let Some(directory) = &tls.directory {
            draft.set(section, &["certificate_dir"], directory.as_str());
        }
        for (key, value) in &tls.keys {
            draft.set(section, &[key], value.clone());
        }
    }
    let is_said = options.accepts_proxy && rules.before_header.only_these().is_some();
    let access = match is_said {
        true => &rules.behind_header,
        false => &rules.access,
    };
    if !access.is_empty() {
        let section = draft.section(&["frontends", name, "access"]);
        let has_header = options.accepts_proxy || rules.proxies.is_some();
        if has_header && !is_said && !rules.before_header.is_empty() {
            let text = "beside a PROXY header, `tcp-request connection` judges who connects there; here these rules judge the client \
                        that the header names, and `from` of proxy_protocol who may connect";
            draft.comment(At::In(section), text);
        }
        for (key, value) in rules::access_keys(access) {
            draft.set(section, &[key], value);
        }
    }
    for route in &rules.routes {
        route.write(name, draft);
    }
}

/// Lines that set one key each.
fn settings(
    proxy: &Proxy,
    backends: &BTreeMap<&str, &Proxy>,
    rules: &Rules,
    out: SectionId,
    context: &mut Context<'_>,
) {
    let idle = idle(proxy, backends, rules, out, context);
    context.draft.set(out, &["idle_timeout"], Value::duration(idle));
    for line in proxy.lines.iter().filter(|line| !line.is_negated) {
        match (line.name(), line.word(1)) {
            ("maxconn", number) => number_key("max_connections", number, line, out, context),
            // that of an address counts more
            ("backlog", _) if context.draft.get(out, &["backlog"]).is_some() => {
                context.draft.translated(line.id);
            }
            ("backlog", number) => number_key("backlog", number, line, out, context),
            ("timeout", "client-fin") => {
                if let Some(time) = time::parse(line.word(2)) {
                    context.draft.set(out, &["fin_timeout"], Value::duration(time));
                    context.draft.translated(line.id);
                }
            }
            ("rate-limit", "sessions") => {
                if let Some(rate) = line.word(2).parse::<u32>().ok().filter(|rate| *rate > 0) {
                    let path = context.draft.path(out);
                    let name = path.get(1).cloned().unwrap_or_default();
                    let section = context.draft.section(&["frontends", &name, "limits"]);
                    context.draft.set(section, &["new_per_second"], rate);
                    let at = if line.is_inherited {
                        At::Top
                    } else {
                        At::In(section)
                    };
                    context
                        .draft
                        .differs(line.id, at, "more connections wait there, and are reset here");
                }
            }
            _ => {}
        }
    }
}

fn number_key(key: &str, number: &str, line: &Line, out: SectionId, context: &mut Context<'_>) {
    match number.parse::<u32>() {
        // none is no limit
        Ok(0) => context.draft.translated(line.id),
        Ok(number) => {
            context.draft.set(out, &[key], number);
            context.draft.translated(line.id);
        }
        Err(_) => {}
    }
}

/// How long a connection may be idle: the shortest of what both sides have, unless it is a tunnel's; for ever without any.
fn idle(
    proxy: &Proxy,
    backends: &BTreeMap<&str, &Proxy>,
    rules: &Rules,
    out: SectionId,
    context: &mut Context<'_>,
) -> Duration {
    let mut of = |proxy: &Proxy, word: &str| {
        let line = proxy.last_of("timeout", word)?;
        let time = time::parse(line.word(2))?;
        context.draft.translated(line.id);
        Some(time).filter(|time| !time.is_zero())
    };
    let client = of(proxy, "client");
    let mut both = |backend: &Proxy| {
        // in HTTP it counts behind an upgrade only
        let tunnel = match proxy.is_http() {
            true => None,
            false => of(backend, "tunnel").or_else(|| of(proxy, "tunnel")),
        };
        tunnel.or_else(|| of(backend, "server").into_iter().chain(client).min())
    };
    let find = |name: &str| backends.get(name).copied();
    let default = rules.default.as_deref().and_then(find).map(&mut both);
    let mut others = Vec::new();
    for name in targets(rules) {
        if let Some(backend) = find(&name) {
            others.push((name, both(backend)));
        }
    }
    let idle = default
        .or_else(|| others.first().map(|(_, idle)| *idle))
        .flatten();
    if proxy.is_http() {
        let named = targets(rules);
        let all = rules.default.iter().chain(&named).filter_map(|name| find(name));
        for line in all
            .chain([proxy])
            .filter_map(|proxy| proxy.last_of("timeout", "tunnel"))
        {
            let text = "in mode http it counts behind an upgrade only, such as to WebSocket: here `timeout client` and `timeout \
                        server` end such a connection, too, once it has been idle as long (see idle_timeout)";
            let at = if line.is_inherited { At::Top } else { At::In(out) };
            context.draft.differs(line.id, at, text);
        }
    }
    for (name, other) in others {
        if other != idle {
            let text =
                "a frontend has one time for the connections to all its backends here: that of the first one";
            let part = format!("timeouts of backend {name}");
            context
                .draft
                .note(proxy.header.id, At::In(out), &part, NoteKind::Differs, text);
        }
    }
    idle.unwrap_or_default()
}

/// From which ports clients come to the backends.
fn note_ports(groups: &[(Options, Vec<Place>)], rules: &Rules, context: &mut Context<'_>) {
    let mut targets = targets(rules);
    targets.extend(rules.default.clone());
    // what is asked is the first one, and whether there is another
    let places = groups.iter().flat_map(|(_, places)| places);
    let mut first: Vec<(u16, u16)> = Vec::new();
    for place in places {
        if let Place::Ports(_, from, to) = place
            && first.len() < 2
            && !first.contains(&(*from, *to))
        {
            first.push((*from, *to));
        }
    }
    for target in targets {
        let ports = context.ports.entry(target).or_default();
        for range in &first {
            if ports.len() < 2 && !ports.contains(range) {
                ports.push(*range);
            }
        }
    }
}

/// The backends of the routes, by HAProxy's names.
fn targets(rules: &Rules) -> BTreeSet<String> {
    rules
        .routes
        .iter()
        .filter_map(|route| route.target.clone())
        .collect()
}
