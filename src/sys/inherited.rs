//! Descriptors that the service manager kept for us from an earlier process (sd_listen_fds(3), file descriptor store).

use std::{
    io,
    os::fd::{FromRawFd, OwnedFd},
    sync::atomic::{AtomicBool, Ordering},
};

/// A descriptor with the name under which it is kept.
#[derive(Debug)]
pub struct Inherited {
    /// Its name, `FDNAME=`.
    pub name: String,
    /// The descriptor, closed on exec.
    pub fd: OwnedFd,
}

/// Takes over what was handed to this very process: by the first call, all later ones get nothing. Must be called before
/// anything opens a descriptor.
///
/// # Errors
/// The environment is not what a service manager makes, or a descriptor that it announces is not open.
pub fn take() -> io::Result<Vec<Inherited>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    let inherited = sd_notify::listen_fds_with_names()?
        .map(|(fd, name)| Inherited {
            name,
            // SAFETY: the descriptor is open (close-on-exec was just set on it) and was given to this process by its
            // number; nobody in it has taken it, for this happens once, before anything is opened.
            fd: unsafe { OwnedFd::from_raw_fd(fd) },
        })
        .collect();
    Ok(inherited)
}
