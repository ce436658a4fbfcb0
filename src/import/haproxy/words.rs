//! The words of a line: quotes, escapes, variables and comments as HAProxy reads them (configuration manual, 2.2).

use std::collections::BTreeMap;

/// Most bytes that variables put into a file, all together: as many as a file may have.
const MAX_REPLACED: usize = crate::import::MAX_INPUT_BYTES;

/// Why a line has no words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WordError {
    /// A quote without its end.
    #[error("a quote is not closed on its line")]
    Quote,
    /// `\x` without two digits.
    #[error("behind `\\x` there must be two hexadecimal digits")]
    Hex,
    /// `${` without its end.
    #[error("a variable has no `}}`")]
    Variable,
    /// Variables made of variables, again and again.
    #[error(
        "the variables up to here put more than {MAX_REPLACED} bytes into the file, which no real one has"
    )]
    TooLong,
}

/// The variables that a file sets itself.
#[derive(Debug)]
pub struct Variables {
    values: BTreeMap<String, String>,
    /// Bytes that they may still put in their places.
    left: usize,
}

impl Default for Variables {
    fn default() -> Self {
        Self {
            values: BTreeMap::new(),
            left: MAX_REPLACED,
        }
    }
}

impl Variables {
    /// Takes `setenv`, `presetenv` and `unsetenv`, by the words of the line; whether it is one of them.
    pub fn take(&mut self, words: &[String]) -> bool {
        match words {
            [first, name, value, ..] if first == "setenv" => {
                self.values.insert(name.clone(), value.clone());
            }
            // unless it has a value
            [first, name, value, ..] if first == "presetenv" => {
                self.values.entry(name.clone()).or_insert_with(|| value.clone());
            }
            [first, names @ ..] if first == "unsetenv" => {
                self.values.retain(|name, _| !names.contains(name));
            }
            _ => return false,
        }
        true
    }

    /// Puts the value of a variable, or else its default, behind a word; `${NAME}` without either.
    fn replace(&mut self, name: &str, default: Option<&str>, word: &mut String) -> Result<(), WordError> {
        let Some(value) = self.values.get(name).map(String::as_str).or(default) else {
            word.extend(["${", name, "}"]);
            return Ok(());
        };
        self.left = self.left.checked_sub(value.len()).ok_or(WordError::TooLong)?;
        word.push_str(value);
        Ok(())
    }
}

/// Splits a line. Variables that `variables` has are replaced; others stay as `${NAME}`, or become their default value if they
/// have one.
pub fn split(line: &str, variables: &mut Variables) -> Result<Vec<String>, WordError> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut in_word = false;
    let mut in_double = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                in_double = !in_double;
                in_word = true;
            }
            '\'' if !in_double => {
                in_word = true;
                loop {
                    match chars.next() {
                        Some('\'') => break,
                        Some(c) => word.push(c),
                        None => return Err(WordError::Quote),
                    }
                }
            }
            '\\' => {
                in_word = true;
                escape(&mut chars, in_double, &mut word)?;
            }
            '$' if in_double => variable(&mut chars, variables, &mut word)?,
            '#' if !in_double => break,
            c if c.is_whitespace() && !in_double => {
                if std::mem::take(&mut in_word) {
                    words.push(std::mem::take(&mut word));
                }
            }
            c => {
                in_word = true;
                word.push(c);
            }
        }
    }
    if in_double {
        return Err(WordError::Quote);
    }
    if in_word {
        words.push(word);
    }
    Ok(words)
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

/// What follows a backslash. One that begins no escape stands for itself, so that expressions such as `^a\.b$` need no second one.
fn escape(chars: &mut Chars<'_>, in_double: bool, word: &mut String) -> Result<(), WordError> {
    let escaped = match chars.peek() {
        Some(c @ (' ' | '\\' | '#' | '"' | '\'')) => *c,
        Some('$') if in_double => '$',
        Some('n') => '\n',
        Some('r') => '\r',
        Some('t') => '\t',
        Some('x') => {
            chars.next();
            let digits: String = chars.by_ref().take(2).collect();
            let is_hex = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            let byte = u8::from_str_radix(&digits, 16).ok().filter(|_| is_hex);
            word.push(char::from(byte.ok_or(WordError::Hex)?));
            return Ok(());
        }
        _ => {
            word.push('\\');
            return Ok(());
        }
    };
    chars.next();
    word.push(escaped);
    Ok(())
}

/// What follows a `$` in double quotes: `NAME`, `{NAME}`, `{NAME-DEFAULT}` or `{NAME[*]}`.
fn variable(chars: &mut Chars<'_>, variables: &mut Variables, word: &mut String) -> Result<(), WordError> {
    let is_part = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
    let (name, default) = if chars.next_if_eq(&'{').is_some() {
        let mut inner = String::new();
        loop {
            match chars.next() {
                Some('}') => break,
                Some(c) => inner.push(c),
                None => return Err(WordError::Variable),
            }
        }
        let name: String = inner.chars().take_while(is_part).collect();
        let default = inner[name.len()..].strip_prefix('-').map(str::to_owned);
        (name, default)
    } else {
        let mut name = String::new();
        while let Some(c) = chars.next_if(is_part) {
            name.push(c);
        }
        (name, None)
    };
    variables.replace(&name, default.as_deref(), word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Result<Vec<String>, WordError> {
        let mut variables = Variables::default();
        variables.take(&["setenv", "PORT", "8080"].map(str::to_owned));
        split(line, &mut variables)
    }

    #[test]
    fn quotes_and_escapes_make_words_as_in_haproxy() {
        for (line, expected) in [
            (
                "  server  a 10.0.0.1:80 # one",
                vec!["server", "a", "10.0.0.1:80"],
            ),
            (r"a\ b 'c d' e\#f", vec!["a b", "c d", "e#f"]),
            (r#"send "PING\r\n""#, vec!["send", "PING\r\n"]),
            (
                r"^[a-z]+\.a\d$ 'a\.b' end\",
                vec![r"^[a-z]+\.a\d$", r"a\.b", r"end\"],
            ),
            (
                r#"a\$b "a\$b\.c" \\ \"x\' "\"""#,
                vec![r"a\$b", r"a$b\.c", r"\", "\"x'", "\""],
            ),
            (r"send PING\r\n", vec!["send", "PING\r\n"]),
            (r"\x41\x2a", vec!["A*"]),
            (r#"x""y'' "" 'it"s'"#, vec!["xy", "", "it\"s"]),
            ("# nothing", vec![]),
        ] {
            assert_eq!(words(line).expect(line), expected, "{line}");
        }
    }

    #[test]
    fn a_known_variable_is_replaced_in_double_quotes_only() {
        for (line, expected) in [
            (r#""10.0.0.1:${PORT}" "$PORT""#, vec!["10.0.0.1:8080", "8080"]),
            (r#""${OTHER}" "${OTHER-x}" $PORT"#, vec!["${OTHER}", "x", "$PORT"]),
        ] {
            assert_eq!(words(line).expect(line), expected, "{line}");
        }
    }

    #[test]
    fn a_line_without_words_says_why() {
        for (line, why) in [
            ("a 'b", WordError::Quote),
            ("\"a", WordError::Quote),
            (r"\xg1", WordError::Hex),
            ("\"${A\"", WordError::Variable),
        ] {
            assert_eq!(words(line), Err(why), "{line}");
        }
    }

    #[test]
    fn variables_made_of_variables_end_before_they_fill_the_memory() {
        let mut variables = Variables::default();
        variables.take(&["setenv", "A", "xxxx"].map(str::to_owned));
        let mut doubled = 0;
        let error = loop {
            match split("setenv A \"${A}${A}\"", &mut variables) {
                Ok(words) => assert!(variables.take(&words)),
                Err(error) => break error,
            }
            doubled += 1;
        };
        assert_eq!(error, WordError::TooLong);
        assert!((10..40).contains(&doubled), "{doubled}");
    }

    #[test]
    fn a_variable_that_is_set_only_where_there_is_none_or_taken_back_counts_so() {
        let mut variables = Variables::default();
        for line in [
            "setenv A 1",
            "presetenv A 2",
            "presetenv B 3",
            "setenv C 4",
            "unsetenv C",
        ] {
            let words = split(line, &mut variables).expect(line);
            assert!(variables.take(&words), "{line}");
        }
        let words = split(r#""$A $B $C""#, &mut variables).expect("words");
        assert_eq!(words, ["1 3 ${C}"]);
    }
}
