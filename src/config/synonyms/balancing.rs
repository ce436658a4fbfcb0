//! Words of other programs that are about how a server is chosen.

use toml::de::DeValue;

use super::{own_number, own_text};

/// What a key that is about balancing was meant for (HAProxy's, nginx's, gobetween's and Envoy's words): the key if it is of the same
/// section, and the line.
pub fn meant(section: &str, key: &str, value: &DeValue<'_>) -> Option<(Option<&'static str>, String)> {
    let is_backend = matches!(section, "Backend" | "BackendOptions" | "Defaults");
    match key {
        "stick_table" | "stick" | "stick_on" | "persistence" | "session_affinity" | "affinity"
        | "sticky_sessions"
            if is_backend =>
        {
            let line = "sticky = { ttl = \"30m\", max_entries = 100_000 }".to_owned();
            Some((Some("sticky"), line))
        }
        "bounded_load" | "balance_factor" | "hash_balance" if is_backend => {
            let line = format!("hash_balance_factor = {}", own_number(value, 125));
            Some((Some("hash_balance_factor"), line))
        }
        // nginx's `hash KEY consistent`
        "hash" | "consistent_hash" | "hash_type" | "ip_hash" | "iphash" | "iphash1" if is_backend => {
            let line = "balance = \"source_hash\", which is consistent: a server that goes moves its own clients alone";
            Some((Some("balance"), line.to_owned()))
        }
        "expire" | "timeout" if section == "Sticky" => {
            Some((Some("ttl"), format!("ttl = {}", own_text(value, "30m"))))
        }
        "size" | "max_size" | "capacity" if section == "Sticky" => Some((
            Some("max_entries"),
            format!("max_entries = {}", own_number(value, 100_000)),
        )),
        _ => None,
    }
}
