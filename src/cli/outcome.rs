//! How a command ends.

use std::io;

use crate::base::exit::{self, Exit};

/// Why a command failed.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// The reader of the output went away (`convey status | head`): not worth a word.
    ReaderGone,
    /// With a text for stderr.
    Told {
        /// The exit status.
        exit: Exit,
        /// What is wrong and what to do.
        message: String,
    },
}

impl Failure {
    /// A failure with a text.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self::Told {
            exit,
            message: message.into(),
        }
    }
}

impl From<io::Error> for Failure {
    /// Of writing to stdout.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::ReaderGone
        } else {
            Self::new(exit::IO, format!("cannot write the output: {error}"))
        }
    }
}

/// How a command ends.
pub type CommandResult = Result<Exit, Failure>;
