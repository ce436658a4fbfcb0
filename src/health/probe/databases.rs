//! What databases say first.

use super::{Reading, said};

/// Longest message that is waited for: a greeting or an error is far shorter.
const MAX_MESSAGE_BYTES: usize = 8_192;

/// Version 3.0 of PostgreSQL's protocol.
const POSTGRESQL_VERSION: u32 = 0x0003_0000;

/// The first message of a session with PostgreSQL, as `psql` sends it ("StartupMessage" of the manual, 55.7).
pub fn postgresql_startup(user: &str) -> Vec<u8> {
    let mut body = POSTGRESQL_VERSION.to_be_bytes().to_vec();
    for (name, value) in [
        ("user", user),
        ("database", "postgres"),
        ("application_name", "convey"),
    ] {
        for text in [name, value] {
            body.extend(text.bytes());
            body.push(0);
        }
    }
    body.push(0);
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [length.to_be_bytes().to_vec(), body].concat()
}

/// A server that asks for a password, or knows no such user, works; one that starts, stops or is full says so
/// (`pg_isready` draws the same line).
pub fn postgresql(answer: &[u8]) -> Reading {
    let Some((kind, rest)) = answer.split_first() else {
        return Reading::More;
    };
    if !matches!(kind, b'R' | b'E') {
        return Reading::Wrong;
    }
    let Some((length, rest)) = rest.split_first_chunk() else {
        return Reading::More;
    };
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    if !(8..=MAX_MESSAGE_BYTES).contains(&length) {
        return Reading::Wrong;
    }
    if *kind == b'R' {
        return Reading::Right;
    }
    let Some(fields) = rest.get(..length - 4) else {
        return Reading::More;
    };
    let field = |wanted: u8| {
        let mut fields = fields.split(|byte| *byte == 0);
        fields.find_map(|field| field.split_first().filter(|(kind, _)| **kind == wanted))
    };
    let code = field(b'C').map_or(&b""[..], |(_, code)| code);
    let message = said(field(b'M').map_or(&b""[..], |(_, message)| message));
    // operator intervention, insufficient resources, system and internal errors (the manual, appendix A)
    let is_down = ["57", "53", "58", "F0", "XX"]
        .iter()
        .any(|class| code.starts_with(class.as_bytes()));
    match is_down {
        true => Reading::Says(format!("PostgreSQL says: {message} ({})", said(code))),
        false if code.len() == 5 => Reading::Right,
        false => Reading::Wrong,
    }
}

/// A greeting of version 10 of the protocol; an error that comes instead has a number and a text.
pub fn mysql(answer: &[u8]) -> Reading {
    let Some(([low, middle, high, number], body)) = answer.split_first_chunk() else {
        return match answer {
            [_, _, high] if *high != 0 => Reading::Wrong,
            _ => Reading::More,
        };
    };
    let length = usize::from(u16::from_le_bytes([*low, *middle]));
    if *number != 0 || *high != 0 || !(3..=MAX_MESSAGE_BYTES).contains(&length) {
        return Reading::Wrong;
    }
    match (body.first(), body.get(..length)) {
        (Some(10), Some(_)) => Reading::Right,
        (Some(0xff), Some([_, low, high, text @ ..])) => {
            // an SQLSTATE is there once both know each other
            let text = match text.split_first_chunk::<6>() {
                Some(([b'#', ..], text)) => text,
                _ => text,
            };
            let code = u16::from_le_bytes([*low, *high]);
            Reading::Says(format!("MySQL says: {} ({code})", said(text)))
        }
        (None | Some(10 | 0xff), _) => Reading::More,
        (Some(_), _) => Reading::Wrong,
    }
}
