//! A stand-in for systemd's notification socket.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, net::UnixDatagram},
    path::{Path, PathBuf},
    sync::Mutex,
    time::{Duration, Instant},
};

/// Collects what a daemon tells its service manager.
pub struct Notify {
    path: PathBuf,
    socket: UnixDatagram,
    seen: Mutex<Vec<String>>,
}

impl Notify {
    /// A new socket at `path`, writable by everybody.
    pub fn bind(path: &Path) -> Self {
        fs::remove_file(path).ok();
        let socket = UnixDatagram::bind(path).expect("the notification socket");
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .expect("a time-out on the notification socket");
        fs::set_permissions(path, fs::Permissions::from_mode(0o777))
            .expect("chmod of the notification socket");
        Self {
            path: path.to_owned(),
            socket,
            seen: Mutex::default(),
        }
    }

    /// What `NOTIFY_SOCKET` is set to.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every assignment received so far, such as `READY=1`, in order.
    pub fn assignments(&self) -> Vec<String> {
        while self.receive() {}
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
            if start.elapsed() > limit || (!self.receive() && give_up()) {
                return false;
            }
        }
    }

    fn receive(&self) -> bool {
        let mut buffer = [0; 8192];
        let Ok(len) = self.socket.recv(&mut buffer) else {
            return false;
        };
        let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
        let mut seen = self.seen.lock().expect("assignments");
        seen.extend(text.lines().map(str::to_owned));
        true
    }
}
