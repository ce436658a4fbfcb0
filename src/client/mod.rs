//! Clients of what answers slowly, or never: whatever asks is told when there is an answer, and waits in no loop.

pub mod connect;
pub mod credentials;
pub mod http;
#[cfg(feature = "otlp")]
pub mod otlp;
pub mod resolver;
pub mod runner;
