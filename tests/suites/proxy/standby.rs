//! Frontends on addresses that this host does not have, or not yet.

use std::net::SocketAddr;

use crate::{
    Test,
    lab::{Convey, Lab, Nginx, PATIENCE, wait_until},
    site::{NO_CHECK, Site, backend, frontend},
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    a_standby_starts_without_the_address_and_serves_as_soon_as_it_comes,
    an_address_that_is_still_tentative_keeps_nothing_from_starting,
    a_reload_adds_an_absent_address_and_takes_it_away,
    what_the_host_has_in_any_way_does_not_wait,
    a_kept_listener_of_an_ipv6_address_goes_on_over_a_restart,
];

const ABSENT4: &str = "10.77.0.240";
const ABSENT6: &str = "fd77::240";

fn config(site: &Site, addrs: &[SocketAddr]) -> String {
    let servers: Vec<_> = (site.webs.iter())
        .map(|web: &Nginx| (web.host().name(), web.addr(), ""))
        .collect();
    let mut text = backend("web", NO_CHECK, &servers);
    for (number, addr) in addrs.iter().enumerate() {
        text += &frontend(&format!("f{number}"), *addr, "web", "");
    }
    text
}

fn absent() -> [SocketAddr; 2] {
    [
        format!("{ABSENT4}:80").parse().expect("an address"),
        format!("[{ABSENT6}]:80").parse().expect("an address"),
    ]
}

#[track_caller]
fn wait_state(convey: &Convey, frontend: &str, expected: &str) {
    wait_until(&format!("{frontend} is {expected}"), PATIENCE, || {
        convey.status_json()["frontends"][frontend]["state"] == expected
    });
}

#[track_caller]
fn expect_served(site: &Site, addr: SocketAddr) {
    let limit = PATIENCE.as_secs();
    let answer = site
        .client
        .run(&format!("curl -s --max-time {limit} http://{addr}/"));
    assert_eq!(answer, "a", "{addr}");
}

fn a_standby_starts_without_the_address_and_serves_as_soon_as_it_comes() {
    let site = Site::new("standby", 1);
    let convey = site.convey(&config(&site, &absent()));
    for (number, ip) in [ABSENT4, ABSENT6].into_iter().enumerate() {
        let name = format!("f{number}");
        wait_state(&convey, &name, "waiting");
        // so that a typing error is seen, at once and later
        let said = format!("is waiting: no interface has {ip} (expected on a standby");
        wait_until("the warning", PATIENCE, || convey.stderr().contains(&said));
        assert!(convey.order("status").contains(&format!("no interface has {ip}")));
        let quiet = convey.cli(&format!("status --quiet --frontend {name}"));
        assert!(quiet.status.success(), "a standby could serve: {quiet:?}");
        let bits = if ip == ABSENT4 { 32 } else { 128 };
        site.lb.add_address("eth0", &format!("{ip}/{bits}"));
        wait_state(&convey, &name, "live");
        expect_served(&site, absent()[number]);
        site.lb.run(&format!("ip address del {ip}/{bits} dev eth0"));
        wait_state(&convey, &name, "waiting");
        site.lb.add_address("eth0", &format!("{ip}/{bits}"));
        wait_state(&convey, &name, "live");
        expect_served(&site, absent()[number]);
    }
    let said = convey.notify().assignments();
    assert!(
        said.iter()
            .any(|line| line.contains("waiting for the address of f0, f1")),
        "{said:?}"
    );
}

fn an_address_that_is_still_tentative_keeps_nothing_from_starting() {
    let site = Site::new("tentative", 1);
    site.lb.run(&format!(
        "ip address add {ABSENT6}/64 dev eth0; ip -6 address show dev eth0"
    ));
    // in the second that the kernel looks for another host with it
    let convey = site.convey(&config(&site, &absent()[1..]));
    wait_state(&convey, "f0", "live");
    expect_served(&site, absent()[1]);
}

fn a_reload_adds_an_absent_address_and_takes_it_away() {
    let site = Site::new("laterstandby", 1);
    let own = site.lb.addr(80);
    let convey = site.convey(&config(&site, &[own]));
    assert_eq!(convey.status_json()["frontends"]["f0"]["state"], "live");
    convey.reload(&config(&site, &[own, absent()[0]]));
    wait_state(&convey, "f1", "waiting");
    expect_served(&site, own);
    convey.reload(&config(&site, &[own]));
    let idle = |line: &String| line.starts_with("STATUS=") && !line.contains("waiting");
    wait_until("nothing waits any more", PATIENCE, || {
        convey.notify().assignments().last().is_some_and(idle)
    });
    // nobody listens there any longer
    site.lb.add_address("eth0", &format!("{ABSENT4}/32"));
    let refused = site.client.try_connect(absent()[0]).expect_err("nobody listens");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

fn what_the_host_has_in_any_way_does_not_wait() {
    let lab = Lab::new("anyway");
    let lb = lab.host("lb");
    // a whole network is this host's, no address of it on an interface
    lb.run("ip route add local 192.0.2.0/24 dev lo");
    let addrs = [
        "0.0.0.0:80",
        "[::]:81",
        "127.0.0.9:82",
        "[::1]:83",
        "192.0.2.7:84",
        "192.0.3.7:85",
    ];
    let mut text = backend("b", NO_CHECK, &[("s", lb.addr(9), "")]);
    for (number, addr) in addrs.iter().enumerate() {
        text += &frontend(&format!("f{number}"), addr.parse().expect("an address"), "b", "");
    }
    let convey = lab.convey(&lb, &text);
    wait_state(&convey, "f5", "waiting");
    for number in 0..5 {
        let status = convey.status_json();
        assert_eq!(
            status["frontends"][format!("f{number}")]["state"],
            "live",
            "{}",
            addrs[number]
        );
    }
    let log = convey.stderr();
    assert_eq!(log.matches("is waiting").count(), 1, "{log}");
}

fn a_kept_listener_of_an_ipv6_address_goes_on_over_a_restart() {
    let site = Site::new("kept6", 1);
    let addr = site.lb.addr6(80);
    let text = config(&site, &[addr]);
    let mut convey = Convey::launch_with(&site.lb, &text, &["env", Convey::FD_STORE]);
    convey.wait_ready();
    expect_served(&site, addr);
    convey.signal(nix::sys::signal::Signal::SIGTERM);
    convey.wait_exit(PATIENCE);
    // between the two processes: it waits in the queue that was kept
    let mut waiting = site.client.connect(addr);
    convey.start_again(&text);
    use std::io::{Read as _, Write as _};
    waiting.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    waiting.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("a request");
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).expect("an answer");
    assert!(answer.ends_with('a'), "{answer}");
    assert!(
        convey.stderr().contains("inherited listeners"),
        "{}",
        convey.stderr()
    );
}
