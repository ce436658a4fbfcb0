//! Lengths of time as operators write them: `250ms`, `3s`, `1h30m`.

use std::{fmt::Write, time::Duration};

/// Units from the longest to the shortest, in milliseconds. Order matters: a written duration goes down it.
const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// What a duration looks like, for help texts.
pub const FORM: &str = "write a number and a unit (ms, s, m, h, d), such as \"250ms\", \"3s\" or \"1h30m\"; a bare integer means seconds";

/// Reads a duration: numbers with units, each unit at most once and from the longest to the shortest.
///
/// `None` if the text has another form or the sum does not fit 64 bits of milliseconds.
#[must_use]
pub fn parse(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut units = UNITS.iter();
    let mut total: u64 = 0;
    loop {
        let (number, tail) = split_at_non_digit(rest)?;
        let (unit, after) = split_unit(tail)?;
        let (_, millis) = units.by_ref().find(|(name, _)| *name == unit)?;
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(*millis)?)?;
        rest = after;
        if rest.is_empty() {
            return Some(Duration::from_millis(total));
        }
    }
}

/// Writes a duration so that [`parse`] reads the same one; what is below a millisecond is cut off.
#[must_use]
pub fn print(duration: Duration) -> String {
    let mut millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (name, length) in UNITS {
        if millis >= length {
            let _infallible = write!(text, "{}{name}", millis / length);
            millis %= length;
        }
    }
    text
}

fn split_at_non_digit(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    (end > 0).then(|| text.split_at(end))
}

fn split_unit(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_duration_is_a_sum_of_numbers_with_units() {
        assert_eq!(parse("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse("3s"), Some(Duration::from_secs(3)));
        assert_eq!(parse("1h30m"), Some(Duration::from_secs(5_400)));
        assert_eq!(parse("1d0s"), Some(Duration::from_secs(86_400)));
        assert_eq!(parse("0s"), Some(Duration::ZERO));
    }

    #[test]
    fn what_could_mean_two_things_is_refused() {
        for text in [
            "",
            "3",
            "s",
            "3 s",
            "-3s",
            "3S",
            "1.5s",
            "3s1h",
            "1s1s",
            "3sec",
            "1h 30m",
            "99999999999999999999s",
            "9999999999999999d",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_printed_duration_reads_back_as_itself(millis: u64) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse(&print(duration)), Some(duration));
        }
    }
}
