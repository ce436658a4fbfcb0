//! How many UDP sessions there are, and what ends them.

use std::{
    collections::BTreeSet,
    fs,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use convey::base::TerminationReason;

use crate::{
    Test,
    lab::{
        Convey, Family, Host, Lab, PATIENCE,
        forge::{Forger, nobodies},
        udp::{UdpClient, UdpServer},
        wait_until,
    },
    tests,
    udp::{alone, ask, config, dropped, open, quoted},
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    a_full_frontend_begins_no_session_and_ends_none,
    one_request_and_one_answer_are_a_session,
    what_a_reload_removes_serves_its_sessions_to_their_end,
    reloads_under_load_lose_no_session,
    a_flood_from_forged_addresses_ends_no_session_and_leaves_nothing,
];

fn a_full_frontend_begins_no_session_and_ends_none() {
    let lab = Lab::new("udp-full");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    let server = UdpServer::echo(&host, host.addr(7_001), "");
    let settings = "idle_timeout = \"3s\"\nudp = { max_sessions = 4 }\n";
    let convey = lab.convey(&lb, &config(&quoted(lb.addr(53)), &[&server], settings, ""));
    let clients: Vec<_> = (0..4).map(|_| UdpClient::new(&client, lb.addr(53))).collect();
    for client in &clients {
        assert_eq!(ask(client, "x"), "x");
    }
    let more = UdpClient::new(&client, lb.addr(53));
    for _ in 0..3 {
        more.socket().send(b"refused").expect("sent");
    }
    wait_until("they are counted", PATIENCE, || {
        dropped(&convey, "sessions_full") == 3
    });
    // both sides keep a session alive
    for _ in 0..20 {
        for client in &clients {
            assert_eq!(ask(client, "x"), "x");
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(
        convey.status().frontends["echo"].traffic.connections_total,
        4,
        "none has ended"
    );
    wait_until("they end when nothing comes", PATIENCE, || open(&convey) == 0);
    assert_eq!(ask(&more, "x"), "x");
    let ended = convey.status().frontends["echo"]
        .traffic
        .ended(TerminationReason::Idle);
    assert_eq!(ended, 4);
}

fn one_request_and_one_answer_are_a_session() {
    let lab = Lab::new("udp-one");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    let servers = [
        UdpServer::echo(&host, host.addr(7_001), "a"),
        UdpServer::echo(&host, host.addr(7_002), "b"),
    ];
    let settings = "udp = { max_requests = 1, max_responses = 1 }\n";
    let text = config(&quoted(lb.addr(53)), &[&servers[0], &servers[1]], settings, "");
    let convey = lab.convey(&lb, &alone(&text));
    let client = UdpClient::new(&client, lb.addr(53));
    let answers: Vec<_> = (0..6).map(|_| ask(&client, "x")).collect();
    assert_eq!(
        answers.iter().filter(|answer| *answer == "a:x").count(),
        3,
        "{answers:?}"
    );
    wait_until("each answer ends its session", PATIENCE, || open(&convey) == 0);
    let traffic = &convey.status().frontends["echo"].traffic;
    assert_eq!(
        (
            traffic.connections_total,
            traffic.ended(TerminationReason::Answered)
        ),
        (6, 6)
    );
}

fn what_a_reload_removes_serves_its_sessions_to_their_end() {
    let lab = Lab::new("udp-removed");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    let server = UdpServer::echo(&host, host.addr(7_001), "a");
    let text = |ports: &str| config(ports, &[&server], "idle_timeout = \"2s\"\n", "");
    let both = format!("[{}, {}]", quoted(lb.addr(53)), quoted(lb.addr(54)));
    let convey = lab.convey(&lb, &text(&both));
    let kept = UdpClient::new(&client, lb.addr(54));
    assert_eq!(ask(&kept, "x"), "a:x");
    convey.reload(&text(&quoted(lb.addr(53))));
    assert_eq!(ask(&kept, "x"), "a:x", "it goes on");
    let late = UdpClient::new(&client, lb.addr(54));
    late.socket()
        .set_read_timeout(Some(Duration::from_millis(200)))
        .expect("set");
    late.ask(b"x").expect_err("nothing begins there");
    // it comes back while its session lives, and its new sockets with it
    convey.reload(&text(&both));
    for _ in 0..50 {
        assert_eq!(ask(&kept, "x"), "a:x");
        assert_eq!(ask(&UdpClient::new(&client, lb.addr(54)), "x"), "a:x");
    }
    let sockets = || {
        lb.run("ss -aunH sport = :54 | wc -l")
            .trim()
            .parse::<usize>()
            .expect("a number")
    };
    convey.reload(&text(&quoted(lb.addr(53))));
    wait_until(
        "the last session has ended, and the sockets with it",
        PATIENCE,
        || sockets() == 0,
    );
}

fn reloads_under_load_lose_no_session() {
    let lab = Lab::new("udp-reload");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    let servers = [
        UdpServer::echo(&host, host.addr(7_001), "a"),
        UdpServer::echo(&host, host.addr(7_002), "b"),
    ];
    let all = [&servers[0], &servers[1]];
    let text = |round: usize| {
        let other = format!(
            "[frontends.other]\nprotocol = \"udp\"\nlisten_addr = \"{}\"\nbackend = \"echo\"\n",
            lb.addr(1_000 + round as u16)
        );
        other
            + &config(
                &quoted(lb.addr(53)),
                &all,
                &format!("max_connections = {}\n", 1_000 + round),
                "",
            )
    };
    let convey = lab.convey(&lb, &text(0));
    let clients: Vec<_> = (0..32).map(|_| UdpClient::new(&client, lb.addr(53))).collect();
    let first: Vec<_> = clients.iter().map(|client| ask(client, "x")).collect();
    let rounds = if on_demand() { 200 } else { 20 };
    let before = sockets(&lb);
    assert!(before.len() > clients.len(), "those of clients, too: {before:?}");
    let stopped = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stop = SetAtEnd(stopped);
        let workers: Vec<_> = (clients.chunks(8).zip(first.chunks(8)))
            .map(|(clients, first)| {
                scope.spawn(move || {
                    let mut asked = 0;
                    while !stopped.load(Ordering::Relaxed) {
                        for (client, first) in clients.iter().zip(first) {
                            assert_eq!(&ask(client, "x"), first, "the session has moved");
                            asked += 1;
                        }
                    }
                    asked
                })
            })
            .collect();
        for round in 1..=rounds {
            convey.reload(&text(round));
            assert_eq!(sockets(&lb), before, "round {round} adds none and removes none");
        }
        drop(stop);
        for worker in workers {
            assert!(worker.join().expect("no session was lost") > 0);
        }
    });
    let traffic = &convey.status().frontends["echo"].traffic;
    assert_eq!((traffic.connections_total, traffic.connections_current), (32, 32));
}

/// The load balancer's UDP sockets of port 53, and its sessions' towards the servers: what each is bound and connected to, and
/// its inode.
fn sockets(lb: &Host) -> BTreeSet<String> {
    let listed = lb.run("ss -uanHe '( sport = :53 or dport = :7001 or dport = :7002 )'");
    let of_line = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let inode = fields.iter().find(|field| field.starts_with("ino:"));
        format!("{} {} {}", fields[3], fields[4], inode.expect("an inode"))
    };
    listed.lines().map(of_line).collect()
}

/// Set when this is dropped, also by a test that fails: whoever waits for it ends.
struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn a_flood_from_forged_addresses_ends_no_session_and_leaves_nothing() {
    let lab = Lab::new("udp-flood");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    let servers = [
        UdpServer::echo(&host, host.addr(7_001), "a"),
        UdpServer::echo(&host, host.addr(7_002), "b"),
    ];
    // a long flood sees its own first sessions end, and others in their place
    let flood = if on_demand() { 1_000_000 } else { 30_000 };
    let settings = "idle_timeout = \"8s\"\naccess_log = false\nudp = { max_sessions = 2_000 }\n";
    let text = config(&quoted(lb.addr(53)), &[&servers[0], &servers[1]], settings, "");
    let convey = lab.convey(&lb, &text);
    // answers to nobody leave, and end at a host that forwards nothing
    lb.run(&format!("ip route add 11.0.0.0/8 via {}", client.ip4()));
    let clients: Vec<_> = (0..8).map(|_| UdpClient::new(&client, lb.addr(53))).collect();
    let (files, memory) = (open_files(&convey), convey.private_memory());
    let mut sent = clients.len() as u64;
    let first: Vec<_> = clients.iter().map(|client| ask(client, "x")).collect();
    let mut expect_unharmed = |index: usize| {
        let (answer, asked) = insist(&clients[index]);
        assert_eq!(answer, first[index], "its session has moved");
        asked
    };
    let forger = Forger::new(&client);
    for (number, nobody) in nobodies(Family::V4, 7).take(flood).enumerate() {
        forger.udp(nobody, lb.addr(53), b"flood");
        sent += 1;
        if number % 2_000 == 0 {
            sent += expect_unharmed(number / 2_000 % 8);
        }
        if number % 50_000 == 0 {
            assert!(open(&convey) <= 2_000);
        }
    }
    // 2,000 sessions, and buffers
    let grown = convey.private_memory().saturating_sub(memory);
    assert!(grown < 24 << 20, "{grown} bytes");
    wait_until(
        "each datagram is passed on, or refused for a reason",
        PATIENCE,
        || {
            // those that the kernel has dropped are told by the next one that it takes
            sent += (0..8).map(&mut expect_unharmed).sum::<u64>();
            let status = convey.status();
            let frontend = &status.frontends["echo"];
            let refused: u64 = frontend.datagrams_dropped.values().sum();
            frontend.traffic.datagrams_in + refused == sent
        },
    );
    let status = convey.status();
    let frontend = &status.frontends["echo"];
    let refused: u64 = frontend.datagrams_dropped.values().sum();
    let begun = frontend.traffic.connections_total;
    let senders = (flood + clients.len()) as u64;
    assert!(
        begun + refused >= senders,
        "of {senders}: {begun} begun, {refused} refused"
    );
    assert!(dropped(&convey, "sessions_full") > 0);
    assert_eq!(dropped(&convey, "send_failed"), 0);
    wait_until("only live sessions are left", PATIENCE, || {
        (0..8).for_each(|index| _ = expect_unharmed(index));
        open(&convey) == 8
    });
    wait_until("the table is empty", PATIENCE, || open(&convey) == 0);
    let traffic = &convey.status().frontends["echo"].traffic;
    let idle = traffic.ended(TerminationReason::Idle);
    assert!(idle >= 2_000, "{idle}");
    assert_eq!(idle, traffic.connections_total, "none has made room");
    wait_until("no descriptor of theirs is left", PATIENCE, || {
        open_files(&convey) <= files
    });
    assert_eq!(lb.run("ss -uanH '( dport = :7001 or dport = :7002 )'"), "");
}

fn open_files(convey: &Convey) -> usize {
    let files = fs::read_dir(format!("/proc/{}/fd", convey.pid()));
    files.expect("the daemon's descriptors").count()
}

/// Whether what takes minutes is wanted.
fn on_demand() -> bool {
    std::env::var_os("CONVEY_TEST_ALL").is_some()
}

/// Asks until an answer comes, and how often that was: a queue of the kernel that a flood fills drops what it will.
#[track_caller]
fn insist(client: &UdpClient) -> (String, u64) {
    let socket = client.socket();
    socket
        .set_read_timeout(Some(Duration::from_millis(200)))
        .expect("set");
    let mut asked = 0;
    let answer = std::iter::repeat_with(|| client.ask(b"x").ok()).take(100);
    let answer = (answer.inspect(|_| asked += 1).flatten().next()).expect("an answer");
    // what came late
    socket.set_nonblocking(true).expect("set");
    while socket.recv(&mut [0; 9]).is_ok() {}
    socket.set_nonblocking(false).expect("set");
    socket.set_read_timeout(Some(PATIENCE)).expect("set");
    (String::from_utf8(answer).expect("text"), asked)
}
