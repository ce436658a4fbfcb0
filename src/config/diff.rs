//! What differs between two configurations, in words.

mod routes;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    sync::Arc,
};

use super::{
    Diff,
    model::{Backend, Config, Frontend, Server},
    named_server::NamedServer,
    settings::{self, Setting, Settings},
};
use crate::base::{BackendName, ServerName};

/// Settings that a running process cannot change.
const NEEDS_RESTART: [(&str, &str); 9] = [
    ("global", "workers"),
    ("global", "user"),
    ("global", "state_dir"),
    ("admin", "socket"),
    ("admin", "allow_config_writes"),
    ("packet", "engine"),
    ("packet", "xdp_mode"),
    ("packet", "workers"),
    ("packet", "max_flows"),
];

/// What a change does that its values do not show.
const EFFECTS: [(&str, &str); 1] = [(
    "hash_seed",
    "the next connection or flow of a client may use another server; existing ones keep theirs",
)];

/// Compares two configurations.
pub fn diff(old: &Config, new: &Config) -> Diff {
    let mut found = Diff::default();
    top(
        &mut found,
        "global",
        &settings::global(&old.global),
        &settings::global(&new.global),
    );
    top(
        &mut found,
        "admin",
        &settings::admin(&old.admin),
        &settings::admin(&new.admin),
    );
    optional(
        &mut found.changes,
        "stats",
        old.stats.as_ref().map(settings::stats),
        new.stats.as_ref().map(settings::stats),
    );
    top(
        &mut found,
        "packet",
        &settings::packet(&old.packet),
        &settings::packet(&new.packet),
    );
    each(
        &old.network_lists,
        &new.network_lists,
        "network list",
        &mut found.changes,
        |label, old, new, out| {
            let (old, new) = (old.path.display(), new.path.display());
            out.push(format!("{label}: {old} -> {new}"));
        },
    );
    top(
        &mut found,
        "hooks",
        &settings::hooks(&old.hooks),
        &settings::hooks(&new.hooks),
    );
    optional(
        &mut found.changes,
        "acme",
        old.acme.as_ref().map(settings::acme),
        new.acme.as_ref().map(settings::acme),
    );
    optional(
        &mut found.changes,
        "otlp",
        old.otlp.as_ref().map(settings::otlp),
        new.otlp.as_ref().map(settings::otlp),
    );
    each(
        &old.frontends,
        &new.frontends,
        "frontend",
        &mut found.changes,
        |label, old, new, out| frontend(label, old, new, out),
    );
    listeners(&mut found, old, new);
    each(
        &old.backends,
        &new.backends,
        "backend",
        &mut found.changes,
        |label, old, new, out| backend(label, old, new, out),
    );
    found.backends = backends_concerned(old, new);
    found
}

/// Backends of the new configuration whose clients a change may concern.
fn backends_concerned(old: &Config, new: &Config) -> Vec<BackendName> {
    let changed = (new.backends.iter())
        .filter(|(name, backend)| old.backends.get(*name) != Some(*backend))
        .map(|(name, _)| name);
    let led_to = (new.frontends.iter())
        .filter(|(name, frontend)| old.frontends.get(*name) != Some(*frontend))
        .flat_map(|(_, frontend)| frontend.targets());
    let all: BTreeSet<&BackendName> = changed.chain(led_to).collect();
    all.into_iter().cloned().collect()
}

/// Options of listeners that stay: who binds one gives them to it.
fn listeners(found: &mut Diff, old: &Config, new: &Config) {
    let bound = |config: &Config| -> BTreeMap<_, _> {
        let frontends = config
            .frontends
            .values()
            .filter(|frontend| !frontend.mode.is_packet());
        frontends
            .flat_map(|frontend| {
                let options = frontend.client_socket;
                frontend
                    .endpoints()
                    .map(move |endpoint| (endpoint, (frontend.name.clone(), options)))
            })
            .collect()
    };
    let (before, after) = (bound(old), bound(new));
    let both = after
        .iter()
        .filter_map(|(endpoint, (name, after))| Some((name, before.get(endpoint)?.1, *after)));
    let mut names = Vec::new();
    for (name, before, after) in both {
        let differing = [
            ("mark", before.mark != after.mark),
            ("receive_buffer", before.receive_buffer != after.receive_buffer),
            ("send_buffer", before.send_buffer != after.send_buffer),
        ];
        for (key, _) in differing.iter().filter(|(_, differs)| *differs) {
            names.push(format!("frontends.{name}.client_socket.{key}"));
        }
    }
    names.sort();
    names.dedup();
    found.needs_restart.extend(names);
}

impl Config {
    /// Takes over the frontends and backends of the running configuration that are equal, so that what has not changed is
    /// the same [`Arc`].
    pub fn keep(&mut self, running: &Self) {
        keep(&mut self.frontends, &running.frontends);
        keep(&mut self.backends, &running.backends);
    }
}

fn keep<N: Ord, T: PartialEq>(new: &mut BTreeMap<N, Arc<T>>, running: &BTreeMap<N, Arc<T>>) {
    for (name, new) in new {
        if let Some(same) = running.get(name).filter(|running| *running == new) {
            *new = Arc::clone(same);
        }
    }
}

/// A section that is always there; some of its settings need a restart.
fn top(found: &mut Diff, name: &'static str, old: &Settings, new: &Settings) {
    for (key, _, _) in differing(old, new) {
        if NEEDS_RESTART.contains(&(name, key)) {
            found.needs_restart.push(format!("{name}.{key}"));
        }
    }
    changed(&mut found.changes, name, "", old, new);
}

/// A section that may be absent.
fn optional(out: &mut Vec<String>, name: &str, old: Option<Settings>, new: Option<Settings>) {
    match (old, new) {
        (None, None) => {}
        (Some(_), None) => out.push(format!("{name}: removed")),
        (None, Some(_)) => out.push(format!("{name}: added")),
        (Some(old), Some(new)) => changed(out, name, "", &old, &new),
    }
}

fn frontend(label: &str, old: &Frontend, new: &Frontend, out: &mut Vec<String>) {
    changed(out, label, "", &settings::frontend(old), &settings::frontend(new));
    let keepalive = |frontend: &Frontend| settings::keepalive(frontend.client_keepalive);
    changed(out, label, "client_keepalive.", &keepalive(old), &keepalive(new));
    let socket = |frontend: &Frontend| settings::socket(frontend.client_socket);
    changed(out, label, "client_socket.", &socket(old), &socket(new));
    routes::compare(label, &old.routing.routes, &new.routing.routes, out);
    optional(
        out,
        &format!("{label}: tls"),
        old.tls.as_ref().map(settings::tls),
        new.tls.as_ref().map(settings::tls),
    );
    optional(
        out,
        &format!("{label}: udp"),
        old.udp.as_ref().map(settings::udp),
        new.udp.as_ref().map(settings::udp),
    );
    let log = |frontend: &Frontend| settings::connection_log(&frontend.connection_log);
    changed(out, label, "connection_log.", &log(old), &log(new));
    let proxy = |frontend: &Frontend| settings::proxy_protocol(frontend.proxy_protocol.as_ref());
    changed(out, label, "proxy_protocol.", &proxy(old), &proxy(new));
    let access = |frontend: &Frontend| settings::access(frontend.access.as_ref());
    changed(out, label, "access.", &access(old), &access(new));
    let limits = |frontend: &Frontend| settings::limits(&frontend.limits);
    changed(out, label, "limits.", &limits(old), &limits(new));
    let per_client = |frontend: &Frontend| settings::per_client(&frontend.limits);
    changed(
        out,
        label,
        "limits.per_client.",
        &per_client(old),
        &per_client(new),
    );
}

fn backend(label: &str, old: &Backend, new: &Backend, out: &mut Vec<String>) {
    changed(out, label, "", &settings::backend(old), &settings::backend(new));
    let keepalive = |backend: &Backend| settings::keepalive(backend.server_keepalive);
    changed(out, label, "server_keepalive.", &keepalive(old), &keepalive(new));
    let socket = |backend: &Backend| settings::server_socket(backend.server_socket);
    changed(out, label, "server_socket.", &socket(old), &socket(new));
    let checks = |backend: &Backend| settings::health_check(backend.health_check.as_ref());
    changed(out, label, "health_check.", &checks(old), &checks(new));
    let checks_tls = |backend: &Backend| {
        let check = backend.health_check.as_ref()?;
        check.tls.as_ref().map(settings::backend_tls)
    };
    optional(
        out,
        &format!("{label}: health_check.tls"),
        checks_tls(old),
        checks_tls(new),
    );
    optional(
        out,
        &format!("{label}: agent_check"),
        old.agent_check.as_ref().map(settings::agent_check),
        new.agent_check.as_ref().map(settings::agent_check),
    );
    let passive = |backend: &Backend| settings::passive_check(backend.passive_check.as_ref());
    changed(out, label, "passive_check.", &passive(old), &passive(new));
    optional(
        out,
        &format!("{label}: sticky"),
        old.sticky.as_ref().map(settings::sticky),
        new.sticky.as_ref().map(settings::sticky),
    );
    optional(
        out,
        &format!("{label}: tls"),
        old.tls.as_ref().map(settings::backend_tls),
        new.tls.as_ref().map(settings::backend_tls),
    );
    optional(
        out,
        &format!("{label}: discovery"),
        discovery_section(old),
        discovery_section(new),
    );
    let label = format!("{label}: server");
    each(
        &named_servers(old),
        &named_servers(new),
        &label,
        out,
        |label, old: &&NamedServer, new, out| {
            let (old, new) = (settings::named_server(old), settings::named_server(new));
            changed(out, label, "", &old, &new);
        },
    );
    each(
        &old.servers,
        &new.servers,
        &label,
        out,
        |label, old: &Server, new, out| {
            changed(out, label, "", &settings::server(old), &settings::server(new));
        },
    );
}

fn discovery_section(backend: &Backend) -> Option<Settings> {
    let discovery = backend.discovery.as_ref()?;
    discovery
        .source
        .named()
        .is_empty()
        .then(|| settings::discovery(discovery))
}

fn named_servers(backend: &Backend) -> BTreeMap<&ServerName, &NamedServer> {
    let named = backend
        .discovery
        .iter()
        .flat_map(|discovery| discovery.source.named());
    named.map(|server| (&server.name, server)).collect()
}

/// Removed, changed and added entries of a map, in the order of the names.
fn each<N: Ord + Display, T: PartialEq>(
    old: &BTreeMap<N, T>,
    new: &BTreeMap<N, T>,
    kind: &str,
    out: &mut Vec<String>,
    compare: impl Fn(&str, &T, &T, &mut Vec<String>),
) {
    let names: BTreeSet<&N> = old.keys().chain(new.keys()).collect();
    for name in names {
        let label = format!("{kind} {name}");
        match (old.get(name), new.get(name)) {
            (Some(old), Some(new)) if old != new => compare(&label, old, new, out),
            (Some(_), None) => out.push(format!("{label}: removed")),
            (None, Some(_)) => out.push(format!("{label}: added")),
            _ => {}
        }
    }
}

fn changed(out: &mut Vec<String>, label: &str, prefix: &str, old: &Settings, new: &Settings) {
    for (key, old, new) in differing(old, new) {
        let change = match (old, new) {
            (Setting::Secret(_), Setting::Secret(_)) => "changed".to_owned(),
            _ => format!("{} -> {}", words(old), words(new)),
        };
        let effect = EFFECTS.iter().find(|(of, _)| *of == key);
        let effect = effect.map_or_else(String::new, |(_, effect)| format!(": {effect}"));
        out.push(format!("{label}: {prefix}{key} {change}{effect}"));
    }
}

/// Keys whose settings differ; of those that only one side has (the details of a check that is off) none.
fn differing<'a>(
    old: &'a Settings,
    new: &'a Settings,
) -> impl Iterator<Item = (&'static str, &'a Setting, &'a Setting)> {
    old.iter().filter_map(|(key, before)| {
        let (_, after) = new.iter().find(|(other, _)| other == key)?;
        (before != after).then_some((*key, before, after))
    })
}

/// A setting for reading: without the quotes of a string.
fn words(setting: &Setting) -> &str {
    match setting {
        Setting::Unset(meaning) => meaning,
        Setting::Secret(_) => "a secret one",
        Setting::Value(value) if value == "\"\"" => value,
        Setting::Value(value) => value
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'))
            .unwrap_or(value),
    }
}
