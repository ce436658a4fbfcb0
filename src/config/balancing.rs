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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_of_a_network_are_one_by_the_bits_of_their_family() {
        let network = |prefix4, prefix6, client: &str| {
            let sticky = Sticky {
                ttl: Duration::from_secs(60),
                prefix4,
                prefix6,
                max_entries: NonZeroU32::MIN,
            };
            sticky.network(client.parse().unwrap()).to_string()
        };
        for (prefix4, prefix6, client, expected) in [
            (24, 56, "192.0.2.0", "192.0.2.0"),
            (24, 56, "192.0.2.255", "192.0.2.0"),
            (24, 56, "192.0.3.0", "192.0.3.0"),
            (24, 56, "::ffff:192.0.2.7", "192.0.2.0"),
            (24, 56, "2001:db8:0:12ff:1:2:3:4", "2001:db8:0:1200::"),
            (24, 56, "2001:db8:0:1300::1", "2001:db8:0:1300::"),
            (32, 64, "192.0.2.7", "192.0.2.7"),
            (32, 64, "2001:db8:0:12ff:1:2:3:4", "2001:db8:0:12ff::"),
            (0, 128, "192.0.2.7", "0.0.0.0"),
            (0, 128, "2001:db8::1", "2001:db8::1"),
        ] {
            assert_eq!(
                network(prefix4, prefix6, client),
                expected,
                "{client} /{prefix4} /{prefix6}"
            );
        }
    }
}
