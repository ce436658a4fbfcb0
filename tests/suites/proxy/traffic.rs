//! Bytes get through, to the right servers.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::Shutdown,
    thread,
};

use convey::base::TerminationReason;

use crate::{
    Test,
    lab::{
        Lab, PATIENCE,
        load::{Wrk, transfer},
        random_bytes,
        servers::TcpServer,
    },
    site::{FAST_CHECK, Site, backend, frontend, read_line},
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    curl_gets_the_servers_answer,
    ten_mebibytes_arrive_unchanged_in_both_directions,
    a_full_duplex_stream_arrives_unchanged,
    connections_spread_by_weight,
    wrk_runs_without_an_error,
    bulk_flows_in_both_directions,
    a_server_that_speaks_first_is_heard,
    a_client_that_closes_its_half_still_gets_the_answer,
    a_server_that_closes_its_half_is_still_sent_to,
    ipv6_clients_reach_ipv6_and_ipv4_servers,
    a_frontend_listens_on_several_addresses,
    a_connection_leaves_from_the_source_address,
];

fn curl_gets_the_servers_answer() {
    let site = Site::new("curl", 1);
    let convey = site.convey(&site.config("", FAST_CHECK));
    assert_eq!(site.client.run(&format!("curl -s {}", site.url())), "a");
    drop(convey);
    let refused = site.client.try_run(&format!("curl -s {}", site.url()));
    assert_eq!(refused.status.code(), Some(7), "it was Convey that answered");
}

fn ten_mebibytes_arrive_unchanged_in_both_directions() {
    let site = Site::new("bytes", 1);
    let _convey = site.convey(&site.config("", FAST_CHECK));
    let bytes = random_bytes(1, 10 << 20);
    let (here, served) = (site.client.path("here"), site.webs[0].file("served"));
    fs::write(&served, &bytes).expect("a file to serve");
    site.client.run(&format!(
        "curl -sf -o {} {}files/served",
        here.display(),
        site.url()
    ));
    assert!(
        fs::read(&here).expect("the download") == bytes,
        "the download differs"
    );
    site.client.run(&format!(
        "curl -sf -T {} {}files/uploaded",
        here.display(),
        site.url()
    ));
    let uploaded = fs::read(site.webs[0].file("uploaded")).expect("the upload");
    assert!(uploaded == bytes, "the upload differs");
}

fn a_full_duplex_stream_arrives_unchanged() {
    let lab = Lab::new("duplex");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("echo"));
    let echo = TcpServer::echo(&host, 7);
    let config = frontend("echo", lb.addr(7), "echo", "") + &backend("echo", "", &[("e", echo.addr(), "")]);
    let _convey = lab.convey(&lb, &config);
    let bytes = random_bytes(2, 10 << 20);
    let mut stream = client.connect(lb.addr(7));
    let mut sender = stream.try_clone().expect("a second handle");
    let mut back = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            sender.write_all(&bytes).expect("send");
            sender.shutdown(Shutdown::Write).expect("half close");
        });
        stream.read_to_end(&mut back).expect("receive");
    });
    assert_eq!(back.len(), bytes.len());
    assert!(back == bytes, "the echo differs");
}

fn connections_spread_by_weight() {
    let site = Site::new("weight", 3);
    let servers: Vec<_> = site
        .webs
        .iter()
        .zip(["weight = 5", "weight = 1", "weight = 0"])
        .map(|(web, weight)| (web.host().name(), web.addr(), weight))
        .collect();
    let config = "[global]\nworkers = 1\n".to_owned()
        + &frontend("web", site.lb.addr(80), "web", "")
        + &backend("web", FAST_CHECK, &servers);
    let _convey = site.convey(&config);
    let answers = site.ask(36);
    assert_eq!(answers, [("a".to_owned(), 30), ("b".to_owned(), 6)].into());
}

fn wrk_runs_without_an_error() {
    let site = Site::new("wrk", 2);
    let convey = site.convey(&site.config("", FAST_CHECK));
    for close in [false, true] {
        let before = convey.traffic("web").bytes_out;
        let load = Wrk::endless(&site.client, &site.url(), 32, close);
        // an answer has less than half a kilobyte
        convey.wait_status("two thousand answers", |status| {
            status.frontends["web"].traffic.bytes_out > before + 1_000_000
        });
        let report = load.stop();
        assert_eq!(report.errors, 0, "close: {close}\n{}", report.text);
        assert!(report.requests > 2000, "close: {close}\n{}", report.text);
    }
}

fn bulk_flows_in_both_directions() {
    let lab = Lab::new("bulk");
    let (client, lb, server) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    let _iperf3 = server.start("exec iperf3 -s -p 5201");
    let config = frontend("bulk", lb.addr(5201), "bulk", "access_log = false")
        + &backend("bulk", "", &[("s", server.addr(5201), "")]);
    let convey = lab.convey(&lb, &config);
    convey.wait_status("iperf3 is up", |status| {
        status.backends["bulk"].servers["s"].state == convey::base::ServerState::Up
    });
    for reverse in [false, true] {
        let bytes = transfer(&client, lb.addr(5201), 200, reverse);
        assert!(bytes >= 100 << 20, "only {bytes} bytes, reverse: {reverse}");
    }
}

fn a_server_that_speaks_first_is_heard() {
    let lab = Lab::new("smtp");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("smtp"));
    let smtp = TcpServer::smtp(&host, 25);
    let config = frontend("mail", lb.addr(25), "mail", "") + &backend("mail", "", &[("s", smtp.addr(), "")]);
    let _convey = lab.convey(&lb, &config);
    let mut stream = client.connect(lb.addr(25));
    let mut talk = |line: &str, answer: &str| {
        stream.write_all(line.as_bytes()).expect("send");
        assert_eq!(read_line(&mut stream).expect("an answer").trim(), answer);
    };
    talk("", "220 lab ESMTP");
    talk("EHLO me\r\n", "250 EHLO me");
    talk("QUIT\r\n", "221 bye");
    assert_eq!(stream.read(&mut [0]).expect("the end"), 0);
}

fn a_client_that_closes_its_half_still_gets_the_answer() {
    let lab = Lab::new("half");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("counting"));
    let server = TcpServer::count_until_end(&host, 9);
    let config =
        frontend("count", lb.addr(9), "count", "") + &backend("count", "", &[("s", server.addr(), "")]);
    let convey = lab.convey(&lb, &config);
    let answer = client.run(&format!("head -c 3000000 /dev/zero | nc -N {} 9", lb.ip4()));
    assert_eq!(answer, "3000000\n");
    convey.wait_status("one has ended", |status| {
        !status.frontends["count"].traffic.ended.is_empty()
    });
    let ended = convey.traffic("count").ended;
    assert_eq!(ended, [(TerminationReason::Normal.into(), 1)].into());
}

fn a_server_that_closes_its_half_is_still_sent_to() {
    let lab = Lab::new("otherhalf");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    let (sender, received) = std::sync::mpsc::channel();
    let server = TcpServer::start(&host, 9, move |mut stream| {
        stream.write_all(b"go on")?;
        stream.shutdown(Shutdown::Write)?;
        let count = io::copy(&mut stream, &mut io::sink())?;
        sender.send(count).map_err(io::Error::other)
    });
    // checks would be counted as clients
    let config = frontend("f", lb.addr(9), "b", "")
        + &backend(
            "b",
            "health_check = { enabled = false }",
            &[("s", server.addr(), "")],
        );
    let _convey = lab.convey(&lb, &config);
    let mut stream = client.connect(lb.addr(9));
    let mut greeting = String::new();
    stream.read_to_string(&mut greeting).expect("the server's half");
    assert_eq!(greeting, "go on");
    stream.write_all(&[7; 1_000_000]).expect("send on");
    drop(stream);
    assert_eq!(received.recv_timeout(PATIENCE), Ok(1_000_000));
}

fn ipv6_clients_reach_ipv6_and_ipv4_servers() {
    let site = Site::new("ipv6", 2);
    let servers = [("a", site.webs[0].addr6(), ""), ("b", site.webs[1].addr(), "")];
    let config = frontend("web", site.lb.addr6(80), "web", "") + &backend("web", FAST_CHECK, &servers);
    let _convey = site.convey(&config);
    let command = format!(
        "for i in $(seq 20); do curl -sf http://{}/; done",
        site.lb.addr6(80)
    );
    let answers = site.client.run(&command);
    assert_eq!(answers.len(), 20);
    assert!(answers.contains('a') && answers.contains('b'), "{answers}");
}

fn a_frontend_listens_on_several_addresses() {
    let site = Site::new("several", 1);
    let (lb, client) = (&site.lb, &site.client);
    let listen = [lb.addr(80), lb.addr(8080), lb.addr6(80)];
    let list: Vec<String> = listen.iter().map(|addr| format!("\"{addr}\"")).collect();
    let config = format!(
        "[frontends.web]\nlisten_addr = [{}]\nbackend = \"web\"\n",
        list.join(", ")
    ) + &backend("web", FAST_CHECK, &[("a", site.webs[0].addr(), "")]);
    let convey = site.convey(&config);
    for addr in listen {
        assert_eq!(client.run(&format!("curl -s http://{addr}/")), "a", "{addr}");
    }
    assert_eq!(convey.status().frontends["web"].listen.len(), 3);
}

fn a_connection_leaves_from_the_source_address() {
    let lab = Lab::new("source");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    lb.run("ip addr add 10.77.0.200/24 dev eth0");
    let server = TcpServer::start(&host, 9, |mut stream| {
        let peer = stream.peer_addr()?;
        writeln!(stream, "{}", peer.ip())
    });
    let config = frontend("f", lb.addr(9), "b", "")
        + &backend("b", "source_addr = \"10.77.0.200\"", &[("s", server.addr(), "")]);
    let _convey = lab.convey(&lb, &config);
    let mut stream = client.connect(lb.addr(9));
    assert_eq!(read_line(&mut stream).expect("who we are"), "10.77.0.200");
}
