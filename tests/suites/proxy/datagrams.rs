//! UDP in mode proxy: who may send how much, and what stays on a datagram.

use std::{
    net::{Ipv6Addr, SocketAddrV6, UdpSocket},
    time::Duration,
};

use convey::base::{AccessReason, TerminationReason};
use nix::sys::signal::Signal;

use crate::{
    Test,
    lab::{
        Convey, Family, Host, Lab, PATIENCE,
        udp::{UdpClient, UdpServer, drops_of},
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
    a_client_begins_no_more_sessions_a_second_than_it_may,
    a_server_has_no_more_sessions_than_it_may,
    weights_and_priorities_choose_among_servers_as_for_connections,
    congestion_marks_pass_both_ways,
    the_largest_datagram_passes_by_both_families,
    what_full_queues_of_the_kernel_drop_is_counted,
    what_is_sent_to_many_is_dropped_and_counted,
    a_client_that_asks_a_link_local_address_of_a_wildcard_is_answered_from_it,
    an_address_that_becomes_part_of_a_wildcard_serves_new_clients_at_once,
    a_server_that_cannot_be_reached_loses_its_clients_to_others,
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

/// A new socket of this host is answered.
#[track_caller]
fn expect_served(host: &Host, lb: &Host) {
    assert_eq!(ask(&UdpClient::new(host, lb.addr(53)), "x"), "a:x");
}

/// What a new socket of this host sends is refused, and so never answered.
#[track_caller]
fn expect_refused(host: &Host, lb: &Host, convey: &Convey, reason: AccessReason) {
    let before = refused(convey, reason);
    let client = UdpClient::new(host, lb.addr(53));
    client.socket().send(b"x").expect("sent");
    wait_until("it is refused", PATIENCE, || {
        refused(convey, reason) == before + 1
    });
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
    expect_refused(&one, &lb, &convey, AccessReason::Denied);
    let two_client = UdpClient::new(&two, lb.addr(53));
    assert_eq!(ask(&two_client, "x"), "a:x");
    assert_eq!((refused(&convey, AccessReason::Denied), open(&convey)), (1, 1));
    // rules are asked when a session begins
    convey.reload(&config(&quoted(lb.addr(53)), &[&server], &deny(&two), ""));
    assert_eq!(ask(&two_client, "x"), "a:x", "its session goes on");
    expect_refused(&two, &lb, &convey, AccessReason::Denied);
    expect_served(&one, &lb);
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
    expect_served(&one, &lb);
    expect_served(&one, &lb);
    expect_refused(&one, &lb, &convey, AccessReason::ClientConnections);
    expect_served(&two, &lb);
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
    // fewer than the kernel's queue holds
    const SENT: u64 = 150;
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

fn a_client_begins_no_more_sessions_a_second_than_it_may() {
    let lab = Lab::new("udp-new");
    let (one, two, lb, host) = (
        lab.host("one"),
        lab.host("two"),
        lab.host("lb"),
        lab.host("server"),
    );
    let server = UdpServer::echo(&host, host.addr(7_001), "a");
    let settings = "limits.per_client.new_per_second = 5\n";
    let convey = lab.convey(&lb, &config(&quoted(lb.addr(53)), &[&server], settings, ""));
    const SENT: u64 = 40;
    let clients: Vec<_> = (0..SENT).map(|_| UdpClient::new(&one, lb.addr(53))).collect();
    for client in &clients {
        client.socket().send(b"x").expect("sent");
    }
    wait_until("each has a session or is counted", PATIENCE, || {
        let begun = convey.status().frontends["echo"].traffic.connections_total;
        begun + refused(&convey, AccessReason::ClientRate) == SENT
    });
    let begun = open(&convey);
    assert!((5..SENT).contains(&begun), "{begun}");
    expect_served(&two, &lb);
    wait_until("a second later it begins others", PATIENCE, || {
        is_served(&one, &lb)
    });
}

fn a_server_has_no_more_sessions_than_it_may() {
    let lab = Lab::new("udp-server-most");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    let servers =
        [("a", 7_001), ("b", 7_002)].map(|(name, port)| UdpServer::echo(&host, host.addr(port), name));
    let text = format!(
        "[frontends.echo]\nprotocol = \"udp\"\nlisten_addr = {}\nbackend = \"echo\"\nidle_timeout = \"3s\"\n\
         [backends.echo]\nservers.a = {{ addr = \"{}\", max_connections = 3 }}\n\
         servers.b = {{ addr = \"{}\", max_connections = 1 }}\n",
        quoted(lb.addr(53)),
        servers[0].addr(),
        servers[1].addr(),
    );
    let convey = lab.convey(&lb, &text);
    let clients: Vec<_> = (0..4).map(|_| UdpClient::new(&client, lb.addr(53))).collect();
    let mut answers: Vec<_> = clients.iter().map(|client| ask(client, "x")).collect();
    answers.sort();
    assert_eq!(answers, ["a:x", "a:x", "a:x", "b:x"]);
    let late = UdpClient::new(&client, lb.addr(53));
    late.socket().send(b"x").expect("sent");
    let full = || {
        let status = convey.status();
        status.frontends["echo"]
            .traffic
            .ended(TerminationReason::ServersFull)
    };
    wait_until("it is counted", PATIENCE, || full() == 1);
    wait_until("sessions that end make room", PATIENCE, || {
        is_served(&client, &lb)
    });
    drop(late);
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

fn what_full_queues_of_the_kernel_drop_is_counted() {
    let lab = Lab::new("udp-queue");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    let addr = host.addr(7_001);
    let server = host.inside(|| UdpSocket::bind(addr)).expect("a socket");
    server.set_read_timeout(Some(PATIENCE)).expect("set");
    let small = "client_socket.receive_buffer = 65_536";
    let text = config(&quoted(lb.addr(53)), &[], small, "") + &format!("servers.a = {{ addr = \"{addr}\" }}");
    let convey = lab.convey(&lb, &text);
    let client = UdpClient::new(&client, lb.addr(53));
    client.socket().send(b"x").expect("sent");
    let (_, session) = server.recv_from(&mut [0; 9]).expect("the request");
    let send_both = || {
        client.socket().send(b"x").expect("sent");
        server.send_to(b"y", session).expect("sent");
    };
    // more than the queues hold, of the listener and of the session, while nobody looks
    const SENT: u64 = 5_000;
    convey.signal(Signal::SIGSTOP);
    (0..SENT).for_each(|_| send_both());
    convey.signal(Signal::SIGCONT);
    let mut sent = SENT;
    let lost = || [53, session.port()].map(|port| drops_of(&lb, port).expect("its socket"));
    wait_until("each that was dropped is counted", PATIENCE, || {
        // those that the kernel has dropped are told by the next one that it takes
        send_both();
        sent += 1;
        let [requests, answers] = lost();
        requests > 0 && answers > 0 && dropped(&convey, "queue_full") == requests + answers
    });
    let traffic = &convey.status().frontends["echo"].traffic;
    let [requests, answers] = lost();
    assert!(traffic.datagrams_in > 1 && traffic.datagrams_in + requests <= sent + 1);
    assert!(traffic.datagrams_out > 0 && traffic.datagrams_out + answers <= sent);
}

fn what_is_sent_to_many_is_dropped_and_counted() {
    let lab = Lab::new("udp-many");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    let server = UdpServer::echo(&host, host.addr(7_001), "a");
    let listen = "[\"0.0.0.0:53\", \"[::]:54\"]";
    let convey = lab.convey(&lb, &config(listen, &[&server], "", ""));
    let socket = UdpClient::new(&client, lb.addr(53));
    let broadcaster = client.inside(|| UdpSocket::bind("0.0.0.0:0")).expect("a socket");
    broadcaster.set_broadcast(true).expect("set");
    for (count, to) in [(1, "10.77.0.255:53"), (2, "10.77.0.255:54")] {
        broadcaster.send_to(b"x", to).expect("sent");
        wait_until("it is dropped", PATIENCE, || {
            dropped(&convey, "not_unicast") >= count
        });
    }
    assert_eq!(ask(&socket, "x"), "a:x");
    assert_eq!(open(&convey), 1);
    assert_eq!(server.seen().senders.len(), 1);
}

fn a_client_that_asks_a_link_local_address_of_a_wildcard_is_answered_from_it() {
    let lab = Lab::new("udp-link");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    let server = UdpServer::echo(&host, host.addr(7_001), "a");
    let _convey = lab.convey(&lb, &config("\"[::]:53\"", &[&server], "", ""));
    let shown = lb.run("ip -6 -o address show dev eth0 scope link");
    let address = shown
        .split_whitespace()
        .nth(3)
        .and_then(|network| network.split('/').next());
    let to: Ipv6Addr = address
        .and_then(|address| address.parse().ok())
        .expect("a link-local address");
    let shown = client.run("ip -o link show dev eth0");
    let index = shown
        .split(':')
        .next()
        .and_then(|index| index.parse().ok())
        .expect("an index");
    let to = SocketAddrV6::new(to, 53, 0, index);
    // one with a link-local address of its own, and one without
    for own in [
        "[::]:0".parse().expect("an address"),
        client.addr_of(Family::V6, 0),
    ] {
        let socket = client.inside(|| {
            let socket = UdpSocket::bind(own)?;
            socket.connect(to)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            std::io::Result::Ok(socket)
        });
        let socket = socket.expect("a socket");
        socket.send(b"x").expect("sent");
        let mut buffer = [0; 9];
        let length = socket.recv(&mut buffer).expect("an answer");
        assert_eq!(&buffer[..length], b"a:x", "{own}");
    }
}

fn an_address_that_becomes_part_of_a_wildcard_serves_new_clients_at_once() {
    let lab = Lab::new("udp-wider");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    let server = UdpServer::echo(&host, host.addr(7_001), "a");
    let narrow = config(&quoted(lb.addr(53)), &[&server], "", "");
    let wide = config("\"0.0.0.0:53\"", &[&server], "", "");
    let convey = lab.convey(&lb, &narrow);
    // its session keeps the socket of the address open
    let kept = UdpClient::new(&client, lb.addr(53));
    for (round, text) in [&narrow, &wide, &narrow, &wide].into_iter().enumerate() {
        convey.reload(text);
        assert_eq!(ask(&kept, "x"), "a:x", "round {round}");
        let late = UdpClient::new(&client, lb.addr(53));
        for _ in 0..5 {
            assert_eq!(ask(&late, "x"), "a:x", "round {round}");
        }
    }
    assert_eq!(dropped(&convey, "removed"), 0);
    assert_eq!(open(&convey), 5);
}

/// Whatever the network or a rule of this host says of a server, its clients get another one.
fn a_server_that_cannot_be_reached_loses_its_clients_to_others() {
    let lab = Lab::new("udp-unreached");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    let route = |kind: &str| format!("ip route add {kind} 10.78.0.9/32; ip -6 route add {kind} fd78::9/128");
    let kept = UdpServer::echo(&host, host.addr(7_001), "b");
    let text = |gone: &str| {
        alone(&format!(
            "[frontends.echo]\nprotocol = \"udp\"\nlisten_addr = {}\nbackend = \"echo\"\n\
             [backends.echo]\nservers.a = {{ addr = \"{gone}\" }}\nservers.b = {{ addr = \"{}\" }}\n",
            quoted(lb.addr(53)),
            kept.addr(),
        ))
    };
    let convey = lab.convey(&lb, &text("10.78.0.9:7"));
    for kind in ["blackhole", "prohibit", "unreachable"] {
        lb.run(&route(kind));
        for gone in ["10.78.0.9:7", "[fd78::9]:7"] {
            convey.reload(&text(gone));
            // the turn of one of them is the other server's
            for _ in 0..2 {
                let client = UdpClient::new(&client, lb.addr(53));
                assert_eq!(ask(&client, "x"), "b:x", "{kind} {gone}");
            }
        }
        lb.run(&route(kind).replace(" add ", " del "));
    }
    let rejects = [
        ("ip", host.addr(7_009), "icmp type admin-prohibited"),
        ("ip", host.addr(7_009), "icmp type host-unreachable"),
        (
            "ip6",
            host.addr_of(Family::V6, 7_009),
            "icmpv6 type admin-prohibited",
        ),
        ("ip6", host.addr_of(Family::V6, 7_009), "icmpv6 type no-route"),
    ];
    for (family, gone, with) in rejects {
        host.nft(&format!(
            "table {family} gone {{\n chain in {{\n  type filter hook input priority 0;\n  udp dport 7009 reject with {with}\n }}\n}}\n"
        ));
        convey.reload(&text(&gone.to_string()));
        let client = UdpClient::new(&client, lb.addr(53));
        let patience = Some(Duration::from_millis(300));
        client.socket().set_read_timeout(patience).expect("a time-out");
        let answer = (0..20).find_map(|_| client.ask(b"x").ok());
        assert_eq!(answer.as_deref(), Some(&b"b:x"[..]), "{with}");
        host.run(&format!("nft delete table {family} gone"));
    }
}
