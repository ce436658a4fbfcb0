//! Keys of other programs for what Convey calls otherwise. No distance between words finds these.

mod balancing;
mod connections;
mod sockets;
mod tls;
mod udp;

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
        ("HealthCheck", "addr" | "address" | "check_addr") => {
            elsewhere("check_addr = \"10.9.0.11\" in [backends.NAME.servers.NAME]")
        }
        ("HealthCheck", "source") => same("source_addr", "source_addr = \"10.0.0.2\"".to_owned()),
        (
            "Server" | "Backend" | "HealthCheck",
            "agent" | "agent_port" | "agent_addr" | "agent_send" | "agent_inter" | "agent_check",
        ) => elsewhere("agent_check = { port = 9999 } in [backends.NAME]"),
        ("File", "listen" | "bind" | "listeners") => {
            elsewhere("[frontends.NAME] and below it listen_addr = \"0.0.0.0:80\"")
        }
        ("File", "opentelemetry" | "otel" | "telemetry") => {
            elsewhere("[otlp] and below it endpoint = \"http://127.0.0.1:4318\"")
        }
        ("Otlp", "url" | "collector" | "address" | "addr" | "server") => {
            text("endpoint", "http://127.0.0.1:4318")
        }
        ("Global", "log" | "loglevel") => same("log_level", "log_level = \"info\"".to_owned()),
        (section, key) => (routing(section, key, value).or_else(|| tls::meant(section, key, value)))
            .or_else(|| udp::meant(section, key, value))
            .or_else(|| balancing::meant(section, key, value))
            .or_else(|| connections::meant(section, key, value))
            .or_else(|| sockets::meant(section, key, value))
            .map(|(key, line)| Meant { key, line }),
    }
}

/// As [`meant`], of what is about routes and PROXY headers: the key if it is of the same section, and the line.
fn routing(section: &str, key: &str, value: &DeValue<'_>) -> Option<(Option<&'static str>, String)> {
    let same = |key: &'static str, value: &str| Some((Some(key), format!("{key} = {value}")));
    let text = |key: &'static str, example: &str| same(key, &own_text(value, example));
    let elsewhere = |line: &str| Some((None, line.to_owned()));
    match (section, key) {
        (
            "Frontend" | "FrontendOptions" | "Defaults",
            "accept_proxy" | "expect_proxy" | "trusted_proxies" | "set_real_ip_from",
        ) => same(
            "proxy_protocol",
            &format!(
                "{{ from = {} }}, the networks that send the header",
                own_list(value, "10.0.0.0/8")
            ),
        ),
        (
            "Frontend",
            "sni" | "server_name" | "server_names" | "hostname" | "hostnames" | "hosts" | "domains"
            | "ssl_preread" | "match" | "matches" | "route",
        ) => elsewhere(
            "[[frontends.NAME.routes]] and below it sni = \"www.example.com\" and backend = \"NAME\"",
        ),
        (_, "hostname_matching_strategy") => elsewhere(
            "nothing for it: sni = \"~REGEX\" is a regular expression, \"*.example.com\" a wildcard, else a name",
        ),
        ("Frontend" | "Defaults", "unexpected_hostname_strategy") => text("unexpected_sni", "default"),
        ("Frontend" | "Defaults", "read_timeout" | "preread_timeout" | "inspect_delay") => {
            text("client_hello_timeout", "5s")
        }
        (
            "Route",
            "server_name" | "hostname" | "hostnames" | "host" | "hosts" | "domain" | "domains" | "name"
            | "names",
        ) => same("sni", &own_list(value, "www.example.com")),
        ("Route", "src" | "client" | "clients" | "from" | "network" | "networks" | "source_ip") => {
            same("source", &own_list(value, "10.0.0.0/8"))
        }
        (
            "Route",
            "dst" | "dst_port" | "port" | "ports" | "to" | "listen_addr" | "local_addr" | "local_port",
        ) => {
            let own = own_port(value).map(|port| super::quote::string(&format!(":{port}")));
            same("destination", &own.unwrap_or_else(|| own_text(value, ":443")))
        }
        ("Route", "use_backend" | "target" | "pool" | "upstream" | "proxy_pass" | "default_backend") => {
            text("backend", "web")
        }
        ("Route", "deny" | "drop" | "action" | "ssl_reject_handshake") => same("reject", "true"),
        (
            "ProxyProtocol",
            "trusted" | "trust" | "networks" | "allow" | "allowed" | "sources" | "trusted_proxies",
        ) => same("from", &own_list(value, "10.0.0.0/8")),
        ("Frontend" | "FrontendOptions" | "Defaults", "usesrc" | "transparent" | "proxy_bind") => {
            same("source", "\"client\", and see what `convey check` says of routes")
        }
        ("ProxyProtocol", "optional") => same("required", "false"),
        ("ProxyProtocol", "version") => elsewhere(
            "nothing for it: both versions are read; what servers get is send_proxy in [backends.NAME]",
        ),
        (
            "Backend" | "Defaults" | "BackendOptions",
            "send_proxy_v2" | "send_proxy_v2_ssl" | "send_proxy_v2_ssl_cn",
        ) => same("send_proxy", "\"v2\""),
        ("Backend" | "Defaults" | "BackendOptions", "proxy_protocol_version") => {
            same("send_proxy", own_version(value))
        }
        ("Backend", "proxy_protocol") => same("send_proxy", own_version(value)),
        ("Backend" | "Defaults" | "BackendOptions", "proxy_v2_options" | "proxy_tlvs" | "tlvs") => {
            same("send_proxy_tlvs", "[\"authority\", \"ssl\"]")
        }
        ("Backend", "backup" | "sorry_server" | "failover" | "sorry") => text("fallback", "sorry"),
        ("Server", "send_proxy" | "send_proxy_v2" | "proxy_protocol") => {
            elsewhere("send_proxy = \"v2\" in [backends.NAME]: it is for all servers of a backend")
        }
        ("Server", "server_name" | "hostname" | "hostnames" | "domain" | "domains") => {
            same("sni", &own_list(value, "www.example.com"))
        }
        _ => None,
    }
}

/// The version of PROXY headers that other programs' words mean.
fn own_version(value: &DeValue<'_>) -> &'static str {
    let text = match value {
        DeValue::Integer(number) => number.to_string(),
        DeValue::String(text) => text.to_string(),
        DeValue::Table(table) => match table.get("version") {
            Some(version) => return own_version(version.get_ref()),
            None => String::new(),
        },
        _ => String::new(),
    };
    if text.ends_with('1') { "\"v1\"" } else { "\"v2\"" }
}

/// The file's own strings as a list, or its one.
fn own_list(value: &DeValue<'_>, example: &str) -> String {
    let DeValue::Array(all) = value else {
        return own_text(value, example);
    };
    let texts: Vec<String> = all.iter().map(|item| own_text(item.get_ref(), example)).collect();
    format!("[{}]", texts.join(", "))
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
    let ours = match value {
        DeValue::String(text) => algorithm(text),
        _ => None,
    };
    super::quote::string(ours.unwrap_or("round_robin"))
}

/// Our word for another program's word for an algorithm.
pub fn algorithm(text: &str) -> Option<&'static str> {
    Some(match text.to_lowercase().replace(['-', '_'], "").as_str() {
        "leastconn" | "leastconnections" | "leastrequest" => "least_connections",
        "leastbandwidth" | "leasttraffic" | "leastbytes" => "least_bandwidth",
        "source" | "iphash" | "iphash1" | "sourcehash" | "hash" | "consistent" => "source_hash",
        "random" => "random",
        "maglev" => "maglev",
        "first" => "first",
        "roundrobin" | "wrr" | "staticrr" => "round_robin",
        _ => return None,
    })
}

/// What to write for a kind of check of another program.
pub fn kind(text: &str) -> Option<&'static str> {
    match text.to_lowercase().as_str() {
        "agent" | "agent-check" | "agent_check" => {
            Some("agent_check = { port = 9999 } in [backends.NAME]: an agent is asked beside the check")
        }
        "ping" | "connect" => Some("kind = \"tcp\""),
        "https" | "ssl" => Some(
            "kind = \"http\" or \"tls\", with tls = { server_name = \"www.example.com\" } in the section",
        ),
        _ => None,
    }
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
            (
                "Frontend",
                "accept-proxy = true",
                "proxy_protocol = { from = \"10.0.0.0/8\" }, the networks that send the header",
            ),
            (
                "Frontend",
                "unexpected_hostname_strategy = \"any\"",
                "unexpected_sni = \"any\"",
            ),
            (
                "Frontend",
                "read_timeout = \"2s\"",
                "client_hello_timeout = \"2s\"",
            ),
            (
                "Route",
                "hostnames = [\"a.example.com\", \"b.example.com\"]",
                "sni = [\"a.example.com\", \"b.example.com\"]",
            ),
            ("Route", "dst_port = 8443", "destination = \":8443\""),
            ("Backend", "send-proxy-v2 = true", "send_proxy = \"v2\""),
            ("BackendTls", "ignore_verify = true", "verify = false"),
            ("BackendTls", "sni = \"ssl_fc_sni\"", "server_name = \"client\""),
            (
                "BackendTls",
                "sni = \"str(www.example.com)\"",
                "server_name = \"www.example.com\"",
            ),
            (
                "BackendTls",
                "proxy_ssl_name = \"www.example.com\"",
                "server_name = \"www.example.com\"",
            ),
            (
                "BackendTls",
                "root_ca_cert_path = \"/ca.pem\"",
                "ca = \"/ca.pem\"",
            ),
            (
                "Backend",
                "proxy_protocol = { version = \"1\" }",
                "send_proxy = \"v1\"",
            ),
            ("Backend", "proxy_protocol = \"1\"", "send_proxy = \"v1\""),
            (
                "Server",
                "server_name = \"a.example.com\"",
                "sni = \"a.example.com\"",
            ),
            ("Server", "addrr = 7", ""),
        ] {
            assert_eq!(line(section, text), expected, "{text}");
        }
    }
}
