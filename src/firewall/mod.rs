//! The few firewall rules that keep the kernel's own stack away from the packets of the packet modes, and the NAT ports
//! away from the host's own connections.
//!
//! [`plan`] is pure: services to rules. The rest makes the kernel's tables equal to a plan, with the `iptables` and
//! `ip6tables` programs, and takes everything out again.

use std::path::PathBuf;

use crate::config::PacketService;

/// One rule of the chain `CONVEY`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rule {
    /// Whether it belongs to ip6tables.
    pub v6: bool,
    /// Its text as `iptables -S` prints it, without `-A CONVEY`.
    pub text: String,
}

/// The rules for these services, in order, each once.
#[must_use]
pub fn plan(services: &[PacketService]) -> Vec<Rule> {
    let _ = services;
    todo!("firewall")
}

/// What went wrong, and with which program or file.
#[derive(Debug, thiserror::Error)]
pub enum FirewallError {
    /// A program is not there.
    #[error("{program} is not installed: apt install {package}")]
    Missing {
        /// The program.
        program: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// A program failed.
    #[error("{command}: {message}")]
    Failed {
        /// The command line.
        command: String,
        /// What it said.
        message: String,
    },
    /// A file of /proc/sys or the record of what we changed.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// The kernel's tables, as far as they are ours. Used by the broker and by `convey firewall`.
#[derive(Debug)]
pub struct Firewall {
    /// Where is recorded what was added to `ip_local_reserved_ports`.
    record: PathBuf,
}

impl Firewall {
    /// The firewall; nothing is touched yet.
    #[must_use]
    pub const fn new(record: PathBuf) -> Self {
        Self { record }
    }

    /// Makes the rules, the jump and the reserved ports be exactly those of these services; with none, takes everything
    /// out. Doing it again changes nothing.
    ///
    /// # Errors
    /// The first step that failed; what was there before this call is still there (rules are added before others go).
    pub fn apply(&mut self, services: &[PacketService]) -> Result<(), FirewallError> {
        let _ = (services, &self.record);
        todo!("firewall")
    }

    /// Takes everything out: chain, jump, reserved ports. Goes on after an error.
    ///
    /// # Errors
    /// Everything that could not be taken out.
    pub fn clear(&mut self) -> Result<(), Vec<FirewallError>> {
        todo!("firewall")
    }

    /// What is in the chain now, as `iptables -S` prints it.
    ///
    /// # Errors
    /// A program is missing or failed.
    pub fn show(&self) -> Result<Vec<Rule>, FirewallError> {
        todo!("firewall")
    }
}
