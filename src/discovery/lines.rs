//! Answers without an end, a line for each thing that happens.

use tokio::time::{Duration, Instant, timeout};

use crate::client::http::{HttpError, Opened};

/// How long what has happened at the same time may take to arrive.
const TOGETHER: Duration = Duration::from_millis(20);

/// How long lines that follow each other so are taken together at most.
const AT_MOST: Duration = Duration::from_millis(200);

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

    /// As [`next`](Self::next) for a line that is there, or comes together with the one before; `None` if there is none, or
    /// if such lines have come for long enough since `first`.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub(super) async fn at_hand(&mut self, first: Instant) -> Result<Option<Vec<u8>>, HttpError> {
        if first.elapsed() > AT_MOST {
            return Ok(None);
        }
        timeout(TOGETHER, self.next()).await.unwrap_or(Ok(None))
    }
}

/// Bytes that are no whole line yet.
struct Unread {
    bytes: Vec<u8>,
    /// So many of them were given as lines.
    given: usize,
    /// So many of them have no end of a line, or were given.
    searched: usize,
    longest: usize,
}

impl Unread {
    const fn new(longest: usize) -> Self {
        Self {
            bytes: Vec::new(),
            given: 0,
            searched: 0,
            longest,
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        // once for all lines that were in it
        self.bytes.drain(..self.given);
        (self.searched, self.given) = (self.searched - self.given, 0);
        self.bytes.extend_from_slice(bytes);
    }

    /// The next line that is whole and not empty.
    fn line(&mut self) -> Result<Option<Vec<u8>>, HttpError> {
        loop {
            let unsearched = self.bytes.get(self.searched..).unwrap_or_default();
            let Some(end) = unsearched.iter().position(|byte| *byte == b'\n') else {
                self.searched = self.bytes.len();
                return match self.searched - self.given > self.longest {
                    true => Err(HttpError::TooLarge(self.longest)),
                    false => Ok(None),
                };
            };
            let end = self.searched + end;
            let line = self.bytes.get(self.given..end).unwrap_or_default();
            (self.given, self.searched) = (end + 1, end + 1);
            if line.len() > self.longest {
                return Err(HttpError::TooLarge(self.longest));
            }
            let line = line.trim_ascii_end();
            if !line.is_empty() {
                return Ok(Some(line.to_vec()));
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
    fn many_lines_at_once_cost_no_more_than_their_bytes() {
        let mut unread = Unread::new(10);
        unread.add(&vec![b'\n'; 4 << 20]);
        unread.add(b"a\n");
        assert_eq!(unread.line().unwrap(), Some(b"a".to_vec()));
        unread.add(b"b\n");
        assert_eq!(
            (unread.line().unwrap(), unread.bytes.len()),
            (Some(b"b".to_vec()), 2)
        );
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
