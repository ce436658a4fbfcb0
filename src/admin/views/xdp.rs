//! The program of the xdp engine.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Word;
use crate::base::XdpAttachMode;

/// The program in the kernel that moves the packets of engine "xdp".
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Xdp {
    /// Where it is attached, by the name of each served interface.
    pub interfaces: BTreeMap<String, XdpInterface>,
    /// Packets of frontends that it has left to the packet sockets, by why; reasons without any are left out.
    pub passed: BTreeMap<String, u64>,
}

/// Where the program is attached to an interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct XdpInterface {
    /// In the driver, behind it, or nowhere: then packet sockets move all packets of the interface.
    pub mode: Word<XdpAttachMode>,
    /// Why not better; absent if it is in the driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
