//! Proxy mode, shown with real traffic in the lab. Needs root; without it every test counts as ignored.

#[path = "../../lab/mod.rs"]
mod lab;

mod access;
mod acme;
mod acme_reload;
mod acme_words;
mod admin_api;
mod api;
mod api_fuzz;
mod api_site;
mod api_writes;
mod asked;
mod balancing;
mod certbot;
mod commands;
mod connection_log;
mod counters;
mod datagrams;
mod descriptors;
mod discovery;
mod doctor;
mod harness;
mod health;
mod health_agent;
mod health_exec;
mod health_http;
mod health_kinds;
mod health_ways;
mod hooks;
#[cfg(feature = "import")]
mod imported;
#[cfg(feature = "import")]
mod imported_lvs;
mod lifecycle;
mod limits;
mod marks;
mod meanwhile;
mod metrics;
mod named;
mod options;
mod peers;
mod platforms;
mod podman;
mod preambles;
mod quic;
mod ranges;
mod reload;
mod restart;
mod saved;
mod scale;
mod sessions;
mod site;
mod sockets;
mod standby;
mod strangers;
mod tls;
mod tls_files;
mod tls_to_servers;
mod tls_to_servers_live;
mod traffic;
mod transparent;
mod udp;
mod unix_files;
mod unix_listeners;
mod unix_servers;
mod waiting;

use std::process::ExitCode;

pub(crate) use lab::suite::{Test, tests};

fn main() -> ExitCode {
    let areas: &[(&str, &[Test])] = &[
        ("harness", harness::TESTS),
        ("traffic", traffic::TESTS),
        ("reload", reload::TESTS),
        ("meanwhile", meanwhile::TESTS),
        ("ranges", ranges::TESTS),
        ("udp", udp::TESTS),
        ("sessions", sessions::TESTS),
        ("datagrams", datagrams::TESTS),
        ("quic", quic::TESTS),
        ("transparent", transparent::TESTS),
        ("marks", marks::TESTS),
        ("sockets", sockets::TESTS),
        ("unix", unix_servers::TESTS),
        ("unix", unix_listeners::TESTS),
        ("unix", unix_files::TESTS),
        ("api", api::TESTS),
        ("api", api_writes::TESTS),
        ("commands", commands::TESTS),
        ("commands", doctor::TESTS),
        ("metrics", metrics::TESTS),
        ("health", health::TESTS),
        ("health_exec", health_exec::TESTS),
        ("health_http", health_http::TESTS),
        ("health_ways", health_ways::TESTS),
        ("health_agent", health_agent::TESTS),
        ("health_kinds", health_kinds::TESTS),
        ("hooks", hooks::TESTS),
        ("waiting", waiting::TESTS),
        ("limits", limits::TESTS),
        ("options", options::TESTS),
        ("balancing", balancing::TESTS),
        #[cfg(feature = "import")]
        ("import", imported::TESTS),
        #[cfg(feature = "import")]
        ("import", imported_lvs::TESTS),
        ("access", access::TESTS),
        ("descriptors", descriptors::TESTS),
        ("peers", peers::TESTS),
        ("preambles", preambles::TESTS),
        ("tls", tls::TESTS),
        ("tls_files", tls_files::TESTS),
        ("tls_to_servers", tls_to_servers::TESTS),
        ("tls_to_servers", tls_to_servers_live::TESTS),
        ("acme", acme::TESTS),
        ("acme", acme_reload::TESTS),
        ("acme", acme_words::TESTS),
        ("admin_api", admin_api::TESTS),
        ("standby", standby::TESTS),
        ("lifecycle", lifecycle::TESTS),
        ("restart", restart::TESTS),
        ("saved", saved::TESTS),
        ("discovery", discovery::TESTS),
        ("discovery", asked::TESTS),
        ("discovery", named::TESTS),
        ("discovery", platforms::TESTS),
        ("strangers", strangers::TESTS),
        ("counters", counters::TESTS),
        ("connection_log", connection_log::TESTS),
        // `--skip measured` with many threads, `measured` with one
        ("measured", counters::MEASURED),
        ("measured", scale::TESTS),
        // `packaging/test --all`
        ("on_demand", certbot::TESTS),
        ("on_demand", podman::TESTS),
        ("on_demand", api_fuzz::TESTS),
    ];
    lab::suite::run(lab::why_not().as_deref(), areas)
}
