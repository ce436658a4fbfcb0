//! Servers that flows of an engine before this one go to, while nothing that is configured has taken their place.

use std::{net::IpAddr, sync::Arc, time::Duration};

use super::FlowTarget;
use crate::{
    base::{FrontendName, ServerKey, ServerState},
    snapshot::live::{BackendStats, FrontendStats, ServerStats},
};

/// What is known of such a server behind a VIP.
#[derive(Debug, Clone)]
pub struct LeftBehind {
    /// The frontend of the VIP.
    pub frontend: FrontendName,
    /// The server's name.
    pub server: ServerKey,
    /// The server's address.
    pub ip: IpAddr,
    /// How far its ports are above the VIP's, counted round at 65,536.
    pub shift: u16,
    /// In DSR, whether packets to it keep their addresses.
    pub has_vip: bool,
    /// It has failed its checks.
    pub is_down: bool,
    /// How long an open flow is remembered after its last packet.
    pub idle: Duration,
}

/// Who hears what is counted of all of them: nobody.
#[derive(Debug)]
pub struct Nobody {
    frontend: Arc<FrontendStats>,
    backend: Arc<BackendStats>,
    server: Arc<ServerStats>,
}

impl Nobody {
    /// With so many shards of counters.
    #[must_use]
    pub fn new(shards: usize) -> Self {
        Self {
            frontend: FrontendStats::new(shards),
            backend: BackendStats::new(shards),
            server: ServerStats::new(shards),
        }
    }
}

impl FlowTarget {
    /// One that is not configured. Its flows live as long as they are idle at most, however scarce NAT ports are, and no rules
    /// or limits are known for them.
    #[must_use]
    pub fn left_behind(of: LeftBehind, nobody: &Nobody) -> Arc<Self> {
        let LeftBehind {
            frontend,
            server,
            ip,
            shift,
            has_vip,
            is_down,
            idle,
        } = of;
        Arc::new(Self {
            frontend,
            server,
            ip,
            shift,
            has_vip,
            state: if is_down {
                ServerState::Down
            } else {
                ServerState::Up
            },
            idle,
            half_of_ports: u32::MAX,
            share: None,
            access: None,
            frontend_live: Arc::clone(&nobody.frontend),
            backend_live: Arc::clone(&nobody.backend),
            server_live: Arc::clone(&nobody.server),
        })
    }
}
