//! The firewall rules of the packet modes.

use super::finding::{Area, Diagnosis};
use crate::{
    cli::firewall::{Report, advised},
    config::Config,
    firewall::{Firewall, PortSet, has_left_rules, plan, record_path},
};

/// Compares the rules with what the configuration requires, or, where convey does not run, with none.
pub fn look(config: Option<&Config>, is_running: bool, found: &mut Diagnosis) {
    let services = config.map(Config::packet_services).unwrap_or_default();
    let wanted = match is_running {
        true => plan(&services),
        false => Vec::new(),
    };
    let record = record_path(config.and_then(|config| config.admin.socket.as_deref()));
    // a host that never had rules: iptables would make a table where there is none
    if services.is_empty() && !has_left_rules(&record) {
        return;
    }
    let firewall = Firewall::new(record);
    let families = match firewall.families() {
        Ok(families) => families,
        Err(error) => return found.unseen(Area::Firewall, advised(&error)),
    };
    // what cannot be read was not written by us
    let reserved = firewall.reserved().unwrap_or_default();
    let kept = if is_running { PortSet::default() } else { reserved };
    judge(&Report::new(&families, &wanted, &kept), is_running, found);
}

fn judge(report: &Report, is_running: bool, found: &mut Diagnosis) {
    let missing: usize = report.missing().count();
    let unwanted: usize = report.unwanted().count();
    match is_running {
        true if !report.as_configured() => found.error(
            Area::Firewall,
            format!("the rules differ from what the configuration requires: {missing} missing, {unwanted} unwanted"),
            "convey firewall show; the running convey restores them within seconds: if it does not, see its log",
        ),
        false if unwanted > 0 || !report.as_configured() => found.warning(
            Area::Firewall,
            format!("{unwanted} rule(s) of a convey that does not run are left: packets to its VIPs are dropped"),
            "start convey, or run convey firewall clear",
        ),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::doctor::finding::Level,
        firewall::{Family, Rule},
    };

    fn judged(rules: Option<&[&str]>, wanted: &[&str], is_running: bool) -> Vec<Level> {
        let family = Family {
            v6: false,
            rules: rules.map(|rules| rules.iter().map(|&rule| rule.to_owned()).collect()),
            jumps: usize::from(rules.is_some()),
        };
        let wanted: Vec<Rule> = (wanted.iter())
            .map(|&text| Rule {
                v6: false,
                text: text.to_owned(),
            })
            .collect();
        let mut found = Diagnosis::default();
        judge(
            &Report::new(&[family], &wanted, &PortSet::default()),
            is_running,
            &mut found,
        );
        found.findings.iter().map(|finding| finding.level).collect()
    }

    #[test]
    fn rules_that_drift_are_an_error_and_those_that_were_left_a_warning() {
        assert_eq!(judged(Some(&["-j DROP"]), &["-j DROP"], true), []);
        assert_eq!(judged(None, &["-j DROP"], true), [Level::Error]);
        assert_eq!(judged(Some(&["-j DROP"]), &[], false), [Level::Warning]);
        assert_eq!(judged(None, &[], false), []);
    }
}
