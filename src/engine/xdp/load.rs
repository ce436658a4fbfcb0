//! Loading the program, attaching it, and telling it which packets are ours: what takes privileges, and is done by the broker.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    num::NonZeroU32,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use aya::{
    EbpfError, EbpfLoader,
    maps::{Map as LoadedMap, MapError},
    programs::{ProgramError, Xdp},
};

use super::{
    attach::{self, Attached, Interface, Refusal},
    layout::{HANDED, REGISTRY, TABLE_ELEMENTS},
    services::{Key, ServiceMaps},
};
use crate::{
    base::XdpAttachMode,
    config::model::XdpMode,
    sys::{
        bpf::{self, Insert, MMAPABLE, Map, MapInfo, NewMap, XdpPlace, kind},
        memfd,
    },
};

/// How every name begins under which the service manager keeps descriptors for the next process.
pub const KEPT: &str = "xdp";

/// The program at interfaces.
const FORWARD: &str = "convey";
/// Those that user space runs.
const TOUCH: &str = "touch";
const ORDER: &str = "order";
/// Maps that nobody but the broker writes.
const SERVICES: &str = "services";
const RANGES: &str = "ranges";

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

/// What the service manager has kept of the process before: descriptors by their names, whatever they are.
#[derive(Debug, Default)]
pub struct Predecessor(Vec<(String, OwnedFd)>);

impl Predecessor {
    /// Of what was kept under names that begin with [`KEPT`].
    #[must_use]
    pub const fn of(kept: Vec<(String, OwnedFd)>) -> Self {
        Self(kept)
    }

    /// Whether nothing was.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names under which something was kept.
    #[must_use]
    pub fn names(&self) -> BTreeSet<String> {
        self.0.iter().map(|(name, _)| name.clone()).collect()
    }
}

/// The program in the kernel, and its maps. Dropping it detaches it everywhere.
#[derive(Debug)]
pub struct Loaded {
    handed: Vec<OwnedFd>,
    forward: OwnedFd,
    services: Map,
    ranges: Map,
    written: ServiceMaps,
    attached: BTreeMap<u32, (Attached, Option<OwnedFd>)>,
    registry: [OwnedFd; REGISTRY],
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
    let (_, _) = (object, limits);
    drop(predecessor);
    Err(NotTakenOver("this version takes nothing over".to_owned()))
}

/// Loads the program of an object file with its maps. Attached nowhere, it decides nothing; and nothing is ours before
/// [`Loaded::narrow`] and [`Loaded::widen`]. Takes CAP_BPF and CAP_NET_ADMIN; with CAP_PERFMON what comes out is quicker.
///
/// # Errors
/// The step that failed.
pub fn load(object: &[u8], limits: LoadLimits) -> Result<Loaded, LoadError> {
    let mut loaded = EbpfLoader::new()
        // the program asks nothing of the kernel's own types
        .btf(None)
        .map_max_entries("flows", limits.flows.get())
        .map_max_entries("forwards", limits.nat_flows.get())
        .map_max_entries("reverses", limits.nat_flows.get())
        .load(object)
        .map_err(of_object)?;
    let mut found = BTreeMap::new();
    for (name, map) in loaded.maps() {
        let fd = descriptor(map).ok_or_else(|| missing(name))?;
        let fd = fd
            .try_clone_to_owned()
            .map_err(|error| step("keep a map", error))?;
        found.insert(name.to_owned(), fd);
    }
    for name in [FORWARD, TOUCH, ORDER] {
        let program = loaded.program_mut(name).ok_or_else(|| missing(name))?;
        let program: &mut Xdp = program.try_into().map_err(|error| of_program(name, error))?;
        program.load().map_err(|error| of_program(name, error))?;
        let fd = program.fd().map_err(|error| of_program(name, error))?;
        let fd = fd.as_fd().try_clone_to_owned();
        found.insert(
            name.to_owned(),
            fd.map_err(|error| step("keep a program", error))?,
        );
    }
    Loaded::of(found)
}

impl Loaded {
    fn of(mut found: BTreeMap<String, OwnedFd>) -> Result<Self, LoadError> {
        let mut take = |name: &str| found.remove(name).ok_or_else(|| missing(name));
        let map = |fd| Map::new(fd).map_err(|error| step("look at a map", error));
        let services = map(take(SERVICES)?)?;
        let ranges = map(take(RANGES)?)?;
        let handed = HANDED
            .iter()
            .map(|name| take(name))
            .collect::<Result<Vec<_>, _>>()?;
        let at = HANDED.iter().position(|name| *name == FORWARD);
        let forward = at.and_then(|at| handed.get(at)).ok_or_else(|| missing(FORWARD))?;
        let forward = forward
            .try_clone()
            .map_err(|error| step("keep a program", error))?;
        let file = |name| memfd::empty(name).map_err(|error| step("make a file in memory", error));
        Ok(Self {
            registry: [
                file(c"convey-numbers")?,
                file(c"convey-numbers")?,
                file(c"convey-counted")?,
            ],
            handed,
            forward,
            services,
            ranges,
            written: ServiceMaps::default(),
            attached: BTreeMap::new(),
        })
    }

    /// Copies of what the daemon is handed, in the order of [`HANDED`].
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn hand_out(&self) -> io::Result<Vec<OwnedFd>> {
        self.handed.iter().map(OwnedFd::try_clone).collect()
    }

    /// Copies of the registry's files, in their order.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn hand_out_registry(&self) -> io::Result<[OwnedFd; REGISTRY]> {
        let [first, second, counted] = &self.registry;
        Ok([first.try_clone()?, second.try_clone()?, counted.try_clone()?])
    }

    /// What is to be kept for the next process under [`KEPT`], but for links.
    #[must_use]
    pub fn kept(&self) -> Vec<BorrowedFd<'_>> {
        let maps = [self.services.as_fd(), self.ranges.as_fd()];
        let owned = self.handed.iter().chain(&self.registry).map(AsFd::as_fd);
        maps.into_iter().chain(owned).collect()
    }

    /// Whether all that [`kept`](Self::kept) gives is kept already, since it was taken over as it is.
    #[must_use]
    pub const fn is_kept(&self) -> bool {
        false
    }

    /// The link to this interface, and the name to keep it under; `None` where there is none.
    #[must_use]
    pub fn kept_link(&self, ifindex: u32) -> Option<(String, BorrowedFd<'_>)> {
        let (attached, link) = self.attached.get(&ifindex)?;
        let place = match attached.mode {
            XdpAttachMode::Native => "driver",
            XdpAttachMode::Generic | XdpAttachMode::None => "stack",
        };
        Some((format!("{KEPT} link {ifindex} {place}"), link.as_ref()?.as_fd()))
    }

    /// Attaches the program to an interface, unless it is, and says where; or nowhere, with the reason.
    pub fn attach(&mut self, to: &Interface<'_>, mode: XdpMode) -> Attached {
        if let Some((attached, Some(_))) = self.attached.get(&to.index) {
            return attached.clone();
        }
        let program = self.forward.as_fd();
        let (attached, link) = attach::first_that_works(to, mode, |place| try_at(program, to.index, place));
        self.attached.insert(to.index, (attached.clone(), link));
        attached
    }

    /// Detaches the program from the interface of this index. The name under which its link is to be kept no longer.
    pub fn detach(&mut self, ifindex: u32) -> Option<String> {
        let name = self.kept_link(ifindex).map(|(name, _)| name);
        self.attached.remove(&ifindex);
        name
    }

    /// Detaches the program wherever only the predecessor had it. The names under which nothing is to be kept any longer.
    pub fn settle(&mut self) -> Vec<String> {
        Vec::new()
    }

    /// Makes tables for the services' servers, all zero.
    ///
    /// # Errors
    /// There is no memory, or no descriptor left.
    pub fn make_tables(&self, count: u8) -> io::Result<Vec<OwnedFd>> {
        let table = NewMap {
            name: "table",
            info: MapInfo {
                kind: kind::ARRAY,
                key_size: 4,
                value_size: 8,
                max_entries: TABLE_ELEMENTS as u32,
                flags: MMAPABLE,
            },
        };
        (0..count).map(|_| table.create()).collect()
    }

    /// Takes out of the maps what is not, or not so, to be there.
    ///
    /// # Errors
    /// The kernel refused. What has been taken out until then is out.
    pub fn narrow(&mut self, wanted: &ServiceMaps) -> io::Result<()> {
        take_out(&self.services, &mut self.written.services, &wanted.services)?;
        take_out(&self.ranges, &mut self.written.ranges, &wanted.ranges)
    }

    /// Puts into the maps what is missing, after [`narrow`](Self::narrow).
    ///
    /// # Errors
    /// The kernel refused. What has been put in until then is in.
    pub fn widen(&mut self, wanted: &ServiceMaps) -> io::Result<()> {
        put_in(&self.services, &mut self.written.services, &wanted.services)?;
        put_in(&self.ranges, &mut self.written.ranges, &wanted.ranges)
    }
}

fn try_at(program: BorrowedFd<'_>, ifindex: u32, place: XdpPlace) -> Result<OwnedFd, Refusal> {
    bpf::attach_xdp(program, ifindex, place).map_err(Refusal)
}

fn take_out<const N: usize>(
    map: &Map,
    written: &mut BTreeMap<Key, [u8; N]>,
    wanted: &BTreeMap<Key, [u8; N]>,
) -> io::Result<()> {
    let stale: Vec<Key> = (written.iter())
        .filter(|(key, value)| wanted.get(*key) != Some(*value))
        .map(|(key, _)| *key)
        .collect();
    for key in stale {
        map.delete(&key)?;
        written.remove(&key);
    }
    Ok(())
}

fn put_in<const N: usize>(
    map: &Map,
    written: &mut BTreeMap<Key, [u8; N]>,
    wanted: &BTreeMap<Key, [u8; N]>,
) -> io::Result<()> {
    for (key, value) in wanted {
        if written.get(key) != Some(value) {
            map.update(key, value, Insert::Any)?;
            written.insert(*key, *value);
        }
    }
    Ok(())
}

/// The descriptor of a map of one of the kinds that the program has.
fn descriptor(map: &LoadedMap) -> Option<BorrowedFd<'_>> {
    match map {
        LoadedMap::Array(map)
        | LoadedMap::PerCpuArray(map)
        | LoadedMap::HashMap(map)
        | LoadedMap::LruHashMap(map)
        | LoadedMap::HashOfMaps(map)
        | LoadedMap::DevMapHash(map) => Some(map.fd().as_fd()),
        _ => None,
    }
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

/// Why the object file and its maps are not there.
fn of_object(error: EbpfError) -> LoadError {
    match error {
        EbpfError::MapError(MapError::CreateError { name, io_error }) => {
            step(&format!("make the map {name}"), io_error)
        }
        other => step("read the object file of the XDP program", io::Error::other(other)),
    }
}

/// Why a program is not there.
fn of_program(name: &str, error: ProgramError) -> LoadError {
    match error {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => LoadError {
            step: format!("load the program {name}"),
            source: io_error,
            log: verifier_log.to_string(),
        },
        other => step(&format!("load the program {name}"), io::Error::other(other)),
    }
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
