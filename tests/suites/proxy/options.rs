//! What a frontend may say of each connection besides where it goes: how long it lives.

use std::{
    io::Write as _,
    time::{Duration, Instant},
};

use convey::base::TerminationReason;

use crate::{
    Test,
    lab::{
        Lab, PATIENCE,
        servers::TcpServer,
        udp::{UdpClient, UdpServer},
        wait_until,
    },
    site::{NO_CHECK, backend, frontend, read_line},
    tests,
    udp::{alone, ask, config, open, quoted},
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    a_busy_connection_ends_with_its_lifetime,
    a_busy_session_ends_with_its_lifetime_and_begins_anew,
];

const PORT: u16 = 9;

fn a_busy_connection_ends_with_its_lifetime() {
    let lab = Lab::new("lifetime");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    let server = TcpServer::named(&host, PORT, "s");
    let text = frontend("f", lb.addr(PORT), "b", "max_lifetime = \"1s\"")
        + &backend("b", NO_CHECK, &[("s", server.addr(), "")]);
    let convey = lab.convey(&lb, &text);
    let start = Instant::now();
    let mut stream = client.connect(lb.addr(PORT));
    assert_eq!(read_line(&mut stream).expect("the greeting"), "s");
    while stream.write_all(b"x\n").is_ok() && read_line(&mut stream).is_ok_and(|echo| echo == "x") {}
    let lived = start.elapsed();
    assert!(lived >= Duration::from_secs(1), "too early: {lived:?}");
    convey.wait_status("it is counted", |status| {
        status.frontends["f"]
            .traffic
            .ended(TerminationReason::MaxLifetime)
            == 1
    });
    wait_until("the log says why", PATIENCE, || {
        let log = convey.stderr();
        log.lines().any(|line| line.contains(" PD "))
    });
}

fn a_busy_session_ends_with_its_lifetime_and_begins_anew() {
    let lab = Lab::new("udp-lifetime");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    let servers = [
        UdpServer::echo(&host, host.addr(7_001), "a"),
        UdpServer::echo(&host, host.addr(7_002), "b"),
    ];
    let settings = "max_lifetime = \"1s\"\n";
    let text = config(&quoted(lb.addr(53)), &[&servers[0], &servers[1]], settings, "");
    let convey = lab.convey(&lb, &alone(&text));
    let client = UdpClient::new(&client, lb.addr(53));
    let first = ask(&client, "x");
    // the round has the other server next
    wait_until("another session has another server", PATIENCE, || {
        std::thread::sleep(Duration::from_millis(50));
        ask(&client, "x") != first
    });
    assert_eq!(open(&convey), 1);
    convey.wait_status("it is counted", |status| {
        status.frontends["echo"]
            .traffic
            .ended(TerminationReason::MaxLifetime)
            >= 1
    });
}
