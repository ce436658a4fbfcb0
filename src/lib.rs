//! Convey, a layer-4 load balancer for Linux. This page is the architecture.
//!
//! One binary, three processes, one configuration file, three modes: **proxy** (a connection is terminated and a second one
//! goes to a server), **passthrough** (packets are full-NATed) and **dsr** (only the destination is rewritten, the server
//! answers the client directly). Frontends of all modes live in one process.
//!
//! # Layers
//!
//! Imports point down only; `tests/house` fails on one that points up or sideways.
//!
//! ```text
//! cli            command line: clap definitions, one file a subcommand, tables and JSON
//! daemon         wiring: start order, control loop, reload, drain, logging     the only place where the I/O modules meet
//! ─ I/O ───────────────────────────────────────────────────────────────────────  these do not import each other
//! proxy          listeners, choice of a server, connect, relay                 worker threads
//! engine         raw: packet sockets and the threads that serve them           packet threads
//!                xdp: a program in the kernel, its maps, raw as its slow path  keeper's thread
//!                network: links, addresses, routes, neighbours by netlink      control thread
//! health         active checks                                                 control thread
//! discovery      sources of servers, their answers                             control thread
//! acme           certificates that are ordered from a CA and renewed           control thread
//! admin          control endpoint (HTTP/JSON, unix socket and TCP), /stats     admin thread
//! firewall       the chain CONVEY, reserved ports                              broker, `convey firewall`
//! backend_setup  scripts for the servers of DSR frontends                      control and admin thread, `convey backend-script`
//! privilege      broker and runner; dropping privileges and proving it         all processes
//! ─ low I/O ───────────────────────────────────────────────────────────────────
//! client         asking what answers slowly: web servers, name servers, the runner of commands
//! tls            certificates, sessions, rustls configurations; no network
//! ─ sys ───────────────────────────────────────────────────────────────────────  the only unsafe code, safe API out
//! ─ pure ──────────────────────────────────────────────────────────────────────  no I/O, no clock, no randomness
//! flow           flow tables, NAT ports, TCP life, the path from packet to verdict
//! snapshot       what data planes read: pools + health, and routes made ready; a build costs what changed
//! pools          which servers there are: configuration + discovered ones + overrides
//! balance        choosing among servers
//! packet         checked views of frames, checksums, rewriting, answers
//! preamble       PROXY headers read and written, ClientHello read
//! import         configurations of other load balancers, translated               `convey import`
//! config         bytes → spanned tree → raw tables → Config, with every diagnostic; print, diff, schema
//! access         networks, rules, limits of clients: who may open a connection
//! base           names, addresses, reasons, exit statuses
//! ```
//!
//! # Processes and threads
//!
//! | process | thread | does | may |
//! |---|---|---|---|
//! | `convey` | control | signals, reload, health checks, netlink, systemd | nothing: no capability, not root, system calls filtered |
//! | | `convey-client` | asks the broker, one request after another; hears from it which files have changed | |
//! | | `convey-admin` | serves every endpoint: control socket, admin API on TCP, `/stats` | |
//! | | `convey-admin-walk` | walks through all flows for a list of connections, while one is asked for | |
//! | | `convey-worker-N`, one a CPU | accepts, relays; a connection never changes thread | |
//! | | `convey-packet-N`, one a CPU | receives, rewrites and sends packets | nor bind a socket or set its options |
//! | | `convey-xdp`, with engine xdp | writes the maps of the kernel's program, reads its counters, clears expired flows away; asks the broker for tables | |
//! | | `convey-log` | writes the journal or stderr from a bounded queue | |
//! | | `convey-logfile`, one a file of `connection_log` | appends lines about connections; the broker has opened it | |
//! | | `convey-export`, where they go to syslog servers | sends them, a task a server | |
//! | | `convey-state` | writes the overrides to the state directory; nothing waits for it | |
//! | | the file watcher's | tells of changes near the configuration file | |
//! | `convey-broker` | one | binds listeners, opens packet sockets and makes transparent and marked sockets that the configuration needs, installs firewall rules, loads and attaches the XDP program, opens log files, reads that file again | CAP_NET_BIND_SERVICE, CAP_NET_ADMIN, CAP_NET_RAW; CAP_DAC_READ_SEARCH if started by root; CAP_BPF for the XDP engine, CAP_PERFMON until that is loaded |
//!
//! | `convey-runner` | one | starts the commands that the configuration names, as the broker has read it | nothing; its commands neither |
//! | `convey-command` | one, a process for each command that runs | watches over it, and ends all that it has started | |
//!
//! Broker and runner are forked before any thread exists, and talk only to the daemon, over a socketpair each; the broker tells
//! the runner which commands there are. Neither outlives the daemon. What this contains and what it does not is said in [`privilege`].
//!
//! # How data flows
//!
//! ```text
//! file ─► broker ─► config ─┐                                   ┌─► workers ─► connections
//! sources ─► discovery ─────┤                                   │
//! operator ─► overrides ────┴─► pools ─┬─► snapshot ─► ArcSwap ──┤
//!    ▲          checks ─► health ──────┘                         └─► packet threads ─► flows ◄── next hops ◄── netlink
//!    │                                                        │
//!    │                                                        ├─► counters (a shard a thread, summed by readers)
//!    └──── status, explain, /stats ◄──────────────────────────┴─► access log (bounded queue, drops counted)
//! ```
//! The endpoints read [`admin::Status`], which is published beside the snapshot and holds it, and the counters; only what
//! changes something (a reload, an override) is put before the control loop.
//!
//! It flows one way: overrides and discovered servers re-enter only at the pools, health only at the snapshot. Whatever asks which servers there are
//! (snapshot, checks, packet services, next hops, scripts) asks the pools; the broker's policy stays the
//! file's, which for a backend with `[discovery]` is a bound. Events are
//! coalesced for up to 10 ms before one build, which remakes the backends that changed and the frontends that use them, and
//! shares everything else with the snapshot before.
//! A reload reads, parses and resolves everything, compares, binds, checks new servers,
//! prepares rules and sockets for what is new, and only then swaps, in one step; a failure or the end before that puts back
//! what was prepared. Each of these is a job beside the control loop, which goes on with the old state meanwhile. Established connections and flows belong to no snapshot and
//! outlive any.
//!
//! A connection of mode proxy goes through types that each have what is known from then on: accepted (the peer, judged by
//! access rules and limits, or by `proxy_protocol.from` if it may speak for others), identified (the client: the peer, or whom
//! its PROXY header names, who is judged then; the ClientHello if a route or a server depends on it), routed (a backend and
//! which of its servers), connected (a server, told of the client first by `send_proxy`, then its TLS handshake if it speaks TLS),
//! relayed. What stands before the
//! payload is read by [`preamble`] from bytes that stay: the ClientHello goes to the server as it came. Nothing is waited for
//! that nothing depends on, so protocols in which the server speaks first work. [`snapshot::FrontendView::way`] decides for
//! connections and for `convey explain` alike.
//!
//! With engine xdp a program of ours in the receive path decides about ordinary packets of both packet modes by itself, from
//! maps that the keeper makes of services and next hops, and begins flows and ends them there; what it passes goes the way of all
//! packets with engine raw, over a store whose flows are the program's: read from its maps, and changed by test runs of it.
//!
//! A packet: the kernel's stack sees it too and drops it (chain CONVEY), the socket filter admits it, a packet thread
//! receives a batch, [`flow::Path`] finds or makes its flow and rewrites it in place, the thread sends the batch. Frames
//! keep the kernel's offload marks (super-frames, unfinished checksums) all the way.
//!
//! # Words
//!
//! One word for one thing, in code, configuration, log, API and texts; `tests/house/old_words.txt` refuses those that these
//! replaced.
//!
//! - frontend: a listening address with its rules.
//! - backend: a pool of servers.
//! - server: one address of a backend.
//! - mode: how a frontend's connections travel: proxy, passthrough or dsr; the last two are the packet modes.
//! - engine: what moves packets in the packet modes.
//! - VIP: the address of a frontend in a packet mode.
//! - flow: one tracked 5-tuple of a packet mode.
//! - connection: one client's TCP connection to a proxy frontend.
//! - NAT port: the source port of a passthrough flow towards its server.
//! - next hop: where packets to a server go from here: interface ("via"), link address, source address.
//! - verdict: what was done with a packet; each has a counter.
//! - drop, reset, refuse, reject: to discard silently; to answer with a TCP reset; to accept nothing new; to find invalid.
//! - up, down, draining, maintenance: the states of a server; draining keeps connections and gets no new ones.
//! - eligible: able to be chosen now.
//! - ejected: not eligible for a while, after consecutive failures of client connections.
//! - override: what an operator set at run time: drain, maintenance or weight.
//! - admin request: one request at the control socket or the admin API on TCP.
//! - token: what somebody shows who uses that API on TCP; its role is what it may do.
//! - remove, clear, delete: to take away a thing, an override, a file.
//! - apply, in effect: of configuration.
//! - OK: of a configuration file without errors.
//! - pools: configuration, discovered servers and overrides: which servers there are.
//! - source: what names servers of a backend outside the configuration; discovery asks it. Its answer is taken, held (the servers
//!   in effect stay) or refused.
//! - snapshot: the immutable picture of frontends, backends and server states that every data plane reads.
//! - generation: the number of a snapshot or of a configuration.
//! - endpoint: protocol and listening address.
//! - preamble: what precedes the payload of a connection.
//! - pair: a certificate with its chain and key.
//! - session: what client and frontend, or Convey and a server, agreed on in a TLS handshake, and may go on with (resume) at the next connection.
//! - ticket: a session that the client keeps, encrypted.
//! - route: a rule of a frontend that leads some of its connections to a backend of their own.
//! - fallback: the backend that serves for another one while that has no eligible server.
//! - broker: the privileged process.
//! - runner: the process that starts the commands of the configuration.
//! - slow path: packets that the raw sockets handle in place of a faster engine.
//!
//! # Bounds
//!
//! Every queue and table has one: connections by `max_connections` (the excess waits in the kernel's accept queue),
//! waiting for a server by `max_queue` and `queue_timeout`, flows by `max_flows` (half-open ones by a share of it, per
//! server by `nat_ports`), fragments by a table of their own, log events by a queue whose drops are counted, pipes for
//! splicing by a pool beyond which data is copied, what a client says before its payload by [`preamble`] and by a time-out,
//! control connections and their bodies by [`admin`], diagnostics of a bad file by a hundred. Packets are counted by verdict:
//! [`base::PacketReason`].

pub mod access;
pub(crate) mod acme;
pub mod admin;
pub(crate) mod backend_setup;
pub(crate) mod balance;
pub mod base;
pub mod cli;
pub(crate) mod client;
pub mod config;
pub mod daemon;
pub(crate) mod discovery;
pub mod engine;
pub mod firewall;
pub mod flow;
pub(crate) mod health;
#[cfg(feature = "import")]
pub mod import;
pub mod packet;
pub mod pools;
pub mod preamble;
pub mod privilege;
pub(crate) mod proxy;
pub mod snapshot;
pub mod sys;
pub mod tls;

/// How long anything may take in a test before it counts as hung: far above what it takes, for hosts may be slow.
#[cfg(test)]
pub(crate) const PATIENCE: std::time::Duration = std::time::Duration::from_secs(120);
