//! Exit statuses, from sysexits.h.

use std::process::ExitCode;

/// Success.
pub const OK: Exit = Exit(0);
/// EX_USAGE: the command line is wrong.
pub const USAGE: Exit = Exit(64);
/// EX_DATAERR: the input is not what it should be.
#[cfg_attr(
    not(feature = "import"),
    allow(dead_code, reason = "what is imported is data")
)]
pub const DATA: Exit = Exit(65);
/// EX_NOINPUT: a file cannot be read.
pub const NO_INPUT: Exit = Exit(66);
/// EX_UNAVAILABLE: the daemon does not answer, or a part of it has ended.
pub const UNAVAILABLE: Exit = Exit(69);
/// EX_SOFTWARE: an internal error.
pub const SOFTWARE: Exit = Exit(70);
/// EX_OSERR: the system refused something.
pub const OS_ERROR: Exit = Exit(71);
/// EX_CANTCREAT: a file cannot be created.
pub const CANNOT_CREATE: Exit = Exit(73);
/// EX_IOERR: reading or writing failed half-way.
pub const IO: Exit = Exit(74);
/// EX_TEMPFAIL: not now, though perhaps later.
pub const NOT_YET: Exit = Exit(75);
/// EX_NOPERM: not permitted.
pub const NO_PERMISSION: Exit = Exit(77);
/// EX_CONFIG: the configuration is wrong.
pub const CONFIG: Exit = Exit(78);

/// An exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit(pub u8);

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.0)
    }
}
