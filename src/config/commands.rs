//! Commands that the configuration names: the only ones that Convey ever starts.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use crate::base::CommandId;

/// A command line and how long it may take.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// The program and its arguments, as they are written: no shell reads them. Not empty.
    pub line: Vec<String>,
    /// When it is ended, with all that it has started.
    pub timeout: Duration,
}

/// `[hooks]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hooks {
    /// `on_change`: is told what happens to servers and backends.
    pub on_change: Option<Command>,
}

impl Command {
    /// What it is asked for by. The processes of one start compute the same number from the same line: a reload needs no
    /// numbers to be agreed on, and a number never comes to mean another command.
    #[must_use]
    pub fn id(&self) -> CommandId {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        CommandId(hasher.finish())
    }

    /// The program.
    #[must_use]
    pub fn program(&self) -> &str {
        self.line.first().map_or("", String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_command_is_that_of_its_line_and_its_timeout() {
        let command = |line: &[&str], seconds| Command {
            line: line.iter().map(|part| (*part).to_owned()).collect(),
            timeout: Duration::from_secs(seconds),
        };
        let one = command(&["/bin/a", "b"], 3);
        assert_eq!(one.id(), one.clone().id());
        for other in [
            command(&["/bin/a", "b"], 4),
            command(&["/bin/ab"], 3),
            command(&["/bin/a", "b", ""], 3),
            command(&["/bin/a b"], 3),
        ] {
            assert_ne!(one.id(), other.id(), "{other:?}");
        }
    }
}
