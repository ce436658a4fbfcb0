//! What Convey ships as examples, `configs/`, run as shipped: every file has the network that it is about, and its frontends
//! carry real traffic as its comments say. Needs root; without it every test counts as ignored.

#[path = "../../lab/mod.rs"]
mod lab;

mod all;
mod classic;
mod idle;
mod keepalived;
mod machine;
mod monitoring;
mod named;
mod packets;
mod pair;
mod proxied;
mod routed;
mod site;

use std::{collections::BTreeSet, fs, path::Path, process::ExitCode};

use lab::suite::{Test, tests};
use libtest_mimic::{Arguments, Trial};

/// The tests of each file, and the programs that they need besides the lab's.
type Example = (&'static str, &'static [Test], &'static [&'static str]);

const EXAMPLES: &[Example] = &[
    // the long ones first
    ("ha/bird.conf", routed::BIRD, &["bird", "birdc"]),
    ("ha/convey.service.conf", routed::SERVICE, &["bird", "birdc"]),
    ("ha/keepalived.conf", keepalived::CONF, &["keepalived"]),
    ("ha/keepalived.service.conf", keepalived::SERVICE, &["keepalived"]),
    ("ha/convey.service.conf", routed::UNIT, &["systemd-analyze"]),
    (
        "ha/keepalived.service.conf",
        keepalived::UNIT,
        &["keepalived", "systemd-analyze"],
    ),
    ("ha.toml", pair::TESTS, &[]),
    ("convey.toml", idle::TESTS, &[]),
    ("proxy.toml", proxied::TESTS, &[]),
    ("routes.toml", named::TESTS, &[]),
    ("passthrough.toml", packets::PASSTHROUGH, &[]),
    ("dsr.toml", packets::DSR, &[]),
    ("mixed.toml", packets::MIXED, &[]),
    ("full.toml", all::TESTS, &["curl", "openssl"]),
    ("prometheus/alerts.yml", monitoring::ALERTS, &["promtool"]),
    (
        "prometheus/alerts-test.yml",
        monitoring::ALERTS_TEST,
        &["promtool"],
    ),
    ("prometheus/scrape.yml", monitoring::SCRAPE, &["promtool"]),
    ("grafana/convey.json", monitoring::GRAFANA, &["promtool"]),
    ("convey-0.3.5.toml", classic::PLAIN, &[]),
    ("convey-0.3.5-pools.toml", classic::POOLS, &[]),
    ("convey-0.3.5-packets.toml", classic::PACKETS, &[]),
];

fn main() -> ExitCode {
    let skip = lab::why_not_packets();
    lab::suite::announce(skip.as_deref());
    let mut trials = vec![Trial::test("every_example_has_tests", || {
        every_example_has_tests();
        Ok(())
    })];
    for (file, tests, programs) in EXAMPLES {
        let missing = programs.iter().find(|program| !lab::is_installed(program));
        let skip = skip
            .clone()
            .or_else(|| missing.map(|program| format!("not installed: {program} (run packaging/test)")));
        trials.extend(
            tests
                .iter()
                .map(|(name, test)| lab::suite::trial(file, name, *test, skip.clone())),
        );
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn every_example_has_tests() {
    let mut shipped = BTreeSet::new();
    list(&site::path(""), "", &mut shipped);
    let tested: BTreeSet<String> = EXAMPLES
        .iter()
        .filter(|(_, tests, _)| !tests.is_empty())
        .map(|(file, ..)| (*file).to_owned())
        .collect();
    assert_eq!(shipped, tested, "files under configs/, and files with tests");
}

fn list(directory: &Path, prefix: &str, files: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).expect("configs/") {
        let entry = entry.expect("a file's name");
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            list(&entry.path(), &format!("{name}/"), files);
        } else {
            files.insert(name);
        }
    }
}
