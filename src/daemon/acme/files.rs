//! Ordered certificates and the accounts at CAs in the state directory: each a file that only Convey's user may read.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _, Write as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use crate::{
    acme::{Bundle, bundle_file},
    sys::own_file,
};

/// The directory's name in the state directory.
pub const DIRECTORY: &str = "acme";

/// Who may look into it: Convey's user.
const DIRECTORY_MODE: u32 = 0o700;

/// As secret as a private key.
const MODE: u32 = 0o600;

/// Largest file that is read, in bytes: a chain with its key has some 10 KiB.
const MAX_BYTES: u64 = 1 << 20;

/// What a file was like when it was read: another one is another certificate.
pub type Seen = Option<(SystemTime, u64)>;

/// What is found of certificates, by their names: one, that there is none, or why one cannot be used.
pub type Found = BTreeMap<Arc<str>, (Seen, Result<Option<Arc<Bundle>>, String>)>;

/// Reads certificates whose files are others than they were seen to be, if they were; it waits for the disk.
pub fn look(directory: &Path, names: &BTreeMap<Arc<str>, Option<Seen>>) -> Found {
    // somebody may want to copy something there; what cannot be made says so when it is written to
    let _ = make(directory);
    let mut found = Found::new();
    for (name, seen) in names {
        let path = directory.join(bundle_file(name));
        let there = fs::symlink_metadata(&path).ok();
        let there = there.and_then(|metadata| Some((metadata.modified().ok()?, metadata.len())));
        if *seen == Some(there) {
            continue;
        }
        let read = match read(&path) {
            Ok(None) => Ok(None),
            Ok(Some(bytes)) => match Bundle::read(&bytes) {
                Ok(bundle) => Ok(Some(Arc::new(bundle))),
                Err(error) => Err(error.to_string()),
            },
            Err(error) => Err(error.to_string()),
        };
        found.insert(
            Arc::clone(name),
            (there, read.map_err(|why| format!("{}: {why}", path.display()))),
        );
    }
    found
}

/// The account of a file; `None` if there is none that can be read: another is registered then, which is said.
pub fn account(directory: &Path, file: &str) -> Option<String> {
    let path = directory.join(file);
    let text = read(&path).and_then(|bytes| {
        let text = bytes.map(String::from_utf8).transpose();
        text.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    });
    match text {
        Ok(text) => text,
        Err(error) => {
            tracing::warn!(
                event = "acme_account_unreadable",
                "acme: cannot use the account in {}: {error}; another one is registered",
                path.display()
            );
            None
        }
    }
}

/// Writes a file in the place of the one before: there is a whole one at any moment.
///
/// # Errors
/// The disk does not take it.
pub fn write(directory: &Path, name: &str, content: &str) -> io::Result<()> {
    make(directory)?;
    let new: PathBuf = directory.join(format!("{name}.new"));
    let mut file = own_file::create(&new, MODE)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()?;
    fs::rename(new, directory.join(name))
}

/// Makes the directory if it is missing.
///
/// # Errors
/// It cannot be made.
pub fn make(directory: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(DIRECTORY_MODE).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match own_file::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > MAX_BYTES {
        true => Err(io::Error::other(format!("larger than {MAX_BYTES} bytes"))),
        false => Ok(Some(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn wanted(name: &str, seen: Option<Seen>) -> BTreeMap<Arc<str>, Option<Seen>> {
        BTreeMap::from([(name.into(), seen)])
    }

    #[test]
    fn a_certificate_is_found_again_and_nobody_else_reads_it() {
        let directory = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["*.example.com".to_owned()]).unwrap();
        let text = format!(
            "Directory: https://ca/\n{}{}",
            made.cert.pem(),
            made.signing_key.serialize_pem()
        );
        let missing = look(directory.path(), &wanted("*.example.com", None));
        assert!(matches!(missing["*.example.com"], (None, Ok(None))));
        assert!(look(directory.path(), &wanted("*.example.com", Some(None))).is_empty());
        write(directory.path(), "_.example.com.pem", &text).unwrap();
        let mode = fs::metadata(directory.path().join("_.example.com.pem"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, MODE);
        let found = look(directory.path(), &wanted("*.example.com", None));
        let (seen, bundle) = &found["*.example.com"];
        let bundle = bundle.as_ref().unwrap().as_ref().unwrap();
        assert!(bundle.is_for("*.example.com"));
        let again = look(directory.path(), &wanted("*.example.com", Some(*seen)));
        assert!(again.is_empty(), "it is the same");
        write(directory.path(), "_.example.com.pem", "no certificate").unwrap();
        let found = look(directory.path(), &wanted("*.example.com", Some(*seen)));
        assert!(found["*.example.com"].1.is_err());
    }

    #[test]
    fn an_account_that_cannot_be_read_is_none() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(account(directory.path(), "account.json"), None);
        write(directory.path(), "account.json", "{}").unwrap();
        assert_eq!(account(directory.path(), "account.json").as_deref(), Some("{}"));
        fs::write(directory.path().join("account.json"), b"\xff").unwrap();
        assert_eq!(account(directory.path(), "account.json"), None);
    }
}
