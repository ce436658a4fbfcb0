//! What moves the packets of the packet modes: threads, sockets and next hops around the pure path of
//! [`crate::flow`].
//!
//! ```text
//! broker ─ sockets ─► raw::Engine ─ threads: receive a batch ─► flow::Path ─► send a batch
//! netlink ─► network::Follower ─ Hops, interfaces, VIPs ──────────┘
//! ```

pub mod network;
pub mod raw;
