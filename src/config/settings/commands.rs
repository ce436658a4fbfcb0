//! Settings of commands.

use super::{Setting, Settings, time};
use crate::config::{commands::Hooks, quote::string};

/// `[hooks]`.
pub fn hooks(hooks: &Hooks) -> Settings {
    let Hooks { on_change } = hooks;
    let Some(command) = on_change else {
        return vec![("on_change", Setting::Unset("none"))];
    };
    vec![
        ("on_change", words(&command.line)),
        ("timeout", time(command.timeout)),
    ]
}

/// A command line.
pub fn words(line: &[String]) -> Setting {
    let words: Vec<_> = line.iter().map(|word| string(word)).collect();
    Setting::Value(format!("[{}]", words.join(", ")))
}
