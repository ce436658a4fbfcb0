//! The words of the product as types: names, addresses, ids and reasons.
//!
//! The bottom layer: nothing here does I/O, reads a clock or draws randomness, and nothing here imports
//! another module of the crate.

pub mod access;
pub mod addr;
pub mod endpoint;
pub mod exit;
pub mod label;
pub mod name;
pub mod packet;
pub mod reason;
pub mod time;

pub use access::{AccessRecord, AccessSink};
pub use addr::{ClientAddr, ListenAddr, PeerAddr, ServerAddr};
pub use endpoint::Endpoint;
pub use label::UnknownLabel;
pub(crate) use label::by_label;
pub use name::{BackendName, FrontendName, NameError, ServerKey, ServerName};
pub use packet::{Mac, PacketReason, PortRange, Protocol};
pub use reason::{BackendState, ServerState, TerminationReason};

/// Index of a worker thread, from zero; also the shard that the thread writes in every counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub usize);
