//! What a frontend says of each TCP connection besides where it goes.

use std::num::NonZeroU64;

/// How fast a connection may be, in bytes a second. Default: as fast as both sides are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConnectionRates {
    /// `upload_rate`: from the client.
    pub upload: Option<NonZeroU64>,
    /// `download_rate`: from the server.
    pub download: Option<NonZeroU64>,
}
