//! A host: one network namespace with an interface on the lab's switch.

use std::{
    fs::{self, File},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread::{self, JoinHandle},
};

use nix::sched::{CloneFlags, setns};

use super::{
    PATIENCE,
    process::{Alone, Output, Process},
};

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// A handle to a host; clones mean the same host.
#[derive(Clone)]
pub struct Host(Arc<Inner>);

struct Inner {
    name: String,
    namespace: String,
    index: u8,
    netns: File,
    dir: Arc<tempfile::TempDir>,
}

impl Host {
    pub(super) fn open(name: &str, namespace: &str, index: u8, dir: Arc<tempfile::TempDir>) -> Self {
        let netns = File::open(format!("/run/netns/{namespace}")).expect("the host's namespace");
        Self(Arc::new(Inner {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            index,
            netns,
            dir,
        }))
    }

    /// Its name in the lab.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// What `ip netns` calls it.
    pub fn namespace(&self) -> &str {
        &self.0.namespace
    }

    /// Its place on the switch, from 1: the port is called `p<index>` there.
    pub fn index(&self) -> u8 {
        self.0.index
    }

    /// Its IPv4 address.
    pub fn ip4(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, self.0.index)
    }

    /// Its IPv6 address.
    pub fn ip6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, u16::from(self.0.index))
    }

    /// An IPv4 address and port of this host.
    pub fn addr(&self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.ip4()), port)
    }

    /// An IPv6 address and port of this host.
    pub fn addr6(&self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V6(self.ip6()), port)
    }

    /// An address and port of this host, of one family.
    pub fn addr_of(&self, family: Family, port: u16) -> SocketAddr {
        match family {
            Family::V4 => self.addr(port),
            Family::V6 => self.addr6(port),
        }
    }

    /// Gives an interface one more address. IPv6 addresses of a whole 128 bits are never chosen as a source by the
    /// kernel, as it should be with a VIP.
    #[track_caller]
    pub fn add_address(&self, interface: &str, address: &str) {
        let more = match (address.contains(':'), address.ends_with("/128")) {
            (true, true) => "nodad preferred_lft 0",
            (true, false) => "nodad",
            (false, _) => "",
        };
        self.run(&format!("ip addr add {address} dev {interface} {more}"));
    }

    /// Makes it a router, one that does not tell hosts of better ways.
    #[track_caller]
    pub fn forward(&self) {
        self.run(
            "for conf in ipv4/ip_forward ipv6/conf/all/forwarding; do echo 1 > /proc/sys/net/$conf; done
             for conf in all default eth0; do echo 0 > /proc/sys/net/ipv4/conf/$conf/send_redirects; done",
        );
    }

    /// A path for a file of this host in the lab's directory.
    pub fn path(&self, file: &str) -> PathBuf {
        self.dir().join(format!("{}-{file}", self.name()))
    }

    /// The lab's directory.
    pub fn dir(&self) -> &Path {
        self.0.dir.path()
    }

    /// Runs `work` on a thread inside the host: sockets made and processes started there belong to it.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let joined = scope
                .spawn(|| {
                    self.enter();
                    work()
                })
                .join();
            joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// As [`inside`](Self::inside), on a thread that lives on.
    pub fn thread<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let host = self.clone();
        thread::spawn(move || {
            host.enter();
            work()
        })
    }

    /// Connects from this host. Gives up in time for the SYN to have been sent five times.
    ///
    /// # Errors
    /// As [`TcpStream::connect_timeout`].
    pub fn try_connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let stream = self.inside(|| TcpStream::connect_timeout(&to, PATIENCE / 4))?;
        // no test waits for ever
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// Connects from this host.
    #[track_caller]
    pub fn connect(&self, to: SocketAddr) -> TcpStream {
        match self.try_connect(to) {
            Ok(stream) => stream,
            Err(error) => panic!("{} cannot connect to {to}: {error}", self.name()),
        }
    }

    /// Runs a shell command on this host; it must succeed. Returns what it printed.
    #[track_caller]
    pub fn run(&self, command: &str) -> String {
        self.try_run(command).succeeded(command, self.name())
    }

    /// Runs a shell command on this host to its end, whatever it is.
    #[track_caller]
    pub fn try_run(&self, command: &str) -> Output {
        let mut shell = Command::new("sh");
        shell.args(["-c", command]);
        self.spawn(shell).finish(PATIENCE)
    }

    /// What the host's kernel has counted so far of a protocol (`Tcp`, `Udp`), under its name in `/proc/net/snmp`.
    #[track_caller]
    pub fn kernel_count(&self, protocol: &str, name: &str) -> u64 {
        // /proc/net is that of the process, not of this thread
        let table = self.inside(|| fs::read_to_string("/proc/thread-self/net/snmp").expect("the counters"));
        let of_it = format!("{protocol}: ");
        let mut lines = table.lines().filter_map(|line| line.strip_prefix(&of_it));
        let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
        let found = names
            .split(' ')
            .zip(values.split(' '))
            .find(|(found, _)| *found == name);
        let value = found.and_then(|(_, value)| value.parse().ok());
        value.unwrap_or_else(|| panic!("no {name} of {protocol}"))
    }

    /// Feeds rules to nftables on this host.
    #[track_caller]
    pub fn nft(&self, rules: &str) {
        // nft 1.0.6 wants its line ends, which a command line does not carry well
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let path = self.path(&format!("{}.nft", NEXT.fetch_add(1, Ordering::Relaxed)));
        fs::write(&path, rules).expect("the rules");
        self.run(&format!("nft -f {}", path.display()));
    }

    /// Starts a shell command on this host and leaves it running.
    #[track_caller]
    pub fn start(&self, command: &str) -> Process {
        let mut shell = Command::new("sh");
        shell.args(["-c", command]);
        self.spawn(shell)
    }

    /// Starts a program on this host. It is killed, with its process group, when the handle goes.
    #[track_caller]
    pub fn spawn(&self, command: Command) -> Process {
        let files = self.dir().to_owned();
        self.inside(|| Process::spawn(command, &files))
    }

    /// As [`spawn`](Self::spawn), with descriptors that nobody else is to inherit.
    #[track_caller]
    pub fn spawn_alone(&self, alone: &Alone, command: Command) -> Process {
        let files = self.dir().to_owned();
        self.inside(|| Process::spawn_alone(alone, command, &files))
    }

    fn enter(&self) {
        setns(&self.0.netns, CloneFlags::CLONE_NEWNET).expect("enter the host's namespace");
    }
}
