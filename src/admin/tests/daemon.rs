//! An endpoint before a control loop that only plays its part.

use std::{
    io::{self, Write},
    path::PathBuf,
    sync::{Arc, Mutex, mpsc as std_mpsc},
    thread::JoinHandle,
};

use tokio::sync::{mpsc, oneshot};

use crate::{
    admin::{Command, bind_socket, http::Limits, packets, routes::serve_within, views},
    base::{BackendState, ServerState},
};

/// How the control loop that is played behaves.
#[derive(Clone, Copy)]
pub enum Loop {
    /// Answers everything.
    Answers,
    /// Takes nothing from its queue of one.
    Stuck,
}

/// What the control loop was asked, in words.
type Heard = std_mpsc::Receiver<String>;

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

/// An endpoint on a thread of its own.
pub struct Daemon {
    pub path: PathBuf,
    heard: Heard,
    pub log: Log,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<u64>>,
    _directory: tempfile::TempDir,
}

impl Daemon {
    pub fn start(behaviour: Loop, limits: Limits) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("admin.sock");
        let (listener, file) = bind_socket(&path, None).expect("bind");
        let (stop, stopped) = oneshot::channel();
        let (tell, heard) = std_mpsc::channel();
        let log = Log::default();
        let written = log.clone();
        let thread = std::thread::spawn(move || {
            let subscriber = tracing_subscriber::fmt()
                .with_ansi(false)
                .with_writer(move || written.clone())
                .finish();
            let _logging = tracing::subscriber::set_default(subscriber);
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            let _file = file;
            runtime.block_on(async {
                let (commands, queue) = mpsc::channel(1);
                let endpoint = serve_within(listener, commands, limits).expect("serve");
                match behaviour {
                    Loop::Answers => drop(tokio::spawn(answer(queue, tell))),
                    Loop::Stuck => std::mem::forget(queue),
                }
                let _ = stopped.await;
                endpoint.refused()
            })
        });
        Self {
            path,
            heard,
            log,
            stop: Some(stop),
            thread: Some(thread),
            _directory: directory,
        }
    }

    pub fn heard(&self) -> String {
        self.heard
            .recv_timeout(crate::PATIENCE)
            .expect("the control loop was asked")
    }

    /// Ends it; connections that it turned away.
    pub fn refused(mut self) -> u64 {
        self.end()
    }

    fn end(&mut self) -> u64 {
        drop(self.stop.take());
        self.thread
            .take()
            .map_or(0, |thread| thread.join().expect("the endpoint's thread"))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.end();
    }
}

async fn answer(mut queue: mpsc::Receiver<Command>, tell: std_mpsc::Sender<String>) {
    while let Some(command) = queue.recv().await {
        // a test that has ended does not listen any more, nor do the requests that it left
        match command {
            Command::Status { reply } => {
                let _ = tell.send("status".into());
                let _ = reply.send(state());
            }
            Command::Reload { reply } => {
                let _ = tell.send("reload".into());
                let _ = reply.send(Err(views::ReloadFailed {
                    message: "convey.toml:3:1: unknown key".into(),
                    config_error: true,
                }));
            }
            Command::Server {
                backend,
                server,
                request,
                reply,
            } => {
                let force = if request.force { ", forced" } else { "" };
                let _ = tell.send(format!("{}{force} of {server:?} in {backend:?}", request.action));
                let _ = reply.send(Ok(one_server()));
            }
            Command::Connections { filter, reply } => {
                let _ = tell.send(format!("{filter:?}"));
                let _ = reply.send(views::Connections::default());
            }
            Command::Explain { tuple, reply } => {
                let _ = tell.send(format!("{} {} {}", tuple.protocol, tuple.client, tuple.vip));
                let nothing = crate::snapshot::Snapshot::default();
                let _ = reply.send(packets::explanation(&nothing, &tuple, None, &[].into()));
            }
            Command::BackendScript {
                frontend,
                server,
                reply,
            } => {
                let _ = tell.send(format!("script for {server:?} of {frontend:?}"));
                let _ = reply.send(Ok("#!/bin/sh\n".into()));
            }
        }
    }
}

pub fn one_server() -> views::Server {
    views::Server {
        addr: "10.0.0.1:80".into(),
        state: ServerState::Up,
        state_seconds: None,
        state_reason: None,
        eligible: true,
        weight: 1,
        configured_weight: 1,
        effective_percent: 100,
        priority: 1,
        max_connections: None,
        overridden: None,
        traffic: views::Traffic::default(),
    }
}

pub fn state() -> views::Status {
    let backend = views::Backend {
        balance: "round_robin".into(),
        state: BackendState::Up,
        eligible: 1,
        queued: 0,
        traffic: views::Traffic::default(),
        servers: [("größe 1/2".to_owned(), one_server())].into(),
    };
    views::Status {
        version: "1".into(),
        pid: 1,
        uptime_seconds: 1.0,
        phase: "running".into(),
        config_file: "convey.toml".into(),
        config_generation: 1,
        snapshot_generation: 1,
        last_reload_error: None,
        needs_restart: vec![],
        workers: 1,
        proxied_connections: views::ProxiedConnections::default(),
        log_events_dropped: 0,
        admin_connections_refused: 0,
        frontends: [].into(),
        backends: [("web %41".to_owned(), backend)].into(),
        packet: None,
    }
}
