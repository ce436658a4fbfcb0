//! What is read: files as text, and why one cannot be.

/// Largest input in bytes, with all that it includes.
pub const MAX_INPUT_BYTES: usize = 16 << 20;

/// Longest message about an input, in characters.
const MAX_MESSAGE: usize = 1_000;

/// One file of another program's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputFile {
    /// What notes call it.
    pub name: String,
    /// Its content. Bytes that are not UTF-8 have become U+FFFD.
    pub text: String,
}

impl InputFile {
    /// Takes the bytes of a file. A byte order mark is skipped, and what is no UTF-8 replaced: comments of old files are often
    /// in another encoding.
    #[must_use]
    pub fn new(name: &str, bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        Self {
            name: name.to_owned(),
            text: text.strip_prefix('\u{feff}').unwrap_or(&text).to_owned(),
        }
    }
}

/// Where files come from that an input names.
pub trait Files {
    /// The files that a path or a pattern of `glob(7)` stands for, sorted by name; none is fine for a pattern.
    ///
    /// # Errors
    /// They are not read; why, in words that can follow "was not read: ".
    fn read(&mut self, pattern: &str) -> Result<Vec<InputFile>, String>;
}

/// For an input without a place, such as standard input: it includes nothing.
#[derive(Debug, Clone, Copy)]
pub struct NoFiles;

impl Files for NoFiles {
    fn read(&mut self, _pattern: &str) -> Result<Vec<InputFile>, String> {
        Err("only the file that is named is read".to_owned())
    }
}

/// The input is not what it was said to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {message}")]
pub struct Unreadable {
    /// Name of the file.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// What is wrong and what would be right.
    pub message: String,
}

impl Unreadable {
    /// At a line of a file, from 1. Of what is quoted there may be too much to read.
    #[must_use]
    pub fn new(file: &str, line: usize, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if let Some((end, _)) = message.char_indices().nth(MAX_MESSAGE) {
            message.truncate(end);
            message.push('…');
        }
        Self {
            file: file.to_owned(),
            line,
            message,
        }
    }
}
