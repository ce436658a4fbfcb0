//! A stand-in for systemd: its notification socket, and the descriptors that it keeps over a restart.

use std::{
    fs,
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
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
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::stat::fstat,
};

/// Collects what a daemon tells its service manager.
pub struct Notify {
    path: PathBuf,
    shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    seen: Mutex<Vec<String>>,
    store: Mutex<Vec<Kept>>,
    stop: AtomicBool,
}

/// A descriptor in the store.
struct Kept {
    name: String,
    fd: OwnedFd,
    /// Whether it is dropped as soon as it has an error or has been hung up: without `FDPOLL=0`.
    is_watched: bool,
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
        store.iter().map(|kept| kept.name.clone()).collect()
    }

    /// Keeps one more descriptor.
    pub fn keep(&self, name: &str, fd: OwnedFd) {
        let mut store = self.shared.store.lock().expect("the store");
        store.push(Kept {
            name: name.to_owned(),
            fd,
            is_watched: false,
        });
    }

    /// Loses what it keeps under a name.
    pub fn lose(&self, name: &str) {
        let mut store = self.shared.store.lock().expect("the store");
        store.retain(|kept| kept.name != name);
    }

    /// Gives all that it keeps another name, as another version of Convey may have.
    pub fn rename_kept(&self, name: &str) {
        let mut store = self.shared.store.lock().expect("the store");
        for kept in store.iter_mut() {
            name.clone_into(&mut kept.name);
        }
    }

    /// Copies of the descriptors that it keeps, which a program inherits, with their names: the last one first, as systemd does.
    pub fn hand_over(&self) -> Vec<(String, OwnedFd)> {
        let mut store = self.shared.store.lock().expect("the store");
        store.retain(|kept| !(kept.is_watched && is_over(&kept.fd)));
        let copy = |fd: &OwnedFd| nix::unistd::dup(fd).expect("dup of a kept descriptor");
        let copies = store.iter().rev();
        copies.map(|kept| (kept.name.clone(), copy(&kept.fd))).collect()
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

    /// As sd_pid_notify_with_fds(3) says: what is kept already is not kept twice, a name is removed with all it has, and what is
    /// watched is dropped when it is over.
    fn keep(&self, text: &str, fds: Vec<OwnedFd>) {
        let mut store = self.store.lock().expect("the store");
        let name = text.lines().find_map(|line| line.strip_prefix("FDNAME="));
        let lines = |wanted: &str| text.lines().any(|line| line == wanted);
        if lines("FDSTOREREMOVE=1") {
            store.retain(|kept| Some(kept.name.as_str()) != name);
        }
        if lines("FDSTORE=1") {
            let is_watched = !lines("FDPOLL=0");
            for fd in fds {
                let is_kept = store.iter().any(|kept| identity(&kept.fd) == identity(&fd));
                let is_dropped = is_kept || is_watched && is_over(&fd);
                if !is_dropped {
                    store.push(Kept {
                        name: name.unwrap_or("stored").to_owned(),
                        fd,
                        is_watched,
                    });
                }
            }
        }
    }
}

/// What tells a file from others. All maps, programs and links of the kernel have one inode: those say their numbers beside it.
fn identity(fd: &OwnedFd) -> Option<(u64, u64, Vec<String>)> {
    let stat = fstat(fd).ok()?;
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()?;
    let is_number = |line: &&str| {
        ["map_id:", "prog_id:", "link_id:"]
            .iter()
            .any(|key| line.starts_with(key))
    };
    let numbers = info.lines().filter(is_number).map(str::to_owned).collect();
    Some((stat.st_dev, stat.st_ino, numbers))
}

/// Whether systemd would drop it: what it watches and has an error, or has been hung up.
fn is_over(fd: &OwnedFd) -> bool {
    let mut polled = [PollFd::new(fd.as_fd(), PollFlags::empty())];
    let over = PollFlags::POLLERR | PollFlags::POLLHUP;
    poll(&mut polled, PollTimeout::ZERO).is_ok()
        && polled[0]
            .revents()
            .is_some_and(|revents| revents.intersects(over))
}
