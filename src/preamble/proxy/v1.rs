//! Version 1, a line of text (section 2.1).

use std::{
    fmt::Display,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use super::{MAX_V1_BYTES, ProxyHeader, ProxyRefusal, ProxySource, ProxyVersion, Tlvs, canonical};
use ProxyRefusal::{Malformed, TooLong};

pub(super) const SIGNATURE: &[u8] = b"PROXY";

/// What may follow.
const PROTOCOLS: [&[u8]; 3] = [b" TCP4 ", b" TCP6 ", b" UNKNOWN"];

/// The line that a server gets first.
///
/// A client and a destination of two families are written as TCP6 with the IPv4 one mapped into IPv6, as HAProxy does:
/// both have to be of the family that is named (section 2.1), and UNKNOWN would lose the client. A health check should be
/// written as a client with the connection's own addresses, since some servers refuse UNKNOWN.
#[must_use]
pub fn write(source: ProxySource) -> Vec<u8> {
    let ProxySource::Client { client, destination } = source else {
        return b"PROXY UNKNOWN\r\n".to_vec();
    };
    let (client, destination) = (canonical(client), canonical(destination));
    let line = |family: &str, from: &dyn Display, to: &dyn Display| {
        format!(
            "PROXY {family} {from} {to} {} {}\r\n",
            client.port(),
            destination.port()
        )
        .into_bytes()
    };
    match (client.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => line("TCP4", &from, &to),
        (from, to) => line("TCP6", &hexadecimal(from), &hexadecimal(to)),
    }
}

/// An IPv6 address without the dots of mapped ones, which the specification does not know.
fn hexadecimal(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => {
            let [.., high, low] = ip.to_ipv6_mapped().segments();
            format!("::ffff:{high:x}:{low:x}")
        }
        IpAddr::V6(ip) => ip.to_string(),
    }
}

/// Reads what begins with the signature; `None` if it is not whole.
pub(super) fn read(all: &[u8]) -> Result<Option<ProxyHeader>, ProxyRefusal> {
    let all = &all[..all.len().min(MAX_V1_BYTES)];
    let after = all.get(SIGNATURE.len()..).unwrap_or_default();
    let begins = |protocol: &[u8]| {
        let seen = after.len().min(protocol.len());
        after[..seen] == protocol[..seen]
    };
    if !PROTOCOLS.into_iter().any(begins) {
        return Err(Malformed("its protocol is not TCP4, TCP6 or UNKNOWN"));
    }
    let is_unknown = after.starts_with(PROTOCOLS[2]);
    let newline = all.iter().position(|byte| *byte == b'\n');
    let ends_alone = newline.is_some_and(|at| !all[..at].ends_with(b"\r"));
    // of UNKNOWN whatever comes before CR and LF is ignored
    if ends_alone && !is_unknown {
        return Err(Malformed("its line ends without CR"));
    }
    let Some(end) = all.windows(2).position(|two| two == b"\r\n") else {
        return match all.len() {
            MAX_V1_BYTES => Err(TooLong),
            _ => Ok(None),
        };
    };
    let line = after.get(..end - SIGNATURE.len()).unwrap_or_default();
    Ok(Some(ProxyHeader {
        version: ProxyVersion::V1,
        source: source(line)?,
        tlvs: Tlvs::default(),
        length: end + 2,
    }))
}

fn source(line: &[u8]) -> Result<ProxySource, ProxyRefusal> {
    if let Some(ignored) = line.strip_prefix(PROTOCOLS[2]) {
        return match ignored.first() {
            None | Some(b' ') => Ok(ProxySource::Unknown),
            Some(_) => Err(Malformed("its protocol is not TCP4, TCP6 or UNKNOWN")),
        };
    }
    let line = str::from_utf8(line).map_err(|_| Malformed("its line is not ASCII"))?;
    let fields: Vec<&str> = line.split(' ').collect();
    let ["", family, from, to, from_port, to_port] = fields[..] else {
        return Err(Malformed(
            "its line has not six words with one space between them",
        ));
    };
    let ip = |text: &str| match family {
        "TCP4" => Ipv4Addr::from_str(text).map(IpAddr::V4),
        _ => Ipv6Addr::from_str(text).map(IpAddr::V6),
    };
    let addr = |ip_text, port_text| {
        let ip = ip(ip_text).map_err(|_| Malformed("an address in it is not one of its family"))?;
        let port = port(port_text).ok_or(Malformed("a port in it is not a number from 0 to 65535"))?;
        Ok(SocketAddr::new(ip, port))
    };
    Ok(ProxySource::client(addr(from, from_port)?, addr(to, to_port)?))
}

/// A number without sign and without a zero before it.
fn port(text: &str) -> Option<u16> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let has_zero = text.len() > 1 && text.starts_with('0');
    (is_number && !has_zero).then(|| text.parse().ok())?
}
