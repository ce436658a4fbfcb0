//! The admin API, `/v1`: JSON over HTTP, at the control socket and on TCP. What it has is in `table`; the OpenAPI document
//! at `/v1/openapi.json` is made of the same types.
//!
//! ```text
//! request ─ permit (role) ─ ask (path, query, body by their types) ─ handler ─┬─ Status, Live ──────────► answer
//!                                                                             └─ Command ─ control loop ─► answer
//! ```
//! Whoever asks never waits for the control loop unless something shall change. A walk through all flows runs on a thread
//! of its own, one at a time, so that others are answered meanwhile.
//!
//! Anything else is a [`Problem`](super::views::Problem) with its HTTP status. Names in paths are percent-encoded, `/` too.

pub mod answer;
mod ask;
mod certificates;
mod configuration;
mod connections;
pub mod context;
mod events;
mod explain;
mod history;
pub mod metrics;
mod openapi;
mod reload;
mod schemas;
mod servers;
mod session;
mod state;
mod table;

use axum::Router;

use crate::base::Role::{Configure, Operate, Read};
use context::ApiContext;
use openapi::Method::{Delete, Get, Patch, Post, Put};
use table::Table;

/// The routes of the API.
pub fn router(context: ApiContext) -> Router {
    table().finish(context)
}

/// The paths that it has.
#[cfg(test)]
pub fn paths() -> Vec<String> {
    table().paths()
}

fn table() -> Table {
    let table = Table::default()
        .add(
            (Get, "/healthz"),
            Read,
            "Whether the process is alive",
            state::healthz,
        )
        .add((Get, "/readyz"), Read, "Whether it serves traffic", state::readyz)
        .add(
            (Get, "/metrics"),
            Read,
            "Metrics as Prometheus text or OpenMetrics, as Accept prefers",
            metrics::metrics,
        )
        .add(
            (Get, "/v1/session"),
            Read,
            "Who asks, and what they may do",
            session::session,
        )
        .add(
            (Post, "/v1/session"),
            Read,
            "Log a browser in: the token of this request begins a session, which a cookie keeps",
            session::log_in,
        )
        .add(
            (Delete, "/v1/session"),
            Read,
            "End the session of this request",
            session::log_out,
        )
        .add((Get, "/v1/info"), Read, "Version and configuration", state::info)
        .add((Get, "/v1/status"), Read, "Everything at once", state::status)
        .add(
            (Get, "/v1/frontends"),
            Read,
            "All frontends by name",
            state::frontends,
        )
        .add(
            (Get, "/v1/frontends/{frontend}"),
            Read,
            "One frontend",
            state::frontend,
        )
        .add(
            (Get, "/v1/backends"),
            Read,
            "All backends by name",
            state::backends,
        )
        .add(
            (Get, "/v1/backends/{backend}"),
            Read,
            "One backend",
            state::backend,
        )
        .add((Get, "/v1/packet"), Read, "The packet modes", state::packet)
        .add(
            (Get, "/v1/firewall"),
            Read,
            "The firewall rules of the packet modes",
            state::firewall,
        )
        .add(
            (Get, "/v1/discovery"),
            Read,
            "Sources of servers by backend",
            state::discovery,
        );
    let table = table
        .add(
            (Post, "/v1/backends/{backend}"),
            Operate,
            "Override all servers of a backend",
            servers::override_backend,
        )
        .add(
            (Post, "/v1/backends/{backend}/servers"),
            Operate,
            "Add a server at run time",
            servers::add,
        )
        .add(
            (Delete, "/v1/backends/{backend}/servers/{server}"),
            Operate,
            "Remove a server that was added at run time",
            servers::remove,
        )
        .add(
            (Get, "/v1/backends/{backend}/servers/{server}"),
            Read,
            "One server",
            servers::server,
        )
        .add(
            (Post, "/v1/backends/{backend}/servers/{server}"),
            Operate,
            "Override a server",
            servers::override_server,
        )
        .add(
            (Get, "/v1/events"),
            Read,
            "The last events, or as text/event-stream those that come",
            events::events,
        )
        .add(
            (Get, "/v1/history"),
            Read,
            "The last quarter of an hour, step by step",
            history::history,
        )
        .add(
            (Get, "/v1/overrides/history"),
            Read,
            "The last overrides that were set and cleared since the start",
            events::overrides,
        )
        .add((Get, "/v1/overrides"), Read, "All overrides", servers::overrides)
        .add(
            (Delete, "/v1/overrides"),
            Operate,
            "Clear all overrides",
            servers::clear_overrides,
        )
        .add(
            (Delete, "/v1/overrides/{backend}/{server}"),
            Operate,
            "Clear the override of a server",
            servers::clear_override,
        );
    let table = table
        .add(
            (Get, "/v1/certificates"),
            Read,
            "Certificates that clients get",
            certificates::certificates,
        )
        .add(
            (Get, "/v1/acme"),
            Read,
            "Certificates that are ordered",
            certificates::acme,
        )
        .add(
            (Post, "/v1/acme/renew"),
            Operate,
            "Order certificates now",
            certificates::renew,
        )
        .add(
            (Get, "/v1/connections"),
            Read,
            "Connections, UDP sessions and flows",
            connections::list,
        )
        .add(
            (Delete, "/v1/connections"),
            Operate,
            "Close connections and UDP sessions of mode proxy, and forget flows of passthrough",
            connections::close,
        )
        .add(
            (Get, "/v1/explain"),
            Read,
            "Where packets of a 5-tuple would go, and why",
            explain::explain,
        )
        .add(
            (Get, "/v1/backend-script"),
            Read,
            "What to run on a server of mode dsr",
            explain::backend_script,
        )
        .add(
            (Post, "/v1/reload"),
            Operate,
            "Read the configuration and apply it",
            reload::reload,
        );
    table
        .add(
            (Get, "/v1/config"),
            Operate,
            "The text of the configuration in effect, with its ETag",
            configuration::text,
        )
        .add(
            (Put, "/v1/config"),
            Configure,
            "Replace the configuration file and apply it, or change nothing",
            configuration::replace,
        )
        .add(
            (Patch, "/v1/config"),
            Configure,
            "Change single settings of the configuration file and apply it, or change nothing",
            configuration::change,
        )
        .add(
            (Get, "/v1/config/resolved"),
            Operate,
            "Every setting in effect",
            configuration::resolved,
        )
        .add(
            (Post, "/v1/config/check"),
            Read,
            "What is wrong with a text",
            configuration::check,
        )
        .add(
            (Post, "/v1/config/diff"),
            Operate,
            "What a text would change",
            configuration::diff,
        )
        .add(
            (Get, "/v1/config/history"),
            Operate,
            "The texts that were in effect",
            configuration::history,
        )
        .add(
            (Get, "/v1/config/history/{revision}"),
            Operate,
            "One of them, byte for byte",
            configuration::revision,
        )
        .add(
            (Post, "/v1/config/rollback"),
            Configure,
            "Replace the configuration file by one of them and apply it",
            configuration::roll_back,
        )
}
