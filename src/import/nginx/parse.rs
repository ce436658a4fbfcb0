//! Directives and blocks, as nginx reads them.

use std::cell::Cell;

use crate::import::{At, DirectiveId, Draft, Files, InputFile, MAX_DIRECTIVES, Unreadable};

/// Most blocks in each other.
const MAX_DEPTH: usize = 32;

/// Most files that include each other.
const MAX_INCLUDES: usize = 10;

/// A directive with its arguments, and its block if it has one.
#[derive(Debug, Clone)]
pub struct Directive {
    /// As it was registered.
    pub id: DirectiveId,
    /// Its name.
    pub name: String,
    /// What follows, without quotes.
    pub args: Vec<String>,
    /// What is between its braces.
    pub block: Option<Vec<Directive>>,
}

impl Directive {
    /// An argument, from 0; empty if there are fewer.
    pub fn arg(&self, index: usize) -> &str {
        self.args.get(index).map_or("", String::as_str)
    }

    /// What is in its block.
    pub fn inner(&self) -> &[Self] {
        self.block.as_deref().unwrap_or_default()
    }
}

/// Reads a file with what it includes.
///
/// # Errors
/// It is no configuration of nginx.
pub fn read(
    file: &InputFile,
    draft: &mut Draft,
    files: &mut dyn Files,
) -> Result<Vec<Directive>, Unreadable> {
    let left = Cell::new(MAX_DIRECTIVES);
    let mut reader = Reader {
        file,
        chars: file.text.chars().peekable(),
        line: 1,
        depth: 0,
        includes: 0,
        left: &left,
        draft,
        files,
    };
    reader.block(true, false)
}

struct Reader<'a> {
    file: &'a InputFile,
    chars: std::iter::Peekable<std::str::Chars<'a>>,
    line: usize,
    depth: usize,
    includes: usize,
    /// Directives that may still follow, those that are not registered among them.
    left: &'a Cell<usize>,
    draft: &'a mut Draft,
    files: &'a mut dyn Files,
}

/// What ends a word or stands alone.
#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Semicolon,
    Open,
    Close,
    End,
}

impl Reader<'_> {
    fn wrong(&self, message: impl Into<String>) -> Unreadable {
        Unreadable::new(&self.file.name, self.line, message)
    }

    fn next(&mut self) -> Option<char> {
        let c = self.chars.next();
        if c == Some('\n') {
            self.line += 1;
        }
        c
    }

    fn token(&mut self) -> Result<Token, Unreadable> {
        loop {
            match self.chars.peek() {
                None => return Ok(Token::End),
                Some('#') => while self.chars.next_if(|c| *c != '\n').is_some() {},
                Some(c) if c.is_whitespace() => {
                    self.next();
                }
                Some(_) => break,
            }
        }
        let alone = match self.chars.peek() {
            Some(';') => Some(Token::Semicolon),
            Some('{') => Some(Token::Open),
            Some('}') => Some(Token::Close),
            _ => None,
        };
        match alone {
            Some(token) => {
                self.next();
                Ok(token)
            }
            None => self.word().map(Token::Word),
        }
    }

    fn word(&mut self) -> Result<String, Unreadable> {
        let mut word = String::new();
        if let Some(quote) = self.chars.next_if(|c| ['"', '\''].contains(c)) {
            let begun = self.line;
            loop {
                match self.next() {
                    None => {
                        let message = "a quote is not closed";
                        return Err(Unreadable::new(&self.file.name, begun, message));
                    }
                    Some(c) if c == quote => return Ok(word),
                    Some('\\') => self.escape(&mut word),
                    Some(c) => word.push(c),
                }
            }
        }
        let mut was_dollar = false;
        while let Some(c) = self.chars.peek().copied() {
            // ${name}
            let is_variable = was_dollar && c == '{';
            if !is_variable && (c.is_whitespace() || [';', '{'].contains(&c)) {
                break;
            }
            self.next();
            if is_variable {
                word.push(c);
                while let Some(c) = self
                    .chars
                    .next_if(|c| !c.is_whitespace() && ![';', '{'].contains(c))
                {
                    word.push(c);
                    if c == '}' {
                        break;
                    }
                }
            } else if c == '\\' {
                self.escape(&mut word);
            } else {
                word.push(c);
            }
            was_dollar = c == '$';
        }
        Ok(word)
    }

    /// Behind a backslash: quotes and white space, else the backslash stays.
    fn escape(&mut self, word: &mut String) {
        match self.next() {
            Some(c @ ('"' | '\'' | '\\')) => word.push(c),
            Some('t') => word.push('\t'),
            Some('r') => word.push('\r'),
            Some('n') => word.push('\n'),
            Some(c) => word.extend(['\\', c]),
            None => word.push('\\'),
        }
    }

    /// What is up to the brace that closes a block, or the end of the file. Within `http` nothing is registered but servers.
    fn block(&mut self, is_file: bool, is_http: bool) -> Result<Vec<Directive>, Unreadable> {
        let mut directives = Vec::new();
        loop {
            let name = match self.token()? {
                Token::Word(name) => name,
                Token::End if is_file => return Ok(directives),
                Token::Close if !is_file => return Ok(directives),
                Token::End => return Err(self.wrong("the file ends within a block: a `}` is missing")),
                Token::Close => return Err(self.wrong("there is a `}` too many")),
                Token::Semicolon => return Err(self.wrong("there is nothing before the `;`")),
                Token::Open => return Err(self.wrong("there is nothing before the `{`")),
            };
            let line = self.line;
            self.left.set(self.left.get().saturating_sub(1));
            if self.left.get() == 0 {
                return Err(self.wrong(format!(
                    "there are more than {MAX_DIRECTIVES} directives, which no real configuration has"
                )));
            }
            let mut args = Vec::new();
            let opens = loop {
                match self.token()? {
                    Token::Word(word) => args.push(word),
                    Token::Semicolon => break false,
                    Token::Open => break true,
                    Token::End | Token::Close => {
                        let message = format!(
                            "`{}` has no `;` behind it",
                            crate::import::print::shortened(&name, 60)
                        );
                        return Err(Unreadable::new(&self.file.name, line, message));
                    }
                }
            };
            self.directive(name, args, opens, line, is_http, &mut directives)?;
        }
    }

    fn directive(
        &mut self,
        name: String,
        args: Vec<String>,
        opens: bool,
        line: usize,
        is_http: bool,
        directives: &mut Vec<Directive>,
    ) -> Result<(), Unreadable> {
        let text = std::iter::once(&name)
            .chain(&args)
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(" ");
        let is_known = !is_http || name == "server";
        let id = self
            .draft
            .directive_if(is_known, &self.file.name, line, &text, At::Top);
        if name == "include" && !opens {
            if !is_http {
                directives.extend(self.include(id, &args)?);
            }
            return Ok(());
        }
        let block = match opens {
            false => None,
            // another language
            true if name.ends_with("_by_lua_block") => {
                self.skip()?;
                Some(Vec::new())
            }
            true => {
                self.depth += 1;
                if self.depth > MAX_DEPTH {
                    return Err(self.wrong(format!("there are more than {MAX_DEPTH} blocks in each other")));
                }
                let block = self.block(false, is_http || ["http", "mail"].contains(&name.as_str()))?;
                self.depth -= 1;
                Some(block)
            }
        };
        directives.push(Directive {
            id,
            name,
            args,
            block,
        });
        Ok(())
    }

    /// Up to the brace that closes this block, whatever is in it.
    fn skip(&mut self) -> Result<(), Unreadable> {
        let mut open = 1_usize;
        while let Some(c) = self.next() {
            match c {
                '{' => open += 1,
                '}' if open == 1 => return Ok(()),
                '}' => open -= 1,
                _ => {}
            }
        }
        Err(self.wrong("the file ends within a block: a `}` is missing"))
    }

    fn include(&mut self, id: DirectiveId, args: &[String]) -> Result<Vec<Directive>, Unreadable> {
        let pattern = args.first().map_or("", String::as_str);
        if self.includes >= MAX_INCLUDES {
            return Err(self.wrong(format!("more than {MAX_INCLUDES} files include each other")));
        }
        let read = match self.files.read(pattern) {
            Ok(read) => read,
            Err(why) => {
                let text = format!("it was not read: {why}. What it says is missing here");
                self.draft.no_equal(id, At::Top, &text);
                return Ok(Vec::new());
            }
        };
        self.draft.translated(id);
        let mut directives = Vec::new();
        for file in &read {
            let mut reader = Reader {
                file,
                chars: file.text.chars().peekable(),
                line: 1,
                depth: self.depth,
                includes: self.includes + 1,
                left: self.left,
                draft: &mut *self.draft,
                files: &mut *self.files,
            };
            directives.extend(reader.block(true, false)?);
        }
        Ok(directives)
    }
}
