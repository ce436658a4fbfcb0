//! More clients than the limit of open files allows.

use std::net::TcpStream;

use convey::base::TerminationReason;

use crate::{
    Test,
    lab::{Convey, Host, Lab, PATIENCE, servers::TcpServer, wait_until},
    site::{NO_CHECK, backend, frontend, is_silent, read_line},
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    with_300_open_files_240_clients_are_all_served,
    with_60_open_files_240_clients_are_all_served,
    with_48_open_files_240_clients_are_all_served,
    the_status_answers_while_a_thousand_clients_sit_at_256_open_files,
    a_reload_adds_a_frontend_while_the_limit_is_reached,
];

const PORT: u16 = 9;

/// A daemon that may open so many files, before a server that names itself `s`.
struct Limited {
    convey: Convey,
    config: String,
    client: Host,
    lb: Host,
    _server: TcpServer,
    _lab: Lab,
}

impl Limited {
    fn new(name: &str, files: u32) -> Self {
        let lab = Lab::new(name);
        let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
        let server = TcpServer::named(&host, PORT, "s");
        let config =
            frontend("f", lb.addr(PORT), "b", "") + &backend("b", NO_CHECK, &[("s", server.addr(), "")]);
        let script = format!("ulimit -n {files} && exec \"$@\"");
        let mut convey = Convey::launch_with(&lb, &config, &["bash", "-c", &script, "limited"]);
        convey.wait_ready();
        Self {
            convey,
            config,
            client,
            lb,
            _server: server,
            _lab: lab,
        }
    }

    /// So many connections, more than the limit allows.
    #[track_caller]
    fn crowd(&self, clients: usize) -> Vec<TcpStream> {
        let streams = (0..clients).map(|_| self.client.connect(self.lb.addr(PORT)));
        let streams = streams.collect();
        self.convey.wait_status("the limit is reached", |status| {
            let proxied = status.proxied_connections;
            assert!(
                usize::try_from(proxied.most).is_ok_and(|most| most < clients),
                "{proxied:?}"
            );
            proxied.open == proxied.most && proxied.accept_pauses > 0
        });
        streams
    }

    /// Every connection is greeted by the server, in whatever order, and leaves its place to another.
    #[track_caller]
    fn expect_all_served(&self, mut streams: Vec<TcpStream>) {
        let clients = u64::try_from(streams.len()).expect("a number");
        wait_until("all are served", PATIENCE, || {
            streams.retain_mut(|stream| {
                let waits = is_silent(stream);
                if !waits {
                    assert_eq!(read_line(stream).expect("the greeting"), "s");
                }
                waits
            });
            streams.is_empty()
        });
        self.convey.wait_status("all have ended", |status| {
            status.frontends["f"].traffic.ended(TerminationReason::Normal) == clients
        });
        let status = self.convey.status();
        let frontend = &status.frontends["f"];
        assert_eq!(frontend.traffic.connections_total, clients);
        assert_eq!((frontend.accept_errors, status.proxied_connections.open), (0, 0));
        assert_eq!(status.last_reload_error, None);
    }
}

fn expect_all_of_240_served(name: &str, files: u32) {
    let limited = Limited::new(name, files);
    let clients = limited.crowd(240);
    limited.expect_all_served(clients);
    let log = limited.convey.stderr();
    let most = limited.convey.status().proxied_connections.most;
    let said = format!("all {most} connections that {files} open files allow are in use");
    // once, although there were many pauses
    assert_eq!(log.matches(&said).count(), 1, "{log}");
    assert!(log.contains("LimitNOFILE="), "{log}");
}

fn with_300_open_files_240_clients_are_all_served() {
    expect_all_of_240_served("files300", 300);
}

fn with_60_open_files_240_clients_are_all_served() {
    expect_all_of_240_served("files60", 60);
}

fn with_48_open_files_240_clients_are_all_served() {
    expect_all_of_240_served("files48", 48);
}

fn the_status_answers_while_a_thousand_clients_sit_at_256_open_files() {
    let limited = Limited::new("files256", 256);
    let clients = limited.crowd(1_000);
    let proxied = limited.convey.status().proxied_connections;
    assert_eq!(proxied.open, proxied.most);
    let listed = limited.convey.connections();
    assert_eq!(u32::try_from(listed.total), Ok(proxied.most));
    limited.expect_all_served(clients);
}

fn a_reload_adds_a_frontend_while_the_limit_is_reached() {
    let limited = Limited::new("filesreload", 300);
    let clients = limited.crowd(240);
    let more = frontend("more", limited.lb.addr(PORT + 1), "b", "");
    limited.convey.reload(&(limited.config.clone() + &more));
    limited.expect_all_served(clients);
    let mut another = limited.client.connect(limited.lb.addr(PORT + 1));
    assert_eq!(read_line(&mut another).expect("the greeting"), "s");
}
