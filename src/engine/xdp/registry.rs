//! What the keeper leaves to the next one beside the maps, in three files in memory that outlive the process: what the numbers in
//! the maps mean, and how far what the program has counted has been counted.

use std::{fs::File, os::fd::OwnedFd};

use super::layout::REGISTRY;

/// What the files hold is written like this: another format is another number.
pub const FORMAT: u32 = 1;

/// See the [module](self).
#[derive(Debug)]
pub struct Registry {
    files: [File; REGISTRY],
}

impl Registry {
    /// In these files, each of which may be empty.
    #[must_use]
    pub fn new(files: [OwnedFd; REGISTRY]) -> Self {
        Self {
            files: files.map(File::from),
        }
    }
}
