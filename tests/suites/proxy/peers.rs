//! Peers that vanish without a word, and peers that take nothing.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
    os::fd::AsRawFd as _,
};

use convey::base::TerminationReason;

use crate::{
    Test,
    lab::{Convey, Host, Lab, PATIENCE, servers::TcpServer, wait_until},
    site::{NO_CHECK, backend, frontend, read_line},
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    a_client_that_has_vanished_is_found_and_the_server_is_told,
    a_server_that_has_vanished_is_found_and_the_client_is_told,
    without_keep_alive_nobody_is_looked_for,
    probes_are_on_by_default_and_cost_a_short_connection_nothing,
    probes_do_not_put_off_the_idle_time_out,
    a_reload_changes_the_probes_of_new_connections,
    pipes_of_clients_that_take_nothing_go_back_and_nothing_is_lost,
    memory_of_a_crowd_that_took_nothing_goes_back,
];

const PORT: u16 = 9;

/// Found within three seconds of silence.
const QUICK: &str = "{ idle = \"1s\", interval = \"1s\", count = 2 }";

const OFF: &str = "{ enabled = false }";

/// A client, a load balancer and a server that names itself, with probes of both sides as said.
struct Peers {
    convey: Convey,
    client: Host,
    lb: Host,
    server: Host,
    _named: TcpServer,
    lab: Lab,
}

fn config(lb: &Host, server: &Host, settings: &str, clients: &str, servers: &str) -> String {
    let keys = |side: &str, probes: &str| match probes {
        "" => String::new(),
        probes => format!("{side}_keepalive = {probes}\n"),
    };
    frontend(
        "f",
        lb.addr(PORT),
        "b",
        &format!("{settings}\n{}", keys("client", clients)),
    ) + &backend(
        "b",
        &format!("{NO_CHECK}\n{}", keys("server", servers)),
        &[("s", server.addr(PORT), "")],
    )
}

impl Peers {
    fn new(name: &str, settings: &str, clients: &str, servers: &str) -> Self {
        let lab = Lab::new(name);
        let (client, lb, server) = (lab.host("client"), lab.host("lb"), lab.host("server"));
        let named = TcpServer::named(&server, PORT, "s");
        let convey = lab.convey(&lb, &config(&lb, &server, settings, clients, servers));
        Self {
            convey,
            client,
            lb,
            server,
            _named: named,
            lab,
        }
    }

    /// A connection that has met the server.
    #[track_caller]
    fn connect(&self) -> TcpStream {
        let mut stream = self.client.connect(self.lb.addr(PORT));
        assert_eq!(read_line(&mut stream).expect("the greeting"), "s");
        stream
    }

    #[track_caller]
    fn wait_ended(&self, reason: TerminationReason) {
        self.convey.wait_status(reason.label(), |status| {
            status.frontends["f"].traffic.ended(reason) == 1
        });
        let traffic = self.convey.server("b", "s").traffic;
        assert_eq!(traffic.ended(reason), 1, "{traffic:?}");
    }

    /// The timers of the established connections with a host, as ss(8) shows them.
    fn timers(&self, peer: &Host) -> Vec<String> {
        let found = self
            .lb
            .run(&format!("ss -Htno state established dst {}", peer.ip4()));
        let timers = found.lines().map(|line| {
            let timer = line.split_once("timer:(").map_or("", |(_, timer)| timer);
            timer.split(',').next().unwrap_or_default().to_owned()
        });
        timers.collect()
    }
}

fn a_client_that_has_vanished_is_found_and_the_server_is_told() {
    let peers = Peers::new("lostclient", "", QUICK, OFF);
    let stream = peers.connect();
    peers.lab.unplug(&peers.client);
    peers.wait_ended(TerminationReason::ClientLost);
    wait_until("the log says why", PATIENCE, || {
        peers.convey.stderr().contains(" CD ")
    });
    // the server's end of the connection is gone
    wait_until("the server is told", PATIENCE, || {
        (peers.server.run("ss -Htn state established")).trim().is_empty()
    });
    drop(stream);
}

fn a_server_that_has_vanished_is_found_and_the_client_is_told() {
    let peers = Peers::new("lostserver", "", OFF, QUICK);
    let mut stream = peers.connect();
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    peers.lab.unplug(&peers.server);
    let error = stream.read(&mut [0]).expect_err("a reset");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
    peers.wait_ended(TerminationReason::ServerLost);
}

fn without_keep_alive_nobody_is_looked_for() {
    let peers = Peers::new("nobody", "idle_timeout = \"6s\"", OFF, OFF);
    let _stream = peers.connect();
    assert_eq!(peers.timers(&peers.client), [""]);
    peers.lab.unplug(&peers.client);
    // only the idle time-out ends it, after twice the time that probes took
    peers.wait_ended(TerminationReason::ClientTimeout);
}

fn probes_are_on_by_default_and_cost_a_short_connection_nothing() {
    let peers = Peers::new("probes", "", "", "{ idle = \"3s\" }");
    let _stream = peers.connect();
    // the client's from its listener, the server's not before the connection has been idle
    assert_eq!(peers.timers(&peers.client), ["keepalive"]);
    assert_eq!(peers.timers(&peers.server), [""]);
    wait_until("the server's connection is probed", PATIENCE, || {
        peers.timers(&peers.server) == ["keepalive"]
    });
    let younger = peers.connect();
    let mut timers = peers.timers(&peers.server);
    timers.sort();
    assert_eq!(timers, ["", "keepalive"]);
    drop(younger);
}

fn probes_do_not_put_off_the_idle_time_out() {
    let peers = Peers::new("idleprobes", "idle_timeout = \"4s\"", QUICK, QUICK);
    let _stream = peers.connect();
    peers.wait_ended(TerminationReason::ClientTimeout);
}

fn a_reload_changes_the_probes_of_new_connections() {
    let peers = Peers::new("newprobes", "", "", "");
    let _older = peers.connect();
    let without = config(&peers.lb, &peers.server, "", OFF, "");
    peers.convey.reload(&without);
    // a listener takes the change up with the first connection that it accepts
    let mut younger = Vec::new();
    wait_until("one that is not probed", PATIENCE, || {
        younger.push(peers.connect());
        peers.timers(&peers.client).contains(&String::new())
    });
    assert!(
        peers.timers(&peers.client).contains(&"keepalive".to_owned()),
        "the older one"
    );
}

/// A server whose connections all get the same megabytes.
fn generous(host: &Host, megabytes: usize) -> TcpServer {
    TcpServer::start(host, PORT, move |mut stream| {
        let part: Vec<u8> = (0..1_u32 << 20)
            .map(|n| (n.wrapping_mul(31) >> 3) as u8)
            .collect();
        for _ in 0..megabytes {
            stream.write_all(&part)?;
        }
        stream.shutdown(Shutdown::Write)?;
        // the client has all before this is closed
        while stream.read(&mut [0])? > 0 {}
        Ok(())
    })
}

/// Pipes that the daemon has open; two descriptors are one.
fn pipes(convey: &Convey) -> usize {
    let fds = fs::read_dir(format!("/proc/{}/fd", convey.pid())).expect("the daemon's descriptors");
    let is_pipe = |fd: &fs::DirEntry| {
        fs::read_link(fd.path()).is_ok_and(|to| to.to_string_lossy().starts_with("pipe:"))
    };
    fds.flatten().filter(is_pipe).count() / 2
}

/// Clients that ask for much and read nothing, and the daemon before their server.
fn crowd(name: &str, clients: usize, megabytes: usize) -> (Convey, Vec<TcpStream>, TcpServer, Lab) {
    let lab = Lab::new(name);
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    let server = generous(&host, megabytes);
    let config = "[global]\nworkers = 1\nwatch_config = false\n".to_owned()
        + &frontend("f", lb.addr(PORT), "b", "access_log = \"errors\"")
        + &backend("b", NO_CHECK, &[("s", server.addr(), "")]);
    let convey = lab.convey(&lb, &config);
    let streams = (0..clients)
        .map(|_| client.connect(lb.addr(PORT)))
        .collect::<Vec<_>>();
    convey.wait_status("all are connected", |status| {
        status.backends["b"].servers["s"].traffic.connections_current == clients as u64
    });
    (convey, streams, server, lab)
}

/// Whether the daemon's bytes towards clients have come to rest: the same in two looks with a request between them.
fn wait_rest(convey: &Convey) {
    let mut last = 0;
    let mut same = 0;
    wait_until("nothing moves any more", PATIENCE, || {
        let now = convey.traffic("f").bytes_out;
        same = if now == last && now > 0 { same + 1 } else { 0 };
        last = now;
        same > 20
    });
}

fn pipes_of_clients_that_take_nothing_go_back_and_nothing_is_lost() {
    let clients = 40;
    let (convey, streams, _server, _lab) = crowd("pipes", clients, 12);
    wait_rest(&convey);
    // spare ones are kept for whoever comes
    wait_until("their pipes are free", PATIENCE, || pipes(&convey) <= 16);
    assert_eq!(convey.traffic("f").connections_current, clients as u64);
    for mut stream in streams {
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        let mut all = Vec::new();
        stream.read_to_end(&mut all).expect("all of it");
        assert_eq!(all.len(), 12 << 20, "of descriptor {}", stream.as_raw_fd());
        let wrong = (0_u32..).zip(&all).find(|(n, byte)| {
            let n = n & ((1 << 20) - 1);
            **byte != (n.wrapping_mul(31) >> 3) as u8
        });
        assert_eq!(wrong, None);
    }
    convey.wait_status("all have ended well", |status| {
        status.frontends["f"].traffic.ended(TerminationReason::Normal) == clients as u64
    });
    assert!(!convey.stderr().contains(" f b/s "), "none of them is logged");
}

fn memory_of_a_crowd_that_took_nothing_goes_back() {
    let clients = 300;
    let (convey, streams, _server, _lab) = crowd("crowdmemory", clients, 12);
    wait_rest(&convey);
    wait_until("their pipes are free", PATIENCE, || pipes(&convey) <= 256);
    let held = convey.private_memory();
    drop(streams);
    convey.wait_status("none is left", |status| {
        status.frontends["f"].traffic.connections_current == 0
    });
    wait_until("their memory has gone back", PATIENCE, || {
        eprintln!(
            "{clients} stuck clients: {held} bytes, then {}",
            convey.private_memory()
        );
        convey.private_memory() < 24 << 20
    });
}
