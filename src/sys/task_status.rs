//! What the kernel says of every thread of a process: /proc/PID/task/TID/status.

use std::{fs, io, path::Path};

/// The credentials of one thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskStatus {
    /// Thread id.
    pub tid: u32,
    /// Real, effective, saved and file-system user id.
    pub uids: [u32; 4],
    /// Real, effective, saved and file-system group id.
    pub gids: [u32; 4],
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Inheritable capabilities, a bit each.
    pub inheritable: u64,
    /// Permitted capabilities.
    pub permitted: u64,
    /// Effective capabilities.
    pub effective: u64,
    /// The bounding set.
    pub bounding: u64,
    /// Ambient capabilities.
    pub ambient: u64,
    /// Whether executing a file can give it privileges no more.
    pub no_new_privs: bool,
    /// Seccomp mode: 0 none, 1 strict, 2 filter.
    pub seccomp: u32,
}

/// The line of a status file that is missing or cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no usable line `{0}:` in a thread's status")]
pub struct ParseError(pub &'static str);

impl TaskStatus {
    /// Reads the text of a status file. Pure.
    ///
    /// # Errors
    /// The first field that is missing or not a number.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let decimal = |key| single(text, key, |word| word.parse().ok());
        let mask = |key| single(text, key, |word| u64::from_str_radix(word, 16).ok());
        let four = |key| numbers(text, key)?.try_into().map_err(|_| ParseError(key));
        Ok(Self {
            tid: decimal("Pid")?,
            uids: four("Uid")?,
            gids: four("Gid")?,
            groups: numbers(text, "Groups")?,
            inheritable: mask("CapInh")?,
            permitted: mask("CapPrm")?,
            effective: mask("CapEff")?,
            bounding: mask("CapBnd")?,
            ambient: mask("CapAmb")?,
            no_new_privs: decimal("NoNewPrivs")? == 1,
            seccomp: decimal("Seccomp")?,
        })
    }

    /// Whether any capability is in any set but the bounding set.
    #[must_use]
    pub const fn has_capabilities(&self) -> bool {
        self.inheritable | self.permitted | self.effective | self.ambient != 0
    }
}

fn value<'a>(text: &'a str, key: &'static str) -> Result<&'a str, ParseError> {
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
        .map(str::trim)
        .ok_or(ParseError(key))
}

fn single<T>(text: &str, key: &'static str, parse: impl Fn(&str) -> Option<T>) -> Result<T, ParseError> {
    parse(value(text, key)?).ok_or(ParseError(key))
}

fn numbers(text: &str, key: &'static str) -> Result<Vec<u32>, ParseError> {
    value(text, key)?
        .split_ascii_whitespace()
        .map(|word| word.parse().map_err(|_| ParseError(key)))
        .collect()
}

/// The status of every thread of the calling process.
///
/// # Errors
/// /proc cannot be read or understood.
pub fn read_self() -> io::Result<Vec<TaskStatus>> {
    read_all(Path::new("/proc/self/task"))
}

/// The status of every thread of process `pid`.
///
/// # Errors
/// There is no such process, or /proc cannot be read or understood.
pub fn read_process(pid: u32) -> io::Result<Vec<TaskStatus>> {
    read_all(Path::new(&format!("/proc/{pid}/task")))
}

fn read_all(tasks: &Path) -> io::Result<Vec<TaskStatus>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(tasks)? {
        match fs::read_to_string(entry?.path().join("status")) {
            Ok(text) => all.push(TaskStatus::parse(&text).map_err(io::Error::other)?),
            // a thread that ended since the directory was read
            Err(e) if e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(libc::ESRCH) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tconvey\nTgid:\t7\nPid:\t8\nPPid:\t1\nUid:\t65534\t65534\t65534\t65534\n\
        Gid:\t65534\t65534\t65534\t65534\nGroups:\t4 27 \nCapInh:\t0000000000000000\nCapPrm:\t0000000000000400\n\
        CapEff:\t0000000000000400\nCapBnd:\t000001ffffffffff\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\n\
        Seccomp:\t2\nSeccomp_filters:\t1\n";

    #[test]
    fn a_status_file_is_understood() {
        let status = TaskStatus::parse(STATUS).unwrap();
        assert_eq!(
            (status.tid, status.uids, status.gids),
            (8, [65534; 4], [65534; 4])
        );
        assert_eq!(
            (status.groups.as_slice(), status.seccomp),
            ([4, 27].as_slice(), 2)
        );
        assert_eq!((status.permitted, status.bounding), (1 << 10, (1 << 41) - 1));
        assert!(status.no_new_privs && status.has_capabilities());
    }

    #[test]
    fn nothing_is_taken_for_granted_when_a_line_is_missing_or_odd() {
        let without = STATUS.replace("CapAmb", "CapXyz");
        assert_eq!(TaskStatus::parse(&without), Err(ParseError("CapAmb")));
        let odd = STATUS.replace("Uid:\t65534", "Uid:\t-1");
        assert_eq!(TaskStatus::parse(&odd), Err(ParseError("Uid")));
        let three = STATUS.replace("Gid:\t65534\t", "Gid:\t");
        assert_eq!(TaskStatus::parse(&three), Err(ParseError("Gid")));
    }

    #[test]
    fn every_thread_of_this_process_is_listed() {
        let (stop, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || wait.recv());
        let all = read_self().unwrap();
        assert!(all.len() >= 2 && all.iter().any(|task| task.tid == std::process::id()));
        drop(stop);
        assert!(thread.join().unwrap().is_err());
    }
}
