//! JSON, and as much of YAML as configurations are written in: block and flow collections, plain and quoted scalars, comments.

use super::{
    Key, MAX_DEPTH, Node, NotADocument, Table, Value,
    yaml_scalar::{double_quoted, plain, single_quoted},
};

/// Reads the only document of a text.
pub fn parse(text: &str) -> Result<Node, NotADocument> {
    let mut parser = Parser { text, at: 0, line: 1 };
    parser.skip_lines()?;
    if parser.rest().starts_with("---") && parser.rest()[3..].starts_with(is_blank) {
        parser.at += 3;
        parser.end_of_line()?;
        parser.skip_lines()?;
    }
    let node = match parser.is_at_end() {
        true => return Err(parser.error("there is nothing in it")),
        false => parser.block(parser.column(), 0)?,
    };
    parser.skip_lines()?;
    match parser.is_at_end() || parser.rest().trim_end() == "..." {
        true => Ok(node),
        false => Err(parser.error("this belongs to nothing before it: is it indented as it should be?")),
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    line: usize,
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

impl Parser<'_> {
    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn is_at_end(&self) -> bool {
        self.at >= self.text.len()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn advance(&mut self) {
        if let Some(c) = self.peek() {
            self.at += c.len_utf8();
            self.line += usize::from(c == '\n');
        }
    }

    fn error(&self, message: &str) -> NotADocument {
        NotADocument {
            line: self.line,
            message: message.to_owned(),
        }
    }

    /// Characters of this line before the place, in bytes.
    fn column(&self) -> usize {
        let before = self.text.get(..self.at).unwrap_or_default();
        self.at - before.rfind('\n').map_or(0, |at| at + 1)
    }

    fn skip_blanks(&mut self) {
        while self.peek().is_some_and(|c| matches!(c, ' ' | '\t' | '\r')) {
            self.at += 1;
        }
    }

    fn skip_comment(&mut self) {
        if self.peek() == Some('#') {
            let rest = self.rest();
            self.at += rest.find('\n').unwrap_or(rest.len());
        }
    }

    /// To the first thing on a line that has one. A tab before it is no indentation in YAML, and none matters in JSON.
    fn skip_lines(&mut self) -> Result<(), NotADocument> {
        loop {
            let is_tabbed = self.rest().starts_with('\t');
            self.skip_blanks();
            self.skip_comment();
            match self.peek() {
                Some('\n') => self.advance(),
                Some(c) if is_tabbed && !matches!(c, '{' | '[' | '}' | ']' | '"') => {
                    return Err(self.error("a tab at the beginning of a line: YAML is indented with spaces"));
                }
                _ => return Ok(()),
            }
        }
    }

    fn end_of_line(&mut self) -> Result<(), NotADocument> {
        self.skip_blanks();
        self.skip_comment();
        match self.peek() {
            None => Ok(()),
            Some('\n') => {
                self.advance();
                Ok(())
            }
            Some(_) => Err(self.error("there is more on this line than one value")),
        }
    }

    /// A value that begins here, in a column of its line. Ends at the beginning of a line.
    fn block(&mut self, indent: usize, depth: usize) -> Result<Node, NotADocument> {
        if depth > MAX_DEPTH {
            return Err(self.error("nested deeper than 48 levels"));
        }
        let line = self.line;
        if self.is_dash() {
            return self.sequence(indent, depth, line);
        }
        if let Some(key) = self.key()? {
            return self.mapping(indent, depth, key);
        }
        let node = self.inline(depth)?;
        self.end_of_line()?;
        Ok(node)
    }

    fn is_dash(&self) -> bool {
        let rest = self.rest();
        rest.starts_with('-') && (rest.len() == 1 || rest[1..].starts_with(is_blank))
    }

    fn sequence(&mut self, indent: usize, depth: usize, line: usize) -> Result<Node, NotADocument> {
        let mut items = Vec::new();
        loop {
            let line = self.line;
            self.at += 1;
            self.skip_blanks();
            self.skip_comment();
            match self.peek() {
                None | Some('\n') => items.push(self.child(indent + 1, depth, line)?),
                Some(_) => items.push(self.block(self.column(), depth + 1)?),
            }
            self.skip_lines()?;
            match self.is_at_end() || self.column() < indent || !self.is_dash() {
                true => break,
                false if self.column() > indent => {
                    return Err(self.error("indented deeper than the `-` before it"));
                }
                false => {}
            }
        }
        Ok(Node {
            line,
            value: Value::List(items),
        })
    }

    fn mapping(&mut self, indent: usize, depth: usize, first: Key) -> Result<Node, NotADocument> {
        let line = first.line;
        let mut table: Table = Vec::new();
        let mut key = first;
        loop {
            self.skip_blanks();
            self.skip_comment();
            let value = match self.peek() {
                // a list may stand as far left as its key
                None | Some('\n') => self.value_below(indent, depth, key.line)?,
                Some(_) => {
                    let value = self.inline(depth + 1)?;
                    self.end_of_line()?;
                    value
                }
            };
            table.push((key, value));
            self.skip_lines()?;
            if self.is_at_end() || self.column() < indent || self.rest().starts_with("...") {
                break;
            }
            if self.column() > indent {
                return Err(self.error("indented deeper than the key before it"));
            }
            if self.is_dash() {
                break;
            }
            key = (self.key()?).ok_or_else(|| self.error("a key and a colon are expected here"))?;
        }
        Ok(Node {
            line,
            value: Value::Table(table),
        })
    }

    fn value_below(&mut self, indent: usize, depth: usize, line: usize) -> Result<Node, NotADocument> {
        self.skip_lines()?;
        let is_list = !self.is_at_end() && self.column() == indent && self.is_dash();
        self.child(if is_list { indent } else { indent + 1 }, depth, line)
    }

    /// What stands on the lines below, at least so far right; nothing if there is no such line.
    fn child(&mut self, least: usize, depth: usize, line: usize) -> Result<Node, NotADocument> {
        self.skip_lines()?;
        match self.is_at_end() || self.column() < least {
            true => Ok(Node {
                line,
                value: Value::Null,
            }),
            false => self.block(self.column(), depth + 1),
        }
    }

    /// The key of a mapping, if one begins here: up to its colon, which a blank follows unless the key is in quotes.
    fn key(&mut self) -> Result<Option<Key>, NotADocument> {
        let line = self.line;
        if let Some((name, length)) = self.quoted()? {
            let behind = self.rest()[length..].trim_start_matches([' ', '\t']);
            let Some(value) = behind.strip_prefix(':') else {
                return Ok(None);
            };
            self.at = self.text.len() - value.len();
            return Ok(Some(Key { line, name }));
        }
        if self.peek().is_some_and(|c| matches!(c, '{' | '[')) {
            return Ok(None);
        }
        let rest = self.rest();
        let this_line = rest.split('\n').next().unwrap_or_default();
        let mut colons = this_line.match_indices(':');
        let colon = colons.find(|(at, _)| this_line[at + 1..].chars().next().is_none_or(is_blank));
        let Some((colon, _)) = colon else { return Ok(None) };
        let name = this_line[..colon].trim_end();
        if name.contains(" #") {
            return Ok(None);
        }
        self.unsupported(name)?;
        let name = name.to_owned();
        self.at += colon + 1;
        Ok(Some(Key { line, name }))
    }

    /// A text in quotes that begins here, and its length with them.
    fn quoted(&self) -> Result<Option<(String, usize)>, NotADocument> {
        let rest = self.rest();
        let read = match rest.chars().next() {
            Some('"') => double_quoted(&rest[1..]),
            Some('\'') => single_quoted(&rest[1..]),
            _ => return Ok(None),
        };
        let (text, length) = read.map_err(|message| self.error(message))?;
        Ok(Some((text, length + 1)))
    }

    fn unsupported(&self, scalar: &str) -> Result<(), NotADocument> {
        match scalar.chars().next() {
            Some('&' | '*' | '!' | '|' | '>' | '%' | '@' | '`' | '?') => Err(self
                .error("anchors, tags and block scalars of YAML are not read here: write the value itself")),
            _ => Ok(()),
        }
    }

    /// A value within a line, or a flow collection over several.
    fn inline(&mut self, depth: usize) -> Result<Node, NotADocument> {
        if self.peek().is_some_and(|c| matches!(c, '{' | '[')) {
            return self.flow(depth);
        }
        let line = self.line;
        if let Some((text, length)) = self.quoted()? {
            self.at += length;
            return Ok(Node {
                line,
                value: Value::Text(text),
            });
        }
        let this_line = self.rest().split('\n').next().unwrap_or_default();
        let end = this_line.find(" #").unwrap_or(this_line.len());
        let scalar = this_line[..end].trim_end();
        self.unsupported(scalar)?;
        let value = plain(scalar);
        self.at += scalar.len();
        Ok(Node { line, value })
    }

    /// A value of a flow collection, which is how JSON writes everything.
    fn flow(&mut self, depth: usize) -> Result<Node, NotADocument> {
        if depth > MAX_DEPTH {
            return Err(self.error("nested deeper than 48 levels"));
        }
        let line = self.line;
        let value = match self.peek() {
            Some('{') => {
                self.advance();
                Value::Table(self.flow_table(depth)?)
            }
            Some('[') => {
                self.advance();
                Value::List(self.flow_list(depth)?)
            }
            Some('"' | '\'') => {
                let (text, length) = self.quoted()?.unwrap_or_default();
                self.at += length;
                Value::Text(text)
            }
            _ => plain(self.flow_scalar()?),
        };
        Ok(Node { line, value })
    }

    fn flow_scalar(&mut self) -> Result<&str, NotADocument> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let mut end = rest.find([',', ']', '}', '\n', '{', '[']).unwrap_or(rest.len());
        let mut colons = rest[..end].match_indices(':');
        if let Some((colon, _)) = colons.find(|(at, _)| rest[at + 1..].chars().next().is_none_or(is_blank)) {
            end = colon;
        }
        let scalar = rest[..end].trim_end();
        self.unsupported(scalar)?;
        self.at += scalar.len();
        Ok(scalar)
    }

    /// Over blanks, lines and comments.
    fn flow_blanks(&mut self) {
        loop {
            self.skip_blanks();
            self.skip_comment();
            match self.peek() {
                Some('\n') => self.advance(),
                _ => return,
            }
        }
    }

    /// Over a comma; false at the closing bracket.
    fn flow_next(&mut self, close: char) -> Result<bool, NotADocument> {
        self.flow_blanks();
        match self.peek() {
            Some(',') => {
                self.advance();
                self.flow_blanks();
                let is_closed = self.peek() == Some(close);
                if is_closed {
                    self.advance();
                }
                Ok(!is_closed)
            }
            Some(c) if c == close => {
                self.advance();
                Ok(false)
            }
            Some(_) => Err(self.error(&format!("a comma or `{close}` is expected here"))),
            None => Err(self.error(&format!("the text ends before `{close}`"))),
        }
    }

    fn flow_list(&mut self, depth: usize) -> Result<Vec<Node>, NotADocument> {
        let mut items = Vec::new();
        self.flow_blanks();
        if self.peek() == Some(']') {
            self.advance();
            return Ok(items);
        }
        loop {
            items.push(self.flow(depth + 1)?);
            if !self.flow_next(']')? {
                return Ok(items);
            }
        }
    }

    fn flow_table(&mut self, depth: usize) -> Result<Table, NotADocument> {
        let mut table = Vec::new();
        self.flow_blanks();
        if self.peek() == Some('}') {
            self.advance();
            return Ok(table);
        }
        loop {
            let line = self.line;
            let name = match self.quoted()? {
                Some((name, length)) => {
                    self.at += length;
                    name
                }
                None => self.flow_scalar()?.to_owned(),
            };
            self.flow_blanks();
            if self.peek() != Some(':') {
                return Err(self.error("a key and a colon are expected here"));
            }
            self.advance();
            self.flow_blanks();
            table.push((Key { line, name }, self.flow(depth + 1)?));
            if !self.flow_next('}')? {
                return Ok(table);
            }
        }
    }
}

#[cfg(test)]
mod tests;
