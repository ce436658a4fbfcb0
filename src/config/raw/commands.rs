//! Commands, as they are written.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use toml::de::DeValue;

use super::{
    Time,
    access::MAX_PATH_BYTES,
    field::{Field, Key, Node, bad_value, inline_schema, string, wrong_type},
    section::section,
};
use crate::config::findings::Findings;

/// Most words of a command line.
const MAX_WORDS: usize = 256;

/// Longest word of a command line in bytes.
const MAX_WORD_BYTES: usize = 4_096;

/// A command line, word by word.
#[derive(Debug, Clone)]
pub struct CommandLine(pub Vec<String>);

section! {
    /// Commands that Convey runs when something happens. They run as Convey's user without capabilities, with a clean environment, and reach neither keys nor state directory: see COMMANDS in convey(8).
    Hooks {
        /// Command that is told what happens to servers and backends, such as ["/usr/local/bin/notify"]: on standard input a line an event, with time, event, backend, server, address and reason between tabs. Default: none.
        on_change: CommandLine,
        /// How long a command of this section may run before it is ended with all that it has started. Default: "10s".
        timeout: Time<false, 600_000>,
    }
}

impl Field for CommandLine {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let list = match value.get_ref() {
            DeValue::Array(list) => list,
            DeValue::String(text) => {
                let words: Vec<_> = text.split_whitespace().map(|word| format!("{word:?}")).collect();
                let help = format!(
                    "write each word in quotes, for no shell reads the line: {} = [{}]",
                    findings.key(),
                    words.join(", ")
                );
                return wrong_type(value, "a list of words", Some(help), findings);
            }
            _ => return wrong_type(value, "a list of words", None, findings),
        };
        let words: Vec<&str> = (list.iter())
            .map(|word| string(word, "a list of words, each in quotes", findings))
            .collect::<Option<_>>()?;
        let example = "write the program and its arguments, such as [\"/usr/local/bin/notify\", \"mail\"]";
        let Some(program) = words.first() else {
            return bad_value(
                value,
                format!("`{}` has no word", findings.key()),
                example,
                findings,
            );
        };
        if program.is_empty() || program.len() > MAX_PATH_BYTES {
            let message = format!("`{}` names no program", findings.key());
            return bad_value(value, message, example, findings);
        }
        if program.contains('/') && !program.starts_with('/') {
            return bad_value(
                value,
                format!("\"{program}\" is not the absolute path of a program"),
                "commands start in /: write the whole path, or a name that /usr/local/sbin, /usr/local/bin, /usr/sbin, /usr/bin, \
                 /sbin or /bin has",
                findings,
            );
        }
        if words.len() > MAX_WORDS || words.iter().any(|word| word.len() > MAX_WORD_BYTES) {
            let message = format!("`{}` is too long", findings.key());
            let help = format!(
                "the limit is {MAX_WORDS} words of {MAX_WORD_BYTES} bytes each: put more into a script"
            );
            return bad_value(value, message, help, findings);
        }
        if words.iter().any(|word| word.contains('\0')) {
            let message = format!("`{}` has a zero byte", findings.key());
            return bad_value(value, message, "no argument of a program can have one", findings);
        }
        Some(Self(words.into_iter().map(str::to_owned).collect()))
    }
}
inline_schema!([] CommandLine, _g => json_schema!({
    "type": "array", "items": { "type": "string", "maxLength": MAX_WORD_BYTES }, "minItems": 1, "maxItems": MAX_WORDS
}));
