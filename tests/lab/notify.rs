//! A stand-in for systemd: its notification socket, and the descriptors that it keeps over a restart.

use std::{
    fs,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{fs::PermissionsExt as _, net::UnixDatagram},
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use convey::sys::fdpass;
use nix::sys::stat::fstat;

/// Collects what a daemon tells its service manager.
pub struct Notify {
    path: PathBuf,
    shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    seen: Mutex<Vec<String>>,
    store: Mutex<Vec<(String, OwnedFd)>>,
    stop: AtomicBool,
}

impl Notify {
    /// A new socket at `path`, writable by everybody. It is always being read: a sender never waits.
    pub fn bind(path: &Path) -> Self {
        fs::remove_file(path).ok();
        let socket = UnixDatagram::bind(path).expect("the notification socket");
        let pause = Some(Duration::from_millis(20));
        socket
            .set_read_timeout(pause)
            .expect("a time-out on the notification socket");
        fs::set_permissions(path, fs::Permissions::from_mode(0o777))
            .expect("chmod of the notification socket");
        let shared = Arc::<Shared>::default();
        let reader = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.read(&socket))
        };
        Self {
            path: path.to_owned(),
            shared,
            reader: Some(reader),
        }
    }

    /// What `NOTIFY_SOCKET` is set to.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every assignment received so far, such as `READY=1`, in order.
    pub fn assignments(&self) -> Vec<String> {
        self.shared.seen.lock().expect("assignments").clone()
    }

    /// The names of the descriptors that it keeps.
    pub fn kept(&self) -> Vec<String> {
        let store = self.shared.store.lock().expect("the store");
        store.iter().map(|(name, _)| name.clone()).collect()
    }

    /// Keeps one more descriptor.
    pub fn keep(&self, name: &str, fd: OwnedFd) {
        let mut store = self.shared.store.lock().expect("the store");
        store.push((name.to_owned(), fd));
    }

    /// Gives all that it keeps another name, as another version of Convey may have.
    pub fn rename_kept(&self, name: &str) {
        let mut store = self.shared.store.lock().expect("the store");
        for (kept, _) in store.iter_mut() {
            name.clone_into(kept);
        }
    }

    /// Copies of the descriptors that it keeps, which a program inherits, with their names.
    pub fn hand_over(&self) -> Vec<(String, OwnedFd)> {
        let store = self.shared.store.lock().expect("the store");
        let copy = |fd: &OwnedFd| nix::unistd::dup(fd).expect("dup of a kept descriptor");
        store.iter().map(|(name, fd)| (name.clone(), copy(fd))).collect()
    }

    /// Waits for an assignment that starts with `prefix`, past the first `skip` ones. False after `limit`, or as soon
    /// as `give_up` says so.
    pub fn wait_for(
        &self,
        prefix: &str,
        skip: usize,
        limit: Duration,
        mut give_up: impl FnMut() -> bool,
    ) -> bool {
        let start = Instant::now();
        while start.elapsed() < limit {
            let over = give_up();
            let assignments = self.assignments();
            if assignments
                .iter()
                .skip(skip)
                .any(|assignment| assignment.starts_with(prefix))
            {
                return true;
            }
            if over {
                return false;
            }
            thread::sleep(Duration::from_millis(2));
        }
        false
    }
}

impl Drop for Notify {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            reader.join().ok();
        }
    }
}

impl Shared {
    fn read(&self, socket: &UnixDatagram) {
        while !self.stop.load(Ordering::Relaxed) {
            let Ok((message, fds)) = fdpass::receive(socket.as_fd()) else {
                continue;
            };
            let text = String::from_utf8_lossy(&message).into_owned();
            self.keep(&text, fds);
            let mut seen = self.seen.lock().expect("assignments");
            seen.extend(text.lines().map(str::to_owned));
        }
    }

    /// As sd_pid_notify_with_fds(3) says: what is kept already is not kept twice, a name is removed with all it has.
    fn keep(&self, text: &str, fds: Vec<OwnedFd>) {
        let mut store = self.store.lock().expect("the store");
        let name = text.lines().find_map(|line| line.strip_prefix("FDNAME="));
        let identity = |fd: &OwnedFd| fstat(fd).map(|stat| stat.st_ino).ok();
        if text.lines().any(|line| line == "FDSTOREREMOVE=1") {
            store.retain(|(kept, _)| Some(kept.as_str()) != name);
        }
        if text.lines().any(|line| line == "FDSTORE=1") {
            for fd in fds {
                if !store.iter().any(|(_, kept)| identity(kept) == identity(&fd)) {
                    store.push((name.unwrap_or("stored").to_owned(), fd));
                }
            }
        }
    }
}
