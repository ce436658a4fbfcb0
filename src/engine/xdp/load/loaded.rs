//! The program in the kernel: where it is attached, and which packets are ours.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use super::{
    FORWARD, LoadError, RANGES, SERVICES, Set, missing,
    predecessor::{KEPT, KeptLink},
    step,
};
use crate::{
    config::model::XdpMode,
    engine::xdp::{
        attach::{self, Attached, Interface, Refusal},
        layout::{HANDED, REGISTRY, TABLE_ELEMENTS},
        services::{Key, ServiceMaps},
    },
    sys::bpf::{self, BatchCursor, Insert, MMAPABLE, Map, MapInfo, NewMap, XdpPlace, kind},
};

/// Services that are read at once.
const BATCH: u32 = 1_024;

/// The program in the kernel, and its maps. Dropping it detaches it wherever nobody else keeps the link.
#[derive(Debug)]
pub struct Loaded {
    handed: Vec<OwnedFd>,
    forward: OwnedFd,
    services: Map,
    ranges: Map,
    mark: Map,
    registry: [OwnedFd; REGISTRY],
    written: ServiceMaps,
    attached: BTreeMap<u32, (Attached, Option<KeptLink>)>,
    /// Links of the predecessor that nobody has asked for yet, by interface.
    left: BTreeMap<u32, (XdpPlace, KeptLink)>,
    /// Names under which the service manager may have something that is of no use any more.
    stale: BTreeSet<String>,
    /// Those of them under which something else is to be kept now.
    reused: BTreeSet<String>,
    is_kept: bool,
}

impl Loaded {
    /// Of a set, whose maps say so of services.
    pub(super) fn of(set: Set, written: ServiceMaps) -> Result<Self, LoadError> {
        let Set {
            mut named,
            mark,
            registry,
        } = set;
        let mut take = |name: &str| named.remove(name).ok_or_else(|| missing(name));
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
        Ok(Self {
            handed,
            forward,
            services,
            ranges,
            mark,
            registry,
            written,
            attached: BTreeMap::new(),
            left: BTreeMap::new(),
            stale: BTreeSet::new(),
            reused: BTreeSet::new(),
            is_kept: false,
        })
    }

    /// With these links of the predecessor, by their interfaces, and names that it has kept something under. `is_kept`: see
    /// [`is_kept`](Self::is_kept).
    pub(super) fn inherit(
        &mut self,
        links: BTreeMap<u32, (XdpPlace, KeptLink)>,
        mut names: BTreeSet<String>,
        is_kept: bool,
    ) {
        names.remove(KEPT);
        self.left = links;
        self.stale = names;
        self.is_kept = is_kept;
    }

    /// The program at interfaces.
    pub(super) fn program(&self) -> BorrowedFd<'_> {
        self.forward.as_fd()
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
        let [first, second, third] = &self.registry;
        Ok([first.try_clone()?, second.try_clone()?, third.try_clone()?])
    }

    /// What is to be kept for the next process under [`KEPT`], but for links.
    #[must_use]
    pub fn kept(&self) -> Vec<BorrowedFd<'_>> {
        let maps = [&self.services, &self.ranges, &self.mark].map(AsFd::as_fd);
        let owned = self.handed.iter().chain(&self.registry).map(AsFd::as_fd);
        maps.into_iter().chain(owned).collect()
    }

    /// Whether [`kept`](Self::kept) is what is kept already, and nothing else is: it was taken over as it is.
    #[must_use]
    pub const fn is_kept(&self) -> bool {
        self.is_kept
    }

    /// The link to this interface, and the name to keep it under; `None` where there is none.
    #[must_use]
    pub fn kept_link(&self, ifindex: u32) -> Option<(String, BorrowedFd<'_>)> {
        let (_, link) = self.attached.get(&ifindex)?;
        let KeptLink { name, link } = link.as_ref()?;
        Some((name.clone(), link.as_fd()))
    }

    /// Attaches the program to an interface, unless it is, and says where; or nowhere, with the reason. Where the predecessor
    /// had it, it stays, if the mode has that place.
    pub fn attach(&mut self, to: &Interface<'_>, mode: XdpMode) -> Attached {
        if let Some((attached, Some(_))) = self.attached.get(&to.index) {
            return attached.clone();
        }
        if let Some((place, kept)) = self.left.remove(&to.index) {
            // the interface may have gone meanwhile, and another one have its index
            let is_there = bpf::link_of_xdp(kept.link.as_fd()).is_some_and(|link| link.ifindex == to.index);
            let attached = attach::as_before(to, mode, place, is_by_choice(&kept.name));
            if let Some(attached) = attached.filter(|_| is_there) {
                self.attached.insert(to.index, (attached.clone(), Some(kept)));
                return attached;
            }
            // a copy that the service manager keeps would be in the way
            _ = bpf::detach_link(kept.link.as_fd());
            self.stale.insert(kept.name);
        }
        let program = self.forward.as_fd();
        let mut name = String::new();
        let (attached, link) = attach::first_that_works(to, mode, |place| {
            name = name_of(to.index, place, mode);
            bpf::attach_xdp(program, to.index, place).map_err(Refusal)
        });
        // of an interface that has gone, and had this index
        self.reused.extend(self.stale.take(&name));
        let link = link.map(|link| KeptLink { name, link });
        self.attached.insert(to.index, (attached.clone(), link));
        attached
    }

    /// Names under which the service manager may have what is of no use any more, and is to have something else from now on.
    #[must_use]
    pub fn take_reused(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.reused)
    }

    /// Detaches the program from the interface of this index, whoever keeps the link. The name under which it is to be kept no
    /// longer.
    pub fn detach(&mut self, ifindex: u32) -> Option<String> {
        let (_, link) = self.attached.remove(&ifindex)?;
        let KeptLink { name, link } = link?;
        // it may have gone with its interface
        _ = bpf::detach_link(link.as_fd());
        Some(name)
    }

    /// Detaches the program wherever only the predecessor had it. The names under which nothing is to be kept any longer.
    #[must_use]
    pub fn settle(&mut self) -> Vec<String> {
        for (_, kept) in std::mem::take(&mut self.left).into_values() {
            _ = bpf::detach_link(kept.link.as_fd());
            self.stale.insert(kept.name);
        }
        for (_, link) in self.attached.values() {
            if let Some(link) = link {
                self.stale.remove(&link.name);
            }
        }
        std::mem::take(&mut self.stale).into_iter().collect()
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

/// What the maps of a set say of services.
pub(super) fn read_services(set: &Set) -> io::Result<ServiceMaps> {
    let map = |name| {
        let fd = set.named.get(name).ok_or(io::ErrorKind::NotFound)?;
        Map::new(fd.try_clone()?)
    };
    Ok(ServiceMaps {
        services: elements(&map(SERVICES)?)?,
        ranges: elements(&map(RANGES)?)?,
        left_out: 0,
    })
}

fn elements<const N: usize>(map: &Map) -> io::Result<BTreeMap<Key, [u8; N]>> {
    let (mut keys, mut values) = (Vec::new(), Vec::new());
    let mut cursor = BatchCursor::default();
    let mut all = BTreeMap::new();
    while !cursor.is_at_end() {
        map.lookup_batch(&mut cursor, BATCH, &mut keys, &mut values)?;
        let (keys, _) = keys.as_chunks();
        let (values, _) = values.as_chunks();
        all.extend(keys.iter().copied().zip(values.iter().copied()));
    }
    Ok(all)
}

/// The name that a link is kept under. It tells people where it is, and us whether the place was somebody's choice; the rest
/// says the kernel.
fn name_of(ifindex: u32, place: XdpPlace, mode: XdpMode) -> String {
    let place = match (place, mode) {
        (XdpPlace::Driver, _) => "driver",
        (XdpPlace::Stack, XdpMode::Generic) => CHOSEN,
        (XdpPlace::Stack, _) => "stack",
    };
    format!("{KEPT} link {ifindex} {place}")
}

/// How the name of a link ends that is not in the driver because it is not to be.
const CHOSEN: &str = "stack as configured";

fn is_by_choice(name: &str) -> bool {
    name.ends_with(CHOSEN)
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
