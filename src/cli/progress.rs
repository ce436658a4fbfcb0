//! Saying how far something is that takes its time, on standard error.

use std::{
    io::{IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use super::text::{harmless, terminal_columns};

/// How often it is worth a look whether something is to be said.
pub const STEP: Duration = Duration::from_millis(200);

/// What takes less is not worth a word.
const FIRST: Duration = Duration::from_secs(2);

/// Between two lines of a log.
const IN_A_LOG: Duration = Duration::from_secs(10);

/// Something that goes on.
#[derive(Debug)]
pub struct Progress {
    started: Instant,
    pace: Pace,
    /// Whether the terminal shows a line of ours, which others are not to be written behind.
    is_shown: bool,
}

/// When to say something.
#[derive(Debug)]
struct Pace {
    on_terminal: bool,
    last: Option<Duration>,
}

impl Progress {
    /// Something begins.
    pub fn start() -> Self {
        Self {
            started: Instant::now(),
            pace: Pace {
                on_terminal: std::io::stderr().is_terminal(),
                last: None,
            },
            is_shown: false,
        }
    }

    /// Since when it goes on.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Says how far it is, if that is due: on a terminal over what was said last.
    pub fn tell(&mut self, how: impl FnOnce() -> String) {
        let elapsed = self.elapsed();
        if !self.pace.is_due(elapsed) {
            return;
        }
        let line = format!("{} ({} s)", how(), elapsed.as_secs());
        let line = harmless(&line);
        let line = match self.pace.on_terminal {
            true => {
                // a line that is wrapped cannot be written over
                let room = terminal_columns(&std::io::stderr()).unwrap_or(usize::MAX);
                let line: String = line.chars().take(room.saturating_sub(1)).collect();
                // ECMA-48: erase to the end of the line
                format!("\r{line}\x1b[K")
            }
            false => format!("{line}\n"),
        };
        self.is_shown = self.pace.on_terminal;
        write(&line);
    }

    /// Makes room for what is said at last.
    pub fn end(&mut self) {
        if std::mem::take(&mut self.is_shown) {
            write("\r\x1b[K");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}

impl Pace {
    fn is_due(&mut self, elapsed: Duration) -> bool {
        let due = match (self.last, self.on_terminal) {
            (None, _) => FIRST,
            (Some(_), true) => return self.said(elapsed),
            (Some(last), false) => last + IN_A_LOG,
        };
        elapsed >= due && self.said(elapsed)
    }

    const fn said(&mut self, elapsed: Duration) -> bool {
        self.last = Some(elapsed);
        true
    }
}

fn write(text: &str) {
    // nothing is left to say it to if stderr is gone
    let _ = std::io::stderr().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_soon_over_is_not_worth_a_word_and_a_log_is_not_filled() {
        let said = |on_terminal| {
            let mut pace = Pace {
                on_terminal,
                last: None,
            };
            let seconds = (0..=25).map(Duration::from_secs);
            seconds
                .filter(|elapsed| pace.is_due(*elapsed))
                .map(|elapsed| elapsed.as_secs())
                .collect::<Vec<_>>()
        };
        assert_eq!(said(false), [2, 12, 22]);
        assert_eq!(said(true), (2..=25).collect::<Vec<_>>());
    }
}
