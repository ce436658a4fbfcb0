//! Who the client of a connection is.

use super::accepted::Accepted;
use crate::base::ClientAddr;

/// A connection whose client is known.
pub struct Identified {
    pub accepted: Accepted,
    /// Whom the connection comes from: its peer as long as nothing else can speak for a client. What a PROXY header says
    /// goes here, and only here.
    pub client: ClientAddr,
}

impl Identified {
    /// Takes the peer for the client.
    #[must_use]
    pub fn new(accepted: Accepted) -> Self {
        let client = ClientAddr(accepted.origin.peer.0);
        accepted.registration.identified(client);
        Self { accepted, client }
    }
}
