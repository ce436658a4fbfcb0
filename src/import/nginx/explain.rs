//! What has no equal: why, and what to do instead.

use super::{parse::Directive, scope::Scope};
use crate::import::{At, Draft};

/// Accounts for what is outside of `stream` and `http`.
pub fn main(directive: &Directive, draft: &mut Draft) {
    if draft.is_accounted_for(directive.id) {
        return;
    }
    match directive.name.as_str() {
        // how the process runs, which the package and its service say
        "user"
        | "worker_processes"
        | "pid"
        | "error_log"
        | "load_module"
        | "daemon"
        | "master_process"
        | "events"
        | "pcre_jit"
        | "worker_rlimit_nofile"
        | "worker_priority"
        | "worker_cpu_affinity"
        | "lock_file"
        | "timer_resolution"
        | "thread_pool"
        | "worker_rlimit_core"
        | "working_directory"
        | "debug_points"
        | "env"
        | "ssl_engine"
        | "worker_shutdown_timeout" => {
            draft.translated(directive.id);
        }
        _ => return,
    }
    for inner in directive.inner() {
        draft.translated(inner.id);
    }
}

/// Accounts for the rest of a server.
pub fn server(scope: &Scope<'_>, at: At, draft: &mut Draft) {
    for directive in scope.own() {
        explain(directive, at, draft);
    }
}

/// Accounts for the rest of `stream`.
pub fn stream(directives: &[Directive], draft: &mut Draft) {
    for directive in directives {
        if directive.name == "map" && !draft.is_accounted_for(directive.id) {
            draft.no_equal(directive.id, At::Top, "no `proxy_pass` uses its variable alone");
        }
        explain(directive, At::Top, draft);
        if directive.name != "server" && directive.name != "upstream" {
            for inner in directive.inner() {
                explain_inner(inner, draft);
            }
        }
    }
}

/// What is in a block that has been accounted for as a whole.
fn explain_inner(directive: &Directive, draft: &mut Draft) {
    if !draft.is_accounted_for(directive.id) {
        draft.translated(directive.id);
    }
    for inner in directive.inner() {
        explain_inner(inner, draft);
    }
}

fn explain(directive: &Directive, at: At, draft: &mut Draft) {
    if draft.is_accounted_for(directive.id) {
        return;
    }
    match fate(directive) {
        Some("") => draft.translated(directive.id),
        Some(why) => draft.no_equal(directive.id, at, why),
        None => draft.no_equal(directive.id, at, ""),
    }
}

/// Why a directive has no equal; empty if it needs none, `None` if it is not known.
#[expect(clippy::match_same_arms, reason = "a table, by what lines are about")]
fn fate(directive: &Directive) -> Option<&'static str> {
    let is_off = directive.arg(0) == "off";
    Some(match directive.name.as_str() {
        // buffers, tables and what is so here anyway
        "proxy_buffer_size"
        | "preread_buffer_size"
        | "tcp_nodelay"
        | "proxy_socket_keepalive"
        | "variables_hash_max_size"
        | "variables_hash_bucket_size"
        | "map_hash_max_size"
        | "map_hash_bucket_size"
        | "server_names_hash_max_size"
        | "server_names_hash_bucket_size"
        | "log_format"
        | "error_log"
        | "open_log_file_cache"
        | "limit_conn_zone"
        | "limit_conn_log_level"
        | "limit_conn_dry_run"
        | "ssl_preread"
        | "proxy_half_close"
        | "proxy_session_drop"
        | "proxy_ssl_session_reuse"
        | "proxy_ssl_verify_depth"
        | "zone"
        | "set_real_ip_from"
        | "proxy_next_upstream_tries"
        | "proxy_connect_timeout"
        | "proxy_timeout"
        | "proxy_next_upstream"
        | "preread_timeout"
        | "proxy_requests"
        | "proxy_responses"
        | "ssl_certificate"
        | "ssl_certificate_key"
        | "ssl_protocols"
        | "ssl_ciphers"
        | "ssl_session_cache"
        | "ssl_session_timeout"
        | "ssl_session_tickets"
        | "ssl_prefer_server_ciphers"
        | "ssl_dhparam"
        | "ssl_ecdh_curve"
        | "ssl_handshake_timeout"
        | "allow"
        | "deny"
        | "proxy_protocol"
        | "proxy_protocol_timeout"
        | "proxy_download_rate"
        | "proxy_upload_rate"
        | "proxy_ssl_server_name" => "",
        "access_log" if is_off => "",
        "access_log" => "connections are logged to the journal; see connection_log for files and syslog",
        "proxy_next_upstream_timeout" if directive.arg(0) == "0" => "",
        "proxy_next_upstream_timeout" => {
            "each try has connect_timeout of the backend, and there are at most `retries`"
        }
        "resolver" | "resolver_timeout" => {
            "names are resolved as this host does it; see discovery with kind = \"dns\" for resolvers"
        }
        "proxy_ssl" if is_off => "",
        "proxy_ssl_protocols"
        | "proxy_ssl_ciphers"
        | "proxy_ssl_conf_command"
        | "proxy_ssl_crl"
        | "proxy_ssl_password_file" => {
            "to servers Convey speaks TLS 1.2 and 1.3 with what both sides like best"
        }
        "proxy_ssl_name"
        | "proxy_ssl_trusted_certificate"
        | "proxy_ssl_certificate"
        | "proxy_ssl_certificate_key"
        | "proxy_ssl_verify" => "without `proxy_ssl on` it has no effect",
        "proxy_bind" => "connections come from one address, or the client's: see source_addr and `source`",
        "ssl_password_file" => "private keys have no password here",
        "ssl_stapling" | "ssl_stapling_file" | "ssl_stapling_verify" | "ssl_stapling_responder" => {
            "see `ocsp` of a certificate"
        }
        "ssl_session_ticket_key" => "see ticket_keys_file in [global]",
        "ssl_verify_client" if is_off => "",
        "ssl_verify_client" | "ssl_client_certificate" | "ssl_trusted_certificate" | "ssl_crl" => {
            "without `ssl` behind `listen`, or without ssl_verify_client, it has no effect"
        }
        "ssl_conf_command" | "ssl_alpn" => "see `tls` of a frontend",
        "server_name" => "see `routes` with sni",
        "geo" => "see `source` of a route, and `access`",
        "map" => "",
        "split_clients" => "see `weight` of a server",
        "set"
        | "return"
        | "status"
        | "js_include"
        | "js_import"
        | "js_set"
        | "js_access"
        | "js_preread"
        | "js_filter"
        | "js_path"
        | "js_var"
        | "preread_by_lua_block"
        | "content_by_lua_block"
        | "lua_package_path"
        | "perl_set" => "there are no variables or scripts here",
        "geoip_country" | "geoip2" | "geoip_city" | "geoip_org" => {
            "see network_lists for networks by country"
        }
        "limit_conn" => "see limits.per_client of a frontend",
        "health_check" | "health_check_timeout" | "match" | "check" => "see health_check of a backend",
        _ => return None,
    })
}
