//! What the kernel tells of changes by others.

use convey::firewall::Monitor;

use crate::{
    host::{Host, command},
    scenario::services,
};

pub fn tells_of_changes_alone(host: &Host) {
    assert!(host.firewall().is_nft());
    let mut monitor = Monitor::open().unwrap();
    host.firewall().apply(&services()).unwrap();
    assert!(monitor.take(), "our own change");
    host.firewall().apply(&services()).unwrap();
    assert_eq!(host.firewall().families().unwrap().len(), 2);
    assert!(
        !monitor.take(),
        "looking, and applying what is there, is no change"
    );
    command("nft add table inet other");
    command("nft add chain inet other c");
    assert!(!monitor.take(), "another table");
    host.iptables("ip6tables", "-D PREROUTING -j CONVEY");
    assert!(monitor.take(), "somebody else's change");
    command("nft flush ruleset");
    assert!(monitor.take(), "everything is gone");
}

pub fn legacy_is_told_from_nft(host: &Host) {
    assert!(!host.firewall().is_nft());
}
