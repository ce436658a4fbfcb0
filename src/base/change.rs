//! What happens to servers and backends that somebody may want to be told of.

use std::fmt;

/// An event of a server or a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ChangeEvent {
    /// A server came into service.
    ServerUp,
    /// A server failed.
    ServerDown,
    /// An operator drains a server.
    ServerDraining,
    /// An operator has taken a server out.
    ServerMaintenance,
    /// A backend has a server more.
    ServerAdded,
    /// A backend has a server less.
    ServerRemoved,
    /// A backend has an eligible server again.
    BackendUp,
    /// A backend has lost its last eligible server.
    BackendDown,
    /// There is a new backend.
    BackendAdded,
    /// A backend is gone.
    BackendRemoved,
    /// Events came faster than they could be told.
    EventsDropped,
}

impl ChangeEvent {
    /// The label, as in the log.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::ServerUp => "server_up",
            Self::ServerDown => "server_down",
            Self::ServerDraining => "server_draining",
            Self::ServerMaintenance => "server_maintenance",
            Self::ServerAdded => "server_added",
            Self::ServerRemoved => "server_removed",
            Self::BackendUp => "backend_up",
            Self::BackendDown => "backend_down",
            Self::BackendAdded => "backend_added",
            Self::BackendRemoved => "backend_removed",
            Self::EventsDropped => "events_dropped",
        }
    }
}

impl fmt::Display for ChangeEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}
