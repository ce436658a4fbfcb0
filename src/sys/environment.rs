//! The environment that programs started by this process inherit.

use std::{
    ffi::{OsStr, OsString},
    io,
};

use super::process;

/// Sets a variable for the programs that this process starts later. Returns its value before.
///
/// # Errors
/// The process has more than one thread (another might be reading the environment), or /proc cannot be read.
pub fn set_while_alone(name: &str, value: &OsStr) -> io::Result<Option<OsString>> {
    let threads = process::thread_count()?;
    if threads != 1 {
        return Err(io::Error::other(format!(
            "the environment cannot be changed while the process has {threads} threads"
        )));
    }
    let before = std::env::var_os(name);
    // SAFETY: set_var must not run beside a thread that reads the environment; this thread is the only one (checked
    // above), and only it could start another.
    unsafe { std::env::set_var(name, value) };
    Ok(before)
}
