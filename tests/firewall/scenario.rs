//! What a copy of the test program does. A panic is a failed test.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use convey::{
    base::Protocol::{Tcp, Udp},
    config::PacketService,
    firewall::{Applied, FirewallError, Rule, Variant, check_ephemeral, plan, record_path},
};

use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike as _,
};
use tempfile::TempDir;

use crate::{
    Setting, cli,
    host::{self, Host, command, nat, reserve, reserved, send_to_vip, service},
    monitor,
};

/// In which settings a scenario runs.
type Only = fn(Setting) -> bool;

/// A scenario: its name as a statement, where it holds, what it does.
type Scenario = (&'static str, Only, fn(&Host));

/// Every scenario.
pub const ALL: &[Scenario] = &[
    ("the_rules_are_as_planned_and_drop", anywhere, as_planned),
    ("applying_again_changes_nothing", anywhere, applying_again),
    ("a_reload_touches_only_what_differs", anywhere, reload),
    ("rules_of_other_people_stay_as_they_were", anywhere, foreign_rules),
    (
        "what_a_killed_process_left_is_taken_over_and_out",
        anywhere,
        leftovers,
    ),
    ("what_others_broke_in_the_chain_is_put_right", anywhere, put_right),
    ("clearing_nothing_does_nothing", anywhere, clear_nothing),
    (
        "a_chain_that_others_still_use_is_emptied_and_reported",
        anywhere,
        chain_in_use,
    ),
    (
        "measured_twice_the_servers_cost_about_twice",
        anywhere,
        many_servers,
    ),
    ("a_plan_that_is_refused_leaves_what_was_there", anywhere, refused),
    (
        "a_program_that_changes_the_table_meanwhile_does_not_undo_us",
        anywhere,
        concurrent,
    ),
    (
        "reserved_ports_of_an_administrator_stay",
        anywhere,
        reserved_ports,
    ),
    (
        "without_passthrough_no_port_is_reserved",
        anywhere,
        no_passthrough,
    ),
    ("a_long_list_of_reserved_ports_is_kept_whole", anywhere, long_list),
    (
        "a_nat_range_that_leaves_too_few_ephemeral_ports_is_refused",
        anywhere,
        too_few_ports,
    ),
    ("the_command_shows_and_clears", anywhere, cli::shows_and_clears),
    ("the_command_says_what_differs", anywhere, cli::says_what_differs),
    (
        "read_only_sysctls_matter_only_to_ephemeral_nat_ports",
        as_root,
        read_only_sysctls,
    ),
    (
        "a_missing_program_is_named_with_its_package",
        once,
        missing_program,
    ),
    ("without_ip6tables_ipv4_works", once, without_ip6tables),
    (
        "the_kernel_tells_of_changes_and_not_of_looks",
        |setting| setting.variant == Variant::Nft && !setting.nobody,
        monitor::tells_of_changes_alone,
    ),
    (
        "iptables_legacy_is_known_not_to_be_told_of",
        |setting| setting.variant == Variant::Legacy,
        monitor::legacy_is_told_from_nft,
    ),
];

fn anywhere(_: Setting) -> bool {
    true
}

fn as_root(setting: Setting) -> bool {
    !setting.nobody
}

fn once(setting: Setting) -> bool {
    as_root(setting) && setting.variant == Variant::Nft
}

/// Runs one.
pub fn run(setting: Setting, name: &str) {
    let (.., scenario) = ALL.iter().find(|(each, ..)| *each == name).unwrap();
    scenario(&Host::new(setting));
}

/// A passthrough frontend and a DSR frontend, in both families.
pub fn services() -> Vec<PacketService> {
    vec![
        service(
            "192.0.2.10:80",
            Tcp,
            nat(61_000, 65_535),
            &["10.0.0.2:8080", "10.0.0.3:8080"],
        ),
        service("192.0.2.10:53", Udp, None, &["10.0.0.2:53"]),
        service(
            "[2001:db8::10]:80",
            Tcp,
            nat(61_000, 65_535),
            &["[fd00::2]:8080", "[::ffff:1.2.3.4]:80", "[::1:2]:80"],
        ),
    ]
}

const DNS: &str = "-d 192.0.2.10/32 -p udp -m udp --dport 53 -j DROP";

fn sorted(mut rules: Vec<Rule>) -> Vec<Rule> {
    rules.sort_unstable();
    rules
}

fn as_planned(host: &Host) {
    let mut firewall = host.firewall();
    firewall.apply(&services()).unwrap();
    assert_eq!(sorted(firewall.show().unwrap()), plan(&services()));
    for family in firewall.families().unwrap() {
        assert_eq!(family.jumps, 1);
    }
    send_to_vip(53);
    send_to_vip(54);
    assert_eq!(host.matches(DNS), 1, "only port 53 is to be dropped");
}

fn applying_again(host: &Host) {
    host.firewall().apply(&services()).unwrap();
    let (rules, ports) = (host.saved(), reserved());
    send_to_vip(53);
    let mut shuffled = services();
    shuffled.reverse();
    let mut firewall = host.firewall();
    firewall.apply(&shuffled).unwrap();
    firewall.apply(&shuffled).unwrap();
    assert_eq!((host.saved(), reserved()), (rules, ports));
    assert_eq!(host.matches(DNS), 1, "the rule was written anew");
}

fn reload(host: &Host) {
    let mut firewall = host.firewall();
    firewall.apply(&services()).unwrap();
    send_to_vip(53);
    let changed = vec![
        service("192.0.2.10:53", Udp, None, &["10.0.0.2:53"]),
        service("192.0.2.11:443", Tcp, nat(50_000, 50_099), &["10.0.0.9:443"]),
    ];
    firewall.apply(&changed).unwrap();
    assert_eq!(sorted(firewall.show().unwrap()), plan(&changed));
    assert_eq!(host.matches(DNS), 1, "the rule was written anew");
    assert_eq!(reserved(), "50000-50099");
    let v6 = firewall.families().unwrap().pop().unwrap();
    assert_eq!((v6.rules, v6.jumps), (None, 0), "no IPv6 is wanted any more");
    firewall.apply(&[]).unwrap();
    assert_eq!((firewall.show().unwrap(), reserved()), (vec![], String::new()));
}

fn foreign_rules(host: &Host) {
    let before = host.saved();
    let mut firewall = host.firewall();
    firewall.apply(&services()).unwrap();
    assert_ne!(host.saved(), before);
    let theirs = |saved: String| -> Vec<String> {
        let ours = |line: &str| {
            line.starts_with("-A CONVEY ")
                || line.starts_with(":CONVEY ")
                || line == "-A PREROUTING -j CONVEY"
        };
        saved
            .lines()
            .filter(|line| !ours(line))
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(theirs(host.saved()), theirs(before.clone()));
    firewall.apply(&services()[..1]).unwrap();
    firewall.clear().unwrap();
    assert_eq!(host.saved(), before);
}

fn leftovers(host: &Host) {
    reserve("8080");
    let before = host.saved();
    host.firewall().apply(&services()).unwrap();
    // a new process, another configuration
    let mut next = host.firewall();
    let other = [service(
        "192.0.2.11:80",
        Tcp,
        nat(60_000, 60_099),
        &["10.0.0.2:80"],
    )];
    next.apply(&other).unwrap();
    assert_eq!(sorted(next.show().unwrap()), plan(&other));
    assert_eq!(reserved(), "8080,60000-60099");
    host.firewall().clear().unwrap();
    assert_eq!((host.saved(), reserved()), (before, "8080".into()));
}

fn put_right(host: &Host) {
    host.firewall().apply(&services()).unwrap();
    for damage in [
        "-D PREROUTING -j CONVEY",
        "-F CONVEY",
        "-A PREROUTING -j CONVEY",
        "-A CONVEY -s 10.9.9.9/32 -m comment --comment \"not ours\" -j ACCEPT",
        "-A CONVEY -d 192.0.2.10/32 -p udp -m udp --dport 53 -j DROP",
    ] {
        host.iptables("iptables", damage);
        let mut firewall = host.firewall();
        firewall.apply(&services()).unwrap();
        assert_eq!(sorted(firewall.show().unwrap()), plan(&services()), "{damage}");
        for family in firewall.families().unwrap() {
            assert_eq!(family.jumps, 1, "{damage}");
        }
    }
}

fn clear_nothing(host: &Host) {
    let before = host.saved();
    host.firewall().clear().unwrap();
    assert_eq!(host.saved(), before);
    // in a namespace where nobody has used the table yet
    if !host.setting.nobody {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        host.firewall().clear().unwrap();
        assert_eq!(command("nft list ruleset"), "", "clearing made a table");
    }
}

fn chain_in_use(host: &Host) {
    let mut firewall = host.firewall();
    firewall.apply(&services()).unwrap();
    host.iptables("iptables", "-A OUTPUT -p sctp -j CONVEY");
    let errors = firewall.clear().unwrap_err();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].to_string().contains("-X CONVEY"), "{}", errors[0]);
    assert_eq!(
        firewall.show().unwrap(),
        [],
        "the rules must be gone all the same"
    );
    assert_eq!(reserved(), "", "the ports too");
    host.iptables("iptables", "-D OUTPUT -p sctp -j CONVEY");
    firewall.clear().unwrap();
}

fn many_servers(host: &Host) {
    let servers: Vec<String> = (0..2_000)
        .map(|n| format!("10.1.{}.{}:80", n / 250, n % 250))
        .collect();
    let servers: Vec<&str> = servers.iter().map(String::as_str).collect();
    let many = |servers| [service("192.0.2.10:80", Tcp, nat(61_000, 65_535), servers)];
    let mut firewall = host.firewall();
    // all of them, then half of them, then none
    let mut cost = |count: usize| {
        let before = cpu_time();
        for servers in [&servers[..count], &servers[..count / 2]] {
            firewall.apply(&many(servers)).unwrap();
            assert_eq!(firewall.show().unwrap().len(), 1 + servers.len());
        }
        firewall.clear().unwrap();
        cpu_time() - before
    };
    // the least of three: what else the machine does only adds to it
    let mut least = |count| (0..3).map(|_| cost(count)).min().unwrap();
    let (half, all) = (least(1_000), least(2_000));
    eprintln!("1,000 servers cost {half:.1?} of CPU time, 2,000 {all:.1?}");
    assert!(
        all.as_secs_f64() <= 2.6 * half.as_secs_f64(),
        "twice the servers cost {all:?} instead of {half:?}"
    );
}

/// CPU time that this process and the programs that it has run have used.
fn cpu_time() -> Duration {
    let parts = [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN].map(|who| getrusage(who).unwrap());
    let times = parts
        .iter()
        .flat_map(|usage| [usage.user_time(), usage.system_time()]);
    times
        .map(|time| Duration::from_micros(u64::try_from(time.num_microseconds()).unwrap()))
        .sum()
}

/// The kernel knows no such port range in reverse, which no configuration can name: a failure half-way.
fn refused(host: &Host) {
    let mut firewall = host.firewall();
    firewall.apply(&services()).unwrap();
    let before = host.saved();
    let bad = [service(
        "192.0.2.77:80",
        Tcp,
        nat(65_535, 61_000),
        &["10.0.0.2:80"],
    )];
    let error = firewall.apply(&bad).unwrap_err();
    assert!(matches!(error, FirewallError::Failed { .. }), "{error}");
    assert_eq!(host.saved(), before);
}

fn concurrent(host: &Host) {
    let mut firewall = host.firewall();
    firewall.apply(&[]).unwrap();
    let suffix = host::suffix(host.setting.variant);
    // with another lock than ours, as root's programs have when we are not root
    let lock = host.directory().join("another.lock");
    let script = format!(
        "while :; do iptables-{suffix} -t raw -A OUTPUT -p sctp -j DROP; iptables-{suffix} -t raw -D OUTPUT -p sctp -j DROP; done"
    );
    let mut other = Command::new("sh")
        .args(["-c", &script])
        .env("XTABLES_LOCKFILE", &lock)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let plan_of = |round| {
        let vip = format!("192.0.2.{}:80", 20 + round);
        [service(&vip, Tcp, nat(61_000, 65_535), &["10.0.0.2:80"])]
    };
    let outcomes: Vec<_> = (0..20).map(|round| firewall.apply(&plan_of(round))).collect();
    other.kill().unwrap();
    other.wait().unwrap();
    for outcome in outcomes {
        outcome.unwrap();
    }
    // what the other read before our last change it may have written back after it
    firewall.apply(&plan_of(19)).unwrap();
    assert_eq!(sorted(firewall.show().unwrap()), plan(&plan_of(19)));
}

fn reserved_ports(host: &Host) {
    reserve("8080,61000-61009");
    let mut firewall = host.firewall();
    firewall.apply(&services()).unwrap();
    assert_eq!(reserved(), "8080,61000-65535");
    reserve("8080,9000,61000-65535");
    assert_eq!(firewall.apply(&services()).unwrap(), Applied::default());
    host.firewall().clear().unwrap();
    assert_eq!(reserved(), "8080,9000,61000-61009");
    let left: Vec<_> = std::fs::read_dir(host.directory())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert!(left.iter().all(|name| name == "xtables.lock"), "{left:?}");
}

fn no_passthrough(host: &Host) {
    host.firewall().apply(&services()[1..2]).unwrap();
    assert_eq!(reserved(), "");
}

/// The kernel takes a page of text at a time, and gives the list in one piece or cut off.
fn long_list(host: &Host) {
    let odd: Vec<String> = (5_001..12_000).step_by(2).map(|port| port.to_string()).collect();
    let odd = odd.join(",");
    let own = service("192.0.2.10:80", Tcp, nat(61_000, 65_535), &["10.0.0.2:80"]);
    command(&format!(
        "printf '%s\\n' '{odd}' > /proc/sys/net/ipv4/ip_local_reserved_ports"
    ));
    let before = long_reserved();
    assert!(before.len() > 2 * 4096, "{}", before.len());
    let mut firewall = host.firewall();
    firewall.apply(std::slice::from_ref(&own)).unwrap();
    assert_eq!(long_reserved(), format!("{before},61000-65535"));
    firewall.clear().unwrap();
    assert_eq!(long_reserved(), before);
}

fn long_reserved() -> String {
    command("dd if=/proc/sys/net/ipv4/ip_local_reserved_ports bs=262144 count=1 2>/dev/null")
        .trim()
        .to_owned()
}

fn too_few_ports(host: &Host) {
    let record = record_path(Some(&host.socket()));
    let judge = |first| check_ephemeral(&record, nat(first, 65_535).unwrap().into());
    assert_eq!(judge(61_000).unwrap(), None);
    let warning = judge(40_000).unwrap().unwrap();
    assert!(warning.contains("leave only 7232"), "{warning}");
    let error = judge(33_768).unwrap_err();
    assert!(
        matches!(error, FirewallError::TooFewPorts { left: 1_000, .. }),
        "{error}"
    );
    // what we reserved ourselves is not counted as reserved by others
    let large = service("192.0.2.10:80", Tcp, nat(36_000, 65_535), &["10.0.0.2:80"]);
    host.firewall().apply(&[large]).unwrap();
    assert_eq!(judge(61_000).unwrap(), None);
}

fn read_only_sysctls(host: &Host) {
    command("mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys");
    let mut firewall = host.firewall();
    let warning = firewall.apply(&services()).unwrap().warning.unwrap();
    assert!(
        warning.contains("61000-65535") && warning.contains("Read-only"),
        "{warning}"
    );
    assert_eq!(sorted(firewall.show().unwrap()), plan(&services()));
    let ephemeral = [service(
        "192.0.2.10:80",
        Tcp,
        nat(60_000, 65_535),
        &["10.0.0.2:80"],
    )];
    let error = firewall.apply(&ephemeral).unwrap_err();
    assert!(
        matches!(&error, FirewallError::Unreserved { ports, .. } if ports == "60000-60999"),
        "{error}"
    );
    assert_eq!(
        sorted(firewall.show().unwrap()),
        plan(&services()),
        "the old plan stays"
    );
    firewall.clear().unwrap();
}

fn missing_program(host: &Host) {
    let _cover = cover_sbin(&[]);
    let mut firewall = convey::firewall::Firewall::new(record_path(Some(&host.socket())));
    let error = firewall.apply(&services()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "iptables is not installed: apt install iptables"
    );
    assert!(firewall.show().is_err());
    firewall.clear().unwrap();
    firewall.apply(&[]).unwrap();
    assert_eq!(reserved(), "");
}

fn without_ip6tables(host: &Host) {
    let _cover = cover_sbin(&["iptables", "iptables-restore"]);
    let mut firewall = convey::firewall::Firewall::new(record_path(Some(&host.socket())));
    let (v4, v6) = services()
        .split_at_checked(2)
        .map(|(a, b)| (a.to_vec(), b.to_vec()))
        .unwrap();
    firewall.apply(&v4).unwrap();
    assert_eq!(sorted(firewall.show().unwrap()), plan(&v4));
    let error = firewall.apply(&v6).unwrap_err();
    assert_eq!(
        error.to_string(),
        "ip6tables is not installed: apt install iptables"
    );
    assert_eq!(sorted(firewall.show().unwrap()), plan(&v4));
    firewall.clear().unwrap();
}

/// Puts a directory over /usr/sbin that has nothing but these programs, in this mount namespace.
fn cover_sbin(programs: &[&str]) -> TempDir {
    let cover = tempfile::tempdir().unwrap();
    let path = cover.path().display();
    command(&format!("cp /usr/sbin/xtables-nft-multi {path}/multi"));
    for program in programs {
        command(&format!("ln -s multi {path}/{program}"));
    }
    command(&format!("mount --bind {path} /usr/sbin"));
    cover
}
