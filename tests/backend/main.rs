//! `convey-backend-setup`: what it prints, refuses and finds, and that answers really leave from the VIP.
//!
//! This kernel may lack tc's nat action; then the tc method is held to the commands that it prints and runs, the latter
//! with `bin/tc`, which makes real filters without their actions. Its whole run is the appliance machine's.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod filters;
mod l2;
#[path = "../lab/mod.rs"]
mod lab;
mod ranges;

use std::{
    path::Path,
    process::{Command, ExitCode},
};

use lab::{Host, Lab};
use libtest_mimic::{Arguments, Trial};

const SCRIPT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/packaging/backend/convey-backend-setup"
);

fn main() -> ExitCode {
    let why_not = lab::why_not_packets();
    if let Some(why) = &why_not {
        eprintln!("SKIPPED (counted as ignored): tests of real hosts: {why}");
    }
    let pure: [(&str, fn()); 6] = [
        ("ranges_are_few_rules_and_must_fit", ranges::are_few_rules),
        (
            "method_l2_prints_its_commands_and_refuses_another_port",
            l2::prints_its_commands,
        ),
        (
            "each_method_prints_exactly_its_commands",
            each_method_prints_exactly_its_commands,
        ),
        (
            "what_tc_cannot_do_is_said_before_anything_is_touched",
            what_tc_cannot_do_is_said,
        ),
        (
            "bad_command_lines_are_refused_with_64",
            bad_command_lines_are_refused,
        ),
        (
            "one_port_cannot_answer_for_two_vips",
            one_port_cannot_answer_for_two_vips,
        ),
    ];
    let real: [(&str, fn()); 13] = [
        (
            "method_l2_twice_changes_nothing_and_removing_it_leaves_what_was_there",
            l2::applying_is_idempotent,
        ),
        ("names_share_a_vip_on_lo", l2::names_share_a_vip),
        ("check_names_what_method_l2_lacks", l2::check_names_reasons),
        (
            "answers_leave_from_the_vip_also_large_ones",
            answers_leave_from_the_vip,
        ),
        (
            "applying_twice_changes_nothing_and_removing_leaves_nothing",
            applying_is_idempotent,
        ),
        ("what_is_remembered_comes_back", what_is_remembered_comes_back),
        ("check_names_the_common_reasons_for_silence", check_names_reasons),
        (
            "somebody_elses_root_qdisc_is_left_alone",
            somebodys_qdisc_is_left_alone,
        ),
        (
            "a_refused_tc_filter_leaves_nothing_behind",
            a_refused_tc_filter_leaves_nothing,
        ),
        (
            "what_tc_has_in_effect_is_not_touched",
            filters::what_is_in_effect_is_not_touched,
        ),
        (
            "a_change_makes_tc_filters_before_it_takes_any_out",
            filters::a_change_adds_before_it_deletes,
        ),
        (
            "a_refused_change_leaves_what_was_there",
            filters::a_refused_change_leaves_the_old,
        ),
        (
            "systemd_is_told_what_is_in_effect_but_not_by_its_own_service",
            systemd_is_told,
        ),
    ];
    let trials = (pure.into_iter().map(|(name, test)| trial(name, test)))
        .chain((real.into_iter()).map(|(name, test)| trial(name, test).with_ignored_flag(why_not.is_some())))
        .collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn trial(name: &str, test: fn()) -> Trial {
    Trial::test(name, move || {
        test();
        Ok(())
    })
}

/// Exit status, standard output and standard error of a call that touches nothing of this machine.
fn call(dir: &Path, arguments: &str) -> (i32, String, String) {
    let output = Command::new(SCRIPT)
        .args(arguments.split_whitespace())
        .env("CONVEY_BACKEND_CONF", dir)
        .env("CONVEY_BACKEND_STATE", dir.join("state"))
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn printed(arguments: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let (status, stdout, stderr) = call(dir.path(), arguments);
    assert_eq!((status, stderr.as_str()), (0, ""), "{arguments}");
    assert_eq!(dir.path().read_dir().unwrap().count(), 0, "printing wrote a file");
    stdout
}

fn each_method_prints_exactly_its_commands() {
    assert_eq!(
        printed(
            "print web-a --rule tcp,192.0.2.1,80,10.0.0.5,8080 --rule udp,2001:db8::1,53,fd00::5 --lb 10.0.0.2 --lb fd00::2"
        ),
        r#"nft -f - <<'END'
add table inet convey-backend-web-a
delete table inet convey-backend-web-a
table inet convey-backend-web-a {
    chain answers {
        type filter hook postrouting priority 300; policy accept;
        ip daddr 10.0.0.2 accept
        ip6 daddr fd00::2 accept
        ip saddr 10.0.0.5 tcp sport 8080 counter ip saddr set 192.0.2.1 tcp sport set 80
        ip6 saddr fd00::5 udp sport 53 counter ip6 saddr set 2001:db8::1
    }
}
END
"#
    );
    let tc = "--method tc --interface eth0 --rule tcp,192.0.2.1,80,10.0.0.5 --rule udp,192.0.2.1,53,10.0.0.5 --lb 10.0.0.2";
    let filters = |parent: &str| {
        format!(
            "tc filter add dev eth0 {parent} protocol ip prio 1 u32 match ip dst 10.0.0.2/32 action ok\n\
             tc filter add dev eth0 {parent} protocol ip prio 10 u32 match ip protocol 6 0xff match ip src 10.0.0.5/32 \
             match ip sport 80 0xffff action nat egress 10.0.0.5/32 192.0.2.1\n\
             tc filter add dev eth0 {parent} protocol ip prio 11 u32 match ip protocol 17 0xff match ip src 10.0.0.5/32 \
             match ip sport 53 0xffff action nat egress 10.0.0.5/32 192.0.2.1\n"
        )
    };
    assert_eq!(
        printed(&format!("print web-a {tc}")),
        format!("tc qdisc add dev eth0 clsact\n{}", filters("egress"))
    );
    assert_eq!(
        printed(&format!("apply web-a --dry-run --qdisc htb {tc}")),
        format!(
            "tc qdisc add dev eth0 root handle c0de: htb\n{}",
            filters("parent c0de:")
        )
    );
}

fn what_tc_cannot_do_is_said() {
    let dir = tempfile::tempdir().unwrap();
    for (rule, reason) in [
        (
            "tcp,192.0.2.1,80,10.0.0.5,8080",
            "cannot change ports: use --method nft",
        ),
        ("tcp,2001:db8::1,80,fd00::5", "knows IPv4 only: use --method nft"),
    ] {
        let (status, stdout, stderr) = call(
            dir.path(),
            &format!("print a --method tc --interface eth0 --rule {rule}"),
        );
        assert_eq!((status, stdout.as_str()), (78, ""), "{rule}");
        assert!(stderr.contains(reason), "{stderr}");
    }
}

fn bad_command_lines_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in [
        "",
        "fly",
        "apply",
        "apply ../etc/passwd --rule tcp,192.0.2.1,80,10.0.0.5",
        "apply -- x",
        "print a b",
        "print a --rule tcp,192.0.2.1,80",
        "print a --rule tcp,192.0.2.1,0,10.0.0.5",
        "print a --rule tcp,192.0.2.1,65536,10.0.0.5",
        "print a --rule sctp,192.0.2.1,80,10.0.0.5",
        "print a --rule tcp,192.0.2.256,80,10.0.0.5",
        "print a --rule tcp,192.0.2.1,80,fd00::5",
        "print a --rule tcp,192.0.2.1;reboot,80,10.0.0.5",
        "print a --rule tcp,192.0.2.1,80,10.0.0.5 --lb host",
        "print a --rule tcp,192.0.2.1,80,10.0.0.5 --method magic",
        "print a --rule tcp,192.0.2.1,80,10.0.0.5 --interface a/b",
        "print a --rule",
        "print a --loud",
    ] {
        let (status, stdout, stderr) = call(dir.path(), arguments);
        assert_eq!((status, stdout.as_str()), (64, ""), "{arguments}: {stderr}");
        assert!(!stderr.is_empty(), "{arguments}");
    }
}

fn one_port_cannot_answer_for_two_vips() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("other.conf"),
        "method=nft\nrule=tcp,192.0.2.9,80,10.0.0.5\n",
    )
    .unwrap();
    for arguments in [
        "print a --rule tcp,192.0.2.1,80,10.0.0.5",
        "print b --rule tcp,192.0.2.1,80,10.0.0.6 --rule tcp,192.0.2.2,80,10.0.0.6",
    ] {
        let (status, _, stderr) = call(dir.path(), arguments);
        assert_eq!(status, 78, "{stderr}");
        assert!(stderr.contains("cannot leave from both"), "{stderr}");
    }
    // the same rule under another name is the same answer
    assert_eq!(call(dir.path(), "print a --rule tcp,192.0.2.9,80,10.0.0.5").0, 0);
}

/// A client and a server, and how the script is run on the server.
struct Site {
    client: Host,
    server: Host,
    lab: Lab,
}

impl Site {
    fn new(name: &str) -> Self {
        let lab = Lab::new(name);
        let (client, server) = (lab.host("client"), lab.host("server"));
        Self { client, server, lab }
    }

    fn command(&self, arguments: &str) -> String {
        let dir = self.lab.dir().display();
        format!("CONVEY_BACKEND_CONF={dir}/conf CONVEY_BACKEND_STATE={dir}/state {SCRIPT} {arguments}")
    }

    fn setup(&self, arguments: &str) -> String {
        self.server.run(&self.command(arguments))
    }

    /// Exit status and everything that was said.
    fn try_setup(&self, arguments: &str) -> (i32, String) {
        let output = self.server.try_run(&self.command(arguments));
        let status = output.status.code().unwrap();
        (status, output.stdout + &output.stderr)
    }

    fn rule(&self) -> String {
        format!("--rule udp,10.77.0.200,53,{},5353", self.server.ip4())
    }
}

/// Every host's count of packets with wrong checksums.
fn checksum_errors(host: &Host) -> String {
    host.run("nstat -asz | awk '/InCsumErrors/ { sum += $2 } END { print sum + 0 }'")
}

fn answers_leave_from_the_vip() {
    use std::net::{SocketAddr, UdpSocket};
    let site = Site::new("backend-nft");
    let server6 = site.server.ip6();
    site.setup(&format!(
        "apply dns {} --rule udp,fd77::200,53,{server6},5353 --lb 10.77.0.99",
        site.rule()
    ));
    for (server, vip) in [
        (site.server.addr(5353), "10.77.0.200:53"),
        (site.server.addr6(5353), "[fd77::200]:53"),
    ] {
        let vip: SocketAddr = vip.parse().unwrap();
        let echo = site.server.inside(|| UdpSocket::bind(server).unwrap());
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            for _ in 0..4 {
                let (len, from) = echo.recv_from(&mut buffer).unwrap();
                echo.send_to(&buffer[..len], from).unwrap();
            }
        });
        let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let client = site.client.inside(|| UdpSocket::bind(any).unwrap());
        client.set_read_timeout(Some(lab::PATIENCE)).unwrap();
        // whole, one byte too large, and in many fragments
        for size in [100, 1_472, 1_473, 20_000] {
            let sent = lab::random_bytes(size as u64, size);
            client.send_to(&sent, server).unwrap();
            let mut buffer = vec![0; 65_536];
            let (len, from) = client
                .recv_from(&mut buffer)
                .unwrap_or_else(|e| panic!("{size} bytes to {server}: {e}"));
            assert_eq!((from, buffer[..len] == sent[..]), (vip, true), "{size} bytes");
        }
        thread.join().unwrap();
    }
    assert_eq!(checksum_errors(&site.client).trim(), "0");
    assert_eq!(site.setup("status").lines().next(), Some("dns: set up (nft)"));
}

fn applying_is_idempotent() {
    let site = Site::new("backend-twice");
    site.server
        .run("nft 'add table inet theirs { chain c { type filter hook output priority 0; counter; }; }'");
    let theirs = site.server.run("nft -s list table inet theirs");
    let apply = format!("apply dns {}", site.rule());
    site.setup(&apply);
    let once = site.server.run("nft -s list ruleset");
    site.setup(&apply);
    assert_eq!(site.server.run("nft -s list ruleset"), once);
    site.setup("remove dns");
    assert_eq!(site.server.run("nft -s list ruleset"), theirs);
    assert!(!site.lab.dir().join("conf").exists(), "a configuration was left");
    site.setup("remove dns");
}

fn what_is_remembered_comes_back() {
    let site = Site::new("backend-boot");
    site.setup(&format!("apply dns {} --lb 10.77.0.99", site.rule()));
    let before = site.server.run("nft -s list ruleset");
    site.setup("remove --keep dns");
    assert_eq!(site.server.run("nft -s list ruleset"), "");
    let (status, text) = site.try_setup("status dns");
    assert_eq!(status, 69);
    assert!(text.contains("NOT set up"), "{text}");
    // what the service does at boot
    site.setup("apply dns");
    assert_eq!(site.server.run("nft -s list ruleset"), before);
    site.server.run(&format!(
        "echo 'colour=red' >> {}/conf/dns.conf",
        site.lab.dir().display()
    ));
    let (status, text) = site.try_setup("apply dns");
    assert_eq!(status, 78);
    assert!(
        text.contains("dns.conf:5: `colour=red' is not a valid line"),
        "{text}"
    );
}

fn check_names_reasons() {
    let site = Site::new("backend-check");
    site.setup(&format!("apply dns {} --lb 10.77.0.99", site.rule()));
    let expect = |status: i32, part: &str| {
        let (code, text) = site.try_setup(&format!("check dns --client {}", site.client.ip4()));
        assert_eq!(code, status, "{text}");
        assert!(text.contains(part), "no {part:?} in\n{text}");
    };
    expect(69, "nothing listens on udp port 5353");
    let server = site.server.addr(5353);
    let socket = site
        .server
        .inside(|| std::net::UdpSocket::bind("127.0.0.1:5353").unwrap());
    expect(69, "listens only on 127.0.0.1:5353");
    drop(socket);
    let _socket = site.server.inside(|| std::net::UdpSocket::bind(server).unwrap());
    expect(0, "No problem found");

    site.server.run("ip address add 10.77.0.200/32 dev eth0");
    expect(69, "this host has the VIP 10.77.0.200 on eth0");
    site.server.run("ip address del 10.77.0.200/32 dev eth0");

    site.server.run("nft delete table inet convey-backend-dns");
    expect(69, "the rules are not in the kernel");
    site.setup("apply dns");

    // answers leave by another interface than packets come in by
    site.server.run(
        "ip link add other type veth peer name far && ip link set far up && ip link set other up && ip address add 10.88.0.1/24 dev other && \
         sysctl -qw net.ipv4.conf.eth0.rp_filter=1",
    );
    let (code, text) = site.try_setup("check dns --client 10.88.0.7");
    assert_eq!(code, 69);
    assert!(text.contains("rp_filter is strict"), "{text}");
    site.server.run("sysctl -qw net.ipv4.conf.all.rp_filter=2");
    let (code, text) = site.try_setup("check dns --client 10.88.0.7");
    assert_eq!(code, 0, "{text}");
    expect(0, "No problem found");
}

fn somebodys_qdisc_is_left_alone() {
    let site = Site::new("backend-qdisc");
    site.server.run("tc qdisc add dev eth0 root handle 1: htb");
    let root = || {
        let shown = site.server.run("tc qdisc show dev eth0");
        // without its counters
        shown.split(" direct_packets_stat").next().unwrap().to_owned()
    };
    let before = root();
    let rule = format!("--rule tcp,10.77.0.200,80,{}", site.server.ip4());
    let (status, text) = site.try_setup(&format!(
        "apply web --method tc --qdisc htb --interface eth0 {rule}"
    ));
    assert_eq!(status, 69, "{text}");
    assert!(
        text.contains("foreign root qdisc (htb 1:") && text.contains("--qdisc clsact"),
        "{text}"
    );
    assert_eq!(root(), before);
}

fn a_refused_tc_filter_leaves_nothing() {
    let site = Site::new("backend-tc");
    let rule = format!("--rule tcp,10.77.0.200,80,{} --lb 10.77.0.99", site.server.ip4());
    for qdisc in ["clsact", "htb"] {
        let before = site.server.run("tc qdisc show dev eth0");
        let (status, text) = site.try_setup(&format!(
            "apply web --method tc --qdisc {qdisc} --interface eth0 {rule}"
        ));
        if status == 0 {
            // a kernel with act_nat: the filters are there, and go again
            let parent = if qdisc == "clsact" {
                "egress"
            } else {
                "parent c0de:"
            };
            let filters = site.server.run(&format!("tc filter show dev eth0 {parent}"));
            assert!(filters.contains("nat egress"), "{filters}");
            site.setup("remove web");
        } else {
            assert_eq!(status, 69, "{text}");
            assert!(
                text.contains("act_nat") && text.contains("--method nft"),
                "{text}"
            );
        }
        assert_eq!(site.server.run("tc qdisc show dev eth0"), before, "{qdisc}");
    }
}

/// A machine with systemd, whose `systemctl` writes down what it is told and says that the service is as the file says.
const SYSTEMCTL: &str = r#"#!/bin/sh
case $*,$(cat "$STATE") in
    *UnitFileState*,*) echo enabled ;;
    *ActiveState*,*) cat "$STATE" ;;
    *) echo "$*" >>"$SAID" ;;
esac
"#;

fn systemd_is_told() {
    use std::os::unix::fs::PermissionsExt;
    let site = Site::new("backend-systemd");
    let dir = site.lab.dir();
    std::fs::create_dir(dir.join("bin")).unwrap();
    let program = dir.join("bin/systemctl");
    std::fs::write(&program, SYSTEMCTL).unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    let told = |unit: &str, arguments: &str| {
        let command = site.command(arguments);
        std::fs::write(dir.join("unit"), unit).unwrap();
        std::fs::write(dir.join("said"), "").unwrap();
        let at = dir.display();
        // a machine where systemd runs, for this one command
        site.server.run(&format!(
            "unshare -m sh -ec 'mount -t tmpfs none /run; mkdir -p /run/systemd/system; \
             PATH={at}/bin:$PATH STATE={at}/unit SAID={at}/said {command}'"
        ));
        std::fs::read_to_string(dir.join("said")).unwrap()
    };
    let apply = format!("apply dns {}", site.rule());
    for (unit, arguments, expected) in [
        ("inactive", apply.as_str(), "enable --now"),
        ("active", "apply dns", ""),
        ("inactive", "apply dns", "start"),
        ("activating", "apply --no-boot dns", ""),
        ("activating", "apply dns", ""),
        ("inactive", "apply --dry-run dns", ""),
        ("inactive", &format!("{apply} --no-boot"), ""),
        ("active", "remove --keep dns", "stop"),
        ("deactivating", "remove --keep --no-boot dns", ""),
        ("active", "remove dns", "disable --now"),
    ] {
        let said = told(unit, arguments);
        let expected = match expected {
            "" => String::new(),
            verb => format!("{verb} --quiet convey-backend@dns.service\n"),
        };
        assert_eq!(said, expected, "{arguments}, while the unit is {unit}");
    }
}
