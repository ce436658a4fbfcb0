//! Tables that fit a terminal.

use std::fmt::Write as _;

use unicode_width::UnicodeWidthStr;

use super::text::{Cell, Style};

/// Titles of columns of bytes: the first to go when there is no room for everything.
const BYTES: [&str; 4] = ["IN", "OUT", "IN/S", "OUT/S"];

/// Titles of a last column of sentences: what of it does not fit gets lines of its own.
const SENTENCES: [&str; 2] = ["NOTE", "MEANING"];

/// Blanks before such a line.
const INDENT: usize = 4;

/// Narrowest terminal that is taken for one.
const NARROWEST: usize = 40;

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
    titles: Vec<String>,
    aligns: Vec<Align>,
    rows: Vec<Vec<Cell>>,
    /// Columns of the terminal, if there is one.
    room: Option<usize>,
}

impl Table {
    /// A table with a heading.
    pub fn new(columns: &[(&str, Align)]) -> Self {
        let heading = columns.iter().map(|(title, _)| Cell::new(title, Style::Bold));
        Self {
            titles: columns.iter().map(|(title, _)| (*title).to_owned()).collect(),
            aligns: columns.iter().map(|(_, align)| *align).collect(),
            rows: vec![heading.collect()],
            room: None,
        }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// Makes it fit a terminal of so many columns, if it is to go to one: bytes go first, then the columns that are named, in
    /// this order, until the others have room.
    #[must_use]
    pub fn fit(mut self, room: Option<usize>, dispensable: &[&str]) -> Self {
        let Some(room) = room.map(|room| room.max(NARROWEST)) else {
            return self;
        };
        self.room = Some(room);
        let bytes = BYTES
            .iter()
            .filter(|title| self.titles.iter().any(|own| own == *title));
        for title in bytes.copied().collect::<Vec<_>>() {
            if self.width(self.titles.len()) > room {
                self.remove(title);
            }
        }
        for title in dispensable {
            if self.width(self.cells()) > room {
                self.remove(title);
            }
        }
        self
    }

    /// The table as lines, without blanks at their ends.
    pub fn render(&self, colour: bool) -> String {
        let widths = self.widths();
        let mut out = String::new();
        for (index, row) in self.rows.iter().enumerate() {
            let (cells, sentence) = match row.split_at_checked(self.cells()) {
                Some((cells, [sentence])) if self.has_sentences() => (cells, Some(sentence)),
                _ => (row.as_slice(), None),
            };
            let mut line = Line::default();
            for ((cell, align), width) in cells.iter().zip(&self.aligns).zip(&widths) {
                line.add(cell, *align, *width, colour);
            }
            let sentence = sentence.filter(|sentence| !sentence.text().is_empty());
            match (sentence, self.room) {
                (None, _) => out.push_str(&line.text),
                (Some(sentence), Some(room)) if line.end + sentence.text().width() > room => {
                    out.push_str(&line.text);
                    // a heading over nothing is none
                    if index > 0 {
                        for part in wrapped(sentence.text(), room - INDENT) {
                            // a failing write to a String does not exist
                            let _ = write!(out, "\n{:INDENT$}{}", "", sentence.style().paint(&part, colour));
                        }
                    }
                }
                (Some(sentence), _) => {
                    line.add(sentence, Align::Left, 0, colour);
                    out.push_str(&line.text);
                }
            }
            out.push('\n');
        }
        out
    }

    fn has_sentences(&self) -> bool {
        (self.titles.last()).is_some_and(|title| SENTENCES.contains(&title.as_str()))
    }

    /// Number of columns that are no sentences.
    fn cells(&self) -> usize {
        self.titles.len() - usize::from(self.has_sentences())
    }

    fn widths(&self) -> Vec<usize> {
        let mut widths = vec![0; self.titles.len()];
        for row in &self.rows {
            for (most, cell) in widths.iter_mut().zip(row) {
                *most = cell.text().width().max(*most);
            }
        }
        widths
    }

    /// Width of the first columns together.
    fn width(&self, columns: usize) -> usize {
        let widths = self.widths();
        let used = widths.iter().take(columns);
        used.map(|width| width + 2).sum::<usize>().saturating_sub(2)
    }

    /// Takes a column out.
    pub fn remove(&mut self, title: &str) {
        let Some(index) = self.titles.iter().position(|own| own == title) else {
            return;
        };
        self.titles.remove(index);
        self.aligns.remove(index);
        for row in self.rows.iter_mut().filter(|row| row.len() > index) {
            row.remove(index);
        }
    }
}

/// A line that grows by cells.
#[derive(Default)]
struct Line {
    text: String,
    /// Where the next cell begins.
    end: usize,
    /// Blanks that are due before it.
    blanks: usize,
}

impl Line {
    fn add(&mut self, cell: &Cell, align: Align, width: usize, colour: bool) {
        let fill = width.saturating_sub(cell.text().width());
        let (before, after) = match align {
            Align::Left => (0, fill),
            Align::Right => (fill, 0),
        };
        self.end += width + 2;
        if cell.text().is_empty() {
            self.blanks += width + 2;
        } else {
            // a failing write to a String does not exist
            let _ = write!(self.text, "{:1$}", "", self.blanks + before);
            self.text.push_str(&cell.style().paint(cell.text(), colour));
            self.blanks = after + 2;
        }
    }
}

/// A text in lines of at most so many columns, words whole where they fit.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.width() + 1 + word.width() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(cells: &[&str]) -> Vec<Cell> {
        cells.iter().map(Cell::plain).collect()
    }

    #[test]
    fn columns_are_aligned_and_lines_end_without_blanks() {
        let mut table = Table::new(&[("NAME", Align::Left), ("N", Align::Right), ("NOTE", Align::Left)]);
        table.row(plain(&["größe", "7", ""]));
        table.row(plain(&["a", "1000", "x"]));
        table.row(plain(&["b"]));
        assert_eq!(
            table.render(false),
            "NAME      N  NOTE\ngröße     7\na      1000  x\nb\n"
        );
    }

    #[test]
    fn wide_characters_count_as_the_columns_that_they_take() {
        let mut table = Table::new(&[("NAME", Align::Left), ("N", Align::Right)]);
        table.row(plain(&["日本", "1"]));
        table.row(plain(&["e\u{301}", "2"]));
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
        let mut table = Table::new(&[("A", Align::Left)]);
        table.row(vec![Cell::plain("x\x07\ny")]);
        assert_eq!(table.render(false), "A\nx\u{fffd} y\n");
    }

    /// With a name of `name` columns.
    fn servers(name: usize, room: Option<usize>) -> String {
        let columns = [
            ("SERVER", Align::Left),
            ("CONNS", Align::Right),
            ("IN", Align::Right),
            ("OUT", Align::Right),
            ("FAILED", Align::Right),
            ("NOTE", Align::Left),
        ];
        let mut table = Table::new(&columns);
        table.row(plain(&[
            &"s".repeat(name),
            "1",
            "2",
            "3",
            "4",
            "connection refused, again and again",
        ]));
        table.row(plain(&["b", "1", "2", "3", "4", "new"]));
        table.fit(room, &["CONNS"]).render(false)
    }

    #[test]
    fn bytes_go_first_and_a_note_that_has_no_room_gets_a_line_of_its_own() {
        let whole = "\
SERVER  CONNS  IN  OUT  FAILED  NOTE
s           1   2    3       4  connection refused, again and again
b           1   2    3       4  new
";
        assert_eq!(servers(1, None), whole);
        assert_eq!(servers(1, Some(67)), whole);
        assert_eq!(
            servers(1, Some(66)),
            "\
SERVER  CONNS  OUT  FAILED  NOTE
s           1    3       4  connection refused, again and again
b           1    3       4  new
"
        );
        assert_eq!(
            servers(1, Some(50)),
            "\
SERVER  CONNS  FAILED  NOTE
s           1       4
    connection refused, again and again
b           1       4  new
"
        );
    }

    #[test]
    fn columns_that_can_be_spared_go_when_the_others_have_no_room() {
        let drawn = servers(34, Some(42));
        assert!(!drawn.contains("CONNS") && drawn.contains("FAILED"), "{drawn}");
        assert!(
            drawn.contains("    connection refused, again and again\n"),
            "{drawn}"
        );
        assert!(drawn.lines().all(|line| line.width() <= 42), "{drawn}");
    }

    #[test]
    fn words_are_wrapped_whole() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("enormous a", 4), ["enormous", "a"]);
        assert!(wrapped("", 4).is_empty());
    }
}
