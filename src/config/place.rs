//! Byte offsets of a source to lines and columns.

use std::ops::Range;

/// The lines of a source; works on any bytes.
#[derive(Debug)]
pub struct Places<'a> {
    bytes: &'a [u8],
    /// Offset of the first byte of every line.
    starts: Vec<usize>,
}

impl<'a> Places<'a> {
    /// Finds the lines; of a source that is too long to be read, those of the part that could be.
    pub fn new(bytes: &'a [u8]) -> Self {
        let bytes = bytes.get(..super::MAX_CONFIG_BYTES).unwrap_or(bytes);
        let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        let starts = std::iter::once(0)
            .chain(ends.map(|(offset, _)| offset + 1))
            .collect();
        Self { bytes, starts }
    }

    /// Line from 1; an offset beyond the end counts as the end.
    pub fn line_of(&self, offset: usize) -> usize {
        let offset = offset.min(self.bytes.len());
        self.starts.partition_point(|start| *start <= offset)
    }

    /// Line from 1 and column in characters from 1; an offset beyond the end counts as the end. Costs the line's length.
    pub fn line_and_column(&self, offset: usize) -> (usize, usize) {
        let line = self.line_of(offset);
        let offset = offset.min(self.bytes.len());
        let start = self.start_of(line);
        let before = self.bytes.get(start..offset).unwrap_or_default();
        (line, String::from_utf8_lossy(before).chars().count() + 1)
    }

    /// The bytes of a line (from 1) without its end, and the offset of the first.
    pub fn line(&self, line: usize) -> (usize, &'a [u8]) {
        let start = self.start_of(line);
        let end = self
            .starts
            .get(line)
            .map_or(self.bytes.len(), |next| next.saturating_sub(1));
        let text = self.bytes.get(start..end).unwrap_or_default();
        (start, text.strip_suffix(b"\r").unwrap_or(text))
    }

    /// Brings a span inside the source. One at the very end moves back over the last line end, so that it shows the
    /// last line and not an empty one after it.
    pub fn clamp(&self, span: Range<usize>) -> Range<usize> {
        let len = self.bytes.len();
        let mut start = span.start.min(len);
        if start == len && self.bytes.ends_with(b"\n") {
            start -= 1;
            if self
                .bytes
                .get(..start)
                .is_some_and(|before| before.ends_with(b"\r"))
            {
                start -= 1;
            }
        }
        start..span.end.min(len).max(start)
    }

    fn start_of(&self, line: usize) -> usize {
        self.starts
            .get(line.saturating_sub(1))
            .copied()
            .unwrap_or(self.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_not_bytes() {
        let places = Places::new("a = 1\nß = \"日本\" x\n".as_bytes());
        assert_eq!(places.line_and_column(0), (1, 1));
        assert_eq!(places.line_and_column(5), (1, 6));
        assert_eq!(places.line_and_column(6), (2, 1));
        assert_eq!(places.line_and_column("a = 1\nß = \"日本\" ".len()), (2, 10));
        assert_eq!(places.line_and_column(10_000), (3, 1));
    }

    #[test]
    fn a_line_is_shown_without_its_end() {
        let places = Places::new(b"one\r\ntwo");
        assert_eq!(places.line(1), (0, &b"one"[..]));
        assert_eq!(places.line(2), (5, &b"two"[..]));
        assert_eq!(places.line(3), (8, &b""[..]));
    }

    #[test]
    fn the_end_of_the_file_belongs_to_its_last_line() {
        let places = Places::new(b"a =\r\n");
        assert_eq!(places.line_and_column(places.clamp(5..5).start), (1, 4));
    }
}
