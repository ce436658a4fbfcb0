//! The lab: hosts made of network namespaces, real servers, the real daemon.
//!
//! ```text
//!   client ──┐                  every host has eth0 with 10.77.0.N and fd77::N (N = order of creation),
//!   lb ──────┤ br0 (switch)     plugged into one bridge; labs share nothing, so tests run side by side
//!   web a ───┘
//! ```
//!
//! Everything that a lab starts or makes ends with it, also when the test panics. What a killed test run leaves is
//! removed by the next one. Helpers panic with what went wrong: they are called by tests only.
#![allow(dead_code, reason = "each suite uses its part of the lab")]

pub mod checksums;
pub mod collector;
pub mod convey;
pub mod crowd;
pub mod dsr;
pub mod fleet;
pub mod forge;
pub mod host;
pub mod kernel;
pub mod load;
pub mod nginx;
pub mod notify;
pub mod process;
pub mod servers;
mod stale;
pub mod suite;
pub mod udp;
pub mod unix;

use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    sync::{
        Arc, Mutex, Once,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

pub use convey::Convey;
pub use host::{Family, Host};
pub use nginx::Nginx;
pub use process::{Output, Process};

/// How long anything may take before it counts as hung: the one limit of every wait. No test fails because a host is slow,
/// so it is far above what anything takes.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// What every namespace of a lab is called: `convey-lab-<pid>-<lab>-<host>`.
const PREFIX: &str = "convey-lab";

static NEXT_LAB: AtomicU32 = AtomicU32::new(1);

/// A network of hosts, gone when dropped.
pub struct Lab {
    name: String,
    prefix: String,
    hosts: Mutex<Vec<String>>,
    dir: Arc<tempfile::TempDir>,
}

impl Lab {
    /// A network without hosts: the switch only.
    pub fn new(name: &str) -> Self {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            stale::sweep();
            raise_descriptor_limit();
        });
        let number = NEXT_LAB.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("{PREFIX}-{}-{number}", std::process::id());
        let dir = tempfile::Builder::new()
            .prefix(&format!("{prefix}-"))
            .tempdir()
            .expect("a temporary directory");
        // the daemon gives up root and must still reach its files
        open_to_all(dir.path());
        let lab = Self {
            name: name.to_owned(),
            hosts: Mutex::new(vec!["switch".to_owned()]),
            dir: Arc::new(dir),
            prefix,
        };
        let switch = lab.namespace("switch");
        batch(&[], &format!("netns add {switch}\n"));
        batch(
            &["-n", &switch],
            "link add br0 type bridge stp_state 0 mcast_snooping 0\nlink set br0 addrgenmode none\nlink set br0 up\n",
        );
        lab
    }

    /// A new host on the network.
    pub fn host(&self, name: &str) -> Host {
        let index = {
            let mut hosts = self.hosts.lock().expect("hosts");
            assert!(
                !hosts.iter().any(|host| host == name),
                "two hosts are called {name}"
            );
            hosts.push(name.to_owned());
            u8::try_from(hosts.len() - 1).expect("at most 255 hosts")
        };
        let (own, switch) = (self.namespace(name), self.namespace("switch"));
        batch(
            &[],
            &format!(
                "netns add {own}\nlink add p{index} netns {switch} type veth peer name eth0 netns {own}\n"
            ),
        );
        batch(
            &["-n", &switch],
            &format!("link set p{index} addrgenmode none\nlink set p{index} master br0 up\n"),
        );
        let host = Host::open(name, &own, index, Arc::clone(&self.dir));
        let mut setup = String::from("link set lo up\nlink set eth0 addrgenmode none\nlink set eth0 up\n");
        let _ = writeln!(setup, "addr add {}/24 dev eth0", host.ip4());
        let _ = writeln!(setup, "addr add {}/64 dev eth0 nodad", host.ip6());
        // without one, neighbours are never solicited for a packet that is not the host's own
        let _ = writeln!(setup, "addr add fe80::{index:x}/64 dev eth0 nodad");
        batch(&["-n", &own], &setup);
        // until then the switch drops what comes first, and a lost ARP request is repeated after a second only
        wait_until("the switch forwards", PATIENCE, || is_forwarding(&switch, index));
        host
    }

    /// The switch, as a host without addresses.
    pub fn switch(&self) -> Host {
        Host::open("switch", &self.namespace("switch"), 0, Arc::clone(&self.dir))
    }

    /// Joins two hosts by a cable of their own, besides the switch: an interface on each, up, without addresses yet
    /// (see [`Host::add_address`]). Pull it with `ip link del`.
    pub fn cable(&self, one: (&Host, &str), other: (&Host, &str)) {
        let ((a, a_name), (b, b_name)) = (one, other);
        batch(
            &[],
            &format!(
                "link add {a_name} netns {} type veth peer name {b_name} netns {}\n",
                a.namespace(),
                b.namespace()
            ),
        );
        for (host, name) in [one, other] {
            batch(
                &["-n", host.namespace()],
                &format!(
                    "link set {name} addrgenmode none\nlink set {name} up\naddr add fe80::{:x}/64 dev {name} nodad\n",
                    host.index()
                ),
            );
        }
    }

    /// Pulls a host's plug at the switch: it is gone without a word, as after a power cut.
    pub fn unplug(&self, host: &Host) {
        self.set_port(host, "down");
    }

    /// Plugs it in again.
    pub fn plug(&self, host: &Host) {
        self.set_port(host, "up");
        let switch = self.namespace("switch");
        wait_until("the switch forwards", PATIENCE, || {
            is_forwarding(&switch, host.index())
        });
    }

    fn set_port(&self, host: &Host, state: &str) {
        batch(
            &["-n", &self.namespace("switch")],
            &format!("link set p{} {state}\n", host.index()),
        );
    }

    /// Debian's nginx on a host of its own that answers every request on port 80 with `body`.
    pub fn nginx(&self, name: &str, body: &str) -> Nginx {
        Nginx::start(&self.host(name), body)
    }

    /// The load balancer under test on `host`, ready.
    pub fn convey(&self, host: &Host, config: &str) -> Convey {
        Convey::start(host, config)
    }

    /// Where the lab keeps its files; readable by everybody, gone with the lab.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn namespace(&self, host: &str) -> String {
        format!("{}-{host}", self.prefix)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let names = self.hosts.lock().map(|hosts| hosts.clone()).unwrap_or_default();
        if thread::panicking() && std::env::var_os("CONVEY_LAB_KEEP").is_some() {
            eprintln!(
                "lab {} ({}) is left standing: CONVEY_LAB_KEEP is set",
                self.name, self.prefix
            );
            return;
        }
        let mut lines = String::new();
        for host in &names {
            let _ = writeln!(lines, "netns del {}", self.namespace(host));
        }
        // -force: go on after an error, the rest must go too
        run_batch(&["-force"], &lines).ok();
    }
}

/// Whether a port of the switch lets packets through.
fn is_forwarding(switch: &str, port: u8) -> bool {
    let output = Command::new("ip")
        .args(["-n", switch, "-d", "link", "show", &format!("p{port}")])
        .output();
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("state forwarding"))
}

/// Runs `ip -batch`, which must succeed.
fn batch(options: &[&str], lines: &str) {
    if let Err(problem) = run_batch(options, lines) {
        panic!("ip {} failed on\n{lines}{problem}", options.join(" "));
    }
}

fn run_batch(options: &[&str], lines: &str) -> Result<(), String> {
    use std::{io::Write as _, process::Stdio};
    let mut ip = Command::new("ip")
        .args(options)
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot start ip (package iproute2): {error}"))?;
    if let Some(mut stdin) = ip.stdin.take() {
        stdin
            .write_all(lines.as_bytes())
            .map_err(|error| error.to_string())?;
    }
    let output = ip.wait_with_output().map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// Why labs cannot be made here; `None` where they can.
pub fn why_not() -> Option<String> {
    if !nix::unistd::Uid::effective().is_root() {
        return Some("network namespaces need root".to_owned());
    }
    let missing: Vec<&str> = ["ip", "nginx", "curl", "wrk", "iperf3", "nc"]
        .into_iter()
        .filter(|tool| !is_installed(tool))
        .collect();
    (!missing.is_empty()).then(|| format!("not installed: {} (run packaging/test)", missing.join(", ")))
}

/// Why the tests of the packet modes cannot run here; `None` where they can.
pub fn why_not_packets() -> Option<String> {
    if let Some(reason) = why_not() {
        return Some(reason);
    }
    let missing: Vec<&str> = ["nft", "iptables", "ip6tables", "dig", "dnsmasq"]
        .into_iter()
        .filter(|tool| !is_installed(tool))
        .collect();
    (!missing.is_empty()).then(|| format!("not installed: {} (run packaging/test)", missing.join(", ")))
}

/// Whether a command is in PATH.
pub fn is_installed(tool: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|dir| {
            fs::metadata(dir.join(tool))
                .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
        })
    })
}

/// Waits until `done` says so; panics with `what` after `limit`.
#[track_caller]
pub fn wait_until(what: &str, limit: Duration, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(
            start.elapsed() < limit,
            "timed out after {limit:?} waiting for: {what}"
        );
        thread::sleep(Duration::from_millis(10));
    }
}

/// Bytes that compress and repeat badly, the same for the same seed (xorshift64, Marsaglia 2003).
pub fn random_bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

pub fn open_to_all(dir: &Path) {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).expect("chmod of the lab's directory");
}

fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("raise the descriptor limit to the hard one");
    }
}
