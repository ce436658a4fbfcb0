//! Sections that are about how a server is chosen.

use super::{Int, Time, YEAR, section::section};

section! {
    /// Clients that come back go to the server that they had before, as long as it is eligible; else they are balanced, and go to that one from then on. Reloads forget nobody, a restart everybody.
    Sticky {
        /// How long after a client's last new connection it is sent to the same server. Default: "30m".
        ttl: Time<false, YEAR>,
        /// Bits of an IPv4 address that make a client network, which sticks as a whole. Default: 32, each address.
        prefix4: Int<8, 32>,
        /// Bits of an IPv6 address that make a client network. Default: 64.
        prefix6: Int<16, 128>,
        /// Maximum number of client networks to remember, some 150 bytes each; more are balanced and counted, and nobody is forgotten for them. Default: 100000.
        max_entries: Int<1, 10_000_000>,
        /// Whether clients stick; false turns off what [defaults] says. Default: true.
        enabled: bool,
    }
}
