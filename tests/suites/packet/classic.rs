//! What Convey 0.3.5 could be asked to do, it still does.

use std::net::SocketAddr;

use nix::sys::signal::Signal;

use crate::{
    Test,
    lab::{Convey, Nginx, PATIENCE},
    process::expect_nothing_left,
    site::{DSR, PASSTHROUGH, Plan, Port, Site, Transport, Way, vip},
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    Convey: dash_p_runs_a_file_of_0_3_5_in_passthrough,
    Convey: dash_d_runs_a_file_of_0_3_5_in_dsr,
];

fn dash_p_runs_a_file_of_0_3_5_in_passthrough() {
    runs("-p", PASSTHROUGH[0]);
}

fn dash_d_runs_a_file_of_0_3_5_in_dsr() {
    runs("-d", DSR[0]);
}

fn runs(flag: &str, way: Way) {
    let site = Site::new("classic", 2);
    let webs: Vec<Nginx> = site
        .servers
        .iter()
        .map(|host| Nginx::start(host, host.name()))
        .collect();
    let port = Port::same("web", Transport::Tcp, 80);
    site.prepare_servers(&Plan::new(&[port], &site.servers).by(&[way]));
    let listen = SocketAddr::new(vip(way), 80);
    let [a, b] = [webs[0].addr(), webs[1].addr()];
    // the very shape of its example file
    let config = format!(
        r#"[stats]
port = "3000"

[passthrough]
connection_tracker_capacity = 10000
workers = 2
stats_update_frequency = 5

[frontends]
  [frontends.tcp_80]
  listen_addr = "{listen}"
  backend = "tcp_80"

[backends]
  [backends.tcp_80]
  health_check_interval = 1

    [backends.tcp_80.servers]
      [backends.tcp_80.servers.server1]
      addr = "{a}"
      weight = 10

      [backends.tcp_80.servers.server2]
      addr = "{b}"
      weight = 10
"#
    );
    let mut convey = Convey::launch_as(&site.lb, &config, &["env"], &[flag]);
    convey.wait_ready();
    let answers = site.client.run(&format!(
        "for i in $(seq 20); do curl -sf --max-time 60 http://{listen}/; done"
    ));
    assert!(
        answers.len() == 20 && answers.contains('a') && answers.contains('b'),
        "{answers}"
    );
    assert_eq!(
        convey.status().frontends["tcp_80"].mode.to_string(),
        way.0.label()
    );
    let stats = site.lb.run("curl -sf --max-time 60 http://127.0.0.1:3000/stats");
    assert!(stats.contains("tcp_80"), "{stats}");
    convey.signal(Signal::SIGTERM);
    convey.wait_exit(PATIENCE);
    expect_nothing_left(&site.lb);
}
