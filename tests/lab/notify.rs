//! A stand-in for systemd's notification socket.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, net::UnixDatagram},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

/// Collects what a daemon tells its service manager.
pub struct Notify {
    path: PathBuf,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Notify {
    /// A new socket at `path`, writable by everybody. It is read all the time, as systemd does: a daemon that tells a
    /// deaf manager much would block.
    pub fn bind(path: &Path) -> Self {
        fs::remove_file(path).ok();
        let socket = UnixDatagram::bind(path).expect("the notification socket");
        fs::set_permissions(path, fs::Permissions::from_mode(0o777))
            .expect("chmod of the notification socket");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let reader = Arc::downgrade(&seen);
        socket
            .set_read_timeout(Some(Duration::from_millis(100)))
            .expect("a time-out on the notification socket");
        thread::spawn(move || {
            let mut buffer = [0; 8192];
            while let Some(seen) = reader.upgrade() {
                if let Ok(len) = socket.recv(&mut buffer) {
                    let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
                    seen.lock()
                        .expect("assignments")
                        .extend(text.lines().map(str::to_owned));
                }
            }
        });
        Self {
            path: path.to_owned(),
            seen,
        }
    }

    /// What `NOTIFY_SOCKET` is set to.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every assignment received so far, such as `READY=1`, in order.
    pub fn assignments(&self) -> Vec<String> {
        // what was sent a moment ago may still be on its way through the reader
        thread::sleep(Duration::from_millis(20));
        self.seen.lock().expect("assignments").clone()
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
        loop {
            let found = {
                let seen = self.seen.lock().expect("assignments");
                seen.iter()
                    .skip(skip)
                    .any(|assignment| assignment.starts_with(prefix))
            };
            if found {
                return true;
            }
            if start.elapsed() > limit || give_up() {
                return false;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}
