//! `[backends.NAME.sticky]`.

use std::{net::IpAddr, num::NonZeroU32, time::Duration};

use crate::access::Network;

/// Clients that are sent to the server that they had before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sticky {
    /// `ttl`: how long after a client's last connection that counts. Default 30 min.
    pub ttl: Duration,
    /// `prefix4`: bits of an IPv4 address that make a client network. Default 32.
    pub prefix4: u8,
    /// `prefix6`: bits of an IPv6 address that make one. Default 64.
    pub prefix6: u8,
    /// `max_entries`: client networks that are remembered at a time; more are balanced. Default 100,000.
    pub max_entries: NonZeroU32,
}

impl Sticky {
    /// The first address of a client's network. An IPv4 address in IPv6 form is the IPv4 address.
    #[must_use]
    pub fn network(&self, client: IpAddr) -> IpAddr {
        let client = client.to_canonical();
        let prefix = if client.is_ipv4() {
            self.prefix4
        } else {
            self.prefix6
        };
        Network::of(client, prefix).first()
    }
}
