//! Lines for somebody who looks at a terminal: the time, the level if it matters, and the sentence. What its fields say, it
//! says too; they are for programs.

use std::fmt;

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

use super::time::Utc;

/// Below the sentence of an event of several lines.
const INDENT: &str = "          ";

/// One readable line an event.
pub struct Readable {
    /// When the event happened.
    pub happened: fn() -> Utc,
}

impl<S, N> FormatEvent<S, N> for Readable
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut sentence = Sentence::default();
        event.record(&mut sentence);
        let level = *event.metadata().level();
        let colour = writer.has_ansi_escapes();
        begin(&mut writer, (self.happened)(), level, colour)?;
        match sentence.0 {
            // only those who look for something in particular read these
            Some(text) if level <= Level::INFO => writer.write_str(&harmless(&text))?,
            Some(_) | None => context.format_fields(writer.by_ref(), event)?,
        }
        writer.write_char('\n')
    }
}

/// A line that another one has been made for already, such as an access record.
pub fn line(at: Utc, text: &str, colour: bool) -> String {
    let mut out = String::new();
    // a failing write to a String does not exist
    let _ = begin(&mut out, at, Level::INFO, colour);
    out.push_str(&harmless(text));
    out
}

fn begin(writer: &mut impl fmt::Write, at: Utc, level: Level, colour: bool) -> fmt::Result {
    let style = match level {
        _ if !colour => anstyle::Style::new(),
        Level::ERROR => anstyle::AnsiColor::Red.on_default().bold(),
        Level::WARN => anstyle::AnsiColor::Yellow.on_default(),
        _ => anstyle::Style::new().dimmed(),
    };
    write!(writer, "{style}{}{style:#}", at.time_of_day())?;
    match level {
        Level::INFO => writer.write_str(" "),
        level => write!(writer, " {style}{}{style:#}: ", level.as_str().to_lowercase()),
    }
}

/// Names and system texts must not drive the terminal.
fn harmless(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.trim_end().chars() {
        match c {
            '\n' => {
                out.push('\n');
                out.push_str(INDENT);
            }
            '\t' => out.push(' '),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// The event's message.
#[derive(Default)]
struct Sentence(Option<String>);

impl Visit for Sentence {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = Some(format!("{value:?}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_drive_the_terminal_is_replaced_and_further_lines_are_indented() {
        assert_eq!(harmless("a\x1b[2Jb\nc\td\n"), "a\u{fffd}[2Jb\n          c d");
    }
}
