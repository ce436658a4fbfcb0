//! Findings as text for people.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use unicode_width::UnicodeWidthChar;

use super::{Diagnostic, Severity, Source, hidden, place::Places};

/// Widest excerpt of a line, in columns of the terminal; longer lines are cut around the finding.
const MAX_WIDTH: usize = 100;

/// Columns kept before a finding in a line that is cut.
const LEAD: usize = 30;

/// A tab is shown as so many spaces.
const TAB: &str = "    ";

struct Palette {
    error: Style,
    warning: Style,
    frame: Style,
    bold: Style,
}

const PLAIN: Palette = Palette {
    error: Style::new(),
    warning: Style::new(),
    frame: Style::new(),
    bold: Style::new(),
};
const COLOURED: Palette = Palette {
    error: AnsiColor::Red.on_default().bold(),
    warning: AnsiColor::Yellow.on_default().bold(),
    frame: AnsiColor::Blue.on_default().bold(),
    bold: Style::new().bold(),
};

/// Renders findings one after another, an empty line between two.
pub fn render(findings: &[Diagnostic], source: &Source, colour: bool) -> String {
    let palette = if colour { &COLOURED } else { &PLAIN };
    let places = Places::new(&source.bytes);
    let blocks: Vec<String> = findings
        .iter()
        .map(|finding| block(finding, &places, palette))
        .collect();
    blocks.join("\n")
}

/// A finding in one line, as `FILE:LINE:COLUMN: MESSAGE; HELP`: for a log.
pub fn in_one_line(finding: &Diagnostic) -> String {
    let mut out = visible(&finding.file);
    if finding.line > 0 {
        let _infallible = write!(out, ":{}:{}", finding.line, finding.column);
    }
    let _infallible = write!(out, ": {}", visible(&finding.message));
    if let Some(help) = &finding.help {
        let _infallible = write!(out, "; {}", visible(help));
    }
    out
}

fn block(finding: &Diagnostic, places: &Places<'_>, palette: &Palette) -> String {
    let Palette { frame, bold, .. } = palette;
    let (label, paint) = match finding.severity {
        Severity::Error => ("error", palette.error),
        Severity::Warning => ("warning", palette.warning),
    };
    let mut out = format!(
        "{paint}{label}{paint:#}{bold}: {}{bold:#}\n",
        visible(&finding.message)
    );
    let file = visible(&finding.file);
    if finding.line == 0 {
        let _infallible = writeln!(out, " {frame}-->{frame:#} {file}");
        if let Some(help) = &finding.help {
            let _infallible = writeln!(out, "  {frame}={frame:#} {bold}help{bold:#}: {}", visible(help));
        }
        return out;
    }
    let number = finding.line.to_string();
    let margin = " ".repeat(number.len());
    let excerpt = Excerpt::new(finding, places);
    let _infallible = write!(
        out,
        "{margin}{frame}-->{frame:#} {file}:{number}:{}\n\
         {margin} {frame}|{frame:#}\n\
         {frame}{number} |{frame:#} {}\n\
         {margin} {frame}|{frame:#} {}{paint}{}{paint:#}\n",
        finding.column,
        excerpt.text,
        " ".repeat(excerpt.indent),
        "^".repeat(excerpt.carets),
    );
    if let Some(help) = &finding.help {
        let _infallible = writeln!(
            out,
            "{margin} {frame}={frame:#} {bold}help{bold:#}: {}",
            visible(help)
        );
    }
    out
}

/// One line of the source, and where under it the carets go.
struct Excerpt {
    text: String,
    indent: usize,
    carets: usize,
}

impl Excerpt {
    fn new(finding: &Diagnostic, places: &Places<'_>) -> Self {
        let (start, line) = places.line(finding.line);
        let line = hidden::without_secrets(line);
        let from = finding.span.start.saturating_sub(start).min(line.len());
        let to = finding.span.end.saturating_sub(start).clamp(from, line.len());
        let text = |range: std::ops::Range<usize>| {
            visible(&String::from_utf8_lossy(line.get(range).unwrap_or_default()))
        };
        let (before, marked, after) = (text(0..from), text(from..to), text(to..line.len()));

        let mut shown = String::new();
        if width(&before) + width(&marked) + width(&after) > MAX_WIDTH && width(&before) > LEAD {
            shown.push('…');
            shown.push_str(last_columns(&before, LEAD));
        } else {
            shown.push_str(&before);
        }
        let indent = width(&shown);
        for part in [&marked, &after] {
            let room = MAX_WIDTH.saturating_sub(width(&shown));
            let piece = first_columns(part, room);
            shown.push_str(piece);
            if piece.len() < part.len() {
                shown.push('…');
                break;
            }
        }
        let carets = width(&marked).min(MAX_WIDTH.saturating_sub(indent)).max(1);
        Self {
            text: shown.trim_end().to_owned(),
            indent,
            carets,
        }
    }
}

/// Text that cannot move the cursor or reverse the direction of writing: tabs become spaces, other control and
/// formatting characters a replacement character.
fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => out.push_str(TAB),
            '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' => {
                out.push('\u{fffd}');
            }
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

fn width(text: &str) -> usize {
    text.chars().map(columns).sum()
}

/// Columns of a terminal; [`visible`] text has no characters without a width.
fn columns(c: char) -> usize {
    c.width().unwrap_or(0)
}

fn first_columns(text: &str, room: usize) -> &str {
    let mut used = 0;
    for (offset, c) in text.char_indices() {
        used += columns(c);
        if used > room {
            return text.get(..offset).unwrap_or_default();
        }
    }
    text
}

fn last_columns(text: &str, room: usize) -> &str {
    let mut used = 0;
    for (offset, c) in text.char_indices().rev() {
        used += columns(c);
        if used > room {
            return text.get(offset + c.len_utf8()..).unwrap_or_default();
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str, marked: &str) -> (String, String) {
        let start = line.find(marked).unwrap_or_default();
        let finding = Diagnostic {
            severity: Severity::Error,
            file: "f".into(),
            line: 1,
            column: 1,
            span: start..start + marked.len(),
            path: String::new(),
            message: "wrong".into(),
            help: None,
        };
        let source = Source {
            name: "f".into(),
            bytes: line.as_bytes().to_vec(),
        };
        let text = render(&[finding], &source, false);
        let mut lines = text
            .lines()
            .skip(3)
            .map(|line| line.get(4..).unwrap_or_default().to_owned());
        (lines.next().unwrap_or_default(), lines.next().unwrap_or_default())
    }

    #[test]
    fn carets_stand_under_what_they_mean() {
        assert_eq!(shown("a = bad", "bad"), ("a = bad".into(), "    ^^^".into()));
        assert_eq!(
            shown("\ta = bad", "bad"),
            ("    a = bad".into(), "        ^^^".into())
        );
        assert_eq!(
            shown("a = [\"größe\", bad]", "bad"),
            ("a = [\"größe\", bad]".into(), "              ^^^".into())
        );
        assert_eq!(
            shown("a = \"日本\" bad", "bad"),
            ("a = \"日本\" bad".into(), "           ^^^".into())
        );
        assert_eq!(
            shown("a = \"日本\"", "日本"),
            ("a = \"日本\"".into(), "     ^^^^".into())
        );
    }

    #[test]
    fn a_very_long_line_is_cut_around_the_finding() {
        let line = format!("{}bad{}", "x".repeat(5_000), "y".repeat(5_000));
        let (excerpt, carets) = shown(&line, "bad");
        assert!(
            excerpt.starts_with("…xxx") && excerpt.ends_with("yyy…"),
            "{excerpt}"
        );
        assert!(width(&excerpt) <= MAX_WIDTH + 1);
        assert_eq!(excerpt.chars().position(|c| c == 'b'), carets.find('^'));
        let (_, carets) = shown(&"z".repeat(5_000), &"z".repeat(5_000));
        assert!(carets.len() <= MAX_WIDTH);
    }

    #[test]
    fn text_of_the_file_cannot_drive_the_terminal() {
        assert_eq!(shown("a = \x1b[31m\u{202e} bad", "bad").0, "a = �[31m� bad");
    }
}
