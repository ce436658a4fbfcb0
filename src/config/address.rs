//! Addresses as operators write them, and what is wrong with one that cannot be used.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::base::{IpServerAddr, ListenAddr, Zone};

/// Which end of Convey an address is for; it decides what the help says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A frontend listens on it.
    Listen,
    /// A server is connected at it.
    Server,
}

impl Purpose {
    const fn example(self) -> &'static str {
        match self {
            Self::Listen => "\"0.0.0.0:80\" or \"[::]:80\"",
            Self::Server => "\"10.0.0.1:8080\" or \"[2001:db8::1]:8080\"",
        }
    }
}

/// Why a text is not a usable address, and what would be one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: String,
}

/// A fault and its remedy.
pub fn fault(message: String, help: impl Into<String>) -> Fault {
    Fault {
        message,
        help: help.into(),
    }
}

/// Reads `IP:port` of a server; a link-local address has the interface with it, `[fe80::1%eth0]:80`.
///
/// # Errors
/// Not such an address, or one that cannot be connected to; the fault says which part is wrong.
pub fn parse_server(text: &str) -> Result<IpServerAddr, Fault> {
    let purpose = Purpose::Server;
    let addr: IpServerAddr = text.parse().map_err(|_| explain(text, purpose))?;
    check(text, addr.0, addr.zone(), purpose).map(|()| addr)
}

/// As [`parse_server`], of an address to listen on.
///
/// # Errors
/// Not such an address, or one that cannot be listened on; the fault says which part is wrong.
pub fn parse_listen(text: &str) -> Result<ListenAddr, Fault> {
    let purpose = Purpose::Listen;
    let addr: ListenAddr = text.parse().map_err(|_| explain(text, purpose))?;
    check(text, addr.0, addr.zone(), purpose).map(|()| addr)
}

fn check(text: &str, addr: SocketAddr, zone: Option<&Zone>, purpose: Purpose) -> Result<(), Fault> {
    if addr.port() == 0 {
        return Err(fault(
            format!("port 0 in `{text}` is not a valid port"),
            "write a port from 1 to 65535",
        ));
    }
    check_ip(addr.ip(), purpose).map_err(|mut found| {
        found.message = format!("{} in `{text}`", found.message);
        found
    })?;
    match zone.filter(|_| !is_link_local(addr.ip())) {
        Some(zone) => Err(fault(
            format!("interface `{zone}` in `{text}`: only a link-local address (fe80::/10) has one"),
            match purpose {
                Purpose::Listen => format!("write \"{addr}\", and interface = \"{zone}\" in the frontend"),
                Purpose::Server => {
                    format!("write \"{addr}\", and server_socket.interface = \"{zone}\" in the backend")
                }
            },
        )),
        None => Ok(()),
    }
}

/// Whether an address is of one link only, so that the interface must be known.
pub fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

/// Whether an address lacks the interface that it needs.
pub fn lacks_zone(addr: SocketAddr, zone: Option<&Zone>) -> bool {
    let has_index = matches!(addr, SocketAddr::V6(addr) if addr.scope_id() != 0);
    is_link_local(addr.ip()) && !has_index && zone.is_none()
}

/// Reads an IP address without a port.
///
/// # Errors
/// Not an IP address.
pub fn parse_ip(text: &str) -> Result<IpAddr, Fault> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return check_mapped(ip).map(|()| ip);
    }
    if let Ok(addr) = text.parse::<SocketAddr>() {
        return Err(fault(
            format!("`{text}` has a port; only an IP address belongs here"),
            format!("write \"{}\"", addr.ip()),
        ));
    }
    Err(fault(
        format!("`{text}` is not an IP address"),
        "write an address such as \"10.0.0.1\" or \"2001:db8::1\"",
    ))
}

/// What an address is that stands for no one host on a network, or for none that another host can reach.
pub fn not_of_one_host(ip: IpAddr) -> Option<&'static str> {
    if ip.is_unspecified() {
        Some("a wildcard")
    } else if ip.is_loopback() {
        Some("a loopback address")
    } else if ip.is_multicast() {
        Some("a multicast address")
    } else if ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
        Some("the broadcast address")
    } else {
        None
    }
}

fn check_ip(ip: IpAddr, purpose: Purpose) -> Result<(), Fault> {
    check_mapped(ip)?;
    let broadcast = ip == IpAddr::V4(Ipv4Addr::BROADCAST);
    if ip.is_multicast() || broadcast {
        let kind = if broadcast { "broadcast" } else { "multicast" };
        return Err(fault(
            format!("{kind} address"),
            format!("write the address of one host, such as {}", purpose.example()),
        ));
    }
    Ok(())
}

/// An IPv4-mapped IPv6 address would be a second spelling of an IPv4 address: duplicates could hide behind it.
fn check_mapped(ip: IpAddr) -> Result<(), Fault> {
    match ip {
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => Err(fault(
                "IPv4 address in IPv6 form".to_owned(),
                format!("write it as {v4}"),
            )),
            None => Ok(()),
        },
        IpAddr::V4(_) => Ok(()),
    }
}

/// What is wrong with a text that is not `IP:port`.
fn explain(text: &str, purpose: Purpose) -> Fault {
    let example = format!("write IP:port, such as {}", purpose.example());
    if text.is_empty() {
        return fault("the address is empty".to_owned(), example);
    }
    if text.trim() != text || text.contains(char::is_whitespace) {
        return fault(format!("white space in `{text}`"), example);
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        return fault(
            format!("`{text}` is a URL, not an address"),
            format!("leave out `{scheme}://`: \"{rest}\""),
        );
    }
    if let Some(inside) = text.strip_prefix('[') {
        return explain_bracketed(text, inside, &example);
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        return explain_without_port(text, ip);
    }
    if let Some(found) = explain_zone(text) {
        return found;
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return if purpose == Purpose::Server && !text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
            host_name(text, purpose)
        } else {
            fault(format!("`{text}` has no port"), example)
        };
    };
    if host.contains(':') {
        return fault(format!("`{host}` is not an IPv6 address in brackets"), example);
    }
    if let Err(mut found) = check_port(port) {
        if is_range(port) && purpose == Purpose::Server {
            "write the first port: the others count from it, as in the frontend's range"
                .clone_into(&mut found.help);
        }
        return found;
    }
    if host.is_empty() || host == "*" {
        return match purpose {
            Purpose::Listen => fault(
                format!("`{text}` has no IP address"),
                format!(
                    "write \"0.0.0.0:{port}\" for every IPv4 address of this host, \"[::]:{port}\" for every address, IPv6 and IPv4"
                ),
            ),
            Purpose::Server => fault(format!("`{text}` has no IP address"), example),
        };
    }
    if let Some((ip, _)) = host
        .split_once('%')
        .filter(|(ip, _)| ip.parse::<Ipv4Addr>().is_ok())
    {
        return fault(
            format!("`{text}` has an interface; only a link-local IPv6 address has one"),
            format!("write \"{ip}:{port}\""),
        );
    }
    if host.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return fault(
            format!("`{host}` is not an IPv4 address"),
            "an IPv4 address is four numbers from 0 to 255 without leading zeros, such as 10.0.0.1",
        );
    }
    host_name(host, purpose)
}

fn explain_bracketed(text: &str, inside: &str, example: &str) -> Fault {
    let Some((host, tail)) = inside.split_once(']') else {
        return fault(format!("`{text}` has no closing bracket"), example);
    };
    let (ip, zone) = host
        .split_once('%')
        .map_or((host, None), |(ip, zone)| (ip, Some(zone)));
    if ip.parse::<Ipv6Addr>().is_err() {
        return fault(format!("`{ip}` is not an IPv6 address"), example);
    }
    if let Some(zone) = zone
        && zone.parse::<u32>().is_err()
        && Zone::new(zone).is_none()
    {
        return fault(
            format!("`{zone}` in `{text}` is not a valid interface name"),
            "write the name of the interface (`ip link` shows it), such as \"[fe80::1%eth0]:80\"",
        );
    }
    match tail.strip_prefix(':') {
        Some(port) => check_port(port)
            .err()
            .unwrap_or_else(|| fault(format!("`{text}` is not an address"), example)),
        None => fault(
            format!("`{text}` has no port"),
            format!("write \"[{host}]:PORT\""),
        ),
    }
}

/// What is wrong with an address with an interface that has no brackets; `None` if it is something else.
fn explain_zone(text: &str) -> Option<Fault> {
    let (ip, rest) = text.split_once('%')?;
    ip.parse::<Ipv6Addr>().ok()?;
    let (zone, port) = rest.split_once(':').unwrap_or((rest, "PORT"));
    Some(fault(
        format!("IPv6 address `{text}` without brackets"),
        format!("write \"[{ip}%{zone}]:{port}\""),
    ))
}

fn is_range(ports: &str) -> bool {
    let ends = ports.split_once('-');
    ends.is_some_and(|(first, last)| check_port(first).is_ok() && check_port(last).is_ok())
}

fn explain_without_port(text: &str, ip: IpAddr) -> Fault {
    match ip {
        IpAddr::V4(_) => fault(format!("`{text}` has no port"), format!("write \"{text}:PORT\"")),
        IpAddr::V6(_) => {
            let split = text.rsplit_once(':').filter(|(head, port)| {
                head.parse::<Ipv6Addr>().is_ok() && port.parse::<u16>().is_ok_and(|port| port > 0)
            });
            let help = match split {
                Some((head, port)) => {
                    format!("write \"[{head}]:{port}\" if {port} is the port, else \"[{text}]:PORT\"")
                }
                None => format!("write \"[{text}]:PORT\""),
            };
            fault(format!("IPv6 address `{text}` without brackets"), help)
        }
    }
}

/// Checks what stands in the place of a port.
///
/// # Errors
/// Not a port.
pub fn check_port(port: &str) -> Result<(), Fault> {
    match port.parse::<u16>() {
        Ok(1..) if !port.starts_with('+') => Ok(()),
        _ if port.is_empty() => Err(fault(
            "the port is missing after `:`".to_owned(),
            "write a port from 1 to 65535",
        )),
        _ => Err(fault(
            format!("`{port}` is not a port"),
            "write a port from 1 to 65535",
        )),
    }
}

fn host_name(host: &str, purpose: Purpose) -> Fault {
    match purpose {
        Purpose::Server => fault(
            format!("`{host}` is a host name"),
            "write the server's IP address, such as \"10.0.0.1:8080\"",
        ),
        Purpose::Listen => fault(
            format!("`{host}` is not an IP address"),
            format!("write an IP address of this host, such as {}", purpose.example()),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> String {
        parse_server(text).map_or_else(|found| found.message, |addr| format!("fine: {addr}"))
    }

    #[test]
    fn an_address_is_an_ip_and_a_port() {
        assert_eq!(message("10.0.0.1:80"), "fine: 10.0.0.1:80");
        assert_eq!(message("[2001:DB8::1]:80"), "fine: [2001:db8::1]:80");
        for zoned in ["[fe80::1%2]:80", "[fe80::1%eth0]:80"] {
            assert_eq!(message(zoned), format!("fine: {zoned}"));
        }
    }

    #[test]
    fn the_fault_names_the_part_that_is_wrong() {
        assert_eq!(
            message("10.0.0.1:0"),
            "port 0 in `10.0.0.1:0` is not a valid port"
        );
        assert_eq!(message("10.0.0.1:70000"), "`70000` is not a port");
        assert_eq!(message("10.0.0.1:+80"), "`+80` is not a port");
        assert_eq!(message("10.0.0.1:"), "the port is missing after `:`");
        assert_eq!(message("10.0.0.1"), "`10.0.0.1` has no port");
        assert_eq!(message("10.0.0.256:80"), "`10.0.0.256` is not an IPv4 address");
        assert_eq!(message("::1"), "IPv6 address `::1` without brackets");
        assert_eq!(message("[::1]"), "`[::1]` has no port");
        assert_eq!(message("[::1"), "`[::1` has no closing bracket");
        assert_eq!(message("[::g]:80"), "`::g` is not an IPv6 address");
        assert_eq!(
            message("[fe80::1%eth/0]:80"),
            "`eth/0` in `[fe80::1%eth/0]:80` is not a valid interface name"
        );
        assert_eq!(
            message("[2001:db8::1%eth0]:80"),
            "interface `eth0` in `[2001:db8::1%eth0]:80`: only a link-local address (fe80::/10) has one"
        );
        assert_eq!(
            message("fe80::1%eth0"),
            "IPv6 address `fe80::1%eth0` without brackets"
        );
        assert_eq!(message("[fe80::1%eth0]"), "`[fe80::1%eth0]` has no port");
        assert_eq!(message("10.0.0.1:80-90"), "`80-90` is not a port");
        assert_eq!(message("[::1]:70000"), "`70000` is not a port");
        assert_eq!(message("web.example.com:80"), "`web.example.com` is a host name");
        assert_eq!(message("web"), "`web` is a host name");
        assert_eq!(
            message("tcp://10.0.0.1:80"),
            "`tcp://10.0.0.1:80` is a URL, not an address"
        );
        assert_eq!(message(" 10.0.0.1:80"), "white space in ` 10.0.0.1:80`");
        assert_eq!(message(""), "the address is empty");
        assert_eq!(
            message("[::ffff:10.0.0.1]:80"),
            "IPv4 address in IPv6 form in `[::ffff:10.0.0.1]:80`"
        );
        assert_eq!(message("224.0.0.1:80"), "multicast address in `224.0.0.1:80`");
        assert_eq!(message("a:b:80"), "`a:b` is not an IPv6 address in brackets");
    }

    #[test]
    fn the_help_offers_what_was_probably_meant() {
        let server = |text| parse_server(text).map_err(|found| found.help);
        assert_eq!(
            server("fe80::1%eth0:80"),
            Err("write \"[fe80::1%eth0]:80\"".into())
        );
        assert_eq!(
            server("fe80::1%eth0"),
            Err("write \"[fe80::1%eth0]:PORT\"".into())
        );
        assert!(server("10.0.0.1:80-90").is_err_and(|help| help.starts_with("write the first port")));
        let help = |text| parse_listen(text).map_err(|found| found.help);
        assert_eq!(
            help("::1:8080"),
            Err("write \"[::1]:8080\" if 8080 is the port, else \"[::1:8080]:PORT\"".into())
        );
        assert!(help(":80").is_err_and(|help| help.contains("\"0.0.0.0:80\"")));
        assert!(help("*:80").is_err_and(|help| help.contains("\"[::]:80\"")));
        assert_eq!(
            parse_ip("10.0.0.1:80").map_err(|found| found.help),
            Err("write \"10.0.0.1\"".into())
        );
    }
}
