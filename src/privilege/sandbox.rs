//! System calls and files that the daemon gives up for good: seccomp, which it does not run without, and landlock, where
//! the kernel has it.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

use super::seccomp;
use crate::config::Config;

/// The newest kernel interface whose meaning these rules were written for (Linux 6.10); older ones do what they can.
const LANDLOCK: ABI = ABI::V5;

/// What is read while running: itself, its control group (number of CPUs), the C library's files for a
/// symbolic backtrace and for time zones and names, /dev/null.
const READABLE: &[&str] = &[
    "/proc/self",
    "/proc/sys/net",
    "/sys/fs/cgroup",
    "/sys/devices/system/cpu",
    "/usr",
    "/lib",
    "/lib64",
    "/etc/localtime",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/dev/null",
    "/dev/urandom",
];

/// Entries of a directory above a hidden file that stay reachable, at most.
const MAX_ENTRIES: usize = 10_000;

/// Why files are not hidden.
#[derive(Debug, thiserror::Error)]
pub(super) enum HideError {
    /// What is beside a hidden file cannot be seen.
    #[error("list {}, which is above a hidden file: {source}", directory.display())]
    List {
        /// The directory.
        directory: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The kernel has landlock and did not take the rules.
    #[error("landlock: {0}")]
    Landlock(#[from] RulesetError),
}

/// The directories in which the daemon may change something. Nothing else can be written, and little be read; what is
/// open already stays so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sandbox {
    /// Where it removes its sockets.
    pub removable: Vec<PathBuf>,
    /// Where it writes files. They must exist when the privileges are dropped.
    pub writable: Vec<PathBuf>,
}

impl Sandbox {
    /// What a daemon of this configuration needs. `state` is where it writes what outlives it.
    #[must_use]
    pub fn of(config: &Config, state: Option<&Path>) -> Self {
        let admin = config.admin.socket.as_deref().and_then(Path::parent);
        Self {
            removable: admin.map(Path::to_owned).into_iter().collect(),
            writable: state.map(Path::to_owned).into_iter().collect(),
        }
    }
}

/// What the calling thread of the packet engine gives up besides: to make, bind and connect sockets and to set their
/// options. Run first on each of its threads.
///
/// # Errors
/// The kernel refused the filter.
pub fn confine_packet_thread() -> io::Result<()> {
    seccomp::confine_packet_thread()
}

/// Confines the calling thread, and so all that it starts, to these files, as far as the kernel can. Returns whether it
/// can at all. Needs `no_new_privs`.
pub(super) fn confine_files(sandbox: &Sandbox) -> Result<bool, RulesetError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write = AccessFs::from_all(LANDLOCK) & !AccessFs::Execute & !AccessFs::IoctlDev;
    let readable = READABLE.iter().map(|path| (Path::new(path), read));
    let removable = sandbox.removable.iter();
    let removable = removable.map(|path| (path.as_path(), AccessFs::RemoveFile | AccessFs::ReadDir));
    let writable = sandbox.writable.iter().map(|path| (path.as_path(), write));

    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(LANDLOCK))?
        .create()?;
    for (path, access) in readable.chain(removable).chain(writable) {
        // what does not exist, or cannot be reached, needs no rule
        if let Ok(parent) = PathFd::new(path) {
            ruleset = ruleset.add_rule(rule(parent, path, access))?;
        }
    }
    Ok(ruleset.restrict_self()?.ruleset != RulesetStatus::NotEnforced)
}

/// Confines the calling thread, and so all that it starts, to every file but these and what is below them, and to signals
/// among what it starts, as far as the kernel can. Needs `no_new_privs`. The directories above a hidden file are not listed
/// and get no new entries: what is beside it stays as reachable as it was.
///
/// # Errors
/// A directory above a hidden file cannot be listed, or the kernel did not take the rules.
pub(super) fn hide_files(hidden: &[PathBuf]) -> Result<(), HideError> {
    // by where they really are: a link among them leads nowhere else
    let hidden: BTreeSet<PathBuf> = hidden
        .iter()
        .filter_map(|path| path.canonicalize().ok())
        .collect();
    let all = AccessFs::from_all(LANDLOCK);
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)?
        .scope(Scope::Signal)?
        .create()?;
    let mut above = vec![PathBuf::from("/")];
    while let Some(directory) = above.pop() {
        if !hidden.iter().any(|path| path.starts_with(&directory)) {
            if let Ok(parent) = PathFd::new(&directory) {
                ruleset = ruleset.add_rule(rule(parent, &directory, all))?;
            }
        } else if !hidden.contains(&directory) {
            let entries = match std::fs::read_dir(&directory) {
                Ok(entries) => entries.flatten(),
                Err(source) => return Err(HideError::List { directory, source }),
            };
            // what a link leads to is reached, or not, by where that is
            let entries = entries.filter(|entry| entry.file_type().is_ok_and(|kind| !kind.is_symlink()));
            above.extend(entries.map(|entry| entry.path()).take(MAX_ENTRIES));
        }
    }
    ruleset.restrict_self()?;
    Ok(())
}

/// A rule for a file may not speak of directories.
fn rule(parent: PathFd, path: &Path, access: BitFlags<AccessFs>) -> PathBeneath<PathFd> {
    let of_files = AccessFs::from_file(LANDLOCK);
    PathBeneath::new(parent, if path.is_dir() { access } else { access & of_files })
}

/// Whether landlock confines the calling thread: every user may list `/` otherwise.
pub(super) fn is_confined_to_files() -> bool {
    std::fs::read_dir("/").is_err_and(|e| e.kind() == io::ErrorKind::PermissionDenied)
}
