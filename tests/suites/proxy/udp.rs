//! UDP in mode proxy.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
};

use convey::base::TerminationReason;

use crate::{
    Test,
    lab::{
        Convey, Family, Lab, PATIENCE,
        udp::{UdpClient, UdpServer},
        wait_until,
    },
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    a_client_keeps_its_server_and_both_families_are_served,
    the_largest_the_empty_and_merged_datagrams_pass,
    a_wildcard_answers_from_the_address_that_was_asked,
    a_server_that_says_its_port_is_closed_loses_the_session_and_is_ejected,
    a_server_reads_whom_the_first_datagram_is_from,
    a_first_datagram_that_does_not_leave_leaves_its_header_to_the_next,
    of_datagrams_that_came_merged_the_first_alone_has_the_header,
    a_drained_server_keeps_its_sessions_and_a_closed_down_one_loses_them,
    name_servers_behind_it_answer_dig,
];

/// A frontend of these addresses before echo servers.
pub fn config(listen: &str, servers: &[&UdpServer], frontend: &str, backend: &str) -> String {
    let mut text = format!(
        "[frontends.echo]\nprotocol = \"udp\"\nlisten_addr = {listen}\nbackend = \"echo\"\n{frontend}\n\
         [backends.echo]\n{backend}\n"
    );
    for (name, server) in ["a", "b", "c"].iter().zip(servers) {
        text += &format!("servers.{name} = {{ addr = \"{}\" }}\n", server.addr());
    }
    text
}

/// With one worker, so that it is known whose turn it is.
pub fn alone(text: &str) -> String {
    format!("[global]\nworkers = 1\n{text}")
}

pub fn quoted(addr: SocketAddr) -> String {
    format!("\"{addr}\"")
}

#[track_caller]
pub fn ask(client: &UdpClient, text: &str) -> String {
    let answer = client.ask(text.as_bytes()).expect("an answer");
    String::from_utf8(answer).expect("text")
}

/// Sessions that are open.
pub fn open(convey: &Convey) -> u64 {
    convey.status().frontends["echo"].traffic.connections_current
}

pub fn dropped(convey: &Convey, reason: &str) -> u64 {
    let status = convey.status();
    let dropped = &status.frontends["echo"].datagrams_dropped;
    let of_it = dropped.iter().filter(|(label, _)| label.to_string() == reason);
    of_it.map(|(_, count)| *count).sum()
}

fn a_client_keeps_its_server_and_both_families_are_served() {
    let lab = Lab::new("udp");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    let servers = [
        UdpServer::echo(&host, host.addr(7_001), "a"),
        UdpServer::echo(&host, host.addr_of(Family::V6, 7_002), "b"),
    ];
    let listen = format!("[\"{}\", \"{}\"]", lb.addr(53), lb.addr_of(Family::V6, 53));
    let convey = lab.convey(&lb, &alone(&config(&listen, &[&servers[0], &servers[1]], "", "")));
    let mut by_server = BTreeMap::<String, usize>::new();
    for to in [lb.addr(53), lb.addr_of(Family::V6, 53)] {
        for _ in 0..8 {
            let client = UdpClient::new(&client, to);
            let first = ask(&client, "x");
            for _ in 0..5 {
                assert_eq!(ask(&client, "x"), first, "a session has one server");
            }
            *by_server.entry(first).or_default() += 1;
        }
    }
    let both = BTreeMap::from([("a:x".to_owned(), 8), ("b:x".to_owned(), 8)]);
    assert_eq!(by_server, both, "round robin over both families");
    // they are counted when they have been sent, and the client may be faster
    convey.wait_status("every answer is counted", |status| {
        status.frontends["echo"].traffic.datagrams_out >= 96
    });
    let status = convey.status();
    let traffic = &status.frontends["echo"].traffic;
    assert_eq!((traffic.connections_total, traffic.connections_current), (16, 16));
    assert_eq!((traffic.datagrams_in, traffic.datagrams_out), (96, 96));
    assert_eq!((traffic.bytes_in, traffic.bytes_out), (96, 3 * 96));
    let listed = convey.order("connections");
    assert_eq!(listed.matches("echo/a").count(), 8, "{listed}");
    let json = convey.order("connections --json --limit 1");
    assert!(
        json.contains("\"protocol\": \"udp\"") && json.contains("\"idle_seconds\": "),
        "{json}"
    );
    let told = convey.order(&format!("explain udp {} {}", client.addr(40_000), lb.addr(53)));
    assert!(
        told.contains("frontend  echo, mode proxy, backend echo"),
        "{told}"
    );
}

/// The same bytes for each size, told apart by their first.
fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|i| (i.wrapping_mul(31) >> 3) as u8).collect()
}

fn the_largest_the_empty_and_merged_datagrams_pass() {
    let lab = Lab::new("udp-sizes");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    let server = UdpServer::echo(&host, host.addr(7_001), "");
    let convey = lab.convey(&lb, &config(&quoted(lb.addr(53)), &[&server], "", ""));
    let client = UdpClient::new(&client, lb.addr(53));
    let socket = socket2::SockRef::from(client.socket());
    // fragments: without this the kernel refuses what does not fit
    for size in [0, 1, 1_472, 1_473, 9_000, 65_507] {
        let sent = pattern(size);
        assert_eq!(client.ask(&sent).expect("an answer"), sent, "{size} bytes");
    }
    socket.set_send_buffer_size(1 << 20).expect("a buffer");
    let merged = pattern(8 * 1_000);
    send_merged(client.socket(), &merged, 1_000);
    let mut got: Vec<u8> = Vec::new();
    let mut buffer = [0; 65_535];
    while got.len() < merged.len() {
        let length = client.socket().recv(&mut buffer).expect("an answer");
        assert_eq!(length, 1_000, "as datagrams of their own size");
        got.extend(&buffer[..length]);
    }
    assert_eq!(got, merged);
    let seen = server.seen();
    assert_eq!((seen.largest, seen.senders.len()), (65_507, 1));
    convey.reload(&config(
        &quoted(lb.addr(53)),
        &[&server],
        "udp = { buffer_size = 512 }\n",
        "",
    ));
    let refused = UdpClient::new(&lab.host("other"), lb.addr(53));
    refused.socket().send(&pattern(513)).expect("sent");
    assert_eq!(refused.ask(&pattern(512)).expect("an answer"), pattern(512));
    assert_eq!(dropped(&convey, "too_long"), 1);
}

/// Sends bytes as datagrams of this size in one call (UDP_SEGMENT).
fn send_merged(socket: &UdpSocket, bytes: &[u8], size: u16) {
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    use std::os::fd::AsRawFd as _;
    let parts = [io::IoSlice::new(bytes)];
    let control = [ControlMessage::UdpGsoSegments(&size)];
    let sent = sendmsg::<()>(socket.as_raw_fd(), &parts, &control, MsgFlags::empty(), None);
    assert_eq!(sent, Ok(bytes.len()));
}

fn a_wildcard_answers_from_the_address_that_was_asked() {
    let lab = Lab::new("udp-any");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    let server = UdpServer::echo(&host, host.addr(7_001), "a");
    // a second address of each family, of the same network
    let others: [IpAddr; 2] = [
        "10.77.0.200".parse().expect("an address"),
        "fd77::200".parse().expect("an address"),
    ];
    lb.add_address("eth0", "10.77.0.200/24");
    lb.add_address("eth0", "fd77::200/64");
    let _convey = lab.convey(&lb, &config("\"[::]:53\"", &[&server], "", ""));
    let own: [IpAddr; 2] = [lb.addr(53).ip(), lb.addr_of(Family::V6, 53).ip()];
    for to in own.into_iter().chain(others) {
        let client = UdpClient::new(&client, SocketAddr::new(to, 53));
        // it is connected: an answer from elsewhere would not be heard
        assert_eq!(ask(&client, "x"), "a:x", "{to}");
    }
}

fn a_server_that_says_its_port_is_closed_loses_the_session_and_is_ejected() {
    let lab = Lab::new("udp-gone");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    let kept = UdpServer::echo(&host, host.addr(7_001), "a");
    let gone = UdpServer::echo(&host, host.addr(7_002), "b");
    let passive = "passive_check = { max_failures = 2, ejection_time = \"1h\" }";
    let convey = lab.convey(
        &lb,
        &alone(&config(&quoted(lb.addr(53)), &[&kept, &gone], "", passive)),
    );
    let clients: Vec<_> = (0..4).map(|_| UdpClient::new(&client, lb.addr(53))).collect();
    let first: Vec<_> = clients.iter().map(|client| ask(client, "x")).collect();
    let lost: Vec<_> = (clients.iter().zip(&first))
        .filter(|(_, answer)| answer.starts_with('b'))
        .collect();
    assert_eq!(lost.len(), 2);
    gone.close(&host);
    for (client, _) in &lost {
        // nobody answers, and the client hears of nothing
        client.socket().send(b"lost").expect("sent");
    }
    let failures = || {
        convey.status().backends["echo"].servers["b"]
            .traffic
            .connect_failures
    };
    wait_until("both sessions have ended", PATIENCE, || failures() >= 2);
    wait_until("the server is ejected", PATIENCE, || {
        convey.status().backends["echo"].servers["b"].state.to_string() == "down"
    });
    for (client, _) in &lost {
        client.socket().set_nonblocking(true).expect("set");
        let heard = client.socket().recv(&mut [0; 9]).expect_err("nothing");
        assert_eq!(heard.kind(), io::ErrorKind::WouldBlock);
        client.socket().set_nonblocking(false).expect("set");
        assert_eq!(
            ask(client, "x"),
            "a:x",
            "its next datagram goes to another server"
        );
    }
    let ended = convey.status().frontends["echo"]
        .traffic
        .ended(TerminationReason::ServerAbort);
    assert_eq!(ended, 2);
}

/// A PROXY header of a client's datagrams.
fn header(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21".to_vec();
    header.extend(if from.is_ipv4() {
        [0x12, 0, 12]
    } else {
        [0x22, 0, 36]
    });
    for ip in [from.ip(), to.ip()] {
        match ip {
            IpAddr::V4(ip) => header.extend(ip.octets()),
            IpAddr::V6(ip) => header.extend(ip.octets()),
        }
    }
    header.extend(from.port().to_be_bytes());
    header.extend(to.port().to_be_bytes());
    header
}

/// A client before an echo server, both of a family, that is told by a PROXY header who a datagram is from.
struct Told {
    client: UdpClient,
    header: Vec<u8>,
    server: UdpServer,
    convey: Convey,
    _lab: Lab,
}

impl Told {
    fn new(name: &str, family: Family, backend: &str) -> Self {
        let lab = Lab::new(name);
        let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
        let server = UdpServer::echo(&host, host.addr_of(family, 7_001), "");
        let to = lb.addr_of(family, 53);
        let backend = format!("send_proxy = \"v2\"\n{backend}");
        let convey = lab.convey(&lb, &config(&quoted(to), &[&server], "", &backend));
        let client = UdpClient::new(&client, to);
        Self {
            header: header(client.own(), to),
            client,
            server,
            convey,
            _lab: lab,
        }
    }

    /// What the server gets of datagrams is given back: the first with the header, the second without.
    #[track_caller]
    fn expect_one_header(&self) {
        let with_header = [&self.header, &b"0123456789"[..]].concat();
        assert_eq!(self.client.ask(b"0123456789").expect("an answer"), with_header);
        assert_eq!(ask(&self.client, "second"), "second", "no other datagram has one");
    }
}

fn a_server_reads_whom_the_first_datagram_is_from() {
    for (name, family) in [("udp-told4", Family::V4), ("udp-told6", Family::V6)] {
        Told::new(name, family, "").expect_one_header();
    }
}

fn a_first_datagram_that_does_not_leave_leaves_its_header_to_the_next() {
    // longer than datagrams can be once the header stands before it; more fragments than the socket may have on their way
    let small = "server_socket.send_buffer = 4_096";
    for (name, family, backend, size, why) in [
        ("udp-long4", Family::V4, "", 65_500, "too_long"),
        ("udp-long6", Family::V6, "", 65_500, "too_long"),
        ("udp-small4", Family::V4, small, 40_000, "send_failed"),
        ("udp-small6", Family::V6, small, 40_000, "send_failed"),
    ] {
        let told = Told::new(name, family, backend);
        for lost in 1..=2 {
            told.client.socket().send(&pattern(size)).expect("sent");
            wait_until("it is counted", PATIENCE, || dropped(&told.convey, why) == lost);
        }
        told.expect_one_header();
        assert_eq!(told.server.seen().largest, told.header.len() + 10);
        let status = told.convey.status();
        let traffic = &status.frontends["echo"].traffic;
        assert_eq!(
            (traffic.connections_total, traffic.datagrams_in),
            (1, 2),
            "{name}"
        );
        assert_eq!(traffic.bytes_in, 16, "{name}");
    }
}

fn of_datagrams_that_came_merged_the_first_alone_has_the_header() {
    for (name, family) in [("udp-merged4", Family::V4), ("udp-merged6", Family::V6)] {
        let told = Told::new(name, family, "");
        let merged = pattern(8 * 1_000);
        send_merged(told.client.socket(), &merged, 1_000);
        let mut buffer = [0; 2_000];
        for (number, sent) in merged.chunks(1_000).enumerate() {
            let length = told.client.socket().recv(&mut buffer).expect("an answer");
            let before = if number == 0 { &told.header[..] } else { &[] };
            assert_eq!(
                buffer[..length],
                [before, sent].concat(),
                "{name}: datagram {number}"
            );
        }
        assert_eq!(ask(&told.client, "x"), "x");
    }
}

fn a_drained_server_keeps_its_sessions_and_a_closed_down_one_loses_them() {
    let lab = Lab::new("udp-drain");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    let servers = [
        UdpServer::echo(&host, host.addr(7_001), "a"),
        UdpServer::echo(&host, host.addr(7_002), "b"),
    ];
    let backend =
        "on_down = \"close\"\nhealth_check = { enabled = true, interval = \"100ms\", fall = 1, rise = 1 }\n";
    let checks = [
        crate::lab::servers::TcpServer::echo(&host, 7_001),
        crate::lab::servers::TcpServer::echo(&host, 7_002),
    ];
    let text = config(&quoted(lb.addr(53)), &[&servers[0], &servers[1]], "", backend);
    let convey = lab.convey(&lb, &alone(&text));
    let clients: Vec<_> = (0..4).map(|_| UdpClient::new(&client, lb.addr(53))).collect();
    let first: Vec<_> = clients.iter().map(|client| ask(client, "x")).collect();
    convey.order("server drain echo/b");
    for (client, first) in clients.iter().zip(&first) {
        assert_eq!(&ask(client, "x"), first, "sessions stay");
    }
    for _ in 0..4 {
        assert_eq!(
            ask(&UdpClient::new(&client, lb.addr(53)), "x"),
            "a:x",
            "no new ones"
        );
    }
    convey.order("server ready echo/b");
    let [check, _other] = checks;
    drop(check);
    wait_until("the sessions of a server that is down end", PATIENCE, || {
        let status = convey.status();
        status.backends["echo"].servers["a"].traffic.connections_current == 0
    });
    for client in &clients {
        assert_eq!(ask(client, "x"), "b:x");
    }
    let ended = convey.status().frontends["echo"]
        .traffic
        .ended(TerminationReason::ServerDown);
    assert_eq!(ended, 6);
}

fn name_servers_behind_it_answer_dig() {
    let lab = Lab::new("udp-dns");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    let _dnsmasq = host.start(&format!(
        "exec dnsmasq --keep-in-foreground --conf-file=/dev/null --pid-file= --no-resolv --no-hosts --bind-interfaces \
         --listen-address={} --address=/www.example/192.0.2.80 --user=root",
        host.ip4()
    ));
    let text = format!(
        "[frontends.dns]\nprotocol = \"udp\"\nlisten_addr = \"0.0.0.0:53\"\nbackend = \"dns\"\n\
         udp = {{ max_requests = 1, max_responses = 1 }}\n\
         [backends.dns]\nservers.one = {{ addr = \"{}:53\" }}\n",
        host.ip4()
    );
    let convey = lab.convey(&lb, &text);
    let query = format!("dig +short +tries=5 +time=1 @{} www.example", lb.ip4());
    wait_until("the name server answers", PATIENCE, || {
        client.try_run(&query).status.success()
    });
    for _ in 0..10 {
        assert_eq!(client.run(&query).trim(), "192.0.2.80");
    }
    wait_until("each query's session has ended", PATIENCE, || {
        convey.status().frontends["dns"].traffic.connections_current == 0
    });
}
