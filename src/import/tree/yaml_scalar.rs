//! Scalars of YAML and JSON.

use super::Value;

/// A plain scalar: what a text without quotes stands for.
pub fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ if is_number(text) => Value::Number(text.to_owned()),
        _ => Value::Text(text.to_owned()),
    }
}

/// As JSON writes them.
fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    digits.starts_with(|c: char| c.is_ascii_digit())
        && digits
            .bytes()
            .all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte))
        && digits.parse::<f64>().is_ok()
}

/// What stands between double quotes, escapes replaced, and how many bytes it takes with its closing quote. `text` begins
/// behind the opening one.
pub fn double_quoted(text: &str) -> Result<(String, usize), &'static str> {
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((out, at + 1)),
            '\\' => {
                let (_, escape) = chars.next().ok_or(UNCLOSED)?;
                match escape {
                    'n' => out.push('\n'),
                    't' => out.push('\t'),
                    'r' => out.push('\r'),
                    'b' => out.push('\u{8}'),
                    'f' => out.push('\u{c}'),
                    '0' => out.push('\0'),
                    '"' | '\\' | '/' | ' ' => out.push(escape),
                    'x' => out.push(char::from_u32(digits(&mut chars, 2)?).ok_or(BAD_ESCAPE)?),
                    'u' => {
                        let first = digits(&mut chars, 4)?;
                        let point = if (0xd800..0xdc00).contains(&first) {
                            surrogates(first, &mut chars)?
                        } else {
                            first
                        };
                        out.push(char::from_u32(point).ok_or(BAD_ESCAPE)?);
                    }
                    _ => return Err(BAD_ESCAPE),
                }
            }
            '\n' => return Err(UNCLOSED),
            _ => out.push(c),
        }
    }
    Err(UNCLOSED)
}

/// What stands between single quotes, as [`double_quoted`].
pub fn single_quoted(text: &str) -> Result<(String, usize), &'static str> {
    let mut out = String::new();
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '\'' if chars.next_if(|(_, next)| *next == '\'').is_some() => out.push('\''),
            '\'' => return Ok((out, at + 1)),
            '\n' => return Err(UNCLOSED),
            _ => out.push(c),
        }
    }
    Err(UNCLOSED)
}

const UNCLOSED: &str = "a quote that is not closed on its line";
const BAD_ESCAPE: &str = "an escape that neither JSON nor YAML has";

fn digits(chars: &mut std::str::CharIndices<'_>, count: usize) -> Result<u32, &'static str> {
    (0..count).try_fold(0, |number, _| {
        let (_, c) = chars.next().ok_or(UNCLOSED)?;
        Ok(number * 16 + c.to_digit(16).ok_or(BAD_ESCAPE)?)
    })
}

/// The second half of what JSON writes in two.
fn surrogates(high: u32, chars: &mut std::str::CharIndices<'_>) -> Result<u32, &'static str> {
    for expected in ['\\', 'u'] {
        if chars.next().map(|(_, c)| c) != Some(expected) {
            return Err(BAD_ESCAPE);
        }
    }
    let low = digits(chars, 4)?;
    match low {
        0xdc00..0xe000 => Ok(0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00)),
        _ => Err(BAD_ESCAPE),
    }
}
