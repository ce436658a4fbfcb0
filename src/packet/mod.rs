//! Packets as bytes: checked views, incremental checksums, rewriting, and the answers we make ourselves. Pure.
//!
//! ```text
//! frame ─ parse ─► Parsed (offsets, addresses, what it is) ─► rewrite in place / answer::… ─► frame
//! ```
//!
//! What may be wrong with a frame is found by [`parse`]; after it nothing here can fail or panic, whatever the bytes.

pub mod frame;

pub use frame::{Frame, HEADROOM, LinkHeader, Offload, SegmentKind, Segments, UnfinishedChecksum};
