//! Privileges and what is left behind.

use std::{fs, net::SocketAddr};

use nix::sys::signal::{Signal, kill};

use crate::{
    Test,
    kept::{everywhere, witnesses},
    lab::{Convey, Host, PATIENCE, servers::Witness, wait_until},
    site::{Plan, Port, Site, Transport, WAYS, vip},
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    Convey: no_thread_of_the_daemon_can_do_anything,
    Convey: the_rules_are_no_broader_than_the_services,
    Convey: other_peoples_rules_stay_as_they_are,
    Convey: an_administrators_reserved_ports_stay,
    Convey: a_killed_daemon_leaves_nothing,
    Convey: what_a_killed_broker_left_goes_with_the_next_start,
    Convey: what_both_left_goes_with_firewall_clear,
    Convey: what_both_left_goes_with_a_start_that_needs_no_rules,
    Convey: rules_that_another_program_takes_out_come_back,
    Convey: a_stop_leaves_nothing,
];

const WITNESS: Port = Port::same("witness", Transport::Tcp, 9);
const ECHO: Port = Port::same("echo", Transport::Udp, 7);
const RESERVED: &str = "cat /proc/sys/net/ipv4/ip_local_reserved_ports";

/// Every rule of the table `raw`, both families.
pub fn rules(host: &Host) -> String {
    host.run("iptables -t raw -S; ip6tables -t raw -S")
}

const NO_RULES: &str = "-P PREROUTING ACCEPT\n-P OUTPUT ACCEPT\n-P PREROUTING ACCEPT\n-P OUTPUT ACCEPT\n";

#[track_caller]
pub fn expect_nothing_left(host: &Host) {
    wait_until("no rule is left", PATIENCE, || rules(host) == NO_RULES);
    wait_until("no port is reserved", PATIENCE, || {
        host.run(RESERVED).trim().is_empty()
    });
}

fn start(site: &Site) -> Convey {
    let convey = site.convey(&Plan::new(&[WITNESS, ECHO], &site.servers));
    assert!(rules(&site.lb).contains("CONVEY"), "{}", rules(&site.lb));
    assert_eq!(site.lb.run(RESERVED).trim(), "61000-65535");
    convey
}

/// In order. Dropping the handle would kill the broker as well, which then cannot clean up.
fn stop(convey: &mut Convey) {
    convey.signal(Signal::SIGTERM);
    convey.wait_exit(PATIENCE);
}

fn no_thread_of_the_daemon_can_do_anything() {
    let site = Site::new("nothing", 1);
    let _witnesses = witnesses(&site);
    let convey = start(&site);
    let look = || {
        let tasks = fs::read_dir(format!("/proc/{}/task", convey.pid())).expect("the daemon's threads");
        let mut threads = 0;
        for task in tasks.flatten() {
            let status = match fs::read_to_string(task.path().join("status")) {
                Ok(status) => status,
                // a thread of the runtime's pool may have ended since they were listed
                Err(_) if !task.path().exists() => continue,
                Err(error) => panic!("a thread's status: {error}"),
            };
            threads += 1;
            for key in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
                assert!(
                    status.contains(&format!("{key}:\t0000000000000000\n")),
                    "{key} of\n{status}"
                );
            }
            for line in ["NoNewPrivs:\t1\n", "Seccomp:\t2\n"] {
                assert!(status.contains(line), "{line} of\n{status}");
            }
            let user = status.lines().find(|line| line.starts_with("Uid:")).expect("ids");
            assert!(user.split_whitespace().skip(1).all(|id| id != "0"), "{status}");
        }
        threads
    };
    assert!(look() >= 3, "two workers and the control loop");
    Witness::meet(&site.client, everywhere()[0]).expect("a meeting");
    convey.reload(&Plan::new(&[WITNESS], &site.servers).config());
    look();
}

fn the_rules_are_no_broader_than_the_services() {
    let site = Site::new("rules", 1);
    let convey = start(&site);
    let shown = convey.tool("firewall show");
    assert!(shown.status.success(), "{shown:?}");
    let text = rules(&site.lb);
    for line in text.lines().filter(|line| line.starts_with("-A CONVEY")) {
        let narrow = WAYS.iter().any(|way| line.contains(&format!("-d {}", vip(*way))))
            || line.contains(&format!("-s {}", site.servers[0].ip4()))
            || line.contains(&format!("-s {}", site.servers[0].ip6()));
        let with_port = line.contains("--dport") || line.contains("--sport");
        assert!(narrow && with_port && line.ends_with("-j DROP"), "{line}");
    }
    let jumps = text.lines().filter(|line| line.ends_with("-j CONVEY")).count();
    assert_eq!(jumps, 2, "one jump for each family\n{text}");
    // what is not ours goes on: the load balancer's own services on the VIP and on its own address
    let _own = crate::lab::servers::TcpServer::witness(&site.lb, SocketAddr::new(vip(WAYS[0]), 2222), "lb");
    let met = Witness::meet(&site.client, SocketAddr::new(vip(WAYS[0]), 2222)).expect("the VIP's other port");
    assert_eq!(met.server, "lb");
}

fn other_peoples_rules_stay_as_they_are() {
    let site = Site::new("foreign", 1);
    for tables in ["iptables", "ip6tables"] {
        site.lb.run(&format!(
            "{tables} -t raw -N MINE && {tables} -t raw -A MINE -p tcp --dport 4444 -m comment --comment 'mine, not yours' -j NOTRACK
             {tables} -t raw -A PREROUTING -p udp --dport 5555 -j MINE
             {tables} -t raw -A OUTPUT -p tcp --sport 4444 -j MINE
             {tables} -t filter -A INPUT -p tcp --dport 6666 -j DROP"
        ));
    }
    // without the comments, which hold the time
    let everything = || {
        site.lb.run(
            "for save in iptables-save ip6tables-save; do $save -t raw; $save -t filter; done | grep -v '^#'; nft list ruleset | grep -v CONVEY",
        )
    };
    let saved =
        "for save in iptables-save ip6tables-save; do $save -t raw; $save -t filter; done | grep -v '^#'";
    let before = (everything(), site.lb.run(saved));
    let mut convey = start(&site);
    convey.reload(&Plan::new(&[WITNESS], &site.servers).config());
    let during = rules(&site.lb);
    assert!(
        during.contains("-A PREROUTING -p udp -m udp --dport 5555 -j MINE"),
        "{during}"
    );
    stop(&mut convey);
    wait_until("our rules are gone", PATIENCE, || {
        !rules(&site.lb).contains("CONVEY")
    });
    assert_eq!(site.lb.run(saved), before.1, "byte for byte");
    assert_eq!(everything(), before.0, "byte for byte");
}

fn an_administrators_reserved_ports_stay() {
    let site = Site::new("reserved", 1);
    site.lb
        .run("echo 8080,62000-62100 > /proc/sys/net/ipv4/ip_local_reserved_ports");
    let mut convey = site.convey(&Plan::new(&[WITNESS], &site.servers));
    assert_eq!(site.lb.run(RESERVED).trim(), "8080,61000-65535");
    stop(&mut convey);
    wait_until("only the administrator's are left", PATIENCE, || {
        site.lb.run(RESERVED).trim() == "8080,62000-62100"
    });
}

fn a_killed_daemon_leaves_nothing() {
    let site = Site::new("killed", 1);
    let mut convey = start(&site);
    convey.signal(Signal::SIGKILL);
    convey.wait_exit(PATIENCE);
    expect_nothing_left(&site.lb);
}

fn what_a_killed_broker_left_goes_with_the_next_start() {
    let site = Site::new("broker", 1);
    let _witnesses = witnesses(&site);
    let mut convey = start(&site);
    kill(convey.broker(), Signal::SIGKILL).expect("kill the broker");
    let status = convey.wait_exit(PATIENCE);
    assert!(!status.success());
    drop(convey);
    // one service less than before: what is too much must go
    let mut again = site.convey(&Plan::new(&[WITNESS], &site.servers));
    let text = rules(&site.lb);
    assert!(text.contains("-j CONVEY") && !text.contains("-p udp"), "{text}");
    Witness::meet(&site.client, everywhere()[0]).expect("it works again");
    stop(&mut again);
    expect_nothing_left(&site.lb);
}

/// Both processes: nobody is left to clean up.
fn kill_both(convey: &mut Convey) {
    let broker = convey.broker();
    // the broker first, and the daemon before it can notice
    kill(convey.pid(), Signal::SIGSTOP).expect("stop the daemon");
    kill(broker, Signal::SIGKILL).expect("kill the broker");
    convey.signal(Signal::SIGKILL);
    convey.wait_exit(PATIENCE);
    assert!(rules(convey.host()).contains("CONVEY"), "nobody has cleaned up");
}

fn what_both_left_goes_with_a_start_that_needs_no_rules() {
    let site = Site::new("proxied", 1);
    let _witnesses = witnesses(&site);
    let mut convey = start(&site);
    kill_both(&mut convey);
    drop(convey);
    let (listen, server) = (everywhere()[0], site.servers[0].addr(9));
    let config = format!(
        "[frontends.f]\nlisten_addr = \"{listen}\"\nbackend = \"b\"\n[backends.b]\nservers.s = {{ addr = \"{server}\" }}\n"
    );
    let again = Convey::start(&site.lb, &config);
    assert_eq!(rules(&site.lb), NO_RULES);
    assert!(again.stderr().contains("of an earlier run"), "{}", again.stderr());
    expect_nothing_left(&site.lb);
    Witness::meet(&site.client, listen).expect("the address that had a rule is proxied");
}

fn rules_that_another_program_takes_out_come_back() {
    let site = Site::new("flushed", 1);
    let _witnesses = witnesses(&site);
    let config = format!(
        "[global]\nwatch_config = false\nlog_level = \"debug\"\n{}",
        Plan::new(&[WITNESS, ECHO], &site.servers).config()
    );
    let convey = site.lab.convey(&site.lb, &config);
    let right = rules(&site.lb);
    // each is told of before the rules are looked at, and it is not the look that is due every few seconds
    let told = "rules_noticed";
    let is_heard = |since: usize| convey.stderr()[since..].contains(told);
    wait_until("its own change is told", PATIENCE, || is_heard(0));
    // a look that is under way sees the rules of one family before they go, and those of the other one after
    let is_over = || {
        let log = convey.stderr();
        log.rfind(told) < log.rfind("rules_checked")
    };
    // as Debian's nftables.service does when it is reloaded
    for (times, command) in (1..).zip(["nft flush ruleset", "iptables -t raw -F CONVEY"]) {
        wait_until("nobody looks", PATIENCE, is_over);
        let since = convey.stderr().len();
        site.lb.run(command);
        wait_until("they come back by themselves", PATIENCE, || {
            rules(&site.lb) == right
        });
        convey.wait_status("status says so", |status| {
            let packet = status.packet.as_ref().expect("the packet modes");
            packet.rules.restored == times && packet.rules.error.is_none()
        });
        wait_until(&format!("the log tells of {command}"), PATIENCE, || {
            is_heard(since)
        });
    }
    let shown = convey.order("status");
    assert!(
        shown.contains("firewall rules: changed by another program and restored 2 times"),
        "{shown}"
    );
    assert!(convey.stderr().contains("another program"), "{}", convey.stderr());
    // the API tells which they are, as the kernel has them
    let socket = convey.dir().join("admin.sock");
    let told = site.lb.run(&format!(
        "curl -sS --fail --unix-socket {} http://localhost/v1/firewall",
        socket.display()
    ));
    let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!(
        (&told["table"], &told["chain"]),
        (&"raw".into(), &"CONVEY".into())
    );
    assert_eq!(told["state"]["restored"], 2);
    for (program, family) in [("iptables", "ipv4"), ("ip6tables", "ipv6")] {
        let there = site.lb.run(&format!("{program} -t raw -S CONVEY"));
        let there: Vec<_> = there
            .lines()
            .filter_map(|line| line.strip_prefix("-A CONVEY "))
            .collect();
        let said = told[family].as_array().expect("a list").iter();
        let said: Vec<_> = said.filter_map(|rule| rule.as_str()).collect();
        assert!(!there.is_empty());
        assert_eq!(said, there, "{family}");
    }
    let shown = convey.tool("firewall show");
    assert_eq!(shown.status.code(), Some(0), "{shown:?}");
    Witness::meet(&site.client, everywhere()[0]).expect("it works again");
}

fn what_both_left_goes_with_firewall_clear() {
    let site = Site::new("both", 1);
    let mut convey = start(&site);
    kill_both(&mut convey);
    let cleared = convey.tool("firewall clear");
    assert!(cleared.status.success(), "{cleared:?}");
    expect_nothing_left(&site.lb);
    let again = convey.tool("firewall clear");
    assert!(again.status.success(), "nothing to do is no error: {again:?}");
}

fn a_stop_leaves_nothing() {
    let site = Site::new("stop", 1);
    let mut convey = start(&site);
    stop(&mut convey);
    expect_nothing_left(&site.lb);
}
