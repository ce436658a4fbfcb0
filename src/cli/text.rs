//! Text for people: tables, byte counts, times, colour.

use std::{
    borrow::Cow,
    fmt::{Display, Write as _},
    time::Duration,
};

use anstream::{AutoStream, ColorChoice, stream::RawStream};
use anstyle::AnsiColor;
use unicode_width::UnicodeWidthStr;

use crate::base::time::two_units;

/// Whether a stream is to be coloured: a terminal that can, unless NO_COLOR (no-color.org) or CLICOLOR says no; anything
/// if CLICOLOR_FORCE says so (bixense.com/clicolors).
pub fn colour_wanted(stream: &impl RawStream) -> bool {
    AutoStream::choice(stream) != ColorChoice::Never
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

/// On which side a column is filled up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// Columns as wide as their widest cell, two spaces between them.
#[derive(Debug)]
pub struct Table {
    aligns: Vec<Align>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table with a heading.
    pub fn new(columns: &[(&str, Align)]) -> Self {
        let heading = columns.iter().map(|(title, _)| Cell::new(title, Style::Bold));
        Self {
            aligns: columns.iter().map(|(_, align)| *align).collect(),
            rows: vec![heading.collect()],
        }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// The table as lines, without blanks at their ends.
    pub fn render(&self, colour: bool) -> String {
        let mut widths = vec![0; self.aligns.len()];
        for row in &self.rows {
            for (most, cell) in widths.iter_mut().zip(row) {
                *most = cell.text.width().max(*most);
            }
        }
        let mut out = String::new();
        for row in &self.rows {
            let mut blanks = 0;
            for ((cell, align), most) in row.iter().zip(&self.aligns).zip(&widths) {
                let fill = most - cell.text.width();
                let (before, after) = match align {
                    Align::Left => (0, fill),
                    Align::Right => (fill, 0),
                };
                if !cell.text.is_empty() {
                    // a failing write to a String does not exist
                    let _ = write!(out, "{:1$}", "", blanks + before);
                    out.push_str(&cell.style.paint(&cell.text, colour));
                    blanks = after + 2;
                } else {
                    blanks += most + 2;
                }
            }
            out.push('\n');
        }
        out
    }
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
    fn columns_are_aligned_and_lines_end_without_blanks() {
        let mut table = Table::new(&[("NAME", Align::Left), ("N", Align::Right), ("NOTE", Align::Left)]);
        table.row(vec![Cell::plain("größe"), Cell::plain("7"), Cell::plain("")]);
        table.row(vec![Cell::plain("a"), Cell::plain("1000"), Cell::plain("x")]);
        table.row(vec![Cell::plain("b")]);
        assert_eq!(
            table.render(false),
            "NAME      N  NOTE\ngröße     7\na      1000  x\nb\n"
        );
    }

    #[test]
    fn wide_characters_count_as_the_columns_that_they_take() {
        let mut table = Table::new(&[("NAME", Align::Left), ("N", Align::Right)]);
        table.row(vec![Cell::plain("日本"), Cell::plain("1")]);
        table.row(vec![Cell::plain("e\u{301}"), Cell::plain("2")]);
        assert_eq!(table.render(false), "NAME  N\n日本  1\ne\u{301}     2\n");
    }

    #[test]
    fn colour_does_not_count_as_width() {
        let mut table = Table::new(&[("A", Align::Left), ("B", Align::Left)]);
        table.row(vec![Cell::new("up", Style::Good), Cell::plain("x")]);
        assert_eq!(
            table.render(true),
            "\x1b[1mA\x1b[0m   \x1b[1mB\x1b[0m\n\x1b[32mup\x1b[0m  x\n"
        );
    }

    #[test]
    fn what_would_drive_a_terminal_is_replaced() {
        assert_eq!(harmless("a\x1b[2Jb\nc"), "a\u{fffd}[2Jb\nc");
        let mut table = Table::new(&[("A", Align::Left)]);
        table.row(vec![Cell::plain("x\x07\ny")]);
        assert_eq!(table.render(false), "A\nx\u{fffd} y\n");
    }
}
