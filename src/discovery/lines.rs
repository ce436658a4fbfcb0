//! Answers without an end, a line for each thing that happens.

use tokio::time::{Duration, timeout};

use crate::client::http::{HttpError, Opened};

/// How long what has happened at the same time may take to arrive.
const TOGETHER: Duration = Duration::from_millis(20);

/// The lines of an answer, as they come.
pub(super) struct Lines {
    opened: Opened,
    unread: Unread,
}

impl Lines {
    /// Those of an answer, each of at most so many bytes.
    pub(super) fn new(opened: Opened, longest: usize) -> Self {
        Self {
            opened,
            unread: Unread::new(longest),
        }
    }

    /// The next line, without its end; `None` if there is no further one. What has come is not lost where nobody waits for the
    /// rest of it any more.
    ///
    /// # Errors
    /// It breaks off, or a line is too long.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<u8>>, HttpError> {
        loop {
            if let Some(line) = self.unread.line()? {
                return Ok(Some(line));
            }
            match self.opened.chunk().await? {
                Some(bytes) => self.unread.add(&bytes),
                None => return Ok(None),
            }
        }
    }

    /// As [`next`](Self::next) for a line that is there, or comes together with the one before; `None` if there is none.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub(super) async fn at_hand(&mut self) -> Result<Option<Vec<u8>>, HttpError> {
        timeout(TOGETHER, self.next()).await.unwrap_or(Ok(None))
    }
}

/// Bytes that are no whole line yet.
struct Unread {
    bytes: Vec<u8>,
    /// So many of them have no end of a line.
    searched: usize,
    longest: usize,
}

impl Unread {
    const fn new(longest: usize) -> Self {
        Self {
            bytes: Vec::new(),
            searched: 0,
            longest,
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next line that is whole and not empty.
    fn line(&mut self) -> Result<Option<Vec<u8>>, HttpError> {
        loop {
            let unsearched = self.bytes.get(self.searched..).unwrap_or_default();
            let Some(end) = unsearched.iter().position(|byte| *byte == b'\n') else {
                self.searched = self.bytes.len();
                return match self.searched > self.longest {
                    true => Err(HttpError::TooLarge(self.longest)),
                    false => Ok(None),
                };
            };
            let end = self.searched + end;
            let rest = self.bytes.split_off(end + 1);
            let mut line = std::mem::replace(&mut self.bytes, rest);
            self.searched = 0;
            if line.len() > self.longest.saturating_add(1) {
                return Err(HttpError::TooLarge(self.longest));
            }
            line.truncate(line.trim_ascii_end().len());
            if !line.is_empty() {
                return Ok(Some(line));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_in_pieces_and_together() {
        let mut unread = Unread::new(10);
        let mut said = Vec::new();
        for piece in ["a", "b\n\nc\r", "\nde", "f", "\n", "0123456789\n"] {
            unread.add(piece.as_bytes());
            while let Some(line) = unread.line().unwrap() {
                said.push(String::from_utf8(line).unwrap());
            }
        }
        assert_eq!(said, ["ab", "c", "def", "0123456789"]);
    }

    #[test]
    fn a_line_without_an_end_is_not_kept_for_ever() {
        for long in ["01234567890", "01234567890\n"] {
            let mut unread = Unread::new(10);
            unread.add(long.as_bytes());
            assert!(matches!(unread.line(), Err(HttpError::TooLarge(10))), "{long:?}");
        }
    }
}
