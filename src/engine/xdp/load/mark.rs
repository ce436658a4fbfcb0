//! The mark of a set of maps and programs: a map that nobody can change, bound to the program, which says what the set is like.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use aws_lc_rs::digest::{self, SHA256, SHA256_OUTPUT_LEN};

use crate::{
    engine::xdp::{layout::REGISTRY, object::LAYOUT, registry},
    sys::{
        bpf::{Insert, Map, MapInfo, NewMap, kind},
        memfd,
    },
};

/// The name of the map.
pub const MARK: &str = "convey_mark";

/// Bytes of a file's identity.
const FILE: usize = 16;
/// Bytes of a mark.
const SIZE: usize = 2 * SHA256_OUTPUT_LEN + REGISTRY * FILE;

const INFO: MapInfo = MapInfo {
    kind: kind::ARRAY,
    key_size: 4,
    value_size: SIZE as u32,
    max_entries: 1,
    flags: 0,
};

type Hash = [u8; SHA256_OUTPUT_LEN];

/// What a set is like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Of the layout of maps and registry.
    pub layout: Hash,
    /// Of the object file of the programs.
    pub object: Hash,
    /// The registry's files, each by its device and inode.
    pub files: [[u8; FILE]; REGISTRY],
}

impl Mark {
    /// That of our own set, with this object file.
    ///
    /// # Errors
    /// The kernel does not say which files these are.
    pub fn of(object: &[u8], files: &[OwnedFd; REGISTRY]) -> io::Result<Self> {
        let mut layout = digest::Context::new(&SHA256);
        layout.update(LAYOUT.as_bytes());
        layout.update(&registry::FORMAT.to_be_bytes());
        let [first, second, third] = files;
        Ok(Self {
            layout: hash(&layout.finish()),
            object: hash(&digest::digest(&SHA256, object)),
            files: [
                file_identity(first.as_fd())?,
                file_identity(second.as_fd())?,
                file_identity(third.as_fd())?,
            ],
        })
    }

    /// Makes the map.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn create(&self) -> io::Result<Map> {
        let map = Map::new(
            NewMap {
                name: MARK,
                info: INFO,
            }
            .create()?,
        )?;
        let mut value = self.layout.to_vec();
        value.extend(self.object);
        value.extend(self.files.iter().flatten());
        map.update(&0_u32.to_ne_bytes(), &value, Insert::Any)?;
        map.freeze()?;
        Ok(map)
    }

    /// Reads a map of this name; `None` where it is no mark.
    #[must_use]
    pub fn read(map: &Map) -> Option<Self> {
        let mut value = vec![0; SIZE];
        let is_there = map.info() == INFO && map.lookup(&0_u32.to_ne_bytes(), &mut value).ok()?;
        let (layout, rest) = value.split_first_chunk().filter(|_| is_there)?;
        let (object, mut rest) = rest.split_first_chunk()?;
        let mut files = [[0; FILE]; REGISTRY];
        for file in &mut files {
            let (first, others) = rest.split_first_chunk()?;
            (*file, rest) = (*first, others);
        }
        Some(Self {
            layout: *layout,
            object: *object,
            files,
        })
    }
}

/// What tells a file in memory from others.
///
/// # Errors
/// The kernel does not say.
pub fn file_identity(file: BorrowedFd<'_>) -> io::Result<[u8; FILE]> {
    let (device, inode) = memfd::identity(file)?;
    let mut identity = [0; FILE];
    let (first, second) = identity.split_at_mut(FILE / 2);
    first.copy_from_slice(&device.to_be_bytes());
    second.copy_from_slice(&inode.to_be_bytes());
    Ok(identity)
}

fn hash(digest: &digest::Digest) -> Hash {
    let mut hash = [0; SHA256_OUTPUT_LEN];
    hash.iter_mut()
        .zip(digest.as_ref())
        .for_each(|(to, from)| *to = *from);
    hash
}
