//! Who may open a connection, and how many: rules by network, limits of each client network and of a frontend.
//!
//! ```text
//! client ─► rules ─► connections and new ones of its network ─► new ones of the frontend ─► let in
//!             │ denied              │ client_connections, client_rate         │ frontend_rate
//!             └─────────────────────┴─────────────────────────────────────────┴──► refused, counted by reason
//! ```
//! Proxy mode asks when it accepts, packet modes for packets without a flow. Pure: time is an argument, lists of networks
//! are handed in as they were read.

mod bucket;
mod clients;
mod gate;
mod network;
mod networks;
mod rules;

use std::{collections::BTreeMap, sync::Arc};

use crate::base::NetworkListName;

pub(crate) use bucket::Bucket;
pub use clients::PerClient;
pub use gate::{AccessRules, FrontendAccess, Limits, Permit};
pub use network::{Network, NetworkError};
pub use networks::{ListError, MAX_LIST_BYTES, Networks};
pub use rules::{Action, Rule, RuleError, RuleSubject, Subjects};

/// Lists of networks as they were read, by name.
pub type NetworkLists = BTreeMap<NetworkListName, Arc<Networks>>;
