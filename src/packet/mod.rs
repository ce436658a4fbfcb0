//! Packets as bytes: checked views, incremental checksums, rewriting, and the answers we make ourselves. Pure.
//!
//! ```text
//! frame ─ parse ─► Parsed (offsets, addresses, what it is) ─► rewrite in place / answer::… ─► frame
//! ```
//!
//! What may be wrong with a frame is found by [`parse`]; after it nothing here can panic, whatever the bytes. Fixed
//! fields are read and written through `pnet`'s views; what pnet does not check (lengths, extension headers, packets
//! inside ICMP errors) and what it cannot do (incremental checksums) is our own.

pub(crate) mod answer;
pub(crate) mod checksum;
pub(crate) mod frame;
mod link;
mod parse;
mod rewrite;
mod tags;
pub mod testing;
#[cfg(test)]
mod tests;

pub use frame::{Frame, HEADROOM, LinkHeader, Offload, SegmentKind, Segments, UnfinishedChecksum};
pub(crate) use link::{put_tags, set_link};
pub use parse::{
    Content, ErrorKind, Fragment, IcmpError, Malformed, Parsed, Quoted, Tcp, TcpFlags, Udp, parse,
};
pub(crate) use rewrite::{AddressPair, RewriteError, decrement_ttl, raise_mtu, translate, translate_error};
pub(crate) use tags::Tags;
