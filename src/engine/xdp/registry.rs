//! What a keeper leaves to the next one beside the maps, in three files in memory that outlive the process: what the numbers in
//! the maps mean, and how far what the program has counted has been counted.
//!
//! What the numbers mean is written into two files by turns, whole each time: of one that was torn, the other is what was there
//! before, and as the maps name a number only after that has been written, they name none that it does not know. Who wrote the
//! files may have been anybody who took the daemon over: what is read is checked, and bounded.

mod codec;

use std::{
    fs::File,
    io,
    os::{fd::OwnedFd, unix::fs::FileExt as _},
};

use super::{
    layout::{REGISTRY, TARGETS},
    numbers::Noted,
};
pub use codec::Counted;

/// What the files hold is written like this: another way is another number.
pub const FORMAT: u32 = 1;

/// Bytes of what is in front of the numbers.
const HEADER: usize = 32;
/// "convey", and that these are numbers.
const MAGIC: [u8; 8] = *b"conveyNU";
/// Files are written by one call up to so many bytes.
const COUNTED_AT_ONCE: usize = 1 << 20;

/// See the [module](self).
#[derive(Debug)]
pub struct Registry {
    numbers: [File; 2],
    counted: File,
    /// Of what is written next; the higher, the newer.
    generation: u64,
    /// Which file that goes to.
    next: usize,
    /// It could not be written: what it said is taken back, and it says nothing any more.
    is_lost: bool,
}

impl Registry {
    /// In these files, each of which may be empty.
    #[must_use]
    pub fn new(files: [OwnedFd; REGISTRY]) -> Self {
        let [first, second, counted] = files.map(File::from);
        Self {
            numbers: [first, second],
            counted,
            generation: 1,
            next: 0,
            is_lost: false,
        }
    }

    /// What the numbers in the maps mean.
    ///
    /// # Errors
    /// Neither file says so, or one could not be read.
    pub fn read(&mut self) -> io::Result<Noted> {
        let read = [self.read_one(0)?, self.read_one(1)?];
        let newest = read
            .into_iter()
            .flatten()
            .max_by_key(|(generation, ..)| *generation);
        let Some((generation, place, noted)) = newest else {
            let text = "what it has noted about its servers is not there, or not whole";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        };
        self.generation = generation + 1;
        self.next = 1 - place;
        Ok(noted)
    }

    /// What one file says, with its generation and place; `None`: it is empty, torn, or nothing that we have written.
    fn read_one(&self, place: usize) -> io::Result<Option<(u64, usize, Noted)>> {
        let Some(file) = self.numbers.get(place) else {
            return Ok(None);
        };
        let mut header = [0; HEADER];
        let size = file.metadata()?.len();
        if size < HEADER as u64 {
            return Ok(None);
        }
        file.read_exact_at(&mut header, 0)?;
        let Some((generation, length, checksum)) = read_header(&header) else {
            return Ok(None);
        };
        if length > codec::LONGEST || size < (HEADER + length) as u64 {
            return Ok(None);
        }
        let mut content = vec![0; length];
        file.read_exact_at(&mut content, HEADER as u64)?;
        let is_whole = checksum == sum(generation, &content);
        Ok(is_whole
            .then(|| codec::numbers(&content))
            .flatten()
            .map(|noted| (generation, place, noted)))
    }

    /// Notes what the numbers mean that the maps are about to name. Where that fails, nobody can take the maps over.
    pub fn write(&mut self, noted: &Noted) {
        let content = codec::numbers_to_bytes(noted);
        let mut bytes = header(self.generation, &content).to_vec();
        bytes.extend(content);
        let Some(file) = self.numbers.get(self.next).filter(|_| !self.is_lost) else {
            return;
        };
        match file.write_all_at(&bytes, 0) {
            Ok(()) => {
                self.generation += 1;
                self.next = 1 - self.next;
            }
            Err(error) => self.lose(&error),
        }
    }

    /// Takes back what the numbers mean: they are to be given anew.
    pub fn withdraw(&mut self) {
        let none = [0; HEADER];
        let withdrawn = self
            .numbers
            .iter()
            .try_for_each(|file| match file.metadata()?.len() {
                0 => Ok(()),
                _ => file.write_all_at(&none, 0),
            });
        if let Err(error) = withdrawn {
            self.lose(&error);
        }
    }

    /// How far each number has been counted, by number.
    ///
    /// # Errors
    /// The file could not be read.
    pub fn counted(&self) -> io::Result<impl Fn(u16) -> Counted + use<>> {
        let most = TARGETS as usize * Counted::SIZE;
        let size = usize::try_from(self.counted.metadata()?.len()).unwrap_or(most);
        let mut bytes = vec![0; size.min(most)];
        self.counted.read_exact_at(&mut bytes, 0)?;
        Ok(move |number: u16| {
            let one = bytes.chunks_exact(Counted::SIZE).nth(number.into());
            one.map(Counted::from_bytes).unwrap_or_default()
        })
    }

    /// Notes how far numbers, in their order, have been counted.
    pub fn write_counted(&mut self, counted: &[(u16, Counted)]) {
        if self.is_lost {
            return;
        }
        let runs = counted.chunk_by(|(number, _), (next, _)| next.checked_sub(1) == Some(*number));
        let written = runs
            .flat_map(|run| run.chunks(COUNTED_AT_ONCE / Counted::SIZE))
            .try_for_each(|some| {
                let first = some.first().map_or(0, |(number, _)| *number);
                let bytes: Vec<u8> = some.iter().flat_map(|(_, counted)| counted.to_bytes()).collect();
                self.counted
                    .write_all_at(&bytes, u64::from(first) * Counted::SIZE as u64)
            });
        if let Err(error) = written {
            self.lose(&error);
        }
    }

    /// Whoever reads what is half written would misread the maps.
    fn lose(&mut self, error: &io::Error) {
        if std::mem::replace(&mut self.is_lost, true) {
            return;
        }
        tracing::warn!(
            event = "xdp_registry_lost",
            "cannot note what the next process has to know of the flows in the kernel: {error}; they would not outlive this process"
        );
        self.withdraw();
    }
}

/// Generation, length of what follows, and its checksum.
fn read_header(header: &[u8; HEADER]) -> Option<(u64, usize, u64)> {
    let (magic, rest) = header.split_first_chunk::<8>()?;
    let (format, rest) = rest.split_first_chunk::<4>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (generation, rest) = rest.split_first_chunk::<8>()?;
    let (checksum, _) = rest.split_first_chunk::<8>()?;
    // one that is almost at the end of numbers was counted by nobody
    let generation = Some(u64::from_le_bytes(*generation)).filter(|number| *number <= u64::MAX / 2)?;
    let is_ours = *magic == MAGIC && u32::from_le_bytes(*format) == FORMAT;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    is_ours.then(|| (generation, length, u64::from_le_bytes(*checksum)))
}

fn header(generation: u64, content: &[u8]) -> [u8; HEADER] {
    // bounded as it is when it is read
    let length = (content.len() as u32).to_le_bytes();
    let fields: [&[u8]; 5] = [
        &MAGIC,
        &FORMAT.to_le_bytes(),
        &length,
        &generation.to_le_bytes(),
        &sum(generation, content).to_le_bytes(),
    ];
    let mut header = [0; HEADER];
    header
        .iter_mut()
        .zip(fields.concat())
        .for_each(|(to, from)| *to = from);
    header
}

/// FNV-1a (draft-eastlake-fnv): it finds what was torn, not who lies.
fn sum(generation: u64, content: &[u8]) -> u64 {
    let bytes = generation
        .to_le_bytes()
        .into_iter()
        .chain(content.iter().copied());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests;
