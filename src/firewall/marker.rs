//! A file that is there while rules of ours may be in force. Whoever starts with a configuration that needs none sees by it
//! that there is something to take out, and can leave alone what another load balancer of this host has put in.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::sys::own_file;

const NAME: &str = "firewall.rules";

/// Must be called before the first rule is put in.
pub fn set(record: &Path) {
    // without a directory to write to, a restart with another configuration finds nothing to take out; nothing else
    // depends on it
    let _ = own_file::create(&path(record), 0o600);
}

/// To be called when the last rule has been taken out.
pub fn remove(record: &Path) {
    let _ = fs::remove_file(path(record));
}

pub fn is_set(record: &Path) -> bool {
    own_file::open(&path(record)).is_ok()
}

fn path(record: &Path) -> PathBuf {
    record.with_file_name(NAME)
}
