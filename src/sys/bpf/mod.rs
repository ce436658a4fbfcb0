//! What bpf(2) does with maps and programs that are there already: elements of maps, one or many at a time, test runs of a
//! program, tables and counters that are reached through memory: none of that needs a capability, who holds the descriptor may. Making
//! maps and attaching programs does.
//!
//! Structs are those of `union bpf_attr` in include/uapi/linux/bpf.h, as short as Linux 6.1 takes them.

mod attributes;
mod identity;
mod link;
mod program;
mod run;
mod table;

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use nix::errno::Errno;

use self::attributes::{
    Batch, Command, CreateMap, Element, Info, OneFd, RawMapInfo, address, address_mut, bpf, number_of,
};

pub use identity::{LinkIdentity, MapIdentity, ProgramIdentity, link_of_xdp, map_identity, program_identity};
pub use link::{XdpPlace, attach_xdp, detach_link, place_of, update_link};
pub use program::{NewProgram, Rejected, bind_map, load_types};
pub use run::{ProgramInfo, TestContext, TestRun, program_info, test_run};
pub use table::{MappedCounters, MappedTable};

/// The least that the kernel writes of a batch's place, in bytes: the number of a bucket.
const LEAST_PLACE: usize = 8;
/// Elements of the largest bucket that a batch makes room for.
const MAX_BATCH: u32 = 1 << 20;

/// Kinds of maps (`enum bpf_map_type`) that something here depends on.
pub mod kind {
    /// `BPF_MAP_TYPE_HASH`.
    pub const HASH: u32 = 1;
    /// `BPF_MAP_TYPE_ARRAY`.
    pub const ARRAY: u32 = 2;
    /// `BPF_MAP_TYPE_PROG_ARRAY`: its elements are descriptors.
    pub const PROG_ARRAY: u32 = 3;
    /// `BPF_MAP_TYPE_PERF_EVENT_ARRAY`: its elements are descriptors.
    pub const PERF_EVENT_ARRAY: u32 = 4;
    /// `BPF_MAP_TYPE_PERCPU_HASH`.
    pub const PERCPU_HASH: u32 = 5;
    /// `BPF_MAP_TYPE_PERCPU_ARRAY`.
    pub const PERCPU_ARRAY: u32 = 6;
    /// `BPF_MAP_TYPE_CGROUP_ARRAY`: its elements are descriptors.
    pub const CGROUP_ARRAY: u32 = 8;
    /// `BPF_MAP_TYPE_LRU_HASH`.
    pub const LRU_HASH: u32 = 9;
    /// `BPF_MAP_TYPE_LRU_PERCPU_HASH`.
    pub const LRU_PERCPU_HASH: u32 = 10;
    /// `BPF_MAP_TYPE_ARRAY_OF_MAPS`: its elements are descriptors.
    pub const ARRAY_OF_MAPS: u32 = 12;
    /// `BPF_MAP_TYPE_HASH_OF_MAPS`: its elements are descriptors.
    pub const HASH_OF_MAPS: u32 = 13;
    /// `BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE`.
    pub const PERCPU_CGROUP_STORAGE: u32 = 21;
}

/// `BPF_F_MMAPABLE`: an array that can be written through memory.
pub const MMAPABLE: u32 = 1 << 10;

/// What an element must be like before it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Insert {
    /// There or not.
    Any,
    /// Not there: [`io::ErrorKind::AlreadyExists`] otherwise.
    New,
    /// There: [`io::ErrorKind::NotFound`] otherwise.
    Existing,
}

/// What the kernel says of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapInfo {
    /// One of `enum bpf_map_type`: see [`kind`].
    pub kind: u32,
    /// Of a key, in bytes.
    pub key_size: u32,
    /// Of a value as it was defined, in bytes.
    pub value_size: u32,
    /// Elements at most.
    pub max_entries: u32,
    /// `BPF_F_…` that it was made with.
    pub flags: u32,
}

/// A map, with the sizes of what is read and written there: nothing is asked of the kernel with a buffer of another size.
#[derive(Debug)]
pub struct Map {
    fd: OwnedFd,
    info: MapInfo,
    key_bytes: usize,
    value_bytes: usize,
}

/// Where in a map a walk by batches is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BatchCursor {
    place: Option<Vec<u8>>,
    is_at_end: bool,
}

/// A map to be made. Takes CAP_BPF.
#[derive(Debug, Clone, Copy)]
pub struct NewMap<'a> {
    /// Its name, of which the kernel keeps 15 letters, digits, `_` and `.`.
    pub name: &'a str,
    /// What it is like.
    pub info: MapInfo,
}

impl NewMap<'_> {
    /// Makes it, closed on exec.
    ///
    /// # Errors
    /// The kernel refused: without CAP_BPF, without memory, or because it has no such maps.
    pub fn create(&self) -> io::Result<OwnedFd> {
        self.create_of(None)
    }

    /// The same of one whose elements are maps like this one.
    ///
    /// # Errors
    /// As [`create`](Self::create)'s.
    pub fn create_of(&self, like: Option<BorrowedFd<'_>>) -> io::Result<OwnedFd> {
        let like = like.map_or(0, |map| map.as_raw_fd());
        let mut attributes = CreateMap {
            map_type: self.info.kind,
            key_size: self.info.key_size,
            value_size: self.info.value_size,
            max_entries: self.info.max_entries,
            map_flags: self.info.flags,
            inner_map_fd: like,
            numa_node: 0,
            map_name: attributes::name_of(self.name),
        };
        attributes::create_map(&mut attributes)
    }
}

impl Map {
    /// A map by its descriptor.
    ///
    /// # Errors
    /// It is none, or how many CPUs there may be cannot be found out.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let info = info(fd.as_fd())?;
        let size = |bytes: u32| usize::try_from(bytes).map_err(|_| io::Error::from(Errno::EFBIG));
        let value_bytes = match info.kind {
            kind::PERCPU_HASH | kind::PERCPU_ARRAY | kind::LRU_PERCPU_HASH | kind::PERCPU_CGROUP_STORAGE => {
                size(info.value_size)?.next_multiple_of(8) * possible_cpus()?
            }
            kind::PROG_ARRAY
            | kind::PERF_EVENT_ARRAY
            | kind::CGROUP_ARRAY
            | kind::ARRAY_OF_MAPS
            | kind::HASH_OF_MAPS => 4,
            _ => size(info.value_size)?,
        };
        Ok(Self {
            key_bytes: size(info.key_size)?,
            value_bytes,
            fd,
            info,
        })
    }

    /// What the kernel says of it.
    #[must_use]
    pub const fn info(&self) -> MapInfo {
        self.info
    }

    /// Of a value as it is read and written, in bytes: of a map with a value for each CPU, all of them, each rounded up to 8.
    #[must_use]
    pub const fn value_bytes(&self) -> usize {
        self.value_bytes
    }

    /// Reads an element into `value`. Whether it is there.
    ///
    /// # Errors
    /// A buffer of another size (EINVAL), or the system call failed.
    pub fn lookup(&self, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
        self.check(key, Some(value.len()))?;
        let mut attributes = self.element(key, address_mut(value), 0);
        // SAFETY: the kernel reads a key and writes a value of the map's sizes, which are those of the slices.
        present(unsafe { bpf(Command::LookupElement, &mut attributes) })
    }

    /// Writes an element.
    ///
    /// # Errors
    /// It is there, or not, against `insert`; the map is full (E2BIG); a buffer of another size (EINVAL); or the system call
    /// failed.
    pub fn update(&self, key: &[u8], value: &[u8], insert: Insert) -> io::Result<()> {
        self.check(key, Some(value.len()))?;
        let flags = match insert {
            Insert::Any => 0,
            Insert::New => 1,
            Insert::Existing => 2,
        };
        let mut attributes = self.element(key, address(value), flags);
        // SAFETY: the kernel reads a key and a value of the map's sizes, which are those of the slices.
        unsafe { bpf(Command::UpdateElement, &mut attributes) }.map(drop)
    }

    /// Removes an element. Whether it was there.
    ///
    /// # Errors
    /// A key of another size (EINVAL), an array (EINVAL), or the system call failed.
    pub fn delete(&self, key: &[u8]) -> io::Result<bool> {
        self.check(key, None)?;
        let mut attributes = self.element(key, 0, 0);
        // SAFETY: the kernel reads a key of the map's size, which is that of the slice.
        present(unsafe { bpf(Command::DeleteElement, &mut attributes) })
    }

    /// The key that follows `key`, or the first one; `None` at the end.
    ///
    /// # Errors
    /// A key of another size (EINVAL), or the system call failed.
    pub fn next_key(&self, key: Option<&[u8]>) -> io::Result<Option<Vec<u8>>> {
        let mut next = vec![0; self.key_bytes];
        if let Some(key) = key {
            self.check(key, None)?;
        }
        let mut attributes = self.element(key.unwrap_or_default(), address_mut(&mut next), 0);
        if key.is_none() {
            attributes.key = 0;
        }
        // SAFETY: the kernel reads a key of the map's size, unless its address is null, and writes one: both slices have that
        // size.
        let is_there = present(unsafe { bpf(Command::NextKey, &mut attributes) })?;
        Ok(is_there.then_some(next))
    }

    /// Reads the next elements, `max` at most unless a bucket has more, in place of what `keys` and `values` hold: keys one after
    /// the other, and values as [`lookup`](Self::lookup) has them. How many; the cursor says whether these were the last ones.
    /// Where the map changes meanwhile, elements may be missed or come twice.
    ///
    /// # Errors
    /// A kind of map without batches, or the system call failed.
    pub fn lookup_batch(
        &self,
        cursor: &mut BatchCursor,
        max: u32,
        keys: &mut Vec<u8>,
        values: &mut Vec<u8>,
    ) -> io::Result<usize> {
        let mut room = max.max(1);
        loop {
            match self.lookup_batch_once(cursor, room, keys, values) {
                // a bucket has more than that
                Err(error) if is(&error, Errno::ENOSPC) && room < MAX_BATCH => room = room.saturating_mul(2),
                other => return other,
            }
        }
    }

    fn lookup_batch_once(
        &self,
        cursor: &mut BatchCursor,
        room: u32,
        keys: &mut Vec<u8>,
        values: &mut Vec<u8>,
    ) -> io::Result<usize> {
        let many = number_of(room)?;
        keys.clear();
        values.clear();
        if cursor.is_at_end {
            return Ok(0);
        }
        keys.resize(many * self.key_bytes, 0);
        values.resize(many * self.value_bytes, 0);
        let mut next = vec![0; self.key_bytes.max(LEAST_PLACE)];
        let mut attributes = Batch {
            in_batch: cursor.place.as_deref().map_or(0, address),
            out_batch: address_mut(&mut next),
            keys: address_mut(keys),
            values: address_mut(values),
            count: room,
            map_fd: self.fd.as_raw_fd(),
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: `keys` and `values` have room for `count` elements; a place is a key, or the 4 bytes of a bucket's number, and
        // both places have room for either.
        let is_at_end = match unsafe { bpf(Command::LookupBatch, &mut attributes) } {
            Ok(_) => false,
            Err(error) if is(&error, Errno::ENOENT) => true,
            Err(error) => {
                keys.clear();
                values.clear();
                return Err(error);
            }
        };
        let read = number_of(attributes.count.min(room))?;
        keys.truncate(read * self.key_bytes);
        values.truncate(read * self.value_bytes);
        cursor.is_at_end = is_at_end;
        cursor.place = Some(next);
        Ok(read)
    }

    /// Removes these elements, their keys one after the other, going on after those that are not there. How many were.
    ///
    /// # Errors
    /// Not whole keys (EINVAL), a kind of map without batches, or the system call failed.
    pub fn delete_batch(&self, keys: &[u8]) -> io::Result<usize> {
        self.check_many(keys, None)?;
        let mut rest = keys;
        let mut deleted = 0;
        while !rest.is_empty() {
            let mut attributes = self.batch(rest, &[])?;
            // SAFETY: the kernel reads `count` keys of the map's size, which is what `rest` has.
            let outcome = unsafe { bpf(Command::DeleteBatch, &mut attributes) };
            let done = number_of(attributes.count)?;
            deleted += done;
            let done = match outcome {
                Ok(_) => break,
                // that one was not there
                Err(error) if is(&error, Errno::ENOENT) => done + 1,
                Err(error) => return Err(error),
            };
            rest = rest.get(done * self.key_bytes..).unwrap_or_default();
        }
        Ok(deleted)
    }

    /// Writes these elements, there or not: keys one after the other, and so values. How many were written, which is all of them.
    ///
    /// # Errors
    /// Not as many whole keys as values (EINVAL), a map that is full (E2BIG), a kind of map without batches, or the system call
    /// failed: those before are written.
    pub fn update_batch(&self, keys: &[u8], values: &[u8]) -> io::Result<usize> {
        self.check_many(keys, Some(values.len()))?;
        if keys.is_empty() {
            return Ok(0);
        }
        let mut attributes = self.batch(keys, values)?;
        // SAFETY: the kernel reads `count` keys and values of the map's sizes, which is what the slices have.
        unsafe { bpf(Command::UpdateBatch, &mut attributes) }?;
        number_of(attributes.count)
    }

    /// Has nobody change it any more by bpf(2).
    ///
    /// # Errors
    /// Its kind cannot be frozen, or its memory is mapped to be written.
    pub fn freeze(&self) -> io::Result<()> {
        let mut attributes = OneFd {
            fd: self.fd.as_raw_fd(),
        };
        // SAFETY: nothing in these attributes is an address.
        unsafe { bpf(Command::Freeze, &mut attributes) }.map(drop)
    }

    fn element(&self, key: &[u8], value: u64, flags: u64) -> Element {
        Element {
            map_fd: self.fd.as_raw_fd(),
            padding: 0,
            key: address(key),
            value,
            flags,
        }
    }

    fn batch(&self, keys: &[u8], values: &[u8]) -> io::Result<Batch> {
        let count = u32::try_from(keys.len() / self.key_bytes).map_err(|_| Errno::E2BIG)?;
        Ok(Batch {
            in_batch: 0,
            out_batch: 0,
            keys: address(keys),
            values: address(values),
            count,
            map_fd: self.fd.as_raw_fd(),
            elem_flags: 0,
            flags: 0,
        })
    }

    fn check(&self, key: &[u8], value: Option<usize>) -> io::Result<()> {
        let fits = key.len() == self.key_bytes && value.is_none_or(|bytes| bytes == self.value_bytes);
        if fits { Ok(()) } else { Err(Errno::EINVAL.into()) }
    }

    fn check_many(&self, keys: &[u8], values: Option<usize>) -> io::Result<()> {
        let many = keys.len().checked_div(self.key_bytes).unwrap_or(0);
        let fits = many.checked_mul(self.key_bytes) == Some(keys.len())
            && values.is_none_or(|bytes| many.checked_mul(self.value_bytes) == Some(bytes));
        if fits { Ok(()) } else { Err(Errno::EINVAL.into()) }
    }
}

impl AsFd for Map {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl BatchCursor {
    /// At a bucket of a hash, counted from 0: of a walk that does not begin with the first one.
    #[must_use]
    pub fn at_bucket(bucket: u32) -> Self {
        Self {
            place: Some(bucket.to_ne_bytes().to_vec()),
            is_at_end: false,
        }
    }

    /// Whether the last elements have been read.
    #[must_use]
    pub const fn is_at_end(&self) -> bool {
        self.is_at_end
    }
}

/// What the kernel says of a map. Of a program it says something else: with that, everything that is asked of it as a map fails.
///
/// # Errors
/// It is neither.
pub fn info(map: BorrowedFd<'_>) -> io::Result<MapInfo> {
    let mut raw = RawMapInfo::default();
    let mut attributes = Info::of(map.as_raw_fd(), &mut raw);
    // SAFETY: the kernel writes at most as many bytes as `raw` has, of a struct that begins as it does.
    unsafe { bpf(Command::ObjectInfo, &mut attributes) }?;
    Ok(MapInfo {
        kind: raw.kind,
        key_size: raw.key_size,
        value_size: raw.value_size,
        max_entries: raw.max_entries,
        flags: raw.map_flags,
    })
}

/// How many CPUs this machine may ever have: as many values has an element of a map with one for each CPU.
///
/// # Errors
/// The kernel does not say.
pub fn possible_cpus() -> io::Result<usize> {
    let text = fs::read_to_string("/sys/devices/system/cpu/possible")?;
    count_of_list(text.trim()).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("{text:?}")))
}

/// How many numbers a list as `0,2-5` has.
fn count_of_list(text: &str) -> Option<usize> {
    let of_range = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
        last.checked_sub(first)?.checked_add(1)
    };
    text.split(',').map(of_range).sum()
}

/// Whether an element that was asked for is there.
fn present(outcome: io::Result<i32>) -> io::Result<bool> {
    match outcome {
        Ok(_) => Ok(true),
        Err(error) if is(&error, Errno::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus_are_counted() {
        for (text, count) in [
            ("0", Some(1)),
            ("0-1", Some(2)),
            ("0,2-5,8", Some(6)),
            ("", None),
            ("0-", None),
            ("5-2", None),
            ("a", None),
        ] {
            assert_eq!(count_of_list(text), count, "{text}");
        }
        assert!(possible_cpus().unwrap() >= std::thread::available_parallelism().unwrap().get());
    }
}
