//! Addresses to listen on with one port or several in a row, as operators write them.

use super::{
    address::{self, Fault, fault},
    socket_path,
};
use crate::base::{ListenPlace, ListenRange};

/// What stands between two ports by mistake: dashes that word processors make of a hyphen, and other tools' signs.
const SIGNS: [&str; 5] = ["–", "—", "−", "..", "~"];

/// Reads `IP:port`, `IP:first-last` or `unix:/path`.
///
/// # Errors
/// None of them, or nothing that can be listened on; the fault says which part is wrong.
pub fn parse(text: &str) -> Result<ListenPlace, Fault> {
    match socket_path::parse(text) {
        Some(path) => path.map(ListenPlace::Unix),
        None => parse_range(text).map(ListenPlace::Network),
    }
}

fn parse_range(text: &str) -> Result<ListenRange, Fault> {
    if text.contains(char::is_whitespace) {
        return Err(fault(
            format!("white space in `{text}`"),
            "write IP:port or IP:first-last without it, such as \"0.0.0.0:80\" or \"[::]:9000-9010\"",
        ));
    }
    let Some((host, ports)) = text.rsplit_once(':') else {
        return address::parse_listen(text).map(Into::into);
    };
    if ports.contains(',') {
        let each: Vec<_> = ports
            .split(',')
            .map(|port| format!("\"{host}:{port}\""))
            .collect();
        return Err(fault(
            format!("`{ports}` is more than one port or range"),
            format!("write a list: [{}]", each.join(", ")),
        ));
    }
    if let Some((first, last)) = with_another_sign(host, ports) {
        return Err(fault(
            format!("`{text}` is not a range of ports"),
            format!("write the first and the last port with a hyphen: \"{first}-{last}\""),
        ));
    }
    let Some((first, last)) = ports.split_once('-') else {
        return address::parse_listen(text).map(Into::into);
    };
    range(text, host, first, last)
}

fn range(text: &str, host: &str, first: &str, last: &str) -> Result<ListenRange, Fault> {
    for end in [first, last] {
        if end.is_empty() {
            return Err(fault(
                format!("the range of ports in `{text}` lacks an end"),
                "write the first and the last port, such as \"0.0.0.0:9000-9010\"",
            ));
        }
        address::check_port(end)?;
    }
    let lowest = address::parse_listen(&format!("{host}:{first}"))?;
    let (first, last) = (lowest.0.port(), last.parse().unwrap_or_default());
    if first == last {
        return Err(fault(
            format!("the range {first}-{last} in `{text}` is one port"),
            format!("write \"{lowest}\""),
        ));
    }
    ListenRange::new(lowest, last).ok_or_else(|| {
        fault(
            format!("the range {first}-{last} in `{text}` ends before it begins"),
            format!("write \"{}-{first}\"", lowest.with_port(last)),
        )
    })
}

/// Both ends of what is meant as a range, the first with its address, if another sign than a hyphen is between them.
fn with_another_sign<'a>(host: &'a str, ports: &'a str) -> Option<(String, &'a str)> {
    let is_port = |text: &str| address::check_port(text).is_ok();
    let by_sign = SIGNS.iter().find_map(|sign| ports.split_once(sign));
    if let Some((first, last)) = by_sign {
        return (is_port(first) && is_port(last)).then(|| (format!("{host}:{first}"), last));
    }
    // iptables'
    let is_third = host
        .rsplit_once(':')
        .is_some_and(|(ip, first)| is_port(first) && (ip.ends_with(']') || !ip.contains(':')));
    (is_third && is_port(ports)).then(|| (host.to_owned(), ports))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> String {
        parse(text).map_or_else(
            |found| format!("{}; {}", found.message, found.help),
            |range| range.to_string(),
        )
    }

    #[test]
    fn one_port_or_a_range_is_listened_on() {
        for text in [
            "0.0.0.0:80",
            "0.0.0.0:9000-9010",
            "[::]:1-65535",
            "[fe80::1%eth0]:80-81",
            "unix:/run/convey/web.sock",
        ] {
            assert_eq!(said(text), text);
        }
    }

    #[test]
    fn what_is_no_range_is_told_what_would_be() {
        for (text, expected) in [
            (
                "10.0.0.1:9010-9000",
                "the range 9010-9000 in `10.0.0.1:9010-9000` ends before it begins; write \"10.0.0.1:9000-9010\"",
            ),
            (
                "[::]:90-90",
                "the range 90-90 in `[::]:90-90` is one port; write \"[::]:90\"",
            ),
            ("10.0.0.1:0-10", "`0` is not a port; write a port from 1 to 65535"),
            (
                "10.0.0.1:1-70000",
                "`70000` is not a port; write a port from 1 to 65535",
            ),
            (
                "10.0.0.1:1-2x",
                "`2x` is not a port; write a port from 1 to 65535",
            ),
            (
                "10.0.0.1:1-2-3",
                "`2-3` is not a port; write a port from 1 to 65535",
            ),
            (
                "10.0.0.1:9000-",
                "the range of ports in `10.0.0.1:9000-` lacks an end; write the first and the last port, such as \"0.0.0.0:9000-9010\"",
            ),
            (
                "10.0.0.1:80,90-99",
                "`80,90-99` is more than one port or range; write a list: [\"10.0.0.1:80\", \"10.0.0.1:90-99\"]",
            ),
            (
                "10.0.0.1:9000–9010",
                "`10.0.0.1:9000–9010` is not a range of ports; write the first and the last port with a hyphen: \"10.0.0.1:9000-9010\"",
            ),
            (
                "[::1]:9000:9010",
                "`[::1]:9000:9010` is not a range of ports; write the first and the last port with a hyphen: \"[::1]:9000-9010\"",
            ),
            (
                "10.0.0.1:1 - 2",
                "white space in `10.0.0.1:1 - 2`; write IP:port or IP:first-last without it, such as \"0.0.0.0:80\" or \"[::]:9000-9010\"",
            ),
            (
                "10.0.0.256:1-2",
                "`10.0.0.256` is not an IPv4 address; an IPv4 address is four numbers from 0 to 255 without leading zeros, such as 10.0.0.1",
            ),
        ] {
            assert_eq!(said(text), expected);
        }
        assert!(said("::1:8080").starts_with("IPv6 address `::1:8080` without brackets"));
    }
}
