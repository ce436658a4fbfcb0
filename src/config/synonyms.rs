//! Keys of other programs for what Convey calls otherwise. No distance between words finds these.

use toml::de::{DeTable, DeValue};

/// What a key was meant for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meant {
    /// The key of the same section; `None` if it belongs elsewhere.
    pub key: Option<&'static str>,
    /// What to write, after the word "write".
    pub line: String,
}

/// What a key of a section (by the name of its schema) was probably meant for, with the line to write for its value and what
/// stands beside it.
pub fn meant(section: &str, key: &str, table: &DeTable<'_>) -> Option<Meant> {
    let value = table.get(key)?.get_ref();
    let port = |default| {
        table
            .get("port")
            .and_then(|port| own_port(port.get_ref()))
            .unwrap_or(default)
    };
    let key = key.to_lowercase().replace('-', "_");
    let same = |key: &'static str, line: String| Some(Meant { key: Some(key), line });
    let elsewhere = |line: &str| {
        Some(Meant {
            key: None,
            line: line.to_owned(),
        })
    };
    let text = |key: &'static str, example: &str| same(key, format!("{key} = {}", own_text(value, example)));
    match (section, key.as_str()) {
        ("Frontend", "listen" | "bind" | "address" | "addr" | "port" | "host" | "vip" | "listen_address") => {
            same(
                "listen_addr",
                format!("listen_addr = {}", own_address(value, "0.0.0.0", port(80))),
            )
        }
        ("Frontend", "default_backend" | "use_backend" | "upstream" | "pool" | "proxy_pass") => {
            text("backend", "web")
        }
        ("Frontend", "server" | "servers")
        | ("File", "server" | "servers" | "upstream" | "upstreams" | "pools") => {
            elsewhere("[backends.NAME.servers] and below it one = { addr = \"10.0.0.11:8080\" }")
        }
        ("Frontend" | "FrontendOptions" | "Defaults", "timeout" | "client_timeout") => {
            text("idle_timeout", "10m")
        }
        ("Frontend" | "FrontendOptions" | "Defaults" | "Server", "maxconn" | "max_conn" | "max_conns") => {
            same(
                "max_connections",
                format!("max_connections = {}", own_number(value, 10_000)),
            )
        }
        (
            "Backend" | "Defaults",
            "algorithm" | "balancing" | "strategy" | "lb_policy" | "method" | "policy",
        ) => same("balance", format!("balance = {}", own_algorithm(value))),
        (
            "Backend",
            "server" | "upstream" | "upstreams" | "members" | "address" | "addr" | "host" | "hosts",
        ) => same(
            "servers",
            format!(
                "servers.one = {{ addr = {} }}",
                own_address(value, "10.0.0.11", port(8080))
            ),
        ),
        ("Backend" | "Defaults", "check" | "checks" | "healthcheck" | "health") => {
            same("health_check", "health_check = { interval = \"2s\" }".to_owned())
        }
        ("Backend", "timeout" | "timeout_connect") => text("connect_timeout", "5s"),
        ("Server", "address" | "host" | "ip" | "listen" | "server" | "bind" | "port" | "url") => same(
            "addr",
            format!("addr = {}", own_address(value, "10.0.0.11", port(8080))),
        ),
        ("Server", "backup") => same("priority", "priority = 2".to_owned()),
        ("Server", "check") => elsewhere("health_check = { interval = \"2s\" } in [backends.NAME]"),
        ("HealthCheck", "inter" | "every" | "period") => text("interval", "2s"),
        ("File", "listen" | "bind" | "listeners") => {
            elsewhere("[frontends.NAME] and below it listen_addr = \"0.0.0.0:80\"")
        }
        ("Global", "log" | "loglevel") => same("log_level", "log_level = \"info\"".to_owned()),
        _ => None,
    }
}

fn own_text(value: &DeValue<'_>, example: &str) -> String {
    match value {
        DeValue::String(text) => super::quote::string(text),
        _ => super::quote::string(example),
    }
}

fn own_number(value: &DeValue<'_>, example: u32) -> String {
    match value {
        DeValue::Integer(number) => number.to_string(),
        _ => example.to_string(),
    }
}

fn own_port(value: &DeValue<'_>) -> Option<u16> {
    match value {
        DeValue::Integer(port) => port.to_string().parse().ok(),
        DeValue::String(port) => port.parse().ok(),
        _ => None,
    }
}

/// The file's own address, with what is missing of it from an example.
fn own_address(value: &DeValue<'_>, ip: &str, port: u16) -> String {
    let text = match value {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(port) => port.to_string(),
        DeValue::Array(all) => match all.first().map(toml::Spanned::get_ref) {
            Some(DeValue::String(text)) => text.to_string(),
            _ => String::new(),
        },
        _ => String::new(),
    };
    let text = text.trim_start_matches("tcp://").trim_start_matches("udp://");
    let is_port = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let address = match text {
        "" => format!("{ip}:{port}"),
        digits if is_port => format!("{ip}:{digits}"),
        // as in HAProxy: every address
        _ if text.starts_with(':') || text.starts_with("*:") => {
            format!("{ip}:{}", text.trim_start_matches(['*', ':']))
        }
        _ if text.parse::<std::net::Ipv4Addr>().is_ok() => format!("{text}:{port}"),
        _ if text.parse::<std::net::Ipv6Addr>().is_ok() => format!("[{text}]:{port}"),
        _ => text.to_owned(),
    };
    super::quote::string(&address)
}

fn own_algorithm(value: &DeValue<'_>) -> String {
    let DeValue::String(text) = value else {
        return "\"round_robin\"".to_owned();
    };
    let ours = match text.to_lowercase().replace(['-', '_'], "").as_str() {
        "leastconn" | "leastconnections" | "leastrequest" => "least_connections",
        "source" | "iphash" | "sourcehash" | "hash" => "source_hash",
        "random" => "random",
        "maglev" => "maglev",
        "first" => "first",
        _ => "round_robin",
    };
    super::quote::string(ours)
}

#[cfg(test)]
mod tests {
    use super::*;
    use toml::de::DeTable;

    fn line(section: &str, text: &str) -> String {
        let table = DeTable::parse(text).expect("TOML").into_inner();
        let (key, _) = table.iter().next().expect("a key");
        meant(section, key.get_ref(), &table).map_or_else(String::new, |meant| meant.line)
    }

    #[test]
    fn the_line_to_write_has_the_files_own_value() {
        for (section, text, expected) in [
            (
                "Frontend",
                "listen = \"0.0.0.0:8000\"",
                "listen_addr = \"0.0.0.0:8000\"",
            ),
            ("Frontend", "bind = \":8000\"", "listen_addr = \"0.0.0.0:8000\""),
            ("Frontend", "bind = \"*:8000\"", "listen_addr = \"0.0.0.0:8000\""),
            ("Frontend", "port = 8000", "listen_addr = \"0.0.0.0:8000\""),
            (
                "Frontend",
                "Address = \"192.0.2.1\"",
                "listen_addr = \"192.0.2.1:80\"",
            ),
            (
                "Frontend",
                "address = \"192.0.2.1\"\nport = 81",
                "listen_addr = \"192.0.2.1:81\"",
            ),
            ("Frontend", "host = true", "listen_addr = \"0.0.0.0:80\""),
            ("Frontend", "default-backend = \"app\"", "backend = \"app\""),
            ("Frontend", "timeout = \"3m\"", "idle_timeout = \"3m\""),
            (
                "Backend",
                "algorithm = \"leastconn\"",
                "balance = \"least_connections\"",
            ),
            ("Backend", "method = \"ip_hash\"", "balance = \"source_hash\""),
            ("Backend", "check = true", "health_check = { interval = \"2s\" }"),
            (
                "Backend",
                "hosts = [\"10.0.0.1:80\"]",
                "servers.one = { addr = \"10.0.0.1:80\" }",
            ),
            ("Server", "host = \"10.0.0.1\"", "addr = \"10.0.0.1:8080\""),
            (
                "Server",
                "address = \"2001:db8::1\"",
                "addr = \"[2001:db8::1]:8080\"",
            ),
            ("Server", "maxconn = 7", "max_connections = 7"),
            ("Server", "addrr = 7", ""),
        ] {
            assert_eq!(line(section, text), expected, "{text}");
        }
    }
}
