//! UDP in mode proxy: who may send how much, and what stays on a datagram.

use std::time::Duration;

use convey::base::AccessReason;
use nix::sys::signal::Signal;

use crate::{
    Test,
    lab::{
        Convey, Family, Host, Lab, PATIENCE,
        udp::{UdpClient, UdpServer},
        wait_until,
    },
    tests,
    udp::{alone, ask, config, dropped, open, quoted},
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    a_client_that_rules_deny_begins_no_session,
    a_client_has_no_more_sessions_than_it_may_and_others_are_not_hindered,
    a_client_sends_no_more_datagrams_a_second_than_it_may,
    weights_and_priorities_choose_among_servers_as_for_connections,
    congestion_marks_pass_both_ways,
    the_largest_datagram_passes_by_both_families,
    what_a_full_queue_of_the_kernel_drops_is_counted,
];

fn refused(convey: &Convey, reason: AccessReason) -> u64 {
    let status = convey.status();
    let refused = &status.frontends["echo"].refused;
    refused
        .iter()
        .filter(|(label, _)| label.known() == Some(reason))
        .map(|(_, count)| *count)
        .sum()
}

/// Whether a new socket of this host gets an answer soon.
fn is_served(host: &Host, lb: &Host) -> bool {
    let client = UdpClient::new(host, lb.addr(53));
    let patience = Some(Duration::from_millis(300));
    client.socket().set_read_timeout(patience).expect("a time-out");
    client.ask(b"x").is_ok()
}

fn a_client_that_rules_deny_begins_no_session() {
    let lab = Lab::new("udp-rules");
    let (one, two, lb, host) = (
        lab.host("one"),
        lab.host("two"),
        lab.host("lb"),
        lab.host("server"),
    );
    let server = UdpServer::echo(&host, host.addr(7_001), "a");
    let deny = |client: &Host| format!("access.rules = [\"deny {}\"]\n", client.ip4());
    let convey = lab.convey(&lb, &config(&quoted(lb.addr(53)), &[&server], &deny(&one), ""));
    assert!(!is_served(&one, &lb));
    let two_client = UdpClient::new(&two, lb.addr(53));
    assert_eq!(ask(&two_client, "x"), "a:x");
    assert_eq!((refused(&convey, AccessReason::Denied), open(&convey)), (1, 1));
    // rules are asked when a session begins
    convey.reload(&config(&quoted(lb.addr(53)), &[&server], &deny(&two), ""));
    assert_eq!(ask(&two_client, "x"), "a:x", "its session goes on");
    assert!(!is_served(&two, &lb));
    assert!(is_served(&one, &lb));
}

fn a_client_has_no_more_sessions_than_it_may_and_others_are_not_hindered() {
    let lab = Lab::new("udp-most");
    let (one, two, lb, host) = (
        lab.host("one"),
        lab.host("two"),
        lab.host("lb"),
        lab.host("server"),
    );
    let server = UdpServer::echo(&host, host.addr(7_001), "a");
    let settings = "limits.per_client.connections = 2\nidle_timeout = \"2s\"\n";
    let convey = lab.convey(&lb, &config(&quoted(lb.addr(53)), &[&server], settings, ""));
    assert!(is_served(&one, &lb) && is_served(&one, &lb));
    assert!(!is_served(&one, &lb));
    assert_eq!(refused(&convey, AccessReason::ClientConnections), 1);
    assert!(is_served(&two, &lb));
    wait_until("a session that ends makes room", PATIENCE, || {
        is_served(&one, &lb)
    });
}

fn a_client_sends_no_more_datagrams_a_second_than_it_may() {
    let lab = Lab::new("udp-rate");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    let server = UdpServer::echo(&host, host.addr(7_001), "");
    let settings = "limits.per_client.datagrams_per_second = 50\n";
    let convey = lab.convey(&lb, &config(&quoted(lb.addr(53)), &[&server], settings, ""));
    let client = UdpClient::new(&client, lb.addr(53));
    const SENT: u64 = 400;
    for _ in 0..SENT {
        client.socket().send(b"x").expect("sent");
    }
    wait_until("each is passed on or counted", PATIENCE, || {
        let status = convey.status();
        let passed = status.frontends["echo"].traffic.datagrams_in;
        passed + refused(&convey, AccessReason::ClientDatagrams) == SENT
    });
    let passed = convey.status().frontends["echo"].traffic.datagrams_in;
    assert!((50..SENT).contains(&passed), "{passed}");
}

fn weights_and_priorities_choose_among_servers_as_for_connections() {
    let lab = Lab::new("udp-weights");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    let servers = [("a", 7_001), ("b", 7_002), ("c", 7_003)]
        .map(|(name, port)| UdpServer::echo(&host, host.addr(port), name));
    let text = |balance: &str| {
        alone(&format!(
            "[frontends.echo]\nprotocol = \"udp\"\nlisten_addr = {}\nbackend = \"echo\"\n\
             [backends.echo]\nbalance = \"{balance}\"\nservers.a = {{ addr = \"{}\", weight = 3 }}\n\
             servers.b = {{ addr = \"{}\" }}\nservers.c = {{ addr = \"{}\", priority = 2 }}\n",
            quoted(lb.addr(53)),
            servers[0].addr(),
            servers[1].addr(),
            servers[2].addr(),
        ))
    };
    let convey = lab.convey(&lb, &text("round_robin"));
    let answers = |count: usize| -> Vec<String> {
        (0..count)
            .map(|_| ask(&UdpClient::new(&client, lb.addr(53)), "x"))
            .collect()
    };
    let count = |answers: &[String], of: &str| answers.iter().filter(|answer| *answer == of).count();
    let got = answers(16);
    assert_eq!((count(&got, "a:x"), count(&got, "b:x")), (12, 4), "{got:?}");
    convey.reload(&text("least_connections"));
    let got = answers(8);
    assert_eq!(count(&got, "c:x"), 0, "{got:?}");
    convey.reload(&text("source_hash"));
    let got = answers(8);
    assert!(got.iter().all(|answer| *answer == got[0]), "{got:?}");
    for server in ["a", "b"] {
        convey.order(&format!("server maintenance echo/{server}"));
    }
    assert_eq!(
        count(&answers(4), "c:x"),
        4,
        "the next class, where the first has none left"
    );
}

fn congestion_marks_pass_both_ways() {
    let lab = Lab::new("udp-ecn");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    // each marks what it sends, and counts what it gets with that mark
    let rules = |family: &str, sent: &str, got: &str| {
        format!(
            "table {family} marks {{\n chain out {{\n  type filter hook output priority 0;\n  meta l4proto udp {family} ecn set {sent}\n }}\n \
             chain in {{\n  type filter hook input priority 0;\n  meta l4proto udp {family} ecn {got} counter\n }}\n}}\n"
        )
    };
    for family in ["ip", "ip6"] {
        client.nft(&rules(family, "ect0", "ce"));
        host.nft(&rules(family, "ce", "ect0"));
    }
    let servers = [
        UdpServer::echo(&host, host.addr(7_001), ""),
        UdpServer::echo(&host, host.addr_of(Family::V6, 7_002), ""),
    ];
    let listen = format!("[\"{}\", \"[::]:54\"]", lb.addr(53));
    let _convey = lab.convey(&lb, &alone(&config(&listen, &[&servers[0], &servers[1]], "", "")));
    let counted = |at: &Host, family: &str| {
        let listed = at.run(&format!("nft list chain {family} marks in"));
        let number = listed
            .split("packets ")
            .nth(1)
            .and_then(|rest| rest.split(' ').next());
        number
            .and_then(|number| number.parse::<u64>().ok())
            .expect("a counter")
    };
    for to in [lb.addr(53), lb.addr(54), lb.addr_of(Family::V6, 54)] {
        // in turn to both servers
        for _ in 0..2 {
            assert_eq!(ask(&UdpClient::new(&client, to), "x"), "x");
        }
    }
    assert_eq!(
        (counted(&host, "ip"), counted(&host, "ip6")),
        (3, 3),
        "to the servers"
    );
    assert_eq!(
        (counted(&client, "ip"), counted(&client, "ip6")),
        (4, 2),
        "to the clients"
    );
}

fn the_largest_datagram_passes_by_both_families() {
    let lab = Lab::new("udp-largest");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    let servers = [
        UdpServer::echo(&host, host.addr(7_001), ""),
        UdpServer::echo(&host, host.addr_of(Family::V6, 7_002), ""),
    ];
    let listen = format!("[\"{}\", \"{}\"]", lb.addr(53), lb.addr_of(Family::V6, 53));
    let _convey = lab.convey(&lb, &alone(&config(&listen, &[&servers[0], &servers[1]], "", "")));
    let sent: Vec<u8> = (0..65_507_usize)
        .map(|i| (i.wrapping_mul(31) >> 3) as u8)
        .collect();
    for to in [lb.addr(53), lb.addr_of(Family::V6, 53)] {
        for _ in 0..2 {
            let got = UdpClient::new(&client, to).ask(&sent).expect("an answer");
            assert!(got == sent, "{to}: {} bytes", got.len());
        }
    }
}

fn what_a_full_queue_of_the_kernel_drops_is_counted() {
    let lab = Lab::new("udp-queue");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    let server = UdpServer::echo(&host, host.addr(7_001), "");
    let convey = lab.convey(&lb, &config(&quoted(lb.addr(53)), &[&server], "", ""));
    let client = UdpClient::new(&client, lb.addr(53));
    assert_eq!(ask(&client, "x"), "x");
    // more than its queue holds while it does not look
    const SENT: u64 = 5_000;
    convey.signal(Signal::SIGSTOP);
    for _ in 0..SENT {
        client.socket().send(b"flood").expect("sent");
    }
    convey.signal(Signal::SIGCONT);
    let counted = || {
        let passed = convey.status().frontends["echo"].traffic.datagrams_in;
        (passed, dropped(&convey, "queue_full"))
    };
    wait_until("what the queue held has passed", PATIENCE, || counted().0 > 1);
    // the next one tells of those that were dropped
    client.socket().send(b"last").expect("sent");
    wait_until("each has passed or is counted", PATIENCE, || {
        let (passed, dropped) = counted();
        dropped > 0 && passed + dropped == SENT + 2
    });
}
