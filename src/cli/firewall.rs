//! `convey firewall show` and `convey firewall clear`.

use std::{
    collections::BTreeSet,
    io::{self, Write},
    path::Path,
};

use serde::Serialize;

use super::{
    args::{FirewallClearArgs, FirewallCommand, FirewallShowArgs, ModeArgs},
    outcome::{CommandResult, Failure},
    target::{self, config_path, socket_path},
};
use crate::{
    base::exit,
    firewall::{
        Family, Firewall, FirewallError, PortSet, Rule, plan, record_path,
        unit::{self, ClearDecision, Ending},
    },
};

/// Shows or removes.
pub fn run(command: &FirewallCommand, config: Option<&Path>, mode: ModeArgs) -> CommandResult {
    match command {
        FirewallCommand::Show(args) => show(args, config, mode),
        FirewallCommand::Clear(args) => clear(args, config),
    }
}

fn show(args: &FirewallShowArgs, config: Option<&Path>, mode: ModeArgs) -> CommandResult {
    let path = config_path(config).display().to_string();
    let config = target::load_for_host(config, args.mode.or(mode))?.config;
    let wanted = plan(&config.packet_services());
    let firewall = Firewall::new(record_path(config.admin.socket.as_deref()));
    let families = firewall.families().map_err(|error| failure(&error))?;
    let reserved = firewall.reserved().map_err(|error| failure(&error))?;
    let report = Report::new(&families, &wanted, &reserved);
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &report).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        out.write_all(report.text(&path).as_bytes())?;
    }
    out.flush()?;
    Ok(if report.as_configured {
        exit::OK
    } else {
        exit::UNAVAILABLE
    })
}

fn clear(args: &FirewallClearArgs, config: Option<&Path>) -> CommandResult {
    if let Some(unit) = &args.unless_restarting {
        match unit::decide(unit, unit::ask(unit).as_ref(), &Ending::from_environment()) {
            ClearDecision::Keep(why) => {
                writeln!(io::stdout(), "keeping the firewall rules: {why}")?;
                return Ok(exit::OK);
            }
            ClearDecision::Clear(why) => writeln!(io::stdout(), "removing the firewall rules: {why}")?,
        }
    }
    // a configuration that cannot be read must not keep the rules in place
    let socket = socket_path(None, config).ok();
    let cleared = Firewall::new(record_path(socket.as_deref())).clear();
    cleared.map(|()| exit::OK).map_err(|errors| {
        let exit = errors.first().map_or(exit::OS_ERROR, exit_of);
        let messages: Vec<_> = errors.iter().map(advised).collect();
        Failure::new(exit, messages.join("\nconvey: "))
    })
}

fn failure(error: &FirewallError) -> Failure {
    Failure::new(exit_of(error), advised(error))
}

/// The message, with what an ordinary user can do.
pub fn advised(error: &FirewallError) -> String {
    if exit_of(error) == exit::NO_PERMISSION {
        format!("{error}; run it with sudo")
    } else {
        error.to_string()
    }
}

fn exit_of(error: &FirewallError) -> exit::Exit {
    let forbidden = match error {
        FirewallError::Failed { message, .. } => message.contains("Permission denied"),
        FirewallError::File { source, .. } => source.kind() == io::ErrorKind::PermissionDenied,
        _ => false,
    };
    match error {
        _ if forbidden => exit::NO_PERMISSION,
        FirewallError::Missing { .. } => exit::UNAVAILABLE,
        _ => exit::OS_ERROR,
    }
}

/// What `show` says.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Whether the rules are as the configuration needs it.
    as_configured: bool,
    families: Vec<FamilyReport>,
    /// What convey added to `net.ipv4.ip_local_reserved_ports`, as the kernel writes it.
    reserved_ports: String,
}

/// One family's part of it.
#[derive(Debug, Serialize)]
struct FamilyReport {
    program: &'static str,
    /// Whether there is a chain CONVEY in table raw.
    chain: bool,
    /// How many rules of PREROUTING jump to it.
    jumps: usize,
    /// The rules that are there, in order, as `iptables -S` prints them.
    rules: Vec<String>,
    /// Those that the configuration needs besides.
    missing: Vec<String>,
    /// Those that it does not need, and duplicates.
    unwanted: Vec<String>,
}

impl Report {
    /// Compares what is there with what is wanted.
    pub fn new(families: &[Family], wanted: &[Rule], reserved: &PortSet) -> Self {
        let families: Vec<_> = families
            .iter()
            .map(|family| FamilyReport::new(family, wanted))
            .collect();
        Self {
            as_configured: families.iter().all(FamilyReport::as_configured),
            families,
            reserved_ports: reserved.to_string(),
        }
    }

    /// Whether the rules are as they are wanted.
    pub const fn as_configured(&self) -> bool {
        self.as_configured
    }

    /// Rules that are wanted and not there.
    pub fn missing(&self) -> impl Iterator<Item = &str> {
        self.families
            .iter()
            .flat_map(|family| &family.missing)
            .map(String::as_str)
    }

    /// Rules that are there and not wanted.
    pub fn unwanted(&self) -> impl Iterator<Item = &str> {
        self.families
            .iter()
            .flat_map(|family| &family.unwanted)
            .map(String::as_str)
    }

    fn text(&self, config: &str) -> String {
        let mut lines = Vec::new();
        for family in &self.families {
            lines.push(family.heading());
            for rule in &family.rules {
                let mark = if family.unwanted.contains(rule) {
                    "  (unwanted)"
                } else {
                    ""
                };
                lines.push(format!("  {rule}{mark}"));
            }
            lines.extend(family.missing.iter().map(|rule| format!("  {rule}  (missing)")));
        }
        if !self.reserved_ports.is_empty() {
            lines.push(format!(
                "net.ipv4.ip_local_reserved_ports: {} added",
                self.reserved_ports
            ));
        }
        lines.push(if self.as_configured {
            format!("matches what {config} requires")
        } else {
            format!("DIFFERS from what {config} requires; run `convey reload` (a running convey also restores it by itself within seconds)")
        });
        lines.join("\n") + "\n"
    }
}

impl FamilyReport {
    fn new(family: &Family, wanted: &[Rule]) -> Self {
        let mut missing: BTreeSet<&str> = (wanted.iter())
            .filter(|rule| rule.v6 == family.v6)
            .map(|rule| rule.text.as_str())
            .collect();
        let rules = family.rules.clone().unwrap_or_default();
        let unwanted = rules
            .iter()
            .filter(|rule| !missing.remove(rule.as_str()))
            .cloned()
            .collect();
        Self {
            program: if family.v6 { "ip6tables" } else { "iptables" },
            chain: family.rules.is_some(),
            jumps: family.jumps,
            missing: missing.into_iter().map(str::to_owned).collect(),
            rules,
            unwanted,
        }
    }

    /// With rules: one chain, one jump, no more and no less. Without: nothing at all.
    fn as_configured(&self) -> bool {
        let jumps = usize::from(!self.rules.is_empty());
        self.missing.is_empty()
            && self.unwanted.is_empty()
            && self.jumps == jumps
            && self.chain == (jumps == 1)
    }

    fn heading(&self) -> String {
        let Self { program, jumps, .. } = self;
        if !self.chain {
            return format!("{program}: no chain CONVEY in table raw");
        }
        let count = self.rules.len();
        let rules = if count == 1 { "rule" } else { "rules" };
        let jump = match jumps {
            0 => ", no rule jumps to it".to_owned(),
            1 => String::new(),
            more => format!(", {more} rules jump to it"),
        };
        format!("{program}: chain CONVEY in table raw{jump}, {count} {rules}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: &str = "-d 192.0.2.1/32 -p tcp -m tcp --dport 80 -j DROP";
    const OLD: &str = "-d 192.0.2.2/32 -p tcp -m tcp --dport 80 -j DROP";

    fn v4(rules: Option<&[&str]>, jumps: usize) -> Family {
        Family {
            v6: false,
            rules: rules.map(|rules| rules.iter().map(|&rule| rule.to_owned()).collect()),
            jumps,
        }
    }

    fn v6() -> Family {
        Family {
            v6: true,
            rules: None,
            jumps: 0,
        }
    }

    fn wanted() -> Vec<Rule> {
        vec![Rule {
            v6: false,
            text: WEB.into(),
        }]
    }

    #[test]
    fn rules_as_configured_are_said_to_be_so() {
        let report = Report::new(&[v4(Some(&[WEB]), 1), v6()], &wanted(), &PortSet::default());
        assert_eq!(
            report.text("c.toml"),
            format!(
                "iptables: chain CONVEY in table raw, 1 rule\n  {WEB}\nip6tables: no chain CONVEY in table raw\n\
                 matches what c.toml requires\n"
            )
        );
        assert!(Report::new(&[v4(None, 0), v6()], &[], &PortSet::default()).as_configured);
    }

    #[test]
    fn every_difference_is_shown_with_its_rule() {
        let report = Report::new(&[v4(Some(&[OLD]), 0), v6()], &wanted(), &PortSet::default());
        assert_eq!(
            report.text("c.toml"),
            format!(
                "iptables: chain CONVEY in table raw, no rule jumps to it, 1 rule\n  {OLD}  (unwanted)\n  {WEB}  (missing)\n\
                 ip6tables: no chain CONVEY in table raw\n\
                 DIFFERS from what c.toml requires; run `convey reload` (a running convey also restores it by itself within seconds)\n"
            )
        );
        for family in [
            v4(Some(&[WEB, WEB]), 1),
            v4(Some(&[WEB]), 2),
            v4(None, 1),
            v4(None, 0),
        ] {
            assert!(
                !Report::new(std::slice::from_ref(&family), &wanted(), &PortSet::default()).as_configured,
                "{family:?}"
            );
        }
        assert!(
            !Report::new(&[v4(Some(&[]), 1)], &[], &PortSet::default()).as_configured,
            "an empty chain is a leftover"
        );
    }

    #[test]
    fn the_exit_status_tells_missing_programs_and_missing_permission_from_failures() {
        let failed = |message: &str| FirewallError::Failed {
            command: "iptables -t raw -S".into(),
            message: message.into(),
        };
        let missing = FirewallError::Missing {
            program: "iptables",
            package: "iptables",
        };
        assert_eq!(exit_of(&missing), exit::UNAVAILABLE);
        assert_eq!(exit_of(&failed("Invalid argument")), exit::OS_ERROR);
        let forbidden =
            failed("Could not fetch rule set generation id: Permission denied (you must be root)");
        assert_eq!(exit_of(&forbidden), exit::NO_PERMISSION);
        assert!(advised(&forbidden).ends_with("; run it with sudo"));
    }
}
