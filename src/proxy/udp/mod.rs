//! Proxied UDP.
//!
//! ```text
//! UdpWorker ─ turn ─► listeners: datagrams of clients ─► Sessions (pure): whose are they? ─► the session's socket ─► server
//!     │                                     └ a new one: Opening: rules, limits, way, server, socket (or Waiting for one)
//!     ├─ turn ─► sessions' sockets: datagrams of servers ─► the listener ─► client
//!     └─ Owners: sessions of other workers
//! ```
//! A session belongs to the thread that got its first datagram. One socket of each address and thread, one of each session
//! towards its server; all of a thread's in one [`Poller`](crate::sys::poller::Poller), so that a session costs no task and
//! no timer of its own.

mod datagrams;
mod engine;
mod forward;
mod listener;
mod live;
mod opening;
mod retry;
mod sessions;
mod waiting;
mod wheel;
mod worker;

pub use worker::UdpWorker;
