//! What `convey import` makes of IPVS with masquerading, of keepalived, gobetween and awe4lb, run: it behaves as theirs does by
//! their documentation. (This kernel has no IPVS, and neither of the other two is a package.)

use std::{collections::BTreeMap, net::SocketAddr};

use convey::{
    base::ServerState,
    import::{InputFile, Kind, NoFiles, translate},
};

use crate::{
    Test,
    lab::{
        Convey, Host, Lab, PATIENCE,
        servers::{TcpServer, Witness},
        udp::{UdpClient, UdpServer},
        wait_until,
    },
    tests,
    transparent::{keep_answers, route},
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    keepalived_its_masqueraded_servers_see_the_client_and_the_sorry_server_comes_last,
    keepalived_its_checks_decide_which_servers_are_up,
    ipvs_a_persistent_client_keeps_its_server,
    ipvs_the_failover_scheduler_goes_by_the_highest_weight,
    gobetween_its_priorities_weights_and_access_rules_hold,
    gobetween_one_request_of_udp_is_one_choice,
    awe4lb_its_matches_and_pools_hold,
];

const VIP_PORT: u16 = 80;

/// A client, a load balancer, and a host of servers whose way to the client leads through the load balancer.
struct Site {
    client: Host,
    lb: Host,
    host: Host,
    lab: Lab,
}

impl Site {
    fn new(name: &str) -> Self {
        let lab = Lab::new(name);
        let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("servers"));
        route(&host, client.ip4().into(), lb.ip4().into());
        Self {
            client,
            lb,
            host,
            lab,
        }
    }

    fn vip(&self) -> SocketAddr {
        self.lb.addr(VIP_PORT)
    }

    fn server(&self, name: &str, port: u16) -> TcpServer {
        TcpServer::witness(&self.host, self.host.addr(port), name)
    }

    /// Convey with what becomes of another's configuration. One worker, for the order of round robin is a worker's own.
    #[track_caller]
    fn convey(&self, kind: Kind, name: &str, text: &str) -> Convey {
        let imported = translate(kind, &InputFile::new(name, text.as_bytes()), &mut NoFiles)
            .unwrap_or_else(|error| panic!("{error}"));
        let config = format!("{}\n[global]\nworkers = 1\n", imported.text);
        self.lab.convey(&self.lb, &config)
    }

    /// The servers of so many connections, and how often each.
    #[track_caller]
    fn shares(&self, connections: usize) -> BTreeMap<String, usize> {
        let mut shares = BTreeMap::new();
        for _ in 0..connections {
            let met = Witness::meet(&self.client, self.vip()).expect("a server");
            *shares.entry(met.server).or_default() += 1;
        }
        shares
    }
}

fn of(shares: &[(&str, usize)]) -> BTreeMap<String, usize> {
    shares
        .iter()
        .map(|(name, count)| ((*name).to_owned(), *count))
        .collect()
}

/// The one backend with servers that are checked.
fn up(convey: &Convey, backend: &str) -> usize {
    let status = convey.status();
    (status.backends[backend].servers.values())
        .filter(|server| server.state.known() == Some(ServerState::Up))
        .count()
}

fn keepalived_its_masqueraded_servers_see_the_client_and_the_sorry_server_comes_last() {
    let site = Site::new("import-keepalived");
    let (a, b) = (site.server("a", 9_001), site.server("b", 9_002));
    let _drained = site.server("drained", 9_003);
    let _sorry = site.server("sorry", 9_009);
    let (vip, ip) = (site.lb.ip4(), site.host.ip4());
    let real = |port: u16, weight: u16| {
        format!(
            "real_server {ip} {port} {{\nweight {weight}\nTCP_CHECK {{\nconnect_timeout 1\nretry 1\ndelay_before_retry 0.1\n}}\n}}\n"
        )
    };
    let text = format!(
        "virtual_server {vip} {VIP_PORT} {{\ndelay_loop 0.2\nlb_algo wrr\nlb_kind NAT\nprotocol TCP\nalpha\nsorry_server {ip} 9009\n{}{}{}}}\n",
        real(9_001, 3),
        real(9_002, 1),
        real(9_003, 0)
    );
    let convey = site.convey(Kind::Keepalived, "keepalived.conf", &text);
    keep_answers(&convey);
    let backend = format!("{vip}:{VIP_PORT}");
    wait_until("the servers are up", PATIENCE, || up(&convey, &backend) == 3);
    assert_eq!(site.shares(40), of(&[("a", 30), ("b", 10)]));
    let met = Witness::meet(&site.client, site.vip()).expect("a server");
    assert_eq!(
        met.seen.ip(),
        site.client.ip4(),
        "masquerading keeps the client's address"
    );
    drop((a, b));
    wait_until("both are down", PATIENCE, || up(&convey, &backend) == 1);
    assert_eq!(site.shares(5), of(&[("sorry", 5)]));
    let _a = site.server("a", 9_001);
    wait_until("one is back", PATIENCE, || up(&convey, &backend) == 2);
    assert_eq!(site.shares(5), of(&[("a", 5)]));
}

fn keepalived_its_checks_decide_which_servers_are_up() {
    let site = Site::new("import-checks");
    let (one, two) = (site.lab.nginx("one", "one"), site.lab.nginx("two", "two"));
    let script = site.lb.path("check");
    // up is the server of this address alone
    std::fs::write(&script, format!("#!/bin/sh\ntest \"$1\" = {}\n", one.addr().ip())).expect("a script");
    site.lb.run(&format!("chmod 755 {0}", script.display()));
    crate::lab::open_to_all(site.lb.dir());
    let (vip, script) = (site.lb.ip4(), script.display());
    let of_kind = |port: u16, check: &dyn Fn(SocketAddr) -> String| {
        let mut text = format!(
            "virtual_server {vip} {port} {{\ndelay_loop 0.2\nlb_algo rr\nlb_kind NAT\nprotocol TCP\n"
        );
        for web in [&one, &two] {
            let (ip, web_port) = (web.addr().ip(), web.addr().port());
            text += &format!("real_server {ip} {web_port} {{\n{}}}\n", check(web.addr()));
        }
        text + "}\n"
    };
    let text = of_kind(81, &|_| {
        "HTTP_GET {\nurl {\npath /\nstatus_code 200\n}\ndelay_before_retry 0.1\n}\n".to_owned()
    }) + &of_kind(82, &|_| {
        "HTTP_GET {\nurl {\npath /nowhere\nstatus_code 599\n}\nretry 0\ndelay_before_retry 0.1\n}\n"
            .to_owned()
    }) + &of_kind(83, &|addr| {
        format!(
            "MISC_CHECK {{\nmisc_path \"{script} {} {}\"\n}}\n",
            addr.ip(),
            addr.port()
        )
    });
    let convey = site.convey(Kind::Keepalived, "keepalived.conf", &text);
    for (port, expected) in [(81, 2), (82, 0), (83, 1)] {
        let backend = format!("{vip}:{port}");
        wait_until(&format!("{expected} servers on {port}"), PATIENCE, || {
            up(&convey, &backend) == expected
        });
    }
}

fn ipvs_a_persistent_client_keeps_its_server() {
    let site = Site::new("import-ipvs");
    let _servers = [
        site.server("a", 9_001),
        site.server("b", 9_002),
        site.server("c", 9_003),
    ];
    let (vip, ip) = (site.vip(), site.host.ip4());
    let mut text = format!("-A -t {vip} -s rr -p 300\n");
    for port in 9_001..=9_003 {
        text += &format!("-a -t {vip} -r {ip}:{port} -m -w 1\n");
    }
    let convey = site.convey(Kind::Ipvs, "ipvs.rules", &text);
    keep_answers(&convey);
    assert_eq!(site.shares(12).len(), 1, "one client, one server");
    let other = site.lab.host("other");
    route(&site.host, other.ip4().into(), site.lb.ip4().into());
    let first = Witness::meet(&other, vip).expect("a server").server;
    let own = site.shares(1);
    assert!(
        !own.contains_key(&first),
        "round robin goes on for the next client: {own:?}"
    );
}

fn ipvs_the_failover_scheduler_goes_by_the_highest_weight() {
    let site = Site::new("import-fo");
    let (_low, _mid) = (site.server("low", 9_001), site.server("mid", 9_002));
    let _high = site.server("high", 9_003);
    let (vip, ip) = (site.vip(), site.host.ip4());
    let mut text = format!("-A -t {vip} -s fo\n");
    for (port, weight) in [(9_001, 10), (9_002, 20), (9_003, 30)] {
        text += &format!("-a -t {vip} -r {ip}:{port} -m -w {weight}\n");
    }
    let convey = site.convey(Kind::Ipvs, "ipvs.rules", &text);
    keep_answers(&convey);
    assert_eq!(site.shares(6), of(&[("high", 6)]));
    let out = convey.cli(&format!("server drain {vip} {ip}:9003"));
    assert!(out.status.success(), "{}", out.stderr);
    assert_eq!(site.shares(6), of(&[("mid", 6)]));
}

fn gobetween_its_priorities_weights_and_access_rules_hold() {
    let site = Site::new("import-gobetween");
    let (a, b) = (site.server("a", 9_001), site.server("b", 9_002));
    let _backup = site.server("backup", 9_003);
    let stranger = site.lab.host("stranger");
    let (vip, ip) = (site.vip(), site.host.ip4());
    let text = format!(
        "[servers.web]\nbind = \"{vip}\"\nbalance = \"weight\"\n\
         [servers.web.access]\ndefault = \"allow\"\nrules = [\"deny {stranger}\"]\n\
         [servers.web.discovery]\nkind = \"static\"\nstatic_list = [\"{ip}:9001 weight=3\", \"{ip}:9002\", \"{ip}:9003 weight=9 priority=2\"]\n\
         [servers.web.healthcheck]\nkind = \"ping\"\ninterval = \"200ms\"\ntimeout = \"1s\"\n",
        stranger = stranger.ip4()
    );
    let convey = site.convey(Kind::Gobetween, "gobetween.toml", &text);
    // random: 200 draws of 3 to 1; fewer than 20 of one have odds below 1 in 10^6
    let shares = site.shares(200);
    assert_eq!(shares.len(), 2, "{shares:?}");
    assert!(shares["a"] > shares["b"] && shares["b"] >= 20, "{shares:?}");
    assert!(Witness::meet(&stranger, vip).is_err(), "the rule names it");
    drop((a, b));
    wait_until("both are down", PATIENCE, || up(&convey, "web") == 1);
    assert_eq!(site.shares(5), of(&[("backup", 5)]));
}

fn gobetween_one_request_of_udp_is_one_choice() {
    let site = Site::new("import-datagrams");
    let _servers = ["a", "b"].map(|name| {
        let port = if name == "a" { 9_001 } else { 9_002 };
        UdpServer::echo(&site.host, site.host.addr(port), name)
    });
    let (vip, ip) = (site.vip(), site.host.ip4());
    let text = format!(
        r#"{{ "servers": {{ "dns": {{ "bind": "{vip}", "protocol": "udp", "balance": "roundrobin", "udp": {{ "max_requests": 1 }},
             "discovery": {{ "kind": "static", "static_list": ["{ip}:9001", "{ip}:9002 weight=9"] }} }} }} }}"#
    );
    let _convey = site.convey(Kind::Gobetween, "gobetween.json", &text);
    let client = UdpClient::new(&site.client, vip);
    let answers: Vec<_> = (0..6)
        .map(|_| client.ask(b"x").expect("an answer")[..1].to_vec())
        .collect();
    for two in answers.windows(2) {
        assert_ne!(
            two[0], two[1],
            "each datagram goes to the next server: {answers:?}"
        );
    }
}

fn awe4lb_its_matches_and_pools_hold() {
    let site = Site::new("import-awe4lb");
    let _servers = [("own", 9_001), ("a", 9_002), ("b", 9_003)].map(|(name, port)| site.server(name, port));
    let own = site.lab.host("own-client");
    let (lb, ip) = (site.lb.ip4(), site.host.ip4());
    let text = format!(
        "id: lab\ndescription: two pools\nservers:\n- id: web\n  addr: {{host: {lb}, port: {VIP_PORT}}}\n  match:\n  - op: {{host: {{equals: {own}}}}}\n    \
         pool: {{hosts: [{{addr: {{host: {ip}, port: 9001}}}}]}}\n  - pool:\n      type: roundRobin\n      hosts:\n      - addr: {{host: {ip}, port: \
         9002}}\n        weight: 9\n        priority: 1\n      - addr: {{host: {ip}, port: 9003}}\n        weight: 1\n        priority: 2\n    healthCheck: \
         {{intervalMs: 200, timeoutMs: 2000}}\n",
        own = own.ip4()
    );
    let convey = site.convey(Kind::Awe4lb, "lab.yaml", &text);
    wait_until("hosts are used once they are checked", PATIENCE, || {
        up(&convey, "web-2") == 2
    });
    assert_eq!(
        site.shares(10),
        of(&[("a", 5), ("b", 5)]),
        "round robin of awe4lb goes by no weight"
    );
    wait_until("the other pool's, too", PATIENCE, || up(&convey, "web-1") == 1);
    assert_eq!(Witness::meet(&own, site.vip()).expect("a server").server, "own");
}
