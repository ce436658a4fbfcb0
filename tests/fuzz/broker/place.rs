//! The directory of the target's own, in which the broker finds its files: whatever changes there must have been granted.

use std::{
    collections::BTreeMap,
    fs,
    os::{
        fd::OwnedFd,
        unix::{
            fs::{FileTypeExt, MetadataExt, PermissionsExt},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    sync::LazyLock,
};

/// What texts and messages call it.
const NAME: &[u8] = b"/fuzz/";

/// The configuration.
pub const CONFIG: &str = "convey.toml";
/// Files that are there, those that a configuration names and those that none does.
const FILES: [&str; 5] = ["office.list", "admin.pem", "tokens", "precious", "secret"];
/// Sockets of other programs: one that is asked for servers, and one that is none of Convey's business.
pub const ASKED: &str = "docker.sock";
const SECRET: &str = "secret.sock";

static DIRECTORY: LazyLock<PathBuf> =
    LazyLock::new(|| std::env::temp_dir().join(format!("convey-fuzz-{}", std::process::id())));

/// Where it is.
pub fn directory() -> &'static Path {
    &DIRECTORY
}

/// A text with the directory in it.
pub fn in_place(text: &[u8]) -> Vec<u8> {
    let path = format!("{}/", directory().display());
    replaced(text, NAME, path.as_bytes())
}

/// A text with another part in it.
pub fn replaced(text: &[u8], part: &[u8], by: &[u8]) -> Vec<u8> {
    let mut all = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, more)) = rest.split_first() {
        if let Some(after) = rest.strip_prefix(part) {
            all.extend_from_slice(by);
            rest = after;
        } else {
            all.push(*first);
            rest = more;
        }
    }
    all
}

/// A file, as far as it may not change by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    pub inode: u64,
    pub mode: u32,
    pub is_socket: bool,
    /// Its size and when it was written.
    pub written: (u64, i64, i64),
}

/// All files by their names.
pub type Entries = BTreeMap<String, Entry>;

/// The directory, with what is always there. It goes when the target ends by itself.
pub struct Place {
    asked: UnixListener,
    secret: UnixListener,
}

impl Place {
    pub fn new() -> Self {
        fs::create_dir(directory()).expect("a directory");
        fs::set_permissions(directory(), fs::Permissions::from_mode(0o700)).expect("its rights");
        for name in FILES {
            fs::write(directory().join(name), format!("what is in {name}")).expect("a file");
        }
        let listen = |name| {
            let listener = UnixListener::bind(directory().join(name)).expect("a listener");
            listener.set_nonblocking(true).expect("one that does not wait");
            listener
        };
        Self {
            asked: listen(ASKED),
            secret: listen(SECRET),
        }
    }

    /// Removes what an input has left.
    pub fn clear(&self) {
        for name in self.entries().into_keys() {
            let stays = FILES.contains(&name.as_str()) || [ASKED, SECRET].contains(&name.as_str());
            if !stays {
                fs::remove_file(directory().join(name)).expect("a removed file");
            }
        }
    }

    pub fn write_config(&self, text: &str) {
        fs::write(directory().join(CONFIG), text).expect("a written file");
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(directory().join(name)).expect("a file")
    }

    pub fn entries(&self) -> Entries {
        let all = fs::read_dir(directory()).expect("the directory");
        let entry = |entry: fs::DirEntry| {
            let metadata = entry.metadata().expect("a file");
            let name = entry.file_name().into_string().expect("a name");
            let entry = Entry {
                inode: metadata.ino(),
                mode: metadata.mode() & 0o7777,
                is_socket: metadata.file_type().is_socket(),
                written: (metadata.size(), metadata.mtime(), metadata.mtime_nsec()),
            };
            (name, entry)
        };
        all.map(|found| entry(found.expect("an entry"))).collect()
    }

    /// How many have connected to the socket that is asked for servers since the last time.
    pub fn asked(&self) -> usize {
        let accepted = std::iter::from_fn(|| self.asked.accept().ok()).count();
        let secret = self.secret.accept();
        assert!(secret.is_err(), "somebody connected to {SECRET}");
        accepted
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(directory());
    }
}

/// Listening sockets in the hands of the daemon: those that it was given, and those of a process before it.
#[derive(Default)]
pub struct Held(BTreeMap<String, OwnedFd>);

impl Held {
    /// It was given one.
    pub fn take(&mut self, name: &str, socket: OwnedFd) {
        self.0.insert(name.to_owned(), socket);
    }

    /// It closes one.
    pub fn close(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// One by the name of its file; one that does not listen, where another file is in the way.
    pub fn socket(&mut self, name: &str) -> OwnedFd {
        let is_plain = |c: char| c.is_ascii_lowercase() || c == '.';
        let may_be = name.ends_with(".sock") && name.len() < 20 && name.chars().all(is_plain);
        if may_be && !self.0.contains_key(name) {
            let made = UnixListener::bind(directory().join(name));
            self.0
                .extend(made.ok().map(|made| (name.to_owned(), made.into())));
        }
        match self.0.get(name) {
            Some(socket) => socket.try_clone().expect("a descriptor"),
            None => UnixStream::pair().expect("a socketpair").0.into(),
        }
    }

    /// Whether what [`socket`](Self::socket) gives for this name listens there.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}
