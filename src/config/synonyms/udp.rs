//! Words of other programs that are about UDP.

use toml::de::DeValue;

use super::{own_number, own_text};

/// What a key that is about UDP was meant for (nginx's, gobetween's and awe4lb's words): the key if it is of the same section, and the
/// line.
pub fn meant(section: &str, key: &str, value: &DeValue<'_>) -> Option<(Option<&'static str>, String)> {
    let (ours, example) = match key {
        "max_requests" | "proxy_requests" | "requests" => ("max_requests", 1),
        "max_responses" | "proxy_responses" | "responses" => ("max_responses", 1),
        "max_sessions" | "maxsessions" | "max_flows" | "sessions" => ("max_sessions", 16_384),
        "buffer_size" | "buffersize" | "max_datagram_size" => ("buffer_size", 65_535),
        "idletimeoutms" | "idletimeout" | "timeout" | "idle_timeout" | "proxy_timeout"
            if section == "Udp" =>
        {
            let line = "idle_timeout = \"60s\" in [frontends.NAME], beside [frontends.NAME.udp]";
            return Some((None, line.to_owned()));
        }
        "client_idle_timeout" | "backend_idle_timeout" if section != "Udp" => {
            return Some((
                Some("idle_timeout"),
                format!("idle_timeout = {}", own_text(value, "60s")),
            ));
        }
        "transparent" => {
            let line = "source = \"client\" in [frontends.NAME], which needs routes through this host; or send_proxy = \"v2\" in [backends.NAME]";
            return Some((None, line.to_owned()));
        }
        _ => return None,
    };
    let number = own_number(value, example);
    match section {
        "Udp" => Some((Some(ours), format!("{ours} = {number}"))),
        "Frontend" | "FrontendOptions" | "Defaults" => {
            Some((None, format!("udp = {{ {ours} = {number} }} in [frontends.NAME]")))
        }
        _ => None,
    }
}
