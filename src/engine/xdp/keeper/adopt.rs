//! Taking over what an engine before this one has left in the maps and in the registry.

use std::{fmt, io};

use super::Keeper;

/// What was taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Adopted {
    /// Servers behind a VIP that have a number.
    pub targets: usize,
    /// Passthrough flows, as far as they are counted.
    pub passthrough: u64,
}

impl fmt::Display for Adopted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { targets, passthrough } = self;
        write!(f, "{passthrough} passthrough flows, {targets} servers")
    }
}

impl Keeper {
    /// Takes over what the maps hold: numbers go on to mean what they meant, flows go on.
    ///
    /// # Errors
    /// The registry says nothing, or the kernel refused: the maps are as they were, and to be [cleared](Self::clear).
    pub fn adopt(&mut self) -> io::Result<Adopted> {
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "nothing says what the numbers in the maps mean",
        ))
    }
}
