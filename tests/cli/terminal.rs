//! A daemon on a terminal: readable lines, and it ends with the terminal.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    path::PathBuf,
    process::{Child, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::{
    fcntl::OFlag,
    pty::{grantpt, posix_openpt, ptsname_r, unlockpt},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{convey, directory, file, text};

/// How long anything may take before it counts as hung.
const PATIENCE: Duration = Duration::from_secs(120);

/// A daemon that was started on a terminal.
struct OnTerminal {
    child: Child,
    /// Its lines, as a terminal shows them.
    lines: Receiver<String>,
    /// Our side of the terminal, which the reader has too, until it is told to end after the next line.
    ours: Option<OwnedFd>,
    reader: Option<JoinHandle<()>>,
    is_last_line: Arc<AtomicBool>,
    file: PathBuf,
    _directory: tempfile::TempDir,
}

impl OnTerminal {
    fn start() -> Self {
        let directory = directory();
        let path = file(&directory, "c.toml", config(&directory));
        let (ours, theirs) = open_terminal();
        let side = || Stdio::from(theirs.try_clone().expect("a descriptor"));
        let child = convey()
            .args(["-c", text(&path)])
            .env("TERM", "xterm")
            .env_remove("NOTIFY_SOCKET")
            .stdin(side())
            .stdout(side())
            .stderr(side())
            .spawn()
            .expect("convey runs");
        drop(theirs);
        let is_last_line = Arc::new(AtomicBool::new(false));
        let (send, lines) = channel();
        let reader = File::from(ours.try_clone().expect("a descriptor"));
        let is_last = Arc::clone(&is_last_line);
        let reader = thread::spawn(move || {
            for line in BufReader::new(reader).lines().map_while(Result::ok) {
                // nobody may be listening any more
                let _ = send.send(line.trim_end().to_owned());
                if is_last.load(Ordering::SeqCst) {
                    break;
                }
            }
        });
        Self {
            child,
            lines,
            ours: Some(ours),
            reader: Some(reader),
            is_last_line,
            file: path,
            _directory: directory,
        }
    }

    /// Lines up to the one that has this in it.
    fn until(&self, words: &str) -> Vec<String> {
        let mut seen = Vec::new();
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            seen.push(line.unwrap_or_else(|_| panic!("no `{words}` in {seen:?}")));
            if seen.last().is_some_and(|line| line.contains(words)) {
                return seen;
            }
        }
    }

    /// Changes the configuration, and says so by a SIGHUP.
    fn reload(&self, retries: u32) {
        let text = fs::read_to_string(&self.file).expect("the configuration");
        let (kept, _) = text.split_once("\n[defaults]").unwrap_or((&text, ""));
        fs::write(&self.file, format!("{kept}\n[defaults]\nretries = {retries}\n")).expect("write");
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a process id"));
        kill(pid, Signal::SIGHUP).expect("kill");
    }

    /// Closes the terminal, by the time of whose end the daemon has had a SIGHUP.
    fn close(&mut self) {
        self.is_last_line.store(true, Ordering::SeqCst);
        // makes the last line
        self.reload(7);
        let reader = self.reader.take().expect("closed once");
        reader.join().expect("the reader");
        drop(self.ours.take());
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        // it may have ended
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Both sides of a new terminal, which no other child gets: it would stay open.
pub fn open_terminal() -> (OwnedFd, OwnedFd) {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY;
    let ours = posix_openpt(flags | OFlag::O_CLOEXEC).expect("a terminal");
    grantpt(&ours)
        .and_then(|()| unlockpt(&ours))
        .expect("its other side");
    let name = ptsname_r(&ours).expect("its name");
    let theirs = (File::options().read(true).write(true))
        .custom_flags(flags.bits())
        .open(name)
        .expect("its other side");
    let ours = ours.as_fd().try_clone_to_owned().expect("a descriptor");
    (ours, theirs.into())
}

/// A configuration with a listener, of which nothing else is needed.
fn config(directory: &tempfile::TempDir) -> String {
    format!(
        "[global]\nstate_dir = '{}'\nwatch_config = false\n[admin]\nsocket = ''\n[frontends.web]\n\
         listen_addr = '127.0.0.1:{}'\nbackend = 'app'\n[backends.app]\nhealth_check.enabled = false\n\
         servers.a = {{ addr = '127.0.0.1:9' }}\nservers.b = {{ addr = '127.0.0.1:19' }}\n",
        directory.path().join("state").display(),
        free_port()
    )
}

fn free_port() -> u16 {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    socket.local_addr().expect("its address").port()
}

#[test]
fn its_log_is_a_readable_line_an_event() {
    let convey = OnTerminal::start();
    let lines = convey.until("ready: ");
    let listening = (lines.iter())
        .find(|line| line.contains("listening on 127.0.0.1:"))
        .unwrap_or_else(|| panic!("{lines:?}"));
    assert!(
        listening.ends_with("(frontend web → backend app, 2 of 2 servers up)"),
        "{listening}"
    );
    for line in &lines {
        for noise in ["convey::", "event=", "0x", "frontend="] {
            assert!(!line.contains(noise), "{noise}: {line}");
        }
    }
    assert!(
        lines.iter().any(|line| line.contains('\x1b')),
        "coloured: {lines:?}"
    );
}

#[test]
fn it_ends_when_its_terminal_is_closed_and_not_before() {
    let mut convey = OnTerminal::start();
    convey.until("ready: ");
    // as long as the terminal is there, the signal is a reload
    convey.reload(5);
    convey.until("reload (SIGHUP)");
    convey.close();
    let ended = convey.child.wait().expect("wait");
    assert_eq!(ended.code(), Some(0));
}
