//! Words of other programs that are about a connection and its listener.

use toml::de::DeValue;

use super::own_number;

/// What a key of a frontend was meant for (HAProxy's, nginx's and Envoy's words): the key if it is of the same section, and the
/// line.
pub fn meant(section: &str, key: &str, value: &DeValue<'_>) -> Option<(Option<&'static str>, String)> {
    if !matches!(section, "Frontend" | "FrontendOptions" | "Defaults") {
        return None;
    }
    let ours = match key {
        "tfo" | "fastopen" | "fast_open" | "tcp_fastopen" | "tcp_fast_open_queue_length" => "tcp_fast_open",
        "deferred" | "defer" | "tcp_defer_accept" => "defer_accept",
        "proxy_upload_rate" | "bwlim_in" | "upload_limit" | "rate_up" => "upload_rate",
        "proxy_download_rate" | "bwlim_out" | "limit_rate" | "bandwidth" | "throttle" | "download_limit" => {
            "download_rate"
        }
        "max_downstream_connection_duration" | "max_connection_duration" | "max_age" | "lifetime" => {
            "max_lifetime"
        }
        _ => return None,
    };
    let line = match ours {
        "tcp_fast_open" | "defer_accept" => format!("{ours} = true"),
        "max_lifetime" => format!("{ours} = \"12h\""),
        _ => format!("{ours} = {}, in bytes a second", own_number(value, 1_250_000)),
    };
    Some((Some(ours), line))
}
