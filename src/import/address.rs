//! Hosts and ports as most programs write them, and as Convey does.

use std::net::{IpAddr, Ipv6Addr};

/// A host with a port, or without one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// An IP address, a name, or nothing.
    pub host: String,
    /// What follows the last colon, as it is written.
    pub port: Option<String>,
}

impl HostPort {
    /// Takes `HOST:PORT`, `[IPV6]:PORT`, `:PORT`, `HOST` or a bare IPv6 address apart. With `colon_ends_ipv6` the last colon of
    /// `2001:db8::1:80` has the port behind it, as HAProxy has it.
    #[must_use]
    pub fn parse(text: &str, colon_ends_ipv6: bool) -> Self {
        let new = |host: &str, port: Option<&str>| Self {
            host: host.to_owned(),
            port: port.map(str::to_owned),
        };
        if let Some((host, rest)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            return new(host, rest.strip_prefix(':'));
        }
        let is_bare_ipv6 = !colon_ends_ipv6 && text.parse::<Ipv6Addr>().is_ok();
        match text.rsplit_once(':').filter(|_| !is_bare_ipv6) {
            Some((host, port)) => new(host, Some(port)),
            None => new(text, None),
        }
    }

    /// The address, if the host is one.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

/// `HOST:PORT`, with brackets around an IPv6 address. `port` may be a range, `FIRST-LAST`.
#[must_use]
pub fn joined(host: &str, port: impl std::fmt::Display) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// A port from 1.
#[must_use]
pub fn port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_are_told_apart() {
        let parse = |text, colon| {
            let HostPort { host, port } = HostPort::parse(text, colon);
            (host, port.unwrap_or_else(|| "none".to_owned()))
        };
        for (text, host, port) in [
            ("10.0.0.1:80", "10.0.0.1", "80"),
            (":80", "", "80"),
            ("[::1]:80", "::1", "80"),
            ("[::1]", "::1", "none"),
            ("app.internal", "app.internal", "none"),
            ("app.internal:+5", "app.internal", "+5"),
        ] {
            assert_eq!(parse(text, false), (host.to_owned(), port.to_owned()), "{text}");
        }
        assert_eq!(parse("2001:db8::1", false).1, "none");
        assert_eq!(parse(":::80", true), ("::".to_owned(), "80".to_owned()));
        assert_eq!(joined("::1", "1-2"), "[::1]:1-2");
    }
}
