//! Commands that the configuration names: the only ones that Convey ever starts.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::SocketAddr,
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

/// A word of a command line that is run for a server: `$host` stands for its IP address and `$port` for its port, wherever in
/// the word they are. Nothing else is put in, so a word stays one.
#[must_use]
pub fn at_server(word: &str, server: SocketAddr) -> String {
    let address = server.ip().to_string();
    word.replace("$host", &address)
        .replace("$port", &server.port().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_has_the_server_that_it_is_run_for() {
        let word = |word, server: &str| at_server(word, server.parse().unwrap());
        assert_eq!(word("$host", "10.0.0.1:80"), "10.0.0.1");
        assert_eq!(
            word("http://$host:$port/$path", "10.0.0.1:80"),
            "http://10.0.0.1:80/$path"
        );
        assert_eq!(
            word("--to=[$host]:$port", "[2001:db8::1]:80"),
            "--to=[2001:db8::1]:80"
        );
    }

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
