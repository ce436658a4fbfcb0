//! Lines as blocks within blocks.

use super::lines::{Line, Lines};
use crate::import::Unreadable;

/// Deepest nesting: a virtual server has a server with a check with a URL.
const MAX_DEPTH: usize = 12;

/// A line with its words, and the block behind it if it has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its file.
    pub file: usize,
    /// Its line there, from 1.
    pub line: usize,
    /// The keyword and what follows it, without quotes.
    pub words: Vec<String>,
    /// As it is written, without its block.
    pub text: String,
    /// What stands between its braces.
    pub block: Option<Vec<Entry>>,
}

impl Entry {
    /// The keyword.
    pub fn keyword(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// A word behind the keyword, from 1.
    pub fn word(&self, index: usize) -> Option<&str> {
        self.words.get(index).map(String::as_str)
    }
}

/// Makes blocks of lines.
///
/// # Errors
/// Braces do not match.
pub fn read(lines: &Lines) -> Result<Vec<Entry>, Unreadable> {
    let mut open: Vec<Vec<Entry>> = vec![Vec::new()];
    for line in &lines.lines {
        let wrong = |message: &str| {
            let file = lines.files.get(line.file).map_or("", String::as_str);
            Unreadable::new(file, line.number, message)
        };
        let mut entry: Option<Entry> = None;
        for token in tokens(&line.text) {
            match token {
                Token::Word(word) => {
                    let entry = entry.get_or_insert_with(|| new(line));
                    if !entry.text.is_empty() {
                        entry.text.push(' ');
                    }
                    entry.text.push_str(&word);
                    entry.words.push(word);
                }
                Token::Open => {
                    let level = open.last_mut().ok_or_else(|| wrong("a `}` closes nothing"))?;
                    level.extend(entry.take());
                    match level.last_mut().filter(|last| last.block.is_none()) {
                        Some(last) => last.block = Some(Vec::new()),
                        None => return Err(wrong("a `{` without a keyword before it")),
                    }
                    if open.len() > MAX_DEPTH {
                        return Err(wrong("blocks are nested deeper than keepalived has them"));
                    }
                    open.push(Vec::new());
                }
                Token::Close => {
                    let mut block = open.pop().unwrap_or_default();
                    block.extend(entry.take());
                    let owner = open.last_mut().and_then(|level| level.last_mut());
                    match owner {
                        Some(owner) => owner.block = Some(block),
                        None => return Err(wrong("a `}` closes nothing")),
                    }
                }
            }
        }
        if let Some(level) = open.last_mut() {
            level.extend(entry);
        }
    }
    let last = open.pop().unwrap_or_default();
    let Some(owner) = open.last().and_then(|level| level.last()) else {
        return Ok(last);
    };
    let file = lines.files.get(owner.file).map_or("", String::as_str);
    Err(Unreadable::new(
        file,
        owner.line,
        "the `{` of this line is not closed",
    ))
}

fn new(line: &Line) -> Entry {
    Entry {
        file: line.file,
        line: line.number,
        words: Vec::new(),
        text: String::new(),
        block: None,
    }
}

enum Token {
    Word(String),
    Open,
    Close,
}

/// Words between white space. Quotes join words and vanish, a backslash within them escapes. A brace is one by itself, or at
/// the end of a word.
fn tokens(line: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut word = String::new();
    let (mut is_word, mut quote, mut is_parameter) = (false, None, false);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(_), '\\') => {
                if let Some(next) = chars.next() {
                    word.push(match next {
                        'n' => '\n',
                        'r' => '\r',
                        't' => '\t',
                        other => other,
                    });
                }
            }
            (Some(open), _) if c == open => quote = None,
            (Some(_), _) => word.push(c),
            (None, '"' | '\'') => {
                quote = Some(c);
                is_word = true;
            }
            (None, '$') if chars.peek() == Some(&'{') => {
                is_parameter = true;
                is_word = true;
                word.push(c);
            }
            (None, '{') if is_parameter => word.push(c),
            (None, '}') if is_parameter => {
                is_parameter = false;
                word.push(c);
            }
            (None, '{' | '}') => {
                if is_word {
                    tokens.push(Token::Word(std::mem::take(&mut word)));
                    is_word = false;
                }
                tokens.push(if c == '{' { Token::Open } else { Token::Close });
            }
            (None, c) if c.is_whitespace() => {
                if is_word {
                    tokens.push(Token::Word(std::mem::take(&mut word)));
                    is_word = false;
                }
            }
            (None, _) => {
                is_word = true;
                word.push(c);
            }
        }
    }
    if is_word {
        tokens.push(Token::Word(word));
    }
    tokens
}
