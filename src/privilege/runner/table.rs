//! Which commands there are: what the broker says.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd as _, BorrowedFd},
    path::PathBuf,
};

use crate::{
    base::CommandId,
    config::{Command, Config},
    sys::{
        fdpass::{self, RecvError},
        memfd,
    },
};

/// Most bytes of all commands and hidden files together, as JSON: more than a configuration file may have.
const MAX_BYTES: usize = 16 << 20;

/// What a message with a list is called.
const LIST: &[u8] = b"commands";

/// The commands of a configuration, and the files that they may not open.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Commands {
    commands: Vec<Command>,
    hidden: Vec<PathBuf>,
    #[serde(skip)]
    by_id: BTreeMap<CommandId, Command>,
}

/// Why a list was not sent.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// There is no room, or nobody is there.
    #[error("tell the runner: {0}")]
    Send(#[from] io::Error),
    /// It cannot be written.
    #[error("tell the runner: {0}")]
    Form(#[from] serde_json::Error),
}

impl Commands {
    /// Those of a configuration; `hidden` are files that none may open, besides those that the configuration names.
    #[must_use]
    pub fn of(config: &Config, mut hidden: Vec<PathBuf>) -> Self {
        hidden.extend(config.secret_files().into_iter().map(PathBuf::from));
        let by_id = config.commands();
        Self {
            commands: by_id.values().cloned().collect(),
            hidden,
            by_id,
        }
    }

    /// These, and those of a configuration that is still in effect.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        for (id, command) in &other.by_id {
            if self.by_id.insert(*id, command.clone()).is_none() {
                self.commands.push(command.clone());
            }
        }
        for path in &other.hidden {
            if !self.hidden.contains(path) {
                self.hidden.push(path.clone());
            }
        }
        self
    }

    /// A command.
    #[must_use]
    pub fn get(&self, id: CommandId) -> Option<&Command> {
        self.by_id.get(&id)
    }

    /// The files that no command may open.
    #[must_use]
    pub fn hidden(&self) -> &[PathBuf] {
        &self.hidden
    }

    /// Says which there are, without waiting.
    ///
    /// # Errors
    /// There is no room, or nobody hears it.
    pub fn tell(&self, runner: BorrowedFd<'_>) -> Result<(), TableError> {
        let list = memfd::sealed(&serde_json::to_vec(self)?)?;
        Ok(fdpass::try_send(runner, LIST, &[list.as_fd()])?)
    }

    /// Takes what the broker has said, without waiting. False if it is gone or says what it never would.
    pub fn take_news(&mut self, broker: BorrowedFd<'_>) -> bool {
        loop {
            let (message, fds) = match fdpass::try_receive(broker) {
                Ok(received) => received,
                Err(RecvError::TimedOut) => return true,
                Err(_) => return false,
            };
            let list = fds.into_iter().next().filter(|_| message == LIST);
            let Some(news) = list.and_then(|list| Self::read(&memfd::read_sealed(list, MAX_BYTES).ok()?))
            else {
                return false;
            };
            *self = news;
        }
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let mut read: Self = serde_json::from_slice(bytes).ok()?;
        read.by_id = (read.commands.iter())
            .map(|command| (command.id(), command.clone()))
            .collect();
        Some(read)
    }
}

#[cfg(test)]
mod tests {
    use std::{os::fd::OwnedFd, time::Duration};

    use super::*;

    fn list(words: &[&str]) -> Commands {
        let commands: Vec<_> = (words.iter())
            .map(|word| Command {
                line: vec![(*word).to_owned()],
                timeout: Duration::from_millis(1_500),
            })
            .collect();
        Commands {
            by_id: commands.iter().map(|c| (c.id(), c.clone())).collect(),
            hidden: words.iter().map(PathBuf::from).collect(),
            commands,
        }
    }

    #[test]
    fn the_last_list_that_was_said_counts() {
        let (broker, runner) = fdpass::pair().unwrap();
        let mut known = Commands::default();
        assert!(known.take_news(runner.as_fd()));
        let both = list(&["/a"]).and(&list(&["/a", "/b"]));
        list(&["/c"]).tell(broker.as_fd()).unwrap();
        both.tell(broker.as_fd()).unwrap();
        assert!(known.take_news(runner.as_fd()));
        assert_eq!(known, both);
        assert_eq!(known.hidden().len(), 2);
        let b = list(&["/b"]).commands.remove(0);
        assert_eq!(known.get(b.id()), Some(&b));
        assert_eq!(known.get(CommandId(7)), None);
        drop(broker);
        assert!(!known.take_news(runner.as_fd()));
    }

    #[test]
    fn what_is_no_list_is_an_end() {
        let send = |message: &[u8], content: Option<&[u8]>| {
            let (broker, runner) = fdpass::pair().unwrap();
            let content: Vec<OwnedFd> = (content.into_iter().map(|c| memfd::sealed(c).unwrap())).collect();
            let fds: Vec<_> = content.iter().map(|fd| fd.as_fd()).collect();
            fdpass::send(broker.as_fd(), message, &fds).unwrap();
            Commands::default().take_news(runner.as_fd())
        };
        let good: &[u8] = br#"{"commands":[],"hidden":[]}"#;
        assert!(send(LIST, Some(good)));
        assert!(!send(LIST, None));
        assert!(!send(b"x", Some(good)));
        assert!(!send(LIST, Some(b"{}")));
    }
}
