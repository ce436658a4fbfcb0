//! Who besides root can choose what is read at a path: so that nobody has a process that may read everything read for him
//! what he cannot read himself.
//!
//! sshd's StrictModes refuses a file that somebody else could have replaced. This asks less: whoever owns a directory or a
//! link on the way, or may write there, must be able to read what the way leads to. A file in somebody's home is read, and a
//! link from there to `/etc/shadow` is not; a tree of root's is read whatever its modes are.

use std::{
    collections::{BTreeSet, VecDeque},
    ffi::OsString,
    fmt,
    fs::{File, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Component, Path},
};

use caps::{CapSet, Capability};
use nix::{
    errno::Errno,
    fcntl::{OFlag, openat, readlinkat},
    sys::{
        stat::Mode,
        statfs::{PROC_SUPER_MAGIC, fstatfs},
    },
};

/// Links on the way at most (`MAXSYMLINKS` of include/linux/namei.h).
const MAX_LINKS: usize = 40;

/// The bits of the mode for others; those for the group are three further left.
const READ: u32 = 0o4;
const WRITE: u32 = 0o2;
const SEARCH: u32 = 0o1;
/// In such a directory everybody replaces only what is his own.
const STICKY: u32 = 0o1000;

/// Somebody who can choose what is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Controller {
    /// The owner of something on the way.
    User(u32),
    /// Who is in a group that may write there.
    Group(u32),
    /// Everybody: all may write there.
    Anybody,
}

/// All who can choose what is read at a path, besides root.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Controllers(BTreeSet<Controller>);

/// Why a file is not opened.
#[derive(Debug)]
pub enum OpenError {
    /// A system call failed.
    Io(io::Error),
    /// Somebody can choose what is read, and could not read this himself.
    Exposed(Controller),
}

/// Owner and mode of something on the way.
#[derive(Debug, Clone, Copy)]
struct Owned {
    uid: u32,
    gid: u32,
    mode: u32,
    names: u64,
}

impl From<&Metadata> for Owned {
    fn from(metadata: &Metadata) -> Self {
        Self {
            uid: metadata.uid(),
            gid: metadata.gid(),
            mode: metadata.mode(),
            names: metadata.nlink(),
        }
    }
}

impl Controller {
    /// Whether somebody may do this with something, or could let himself.
    fn may(self, bit: u32, what: Owned) -> bool {
        let others = what.mode & bit != 0;
        others
            || match self {
                Self::User(uid) => what.uid == uid,
                Self::Group(gid) => what.gid == gid && what.mode & (bit << 3) != 0,
                Self::Anybody => false,
            }
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(uid) => write!(f, "the user with id {uid}"),
            Self::Group(gid) => write!(f, "the group with id {gid}"),
            Self::Anybody => f.write_str("everybody"),
        }
    }
}

impl Controllers {
    /// Everybody: nothing is known of who chooses.
    #[must_use]
    pub fn everybody() -> Self {
        Self([Controller::Anybody].into())
    }

    /// Those who can choose what is read at a path, and what is in it; everybody where that cannot be found out.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        open(path, &Self::default()).map_or_else(|_| Self::everybody(), |(_, controllers)| controllers)
    }

    /// Who owns something chooses what it is.
    fn add_owner(&mut self, what: Owned) {
        if what.uid != 0 {
            self.0.insert(Controller::User(what.uid));
        }
    }

    /// So does who may write there.
    fn add_writers(&mut self, what: Owned) {
        self.add_owner(what);
        if what.mode & (WRITE << 3) != 0 && what.gid != 0 {
            self.0.insert(Controller::Group(what.gid));
        }
        if what.mode & WRITE != 0 {
            self.0.insert(Controller::Anybody);
        }
    }

    /// A directory on the way.
    fn add_directory(&mut self, what: Owned) {
        if what.mode & STICKY == 0 {
            self.add_writers(what);
        } else {
            self.add_owner(what);
        }
    }

    /// Whether all of them may do this.
    fn all_may(&self, bit: u32, what: Owned) -> Result<(), OpenError> {
        match self.0.iter().find(|controller| !controller.may(bit, what)) {
            None => Ok(()),
            Some(controller) => Err(OpenError::Exposed(*controller)),
        }
    }
}

/// Whether this process may read what its user may not.
#[must_use]
pub fn may_read_everything() -> bool {
    [Capability::CAP_DAC_READ_SEARCH, Capability::CAP_DAC_OVERRIDE]
        .into_iter()
        // who cannot tell has to be careful
        .any(|cap| caps::has_cap(None, CapSet::Effective, cap).unwrap_or(true))
}

/// Opens what stands at an absolute path, which `named_by` have chosen; what is no regular file, not to be read. Gives those
/// who can choose what is in it, too.
///
/// # Errors
/// One of them could not read it himself, or a system call failed.
pub fn open(path: &Path, named_by: &Controllers) -> Result<(File, Controllers), OpenError> {
    let mut controllers = named_by.clone();
    let mut directory = root()?;
    let mut way = steps(path);
    let mut links = 0;
    while let Some(name) = way.pop_front() {
        if name == "/" {
            directory = root()?;
            continue;
        }
        let there = at(&directory, &name, OFlag::O_PATH)?;
        let metadata = there.metadata()?;
        let owned = Owned::from(&metadata);
        if metadata.is_symlink() {
            links += 1;
            if links > MAX_LINKS {
                return Err(Errno::ELOOP.into());
            }
            controllers.add_owner(owned);
            if way.is_empty() && fstatfs(&there)?.filesystem_type() == PROC_SUPER_MAGIC {
                // /dev/stdin: not where the text of the link leads to, but what is open already
                return finish(controllers, &directory, &name, OFlag::empty());
            }
            let target = readlinkat(&directory, name.as_os_str())?;
            let mut further = steps(Path::new(&target));
            further.append(&mut way);
            way = further;
        } else if metadata.is_dir() {
            controllers.all_may(SEARCH, owned)?;
            controllers.add_directory(owned);
            directory = there;
        } else if !way.is_empty() {
            return Err(Errno::ENOTDIR.into());
        } else if metadata.is_file() {
            if owned.names > 1 {
                // one name may be anybody's doing, in a directory where all make files
                controllers.add_writers(Owned {
                    uid: 0,
                    ..of(&directory)?
                });
            }
            return finish(controllers, &directory, &name, OFlag::O_NOFOLLOW);
        } else {
            return Ok((there, controllers));
        }
    }
    Ok((directory, controllers))
}

/// Opens the directory at an absolute path, which `named_by` have chosen, to be listed.
///
/// # Errors
/// One of them could not list it himself, it is none, or a system call failed.
pub fn open_directory(path: &Path, named_by: &Controllers) -> Result<File, OpenError> {
    let (there, controllers) = open(path, named_by)?;
    let owned = of(&there)?;
    if !there.metadata()?.is_dir() {
        return Err(Errno::ENOTDIR.into());
    }
    controllers.all_may(READ, owned)?;
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok(File::from(openat(&there, ".", flags, Mode::empty())?))
}

/// The last step: what is read, and who can write it.
fn finish(
    mut controllers: Controllers,
    directory: &File,
    name: &OsString,
    flags: OFlag,
) -> Result<(File, Controllers), OpenError> {
    let flags = flags | OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let file = File::from(openat(directory, name.as_os_str(), flags, Mode::empty())?);
    let owned = of(&file)?;
    controllers.all_may(READ, owned)?;
    controllers.add_writers(owned);
    Ok((file, controllers))
}

fn of(file: &File) -> io::Result<Owned> {
    file.metadata().map(|metadata| Owned::from(&metadata))
}

fn root() -> io::Result<File> {
    Ok(File::from(nix::fcntl::open(
        "/",
        OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?))
}

fn at(directory: &File, name: &OsString, flags: OFlag) -> Result<File, OpenError> {
    let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    // as a directory first: so is mounted what is to be mounted on demand
    let opened = openat(
        directory,
        name.as_os_str(),
        flags | OFlag::O_DIRECTORY,
        Mode::empty(),
    )
    .or_else(|errno| match errno {
        Errno::ENOTDIR | Errno::ELOOP => openat(directory, name.as_os_str(), flags, Mode::empty()),
        other => Err(other),
    });
    Ok(File::from(opened?))
}

fn steps(path: &Path) -> VecDeque<OsString> {
    let named = path.components().filter(|step| *step != Component::CurDir);
    named.map(|step| step.as_os_str().to_owned()).collect()
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Errno> for OpenError {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Read as _, os::unix::fs::symlink};

    const ALICE: u32 = 1_000;

    const fn owned(uid: u32, gid: u32, mode: u32) -> Owned {
        Owned {
            uid,
            gid,
            mode,
            names: 1,
        }
    }

    fn after(directories: &[Owned]) -> Controllers {
        let mut controllers = Controllers::default();
        for directory in directories {
            controllers.add_directory(*directory);
        }
        controllers
    }

    fn may_read(controllers: &Controllers, file: Owned) -> bool {
        controllers.all_may(READ, file).is_ok()
    }

    #[test]
    fn a_tree_of_root_is_read_whatever_its_modes_are() {
        let way = after(&[owned(0, 0, 0o755), owned(0, 0, 0o700), owned(0, 0, 0o1777)]);
        assert_eq!(way, Controllers::default());
        assert!(may_read(&way, owned(0, 0, 0o600)) && may_read(&way, owned(ALICE, ALICE, 0)));
    }

    #[test]
    fn who_can_choose_the_file_must_be_able_to_read_it() {
        let home = after(&[owned(0, 0, 0o755), owned(ALICE, ALICE, 0o700)]);
        assert!(may_read(&home, owned(ALICE, ALICE, 0o600)));
        assert!(may_read(&home, owned(0, 0, 0o644)));
        for secret in [
            owned(0, 42, 0o640),
            owned(0, 0, 0o600),
            owned(ALICE + 1, 0, 0o600),
        ] {
            assert!(!may_read(&home, secret), "{secret:?}");
        }
        let team = after(&[owned(0, 42, 0o775)]);
        assert!(may_read(&team, owned(0, 42, 0o640)) && !may_read(&team, owned(0, 43, 0o640)));
        let open = after(&[owned(0, 0, 0o777)]);
        assert!(may_read(&open, owned(0, 0, 0o644)) && !may_read(&open, owned(ALICE, 0, 0o640)));
    }

    #[test]
    fn a_file_is_opened_through_links_and_directories_are_not_read() {
        let top = tempfile::tempdir().unwrap();
        let top = top.path().canonicalize().unwrap();
        std::fs::create_dir_all(top.join("a/b")).unwrap();
        std::fs::write(top.join("a/b/file"), "content").unwrap();
        symlink("../a/./b", top.join("a/relative")).unwrap();
        symlink(top.join("a/relative/../b/file"), top.join("absolute")).unwrap();
        symlink("loop", top.join("loop")).unwrap();
        let mut text = String::new();
        let (mut file, _) = open(&top.join("absolute"), &Controllers::default()).unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "content");
        let errno = |path: &str| match open(&top.join(path), &Controllers::default()) {
            Err(OpenError::Io(error)) => error.raw_os_error(),
            other => panic!("{path}: {other:?}"),
        };
        assert_eq!(errno("missing"), Some(libc::ENOENT));
        assert_eq!(errno("absolute/more"), Some(libc::ENOTDIR));
        assert_eq!(errno("loop"), Some(libc::ELOOP));
        let (directory, _) = open(&top.join("a"), &Controllers::default()).unwrap();
        assert!(directory.metadata().unwrap().is_dir());
        let mut open_already = File::open(top.join("a/b/file")).unwrap();
        let magic = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&open_already));
        std::fs::remove_file(top.join("a/b/file")).unwrap();
        assert!(open(Path::new(&magic), &Controllers::default()).is_ok());
        open_already.read_to_string(&mut text).unwrap();
    }

    #[test]
    fn who_names_a_file_is_asked_as_who_chooses_it() {
        let path = Path::new("/proc/self/mem");
        let refused = open(path, &Controllers::everybody());
        assert!(
            matches!(refused, Err(OpenError::Exposed(Controller::Anybody))),
            "{refused:?}"
        );
        assert!(open(Path::new("/proc/self/status"), &Controllers::everybody()).is_ok());
        assert_eq!(
            Controllers::of(Path::new("/nonexistent")),
            Controllers::everybody()
        );
    }
}
