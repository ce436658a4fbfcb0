//! Method tc on a host in service: what is in force stays, new filters come before old ones go.

use std::fs;

use super::Site;

/// A site where `tc` is `bin/tc`.
struct Filters(Site);

impl Filters {
    fn new(name: &str) -> Self {
        Self(Site::new(name))
    }

    /// Exit status, and the commands of tc that change something.
    fn try_changes(&self, refused: &str, arguments: &str) -> (i32, Vec<String>) {
        let log = self.0.lab.dir().join("tc.log");
        fs::write(&log, "").unwrap();
        let bin = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/backend/bin");
        let output = self.0.server.try_run(&format!(
            "PATH={bin}:$PATH TC_LOG={} TC_REFUSES='{refused}' {}",
            log.display(),
            self.0.command(arguments)
        ));
        let changes = fs::read_to_string(&log).unwrap();
        (
            output.status.code().unwrap(),
            changes.lines().map(str::to_owned).collect(),
        )
    }

    fn changes(&self, arguments: &str) -> Vec<String> {
        let (status, changes) = self.try_changes("", arguments);
        assert_eq!(status, 0, "{arguments}: {changes:?}");
        changes
    }

    fn state(&self) -> String {
        fs::read_to_string(self.0.lab.dir().join("state/web.tc")).unwrap()
    }

    /// All that tc knows of the host.
    fn in_kernel(&self) -> String {
        (self.0.server).run("tc qdisc show dev eth0 | sed 's/ direct_packets.*//'; tc filter show dev eth0 egress 2>/dev/null; tc filter show dev eth0")
    }
}

const APPLY: &str = "apply web --method tc --interface eth0 --rule tcp,10.77.0.200,80,10.77.0.2";

pub fn what_is_in_effect_is_not_touched() {
    let filters = Filters::new("backend-again");
    for qdisc in ["clsact", "htb"] {
        let apply = format!("{APPLY} --qdisc {qdisc} --lb 10.77.0.99");
        assert!(!filters.changes(&apply).is_empty());
        let before = filters.in_kernel();
        assert_eq!(filters.changes(&apply), [""; 0]);
        // the service
        assert_eq!(filters.changes("apply --no-boot web"), [""; 0]);
        assert_eq!(filters.in_kernel(), before);
        filters.changes("remove web");
    }
    // what somebody has taken out is put back, and only that
    filters.changes(&format!("{APPLY} --lb 10.77.0.99"));
    filters.0.server.run("tc filter del dev eth0 egress pref 10");
    let (adds, dels) = adds_and_dels(&filters.changes("apply web"));
    assert_eq!((adds, dels), (1, 0));
    filters.0.server.run("tc qdisc del dev eth0 clsact");
    assert_eq!(adds_and_dels(&filters.changes("apply web")), (3, 0));
}

/// How many there are, when every `add` comes before every `del`.
fn adds_and_dels(changes: &[String]) -> (usize, usize) {
    let adds = (changes.iter().take_while(|change| change.contains(" add "))).count();
    let dels = (changes.iter().skip(adds))
        .take_while(|change| change.contains(" del "))
        .count();
    assert_eq!(adds + dels, changes.len(), "{changes:#?}");
    (adds, dels)
}

pub fn a_change_adds_before_it_deletes() {
    let filters = Filters::new("backend-change");
    // as many load balancers as there are preferences before the first nat
    let lbs: String = (90..99).map(|n| format!(" --lb 10.77.0.{n}")).collect();
    filters.changes(&format!("{APPLY}{lbs}"));
    for (change, expected) in [
        // all passes of a name are at one preference
        (format!("{APPLY}{lbs} --lb 10.77.0.99"), (10, 1)),
        (
            format!("{APPLY}{lbs} --rule udp,10.77.0.200,53,10.77.0.2"),
            (10, 1),
        ),
        (
            format!("{} --lb 10.77.0.99", APPLY.replace(".200", ".201")),
            (2, 3),
        ),
        // with a qdisc each
        (
            format!("{} --lb 10.77.0.99 --qdisc htb", APPLY.replace(".200", ".201")),
            (3, 3),
        ),
    ] {
        assert_eq!(adds_and_dels(&filters.changes(&change)), expected, "{change}");
        assert_eq!(filters.changes(&change), [""; 0], "{change}, again");
    }
    filters.changes("remove web");

    // what an earlier version has noted does not say what the filters are for
    filters.changes(&format!("{APPLY} --lb 10.77.0.99"));
    let old = "on eth0 clsact\npref 1\npref 10\n";
    fs::write(filters.0.lab.dir().join("state/web.tc"), old).unwrap();
    assert_eq!(adds_and_dels(&filters.changes("apply web")), (2, 2));
    assert_eq!(filters.changes("apply web"), [""; 0]);
    // another method's rules come before these go, too
    let log = filters.changes(&format!("{APPLY} --method nft"));
    assert_eq!(adds_and_dels(&log), (0, 3));
    let ruleset = filters.0.server.run("nft list ruleset");
    assert!(ruleset.contains("10.77.0.200"), "{ruleset}");
    assert!(!filters.in_kernel().contains("pref"));
}

pub fn a_refused_change_leaves_the_old() {
    let filters = Filters::new("backend-refused");
    filters.changes(&format!("{APPLY} --lb 10.77.0.99"));
    let (state, in_kernel) = (filters.state(), filters.in_kernel());
    for change in [
        "",
        " --lb 10.77.0.98",
        " --qdisc htb",
        " --qdisc htb --lb 10.77.0.98",
    ] {
        let (status, changes) = filters.try_changes(
            "sport 53 ",
            &format!("{APPLY} --lb 10.77.0.99 --rule udp,10.77.0.200,53,10.77.0.2{change}"),
        );
        assert_eq!(status, 69, "{change}: {changes:?}");
        assert_eq!(filters.state(), state, "{change}");
        assert_eq!(filters.in_kernel(), in_kernel, "{change}");
    }
    assert_eq!(filters.changes("apply web"), [""; 0]);
}
