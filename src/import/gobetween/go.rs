//! Times and strings as Go reads them.

use std::time::Duration;

/// `time.ParseDuration`: numbers with units, such as `1m30s`, or `0`. A negative time is none here.
pub fn duration(text: &str) -> Option<Duration> {
    let text = text.strip_prefix('+').unwrap_or(text);
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let length = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, unit) = rest.split_at(length);
        let number: f64 = number.parse().ok()?;
        let (factor, name) = UNITS
            .into_iter()
            .find_map(|(name, factor)| unit.strip_prefix(name).map(|_| (factor, name)))?;
        seconds += number * factor;
        rest = &unit[name.len()..];
    }
    let duration = Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|_| !text.is_empty())?;
    // Convey goes by milliseconds, and to a year
    let millis = duration.min(Duration::from_secs(365 * 86_400)).as_millis();
    let millis = u64::try_from(millis).ok()?;
    Some(Duration::from_millis(millis.max(u64::from(!duration.is_zero()))))
}

/// The longer one of two that begin alike comes first.
const UNITS: [(&str, f64); 8] = [
    ("ns", 1e-9),
    ("us", 1e-6),
    ("µs", 1e-6),
    ("μs", 1e-6),
    ("ms", 1e-3),
    ("s", 1.0),
    ("m", 60.0),
    ("h", 3_600.0),
];

/// `strconv.Unquote` of a text between double quotes.
pub fn unquoted(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == '"' || c == '\n' {
            return None;
        }
        if c != '\\' {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        match chars.next()? {
            'a' => out.push(7),
            'b' => out.push(8),
            'f' => out.push(12),
            'n' => out.push(b'\n'),
            'r' => out.push(b'\r'),
            't' => out.push(b'\t'),
            'v' => out.push(11),
            '\\' => out.push(b'\\'),
            '"' => out.push(b'"'),
            'x' => out.push(u8::try_from(digits(&mut chars, 2, 16, 0)?).ok()?),
            octal @ '0'..='7' => {
                let first = octal.to_digit(8)?;
                out.push(u8::try_from(digits(&mut chars, 2, 8, first)?).ok()?);
            }
            'u' => push(&mut out, digits(&mut chars, 4, 16, 0)?)?,
            'U' => push(&mut out, digits(&mut chars, 8, 16, 0)?)?,
            _ => return None,
        }
    }
    Some(out)
}

fn digits(chars: &mut std::str::Chars<'_>, count: usize, radix: u32, first: u32) -> Option<u32> {
    (0..count).try_fold(first, |number: u32, _| {
        number
            .checked_mul(radix)?
            .checked_add(chars.next()?.to_digit(radix)?)
    })
}

fn push(out: &mut Vec<u8>, point: u32) -> Option<()> {
    let c = char::from_u32(point)?;
    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_go() {
        for (text, millis) in [
            ("0", 0),
            ("0s", 0),
            ("500ms", 500),
            ("1.5s", 1_500),
            ("1h2m3s", 3_723_000),
            ("10us", 1),
            (".5m", 30_000),
            ("+2s", 2_000),
        ] {
            assert_eq!(duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "5", "5 s", "-1s", "s", "1x", "1s2", "..s", "NaNs"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn strings_are_those_of_go() {
        assert_eq!(
            unquoted(r"PING\r\n\x00\101\u00e9\\"),
            Some("PING\r\n\0Aé\\".into())
        );
        for text in [r"\", r"\q", r"\x1", "a\"b", r"\400", r"\ud800"] {
            assert_eq!(unquoted(text), None, "{text}");
        }
    }
}
