//! What somebody may do through the admin API.

use super::by_label;

/// What somebody may do through the admin API; each role may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Look.
    Read,
    /// Act on what runs: drain, weights, connections, certificates, reload.
    Operate,
    /// Change the configuration.
    Configure,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Read, Self::Operate, Self::Configure];

    /// The word for it.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Operate => "operate",
            Self::Configure => "configure",
        }
    }

    /// Whether it may do what asks for another.
    #[must_use]
    pub fn may(self, needed: Self) -> bool {
        self >= needed
    }
}

by_label!(Role, Role::ALL);
