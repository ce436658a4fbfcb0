//! The stages of a connection, each a type that has what is known from then on.
//!
//! ```text
//! AcceptedSocket ─► Accepted    a peer, a frontend, a place in the registry
//!        ─► Identified   the client: the peer, or whom its PROXY header names; its ClientHello if a route needs it
//!        ─► Routed       a backend and which of its servers, as in effect when one is chosen
//!        ─► Connected    a server, which is told of the client first if it is to be, and has shaken hands if it speaks TLS
//! ```
//! A connection may be routed anew until it has a server. Each stage is made from the one before by its own file, so that
//! files point up this list only.

mod accepted;
mod connected;
mod handshake;
mod identified;
mod preamble;
mod routed;
mod secured;

pub use accepted::{Accepted, AcceptedSocket, Origin, Speaker};
pub use connected::Connected;
pub use identified::Identified;
pub use routed::Routed;
