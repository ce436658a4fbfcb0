//! How the daemon gives up every privilege, and proves that it cannot get one back.

use std::{fmt, io};

use caps::errors::CapsError;

use super::{
    Sandbox, Target, sandbox, seccomp,
    switch::{SwitchError, switch_to},
};
use crate::sys::{
    capability,
    ids::{self, Ids},
    process,
    task_status::{self, TaskStatus},
};

/// `SECCOMP_MODE_FILTER` of include/uapi/linux/seccomp.h.
const SECCOMP_MODE_FILTER: u32 = 2;

/// The step that failed. The daemon must not run.
#[derive(Debug, thiserror::Error)]
pub enum DropError {
    /// Root has to say who to become.
    #[error("started as root, but no user to switch to")]
    NoTarget,
    /// Changes of capabilities reach only the calling thread.
    #[error("privileges can only be dropped before threads start; there are {0}")]
    Threads(usize),
    /// The process cannot become another user.
    #[error("drop privileges: {0}")]
    Switch(#[from] SwitchError),
    /// A system call failed.
    #[error("drop privileges: {0}: {1}")]
    Step(&'static str, io::Error),
    /// A capability set could not be emptied.
    #[error("drop privileges: {0}: {1}")]
    Capabilities(&'static str, CapsError),
    /// There is no filter of system calls.
    #[error(
        "filter system calls (seccomp): {0}; convey does not run without: use a kernel with CONFIG_SECCOMP_FILTER, \
         and permit the call `seccomp` in a container"
    )]
    Seccomp(io::Error),
    /// Landlock is there but did not take the rules.
    #[error("confine the daemon to its files (landlock): {0}")]
    Landlock(#[from] landlock::RulesetError),
    /// The way back up is open.
    #[error("dropped all privileges, but {0} still works: refusing to run")]
    ClimbedBack(&'static str),
    /// A thread has what it must not have.
    #[error("thread {tid} still has {what}: refusing to run")]
    Unproven {
        /// The thread.
        tid: u32,
        /// What it has.
        what: String,
    },
}

/// What the kernel says of every thread: no capability, no new privileges, filtered system calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// User id of all threads.
    pub uid: u32,
    /// Group id of all threads.
    pub gid: u32,
    /// Threads looked at.
    pub threads: usize,
    /// The bounding set. Not empty only if the process was started without CAP_SETPCAP, which emptying it needs;
    /// `no_new_privs` makes what is left in it worthless.
    pub bounding: u64,
    /// Whether landlock keeps the calling thread from all files but its own. Some kernels have no landlock.
    pub landlock: bool,
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            uid,
            gid,
            threads,
            bounding,
            landlock,
        } = self;
        write!(
            f,
            "privileges dropped: uid {uid}, gid {gid}, {threads} thread(s) without capabilities, system calls filtered, "
        )?;
        f.write_str(if *landlock {
            "files confined"
        } else {
            "files not confined (no landlock in this kernel)"
        })?;
        if *bounding != 0 {
            f.write_str(
                ", bounding set not empty (to empty it takes CAP_SETPCAP; nothing in it can be had)",
            )?;
        }
        Ok(())
    }
}

/// Drops everything: becomes `target` (some user if and only if started as root), empties every capability set, sets
/// `no_new_privs`, tries to climb back, then gives up system calls and files. Must run before any thread starts.
///
/// # Errors
/// A step failed, or something that must not work does: the caller must end.
pub fn drop_privileges(target: Option<&Target>, files: &Sandbox) -> Result<Proof, DropError> {
    let emptied = give_up(target)?;
    let confined = sandbox::confine_files(files)?;
    seccomp::confine_daemon().map_err(DropError::Seccomp)?;
    let proof = prove()?;
    if confined && !proof.landlock {
        return Err(DropError::ClimbedBack("listing / despite landlock"));
    }
    if emptied && proof.bounding != 0 {
        return Err(DropError::ClimbedBack("restoring part of the bounding set"));
    }
    Ok(proof)
}

/// As [`drop_privileges`], for the runner: what it starts may call and open more, but never have more.
///
/// # Errors
/// As [`drop_privileges`].
pub fn drop_to_run(target: Option<&Target>) -> Result<(), DropError> {
    let emptied = give_up(target)?;
    seccomp::confine_commands().map_err(DropError::Seccomp)?;
    let proof = prove()?;
    if emptied && proof.bounding != 0 {
        return Err(DropError::ClimbedBack("restoring part of the bounding set"));
    }
    Ok(())
}

/// Becomes `target`, empties every capability set, sets `no_new_privs` and tries to climb back. Whether the bounding set was
/// emptied too.
fn give_up(target: Option<&Target>) -> Result<bool, DropError> {
    let step = |name| move |error| DropError::Step(name, error);
    let capabilities = |name| move |error| DropError::Capabilities(name, error);
    let threads = process::thread_count().map_err(step("count threads"))?;
    if threads != 1 {
        return Err(DropError::Threads(threads));
    }
    if ids::must_switch() && target.is_none() {
        return Err(DropError::NoTarget);
    }
    // first, while there is CAP_SETPCAP
    let emptied = capability::try_clear_bounding().map_err(capabilities("empty the bounding set"))?;
    if let Some(target) = target {
        switch_to(target, &[])?;
    }
    capability::keep_only(&[], &[]).map_err(capabilities("empty the capability sets"))?;
    process::set_no_new_privs().map_err(step("no_new_privs"))?;

    let after = ids::current().map_err(step("read the ids"))?;
    try_to_climb_back(&after)?;
    if let Some(target) = target {
        let expected = Ids {
            uids: [target.uid; 3],
            gids: [target.gid; 3],
            groups: Vec::new(),
        };
        if after != expected {
            return Err(DropError::ClimbedBack("switching back to the starting user"));
        }
    }
    Ok(emptied)
}

/// OpenSSH's habit (uidswap.c): after dropping, the way back is tried, because only the kernel knows it is shut.
fn try_to_climb_back(now: &Ids) -> Result<(), DropError> {
    let has_root_group = now.gids.contains(&0) || now.groups.contains(&0);
    let is_root = now.uids.contains(&0) && ids::is_ordinary_root();
    if !is_root && ids::set_uid(0).is_ok() {
        return Err(DropError::ClimbedBack("setresuid(0)"));
    }
    // a user whose own group is root's may "become" that group without any privilege
    if !has_root_group && ids::set_gid(0).is_ok() {
        return Err(DropError::ClimbedBack("setresgid(0)"));
    }
    if ids::set_groups(&[]).is_ok() {
        return Err(DropError::ClimbedBack("setgroups"));
    }
    if capability::try_regain_all() {
        return Err(DropError::ClimbedBack("capset"));
    }
    Ok(())
}

/// Reads the status of every thread and checks that none has a capability or can get one, or makes unfiltered calls. May be repeated at any
/// time, for instance after the threads have started.
///
/// # Errors
/// The first thread that has too much, or /proc cannot be read.
pub fn prove() -> Result<Proof, DropError> {
    let tasks = task_status::read_self().map_err(|e| DropError::Step("read /proc/self/task", e))?;
    judge(&tasks, sandbox::is_confined_to_files(), ids::is_ordinary_root())
}

fn judge(tasks: &[TaskStatus], landlock: bool, is_ordinary_root: bool) -> Result<Proof, DropError> {
    let first = tasks.first().ok_or(DropError::Threads(0))?;
    for task in tasks {
        let unproven = |what: String| Err(DropError::Unproven { tid: task.tid, what });
        if task.has_capabilities() {
            return unproven(format!(
                "capabilities (inheritable {:#x}, permitted {:#x}, effective {:#x}, ambient {:#x})",
                task.inheritable, task.permitted, task.effective, task.ambient
            ));
        }
        if task.uids != [first.uids[0]; 4] || task.gids != [first.gids[0]; 4] {
            return unproven(format!(
                "ids of its own: uid {:?}, gid {:?}",
                task.uids, task.gids
            ));
        }
        if task.uids[0] == 0 && !is_ordinary_root {
            return unproven("uid 0".into());
        }
        if !task.no_new_privs {
            return unproven("no no_new_privs flag".into());
        }
        if task.seccomp != SECCOMP_MODE_FILTER {
            return unproven("unfiltered system calls".into());
        }
    }
    Ok(Proof {
        uid: first.uids[0],
        gid: first.gids[0],
        threads: tasks.len(),
        bounding: tasks.iter().fold(0, |all, task| all | task.bounding),
        landlock,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dropped(tid: u32) -> TaskStatus {
        TaskStatus {
            tid,
            uids: [65534; 4],
            gids: [65534; 4],
            groups: Vec::new(),
            inheritable: 0,
            permitted: 0,
            effective: 0,
            bounding: 0,
            ambient: 0,
            no_new_privs: true,
            seccomp: 2,
        }
    }

    #[test]
    fn threads_without_anything_are_proof() {
        let proof = judge(&[dropped(1), dropped(2)], true, false).unwrap();
        assert_eq!(
            proof.to_string(),
            "privileges dropped: uid 65534, gid 65534, 2 thread(s) without capabilities, system calls filtered, \
             files confined"
        );
        let proof = judge(&[dropped(1)], false, false).unwrap();
        assert!(
            proof
                .to_string()
                .ends_with("files not confined (no landlock in this kernel)")
        );
    }

    #[test]
    fn what_is_left_of_the_bounding_set_is_told_in_words() {
        let task = TaskStatus {
            bounding: 0x1_ffff_ffff,
            ..dropped(1)
        };
        let text = judge(&[task], true, false).unwrap().to_string();
        assert!(
            text.ends_with("(to empty it takes CAP_SETPCAP; nothing in it can be had)"),
            "{text}"
        );
        assert!(!text.contains("0x"), "{text}");
    }

    #[test]
    fn one_thread_with_anything_spoils_the_proof() {
        let spoils: [fn(&mut TaskStatus); 9] = [
            |t| t.permitted = 1,
            |t| t.effective = 1 << 10,
            |t| t.inheritable = 1,
            |t| t.ambient = 1,
            |t| t.no_new_privs = false,
            |t| t.uids = [65534, 0, 65534, 65534],
            |t| t.uids[2] = 0,
            |t| t.gids[2] = 0,
            |t| t.seccomp = 0,
        ];
        for spoil in spoils {
            let mut second = dropped(2);
            spoil(&mut second);
            let verdict = judge(&[dropped(1), second.clone()], true, false);
            assert!(
                matches!(verdict, Err(DropError::Unproven { tid: 2, .. })),
                "{second:?}: {verdict:?}"
            );
        }
        let mut root = dropped(1);
        root.uids = [0; 4];
        assert!(judge(&[root.clone()], true, false).is_err());
        // an ordinary user outside its namespace
        assert!(judge(&[root], true, true).is_ok());
        assert!(judge(&[], true, false).is_err());
    }
}
