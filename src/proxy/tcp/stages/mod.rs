//! The stages of a connection, each a type that has what is known from then on.
//!
//! ```text
//! AcceptedSocket ─► Accepted    a peer, a frontend, a place in the registry
//!        ─► Identified   the client: the peer, or whom the peer speaks for        (PROXY protocol in: here)
//!        ─► Routed       a backend, the one in effect when a server is chosen     (ClientHello and routes: here)
//!        ─► Connected    a server
//! ```
//! A connection may be routed anew until it has a server. Each stage is made from the one before by its own file, so that
//! files point up this list only.

mod accepted;
mod connected;
mod identified;
mod routed;

pub use accepted::{Accepted, AcceptedSocket, FrontendSlot, Origin, ProcessPlace};
pub use connected::Connected;
pub use identified::Identified;
pub use routed::Routed;
