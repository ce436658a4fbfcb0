//! The files of a directory as one sequence of bytes, as they travel in a memfd. Pure.
//!
//! For each file: length of its name (4 bytes, little-endian), the name, one byte that says whether its content follows (1)
//! or the reason why it could not be read (0), the length of that (4 bytes), and that.

/// Files by name; of one that could not be read, why.
pub type ArchivedFile<'a> = (&'a str, Result<&'a [u8], &'a str>);

/// Bytes that are no archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the files of a directory came in a form that is not known")]
pub struct ArchiveError;

/// An archive that is being written.
#[derive(Debug, Default)]
pub struct Archive(Vec<u8>);

impl Archive {
    /// Adds a file.
    pub fn add(&mut self, name: &str, content: &Result<Vec<u8>, String>) {
        let (is_there, bytes) = match content {
            Ok(bytes) => (1, bytes.as_slice()),
            Err(why) => (0, why.as_bytes()),
        };
        self.part(name.as_bytes());
        self.0.push(is_there);
        self.part(bytes);
    }

    /// Its bytes so far.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Its bytes.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn part(&mut self, bytes: &[u8]) {
        // a file of a directory, and its name, are far below that
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.0.extend_from_slice(&length.to_le_bytes());
        self.0.extend_from_slice(bytes);
    }
}

/// The files of an archive, in the order in which they were added.
///
/// # Errors
/// The bytes are no archive.
pub fn read(mut bytes: &[u8]) -> Result<Vec<ArchivedFile<'_>>, ArchiveError> {
    let mut files = Vec::new();
    while !bytes.is_empty() {
        let name = std::str::from_utf8(part(&mut bytes)?).map_err(|_| ArchiveError)?;
        let (&is_there, rest) = bytes.split_first().ok_or(ArchiveError)?;
        bytes = rest;
        let content = part(&mut bytes)?;
        files.push((
            name,
            match is_there {
                1 => Ok(content),
                0 => Err(std::str::from_utf8(content).map_err(|_| ArchiveError)?),
                _ => return Err(ArchiveError),
            },
        ));
    }
    Ok(files)
}

fn part<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], ArchiveError> {
    let (length, rest) = bytes.split_first_chunk().ok_or(ArchiveError)?;
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| ArchiveError)?;
    let (part, rest) = rest.split_at_checked(length).ok_or(ArchiveError)?;
    *bytes = rest;
    Ok(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_reasons_survive_the_way_and_half_an_archive_is_none() {
        let mut archive = Archive::default();
        archive.add("a.pem", &Ok(b"-----BEGIN".to_vec()));
        archive.add("ä.key", &Err("cannot open it".to_owned()));
        archive.add("empty.pem", &Ok(Vec::new()));
        let bytes = archive.into_bytes();
        let expected: [ArchivedFile<'_>; 3] = [
            ("a.pem", Ok(b"-----BEGIN")),
            ("ä.key", Err("cannot open it")),
            ("empty.pem", Ok(b"")),
        ];
        assert_eq!(read(&bytes).unwrap(), expected);
        let whole = (0..=bytes.len())
            .filter(|&end| read(&bytes[..end]).is_ok())
            .count();
        assert_eq!(whole, 4, "nothing, and after each of the three files");
    }
}
