//! A stand-in for systemd's notification socket.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, net::UnixDatagram},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
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
        let mut buffer = [0; 8192];
        while !self.stop.load(Ordering::Relaxed) {
            let Ok(len) = socket.recv(&mut buffer) else {
                continue;
            };
            let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
            let mut seen = self.seen.lock().expect("assignments");
            seen.extend(text.lines().map(str::to_owned));
        }
    }
}
