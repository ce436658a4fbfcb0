//! The host's clock.

use std::io;

use nix::errno::Errno;

/// Whether the kernel believes that somebody keeps the clock right (NTP, PTP). Needs no privilege.
///
/// # Errors
/// The kernel refused.
pub fn is_synchronised() -> io::Result<bool> {
    // SAFETY: `timex` is made of numbers alone, for which zeroes are good ones; with no modes it only asks.
    let mut asked: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes no more than the struct that the pointer is to.
    Errno::result(unsafe { libc::adjtimex(&raw mut asked) })?;
    Ok(asked.status & libc::STA_UNSYNC == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anybody_may_ask() {
        is_synchronised().unwrap();
    }
}
