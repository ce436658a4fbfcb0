//! What one connection has delivered.

use crate::snapshot::live::Counter;

/// Bytes of one connection. Its session writes them; the registry of its thread reads.
#[derive(Debug, Default)]
pub struct ByteCounts {
    /// Delivered to the server.
    pub from_client: Counter,
    /// Delivered to the client.
    pub from_server: Counter,
}
