//! Files of our own, in directories where others may have put something in their place: that is neither waited for, nor
//! followed, nor written to.

use std::{
    fs::{self, File, Metadata, OpenOptions, Permissions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

use nix::{
    fcntl::{AtFlags, OFlag},
    unistd::geteuid,
};

/// A link is not followed, a FIFO without its other end not waited for, and a terminal does not become ours.
fn flags() -> i32 {
    (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits()
}

/// Opens a file to read it.
///
/// # Errors
/// It cannot be opened ([`io::ErrorKind::NotFound`] if there is none), or it is not one of ours: no regular file, or that of
/// somebody who is neither root, nor we, nor the owner of its directory (nor, for root, a user of the system).
pub fn open(path: &Path) -> io::Result<File> {
    let opened = OpenOptions::new().read(true).custom_flags(flags()).open(path);
    ours(path, opened)
}

/// Opens a file to write it anew, whether it is there or not. It has this mode, whatever the umask says.
///
/// # Errors
/// As [`open`].
pub fn create(path: &Path, mode: u32) -> io::Result<File> {
    let opened = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(mode)
        .custom_flags(flags())
        .open(path);
    let file = ours(path, opened)?;
    file.set_len(0)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    Ok(file)
}

/// Opens a file to write at its end, whether it is there or not. It has this mode, whatever the umask says.
///
/// # Errors
/// As [`open`].
pub fn append(path: &Path, mode: u32) -> io::Result<File> {
    let opened = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(mode)
        .custom_flags(flags())
        .open(path);
    let file = ours(path, opened)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    Ok(file)
}

/// Opens a file to write at its end. One that is missing is made with this mode, whatever the umask says; one that is there
/// keeps what an administrator has given it.
///
/// # Errors
/// As [`open`].
pub fn extend(path: &Path, mode: u32) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).mode(mode).custom_flags(flags());
    match options.clone().create_new(true).open(path) {
        // a link that leads nowhere is there, too
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => ours(path, options.open(path)),
        made => {
            let file = ours(path, made)?;
            file.set_permissions(Permissions::from_mode(mode))?;
            Ok(file)
        }
    }
}

/// Whether a file of ours is there. It is not opened: a process that may open no file here can ask, too.
#[must_use]
pub fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| is_ours(path, &metadata))
}

fn ours(path: &Path, opened: io::Result<File>) -> io::Result<File> {
    let file = match opened {
        // a link, or a FIFO that nobody reads
        Err(error) if [libc::ELOOP, libc::ENXIO].contains(&error.raw_os_error().unwrap_or(0)) => {
            return Err(alien());
        }
        other => other?,
    };
    if is_ours(path, &file.metadata()?) {
        Ok(file)
    } else {
        Err(alien())
    }
}

fn is_ours(path: &Path, metadata: &Metadata) -> bool {
    let directory = path.parent().and_then(|parent| fs::metadata(parent).ok());
    let owner = |metadata: Metadata| metadata.uid();
    metadata.is_file()
        && metadata.nlink() == 1
        && is_trusted(metadata.uid(), geteuid().as_raw(), directory.map(owner))
}

/// Whoever owns the directory could put anything there. Root trusts the user that the daemon becomes, of which it only knows
/// here that it is a user of the system and no person.
fn is_trusted(owner: u32, we: u32, directory: Option<u32>) -> bool {
    // Debian Policy 9.2.2: below 1000, and nobody
    let is_of_the_system = owner < 1_000 || owner == 65_534;
    [Some(0), Some(we), directory].contains(&Some(owner)) || (we == 0 && is_of_the_system)
}

/// What to say of something that is not ours.
pub(super) fn alien() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        "this is not a file that convey has made there: remove it",
    )
}

/// A descriptor of what stands at a path, links not followed. It can neither be read nor written; while it is held the
/// kernel gives the inode's number to nobody else.
///
/// # Errors
/// Nothing can be found there.
pub fn pin(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_PATH | OFlag::O_NOFOLLOW).bits())
        .open(path)
}

/// Whether something is of the kind that we have made, and ours: somebody may have put another thing in its place.
pub(super) fn is_made_by_us(metadata: &Metadata, is_kind: fn(&Metadata) -> bool) -> bool {
    is_kind(metadata) && metadata.uid() == geteuid().as_raw()
}

/// Gives what we made, of which this is the [`pin`], to a user and a group.
///
/// # Errors
/// It is something else ([`io::ErrorKind::InvalidInput`]): somebody has put that in its place; or the kernel refused.
pub fn give(made: &File, is_kind: fn(&Metadata) -> bool, uid: u32, gid: u32) -> io::Result<()> {
    if !is_made_by_us(&made.metadata()?, is_kind) {
        return Err(alien());
    }
    let (uid, gid) = (Some(uid.into()), Some(gid.into()));
    nix::unistd::fchownat(made, "", uid, gid, AtFlags::AT_EMPTY_PATH).map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read, Write},
        os::unix::fs::symlink,
    };

    fn refused(result: io::Result<File>) -> bool {
        result.is_err_and(|error| error.kind() == io::ErrorKind::InvalidInput)
    }

    #[test]
    fn a_file_is_written_anew_and_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("record");
        assert_eq!(open(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        for text in ["the longer one", "short"] {
            create(&path, 0o640).unwrap().write_all(text.as_bytes()).unwrap();
            let mut read = String::new();
            open(&path).unwrap().read_to_string(&mut read).unwrap();
            assert_eq!(read, text);
            assert!(is_there(&path));
        }
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
    }

    #[test]
    fn what_somebody_put_there_is_neither_waited_for_nor_followed_nor_changed() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("precious"), "precious").unwrap();
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        symlink(at("precious"), at("link")).unwrap();
        symlink(at("missing"), at("dangling")).unwrap();
        fs::hard_link(at("precious"), at("hard")).unwrap();
        fs::create_dir(at("directory")).unwrap();
        for name in ["fifo", "link", "dangling", "hard"] {
            assert!(refused(open(&at(name))), "{name} was read");
            assert!(refused(create(&at(name), 0o600)), "{name} was written");
            assert!(!is_there(&at(name)), "{name} is taken for ours");
        }
        assert!(refused(open(&at("directory"))) && create(&at("directory"), 0o600).is_err());
        assert_eq!(fs::read(at("precious")).unwrap(), b"precious");
        assert!(!at("missing").exists());
    }

    #[test]
    fn a_file_of_a_stranger_in_our_directory_is_not_ours() {
        let (we, stranger) = (1_000, 1_001);
        assert!(!is_trusted(stranger, we, Some(we)) && !is_trusted(stranger, we, None));
        assert!(is_trusted(we, we, Some(0)) && is_trusted(0, we, Some(we)));
        assert!(is_trusted(stranger, we, Some(stranger)));
        // the daemon's are read by root, and those of people are not
        assert!(is_trusted(65_534, 0, Some(0)) && is_trusted(110, 0, None));
        assert!(!is_trusted(stranger, 0, Some(0)) && !is_trusted(65_534, we, Some(0)));
    }

    #[test]
    fn only_what_was_made_is_given_away() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let (uid, gid) = (geteuid().as_raw(), nix::unistd::getegid().as_raw());
        fs::write(directory.path().join("precious"), "").unwrap();
        symlink(directory.path().join("precious"), &path).unwrap();
        let given = give(&pin(&path).unwrap(), Metadata::is_file, uid, gid);
        assert_eq!(given.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        give(&pin(&path).unwrap(), Metadata::is_dir, uid, gid).unwrap();
    }
}
