//! A request of HTTP/1.1, and what its answer has to be.
//!
//! The beginning of an answer decides: no redirection is followed, no connection kept, no body read beyond what is looked at.

use super::{End, MAX_ANSWER_BYTES, Reading, quoted, said};
use crate::{
    base::ServerAddr,
    config::{Expected, HttpCheck, StatusRange},
};

/// Longest status line that is waited for.
const MAX_LINE_BYTES: usize = 1_024;

/// The request of a check.
pub fn request(check: &HttpCheck, server: ServerAddr) -> Vec<u8> {
    let host = match (&check.host, server.on_network()) {
        (Some(host), _) => host.to_string(),
        (None, Some(addr)) => addr.0.to_string(),
        (None, None) => "localhost".to_owned(),
    };
    let (method, path) = (check.method.label(), &check.path);
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: convey/{version}\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    )
    .into_bytes()
}

/// The status decides, and then the body if something is expected of it.
pub fn judge(check: &HttpCheck, mut answer: &[u8], end: End) -> Reading {
    loop {
        let Some((line, rest)) = cut_line(answer) else {
            let begins = b"HTTP/1.".iter().zip(answer).all(|(want, is)| want == is);
            return match begins && answer.len() < MAX_LINE_BYTES {
                true => Reading::More,
                false => Reading::Wrong,
            };
        };
        let Some(code) = status(line) else {
            return Reading::Wrong;
        };
        if (100..200).contains(&code) {
            // what comes before the answer
            let Some((_, after)) = cut_head(rest) else {
                return Reading::More;
            };
            answer = after;
            continue;
        }
        let says = said(line.get(9..).unwrap_or_default());
        if !check.status.iter().any(|range| range.contains(code)) {
            return Reading::Says(format!("answered {says} instead of {}", wanted(&check.status)));
        }
        let Some(expected) = &check.expect else {
            return Reading::Right;
        };
        let Some((head, body)) = cut_head(rest) else {
            return Reading::More;
        };
        let (body, is_whole) = body_of(head, body);
        return if is_in(expected, &body) {
            Reading::Right
        } else if is_whole || end != End::Open {
            let begin = quoted(&body);
            let expected = of_body(expected);
            Reading::Says(format!(
                "answered {says} with {begin} instead of {expected} in it"
            ))
        } else {
            Reading::More
        };
    }
}

/// As a text says what is expected.
pub fn wanted(ranges: &[StatusRange]) -> String {
    let ranges: Vec<_> = ranges.iter().map(ToString::to_string).collect();
    ranges.join(", ")
}

fn of_body(expected: &Expected) -> String {
    match expected {
        Expected::Begins(bytes) => quoted(bytes.bytes()),
        Expected::Matches(regex) => format!("a match of {}", quoted(regex.pattern().as_bytes())),
    }
}

fn is_in(expected: &Expected, body: &[u8]) -> bool {
    match expected {
        Expected::Begins(bytes) => {
            let wanted = bytes.bytes();
            body.windows(wanted.len().max(1)).any(|window| window == wanted)
        }
        Expected::Matches(regex) => regex.is_in(body),
    }
}

/// A line without its end, and what follows.
fn cut_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = bytes
        .iter()
        .take(MAX_ANSWER_BYTES)
        .position(|byte| *byte == b'\n')?;
    let (line, rest) = bytes.split_at_checked(at)?;
    Some((line.strip_suffix(b"\r").unwrap_or(line), rest.get(1..)?))
}

/// The code of a status line: `HTTP/1.1 200 OK`.
fn status(line: &[u8]) -> Option<u16> {
    let rest = line.strip_prefix(b"HTTP/1.")?;
    let (minor, code) = (rest.first()?, rest.get(2..5)?);
    let is_form = minor.is_ascii_digit() && rest.get(1) == Some(&b' ') && code.iter().all(u8::is_ascii_digit);
    let ends = rest.get(5).is_none_or(|next| *next == b' ');
    (is_form && ends).then(|| std::str::from_utf8(code).ok()?.parse().ok())?
}

/// Headers up to the empty line, and what follows it.
fn cut_head(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut rest = bytes;
    loop {
        let (line, after) = cut_line(rest)?;
        if line.is_empty() {
            let length = bytes.len() - after.len();
            return Some((bytes.get(..length)?, after));
        }
        rest = after;
    }
}

/// As much of a body as has come, and whether that is all.
fn body_of(mut head: &[u8], body: &[u8]) -> (Vec<u8>, bool) {
    let (mut is_chunked, mut length) = (false, None);
    while let Some((line, rest)) = cut_line(head) {
        head = rest;
        let Ok(line) = std::str::from_utf8(line) else {
            continue;
        };
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        if name.eq_ignore_ascii_case("transfer-encoding") {
            is_chunked |= value.to_ascii_lowercase().contains("chunked");
        } else if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse::<usize>().ok();
        }
    }
    match length {
        _ if is_chunked => chunks(body),
        Some(length) => (body.iter().take(length).copied().collect(), body.len() >= length),
        None => (body.to_vec(), false),
    }
}

/// A body in chunks (RFC 9112, 7.1); what is none ends it.
fn chunks(mut bytes: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Some((line, rest)) = cut_line(bytes) {
        let digits = line
            .split(|byte| !byte.is_ascii_hexdigit())
            .next()
            .unwrap_or_default();
        let size = std::str::from_utf8(digits).ok();
        let Some(size) = size.and_then(|size| usize::from_str_radix(size, 16).ok()) else {
            return (body, true);
        };
        if size == 0 {
            return (body, true);
        }
        body.extend(rest.iter().take(size));
        match rest.get(size..).and_then(cut_line) {
            Some((_, next)) => bytes = next,
            None => return (body, false),
        }
    }
    (body, false)
}
