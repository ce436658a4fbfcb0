//! What the process before has left with the service manager, looked at.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use super::{
    FORWARD, PROGRAMS, RANGES, SERVICES, Set,
    mark::{MARK, Mark, file_identity},
};
use crate::{
    engine::xdp::layout::HANDED,
    sys::bpf::{
        self, LinkIdentity, Map, MapIdentity, ProgramIdentity, XdpPlace, link_of_xdp, map_identity,
        program_identity,
    },
};

/// How every name begins under which the service manager keeps descriptors for the next process; all that belongs together has
/// this name.
pub const KEPT: &str = "xdp";

/// What the service manager has kept of the process before: descriptors by their names, whatever they are. Dropping it detaches
/// nothing that the service manager still keeps.
#[derive(Debug, Default)]
pub struct Predecessor(Vec<(String, OwnedFd)>);

/// The same, by what it is.
#[derive(Debug, Default)]
pub struct Kept {
    maps: Vec<(MapIdentity, OwnedFd)>,
    programs: Vec<(ProgramIdentity, OwnedFd)>,
    links: Vec<(LinkIdentity, KeptLink)>,
    /// All else. A link that is none is among the links.
    others: Vec<OwnedFd>,
    names: BTreeSet<String>,
    /// Descriptors that have the name [`KEPT`].
    together: usize,
}

/// All that belongs to a program, which is whole.
pub struct Whole {
    /// Number of the program.
    pub program: u32,
    pub set: Set,
    pub mark: Mark,
}

/// A link of the program.
#[derive(Debug)]
pub struct KeptLink {
    /// The name under which it is kept.
    pub name: String,
    pub link: OwnedFd,
}

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

    /// Detaches its program everywhere. The names under which nothing is to be kept any longer.
    #[must_use]
    pub fn end(self) -> Vec<String> {
        let mut kept = self.look();
        kept.detach();
        kept.names.into_iter().collect()
    }

    /// Asks the kernel what all of it is.
    pub(super) fn look(self) -> Kept {
        let mut kept = Kept::default();
        for (name, fd) in self.0 {
            kept.together += usize::from(name == KEPT);
            kept.names.insert(name.clone());
            let borrowed = fd.as_fd();
            if let Some(map) = map_identity(borrowed) {
                kept.maps.push((map, fd));
            } else if let Some(program) = program_identity(borrowed) {
                kept.programs.push((program, fd));
            } else if let Some(link) = link_of_xdp(borrowed) {
                kept.links.push((link, KeptLink { name, link: fd }));
            } else {
                kept.others.push(fd);
            }
        }
        // what was made last comes first
        kept.programs
            .sort_by_key(|(program, _)| std::cmp::Reverse(program.id));
        kept
    }
}

impl Kept {
    /// The program with all that belongs to it: of several, the one that was loaded last and has it all.
    pub fn whole(&self) -> Result<Whole, String> {
        let mut why = "the program is not among what was kept".to_owned();
        let programs = self
            .programs
            .iter()
            .filter(|(program, _)| program.name == FORWARD);
        for (at, (program, fd)) in programs.enumerate() {
            match self.set_of(program, fd) {
                Ok((set, mark)) => {
                    let program = program.id;
                    return Ok(Whole { program, set, mark });
                }
                Err(missing) if at == 0 => why = missing,
                Err(_) => {}
            }
        }
        Err(why)
    }

    /// The links of the program with this number that are attached here, each with its interface's index and where. Their
    /// program is this one from now on.
    pub fn take_links(&mut self, program: u32, now: BorrowedFd<'_>) -> BTreeMap<u32, (XdpPlace, KeptLink)> {
        let mut taken = BTreeMap::new();
        let mut ids = BTreeSet::new();
        let (ours, others) = std::mem::take(&mut self.links)
            .into_iter()
            .partition::<Vec<_>, _>(|(link, _)| link.program == program && link.ifindex != 0);
        self.links = others;
        for (identity, kept) in ours {
            // the same one again, which is closed
            if ids.contains(&identity.id) {
                continue;
            }
            // not by an interface of another network namespace, to which it has been moved
            let place = bpf::place_of(program, identity.ifindex).ok().flatten();
            match place.filter(|_| bpf::update_link(kept.link.as_fd(), now).is_ok()) {
                Some(place) => {
                    ids.insert(identity.id);
                    taken.insert(identity.ifindex, (place, kept));
                }
                None => self.links.push((identity, kept)),
            }
        }
        self.links.retain(|(link, _)| !ids.contains(&link.id));
        taken
    }

    /// Detaches the links that are left. One that is none stays what it is.
    pub fn detach(&mut self) {
        for (_, kept) in self.links.drain(..) {
            // it may have gone with its interface
            _ = bpf::detach_link(kept.link.as_fd());
        }
    }

    /// The names under which something was kept.
    pub fn names(&self) -> BTreeSet<String> {
        self.names.clone()
    }

    /// Descriptors that were kept together.
    pub const fn together(&self) -> usize {
        self.together
    }

    fn set_of(&self, program: &ProgramIdentity, fd: &OwnedFd) -> Result<(Set, Mark), String> {
        let mut named = BTreeMap::new();
        let maps = HANDED.iter().filter(|name| !PROGRAMS.contains(name));
        for name in maps.chain(&[SERVICES, RANGES]) {
            named.insert((*name).to_owned(), copy(self.map_of(program, name)?)?);
        }
        for name in PROGRAMS {
            let fd = match name {
                FORWARD => fd,
                _ => self.helper_of(program, name)?,
            };
            named.insert(name.to_owned(), copy(fd)?);
        }
        let unmarked = || "it has no mark".to_owned();
        let map = Map::new(copy(self.map_of(program, MARK)?)?).map_err(|_| unmarked())?;
        let mark = Mark::read(&map).ok_or_else(unmarked)?;
        let [first, second, third] = &mark.files;
        let registry = [self.file(first)?, self.file(second)?, self.file(third)?];
        let set = Set {
            named,
            mark: map,
            registry,
        };
        Ok((set, mark))
    }

    /// The map of this name that a program uses.
    fn map_of(&self, program: &ProgramIdentity, name: &str) -> Result<&OwnedFd, String> {
        let mut maps = self.maps.iter();
        let found = maps.find(|(map, _)| map.name == name && program.maps.contains(&map.id));
        let found = found.map(|(_, fd)| fd);
        found.ok_or_else(|| format!("the map {name} of the program is not among what was kept"))
    }

    /// The program of this name that uses no map that the other one does not.
    fn helper_of(&self, program: &ProgramIdentity, name: &str) -> Result<&OwnedFd, String> {
        let found = self.programs.iter().find(|(helper, _)| {
            helper.name == name && helper.maps.iter().all(|map| program.maps.contains(map))
        });
        let found = found.map(|(_, fd)| fd);
        found.ok_or_else(|| format!("the program {name} is not among what was kept"))
    }

    fn file(&self, identity: &[u8; 16]) -> Result<OwnedFd, String> {
        let mut others = self.others.iter();
        let found = others.find(|other| file_identity(other.as_fd()).is_ok_and(|found| found == *identity));
        let missing = || "a file of the registry is not among what was kept".to_owned();
        copy(found.ok_or_else(missing)?)
    }
}

fn copy(fd: &OwnedFd) -> Result<OwnedFd, String> {
    fd.try_clone().map_err(|error: io::Error| error.to_string())
}
