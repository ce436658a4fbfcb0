//! The few firewall rules that keep the kernel's own stack away from the packets of the packet modes, and the NAT ports
//! away from the host's own connections.
//!
//! [`plan`] is pure: services to rules. The rest makes the kernel's tables equal to a plan, with the `iptables` and
//! `ip6tables` programs, and takes everything out again.
//!
//! All rules are in a chain `CONVEY` of table raw, reached by one jump at the end of PREROUTING; nothing else is touched.
//! Single commands go through the crate `iptables`; the changes of a plan through `iptables-restore --noflush`, which
//! makes them all at once or not at all, in one process however many rules there are. iptables-nft leaves an empty table
//! raw where there was none before, as any of its commands does.
//!
//! As an ordinary user with CAP_NET_ADMIN and CAP_NET_RAW (ambient, so that the programs have them too) both variants
//! work. iptables-legacy cannot open root's lock file then, gets one beside our record instead, and may meet another
//! program at work: every change is looked at afterwards and tried again.

mod chain;
mod lock;
mod marker;
mod monitor;
mod others;
mod plan;
mod ports;
mod program;
mod reserved;
mod tables;
pub(crate) mod unit;

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};

use crate::{
    base::{PortRange, PortRanges},
    config::{self, Config, Diagnostic, Here, Loaded, Mode, Options, PacketService, Source},
    sys::{environment, ids},
};
use chain::HeldRules;
use tables::Tables;

pub use lock::{Lock, LockError};
pub use monitor::Monitor;
pub(crate) use others::masquerades_with_any_port;
pub use plan::plan;
pub(crate) use ports::PortSet;

/// The record's name in its directory.
const RECORD: &str = "firewall.json";
/// The packaged unit's runtime directory.
const RUNTIME_DIRECTORY: &str = "/run/convey";
/// What iptables-legacy calls the variable that names its lock file (iptables 1.8.5).
const LOCK_VARIABLE: &str = "XTABLES_LOCKFILE";

/// One rule of the chain `CONVEY`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rule {
    /// Whether it belongs to ip6tables.
    pub v6: bool,
    /// Its text as `iptables -S` prints it, without `-A CONVEY`.
    pub text: String,
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
        source: io::Error,
    },
    /// NAT ports lie among the ephemeral ports and cannot be reserved.
    #[error(
        "the NAT ports {ports} are among this host's ephemeral ports ({local}) and cannot be reserved ({source}): reserve \
         them with `sysctl -w net.ipv4.ip_local_reserved_ports={ports}` (after what is there already), or choose \
         nat_ports outside"
    )]
    Unreserved {
        /// Those that the kernel may hand out.
        ports: String,
        /// `ip_local_port_range`.
        local: PortRange,
        /// Why they cannot be reserved.
        source: Box<Self>,
    },
    /// The NAT ports would leave the host too few ephemeral ports.
    #[error(
        "the NAT ports {nat} leave {left} of this host's ephemeral ports ({local}), at least {fewest} are needed for its \
         own connections: widen net.ipv4.ip_local_port_range or choose fewer nat_ports"
    )]
    TooFewPorts {
        /// `nat_ports`.
        nat: PortRanges,
        /// Ephemeral ports left.
        left: u32,
        /// `ip_local_port_range`.
        local: PortRange,
        /// How many must be left.
        fewest: u32,
    },
}

/// Which iptables programs are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Variant {
    /// `iptables`: what the host's administrator chose.
    #[default]
    Default,
    /// `iptables-nft`.
    Nft,
    /// `iptables-legacy`.
    Legacy,
}

/// Where is recorded what was changed besides the rules: beside the admin socket, else in the unit's runtime directory.
/// The daemon and `convey firewall` must mean the same file.
#[must_use]
pub fn record_path(admin_socket: Option<&Path>) -> PathBuf {
    let runtime = || {
        let directories = std::env::var_os("RUNTIME_DIRECTORY")?;
        std::env::split_paths(&directories)
            .next()
            .filter(|path| path.is_absolute())
    };
    admin_socket
        .and_then(Path::parent)
        .map(Path::to_owned)
        .or_else(runtime)
        .unwrap_or_else(|| RUNTIME_DIRECTORY.into())
        .join(RECORD)
}

/// Whether an earlier process with this record (see [`record_path`]) has left rules in force, as far as is known.
#[must_use]
pub fn has_left_rules(record: &Path) -> bool {
    marker::is_set(record)
}

/// The NAT ports of this host where its configuration names none; `None`, so the stock list, if it has no use for them or
/// /proc/sys cannot be read. `assumed` are those that the configuration was resolved with. `record` is [`record_path`].
#[must_use]
fn default_nat_ports(config: &Config, assumed: Option<PortRanges>, record: &Path) -> Option<PortRanges> {
    let is_named = config.packet.nat_ports != assumed.unwrap_or_default();
    let has_passthrough = config.frontends.values().any(|f| f.mode == Mode::Passthrough);
    // to look takes several programs
    let found = (has_passthrough && !is_named).then(|| reserved::default_nat_ports(record));
    found.and_then(Result::ok)
}

/// Loads a configuration for this host, whose ephemeral ports decide the default of `nat_ports`. Gives the options besides,
/// by which whoever loads it again comes to the same. With `here`, its addresses count too.
///
/// # Errors
/// The findings, if there are errors.
pub fn load_for_host(
    source: &Source,
    mut options: Options,
    here: Option<&Here>,
) -> Result<(Loaded, Options), Vec<Diagnostic>> {
    let loaded = config::load_here(source, options, here)?;
    let record = record_path(loaded.config.admin.socket.as_deref());
    options.default_nat_ports = default_nat_ports(&loaded.config, options.default_nat_ports, &record);
    match options.default_nat_ports {
        None | Some(PortRanges::STOCK) => Ok((loaded, options)),
        Some(_) => Ok((config::load_here(source, options, here)?, options)),
    }
}

/// The same for a host with another range of ephemeral ports, and none reserved.
#[must_use]
pub fn default_nat_ports_beside(ephemeral: PortRange) -> PortRanges {
    ports::default_nat_ports(ephemeral, &PortSet::default(), false)
}

/// Judges whether these NAT ports leave the host enough ephemeral ports for its own connections. Returns a warning when
/// they are few. `record` is [`record_path`]; without it what we reserved ourselves counts as reserved by others.
///
/// # Errors
/// [`FirewallError::TooFewPorts`], or /proc/sys cannot be read.
pub fn check_ephemeral(record: &Path, nat: PortRanges) -> Result<Option<String>, FirewallError> {
    reserved::check_ephemeral(record, nat)
}

/// The same for a host with another range of ephemeral ports, and none reserved.
///
/// # Errors
/// [`FirewallError::TooFewPorts`].
pub fn check_ephemeral_beside(
    ephemeral: PortRange,
    nat: PortRanges,
) -> Result<Option<String>, FirewallError> {
    reserved::judge(ephemeral, &PortSet::default(), nat)
}

/// What is in one family's table raw, as [`Firewall::families`] finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Family {
    /// Whether it is ip6tables'.
    pub v6: bool,
    /// The chain's rules as `iptables -S` prints them, without `-A CONVEY`; `None` without the chain.
    pub rules: Option<Vec<String>>,
    /// How many rules of PREROUTING jump to it: one when all is well.
    pub jumps: usize,
}

/// The kernel's tables, as far as they are ours. Used by the broker and by `convey firewall`.
#[derive(Debug)]
pub struct Firewall {
    /// Where is recorded what was added to `ip_local_reserved_ports`.
    record: PathBuf,
    variant: Variant,
}

/// What [`Firewall::apply`] has come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// Whether rules had to be changed.
    pub has_changed: bool,
    /// What the operator should know.
    pub warning: Option<String>,
}

impl Firewall {
    /// The NAT ports that this configuration, which was resolved with the `assumed` ones, has on this host unless it names
    /// some; `None`: the stock list.
    pub(crate) fn default_nat_ports(
        &self,
        config: &Config,
        assumed: Option<PortRanges>,
    ) -> Option<PortRanges> {
        default_nat_ports(config, assumed, &self.record)
    }

    /// The firewall; nothing is touched yet.
    #[must_use]
    pub const fn new(record: PathBuf) -> Self {
        Self::with_variant(record, Variant::Default)
    }

    /// The firewall by the programs of one variant.
    #[must_use]
    pub const fn with_variant(record: PathBuf, variant: Variant) -> Self {
        Self { record, variant }
    }

    /// Makes the rules, the jump and the reserved ports be exactly those of these services; with none, takes everything
    /// out. Doing it again changes nothing, and runs no program that would.
    ///
    /// # Errors
    /// The first step that failed; what was there before this call is still there (rules are added before others go).
    pub fn apply(&mut self, services: &[PacketService]) -> Result<Applied, FirewallError> {
        self.name_lock_file();
        let rules = plan(services);
        let wanted = PortSet::of(
            services
                .iter()
                .filter_map(|service| service.nat_ports)
                .flat_map(|ranges| ranges.iter()),
        );
        let warning = reserved::settle(&self.record, &wanted, true)?;
        if !rules.is_empty() {
            marker::set(&self.record);
        }
        let mut has_changed = false;
        for only_adding in [true, false] {
            for v6 in [false, true] {
                has_changed |= self.settle(v6, &of_family(&rules, v6), only_adding)?;
            }
        }
        if warning.is_none() {
            reserved::settle(&self.record, &wanted, false)?;
        }
        if rules.is_empty() {
            marker::remove(&self.record);
        }
        Ok(Applied { has_changed, warning })
    }

    /// Takes everything out: chain, jump, reserved ports. Goes on after an error.
    ///
    /// # Errors
    /// Everything that could not be taken out.
    pub fn clear(&mut self) -> Result<(), Vec<FirewallError>> {
        self.name_lock_file();
        let mut errors = Vec::new();
        for v6 in [false, true] {
            errors.extend(self.clear_family(v6).err().into_iter().flatten());
        }
        errors.extend(reserved::settle(&self.record, &PortSet::default(), false).err());
        if errors.is_empty() {
            marker::remove(&self.record);
            Ok(())
        } else {
            Err(errors)
        }
    }

    /// What is in the chain now, as `iptables -S` prints it.
    ///
    /// # Errors
    /// A program is missing or failed.
    pub fn show(&self) -> Result<Vec<Rule>, FirewallError> {
        let families = self.families()?;
        let rules = families.into_iter().flat_map(|Family { v6, rules, .. }| {
            (rules.unwrap_or_default().into_iter()).map(move |text| Rule { v6, text })
        });
        Ok(rules.collect())
    }

    /// What is there now, first of iptables, then of ip6tables (which has nothing where it is not installed).
    ///
    /// # Errors
    /// A program is missing or failed.
    pub fn families(&self) -> Result<Vec<Family>, FirewallError> {
        self.name_lock_file();
        let family = |v6| {
            let HeldRules { rules, jumps } = match Tables::find(self.variant, v6) {
                Ok(tables) => tables.read()?,
                Err(_) if v6 => HeldRules::default(),
                Err(error) => return Err(error),
            };
            Ok(Family { v6, rules, jumps })
        };
        [false, true].into_iter().map(family).collect()
    }

    /// Whether changes of the rules are changes of nftables, of which [`Monitor`] tells: both families' programs are those of
    /// the nft variant, as far as they are there.
    #[must_use]
    pub fn is_nft(&self) -> bool {
        [false, true].into_iter().all(|v6| {
            let is_nft = Tables::find(self.variant, v6).and_then(|tables| tables.is_nft());
            is_nft.unwrap_or(v6)
        })
    }

    /// The ports in `ip_local_reserved_ports` that are there by our doing, according to the record.
    ///
    /// # Errors
    /// The record cannot be read.
    pub fn reserved(&self) -> Result<PortSet, FirewallError> {
        reserved::read_record(&self.record)
    }

    /// One family of a plan; whether anything had to be changed. The families are independent: without rules of its own,
    /// ip6tables need not be there.
    fn settle(&self, v6: bool, wanted: &BTreeSet<&str>, only_adding: bool) -> Result<bool, FirewallError> {
        if !wanted.is_empty() {
            Tables::find(self.variant, v6)?.settle(wanted, only_adding)
        } else if only_adding {
            Ok(false)
        } else {
            self.clear_family(v6).map_err(first)
        }
    }

    /// Whether there was anything.
    fn clear_family(&self, v6: bool) -> Result<bool, Vec<FirewallError>> {
        match Tables::find(self.variant, v6) {
            Ok(tables) => tables.clear(),
            // what only that program could have made cannot be there
            Err(_) => Ok(false),
        }
    }

    /// Gives iptables-legacy a lock file that it can open, when it cannot open root's.
    fn name_lock_file(&self) {
        if !ids::is_root() && std::env::var_os(LOCK_VARIABLE).is_none() {
            let lock = self.record.with_file_name("xtables.lock");
            // a process with threads keeps root's, of which iptables-legacy itself complains well enough
            let _ = environment::set_while_alone(LOCK_VARIABLE, lock.as_os_str());
        }
    }
}

fn of_family(rules: &[Rule], v6: bool) -> BTreeSet<&str> {
    rules
        .iter()
        .filter(|rule| rule.v6 == v6)
        .map(|rule| rule.text.as_str())
        .collect()
}

/// `clear_family` fails with at least one error.
fn first(errors: Vec<FirewallError>) -> FirewallError {
    errors
        .into_iter()
        .next()
        .unwrap_or_else(|| FirewallError::Failed {
            command: "iptables".into(),
            message: "failed for an unknown reason".into(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_is_beside_the_admin_socket() {
        assert_eq!(
            record_path(Some(Path::new("/run/convey-a/admin.sock"))),
            Path::new("/run/convey-a/firewall.json")
        );
    }

    #[test]
    fn errors_say_what_to_do() {
        let nat = PortRange {
            first: 33_000,
            last: 65_535,
        };
        let local = PortRange {
            first: 32_768,
            last: 60_999,
        };
        let error = FirewallError::TooFewPorts {
            nat: nat.into(),
            left: 232,
            local,
            fewest: ports::FEWEST_EPHEMERAL,
        };
        assert_eq!(
            error.to_string(),
            "the NAT ports 33000-65535 leave 232 of this host's ephemeral ports (32768-60999), at least 4096 are needed \
             for its own connections: widen net.ipv4.ip_local_port_range or choose fewer nat_ports"
        );
        let error = FirewallError::Unreserved {
            ports: "50000-60999".into(),
            local,
            source: Box::new(FirewallError::File {
                path: "/proc/sys/x".into(),
                source: io::ErrorKind::ReadOnlyFilesystem.into(),
            }),
        };
        assert_eq!(
            error.to_string(),
            "the NAT ports 50000-60999 are among this host's ephemeral ports (32768-60999) and cannot be reserved \
             (/proc/sys/x: read-only filesystem or storage medium): reserve them with \
             `sysctl -w net.ipv4.ip_local_reserved_ports=50000-60999` (after what is there already), or choose nat_ports \
             outside"
        );
    }
}
