//! Local addresses and ports as routes name them: `192.0.2.1:443`, `192.0.2.0/24`, `:8000-8010`, `[2001:db8::/32]:443`.

use std::ops::RangeInclusive;

use super::{
    address::{Fault, check_port, fault},
    routing::Destination,
};
use crate::access::{Network, NetworkError};

/// What a destination looks like, for help texts.
const FORM: &str = "write an address and port \"192.0.2.1:443\", a network \"192.0.2.0/24\", a port \":443\" or ports \":8000-8010\"";

/// Reads a network or address, `:` and a port or ports, or both; with ports, IPv6 is in brackets.
///
/// # Errors
/// It has another form; the fault says which part is wrong.
pub fn parse(text: &str) -> Result<Destination, Fault> {
    if text.is_empty() {
        return Err(fault("the destination is empty".to_owned(), FORM));
    }
    if text.contains(char::is_whitespace) {
        return Err(fault(format!("white space in \"{text}\""), FORM));
    }
    if let Some(inside) = text.strip_prefix('[') {
        return bracketed(text, inside);
    }
    match text.rsplit_once(':') {
        // a bare IPv6 network has colons of its own
        Some((host, _)) if host.contains(':') => network(text, text).map(|network| Destination {
            network: Some(network),
            ports: None,
        }),
        Some(("", list)) => Ok(Destination {
            network: None,
            ports: Some(ports(text, list)?),
        }),
        Some((host, list)) => Ok(Destination {
            network: Some(network(text, host)?),
            ports: Some(ports(text, list)?),
        }),
        None => without_port(text),
    }
}

fn bracketed(text: &str, inside: &str) -> Result<Destination, Fault> {
    let Some((host, tail)) = inside.split_once(']') else {
        return Err(fault(format!("`{text}` has no closing bracket"), FORM));
    };
    let network = network(text, host)?;
    let ports = match tail.strip_prefix(':') {
        Some(list) => Some(ports(text, list)?),
        None if tail.is_empty() => None,
        None => return Err(fault(format!("`{text}` is not an address or port"), FORM)),
    };
    Ok(Destination {
        network: Some(network),
        ports,
    })
}

fn without_port(text: &str) -> Result<Destination, Fault> {
    let is_ports = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    if is_ports {
        return Err(fault(
            format!("`{text}` has no colon before the port"),
            format!("write \":{text}\""),
        ));
    }
    Ok(Destination {
        network: Some(network(text, text)?),
        ports: None,
    })
}

/// The part before the ports.
fn network(text: &str, host: &str) -> Result<Network, Fault> {
    host.parse().map_err(|error| {
        let help = match &error {
            NetworkError::Form if host == "*" => format!("write \"{}\"", text.trim_start_matches('*')),
            NetworkError::HostBits(network) => format!("write \"{}\"", text.replacen(host, &network.to_string(), 1)),
            _ if host.contains('%') => {
                "write the address without its interface: it is the same on every one".to_owned()
            }
            NetworkError::Form if host.bytes().any(|byte| byte.is_ascii_alphabetic()) && !host.contains(':') => {
                "routes compare addresses: write an IP address of this host, or `sni` for the name that clients ask for"
                    .to_owned()
            }
            _ => FORM.to_owned(),
        };
        fault(format!("`{host}` in \"{text}\": {error}"), help)
    })
}

/// One port, or the first and the last.
fn ports(text: &str, list: &str) -> Result<RangeInclusive<u16>, Fault> {
    let (first, last) = list.split_once('-').unwrap_or((list, list));
    let port = |part: &str| {
        check_port(part)?;
        Ok(part.parse::<u16>().unwrap_or_default())
    };
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        return Err(fault(
            format!("the range {list} in \"{text}\" ends before it begins"),
            format!(
                "write \"{}{last}-{first}\"",
                text.strip_suffix(list).unwrap_or_default()
            ),
        ));
    }
    Ok(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> String {
        parse(text).map_or_else(
            |found| format!("{}; {}", found.message, found.help),
            |destination| destination.to_string(),
        )
    }

    #[test]
    fn a_destination_is_printed_as_it_is_read() {
        for text in [
            "192.0.2.1",
            "192.0.2.0/24",
            "192.0.2.1:443",
            "192.0.2.0/24:8000-8010",
            ":443",
            ":8000-8010",
            "2001:db8::1",
            "2001:db8::/32",
            "[2001:db8::1]:443",
            "[2001:db8::/32]:1-65535",
        ] {
            assert_eq!(said(text), text);
        }
        assert_eq!(said("[2001:db8::1]"), "2001:db8::1");
        assert_eq!(said(":80-80"), ":80");
    }

    #[test]
    fn what_is_no_destination_is_told_what_would_be() {
        for (text, expected) in [
            ("", format!("the destination is empty; {FORM}")),
            ("443", "`443` has no colon before the port; write \":443\"".into()),
            ("80-90", "`80-90` has no colon before the port; write \":80-90\"".into()),
            (":0", "`0` is not a port; write a port from 1 to 65535".into()),
            (":", "the port is missing after `:`; write a port from 1 to 65535".into()),
            (
                "192.0.2.1:90-80",
                "the range 90-80 in \"192.0.2.1:90-80\" ends before it begins; write \"192.0.2.1:80-90\"".into(),
            ),
            (
                "*:443",
                "`*` in \"*:443\": it is not an IP address or network, such as 10.0.0.0/8 or 2001:db8::/32; write \":443\""
                    .into(),
            ),
            (
                "192.0.2.1/24:80",
                "`192.0.2.1/24` in \"192.0.2.1/24:80\": it has bits set after its prefix; the network is 192.0.2.0/24; write \"192.0.2.0/24:80\""
                    .into(),
            ),
            ("[2001:db8::1", format!("`[2001:db8::1` has no closing bracket; {FORM}")),
            ("[2001:db8::1]443", format!("`[2001:db8::1]443` is not an address or port; {FORM}")),
            ("10.0.0.1 :80", format!("white space in \"10.0.0.1 :80\"; {FORM}")),
        ] {
            assert_eq!(said(text), expected);
        }
        assert!(said("www.example.com:443").contains("`sni` for the name"));
        assert!(said("[fe80::1%eth0]:80").contains("without its interface"));
    }
}
