//! Maglev tables in the kernel: filled aside through memory, and put in the place of others at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
};

use super::{
    contents::{Difference, Table},
    layout::EndpointKey,
    write::{delete_all, put_all},
};
use crate::sys::bpf::{Map, MappedTable};

/// Makes so many arrays for tables, of which it may give fewer.
pub type TableMaker = Box<dyn Fn(usize) -> io::Result<Vec<OwnedFd>> + Send>;

/// Tables that are made by one call.
const MADE_AT_ONCE: usize = 16;

/// Tables that are replaced at once, and kept to be filled again: 130 KB each.
const SPARE: usize = 64;

/// An array of a table.
#[derive(Debug)]
struct Array {
    map: Map,
    memory: MappedTable,
}

/// See the [module](self).
pub struct Tables {
    in_use: BTreeMap<EndpointKey, Array>,
    /// What those hold.
    hold: BTreeMap<EndpointKey, Table>,
    spare: Vec<Array>,
    /// Those that another engine has put there.
    foreign: BTreeSet<EndpointKey>,
    make: TableMaker,
}

impl fmt::Debug for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (in_use, spare) = (self.in_use.len(), self.spare.len());
        f.debug_struct("Tables")
            .field("in_use", &in_use)
            .field("spare", &spare)
            .finish_non_exhaustive()
    }
}

impl Tables {
    /// None yet.
    #[must_use]
    pub fn new(make: TableMaker) -> Self {
        Self {
            in_use: BTreeMap::new(),
            hold: BTreeMap::new(),
            spare: Vec::new(),
            foreign: BTreeSet::new(),
            make,
        }
    }

    /// The map has tables of another engine: each is in use until there is one of ours, or none any more.
    pub fn take_over(&mut self, foreign: BTreeSet<EndpointKey>) {
        self.foreign = foreign;
    }

    /// Has a map of tables hold exactly these.
    ///
    /// # Errors
    /// An array could not be made, or the kernel refused: those that were written are in force.
    pub fn apply(&mut self, map: &Map, wanted: &BTreeMap<EndpointKey, Table>) -> io::Result<()> {
        let Difference { put, .. } = Difference::between(&self.hold, wanted);
        let there = self.in_use.keys().chain(&self.foreign);
        let gone: BTreeSet<_> = there.filter(|key| !wanted.contains_key(*key)).copied().collect();
        delete_all(map, gone.iter().map(EndpointKey::to_bytes))?;
        for key in gone {
            self.foreign.remove(&key);
            self.hold.remove(&key);
            self.spare.extend(self.in_use.remove(&key));
        }
        for some in put.chunks(SPARE) {
            self.replace(map, some)?;
        }
        self.spare.truncate(SPARE);
        Ok(())
    }

    fn replace(&mut self, map: &Map, wanted: &[(&EndpointKey, &Table)]) -> io::Result<()> {
        self.make_spare(wanted.len())?;
        let filled: Vec<_> = (wanted.iter())
            .zip(self.spare.drain(..wanted.len().min(self.spare.len())))
            .map(|((key, table), mut array)| {
                array.memory.fill(table.elements());
                (**key, *table, array)
            })
            .collect();
        let elements = filled.iter().map(|(key, _, array)| {
            // descriptors are not negative
            (key.to_bytes(), array.map.as_fd().as_raw_fd().to_ne_bytes())
        });
        let written = put_all(map, elements);
        for (key, table, array) in filled {
            let before = self.in_use.insert(key, array);
            if written.is_ok() {
                self.foreign.remove(&key);
                self.hold.insert(key, table.clone());
                // nothing reads it any more: the kernel has waited for that
                self.spare.extend(before);
            } else {
                // which of them were written is not known: the next time all are, and none of these is filled again
                self.hold.remove(&key);
            }
        }
        written
    }

    fn make_spare(&mut self, count: usize) -> io::Result<()> {
        while self.spare.len() < count {
            let missing = (count - self.spare.len()).min(MADE_AT_ONCE);
            let made = (self.make)(missing)?;
            if made.is_empty() {
                return Err(io::Error::other("no table was made"));
            }
            for fd in made {
                let map = Map::new(fd)?;
                let memory = MappedTable::new(&map)?;
                self.spare.push(Array { map, memory });
            }
        }
        Ok(())
    }
}
