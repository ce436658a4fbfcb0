//! The broker's end of what it has to say to the runner.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
};

use super::Commands;
use crate::config::Config;

/// Where the broker says which commands there are.
#[derive(Debug)]
pub struct Link {
    socket: OwnedFd,
    /// Files that no command may open, besides those that the configuration names.
    hidden: Vec<PathBuf>,
    /// Those of the configuration that was last read.
    adopted: Commands,
    /// Those of the configuration that was last said to be in effect: a reload that fails goes back to it.
    in_effect: Commands,
    /// Whether the runner knows them.
    is_told: bool,
}

impl Link {
    /// Of a runner that knows the commands of the configuration that both are started with.
    #[must_use]
    pub fn new(socket: OwnedFd, hidden: Vec<PathBuf>, config: &Config) -> Self {
        let commands = Commands::of(config, hidden.clone());
        Self {
            socket,
            hidden,
            adopted: commands.clone(),
            in_effect: commands,
            is_told: true,
        }
    }

    /// Goes on with another configuration; the commands of the one in effect stay.
    pub fn adopt(&mut self, config: &Config) {
        let adopted = Commands::of(config, self.hidden.clone());
        if adopted != self.adopted {
            self.adopted = adopted;
            self.is_told = false;
        }
        self.tell();
    }

    /// The configuration that was last read is in effect.
    pub fn in_effect_alone(&mut self) {
        if self.in_effect != self.adopted {
            self.in_effect = self.adopted.clone();
            self.is_told = false;
        }
        self.tell();
    }

    /// Says what the runner has not been told yet. Where there is no room, the next call tries again: until then new commands are
    /// refused.
    pub fn tell(&mut self) {
        if !self.is_told {
            let all = self.adopted.clone().and(&self.in_effect);
            self.is_told = all.tell(self.socket.as_fd()).is_ok();
        }
    }
}
