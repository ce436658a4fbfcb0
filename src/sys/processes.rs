//! The processes that this one may see, and how those that it has started are limited and ended.

use std::{collections::BTreeSet, fs, io, iter, thread, time::Duration};

use nix::{
    errno::Errno,
    sys::{
        prctl,
        resource::{Resource, getrlimit, setrlimit},
        signal::{Signal, kill, killpg},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, getpid, getuid},
};

/// How often is looked for processes that came while others were stopped: one that forks without end can only do so as long
/// as it is not stopped itself.
const FREEZES: usize = 50;

/// How often is looked for what is left after all have been killed, with a pause of [`PAUSE`].
const ROUNDS: usize = 1_000;

/// Generations of processes that are looked at, at most.
const MAX_GENERATIONS: usize = 1_024;

const PAUSE: Duration = Duration::from_millis(2);

/// A process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    id: i32,
    parent: i32,
    /// The user that it belongs to.
    uid: u32,
    threads: u64,
    /// It has ended, and its parent has not looked yet.
    is_zombie: bool,
}

/// What a process and all that it starts may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Seconds of CPU of each process.
    pub cpu_seconds: u64,
    /// Bytes of memory of each process that are not shared (RLIMIT_DATA).
    pub memory: u64,
    /// Open descriptors of each process.
    pub open_files: u64,
    /// Processes and threads beside those that its user has now.
    pub more_processes: u64,
}

/// Has the calling process become the parent of those that its descendants leave behind, so that all that it starts stays
/// below it, setsid or not.
///
/// # Errors
/// The kernel refused, which it never does.
pub fn adopt_orphans() -> io::Result<()> {
    prctl::set_child_subreaper(true).map_err(Into::into)
}

/// Limits the calling process and what it starts. What is limited further already stays so.
///
/// # Errors
/// /proc cannot be read, or the kernel refused.
pub fn limit(limits: Limits) -> io::Result<()> {
    let uid = getuid().as_raw();
    let now: u64 = (all()?.iter())
        .filter(|process| process.uid == uid)
        .map(|process| process.threads)
        .sum();
    // the second more is between SIGXCPU, which may be caught, and SIGKILL
    for (resource, soft, hard) in [
        (Resource::RLIMIT_CPU, limits.cpu_seconds, limits.cpu_seconds + 1),
        (Resource::RLIMIT_DATA, limits.memory, limits.memory),
        (Resource::RLIMIT_NOFILE, limits.open_files, limits.open_files),
        (
            Resource::RLIMIT_NPROC,
            now + limits.more_processes,
            now + limits.more_processes,
        ),
        (Resource::RLIMIT_CORE, 0, 0),
    ] {
        let (_, most) = getrlimit(resource)?;
        setrlimit(resource, soft.min(most), hard.min(most))?;
    }
    Ok(())
}

/// Asks the group of processes of a child to end.
pub fn ask_to_end(group: u32) {
    if let Ok(group) = i32::try_from(group) {
        // it may have ended by itself
        let _ = killpg(Pid::from_raw(group), Signal::SIGTERM);
    }
}

/// Ends all that the calling process has started and is still there, and takes leave of it. Needs [`adopt_orphans`]. False
/// if something could not be ended: it waits in the kernel for a disk that does not answer.
#[must_use]
pub fn end_descendants() -> bool {
    let mut stopped = BTreeSet::new();
    for _ in 0..FREEZES {
        let new: Vec<i32> = (descendants().into_iter())
            .filter(|id| !stopped.contains(id))
            .collect();
        if new.is_empty() {
            break;
        }
        for id in new {
            let _ = kill(Pid::from_raw(id), Signal::SIGSTOP);
            stopped.insert(id);
        }
    }
    for _ in 0..ROUNDS {
        for id in descendants() {
            let _ = kill(Pid::from_raw(id), Signal::SIGKILL);
        }
        if reap_all() {
            return true;
        }
        thread::sleep(PAUSE);
    }
    false
}

/// Ends one child at once, and takes leave of it.
pub fn end_child(id: u32) {
    if let Ok(raw) = i32::try_from(id) {
        let _ = kill(Pid::from_raw(raw), Signal::SIGKILL);
    }
    wait_for(id);
}

/// Waits for the end of a child: its exit status; `None` if it was ended by a signal, or is none.
pub fn wait_for(id: u32) -> Option<i32> {
    let id = i32::try_from(id).ok()?;
    loop {
        match waitpid(Pid::from_raw(id), None) {
            Ok(WaitStatus::Exited(_, status)) => return Some(status),
            Err(Errno::EINTR) => {}
            Ok(_) | Err(_) => return None,
        }
    }
}

/// Takes leave of the children that have ended. Whether none is left.
fn reap_all() -> bool {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => return false,
            Err(Errno::EINTR) | Ok(_) => {}
            Err(_) => return true,
        }
    }
}

/// The children of the calling process, ended or not.
#[must_use]
pub fn children() -> Vec<u32> {
    let us = getpid().as_raw();
    let all = all().unwrap_or_default();
    (all.iter())
        .filter(|process| process.parent == us)
        .map(|process| process.id.unsigned_abs())
        .collect()
}

/// Whether a process was started by the calling one, or by one that it has started.
#[must_use]
pub fn is_descendant(id: u32) -> bool {
    let us = getpid().as_raw();
    let parent = |id: i32| read(id).map(|process| process.parent);
    let first = i32::try_from(id).ok();
    iter::successors(first, |id| parent(*id))
        .skip(1)
        .take(MAX_GENERATIONS)
        .any(|id| id == us)
}

/// All that the calling process has started, and what that has started, as far as it has not ended.
fn descendants() -> Vec<i32> {
    let all = all().unwrap_or_default();
    let alive = |id: &i32| all.iter().any(|process| process.id == *id && !process.is_zombie);
    let mut found: BTreeSet<i32> = (below(getpid().as_raw(), &all).into_iter())
        .filter(alive)
        .collect();
    // where /proc hides what may not be traced (hidepid), it still names the children
    let hidden = fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    found.extend(hidden.split_whitespace().filter_map(|id| id.parse::<i32>().ok()));
    found.into_iter().collect()
}

/// The processes below one.
fn below(root: i32, all: &[Process]) -> BTreeSet<i32> {
    let mut found = BTreeSet::from([root]);
    loop {
        let before = found.len();
        let more = all.iter().filter(|process| found.contains(&process.parent));
        let more: Vec<i32> = more.map(|process| process.id).collect();
        found.extend(more);
        if found.len() == before {
            found.remove(&root);
            return found;
        }
    }
}

fn all() -> io::Result<Vec<Process>> {
    let entries = fs::read_dir("/proc")?;
    let ids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_string_lossy().parse().ok());
    // one that has ended meanwhile is none
    Ok(ids.filter_map(|id: i32| read(id)).collect())
}

fn read(id: i32) -> Option<Process> {
    parse(
        id,
        &String::from_utf8_lossy(&fs::read(format!("/proc/{id}/status")).ok()?),
    )
}

/// What /proc/PID/status says (proc_pid_status(5)). Not its owner: of a process that may not be traced, that is root.
fn parse(id: i32, status: &str) -> Option<Process> {
    let field = |name: &str| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|values| values.split_whitespace().next())
    };
    Some(Process {
        id,
        parent: field("PPid")?.parse().ok()?,
        uid: field("Uid")?.parse().ok()?,
        threads: field("Threads")?.parse().ok()?,
        is_zombie: matches!(field("State")?, "Z" | "X"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name_is() {
        let status = |state: &str| {
            format!("Name:\tPPid: 3\\n\nState:\t{state} (x)\nPPid:\t41\nUid:\t5\t5\t5\t5\nThreads:\t3\n")
        };
        let process = parse(77, &status("S")).unwrap();
        assert_eq!(
            (process.parent, process.uid, process.threads, process.is_zombie),
            (41, 5, 3, false)
        );
        assert!(parse(77, &status("Z")).unwrap().is_zombie);
        for garbage in ["", "PPid:", "PPid:\tx\nUid:\t1\nThreads:\t1\nState:\tS", "PPid 1"] {
            assert_eq!(parse(77, garbage), None, "{garbage}");
        }
    }

    #[test]
    fn what_descends_from_a_process_is_found_through_all_generations() {
        let process = |id, parent| Process {
            id,
            parent,
            uid: 0,
            threads: 1,
            is_zombie: false,
        };
        let all = [
            process(5, 4),
            process(4, 2),
            process(2, 1),
            process(3, 1),
            process(9, 7),
        ];
        assert_eq!(below(2, &all), [4, 5].into());
        assert_eq!(below(1, &all), [2, 3, 4, 5].into());
        assert_eq!(below(9, &all), [].into());
        // a picture that changed while it was read
        assert_eq!(below(6, &[process(6, 7), process(7, 6)]), [7].into());
    }

    #[test]
    fn this_process_and_its_children_are_seen() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        assert!(children().contains(&child.id()));
        assert!(is_descendant(child.id()));
        assert!(!is_descendant(1) && !is_descendant(std::process::id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!is_descendant(child.id()));
    }
}
