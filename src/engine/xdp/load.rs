//! Loading the program, attaching it, and telling it which packets are ours: what takes privileges, and is done by the broker.
//!
//! Where a service manager keeps what a process leaves (its *predecessor's*), the next process takes it over: the program goes on
//! forwarding meanwhile. What is taken for what is not what it was kept as, but what the kernel says that it is: a program of
//! this name, the maps that this very program uses, links of it, and the *mark* that is bound to it.

mod compiled;
mod loaded;
mod mark;
mod predecessor;

use std::{
    collections::BTreeMap,
    io,
    num::NonZeroU32,
    os::fd::{AsFd as _, OwnedFd},
};

use self::{
    compiled::Compiled,
    mark::Mark,
    predecessor::{Kept, Whole},
};
use super::{layout::REGISTRY, services::ServiceMaps};
use crate::sys::{
    bpf::{self, Map},
    memfd,
};

pub use loaded::Loaded;
pub use predecessor::{KEPT, Predecessor};

/// The program at interfaces.
const FORWARD: &str = "convey";
/// All of them: the others are run by user space.
const PROGRAMS: [&str; 3] = [FORWARD, "touch", "order"];
/// Maps that nobody but the broker writes.
const SERVICES: &str = "services";
const RANGES: &str = "ranges";
/// Maps whose size depends on the configuration: DSR flows, and passthrough flows from both sides.
const FLOWS: &str = "flows";
const NAT_FLOWS: [&str; 2] = ["forwards", "reverses"];

/// What depends on the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadLimits {
    /// DSR flows that are remembered, at most.
    pub flows: NonZeroU32,
    /// Passthrough flows, at most.
    pub nat_flows: NonZeroU32,
}

/// Why the program is not loaded.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}{}", help(source))]
pub struct LoadError {
    /// What failed, such as `make the map flows`.
    pub step: String,
    /// Why.
    pub source: io::Error,
    /// What the kernel's verifier says, where it has refused the program.
    pub log: String,
}

/// Why what the predecessor left is not taken over, for the operator.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotTakenOver(String);

impl LoadLimits {
    /// Entries of a map whose size depends on the configuration.
    fn of(self, map: &str) -> Option<NonZeroU32> {
        match map {
            FLOWS => Some(self.flows),
            _ if NAT_FLOWS.contains(&map) => Some(self.nat_flows),
            _ => None,
        }
    }
}

impl LoadError {
    /// What went wrong with what the verifier says last, for the operator.
    #[must_use]
    pub fn said(&self) -> String {
        let mut last: Vec<_> = self.log.lines().rev().take(2).collect();
        last.reverse();
        match last.is_empty() {
            true => self.to_string(),
            false => format!("{self}; the kernel's verifier says: {}", last.join("; ")),
        }
    }
}

/// All that belongs together.
#[derive(Debug)]
struct Set {
    /// Maps, those that the program alone uses included where they are known, and programs, by their names.
    named: BTreeMap<String, OwnedFd>,
    mark: Map,
    registry: [OwnedFd; REGISTRY],
}

/// Loads the program of an object file with its maps. Attached nowhere, it decides nothing; and nothing is ours before
/// [`Loaded::narrow`] and [`Loaded::widen`]. Takes CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON: without the last one, Linux 6.1
/// refuses it, and what 6.18 makes of it is slower.
///
/// # Errors
/// The step that failed.
pub fn load(object: &[u8], limits: LoadLimits) -> Result<Loaded, LoadError> {
    let file = |name| memfd::shared(name).map_err(|error| step("make a file in memory", error));
    let registry = [
        file(c"convey-numbers")?,
        file(c"convey-numbers")?,
        file(c"convey-counted")?,
    ];
    let set = load_over(BTreeMap::new(), registry, object, limits)?;
    Loaded::of(set, ServiceMaps::default())
}

/// Takes over what the predecessor left: its maps as they are, and its programs, or where the object file is another one with
/// the same layout, the new ones over its maps, at every interface where the old one is. Takes what [`load`] takes.
///
/// # Errors
/// Something is missing or different. Nothing of the predecessor is left then: it is detached everywhere.
pub fn take_over(
    predecessor: Predecessor,
    object: &[u8],
    limits: LoadLimits,
) -> Result<Loaded, NotTakenOver> {
    let mut kept = predecessor.look();
    let taken = take(&mut kept, object, limits).map_err(NotTakenOver);
    // links that are not: all of them, if nothing is
    kept.detach();
    taken
}

fn take(kept: &mut Kept, object: &[u8], limits: LoadLimits) -> Result<Loaded, String> {
    let Whole { program, set, mark } = kept.whole()?;
    let ours = Mark::of(object, &set.registry).map_err(|error| error.to_string())?;
    if ours.layout != mark.layout {
        return Err("it is of a version of convey that lays its maps out in another way".to_owned());
    }
    check_limits(&set, limits)?;
    let written = loaded::read_services(&set).map_err(|error| error.to_string())?;
    let is_same = ours.object == mark.object;
    let set = if is_same {
        set
    } else {
        let Set {
            mut named, registry, ..
        } = set;
        named.retain(|name, _| !PROGRAMS.contains(&name.as_str()));
        let loaded = load_over(named, registry, object, limits);
        loaded.map_err(|error| {
            format!(
                "this version's program does not go with its maps: {}",
                error.said()
            )
        })?
    };
    let mut loaded = Loaded::of(set, written).map_err(|error| error.to_string())?;
    let links = kept.take_links(program, loaded.program());
    let is_kept = is_same && kept.together() == loaded.kept().len();
    loaded.inherit(links, kept.names(), is_kept);
    Ok(loaded)
}

/// Whether the maps have the sizes that the configuration says.
fn check_limits(set: &Set, limits: LoadLimits) -> Result<(), String> {
    for name in [FLOWS, NAT_FLOWS[0], NAT_FLOWS[1]] {
        let map = set.named.get(name).map(|map| bpf::info(map.as_fd()));
        let has = map.and_then(Result::ok).map(|info| info.max_entries);
        let wanted = limits.of(name).map(NonZeroU32::get);
        if has != wanted {
            return Err("[packet] max_flows is not what it was".to_owned());
        }
    }
    Ok(())
}

/// Loads the programs over these maps, those that are missing made.
fn load_over(
    mut maps: BTreeMap<String, OwnedFd>,
    registry: [OwnedFd; REGISTRY],
    object: &[u8],
    limits: LoadLimits,
) -> Result<Set, LoadError> {
    let compiled = Compiled::read(object)?;
    compiled.make_missing(limits, &mut maps)?;
    let mut programs = compiled.load(&maps)?;
    let marked = Mark::of(object, &registry).and_then(|mark| {
        let map = mark.create()?;
        if let Some(program) = programs.get(FORWARD) {
            bpf::bind_map(program.as_fd(), map.as_fd())?;
        }
        Ok(map)
    });
    let mark = marked.map_err(|error| step("mark the program", error))?;
    maps.append(&mut programs);
    Ok(Set {
        named: maps,
        mark,
        registry,
    })
}

fn step(step: &str, source: io::Error) -> LoadError {
    LoadError {
        step: step.to_owned(),
        source,
        log: String::new(),
    }
}

fn missing(name: &str) -> LoadError {
    let source = io::Error::new(io::ErrorKind::InvalidData, "the object file does not have it");
    step(&format!("find {name}"), source)
}

/// What an operator can do about it.
fn help(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "; it takes CAP_BPF and CAP_NET_ADMIN, and no lockdown of the kernel: start convey with systemctl or sudo"
        }
        Some(libc::ENOMEM | libc::E2BIG) => {
            "; there is no memory for it: lower [packet] max_flows, or raise the limit of the service (MemoryMax=)"
        }
        Some(libc::ENOSYS) => "; this kernel has no bpf(2) (CONFIG_BPF_SYSCALL)",
        _ => "",
    }
}
