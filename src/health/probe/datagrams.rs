//! Queries by UDP.

use super::Reading;

/// Of a query and an answer of DNS (RFC 1035, 4.1.1).
const DNS_HEADER_BYTES: usize = 12;

/// Types and class of records (RFC 1035, 3.2).
const TYPE_A: u16 = 1;
const TYPE_SOA: u16 = 6;
const CLASS_IN: u16 = 1;

/// The header of NTP without extensions (RFC 5905, 7.3).
const NTP_BYTES: usize = 48;

/// Version 4, mode client.
const NTP_CLIENT: u8 = 4 << 3 | 3;

/// A query for the address of a name, or for who is responsible for the root.
pub fn dns_query(id: u16, name: Option<&str>) -> Vec<u8> {
    let mut query = id.to_be_bytes().to_vec();
    // a query of the standard kind that may be looked up elsewhere; one question
    query.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.into_iter().flat_map(|name| name.split('.')) {
        // the configuration has no longer ones
        query.push(u8::try_from(label.len()).unwrap_or(0));
        query.extend(label.bytes());
    }
    query.push(0);
    let kind = if name.is_some() { TYPE_A } else { TYPE_SOA };
    query.extend(kind.to_be_bytes());
    query.extend(CLASS_IN.to_be_bytes());
    query
}

/// A name must be known; of the root a server need not know anything.
pub fn dns(answer: &[u8], id: u16, is_named: bool) -> Reading {
    let Some(header) = answer.get(..DNS_HEADER_BYTES) else {
        return Reading::Wrong;
    };
    let [high, low, flags, codes, ..] = *header else {
        return Reading::Wrong;
    };
    if u16::from_be_bytes([high, low]) != id || flags & 0x80 == 0 {
        return Reading::Wrong;
    }
    let code = codes & 0x0f;
    match code {
        0 => Reading::Right,
        3 | 5 if !is_named => Reading::Right,
        code => Reading::Says(format!("answered {}", response_code(code))),
    }
}

/// What IANA calls it.
fn response_code(code: u8) -> String {
    match code {
        1 => "FORMERR".to_owned(),
        2 => "SERVFAIL".to_owned(),
        3 => "NXDOMAIN".to_owned(),
        4 => "NOTIMP".to_owned(),
        5 => "REFUSED".to_owned(),
        code => format!("response code {code}"),
    }
}

/// A query of a client, with what the answer must repeat.
pub fn ntp_query(stamp: [u8; 8]) -> Vec<u8> {
    let mut query = vec![0; NTP_BYTES - stamp.len()];
    if let Some(first) = query.first_mut() {
        *first = NTP_CLIENT;
    }
    query.extend(stamp);
    query
}

/// A server that has a time, and knows it to be right.
pub fn ntp(answer: &[u8], stamp: [u8; 8]) -> Reading {
    let (Some(first), Some(stratum), Some(id), Some(origin)) = (
        answer.first(),
        answer.get(1),
        answer.get(12..16),
        answer.get(24..32),
    ) else {
        return Reading::Wrong;
    };
    if answer.len() < NTP_BYTES || first & 7 != 4 || origin != stamp {
        return Reading::Wrong;
    }
    match (first >> 6, stratum) {
        // a "kiss of death": four letters (RFC 5905, 7.4)
        (_, 0) => Reading::Says(format!("refused with {}", super::quoted(id))),
        (3, _) | (_, 16..) => Reading::Says("its clock is not synchronised".to_owned()),
        _ => Reading::Right,
    }
}
