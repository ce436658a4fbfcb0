//! The firewall rules of the packet modes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::PacketRules;

/// `GET /v1/firewall`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Firewall {
    /// The table that they are in.
    pub table: String,
    /// Their chain, which one jump from PREROUTING leads to.
    pub chain: String,
    /// Those of iptables, as `iptables -S` prints them, without `-A` and the chain.
    pub ipv4: Vec<String>,
    /// Those of ip6tables.
    pub ipv6: Vec<String>,
    /// How they are.
    pub state: PacketRules,
}
