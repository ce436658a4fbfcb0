//! The canonical text of a configuration.

use std::fmt::{Display, Write};

use super::{
    commands::Hooks,
    connection_log::ConnectionLog,
    model::{Backend, Config, Frontend},
    quote::key,
    settings::{self, Setting},
};
use crate::{
    access::Limits,
    base::{ServerSocketOptions, SocketOptions},
};

/// Prints every section with every value, names sorted.
pub fn print(config: &Config) -> String {
    let Config {
        global,
        admin,
        stats,
        packet,
        network_lists,
        hooks,
        acme,
        otlp,
        frontends,
        backends,
    } = config;
    let mut out = String::new();
    section(&mut out, &["global"], settings::global(global));
    section(&mut out, &["admin"], settings::admin(admin));
    if let Some(stats) = stats {
        section(&mut out, &["stats"], settings::stats(stats));
    }
    section(&mut out, &["packet"], settings::packet(packet));
    if !network_lists.is_empty() {
        section(
            &mut out,
            &["network_lists"],
            settings::network_lists(network_lists),
        );
    }
    if *hooks != Hooks::default() {
        section(&mut out, &["hooks"], settings::hooks(hooks));
    }
    if let Some(acme) = acme {
        section(&mut out, &["acme"], settings::acme(acme));
    }
    if let Some(otlp) = otlp {
        section(&mut out, &["otlp"], settings::otlp(otlp));
    }
    for frontend in frontends.values() {
        print_frontend(&mut out, frontend);
    }
    for backend in backends.values() {
        print_backend(&mut out, backend);
    }
    out
}

fn print_frontend(out: &mut String, frontend: &Frontend) {
    let name = frontend.name.as_str();
    section(out, &["frontends", name], settings::frontend(frontend));
    section(
        out,
        &["frontends", name, "client_keepalive"],
        settings::keepalive(frontend.client_keepalive),
    );
    if frontend.client_socket != SocketOptions::default() {
        let options = settings::socket(frontend.client_socket);
        section(out, &["frontends", name, "client_socket"], options);
    }
    for route in &frontend.routing.routes {
        item(out, &["frontends", name, "routes"], settings::route(route));
    }
    // sections that say nothing are left out, as in the file
    if let Some(tls) = &frontend.tls {
        section(out, &["frontends", name, "tls"], settings::tls(tls));
    }
    if let Some(udp) = &frontend.udp {
        section(out, &["frontends", name, "udp"], settings::udp(udp));
    }
    if frontend.connection_log != ConnectionLog::default() {
        let log = settings::connection_log(&frontend.connection_log);
        section(out, &["frontends", name, "connection_log"], log);
    }
    if frontend.proxy_protocol.is_some() {
        let proxy = settings::proxy_protocol(frontend.proxy_protocol.as_ref());
        section(out, &["frontends", name, "proxy_protocol"], proxy);
    }
    if frontend.access.is_some() {
        let access = settings::access(frontend.access.as_ref());
        section(out, &["frontends", name, "access"], access);
    }
    if frontend.limits != Limits::default() {
        section(
            out,
            &["frontends", name, "limits"],
            settings::limits(&frontend.limits),
        );
    }
    if frontend.limits.per_client.is_some() {
        let per_client = settings::per_client(&frontend.limits);
        section(out, &["frontends", name, "limits", "per_client"], per_client);
    }
}

fn print_backend(out: &mut String, backend: &Backend) {
    let name = backend.name.as_str();
    section(out, &["backends", name], settings::backend(backend));
    section(
        out,
        &["backends", name, "server_keepalive"],
        settings::keepalive(backend.server_keepalive),
    );
    if backend.server_socket != ServerSocketOptions::default() {
        let options = settings::server_socket(backend.server_socket);
        section(out, &["backends", name, "server_socket"], options);
    }
    section(
        out,
        &["backends", name, "health_check"],
        settings::health_check(backend.health_check.as_ref()),
    );
    if let Some(tls) = backend.health_check.as_ref().and_then(|check| check.tls.as_ref()) {
        let tls = settings::backend_tls(tls);
        section(out, &["backends", name, "health_check", "tls"], tls);
    }
    if let Some(agent) = &backend.agent_check {
        section(
            out,
            &["backends", name, "agent_check"],
            settings::agent_check(agent),
        );
    }
    section(
        out,
        &["backends", name, "passive_check"],
        settings::passive_check(backend.passive_check.as_ref()),
    );
    if let Some(sticky) = &backend.sticky {
        section(out, &["backends", name, "sticky"], settings::sticky(sticky));
    }
    if let Some(tls) = &backend.tls {
        section(out, &["backends", name, "tls"], settings::backend_tls(tls));
    }
    if let Some(discovery) = backend
        .discovery
        .as_ref()
        .filter(|discovery| discovery.source.named().is_empty())
    {
        let discovery = settings::discovery(discovery);
        section(out, &["backends", name, "discovery"], discovery);
    }
    for server in backend
        .discovery
        .iter()
        .flat_map(|discovery| discovery.source.named())
    {
        let settings = settings::named_server(server);
        section(
            out,
            &["backends", name, "servers", server.name.as_str()],
            settings,
        );
    }
    for (server, settings) in &backend.servers {
        section(
            out,
            &["backends", name, "servers", server.as_str()],
            settings::server(settings),
        );
    }
}

fn section<K: Display>(out: &mut String, path: &[&str], settings: Vec<(K, Setting)>) {
    headed(out, &format!("[{}]", dotted(path)), settings);
}

/// One section of a list of them.
fn item<K: Display>(out: &mut String, path: &[&str], settings: Vec<(K, Setting)>) {
    headed(out, &format!("[[{}]]", dotted(path)), settings);
}

fn dotted(path: &[&str]) -> String {
    let path: Vec<String> = path.iter().map(|name| key(name)).collect();
    path.join(".")
}

fn headed<K: Display>(out: &mut String, header: &str, settings: Vec<(K, Setting)>) {
    if !out.is_empty() {
        out.push('\n');
    }
    let _infallible = writeln!(out, "{header}");
    for (name, setting) in settings {
        let _infallible = match setting {
            Setting::Value(value) | Setting::Secret(value) => writeln!(out, "{name} = {value}"),
            Setting::Unset(meaning) => writeln!(out, "# {name} is not set: {meaning}"),
        };
    }
}
