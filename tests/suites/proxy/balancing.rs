//! How a server is chosen by what servers move, by a hash with a bound, and by what a client had before.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use crate::{
    Test,
    lab::{
        Convey, Host, Lab, PATIENCE,
        servers::TcpServer,
        udp::{UdpClient, UdpServer},
        wait_until,
    },
    site::{NO_CHECK, backend, frontend, read_line},
    tests,
    udp::{alone, ask, config, quoted},
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    new_connections_go_where_few_bytes_move,
    new_sessions_go_where_few_bytes_move,
    a_hash_gives_no_server_more_than_its_bound,
    a_client_keeps_its_server_through_reloads_and_leaves_one_that_drains,
    sessions_of_one_client_go_to_one_server,
    a_full_table_remembers_those_that_it_has,
    a_full_server_sends_its_clients_elsewhere_only_meanwhile,
    a_client_whose_server_cannot_be_connected_sticks_to_another,
];

const PORT: u16 = 9;
const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// Servers that say their names.
struct Site {
    servers: Vec<TcpServer>,
    client: Host,
    lb: Host,
    lab: Lab,
}

impl Site {
    fn new(name: &str, servers: usize) -> Self {
        let lab = Lab::new(name);
        let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("servers"));
        let servers = (NAMES[..servers].iter().zip(7_001..))
            .map(|(name, port)| TcpServer::named(&host, port, name))
            .collect();
        Self {
            servers,
            client,
            lb,
            lab,
        }
    }

    fn config(&self, settings: &str) -> String {
        self.config_with(settings, "")
    }

    fn config_with(&self, settings: &str, server: &str) -> String {
        let servers: Vec<_> = (NAMES.iter().zip(&self.servers))
            .map(|(name, at)| (*name, at.addr(), server))
            .collect();
        frontend("f", self.at(), "b", "") + &backend("b", &format!("{NO_CHECK}\n{settings}"), &servers)
    }

    fn at(&self) -> SocketAddr {
        self.lb.addr(PORT)
    }

    /// A connection from a host, and the server that it got.
    fn open(&self, from: &Host) -> (String, TcpStream) {
        let mut stream = from.connect(self.at());
        (read_line(&mut stream).expect("the greeting"), stream)
    }

    /// The servers of so many connections, one after another.
    fn meet(&self, from: &Host, connections: usize) -> Vec<String> {
        (0..connections).map(|_| self.open(from).0).collect()
    }
}

fn counted(names: impl IntoIterator<Item = String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for name in names {
        *counts.entry(name).or_default() += 1;
    }
    counts
}

/// What sticks in the backend.
fn sticky(convey: &Convey) -> (usize, u64) {
    let status = convey.status();
    let sticky = status.backends["b"].sticky.expect("something may stick");
    (sticky.entries, sticky.refused)
}

fn new_connections_go_where_few_bytes_move() {
    let site = Site::new("bandwidth", 3);
    let _convey = site
        .lab
        .convey(&site.lb, &site.config("balance = \"least_bandwidth\""));
    let (busy, mut stream) = site.open(&site.client);
    // both ways: the server gives it back
    let (mut bytes, mut back) = (vec![b'x'; 64 << 10], vec![0; 64 << 10]);
    bytes[0] = b'\n';
    for _ in 0..200 {
        stream.write_all(&bytes).expect("sent");
        stream.read_exact(&mut back).expect("given back");
    }
    let counts = counted(site.meet(&site.client, 60));
    assert!(!counts.contains_key(&busy), "{busy} in {counts:?}");
    assert!(
        counts.len() == 2 && counts.values().all(|count| *count >= 10),
        "{counts:?}"
    );
}

fn new_sessions_go_where_few_bytes_move() {
    let lab = Lab::new("udp-bandwidth");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    let servers = [
        UdpServer::echo(&host, host.addr(7_001), "a"),
        UdpServer::echo(&host, host.addr(7_002), "b"),
    ];
    let text = config(
        &quoted(lb.addr(53)),
        &[&servers[0], &servers[1]],
        "",
        "balance = \"least_bandwidth\"",
    );
    let _convey = lab.convey(&lb, &text);
    let busy = UdpClient::new(&client, lb.addr(53));
    let text = "x".repeat(1_000);
    let its = ask(&busy, &text);
    for _ in 0..300 {
        ask(&busy, &text);
    }
    for _ in 0..20 {
        let other = ask(&UdpClient::new(&client, lb.addr(53)), "x");
        assert_ne!(other[..1], its[..1], "the other one has moved nothing");
    }
}

fn a_hash_gives_no_server_more_than_its_bound() {
    let site = Site::new("bound", 4);
    let hash = "balance = \"source_hash\"\n";
    let bounded = site.config(&format!("{hash}hash_balance_factor = 125"));
    let convey = site.lab.convey(&site.lb, &bounded);
    let open: Vec<_> = (0..100).map(|_| site.open(&site.client)).collect();
    let counts = counted(open.iter().map(|(name, _)| name.clone()));
    // ⌈1.25 × 100 ÷ 4⌉
    assert_eq!(counts.values().max(), Some(&32), "{counts:?}");
    assert_eq!(counts.len(), 4, "{counts:?}");
    let own = open[0].0.clone();
    drop(open);
    for _ in 0..5 {
        // one at a time is below every bound
        wait_until("all have ended", PATIENCE, || {
            convey.traffic("f").connections_current == 0
        });
        assert_eq!(site.open(&site.client).0, own);
    }
    // without it everybody behind one address is one server's
    convey.reload(&site.config(hash));
    let open: Vec<_> = (0..20).map(|_| site.open(&site.client)).collect();
    assert_eq!(counted(open.iter().map(|(name, _)| name.clone())).len(), 1);
}

fn a_client_keeps_its_server_through_reloads_and_leaves_one_that_drains() {
    let site = Site::new("sticky", 3);
    let settings = "sticky = { ttl = \"1h\" }\n";
    let convey = site.lab.convey(&site.lb, &site.config(settings));
    let first = site.meet(&site.client, 1).remove(0);
    assert_eq!(site.meet(&site.client, 20), vec![first.clone(); 20]);
    for retries in 0..5 {
        convey.reload(&site.config(&format!("{settings}retries = {retries}")));
        assert_eq!(site.meet(&site.client, 4), vec![first.clone(); 4]);
    }
    assert_eq!(sticky(&convey), (1, 0));
    let explained = |from: &Host| convey.order(&format!("explain tcp {} {}", from.addr(40_000), site.at()));
    let own = explained(&site.client);
    assert!(
        own.contains(&format!("{first} at")) && own.contains("sticks to it"),
        "{own}"
    );
    assert!(!explained(&site.lb).contains("sticks to it"));
    convey.order(&format!("server drain b/{first}"));
    let second = site.meet(&site.client, 1).remove(0);
    assert_ne!(second, first);
    assert_eq!(site.meet(&site.client, 10), vec![second.clone(); 10]);
    // it is at home there now
    convey.order(&format!("server ready b/{first}"));
    assert_eq!(site.meet(&site.client, 10), vec![second; 10]);
    assert_eq!(sticky(&convey), (1, 0));
    // without it the round goes on
    convey.reload(&site.config(""));
    assert_eq!(counted(site.meet(&site.client, 30)).len(), 3);
}

fn sessions_of_one_client_go_to_one_server() {
    let lab = Lab::new("udp-sticky");
    let (client, other, lb, host) = (
        lab.host("client"),
        lab.host("other"),
        lab.host("lb"),
        lab.host("server"),
    );
    let servers = [
        UdpServer::echo(&host, host.addr(7_001), "a"),
        UdpServer::echo(&host, host.addr(7_002), "b"),
    ];
    let text = |ttl: &str| {
        alone(&config(
            &quoted(lb.addr(53)),
            &[&servers[0], &servers[1]],
            "udp = { max_requests = 1, max_responses = 1 }\n",
            &format!("sticky = {{ ttl = \"{ttl}\" }}\n"),
        ))
    };
    let convey = lab.convey(&lb, &text("1h"));
    for host in [&client, &other] {
        let first = ask(&UdpClient::new(host, lb.addr(53)), "x");
        for _ in 0..20 {
            assert_eq!(ask(&UdpClient::new(host, lb.addr(53)), "x"), first);
        }
    }
    // forgotten after its time, and then it has its turn in the round: the two take turns, so that each comes to both
    convey.reload(&text("1s"));
    let mut met = BTreeMap::new();
    wait_until("it has had both", PATIENCE, || {
        std::thread::sleep(Duration::from_millis(1_100));
        *met.entry(ask(&UdpClient::new(&client, lb.addr(53)), "x"))
            .or_insert(0) += 1;
        met.len() == 2
    });
}

fn a_full_table_remembers_those_that_it_has() {
    let site = Site::new("sticky-full", 2);
    let other = site.lab.host("other");
    let settings = "sticky = { ttl = \"1h\", max_entries = 1 }";
    let text = format!("[global]\nworkers = 1\n{}", site.config(settings));
    let convey = site.lab.convey(&site.lb, &text);
    let first = site.meet(&site.client, 1).remove(0);
    // the round goes on for whoever is not remembered
    assert_eq!(counted(site.meet(&other, 10)).len(), 2);
    assert_eq!(site.meet(&site.client, 10), vec![first; 10]);
    assert_eq!(sticky(&convey), (1, 10));
    let status = convey.cli("status").stdout;
    assert!(status.contains("no room to remember 10 clients"), "{status}");
}

fn a_full_server_sends_its_clients_elsewhere_only_meanwhile() {
    let site = Site::new("sticky-busy", 2);
    let text = site.config_with("sticky = { ttl = \"1h\" }", "max_connections = 1");
    let convey = site.lab.convey(&site.lb, &text);
    let (first, held) = site.open(&site.client);
    let (second, other) = site.open(&site.client);
    assert_ne!(first, second);
    drop((held, other));
    for _ in 0..4 {
        wait_until("all have ended", PATIENCE, || {
            convey.traffic("f").connections_current == 0
        });
        assert_eq!(site.open(&site.client).0, first);
    }
}

fn a_client_whose_server_cannot_be_connected_sticks_to_another() {
    let mut site = Site::new("sticky-dead", 2);
    let blind = "sticky = { ttl = \"1h\" }\npassive_check = { enabled = false }";
    let text = site.config(blind);
    let _convey = site.lab.convey(&site.lb, &text);
    let first = site.meet(&site.client, 1).remove(0);
    let index = NAMES.iter().position(|name| **name == *first).expect("a server");
    // nobody listens there any more
    let dead = site.servers.remove(index);
    drop(dead);
    let second = site.meet(&site.client, 1).remove(0);
    assert_ne!(second, first);
    assert_eq!(site.meet(&site.client, 6), vec![second; 6]);
}
