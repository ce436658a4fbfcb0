//! What is said of directives, and how many there are.

/// What a comment says of a directive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoteKind {
    /// It was translated, but means something else here, or part of it is lost.
    Differs,
    /// Convey has nothing for it.
    NoEqual,
}

/// A comment about a directive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Name of the file that has the directive.
    pub file: String,
    /// Its line, from 1.
    pub line: usize,
    /// The directive, or the part of it that this is about.
    pub quoted: String,
    /// What the note says of it.
    pub kind: NoteKind,
    /// Why, and what to do instead; may be empty.
    pub text: String,
}

impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            file,
            line,
            quoted,
            kind,
            text,
        } = self;
        let says = match kind {
            NoteKind::Differs => "differs",
            NoteKind::NoEqual => "has no equal",
        };
        write!(f, "{file}:{line}: `{quoted}` {says}")?;
        if text.is_empty() {
            Ok(())
        } else {
            write!(f, ": {text}")
        }
    }
}

/// How much of the input was translated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Directives of the input.
    pub directives: usize,
    /// Those that mean the same here, or that Convey needs not to be told.
    pub translated: usize,
    /// Those that were translated with a difference.
    pub differing: usize,
    /// Those that have no equal, or of which a part has none.
    pub without_equal: usize,
}
