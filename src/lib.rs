//! Convey, a layer-4 load balancer for Linux. This page is the architecture.
//!
//! One binary, two processes, one configuration file. This version has **proxy mode**: connections are terminated and
//! a second one goes to a server. The packet modes (passthrough NAT, direct server return) have their place in the
//! layers below and are not there yet.
//!
//! # Layers
//!
//! Imports point down only; `tests/house` fails on one that points up or sideways.
//!
//! ```text
//! cli         command line: clap definitions, one file a subcommand, tables and JSON
//! daemon      wiring: start order, control loop, reload, drain, logging     the only place where the I/O modules meet
//! ─ I/O ────────────────────────────────────────────────────────────────────  these do not import each other
//! proxy       listeners, choice of a server, connect, relay                 worker threads
//! health      active checks                                                 control thread
//! admin       control endpoint (HTTP/JSON on a unix socket), /stats         control thread
//! privilege   the broker and its verbs; dropping privileges and proving it  both processes
//! ─ sys ────────────────────────────────────────────────────────────────────  the only unsafe code, safe API out
//! ─ pure ───────────────────────────────────────────────────────────────────  no I/O, no clock, no randomness
//! snapshot    the picture that data planes read: configuration + health + overrides
//! balance     choosing among servers
//! config      bytes → spanned tree → raw tables → Config, with every diagnostic; print, diff, schema
//! base        names, addresses, reasons, exit statuses
//! ```
//!
//! # Processes and threads
//!
//! | process | thread | does | may |
//! |---|---|---|---|
//! | `convey` | control | signals, reload, health checks, control socket, systemd | nothing: no capability, not root |
//! | | `convey-worker-N`, one a CPU | accepts, relays; a connection never changes thread | |
//! | | `convey-log` | writes the journal or stderr from a bounded queue | |
//! | | the file watcher's | tells of changes near the configuration file | |
//! | `convey-broker` | one | binds listeners that the configuration names, reads that file again | CAP_NET_BIND_SERVICE, CAP_DAC_READ_SEARCH if started by root |
//!
//! The broker is forked before any thread exists, and talks only to the daemon over one socketpair. Neither outlives
//! the other ([`privilege`]).
//!
//! # How data flows
//!
//! ```text
//! file ─► broker ─► config ─┐
//! checks ─► health ─────────┼─► snapshot ─► ArcSwap ─► workers ─► connections
//! operator ─► overrides ────┘                            │
//!    ▲                                                   ├─► counters (a shard a thread, summed by readers)
//!    └──── status, /stats ◄──────────────────────────────┘─► access log (bounded queue, drops counted)
//! ```
//!
//! It flows one way: whatever changes (a file, a check's result, an order) re-enters only where the snapshot is built.
//! A reload parses and resolves everything, compares, binds what is new, and only then swaps; a failure before the swap
//! leaves everything as it was. Established connections belong to no snapshot and outlive any.
//!
//! # Bounds
//!
//! Every queue and table has one: connections by `max_connections` (the excess waits in the kernel's accept queue),
//! waiting for a server by `max_queue` and `queue_timeout`, log events by a queue whose drops are counted, pipes for
//! splicing by a pool beyond which data is copied, control connections and their bodies by [`admin`], diagnostics of a
//! bad file by a hundred.

pub mod admin;
pub mod backend_setup;
pub mod balance;
pub mod base;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod engine;
pub mod firewall;
pub mod flow;
pub mod health;
pub mod packet;
pub mod privilege;
pub mod proxy;
pub mod snapshot;
pub mod sys;
