//! What the broker gives up of itself before it serves.

use std::io;

use caps::{Capability, errors::CapsError};

use super::{
    Target,
    switch::{SwitchError, switch_to},
};
use crate::sys::{capability, process, signals, task_status};

/// How the process shows up in `ps`.
const NAME: &str = "convey-broker";

/// What bind, packet sockets and firewall rules need. Kept whatever the configuration says at the start: a reload may add
/// the first port below 1024 or the first frontend in a packet mode.
const CAPABILITIES: &[Capability] = &[
    Capability::CAP_NET_BIND_SERVICE,
    Capability::CAP_NET_ADMIN,
    Capability::CAP_NET_RAW,
];

/// What iptables needs of them: lent to it while it runs.
const LENT: &[Capability] = &[Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW];

/// What loading the program of the XDP engine is quicker with, and the program then too: held until that is done.
const LOADING: Capability = Capability::CAP_PERFMON;

/// The step of confining the broker that failed.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// It cannot become another user.
    #[error(transparent)]
    Switch(#[from] SwitchError),
    /// A system call failed.
    #[error("{0}: {1}")]
    Step(&'static str, io::Error),
    /// A capability set could not be changed.
    #[error("{0}: {1}")]
    Capabilities(&'static str, CapsError),
    /// It has what it must not have.
    #[error("the broker still has capabilities that it dropped")]
    Unproven,
    /// Nobody is left to serve.
    #[error("the daemon is gone")]
    Orphan,
}

/// Gives up everything but the capabilities that the verbs need, those of the XDP engine among them or not, and checks that it
/// is gone. Where a user is to be become, these groups stay besides.
///
/// # Errors
/// The kernel refused a step, or something is left.
pub fn confine(target: Option<&Target>, groups: &[u32], has_xdp: bool) -> Result<(), ConfineError> {
    let step = |name| move |error| ConfineError::Step(name, error);
    let capabilities = |name| move |error| ConfineError::Capabilities(name, error);
    process::set_name(NAME).map_err(step("set the process name"))?;
    signals::ignore_termination().map_err(step("ignore signals"))?;
    std::env::set_current_dir("/").map_err(step("change to /"))?;

    let mut wanted = CAPABILITIES.to_vec();
    if has_xdp {
        wanted.extend([Capability::CAP_BPF, LOADING]);
    }
    capability::make_inheritable(LENT).map_err(capabilities("make capabilities inheritable"))?;
    capability::try_clear_bounding().map_err(capabilities("empty the bounding set"))?;
    if let Some(target) = target {
        // root can read a configuration that only root can read, so the broker must be able to on reload
        wanted.push(Capability::CAP_DAC_READ_SEARCH);
        process::set_keep_capabilities(true).map_err(step("keep capabilities"))?;
        switch_to(target, groups)?;
        process::set_keep_capabilities(false).map_err(step("stop keeping capabilities"))?;
    }
    let kept = capability::keep_only(&wanted, LENT).map_err(capabilities("drop capabilities"))?;
    process::set_no_new_privs().map_err(step("no_new_privs"))?;
    process::set_undumpable().map_err(step("forbid core dumps"))?;

    let tasks = task_status::read_self().map_err(step("read /proc/self/task"))?;
    let proven = tasks.iter().all(|task| {
        task.no_new_privs
            && task.effective == kept.held
            && task.permitted == kept.held
            && task.inheritable == kept.inheritable
            && task.ambient == 0
            && target.is_none_or(|target| task.uids == [target.uid; 4] && task.gids == [target.gid; 4])
    });
    if proven && !tasks.is_empty() {
        Ok(())
    } else {
        Err(ConfineError::Unproven)
    }
}

/// Gives up what only loading the program of the XDP engine is quicker with.
///
/// # Errors
/// The kernel refused, which it never does when capabilities are given up.
pub fn has_loaded() -> Result<(), CapsError> {
    capability::give_up(LOADING)
}
