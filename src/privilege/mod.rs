//! The broker (the one process that holds capabilities), its verbs and policy, and how the daemon drops
//! everything and proves it.
//!
//! ```text
//! main ── parse ── fork ─┬─ daemon: drop everything, prove it, run       (parent, MainPID)
//!                        ├─ broker: keep three capabilities (four if root, two more for XDP), serve verbs (child)
//!                        └─ runner: drop everything, run the commands that the broker names ([`runner`]) (child)
//! ```
//!
//! The daemon asks by configuration name, never by free address; the broker answers from the configuration that it
//! read itself ([`policy`]). The two trust each other unequally: what the daemon sends is checked, and anything
//! malformed ends the broker; what the broker answers is checked for form, and anything odd is
//! [`BrokerError::Lost`], after which the daemon must end. Neither outlives the other for long: the broker exits at
//! end-of-file, the daemon's [`Client`] says when it is lost.
//!
//! The daemon's loops never wait for the broker: a [`Client`] hands requests to a thread of its own, which holds the
//! [`Channel`]. A broker that does not answer for 20 s fails the request at hand and those that follow it until it does;
//! its late answer is skipped, and what came with it closed.
//!
//! | verb | what it is checked against |
//! |---|---|
//! | [`bind`](Channel::bind) | a listen address or path of a frontend in proxy mode, or the address of `[stats]` |
//! | [`take_over_socket`](Channel::take_over_socket), [`socket_rights`](Channel::socket_rights) | a path of a frontend in proxy mode; the mode and the group are those of the configuration |
//! | [`release_socket`](Channel::release_socket) | a socket that it has made, and whose file nobody has replaced |
//! | [`read`](Channel::read) | a file that the configuration names, or the configuration itself, from the path that the broker knows |
//! | [`packet_socket`](Channel::packet_socket) | an interface that a frontend in a packet mode names or whose address is its VIP, or by which a passthrough server is reached |
//! | [`serve`](Channel::serve) | firewall rules and filters for services of the configuration, or that were in effect; servers of a backend with `[discovery]` within its bound |
//! | [`server_sockets`](Channel::server_sockets) | a kind that a frontend with `source = "client"` or a backend with `server_socket.mark` needs, in the configuration or in the one before that is still in effect |
//! | [`connect`](Channel::connect) | a unix socket that a source of servers is asked at, in the configuration or in the one before that is still in effect |
//! | [`log_file`](Channel::log_file), [`log_socket`](Channel::log_socket) | a `file` or a unix socket of a `connection_log`, in the configuration or in the one before that is still in effect; files are opened to be appended to |
//! | [`write_config`](Channel::write_config) | a text in place of the configuration file, if that had `allow_config_writes` at the start and the text adds no command, interface, privileged port, unix socket or file elsewhere |
//! | [`in_effect`](Channel::in_effect) | nothing: it takes rights away |
//! | [`xdp_load`](Channel::xdp_load), [`xdp_tables`](Channel::xdp_tables) | the configuration has `engine = "xdp"`; the program is the one in this binary, the number of flows that of the broker's own configuration |
//! | [`xdp_attach`](Channel::xdp_attach) | as `packet_socket` |
//! | [`xdp_detach`](Channel::xdp_detach), [`xdp_settled`](Channel::xdp_settled) | nothing: they take away |
//!
//! Three ways to start, one code:
//!
//! | started as | the daemon | the broker |
//! |---|---|---|
//! | root | becomes the [`Target`] user with nothing | becomes it too, keeping NET_BIND_SERVICE, NET_ADMIN, NET_RAW, DAC_READ_SEARCH, the groups of `socket_group`, and those of that user where a source of servers is asked at a unix socket |
//! | an ordinary user with ambient capabilities (the packaged unit) | drops them | keeps NET_BIND_SERVICE, NET_ADMIN, NET_RAW |
//! | an ordinary user | has nothing to drop but the bounding set, which it cannot without CAP_SETPCAP | can bind ports from 1024 |
//!
//! The broker keeps these whatever the modes are, because a reload may add the first frontend in a packet mode. NET_ADMIN
//! and NET_RAW are inheritable in it, and ambient only while it runs `iptables`. Where the configuration at the start has
//! `engine = "xdp"` it keeps BPF too, and PERFMON until it has loaded the program, which without it is slower.
//!
//! What the service manager has kept of an earlier program (its maps, its links to interfaces) the daemon's process gets at its
//! start, as systemd hands it to nobody else, and moves it into the broker by the fork: neither daemon nor runner has it after that.
//! The broker looks at what each of them is, goes on with it or ends it, and has what it makes kept by messages of its own. Of
//! the program the daemon gets what it works with, and notes for the daemon after it; never a link, nor the maps that say
//! which packets are ours.
//!
//! # What this does not contain
//!
//! The daemon has no capability, may not execute, look into other processes, or make sockets of other families, and
//! where the kernel has landlock it reaches no files but its own. But whoever takes it over
//!
//! - holds the packet sockets: with one, arbitrary frames can be *sent* on any interface of the network namespace, with any
//!   source address (the kernel takes the interface from each message, where no filter can look). Received is only what the
//!   socket filters admit, which the daemon cannot change: that is denied to all its threads. But it can hand such a socket
//!   to a process of its user that it has not made (SCM_RIGHTS): that one may take the filter away without a capability,
//!   and then receives all that the interface does. This is not held until the XDP engine brings eBPF: a locked filter
//!   (SO_LOCK_FILTER) that reads a map of the broker's. On the threads of the packet
//!   engine it cannot even bind a packet socket to another interface; on its other threads, which need `bind`, it can;
//! - where the configuration has `engine = "xdp"`: holds the maps of that program but the two that say which packets are ours, so
//!   that it sends those of the services in effect in mode `dsr` to whatever link address and by whatever attached interface it
//!   likes, rewritten to any address; and runs the program on frames of its own making, by which it leaves no other host than it
//!   reaches with a packet socket. It makes, loads, attaches and detaches nothing. What it does to those maps and notes outlives
//!   it where the service manager keeps them: the daemon after it goes on by them, until `systemctl stop` and `start`;
//! - where a service manager keeps descriptors: has it keep others, or none, so that the next start finds less, or nothing, to
//!   go on with; and says what it likes of the service, its main process among it. The commands that the runner starts can say
//!   the same (`NotifyAccess=all`), though nothing tells them where;
//! - makes TCP and UDP connections to anywhere, as a load balancer must, and listens on ports from 1024;
//! - connects to any unix socket at a path that its user may write to, whether a server is there or not: landlock has no rule
//!   for that. A user that is put in the group of a server's socket can reach whatever else that group can;
//! - where a frontend has `source = "client"`: speaks for anybody. With a transparent socket it connects, and sends datagrams,
//!   with any source address, not only those of clients, to any server; hears the answers wherever this host's routing rules
//!   bring them to it; and listens on any address from port 1024. What it has got of them it keeps: a reload without such a
//!   frontend ends the supply, a restart takes them away. Without such a frontend it gets none, and cannot make one: the option
//!   needs CAP_NET_RAW or CAP_NET_ADMIN;
//! - where a backend has `server_socket.mark`: gives connections of its own choice that mark, and no other, so that they take
//!   the routes and pass the filters that this host has for it;
//! - chooses the interface by which its own connections leave (`server_socket.interface`: SO_BINDTODEVICE, which takes no
//!   capability on a socket that has none yet), and with it the VRF, and the class of their packets;
//! - has the broker put rules in effect for any part of the configuration, or none: it can stop the service;
//! - where a frontend in a packet mode uses a backend with `[discovery]`: has rules and filters put in for servers of its own
//!   choice, for their addresses are not in the file. They are unicast addresses within `servers_within` (by default all but
//!   loopback and link-local ones and those of this host), never a VIP, on the ports that the mode asks for, and at most twice
//!   `max_servers` at a time. In passthrough it so hears what such hosts send to the NAT ports of the load balancer, which
//!   this host's own programs then do not; it hears nothing else of them, and other backends stay exact. Narrow
//!   `servers_within` to the servers' networks;
//! - where a source of servers is asked at a unix socket (Docker, LXD, Incus): is connected to it by the broker as often as it
//!   likes, and can ask for whatever its API does, which is what root does on this host. A proxy of that API that lets through
//!   what Convey asks for, or TLS to another host, is the way not to give that away;
//! - where there is no landlock, reads the files of its user: give it one of its own, as the package does. It signals and
//!   limits no process but itself;
//! - writes into the files of `connection_log` what it likes, over what stands there, too: the kernel lets who has a descriptor
//!   take O_APPEND back. A log that must outlive an intruder is sent to another host (`syslog`);
//! - reaches the kernel by the system calls that are listed, and no others (`seccomp`).
//!
//! What it hands the broker is looked at before it is used, and not closed unless it is what it should be: a socket with
//! SO_LINGER would hold the broker up. The broker ends with the daemon (pidfd), whoever else holds its channel by then, and
//! not by a signal (PR_SET_PDEATHSIG), for it takes the rules out first. A broker that may read everything reads for nobody
//! what he could not read himself (`sys::controllers`).
//!
//! - has the runner run any command of the configuration, as often as it likes (32 at once), and gives it what it likes to read
//!   on standard input; the command line it cannot choose, but for the address and port of a server where the line has `$host` and
//!   `$port`: parsed as such by the runner, never text.
//!
//! A command runs as the same user without a capability, under a deny list of system calls and, where the kernel has landlock,
//! without the files that this page says are hidden from it. By itself it is trusted with the network, and with whatever that
//! user may open. It signals none of our processes (seccomp knows their numbers), and the control socket refuses it by its
//! descent, for no file mode could.
//!
//! The broker, which takes no input but the daemon's few messages and the configuration file, is not filtered: it executes
//! `iptables`.

mod archive;
mod broker;
mod channel;
mod client;
mod confine;
mod drop;
mod files;
mod kernel;
mod log_places;
mod logs;
mod message;
mod packets;
mod policy;
mod rules_news;
mod runner;
pub mod sandbox;
mod seccomp;
mod socket_files;
mod start;
mod switch;
mod target;
#[cfg(test)]
mod tests;
mod write;

use std::{io, path::PathBuf, time::Duration};

use crate::{
    access::MAX_LIST_BYTES,
    base::{FrontendName, Holder, ListenerId, NetworkListName},
    config::{Diagnostic, Loaded, MAX_CONFIG_BYTES, Options, Source},
};

pub use archive::{ArchiveError, ArchivedFile, read as read_archive};
pub use channel::{Changed, Channel, FileRead, XdpGrant};
pub(crate) use client::{BrokerNews, Client, News};
pub use drop::{DropError, Proof, drop_privileges, prove};
pub(crate) use files::LOOK;
pub use kernel::{
    ClaimError, KernelOps, NoPacketModes, Served, Takeover, XdpAttached, XdpInterface, XdpLoad,
};
pub use message::{MAX_TABLES, XDP_DESCRIPTORS, XDP_REGISTRY};
pub(crate) use policy::Policy;
pub use sandbox::Sandbox;
pub use start::{Children, ForkError, Start};
pub use target::{Target, TargetError, resolve_target};

/// How the broker makes a configuration of bytes: [`crate::config::load`].
pub type Parser = fn(&Source, Options) -> Result<Loaded, Vec<Diagnostic>>;

/// Largest file about TLS, in bytes: revocation lists of large CAs have some MiB.
pub const TLS_FILE_BYTES: usize = 16 << 20;

/// Most bytes of all files of a `certificate_dir` together, with their names.
pub const DIRECTORY_BYTES: usize = 64 << 20;

/// Largest file of a `certificate_dir`, in bytes: one with a long chain has some 20 KiB.
pub const DIRECTORY_FILE_BYTES: usize = 1 << 20;

/// Largest file that names servers, in bytes: the most that `max_answer_bytes` may be.
pub const DISCOVERY_FILE_BYTES: usize = 16 << 20;

/// Largest file of tokens for the admin API, in bytes: some 3,000 lines.
pub const TOKENS_FILE_BYTES: usize = 256 << 10;

/// A file that the broker reads for the daemon.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// The configuration file.
    Config,
    /// A file of `[network_lists]`.
    NetworkList(NetworkListName),
    /// A file that is about TLS, by its path in the configuration: certificate, key, CA, revocation list, OCSP response,
    /// ticket keys.
    TlsFile(PathBuf),
    /// A `certificate_dir`, by its path in the configuration: its names are those that the broker finds there.
    CertificateDir(PathBuf),
    /// A file that names servers (`[discovery]`), by its path in the configuration.
    DiscoveryFile(PathBuf),
    /// The file of tokens for the admin API, by its path in the configuration.
    TokensFile(PathBuf),
    /// A file that asking a CA for certificates needs (`[acme]`), by its path in the configuration.
    AcmeFile(PathBuf),
    /// A file that sending logs to other hosts needs, by its path in the configuration, or one of this host that says
    /// which addresses names have.
    TelemetryFile(PathBuf),
}

impl What {
    /// Most bytes that it may have.
    const fn limit(&self) -> usize {
        match self {
            Self::Config => MAX_CONFIG_BYTES,
            Self::NetworkList(_) => MAX_LIST_BYTES,
            Self::TlsFile(_) | Self::AcmeFile(_) | Self::TelemetryFile(_) => TLS_FILE_BYTES,
            Self::TokensFile(_) => TOKENS_FILE_BYTES,
            Self::CertificateDir(_) => DIRECTORY_BYTES,
            Self::DiscoveryFile(_) => DISCOVERY_FILE_BYTES,
        }
    }
}

/// What `tests/fuzz` needs besides: the broker's part without its process.
#[cfg(fuzzing)]
pub mod fuzzing {
    use std::{collections::BTreeSet, os::fd::BorrowedFd, path::PathBuf};

    use super::{
        KernelOps, Parser, Policy, broker, files::Files, packets::PacketSockets, rules_news::RulesNews,
        socket_files::SocketFiles, write::Writes,
    };
    use crate::config::{Config, Options};

    pub use super::message::{FormError, Outcome, Reply, Request, Verb, decode, encode};

    /// A broker in this process, with what rights this has.
    pub struct Broker(broker::Broker);

    impl Broker {
        /// A broker of the configuration at a path, which it reads again with `parse`.
        #[must_use]
        pub fn new(path: PathBuf, config: Config, parse: Parser, kernel: Box<dyn KernelOps>) -> Self {
            Self(broker::Broker {
                files: Files::new(path, &config),
                name: "convey.toml".to_owned(),
                options: Options::default(),
                parse,
                writes: Writes::new(config.admin.allow_config_writes),
                policy: Policy::new(config),
                adopted: None,
                bound: BTreeSet::new(),
                sockets: SocketFiles::default(),
                packets: PacketSockets::new(kernel, 1),
                rules: RulesNews::default(),
                keeps_rules: false,
                keeps_sockets: false,
                runner: None,
                daemon: None,
            })
        }

        /// Answers on a socket until its other end is closed, or a message ends the broker. Returns the exit status.
        pub fn answer_all(&mut self, socket: BorrowedFd<'_>) -> i32 {
            self.0.answer_all(socket)
        }
    }
}

/// A listener that the configuration names. The broker binds nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ListenerRef {
    /// One that a frontend has.
    Frontend {
        /// The frontend.
        name: String,
        /// Which one.
        listener: ListenerId,
    },
    /// The `[stats]` listener.
    Stats,
    /// The admin API on TCP (`listen_addr` of `[admin]`).
    AdminApi,
    /// Where HTTP-01 is answered (`http_listen_addr` of `[acme]`).
    AcmeHttp,
}

impl ListenerRef {
    /// Names a frontend's listener.
    #[must_use]
    pub fn frontend(name: &FrontendName, listener: ListenerId) -> Self {
        Self::Frontend {
            name: name.as_str().to_owned(),
            listener,
        }
    }
}

/// Why the broker did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The configuration (as the broker read it) does not name this.
    #[error("the privileged broker refused: {0}")]
    Refused(String),
    /// The system call behind the verb failed.
    #[error("{step}: {source}{}", help(source))]
    Failed {
        /// What was tried, for example `bind 0.0.0.0:80`.
        step: String,
        /// Why it failed.
        source: io::Error,
    },
    /// Another process holds the packet modes of this network namespace.
    #[error("{}", held(.0))]
    Held(Holder),
    /// Rules or filters could not be applied; those that were still are.
    #[error("{0}")]
    Unable(String),
    /// The configuration file has another text than the one that was to be replaced.
    #[error("the configuration file was changed meanwhile")]
    Changed,
    /// The file cannot be read: missing, forbidden, not a regular file, too large.
    #[error("{0}")]
    Unreadable(String),
    /// No answer for this long. It may come yet; nobody waits for it any more.
    #[error(
        "the privileged broker has not answered for {} s: a hanging file system or another program holding the iptables lock \
         may block it; try again later",
        .0.as_secs()
    )]
    Silent(Duration),
    /// The broker is gone or talks nonsense: the daemon must end.
    #[error("lost the privileged broker: {0}")]
    Lost(String),
}

/// What an operator can do about a holder of the packet modes.
fn held(holder: &Holder) -> String {
    match (&holder.config_file, holder.pid) {
        (Some(_), _) => format!(
            "{holder} holds the packet modes of this network namespace, which one convey serves at a time: stop it, or have one \
             of the two serve no frontend in mode passthrough or dsr"
        ),
        (None, pid) => format!(
            "{holder} holds the name by which one convey serves the packet modes of this network namespace \
             (@convey-packet-modes), and does not answer as a convey of root or of this user: {}",
            pid.map_or_else(
                || "find it with `ss -xlp` and stop it".to_owned(),
                |pid| format!("see `ps -fp {pid}`, and stop it")
            )
        ),
    }
}

/// What an operator can do about a listener that could not be made.
fn help(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; see who listens there with `ss -ltnp`",
        io::ErrorKind::AddrNotAvailable => "; no interface has this address, see `ip address`",
        io::ErrorKind::PermissionDenied => {
            "; a port below 1024 needs CAP_NET_BIND_SERVICE, a packet socket CAP_NET_RAW: \
             start convey with systemctl or sudo"
        }
        _ => "",
    }
}
