//! How a command ends: exit statuses of sysexits.h and the text of failures.

use std::{io, process::ExitCode};

/// Exit statuses, as BSD's sysexits.h gives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0.
    Ok,
    /// 64, EX_USAGE: the command line is wrong, or names something that does not exist.
    Usage,
    /// 66, EX_NOINPUT: a file named on the command line cannot be read.
    NoInput,
    /// 69, EX_UNAVAILABLE: the running convey cannot be reached or does not answer.
    Unavailable,
    /// 70, EX_SOFTWARE: convey is at fault.
    Software,
    /// 71, EX_OSERR: the system refused something.
    System,
    /// 74, EX_IOERR: writing the output failed.
    Io,
    /// 77, EX_NOPERM: not allowed to.
    NoPermission,
    /// 78, EX_CONFIG: the configuration has errors.
    Config,
}

impl Exit {
    /// The number.
    pub const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Usage => 64,
            Self::NoInput => 66,
            Self::Unavailable => 69,
            Self::Software => 70,
            Self::System => 71,
            Self::Io => 74,
            Self::NoPermission => 77,
            Self::Config => 78,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

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
            Self::new(Exit::Io, format!("cannot write the output: {error}"))
        }
    }
}

/// How a command ends.
pub type Outcome = Result<Exit, Failure>;
