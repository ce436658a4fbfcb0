//! Replacing a file by another text at once: who reads it meanwhile reads one of the two.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, RenameFlags, renameat2},
};

/// Why a file could not be replaced; what was there is still there.
#[derive(Debug, thiserror::Error)]
#[error("{step} {}: {source}{}", path.display(), help(source))]
pub struct ReplaceError {
    step: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Replaces a file, links followed, if it has this content: false if it has another, even if that came while this was at work.
/// The new one has the old one's mode, and its owner and group as far as this process may
/// give files away. Returns when it is on the disk.
///
/// # Errors
/// There is no such file, or nothing may be written beside it.
pub fn replace(path: &Path, before: &[u8], content: &[u8]) -> Result<bool, ReplaceError> {
    let at = |step, path: &Path| {
        let path = path.to_owned();
        move |source| ReplaceError { step, path, source }
    };
    let path = fs::canonicalize(path).map_err(at("find", path))?;
    let old = fs::metadata(&path).map_err(at("look at", &path))?;
    // a name that nobody else has for what they write beside it
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".by-convey");
    let new = path.with_file_name(name);
    // what a process that died here has left
    let _ = fs::remove_file(&new);
    let written = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&new)?;
        file.write_all(content)?;
        // a process without capabilities may give it to none but its own groups
        if fchown(&file, Some(old.uid()), Some(old.gid())).is_err() {
            let _ = fchown(&file, None, Some(old.gid()));
        }
        file.set_permissions(Permissions::from_mode(old.mode() & 0o7777))?;
        file.sync_all()
    };
    if let Err(error) = written() {
        let _ = fs::remove_file(&new);
        return Err(at("write", &new)(error));
    }
    let replaced = exchange(&new, &path, before).map_err(at("replace", &path));
    // on success the old one
    let _ = fs::remove_file(&new);
    if !replaced? {
        return Ok(false);
    }
    // the name in its directory too; where that cannot be, the file system does it in its own time
    if let Some(directory) = path.parent().and_then(|parent| File::open(parent).ok()) {
        let _ = directory.sync_all();
    }
    Ok(true)
}

/// Puts a file in the place of another, which gets its name, if the other has this content.
fn exchange(new: &Path, path: &Path, before: &[u8]) -> io::Result<bool> {
    let swap = || renameat2(AT_FDCWD, new, AT_FDCWD, path, RenameFlags::RENAME_EXCHANGE);
    match swap() {
        Ok(()) => {}
        // a file system that cannot: a moment is left in which somebody could write
        Err(Errno::EINVAL | Errno::ENOSYS) => {
            if fs::read(path)? != before {
                return Ok(false);
            }
            fs::rename(new, path)?;
            return Ok(true);
        }
        Err(error) => return Err(error.into()),
    }
    if fs::read(new)? == before {
        return Ok(true);
    }
    swap()?;
    Ok(false)
}

fn help(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "; the user that convey runs as must be able to write in this directory (see `ls -ld`)"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "; the service may not write there: add ReadWritePaths= with this directory (systemctl edit convey)"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_another_with_the_rights_of_the_old_one_and_a_link_to_it_stays() {
        let directory = tempfile::tempdir().unwrap();
        let (path, link) = (directory.path().join("real"), directory.path().join("link"));
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        fs::write(
            directory.path().join(".real.by-convey"),
            "left by a process that died",
        )
        .unwrap();
        assert!(
            !replace(&link, b"other", b"new").unwrap(),
            "somebody else has written"
        );
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert!(replace(&link, b"old", b"new").unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_directory_that_cannot_be_written_in_is_said_with_what_to_do() {
        let error = |kind: i32| ReplaceError {
            step: "write",
            path: "/etc/convey/.convey.toml.by-convey".into(),
            source: io::Error::from_raw_os_error(kind),
        };
        assert!(
            error(libc::EROFS)
                .to_string()
                .ends_with("(systemctl edit convey)")
        );
        assert!(error(libc::EACCES).to_string().contains("(see `ls -ld`)"));
        assert!(replace(Path::new("/nowhere/at/all"), b"", b"").is_err());
    }
}
