//! The words of a line: quotes, escapes, variables and comments as HAProxy reads them (configuration manual, 2.2).

use std::collections::BTreeMap;

/// Why a line has no words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WordError {
    /// A quote without its end.
    #[error("a quote is not closed on its line")]
    Quote,
    /// A backslash at the end.
    #[error("there is nothing behind the backslash at the end of the line")]
    Escape,
    /// `\x` without two digits.
    #[error("behind `\\x` there must be two hexadecimal digits")]
    Hex,
    /// `${` without its end.
    #[error("a variable has no `}}`")]
    Variable,
}

/// Splits a line. Variables that `variables` has are replaced; others stay as `${NAME}`, or become their default value if they
/// have one.
pub fn split(line: &str, variables: &BTreeMap<String, String>) -> Result<Vec<String>, WordError> {
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

fn escape(chars: &mut Chars<'_>, in_double: bool, word: &mut String) -> Result<(), WordError> {
    let c = chars.next().ok_or(WordError::Escape)?;
    match c {
        // in double quotes only these are escapes
        c if in_double && !['\\', '"', '$'].contains(&c) => word.extend(['\\', c]),
        'n' => word.push('\n'),
        'r' => word.push('\r'),
        't' => word.push('\t'),
        'x' => {
            let digits: String = chars.by_ref().take(2).collect();
            let is_hex = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            let byte = u8::from_str_radix(&digits, 16).ok().filter(|_| is_hex);
            word.push(char::from(byte.ok_or(WordError::Hex)?));
        }
        c => word.push(c),
    }
    Ok(())
}

/// What follows a `$` in double quotes: `NAME`, `{NAME}`, `{NAME-DEFAULT}` or `{NAME[*]}`.
fn variable(
    chars: &mut Chars<'_>,
    variables: &BTreeMap<String, String>,
    word: &mut String,
) -> Result<(), WordError> {
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
    match (variables.get(&name), default) {
        (Some(value), _) => word.push_str(value),
        (None, Some(default)) => word.push_str(&default),
        (None, None) => {
            word.push_str("${");
            word.push_str(&name);
            word.push('}');
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Result<Vec<String>, WordError> {
        split(line, &BTreeMap::from([("PORT".to_owned(), "8080".to_owned())]))
    }

    #[test]
    fn quotes_and_escapes_make_words_as_in_haproxy() {
        for (line, expected) in [
            (
                "  server  a 10.0.0.1:80 # one",
                vec!["server", "a", "10.0.0.1:80"],
            ),
            (r"a\ b 'c d' e\#f", vec!["a b", "c d", "e#f"]),
            (r#"send "PING\r\n""#, vec!["send", r"PING\r\n"]),
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
            ("a \\", WordError::Escape),
            (r"\xg1", WordError::Hex),
            ("\"${A\"", WordError::Variable),
        ] {
            assert_eq!(words(line), Err(why), "{line}");
        }
    }
}
