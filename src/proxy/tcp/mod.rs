//! Proxied TCP connections.
//!
//! ```text
//! listener ─► accept ─► session ─► stages ─► choose
//!                          │          ├────► connect
//!                          │          └────► relay ─► 2 × direction ─► pipes
//!                          └ registry: what is open on this thread
//! ```

mod accept;
mod bytes;
mod connect;
mod direction;
mod end;
mod listener;
mod memory;
mod pipes;
mod rate;
mod receive;
pub mod registry;
mod relay;
mod server_tls;
mod session;
mod stages;
mod tls;
mod ways;

pub use listener::Listener;
pub use pipes::limit as limit_pipes;
