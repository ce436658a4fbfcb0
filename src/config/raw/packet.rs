//! Types of values that only the packet modes have.

use std::{net::IpAddr, num::NonZeroU32};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use toml::de::DeValue;

use super::field::{Field, Key, Node, bad_value, inline_schema, string, wrong_type};
use crate::{
    base::{PortRange, PortRanges},
    config::{address, findings::Findings, model::PortsPerClient},
};

/// Lowest source port of flows: those below are privileged, and services answer on them.
const LOWEST_NAT_PORT: u16 = 1024;

/// Most NAT addresses of both families together: with the stock list, half a million flows to each server.
const MAX_NAT_ADDRESSES: usize = 16;

/// Longest name of an interface, in bytes: IFNAMSIZ less the NUL (`linux/if.h`).
const MAX_INTERFACE_BYTES: usize = 15;

/// `nat_address`: in the order of the file, each once.
#[derive(Debug, Clone)]
pub struct NatAddresses(pub Vec<IpAddr>);

/// Name of a network interface.
#[derive(Debug, Clone)]
pub struct InterfaceName(pub String);

impl Field for PortRanges {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let text = string(
            value,
            "ranges of ports in quotes, such as \"10000-32767,61000-65535\"",
            findings,
        )?;
        match port_ranges(text) {
            Ok(ranges) => Some(ranges),
            Err((message, help)) => bad_value(value, message, help, findings),
        }
    }
}
inline_schema!([] PortRanges, _g => json_schema!({ "type": "string", "pattern": "^[0-9]+-[0-9,-]+$" }));

/// Reads ranges with commas between them, or says what is wrong.
fn port_ranges(text: &str) -> Result<PortRanges, (String, String)> {
    let ranges = text.split(',').map(ports).collect::<Result<Vec<_>, _>>()?;
    PortRanges::new(ranges).ok_or_else(|| {
        (
            format!("\"{text}\" are more than {} ranges", PortRanges::MOST),
            "each is a firewall rule for every server: write fewer, larger ones".to_owned(),
        )
    })
}

/// Reads `FIRST-LAST`, or says what is wrong with it and what would be right.
fn ports(text: &str) -> Result<PortRange, (String, String)> {
    let form = || "write the first and the last port, such as \"61000-65535\"".to_owned();
    let not_a_range = || (format!("\"{text}\" is not a range of ports"), form());
    let Some((first, last)) = text.split_once('-') else {
        return Err(match text.parse::<u16>() {
            Ok(port) => (
                format!("\"{text}\" is one port, not a range"),
                format!("write \"{port}-{port}\" if one port is meant"),
            ),
            Err(_) => not_a_range(),
        });
    };
    if first.trim() != first || last.trim() != last {
        let close = format!("{}-{}", first.trim(), last.trim());
        return Err((
            format!("white space in \"{text}\""),
            ports(&close).map_or_else(|_| form(), |range| format!("write \"{range}\"")),
        ));
    }
    let port = |part: &str| -> Result<u16, (String, String)> {
        if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
            return Err(not_a_range());
        }
        match part.parse::<u16>() {
            Ok(port @ LOWEST_NAT_PORT..) => Ok(port),
            Ok(port) => Err((
                format!("port {port} in \"{text}\" is below {LOWEST_NAT_PORT}"),
                format!(
                    "flows use source ports from {LOWEST_NAT_PORT} to 65535; {}",
                    form()
                ),
            )),
            Err(_) => Err((
                format!("`{part}` is not a port"),
                format!("write a port from {LOWEST_NAT_PORT} to 65535"),
            )),
        }
    };
    let range = PortRange {
        first: port(first)?,
        last: port(last)?,
    };
    if range.first > range.last {
        return Err((
            format!("\"{text}\" ends before it begins"),
            format!("write \"{}-{}\"", range.last, range.first),
        ));
    }
    Ok(range)
}

impl Field for NatAddresses {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let mut read = Self(Vec::new());
        let DeValue::Array(list) = value.get_ref() else {
            read.add(value, findings)?;
            return Some(read);
        };
        if list.is_empty() {
            let message = format!("`{}` is an empty list", findings.key());
            return bad_value(value, message, "leave the key out to let convey choose", findings);
        }
        if list.len() > MAX_NAT_ADDRESSES {
            let message = format!("`{}` has {} addresses", findings.key(), list.len());
            let help = format!("write {MAX_NAT_ADDRESSES} at most; for more flows, widen nat_ports");
            return bad_value(value, message, help, findings);
        }
        let wrong = (list.iter())
            .filter(|item| read.add(item, findings).is_none())
            .count();
        (wrong == 0).then_some(read)
    }
}
inline_schema!([] NatAddresses, _g => json_schema!({
    "anyOf": [
        { "type": "string", "format": "ip" },
        {
            "type": "array", "items": { "type": "string", "format": "ip" },
            "minItems": 1, "maxItems": MAX_NAT_ADDRESSES, "uniqueItems": true,
        },
    ]
}));

impl NatAddresses {
    fn add(&mut self, value: &Node<'_>, findings: &mut Findings) -> Option<()> {
        let text = string(value, "an IP address in quotes, or a list of several", findings)?;
        let ip = match address::parse_ip(text) {
            Ok(ip) => ip,
            Err(found) => return bad_value(value, found.message, found.help, findings),
        };
        if let Some(kind) = address::not_of_one_host(ip) {
            return bad_value(
                value,
                format!("{ip}, {kind}, cannot be the source address of flows"),
                "write an address of this host that the servers can answer to, or leave the key out",
                findings,
            );
        }
        if self.0.contains(&ip) {
            return bad_value(
                value,
                format!("{ip} is in the list twice"),
                "write each address once",
                findings,
            );
        }
        self.0.push(ip);
        Some(())
    }
}

impl Field for PortsPerClient {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        const FORM: &str = "write a part such as \"1/8\", a number of ports, or \"off\" for no limit";
        let read = match value.get_ref() {
            DeValue::String(text) if text == "off" => Some(Self::Unlimited),
            DeValue::String(text) => part(text),
            DeValue::Integer(number) => {
                let count = u32::from_str_radix(number.as_str(), number.radix()).ok();
                count.and_then(NonZeroU32::new).map(Self::Count)
            }
            _ => {
                let expected = "a part, a number of ports, or \"off\"";
                return wrong_type(value, expected, Some(FORM.to_owned()), findings);
            }
        };
        if read.is_some() {
            return read;
        }
        let written = match value.get_ref() {
            DeValue::String(text) => format!("\"{text}\""),
            DeValue::Integer(number) => number.to_string(),
            _ => String::new(),
        };
        let message = format!("`{}` cannot be {written}", findings.key());
        bad_value(value, message, FORM, findings)
    }
}
inline_schema!([] PortsPerClient, _g => json_schema!({
    "anyOf": [
        { "const": "off" },
        { "type": "string", "pattern": "^[1-9][0-9]*/[1-9][0-9]*$" },
        { "type": "integer", "minimum": 1, "maximum": u32::MAX },
    ]
}));

/// Reads `PART/WHOLE`, which is 1 at most.
fn part(text: &str) -> Option<PortsPerClient> {
    let (part, whole) = text.split_once('/')?;
    let number = |text: &str| -> Option<NonZeroU32> {
        let is_plain = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
        text.parse().ok().filter(|_| is_plain)
    };
    let (part, whole) = (number(part)?, number(whole)?);
    (part <= whole).then_some(PortsPerClient::Part(part, whole))
}

impl Field for InterfaceName {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let text = string(value, "the name of an interface, in quotes", findings)?;
        // What Linux accepts (`dev_valid_name`), less what no tool can show.
        let usable = !text.is_empty()
            && text.len() <= MAX_INTERFACE_BYTES
            && text != "."
            && text != ".."
            && text
                .bytes()
                .all(|b| b.is_ascii_graphic() && b != b'/' && b != b':');
        if usable {
            return Some(Self(text.to_owned()));
        }
        bad_value(
            value,
            format!("\"{text}\" is not the name of an interface"),
            format!(
                "write a name as `ip link` shows it, of {MAX_INTERFACE_BYTES} bytes at most, such as \"eth0\""
            ),
            findings,
        )
    }
}
inline_schema!([] InterfaceName, _g => json_schema!({ "type": "string", "minLength": 1, "maxLength": MAX_INTERFACE_BYTES }));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_ports_has_two_ports_in_order_none_of_them_privileged() {
        let read = |text| ports(text).map(|range| (range.first, range.last));
        assert_eq!(read("61000-65535"), Ok((61_000, 65_535)));
        assert_eq!(read("1024-1024"), Ok((1_024, 1_024)));
        let refused = |text: &str, why: &str| {
            assert_eq!(ports(text).map_err(|(message, _)| message), Err(why.to_owned()));
        };
        refused("", "\"\" is not a range of ports");
        refused("-", "\"-\" is not a range of ports");
        refused("61000", "\"61000\" is one port, not a range");
        refused("65535-61000", "\"65535-61000\" ends before it begins");
        refused("0-65535", "port 0 in \"0-65535\" is below 1024");
        refused("1023-65535", "port 1023 in \"1023-65535\" is below 1024");
        refused("61000-65536", "`65536` is not a port");
        refused("61000-+65535", "\"61000-+65535\" is not a range of ports");
        refused(
            "61000-62000-63000",
            "\"61000-62000-63000\" is not a range of ports",
        );
        refused("61000 - 65535", "white space in \"61000 - 65535\"");
    }

    #[test]
    fn a_part_of_the_ports_is_a_fraction_of_whole_numbers_and_not_more_than_all() {
        assert_eq!(part("1/8"), Some(PortsPerClient::default()));
        assert!(part("3/3").is_some() && part("1/100000").is_some());
        for wrong in [
            "", "1", "/", "1/", "/8", "0/8", "1/0", "9/8", "+1/8", "1 / 8", "1/8/2", "0.1/1", "01/8",
        ] {
            assert_eq!(part(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_part_of_the_ports_is_never_less_than_32() {
        let share = |text, ports| part(text).unwrap().of(ports);
        assert_eq!(share("1/8", 27_304), Some(3_413));
        assert_eq!(share("1/8", 100), Some(PortsPerClient::LEAST_PART));
        assert_eq!(share("1/8", u32::MAX), Some(u32::MAX / 8));
        assert_eq!(PortsPerClient::Count(NonZeroU32::MIN).of(27_304), Some(1));
        assert_eq!(PortsPerClient::Unlimited.of(27_304), None);
    }

    #[test]
    fn the_help_of_a_range_offers_what_was_probably_meant() {
        let help = |text| ports(text).map_err(|(_, help)| help);
        assert_eq!(help("65535-61000"), Err("write \"61000-65535\"".to_owned()));
        assert_eq!(help("61000 - 65535"), Err("write \"61000-65535\"".to_owned()));
        assert_eq!(
            help("61000"),
            Err("write \"61000-61000\" if one port is meant".to_owned())
        );
    }
}
