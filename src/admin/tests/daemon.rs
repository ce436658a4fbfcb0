//! The admin thread with a status and counters that are made up, before a control loop that only plays its part.

use std::{
    future::{pending, ready},
    io::{self, Write},
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::{Arc, Condvar, LazyLock, Mutex, mpsc as std_mpsc},
    time::{Instant, SystemTime},
};

use arc_swap::ArcSwap;
use axum::http::StatusCode;
use tokio::sync::mpsc;

use crate::{
    admin::{
        AdminCommand, AdminThread, EventLog, HttpListener, Live, SocketFile, Status, bind_socket,
        http::HttpLimits,
        lookup, render,
        status::{Closing, ConfigInEffect, Listed, Listing, Network, PacketCounts, PacketStatus, Waiting},
        views::{self, ConnectionFilter, Phase, Problem},
    },
    config::{self, EngineChoice, Options, Source},
    flow::{self, FiveTuple, FlowInfo},
    pools::Pools,
    snapshot::{Builder, FrontendView, Snapshot},
};

/// Names with all that paths and queries must encode.
const SITE: &str = r#"
    [frontends."f 1"]
    listen_addr = "192.0.2.1:80"
    backend = "web %41"
    [backends."web %41"]
    health_check.enabled = false
    servers."größe 1/2" = { addr = "10.0.0.1:80" }
"#;

/// How the control loop that is played behaves.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Loop {
    /// Answers everything.
    Answers,
    /// Takes nothing from its queue of one.
    Stuck,
}

/// What was logged.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("the log").clone()).expect("UTF-8")
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("the log").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sources {
    /// Of nobody who listens.
    pub fn unheard() -> Self {
        let (tell, _) = std_mpsc::channel();
        Self {
            tell: Mutex::new(tell),
            stuck_workers: Mutex::default(),
            may_walk: Mutex::new(true),
            walk: Condvar::new(),
        }
    }
}

/// Says what it was asked; walks through its flows only while it may.
pub struct Sources {
    tell: Mutex<std_mpsc::Sender<String>>,
    stuck_workers: Mutex<bool>,
    may_walk: Mutex<bool>,
    walk: Condvar,
}

impl Sources {
    fn tell(&self, what: String) {
        // a test that has ended does not listen any more
        let _ = self.tell.lock().expect("the sender").send(what);
    }

    /// Lets walks go on, or keeps them.
    pub fn may_walk(&self, may: bool) {
        *self.may_walk.lock().expect("the lock") = may;
        self.walk.notify_all();
    }

    /// Workers answer nothing any more.
    pub fn workers_are_stuck(&self) {
        *self.stuck_workers.lock().expect("the lock") = true;
    }
}

impl Live for Sources {
    fn log_outputs(&self) -> Vec<views::LogOutput> {
        Vec::new()
    }

    fn otlp(&self) -> Vec<views::OtlpExport> {
        Vec::new()
    }

    fn events(&self) -> &Arc<EventLog> {
        static EVENTS: LazyLock<Arc<EventLog>> =
            LazyLock::new(|| Arc::new(EventLog::new(SystemTime::UNIX_EPOCH)));
        &EVENTS
    }

    fn log_events_dropped(&self) -> u64 {
        3
    }

    fn proxied_connections(&self) -> views::ProxiedConnections {
        views::ProxiedConnections::default()
    }

    fn packet_counts(&self) -> PacketCounts {
        PacketCounts::default()
    }

    fn explain(&self, tuple: &FiveTuple) -> Option<flow::Explanation> {
        self.tell(format!("{} {} {}", tuple.protocol, tuple.client, tuple.vip));
        None
    }

    fn connections(&self, filter: Arc<ConnectionFilter>, limit: usize) -> Listing {
        self.tell(format!("{filter:?}, at most {limit}"));
        if *self.stuck_workers.lock().expect("the lock") {
            return Box::pin(pending());
        }
        Box::pin(ready((0, Vec::new())))
    }

    fn close(&self, filter: Arc<ConnectionFilter>) -> Closing {
        self.tell(format!("close {filter}"));
        Box::pin(ready(2))
    }

    fn close_flows(&self, _wanted: &dyn Fn(&FlowInfo) -> bool) -> usize {
        0
    }

    fn revisions(&self) -> Vec<views::Revision> {
        Vec::new()
    }

    fn revision(&self, _number: u64) -> Option<io::Result<Vec<u8>>> {
        None
    }

    fn flows(&self, _wanted: &dyn Fn(&FlowInfo) -> bool, _limit: usize) -> Listed<FlowInfo> {
        self.tell("a walk".into());
        let may = self.may_walk.lock().expect("the lock");
        let waited = self.walk.wait_timeout_while(may, crate::PATIENCE, |may| !*may);
        assert!(
            !waited.expect("the lock").1.timed_out(),
            "nobody lets the walk go on"
        );
        (7, Vec::new())
    }

    fn backend_script(&self, frontend: &FrontendView, server: &str) -> Result<String, String> {
        self.tell(format!("script for {server:?} of {:?}", frontend.config.name));
        match server {
            "größe 1/2" => Ok("#!/bin/sh\n".into()),
            other => Err(format!("no {other}")),
        }
    }
}

/// The endpoints on their thread.
pub struct Daemon {
    pub path: PathBuf,
    pub log: Log,
    pub live: Arc<Sources>,
    pub status: Arc<ArcSwap<Status>>,
    heard: std_mpsc::Receiver<String>,
    control: Option<HttpListener>,
    thread: Option<AdminThread>,
    /// Kept by a loop that is stuck.
    _queue: Option<mpsc::Receiver<AdminCommand>>,
    _file: SocketFile,
    _directory: tempfile::TempDir,
}

impl Daemon {
    pub fn start(behaviour: Loop, limits: HttpLimits) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("admin.sock");
        let (listener, file) = bind_socket(&path, None).expect("bind");
        let (tell, heard) = std_mpsc::channel();
        let live = Arc::new(Sources {
            tell: Mutex::new(tell.clone()),
            stuck_workers: Mutex::new(false),
            may_walk: Mutex::new(true),
            walk: Condvar::new(),
        });
        let status = Arc::new(ArcSwap::from_pointee(running()));
        let (commands, queue) = mpsc::channel(1);
        let thread = AdminThread::start(Arc::clone(&status), Arc::clone(&live) as _, commands, None)
            .expect("the admin thread");
        let log = Log::default();
        let written = log.clone();
        thread.spawn(async move {
            let subscriber = tracing_subscriber::fmt()
                .with_ansi(false)
                .with_writer(move || written.clone())
                .finish();
            // for as long as the thread lives
            std::mem::forget(tracing::subscriber::set_default(subscriber));
        });
        let control = thread.serve_control_within(listener, limits).expect("serve");
        let queue = match behaviour {
            Loop::Answers => {
                std::thread::spawn(move || answer(queue, &tell));
                None
            }
            Loop::Stuck => Some(queue),
        };
        Self {
            path,
            log,
            live,
            status,
            heard,
            control: Some(control),
            thread: Some(thread),
            _queue: queue,
            _file: file,
            _directory: directory,
        }
    }

    /// What the control loop or the sources were asked next, in words.
    pub fn heard(&self) -> String {
        let heard = self.heard.recv_timeout(crate::PATIENCE);
        heard.expect("somebody was asked")
    }

    /// Publishes another status.
    pub fn publish(&self, change: impl FnOnce(&mut Status)) {
        let mut status = Status::clone(&self.status.load());
        change(&mut status);
        self.status.store(Arc::new(status));
    }

    /// Serves `/stats` on a free port until the guard is dropped.
    pub fn serve_stats(&self) -> (SocketAddr, HttpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("its address");
        let thread = self.thread.as_ref().expect("the thread");
        (address, thread.serve_stats(listener).expect("serve"))
    }

    /// Ends the control endpoint alone.
    pub fn end_control(&mut self) {
        self.control = None;
    }

    /// Ends the thread.
    pub fn end(&mut self) {
        self.thread = None;
    }
}

/// Plays the control loop until nobody can ask it any more.
fn answer(mut queue: mpsc::Receiver<AdminCommand>, tell: &std_mpsc::Sender<String>) {
    while let Some(command) = queue.blocking_recv() {
        // a test that has ended does not listen any more, nor do the requests that it left
        match command {
            AdminCommand::Reload { reply, .. } => {
                let _ = tell.send("reload".into());
                let _ = reply.send(Err(views::ReloadFailed {
                    message: "convey.toml:3:1: unknown key".into(),
                    config_error: true,
                }));
            }
            AdminCommand::AddServer { reply, .. } | AdminCommand::RemoveServer { reply, .. } => {
                let _ = reply.send(Err(lookup::usage("the servers are those of the file".to_owned())));
            }
            AdminCommand::CountCut { reply, .. } => {
                let _ = reply.send(views::WouldCut::default());
            }
            AdminCommand::WriteConfig { text, reply, .. } => {
                let _ = tell.send(format!("write {} bytes", text.len()));
                let _ = reply.send(Ok(()));
            }
            AdminCommand::ClearOverrides { reply, .. } => {
                let _ = tell.send("clear".into());
                let _ = reply.send(views::Overrides::default());
            }
            AdminCommand::Backend {
                backend,
                request,
                reply,
                ..
            } => {
                let _ = tell.send(format!("{} of all in {backend:?}", request.action));
                let _ = reply.send(Err(Problem::new(StatusCode::CONFLICT, "the last")));
            }
            AdminCommand::Renew { name, reply } => {
                let names = name.as_deref().unwrap_or("all");
                let _ = tell.send(format!("renew {names}"));
                let _ = reply.send(Ok(vec![names.to_owned()]));
            }
            AdminCommand::Server {
                backend,
                server,
                request,
                reply,
                ..
            } => {
                let force = if request.force { ", forced" } else { "" };
                let _ = tell.send(format!("{}{force} of {server:?} in {backend:?}", request.action));
                let snapshot = snapshot();
                let (_, server) = snapshot.servers().next().expect("a server");
                let _ = reply.send(Ok(render::state_of(server, Instant::now())));
            }
        }
    }
}

fn snapshot() -> Arc<Snapshot> {
    let source = Source {
        name: "convey.toml".into(),
        bytes: SITE.into(),
    };
    let config = config::load(&source, Options::default())
        .expect("a good one")
        .config;
    let pools = Pools::of(&config);
    let mut builder = Builder::new(1, Arc::default());
    builder.config_changed(&config, config.backends.keys().cloned());
    builder.build(&config, &pools, Instant::now()).snapshot
}

fn running() -> Status {
    Status {
        started: Instant::now(),
        phase: Phase::Running,
        config_file: "convey.toml".into(),
        config_generation: 1,
        config: Arc::new(ConfigInEffect::new(
            Source {
                name: "convey.toml".to_owned(),
                bytes: SITE.into(),
            },
            Options::default(),
            true,
            Instant::now(),
        )),
        last_reload_error: None,
        needs_restart: vec![],
        workers: 1,
        snapshot: snapshot(),
        waiting: Waiting::new(),
        discovery: Arc::default(),
        acme: Arc::default(),
        packet: None,
    }
}

/// An engine that runs and serves nothing yet.
pub fn engine() -> PacketStatus {
    PacketStatus {
        engine: EngineChoice::Raw,
        engine_reason: "configured".into(),
        xdp: std::collections::BTreeMap::new(),
        workers: 1,
        interfaces: vec![],
        network: Arc::new(Network::default()),
        rules: crate::admin::status::RulesStatus::default(),
        alerts: Arc::default(),
    }
}
