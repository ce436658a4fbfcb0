//! Any bytes on a connection to the control endpoint or to `/stats`, however they come and whatever the client reads.
//!
//! ```text
//! byte 0   bit 0: /stats, else the control endpoint      bit 1: the client says when it has sent everything
//!          bit 2: it reads only when the server has ended      bits 3, 4: the control loop answers, is stuck, is gone
//! rest     what the client sends; 0xff is a pause of a second
//! ```
//! Seeds use the letters from `@` on as byte 0. Time is tokio's own, which jumps to the next timer when nothing else is
//! to be done: the connection ends within its bounds, and what was sent on it are whole HTTP answers and nothing else.

#![no_main]

use std::{future::ready, io, sync::Arc, sync::LazyLock, time::Duration};

use arc_swap::ArcSwap;
use convey::{
    admin::{
        AdminCommand, EventLog, Live, Status, fuzzing, lookup, render,
        status::{Closing, ConfigInEffect, Listed, Listing, PacketCounts},
        views::{self, ConnectionFilter, Phase},
    },
    base::{BackendName, ServerName},
    config::{self, Options, Source},
    flow::{self, FiveTuple, FlowInfo},
    pools::Pools,
    snapshot::{Builder, FrontendView},
};
use libfuzzer_sys::fuzz_target;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split},
    runtime,
    sync::mpsc,
    time::{Instant, sleep},
};

/// What a socket takes before somebody reads, in bytes.
const BUFFER: usize = 4 << 10;
/// A pause of the client.
const PAUSE: u8 = 0xff;

/// A status with a snapshot to count and to look for names in.
static STATUS: LazyLock<Arc<ArcSwap<Status>>> = LazyLock::new(|| {
    let source = Source {
        name: "convey.toml".to_owned(),
        bytes: include_bytes!("../../configs/mixed.toml").to_vec(),
    };
    let config = config::load(&source, Options::default())
        .expect("the shipped file loads")
        .config;
    let now = std::time::Instant::now();
    let mut pools = Pools::default();
    let mut builder = Builder::new(1, Arc::default());
    builder.config_changed(&config, pools.apply(&config));
    Arc::new(ArcSwap::from_pointee(Status {
        started: now,
        phase: Phase::Running,
        config_file: "convey.toml".into(),
        config_generation: 1,
        config: Arc::new(ConfigInEffect::new(
            Source {
                name: "convey.toml".to_owned(),
                bytes: include_bytes!("../../configs/mixed.toml").to_vec(),
            },
            Options::default(),
            true,
            now,
        )),
        last_reload_error: None,
        needs_restart: Vec::new(),
        workers: 1,
        snapshot: builder.build(&config, &pools, now).snapshot,
        waiting: std::collections::BTreeMap::new(),
        packet: None,
        discovery: Arc::default(),
        acme: Arc::default(),
    }))
});

/// Holds every question to what the endpoint promises of it.
struct Sources;

impl Live for Sources {
    fn log_outputs(&self) -> Vec<views::LogOutput> {
        Vec::new()
    }

    fn otlp(&self) -> Vec<views::OtlpExport> {
        Vec::new()
    }

    fn events(&self) -> &Arc<EventLog> {
        static EVENTS: LazyLock<Arc<EventLog>> =
            LazyLock::new(|| Arc::new(EventLog::new(std::time::SystemTime::UNIX_EPOCH)));
        &EVENTS
    }

    fn log_events_dropped(&self) -> u64 {
        0
    }

    fn proxied_connections(&self) -> views::ProxiedConnections {
        views::ProxiedConnections::default()
    }

    fn packet_counts(&self) -> PacketCounts {
        PacketCounts::default()
    }

    fn explain(&self, tuple: &FiveTuple) -> Option<flow::Explanation> {
        assert_eq!(tuple.client.0.is_ipv4(), tuple.vip.0.is_ipv4());
        None
    }

    fn connections(&self, _filter: Arc<ConnectionFilter>, limit: usize) -> Listing {
        assert!(limit <= 100_000, "{limit}");
        Box::pin(ready((0, Vec::new())))
    }

    fn close(&self, filter: Arc<ConnectionFilter>) -> Closing {
        assert!(!filter.is_empty(), "nobody closes all by accident");
        Box::pin(ready(0))
    }

    fn revisions(&self) -> Vec<views::Revision> {
        Vec::new()
    }

    fn revision(&self, _number: u64) -> Option<io::Result<Vec<u8>>> {
        None
    }

    fn flows(&self, _wanted: &dyn Fn(&FlowInfo) -> bool, _limit: usize) -> Listed<FlowInfo> {
        panic!("no engine runs");
    }

    fn backend_script(&self, frontend: &FrontendView, server: &str) -> Result<String, String> {
        let found = frontend.backend.server(server);
        (found.map(|_| "#!/bin/sh\n".to_owned())).ok_or_else(|| format!("no {server}"))
    }
}

#[derive(Clone, Copy)]
struct Client {
    wants_stats: bool,
    says_end: bool,
    reads_late: bool,
    control_loop: ControlLoop,
}

#[derive(Clone, Copy)]
enum ControlLoop {
    Answers,
    Stuck,
    Gone,
}

impl Client {
    fn of(byte: u8) -> Self {
        Self {
            wants_stats: byte & 1 != 0,
            says_end: byte & 2 != 0,
            reads_late: byte & 4 != 0,
            control_loop: match byte >> 3 & 3 {
                1 => ControlLoop::Stuck,
                2 => ControlLoop::Gone,
                _ => ControlLoop::Answers,
            },
        }
    }
}

fuzz_target!(init: LazyLock::force(&STATUS), |input: &[u8]| {
    let Some((first, sent)) = input.split_first() else { return };
    let client = Client::of(*first);
    let runtime = runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let (received, lived) = runtime.block_on(converse(client, sent));
    assert!(lived <= fuzzing::longest() + Duration::from_secs(1), "lived {lived:?}");
    check_answers(client, sent, &received);
});

/// What the client received, and how long the connection lived.
async fn converse(client: Client, sent: &[u8]) -> (Vec<u8>, Duration) {
    let (ours, theirs) = duplex(BUFFER);
    let begun = Instant::now();
    let server = tokio::spawn(serve(client, theirs));
    let (mut reading, mut writing) = split(ours);
    let ended = async {
        server.await.expect("the connection's task");
        begun.elapsed()
    };
    let write = async {
        for (index, part) in sent.split(|byte| *byte == PAUSE).enumerate() {
            if index > 0 {
                sleep(Duration::from_secs(1)).await;
            }
            if writing.write_all(part).await.is_err() {
                return;
            }
        }
        if client.says_end {
            // the server may have closed already
            let _ = writing.shutdown().await;
        }
    };
    let mut received = Vec::new();
    let lived = if client.reads_late {
        let lived = tokio::join!(ended, write).0;
        reading.read_to_end(&mut received).await.expect("what was sent");
        lived
    } else {
        let read = reading.read_to_end(&mut received);
        let (lived, (), read) = tokio::join!(ended, write, read);
        read.expect("what was sent");
        lived
    };
    (received, lived)
}

async fn serve(client: Client, stream: DuplexStream) {
    if client.wants_stats {
        fuzzing::serve_stats(stream, Arc::clone(&STATUS), Arc::new(Sources)).await;
        return;
    }
    let (commands, queue) = mpsc::channel(1);
    let endpoint = fuzzing::serve_control(stream, Arc::clone(&STATUS), Arc::new(Sources), commands);
    match client.control_loop {
        ControlLoop::Answers => {
            let answering = tokio::spawn(answer(queue));
            endpoint.await;
            answering.await.expect("the control loop");
        }
        ControlLoop::Stuck => {
            endpoint.await;
            drop(queue);
        }
        ControlLoop::Gone => {
            drop(queue);
            endpoint.await;
        }
    }
}

/// The control loop: holds every command to what the endpoint promises of it. A client that has gone takes no reply.
async fn answer(mut queue: mpsc::Receiver<AdminCommand>) {
    while let Some(command) = queue.recv().await {
        match command {
            AdminCommand::Reload { reply, .. } => {
                let _ = reply.send(Err(views::ReloadFailed {
                    message: "convey.toml:3:1: unknown key".to_owned(),
                    config_error: true,
                }));
            }
            AdminCommand::Renew { reply, .. } => {
                let _ = reply.send(Ok(Vec::new()));
            }
            AdminCommand::AddServer { reply, .. } | AdminCommand::RemoveServer { reply, .. } => {
                let _ = reply.send(Err(lookup::usage("the servers are those of the file".to_owned())));
            }
            AdminCommand::CountCut { reply, .. } => {
                let _ = reply.send(views::WouldCut::default());
            }
            AdminCommand::WriteConfig { reply, .. } => {
                let _ = reply.send(Ok(()));
            }
            AdminCommand::ClearOverrides { reply, .. } => {
                let _ = reply.send(views::Overrides::default());
            }
            AdminCommand::Backend { backend, reply, .. } => {
                BackendName::new(&backend).expect("a name");
                let found = lookup::find_backend(&STATUS.load().snapshot, &backend).map(|_| ());
                let busy = || lookup::usage("it is the last".to_owned());
                let _ = reply.send(Err(found.err().unwrap_or_else(busy)));
            }
            AdminCommand::Server {
                backend,
                server,
                reply,
                ..
            } => {
                BackendName::new(&backend).expect("a name");
                ServerName::new(&server).expect("a name");
                let status = STATUS.load();
                let found = lookup::find_server(&status.snapshot, &backend, &server);
                let view = found.map(|(_, server)| render::state_of(server, std::time::Instant::now()));
                let _ = reply.send(view);
            }
        }
    }
}

/// What was received is nothing but whole HTTP answers, no more than there can have been requests.
fn check_answers(client: Client, sent: &[u8], received: &[u8]) {
    let mut rest = received;
    let mut answers = 0;
    while !rest.is_empty() {
        rest = check_answer(client, sent, rest);
        answers += 1;
    }
    // a request has at least two lines, and one that is none may be answered too
    let lines = sent.iter().filter(|byte| **byte == b'\n').count();
    assert!(answers <= lines / 2 + 1, "{answers} answers to {lines} lines");
}

/// Checks the first answer, and gives what follows it.
fn check_answer<'a>(client: Client, sent: &[u8], received: &'a [u8]) -> &'a [u8] {
    let Some(end) = find(received, b"\r\n\r\n") else {
        // its time was over in the middle of a header
        let begins = received
            .iter()
            .zip(b"HTTP/1.")
            .all(|(byte, wanted)| byte == wanted);
        assert!(client.reads_late && begins, "not an answer: {}", shown(received));
        return &[];
    };
    let (head, rest) = (&received[..end], &received[end + 4..]);
    let head = std::str::from_utf8(head).expect("a header in ASCII");
    let mut lines = head.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let status = first
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.get(2..5))
        .and_then(|digits| digits.parse::<u16>().ok())
        .unwrap_or_else(|| panic!("not an answer: {head}"));
    assert!(
        matches!(
            status,
            100 | 200 | 400 | 404 | 405 | 408 | 413 | 414 | 415 | 422 | 431 | 503 | 504
        ),
        "{head}"
    );
    let field = |name: &str| {
        head.split("\r\n").skip(1).find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    };
    if status == 100 {
        return rest;
    }
    assert_eq!(
        field("transfer-encoding"),
        None,
        "every answer says how long it is: {head}"
    );
    let len: usize = field("content-length").map_or(0, |len| len.parse().expect("a length"));
    // an answer to HEAD says the length of what is left out
    let is_head = find(sent, b"HEAD").is_some() && (rest.is_empty() || rest.starts_with(b"HTTP/1."));
    if is_head {
        return rest;
    }
    if client.reads_late && rest.len() < len {
        // its time was over before it had read everything
        return &[];
    }
    let (body, rest) = rest
        .split_at_checked(len)
        .unwrap_or_else(|| panic!("cut off: {}", shown(received)));
    if field("content-type") == Some("application/json") {
        check_json(status, body);
    } else {
        assert!(body.is_empty() || status == 200, "{}", shown(received));
    }
    rest
}

/// A body is JSON, and of an error one that repeats the status.
fn check_json(status: u16, body: &[u8]) {
    let value: serde_json::Value = serde_json::from_slice(body).unwrap_or_else(|_| panic!("{}", shown(body)));
    match status {
        200 => {}
        422 => assert!(value.get("config_error").is_some(), "{value}"),
        _ => assert_eq!(value.get("status"), Some(&status.into()), "{value}"),
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}
