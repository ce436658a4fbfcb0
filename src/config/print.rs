//! The canonical text of a configuration.

use std::fmt::Write;

use super::{
    model::{Backend, Config},
    quote::key,
    settings::{self, Setting, Settings},
};

/// Prints every section with every value, names sorted.
pub fn print(config: &Config) -> String {
    let Config {
        global,
        admin,
        stats,
        packet,
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
    for (name, frontend) in frontends {
        section(
            &mut out,
            &["frontends", name.as_str()],
            settings::frontend(frontend),
        );
    }
    for backend in backends.values() {
        print_backend(&mut out, backend);
    }
    out
}

fn print_backend(out: &mut String, backend: &Backend) {
    let name = backend.name.as_str();
    section(out, &["backends", name], settings::backend(backend));
    section(
        out,
        &["backends", name, "health_check"],
        settings::health_check(backend.health_check.as_ref()),
    );
    section(
        out,
        &["backends", name, "passive_check"],
        settings::passive_check(backend.passive_check.as_ref()),
    );
    for (server, settings) in &backend.servers {
        section(
            out,
            &["backends", name, "servers", server.as_str()],
            settings::server(settings),
        );
    }
}

fn section(out: &mut String, path: &[&str], settings: Settings) {
    if !out.is_empty() {
        out.push('\n');
    }
    let path: Vec<String> = path.iter().map(|name| key(name)).collect();
    let _infallible = writeln!(out, "[{}]", path.join("."));
    for (name, setting) in settings {
        let _infallible = match setting {
            Setting::Value(value) | Setting::Secret(value) => writeln!(out, "{name} = {value}"),
            Setting::Unset(meaning) => writeln!(out, "# {name} is not set: {meaning}"),
        };
    }
}
