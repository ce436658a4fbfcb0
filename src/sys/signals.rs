//! Signals that a process does not want.

use std::io;

use nix::sys::signal::{SigHandler, SigSet, Signal, signal};

/// Those that [`ignore_termination`] ignores.
const IGNORED: [Signal; 5] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGUSR1,
    Signal::SIGPIPE,
];

/// Ignores the signals by which a daemon is told to end, to reload or to open its logs again, for a process that ends by other means.
///
/// # Errors
/// The kernel refused, which it never does for these signals.
pub fn ignore_termination() -> io::Result<()> {
    for ignored in IGNORED {
        // SAFETY: SIG_IGN installs no handler, so nothing has to be async-signal-safe.
        unsafe { signal(ignored, SigHandler::SigIgn) }?;
    }
    Ok(())
}

/// Has the calling process, and what it starts, take the signals that [`ignore_termination`] ignores as any other does.
///
/// # Errors
/// The kernel refused, which it never does for these signals.
pub fn stop_ignoring() -> io::Result<()> {
    for ignored in IGNORED {
        // SAFETY: SIG_DFL installs no handler, so nothing has to be async-signal-safe.
        unsafe { signal(ignored, SigHandler::SigDfl) }?;
    }
    Ok(())
}

/// Has the calling process not hear the signals by which processes are told to end. What it starts by
/// [`std::process::Command`] hears them: that empties the mask.
///
/// # Errors
/// The kernel refused, which it never does.
pub fn block_termination() -> io::Result<()> {
    let mut blocked = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1] {
        blocked.add(signal);
    }
    blocked.thread_block().map_err(Into::into)
}
