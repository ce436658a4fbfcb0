//! Watches every host's counters of wrong checksums: a packet can arrive with a broken one and be dropped there unseen.

use std::{collections::BTreeMap, fs, thread};

use super::Host;

/// Fails the test, when it goes, if a host has counted a wrong checksum since it was made.
pub struct Checksums(Vec<(Host, BTreeMap<String, u64>)>);

impl Checksums {
    /// Watches these hosts from now on.
    pub fn of<'a>(hosts: impl IntoIterator<Item = &'a Host>) -> Self {
        Self(
            hosts
                .into_iter()
                .map(|host| (host.clone(), errors(host)))
                .collect(),
        )
    }

    /// What was counted since, host by host.
    pub fn found(&self) -> Vec<String> {
        self.0
            .iter()
            .flat_map(|(host, before)| {
                errors(host)
                    .into_iter()
                    .filter_map(|(counter, now)| {
                        let new = now - before.get(&counter).copied().unwrap_or(0);
                        (new > 0).then(|| format!("{}: {counter} +{new}", host.name()))
                    })
                    .collect::<Vec<_>>()
            })
            .collect()
    }
}

impl Drop for Checksums {
    fn drop(&mut self) {
        if !thread::panicking() {
            let found = self.found();
            assert!(
                found.is_empty(),
                "packets with wrong checksums arrived: {found:?}"
            );
        }
    }
}

/// InCsumErrors of TCP (both families), UDP, UDPv6, ICMP and ICMPv6.
fn errors(host: &Host) -> BTreeMap<String, u64> {
    // /proc/net is that of the process, not of this thread
    let (v4, v6) = host.inside(|| {
        let read = |file| fs::read_to_string(format!("/proc/thread-self/net/{file}")).expect("counters");
        (read("snmp"), read("snmp6"))
    });
    let mut errors = BTreeMap::new();
    let lines: Vec<&str> = v4.lines().collect();
    for pair in lines.chunks(2) {
        let [names, values] = pair else { continue };
        for (name, value) in names.split_whitespace().zip(values.split_whitespace()) {
            if name == "InCsumErrors" {
                let protocol = names.split(':').next().unwrap_or_default();
                errors.insert(format!("{protocol}{name}"), value.parse().expect("a count"));
            }
        }
    }
    for line in v6.lines() {
        if let [name, value] = line.split_whitespace().collect::<Vec<_>>()[..]
            && name.ends_with("InCsumErrors")
        {
            errors.insert(name.to_owned(), value.parse().expect("a count"));
        }
    }
    assert!(errors.len() >= 4, "counters are named otherwise here: {errors:?}");
    errors
}
