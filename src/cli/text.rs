//! Text for people: cells, names, byte counts, times, colour.

use std::{borrow::Cow, cmp::Ordering, fmt::Display, os::fd::AsFd, time::Duration};

use anstream::{AutoStream, ColorChoice, stream::RawStream};
use anstyle::AnsiColor;

use crate::base::time::two_units;

/// Whether a stream is to be coloured: a terminal that can, unless NO_COLOR (no-color.org) or CLICOLOR says no; anything
/// if CLICOLOR_FORCE says so (bixense.com/clicolors).
pub fn colour_wanted(stream: &impl RawStream) -> bool {
    AutoStream::choice(stream) != ColorChoice::Never
}

/// Columns of the terminal that a stream goes to, if it does.
pub fn terminal_columns(stream: &impl AsFd) -> Option<usize> {
    terminal_size::terminal_size_of(stream).map(|(width, _)| usize::from(width.0))
}

/// How a cell is emphasised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Not at all.
    Plain,
    /// A heading.
    Bold,
    /// What matters less.
    Dim,
    /// As it should be.
    Good,
    /// Not as usual, on purpose or for a while.
    Notice,
    /// Broken.
    Bad,
}

impl Style {
    const fn ansi(self) -> anstyle::Style {
        let style = anstyle::Style::new();
        match self {
            Self::Plain => style,
            Self::Bold => style.bold(),
            Self::Dim => style.dimmed(),
            Self::Good => AnsiColor::Green.on_default(),
            Self::Notice => AnsiColor::Yellow.on_default(),
            Self::Bad => AnsiColor::Red.on_default().bold(),
        }
    }

    /// Text in this style, if colour is wanted.
    pub fn paint(self, text: &str, colour: bool) -> String {
        if !colour || text.is_empty() {
            return text.to_owned();
        }
        let style = self.ansi();
        format!("{style}{text}{style:#}")
    }
}

/// One cell of a table.
#[derive(Debug, Clone)]
pub struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// A cell. Characters that would act on a terminal are replaced.
    pub fn new(text: impl Display, style: Style) -> Self {
        Self {
            text: harmless(&text.to_string()).replace(['\n', '\t'], " "),
            style,
        }
    }

    /// A plain cell.
    pub fn plain(text: impl Display) -> Self {
        Self::new(text, Style::Plain)
    }

    /// Its text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// How it is emphasised.
    pub const fn style(&self) -> Style {
        self.style
    }
}

/// Text without control characters other than line ends and tabs: what comes from elsewhere must not drive the terminal.
pub fn harmless(text: &str) -> Cow<'_, str> {
    let acts = |c: char| c.is_control() && c != '\n' && c != '\t';
    if text.chars().any(acts) {
        Cow::Owned(text.replace(acts, "\u{fffd}"))
    } else {
        Cow::Borrowed(text)
    }
}

/// The order in which people look for names: numbers in them by their value, so that s10 follows s9.
pub fn natural_order(one: &str, other: &str) -> Ordering {
    let (mut one, mut other) = (one, other);
    loop {
        let (digits, others) = (leading_digits(one), leading_digits(other));
        if !digits.is_empty() && !others.is_empty() {
            let (value, against) = (digits.trim_start_matches('0'), others.trim_start_matches('0'));
            let order = value.len().cmp(&against.len()).then_with(|| value.cmp(against));
            // the same number with more zeroes before it comes later
            let order = order.then_with(|| digits.len().cmp(&others.len()));
            if order.is_ne() {
                return order;
            }
            (one, other) = (&one[digits.len()..], &other[others.len()..]);
            continue;
        }
        let (mut rest, mut against) = (one.chars(), other.chars());
        match (rest.next(), against.next()) {
            (Some(a), Some(b)) if a == b => (one, other) = (rest.as_str(), against.as_str()),
            (a, b) => return a.cmp(&b),
        }
    }
}

fn leading_digits(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    &text[..end]
}

/// A number of bytes with a decimal unit, as network tools count: `0 B`, `1.5 kB`, `20 MB`.
pub fn bytes(count: u64) -> String {
    if count < 1000 {
        return format!("{count} B");
    }
    let mut value = count;
    let mut tenths = 0;
    let mut prefix = "";
    for next in ["k", "M", "G", "T", "P", "E"] {
        if value < 1000 {
            break;
        }
        tenths = value % 1000 / 100;
        value /= 1000;
        prefix = next;
    }
    if value < 10 {
        format!("{value}.{tenths} {prefix}B")
    } else {
        format!("{value} {prefix}B")
    }
}

/// A time in its two largest units: `14s`, `3m 12s`, `2h 3m`, `5d 4h`.
pub fn time(seconds: f64) -> String {
    two_units(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_keep_two_or_three_figures() {
        for (count, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (1590, "1.5 kB"),
            (20_480, "20 kB"),
            (999_999, "999 kB"),
            (1_000_000, "1.0 MB"),
            (u64::MAX, "18 EB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn times_keep_two_units() {
        for (seconds, text) in [
            (0.4, "0s"),
            (59.9, "59s"),
            (60.0, "1m 0s"),
            (192.0, "3m 12s"),
            (7384.0, "2h 3m"),
            (446_500.0, "5d 4h"),
            (-1.0, "0s"),
            (f64::NAN, "0s"),
        ] {
            assert_eq!(time(seconds), text);
        }
    }

    #[test]
    fn names_are_in_the_order_of_their_numbers() {
        let mut names = ["s10", "s2", "web", "s1", "s2b", "s02", "10", "9", "ß", "s"];
        names.sort_by(|one, other| natural_order(one, other));
        assert_eq!(
            names,
            ["9", "10", "s", "s1", "s2", "s2b", "s02", "s10", "web", "ß"]
        );
    }

    #[test]
    fn what_would_drive_a_terminal_is_replaced() {
        assert_eq!(harmless("a\x1b[2Jb\nc"), "a\u{fffd}[2Jb\nc");
    }
}
