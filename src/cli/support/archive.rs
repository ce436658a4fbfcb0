//! A compressed archive (tar, gzip) of texts.

use std::{
    io,
    time::{SystemTime, UNIX_EPOCH},
};

use flate2::{Compression, write::GzEncoder};
use tar::{Builder, Header};

/// An archive that is being written.
pub struct Archive<W: io::Write> {
    tar: Builder<GzEncoder<W>>,
    directory: String,
    at: u64,
}

impl<W: io::Write> Archive<W> {
    /// An archive whose files are all in one directory.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn new(writer: W, directory: &str, at: SystemTime) -> io::Result<Self> {
        Ok(Self {
            tar: Builder::new(GzEncoder::new(writer, Compression::default())),
            directory: directory.to_owned(),
            at: at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        })
    }

    /// Adds a file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn file(&mut self, path: &str, content: &[u8]) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(self.at);
        let path = format!("{}/{path}", self.directory);
        self.tar.append_data(&mut header, path, content)
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn finish(self) -> io::Result<()> {
        let mut writer = self.tar.into_inner()?.finish()?;
        writer.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn what_is_written_can_be_read() {
        let mut bytes = Vec::new();
        let mut archive = Archive::new(&mut bytes, "d", SystemTime::now()).expect("an archive");
        archive.file("config/a.toml", b"# a\n").expect("a file");
        archive.finish().expect("the end");
        let mut read = tar::Archive::new(flate2::read::GzDecoder::new(bytes.as_slice()));
        let mut entries = read.entries().expect("entries");
        let mut entry = entries.next().expect("a file").expect("a good one");
        let mut content = String::new();
        entry.read_to_string(&mut content).expect("its content");
        assert_eq!(
            (entry.path_bytes().as_ref(), content.as_str()),
            (&b"d/config/a.toml"[..], "# a\n")
        );
        assert!(entries.next().is_none());
    }
}
