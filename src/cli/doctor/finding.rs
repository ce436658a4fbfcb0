//! What is found, and what could not be looked at.

use serde::Serialize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Something does not work.
    Error,
    /// Something may stop working, or does not do what it is meant to.
    Warning,
    /// Good to know.
    Note,
}

impl Level {
    /// The word for it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// What it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Area {
    /// The configuration file.
    Configuration,
    /// The running convey.
    Daemon,
    /// Frontends, backends and servers.
    Traffic,
    /// Where servers come from.
    Discovery,
    /// Certificates.
    Certificates,
    /// The packet modes.
    PacketModes,
    /// The rules of the packet modes.
    Firewall,
    /// Ports of this host.
    Ports,
    /// Open files.
    Descriptors,
    /// The kernel's connection tracking.
    Conntrack,
    /// The host's clock.
    Clock,
    /// Interfaces: offloads, MTU, rp_filter.
    Network,
}

impl Area {
    /// The word for it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Daemon => "daemon",
            Self::Traffic => "traffic",
            Self::Discovery => "discovery",
            Self::Certificates => "certificates",
            Self::PacketModes => "packet_modes",
            Self::Firewall => "firewall",
            Self::Ports => "ports",
            Self::Descriptors => "descriptors",
            Self::Conntrack => "conntrack",
            Self::Clock => "clock",
            Self::Network => "network",
        }
    }
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What it is about.
    pub area: Area,
    /// What is so.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

/// Something that could not be looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unseen {
    /// What it is about.
    pub area: Area,
    /// Why, and what to do.
    pub why: String,
}

/// Everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    /// What was found, the worst first.
    pub findings: Vec<Finding>,
    /// What could not be looked at.
    pub not_looked_at: Vec<Unseen>,
}

impl Diagnosis {
    /// Something does not work.
    pub fn error(&mut self, area: Area, message: impl Into<String>, remedy: impl Into<String>) {
        self.add(Level::Error, area, message.into(), remedy.into());
    }

    /// Something may stop working.
    pub fn warning(&mut self, area: Area, message: impl Into<String>, remedy: impl Into<String>) {
        self.add(Level::Warning, area, message.into(), remedy.into());
    }

    /// Good to know.
    pub fn note(&mut self, area: Area, message: impl Into<String>, remedy: impl Into<String>) {
        self.add(Level::Note, area, message.into(), remedy.into());
    }

    /// Something of a level.
    pub fn add(&mut self, level: Level, area: Area, message: String, remedy: String) {
        self.findings.push(Finding {
            level,
            area,
            message,
            remedy,
        });
    }

    /// Something could not be looked at.
    pub fn unseen(&mut self, area: Area, why: impl Into<String>) {
        self.not_looked_at.push(Unseen {
            area,
            why: why.into(),
        });
    }

    /// How many there are of a level.
    pub fn count(&self, level: Level) -> usize {
        let of_level = self.findings.iter().filter(|finding| finding.level == level);
        of_level.count()
    }

    /// The worst first, and what belongs together together.
    pub fn sort(&mut self) {
        self.findings.sort_by_key(|finding| (finding.level, finding.area));
    }
}
