//! A restart under a service manager that keeps the listeners: no client is refused (DESIGN §4, Restart).

use std::{
    io::{self, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::JoinHandle,
};

use nix::sys::signal::{Signal, kill};

use crate::{
    Test,
    lab::{Convey, Host, Lab, PATIENCE, servers::TcpServer, wait_until},
    site::{FAST_CHECK, backend, expect_end, frontend, read_line, silent_server},
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    no_client_is_refused_or_cut_while_convey_is_restarted,
    no_client_is_refused_while_a_killed_convey_is_away,
    connections_are_accepted_while_older_ones_are_waited_for,
    a_process_without_old_connections_leaves_at_once,
    a_connection_accepted_while_stopping_does_not_keep_others_waiting_for_long,
    no_client_is_cut_by_a_process_that_has_no_time_to_end,
    listeners_are_kept_before_the_servers_have_been_checked,
    a_start_ends_with_its_broker,
    another_number_of_workers_takes_all_listeners_over,
    listeners_are_taken_over_from_another_version_whatever_it_called_them,
    a_frontend_that_is_gone_after_a_restart_listens_no_more,
    a_removed_frontend_is_kept_no_longer,
    what_is_no_listener_of_ours_is_kept_no_longer,
];

/// Who has such a time is waited for: a test ends sooner only if nobody is.
const NEVER: &str = "shutdown_timeout = \"1h\"";

/// One echo server that says its name, and Convey before it, whose listeners are kept.
struct Stage {
    convey: Convey,
    client: Host,
    server: TcpServer,
    lab: Lab,
}

impl Stage {
    fn new(name: &str, global: &str) -> Self {
        let lab = Lab::new(name);
        let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
        let server = TcpServer::named(&host, 9, "s");
        let config = config(lb.addr(9), server.addr(), global);
        let mut convey = Convey::launch_with(&lb, &config, &["env", Convey::FD_STORE]);
        convey.wait_ready();
        Self {
            convey,
            client,
            server,
            lab,
        }
    }

    fn addr(&self) -> SocketAddr {
        self.convey.host().addr(9)
    }

    fn config(&self, global: &str) -> String {
        config(self.addr(), self.server.addr(), global)
    }

    /// SIGTERM; returns when the stop has begun.
    fn begin_stop(&self) {
        self.convey.signal(Signal::SIGTERM);
        let notify = self.convey.notify();
        assert!(notify.wait_for("STOPPING=1", 0, PATIENCE, || false));
    }

    /// `systemctl restart`. Nobody is there until one of these clients has come to wait; all of them must be served
    /// after it.
    fn restart(&mut self, global: &str, storms: &[Storm]) {
        self.convey.signal(Signal::SIGTERM);
        let status = self.convey.wait_exit(PATIENCE);
        assert!(status.success(), "{status}");
        self.start_again(global, storms);
    }

    fn start_again(&mut self, global: &str, storms: &[Storm]) {
        if !storms.is_empty() {
            wait_until("a client waits", PATIENCE, || {
                let listeners = self.convey.host().run("ss -Htln sport = :9");
                // state, queue
                let mut queues = listeners
                    .lines()
                    .filter_map(|line| line.split_whitespace().nth(1));
                queues.any(|queue| queue != "0")
            });
        }
        self.convey.start_again(&self.config(global));
        storms.iter().for_each(Storm::goes_on);
    }
}

fn config(listen: SocketAddr, server: SocketAddr, global: &str) -> String {
    format!("[global]\nwatch_config = false\n{global}\n")
        + &frontend("f", listen, "b", "")
        + &backend("b", FAST_CHECK, &[("s", server, "")])
}

/// A client that makes connections all the time, each of which is greeted and says a word.
struct Storm {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicU32>,
    failed: Arc<Mutex<Vec<io::Error>>>,
    thread: JoinHandle<()>,
}

impl Storm {
    fn start(client: &Host, to: SocketAddr) -> Self {
        let (stop, served) = (Arc::<AtomicBool>::default(), Arc::<AtomicU32>::default());
        let failed = Arc::<Mutex<Vec<io::Error>>>::default();
        let thread = {
            let (stop, served, failed) = (Arc::clone(&stop), Arc::clone(&served), Arc::clone(&failed));
            client.thread(move || {
                while !stop.load(Ordering::Relaxed) {
                    match visit(to) {
                        Ok(()) => _ = served.fetch_add(1, Ordering::Relaxed),
                        Err(error) => failed.lock().expect("failures").push(error),
                    }
                }
            })
        };
        let storm = Self {
            stop,
            served,
            failed,
            thread,
        };
        storm.goes_on();
        storm
    }

    fn goes_on(&self) {
        let before = self.served.load(Ordering::Relaxed);
        wait_until("the storm goes on", PATIENCE, || {
            self.served.load(Ordering::Relaxed) > before + 20
        });
    }

    fn end(self) -> Vec<io::Error> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the storm's thread");
        std::mem::take(&mut *self.failed.lock().expect("failures"))
    }

    #[track_caller]
    fn ends_without_failure(self) {
        let failed = self.end();
        assert!(failed.is_empty(), "{} failed: {:?}", failed.len(), failed[0]);
    }
}

fn visit(to: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    if read_line(&mut stream)? != "s" {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    stream.write_all(b"word\n")?;
    match read_line(&mut stream)?.as_str() {
        "word" => Ok(()),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn no_client_is_refused_or_cut_while_convey_is_restarted() {
    let global = "shutdown_timeout = \"2s\"";
    let mut stage = Stage::new("restart", global);
    let mut kept = stage.client.connect(stage.addr());
    assert_eq!(read_line(&mut kept).expect("the greeting"), "s");
    let storms = [0, 1, 2, 3].map(|_| Storm::start(&stage.client, stage.addr()));
    for _ in 0..3 {
        stage.restart(global, &storms);
    }
    storms.into_iter().for_each(Storm::ends_without_failure);
    expect_end(&mut kept);
}

fn no_client_is_refused_while_a_killed_convey_is_away() {
    let mut stage = Stage::new("killed", "");
    let storms = [0, 1, 2, 3].map(|_| Storm::start(&stage.client, stage.addr()));
    for _ in 0..3 {
        stage.convey.signal(Signal::SIGKILL);
        stage.convey.wait_exit(PATIENCE);
        stage.start_again("", &storms);
    }
    for storm in storms {
        let failed = storm.end();
        // what the killed process had in hand is lost: at most one connection of each client and kill
        assert!(failed.len() <= 3, "{} failed: {:?}", failed.len(), failed[0]);
        for error in failed {
            assert_ne!(error.kind(), io::ErrorKind::ConnectionRefused);
        }
    }
}

fn connections_are_accepted_while_older_ones_are_waited_for() {
    let mut stage = Stage::new("waiting", NEVER);
    let mut old = stage.client.connect(stage.addr());
    assert_eq!(read_line(&mut old).expect("the greeting"), "s");
    stage.begin_stop();
    let addr = stage.addr();
    for _ in 0..10 {
        stage.client.inside(|| visit(addr)).expect("served as before");
    }
    assert!(stage.convey.ended().is_none(), "it waits for the old connection");
    drop(old);
    let status = stage.convey.wait_exit(PATIENCE);
    assert!(status.success(), "{status}");
}

fn a_process_without_old_connections_leaves_at_once() {
    let mut stage = Stage::new("leaves", NEVER);
    let storms = [0, 1].map(|_| Storm::start(&stage.client, stage.addr()));
    // new connections do not keep it, or it would not end
    stage.restart("", &storms);
    storms.into_iter().for_each(Storm::ends_without_failure);
}

fn a_connection_accepted_while_stopping_does_not_keep_others_waiting_for_long() {
    let mut stage = Stage::new("starving", NEVER);
    let addr = stage.addr();
    let mut old = stage.client.connect(addr);
    assert_eq!(read_line(&mut old).expect("the greeting"), "s");
    stage.begin_stop();
    let mut newer = stage.client.connect(addr);
    assert_eq!(read_line(&mut newer).expect("the greeting"), "s");
    drop(old);
    // although `newer` stays open
    let status = stage.convey.wait_exit(PATIENCE);
    assert!(status.success(), "{status}");
}

fn no_client_is_cut_by_a_process_that_has_no_time_to_end() {
    let global = "shutdown_timeout = \"0s\"";
    let mut stage = Stage::new("no-time", global);
    let addr = stage.addr();
    for _ in 0..3 {
        // keeps the process at cutting for as long as it may
        let deaf: Vec<_> = (0..20).map(|_| stage.client.connect(addr)).collect();
        let storms = [0, 1, 2, 3].map(|_| Storm::start(&stage.client, addr));
        stage.restart(global, &storms);
        for storm in storms {
            let failed = storm.end();
            assert!(failed.len() <= 1, "more than what was open: {failed:?}");
        }
        drop(deaf);
    }
}

fn listeners_are_kept_before_the_servers_have_been_checked() {
    let mut stage = Stage::new("unchecked", "workers = 1");
    stage.convey.signal(Signal::SIGTERM);
    stage.convey.wait_exit(PATIENCE);
    let slow = silent_server(&stage.lab, stage.convey.host());
    let config = stage.config("workers = 4") + &backend("slow", "", &[("s", slow, "")]);
    let said = stage.convey.notify().assignments().len();
    stage.convey.launch_again(&config);
    stage.convey.wait_ready();
    assert_eq!(stage.convey.notify().kept().len(), 4);
    let said_since = &stage.convey.notify().assignments()[said..];
    let places = |what: &str| -> Vec<usize> {
        let said = said_since.iter().enumerate();
        said.filter(|(_, assignment)| *assignment == what)
            .map(|(place, _)| place)
            .collect()
    };
    // READY=1 comes when the first checks are over
    let (kept, ready) = (places("FDSTORE=1"), places("READY=1"));
    assert!(
        !kept.is_empty() && kept.iter().all(|place| *place < ready[0]),
        "{said_since:?}"
    );
    // or systemd would drop a socket of UDP in which an error waits
    assert_eq!(places("FDPOLL=0").len(), kept.len(), "{said_since:?}");
}

fn a_start_ends_with_its_broker() {
    let mut stage = Stage::new("brokerless", "");
    stage.convey.signal(Signal::SIGTERM);
    stage.convey.wait_exit(PATIENCE);
    let slow = silent_server(&stage.lab, stage.convey.host());
    let config = stage.config("") + &backend("slow", "", &[("s", slow, "")]);
    let said = stage.convey.notify().assignments().len();
    stage.convey.launch_again(&config);
    let notify = stage.convey.notify();
    assert!(
        notify.wait_for("FDSTORE=1", said, PATIENCE, || false),
        "it waits for the first checks"
    );
    kill(stage.convey.broker(), Signal::SIGKILL).expect("kill the broker");
    let status = stage.convey.wait_exit(PATIENCE);
    assert_eq!(status.code(), Some(70), "{}", stage.convey.stderr());
    let said = &stage.convey.notify().assignments()[said..];
    assert!(!said.iter().any(|assignment| assignment == "READY=1"), "{said:?}");
}

fn another_number_of_workers_takes_all_listeners_over() {
    let mut stage = Stage::new("workers", "workers = 3");
    assert_eq!(stage.convey.notify().kept().len(), 3);
    let storms = [0, 1, 2, 3].map(|_| Storm::start(&stage.client, stage.addr()));
    for (workers, sockets) in [(1, 3), (4, 4), (2, 4)] {
        stage.restart(&format!("workers = {workers}"), &storms);
        assert_eq!(stage.convey.notify().kept().len(), sockets);
    }
    storms.into_iter().for_each(Storm::ends_without_failure);
}

fn listeners_are_taken_over_from_another_version_whatever_it_called_them() {
    let mut stage = Stage::new("version", "workers = 2");
    let ours = stage.convey.notify().kept();
    let storms = [0, 1].map(|_| Storm::start(&stage.client, stage.addr()));
    stage
        .convey
        .notify()
        .rename_kept("listener tcp of another version");
    stage.restart("workers = 2", &storms);
    wait_until("they have today's names", PATIENCE, || {
        stage.convey.notify().kept() == ours
    });
    storms.into_iter().for_each(Storm::ends_without_failure);
}

fn a_frontend_that_is_gone_after_a_restart_listens_no_more() {
    let mut stage = Stage::new("gone", "workers = 2");
    let old = stage.addr();
    stage.convey.signal(Signal::SIGTERM);
    stage.convey.wait_exit(PATIENCE);
    let new = stage.convey.host().addr(10);
    stage
        .convey
        .start_again(&config(new, stage.server.addr(), "workers = 2"));
    stage.client.inside(|| visit(new)).expect("the new address");
    let refused = stage.client.try_connect(old).expect_err("the old address");
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    wait_until(
        "only the new ones are kept",
        PATIENCE,
        || matches!(stage.convey.notify().kept().as_slice(), [a, b] if a == b && a.ends_with("_10")),
    );
}

fn a_removed_frontend_is_kept_no_longer() {
    let stage = Stage::new("removed", "workers = 2");
    let more = frontend("g", stage.convey.host().addr(10), "b", "");
    stage.convey.reload(&(stage.config("workers = 2") + &more));
    let kept = || stage.convey.notify().kept().len();
    wait_until("both frontends are kept", PATIENCE, || kept() == 4);
    stage.convey.reload(&stage.config("workers = 2"));
    wait_until("one is kept", PATIENCE, || kept() == 2);
    let gone = stage.convey.host().addr(10);
    wait_until("it listens no more", PATIENCE, || {
        stage.client.try_connect(gone).is_err()
    });
    let addr = stage.addr();
    stage.client.inside(|| visit(addr)).expect("the other one");
}

fn what_is_no_listener_of_ours_is_kept_no_longer() {
    let mut stage = Stage::new("alien", "workers = 2");
    let (pipe, _end) = io::pipe().expect("a pipe");
    stage.convey.notify().keep("stranger", pipe.into());
    stage.restart("workers = 2", &[]);
    wait_until("it is forgotten", PATIENCE, || {
        stage.convey.notify().kept().len() == 2
    });
    let addr = stage.addr();
    stage.client.inside(|| visit(addr)).expect("served as before");
}
