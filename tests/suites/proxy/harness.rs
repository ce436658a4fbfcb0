//! The lab itself, without Convey.

use std::{
    io::{Read as _, Write as _},
    panic::{AssertUnwindSafe, catch_unwind},
};

use crate::{
    Test,
    lab::{
        Lab, PATIENCE,
        load::{Wrk, WrkReport},
        servers::TcpServer,
        wait_until,
    },
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    hosts_reach_each_other_over_both_protocols,
    a_lab_is_gone_after_a_panic,
    a_killed_web_server_refuses_and_comes_back,
    wrk_counts_failures,
    a_report_of_wrk_is_read_right,
    servers_behave_as_named,
];

fn hosts_reach_each_other_over_both_protocols() {
    let lab = Lab::new("reach");
    let client = lab.host("client");
    let web = lab.nginx("web", "hello");
    assert_eq!(client.run(&format!("curl -s http://{}/", web.addr())), "hello");
    assert_eq!(client.run(&format!("curl -s http://{}/", web.addr6())), "hello");
}

fn a_lab_is_gone_after_a_panic() {
    let mut left = (String::new(), 0);
    let panic = catch_unwind(AssertUnwindSafe(|| {
        let lab = Lab::new("doomed");
        let host = lab.host("host");
        let process = host.start("exec sleep 1000");
        left = (host.namespace().to_owned(), process.pid().as_raw());
        // without the hook's message
        std::panic::resume_unwind(Box::new("as planned"));
    }));
    assert!(panic.is_err());
    assert!(
        !std::path::Path::new("/run/netns").join(&left.0).exists(),
        "{} is left",
        left.0
    );
    assert!(
        !std::path::Path::new(&format!("/proc/{}", left.1)).exists(),
        "a process is left"
    );
}

fn a_killed_web_server_refuses_and_comes_back() {
    let lab = Lab::new("kill");
    let client = lab.host("client");
    let mut web = lab.nginx("web", "hello");
    let url = format!("http://{}/", web.addr());
    web.kill();
    assert_eq!(
        client.try_run(&format!("curl -s {url}")).status.code(),
        Some(7),
        "connection refused"
    );
    web.revive();
    assert_eq!(client.run(&format!("curl -s {url}")), "hello");
}

fn wrk_counts_failures() {
    let lab = Lab::new("wrk");
    let (client, host) = (lab.host("client"), lab.host("rude"));
    let web = lab.nginx("web", "hello");
    let good = Wrk::start(&client, &format!("http://{}/", web.addr()), 4, 1, true).finish();
    assert_eq!(good.errors, 0, "{}", good.text);
    assert!(good.requests > 0 && good.p99 > 0.0, "{}", good.text);
    let rude = TcpServer::start(&host, 80, |_| Ok(()));
    let load = Wrk::endless(&client, &format!("http://{}/", rude.addr()), 4, true);
    // as many at a time as there are clients: by then some have been turned away
    wait_until("it is asked again and again", PATIENCE, || rude.accepted() > 20);
    assert!(load.stop().errors > 0);
}

fn a_report_of_wrk_is_read_right() {
    let report = WrkReport::parse(
        "Running 1s test @ http://10.77.0.2:80/\n  1 threads and 4 connections\n  Thread Stats   Avg      Stdev     Max   +/- Stdev\n    \
         Latency     1.02ms    3.10ms  50.00ms   94.99%\n  Latency Distribution\n     50%  310.00us\n     99%    1.20s \n  \
         8123 requests in 1.10s, 1.25MB read\n  Socket errors: connect 1, read 2, write 3, timeout 4\n  \
         Non-2xx or 3xx responses: 5\nRequests/sec:   7384.55\nTransfer/sec:      1.14MB\n",
    );
    assert_eq!((report.requests, report.errors), (8123, 15));
    assert!(
        (report.p99 - 1.2).abs() < 1e-9 && (report.per_second - 7384.55).abs() < 1e-9,
        "{report:?}"
    );
}

fn servers_behave_as_named() {
    let lab = Lab::new("servers");
    let (client, host) = (lab.host("client"), lab.host("host"));
    let echo = TcpServer::echo(&host, 7);
    let mut stream = client.connect(echo.addr());
    stream.write_all(b"abc").expect("write");
    stream.shutdown(std::net::Shutdown::Write).expect("half close");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("read");
    assert_eq!(answer, "abc");
    assert_eq!(echo.accepted(), 1);
    let counting = TcpServer::count_until_end(&host, 8);
    assert_eq!(
        client.run(&format!("printf 12345 | nc -N {} 8", host.ip4())),
        "5\n"
    );
    assert_eq!(counting.accepted(), 1);
}
