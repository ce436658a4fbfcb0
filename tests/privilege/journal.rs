//! The log as journald gets it: a copy of this program, in a mount namespace where /run is empty, plays journald and
//! daemon at once.

use std::{
    env, fs,
    os::unix::{fs::MetadataExt, net::UnixDatagram},
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use convey::{
    base::{
        AccessRecord, BackendName, ClientAddr, FrontendName, ListenAddr, ListenPlace, PeerAddr, Protocol,
        Remote, ServerAddr, ServerName, TerminationReason,
    },
    config::{LogFormat, LogLevel},
    daemon::logging::Logging,
};
use libtest_mimic::Failed;

use crate::{PATIENCE, SCENARIO};

/// Runs the scenario with a standard error that says it is the journal's stream.
pub fn reaches_the_journal() -> Result<(), Failed> {
    let stderr = tempfile::NamedTempFile::new()?;
    let stream = stderr.as_file().metadata()?;
    let status = Command::new("unshare")
        .args(["--mount", "sh", "-ec", "mount -t tmpfs tmpfs /run; exec \"$0\""])
        .arg(env::current_exe()?)
        .env(SCENARIO, "journal")
        .env("JOURNAL_STREAM", format!("{}:{}", stream.dev(), stream.ino()))
        .stdin(Stdio::null())
        .stderr(stderr.reopen()?)
        .status()?;
    let said = fs::read_to_string(stderr.path())?;
    if status.success() && said.is_empty() {
        Ok(())
    } else {
        Err(format!("{status}: {said}").into())
    }
}

/// Plays journald and daemon.
pub fn scenario() {
    fs::create_dir_all("/run/systemd/journal").unwrap();
    let journald = UnixDatagram::bind("/run/systemd/journal/socket").unwrap();
    journald.set_read_timeout(Some(PATIENCE)).unwrap();

    let logging = Logging::start(LogLevel::Info, LogFormat::Json).unwrap();
    tracing::warn!(target: "convey::health", event = "server_state", backend = %"pool", server = %"a", "server down");
    logging.access_log().record(record());
    assert_eq!(
        receive(&journald),
        Vec::<String>::new(),
        "the empty datagram that tries the socket"
    );

    let event = receive(&journald);
    for line in [
        "PRIORITY=4",
        "MESSAGE=server down",
        "CONVEY_EVENT=server_state",
        "CONVEY_BACKEND=pool",
        "CONVEY_SERVER=a",
        "SYSLOG_IDENTIFIER=convey",
        "TARGET=convey::health",
    ] {
        assert!(event.iter().any(|found| found == line), "no {line} in {event:?}");
    }
    let access = receive(&journald);
    for line in [
        "PRIORITY=6",
        "CONVEY_EVENT=access",
        "CONVEY_FRONTEND=web",
        "CONVEY_SERVER=a",
        "CONVEY_REASON=server_abort",
        "CONVEY_CODE=SD",
        "CONVEY_BYTES_OUT=2",
    ] {
        assert!(
            access.iter().any(|found| found == line),
            "no {line} in {access:?}"
        );
    }
    assert!(
        access
            .iter()
            .any(|line| line.starts_with("MESSAGE=10.0.0.1:1234 [")),
        "{access:?}"
    );
    assert_eq!(logging.losses().count(), 0);
    logging.shutdown();
}

/// The fields of one datagram of the native protocol, as `NAME=VALUE`.
fn receive(journald: &UnixDatagram) -> Vec<String> {
    let mut buffer = vec![0; 65_536];
    let length = journald.recv(&mut buffer).unwrap();
    let mut rest = &buffer[..length];
    let mut fields = Vec::new();
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let (line, after) = (
            String::from_utf8_lossy(&rest[..end]).into_owned(),
            &rest[end + 1..],
        );
        if line.contains('=') {
            fields.push(line);
            rest = after;
        } else {
            // NAME, newline, length in 8 bytes, value, newline
            let (size, after) = after.split_at(8);
            let size = usize::try_from(u64::from_le_bytes(size.try_into().unwrap())).unwrap();
            fields.push(format!("{line}={}", String::from_utf8_lossy(&after[..size])));
            rest = &after[size + 1..];
        }
    }
    fields
}

fn record() -> AccessRecord {
    AccessRecord {
        accepted_at: SystemTime::now(),
        peer: Remote::Addr(PeerAddr(([10, 0, 0, 1], 1234).into())),
        client: Remote::Addr(ClientAddr(([10, 0, 0, 1], 1234).into())),
        listen: ListenPlace::Network(ListenAddr::new(([10, 0, 0, 2], 80).into()).into()),
        frontend: FrontendName::new("web").unwrap(),
        backend: Some(BackendName::new("pool").unwrap()),
        server: Some((
            ServerName::new("a").unwrap(),
            ServerAddr::new(([10, 0, 0, 3], 80).into()),
        )),
        queue_time: Some(Duration::ZERO),
        connect_time: Some(Duration::ZERO),
        total_time: Duration::ZERO,
        bytes_in: 1,
        bytes_out: 2,
        datagrams: None,
        protocol: Protocol::Tcp,
        reason: TerminationReason::ServerAbort,
        retries: 0,
        redispatched: false,
        frontend_connections: 1,
        server_connections: 1,
        route: None,
        sni: None,
        unique_id: None,
        tls: None,
        tls_failure: None,
        server_tls: None,
        server_tls_failure: None,
    }
}
