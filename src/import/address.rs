//! Hosts and ports as most programs write them, and as Convey does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::base::HostName;

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

/// Whether a text is an IP address or the name of a host.
#[must_use]
pub fn is_host(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok() || text.parse::<HostName>().is_ok()
}

/// `HOST:PORT`, with brackets around an IPv6 address. `port` may be a range, `FIRST-LAST`.
#[must_use]
pub fn joined(host: &str, port: impl std::fmt::Display) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// An address or a network, as Convey's access rules have it: with a prefix length, and without bits behind it.
#[must_use]
pub fn network(text: &str) -> Option<String> {
    let Some((ip, mask)) = text.split_once('/') else {
        return text.parse::<IpAddr>().ok().map(|ip| ip.to_string());
    };
    let ip: IpAddr = ip.parse().ok()?;
    let most = if ip.is_ipv4() { 32 } else { 128 };
    let prefix = match mask.parse::<Ipv4Addr>() {
        // 255.0.0.0
        Ok(mask) if ip.is_ipv4() => {
            let mask = mask.to_bits();
            (mask.leading_ones() == mask.count_ones()).then_some(mask.leading_ones())?
        }
        Ok(_) => return None,
        Err(_) => mask.parse::<u32>().ok().filter(|prefix| *prefix <= most)?,
    };
    let ip = match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
            IpAddr::from(Ipv4Addr::from_bits(ip.to_bits() & mask))
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - prefix).unwrap_or(0);
            IpAddr::from(Ipv6Addr::from_bits(ip.to_bits() & mask))
        }
    };
    Some(format!("{ip}/{prefix}"))
}

/// A port from 1.
#[must_use]
pub fn port(text: &str) -> Option<u16> {
    // the parser takes a sign as well
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| *port > 0 && is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_lose_the_bits_behind_their_prefix() {
        for (text, expected) in [
            ("10.1.2.3", Some("10.1.2.3")),
            ("10.1.2.3/8", Some("10.0.0.0/8")),
            ("10.1.2.3/255.255.0.0", Some("10.1.0.0/16")),
            ("1.2.3.4/0", Some("0.0.0.0/0")),
            ("2001:db8::1/32", Some("2001:db8::/32")),
            ("::1/0", Some("::/0")),
            ("10.0.0.0/33", None),
            ("10.0.0.0/255.0.255.0", None),
            ("::1/255.0.0.0", None),
            ("example.com", None),
        ] {
            assert_eq!(network(text).as_deref(), expected, "{text}");
        }
    }

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
        assert_eq!(
            (port("80"), port("+80"), port("0"), port("")),
            (Some(80), None, None, None)
        );
        assert_eq!(parse("2001:db8::1", false).1, "none");
        assert_eq!(parse(":::80", true), ("::".to_owned(), "80".to_owned()));
        assert_eq!(joined("::1", "1-2"), "[::1]:1-2");
    }
}
