//! A daemon that plays its part: canned answers on a unix socket.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixListener, net::UnixStream},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// How it behaves, and what it was asked.
#[derive(Default)]
struct Shared {
    hangs: AtomicBool,
    config_is_broken: AtomicBool,
    requests: Mutex<Vec<String>>,
}

/// Listens until the test ends.
pub struct FakeDaemon {
    directory: tempfile::TempDir,
    socket: String,
    shared: Arc<Shared>,
}

impl FakeDaemon {
    pub fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("admin.sock");
        Self::listen(directory, &path)
    }

    /// At a socket that is looked for elsewhere, to which everybody may connect.
    pub fn start_at(path: &Path) -> Self {
        let daemon = Self::listen(tempfile::tempdir().expect("a temporary directory"), path);
        fs::set_permissions(path, fs::Permissions::from_mode(0o666)).expect("chmod");
        daemon
    }

    fn listen(directory: tempfile::TempDir, path: &Path) -> Self {
        let listener = UnixListener::bind(path).expect("bind");
        let shared = Arc::new(Shared::default());
        let serving = Arc::clone(&shared);
        // ends with the test's process
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                serve(&stream, &serving);
            }
        });
        Self {
            directory,
            socket: path.to_str().expect("UTF-8").to_owned(),
            shared,
        }
    }

    pub fn socket(&self) -> &str {
        &self.socket
    }

    /// Lets nobody but its owner, who is root or has no rights either, at the socket.
    pub fn forbid(&self) {
        fs::set_permissions(&self.socket, fs::Permissions::from_mode(0o000)).expect("chmod");
        fs::set_permissions(self.directory.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    }

    pub fn hang(&self) {
        self.shared.hangs.store(true, Ordering::SeqCst);
    }

    pub fn break_config(&self) {
        self.shared.config_is_broken.store(true, Ordering::SeqCst);
    }

    /// Method, target and body of the last request.
    pub fn last_request(&self) -> String {
        let requests = self.shared.requests.lock().expect("the lock");
        requests.last().cloned().expect("a request")
    }

    /// Those that change something, in their order.
    pub fn posted(&self) -> Vec<String> {
        let requests = self.shared.requests.lock().expect("the lock");
        requests
            .iter()
            .filter(|asked| asked.starts_with("POST"))
            .cloned()
            .collect()
    }

    pub fn wait_for_requests(&self, count: usize) {
        let started = Instant::now();
        while self.shared.requests.lock().expect("the lock").len() < count {
            assert!(
                started.elapsed() < Duration::from_secs(120),
                "no {count} requests came"
            );
            thread::sleep(Duration::from_millis(10));
        }
    }
}

fn serve(stream: &UnixStream, shared: &Shared) {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).expect("a request line");
    let asked = line.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
    let mut length = 0;
    loop {
        line.clear();
        reader.read_line(&mut line).expect("a header line");
        if line.trim_end().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("a body");
    let body = String::from_utf8(body).expect("UTF-8");
    let request = format!("{asked} {body}").trim_end().to_owned();
    shared.requests.lock().expect("the lock").push(request);

    if shared.hangs.load(Ordering::SeqCst) {
        // with the test's process
        loop {
            thread::park();
        }
    }
    let (status, body) = answer(&asked, shared.config_is_broken.load(Ordering::SeqCst));
    let length = body.len();
    // a client that was interrupted does not listen any more
    let mut stream = stream;
    let _ = write!(
        stream,
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
}

const SERVER: &str = r#"{"addr":"10.1.0.2:80","state":"up","state_seconds":1.0,"state_reason":null,"eligible":true,
    "weight":1,"configured_weight":1,"effective_percent":100,"priority":1,"max_connections":null,"overridden":null,
    "traffic":{"connections_total":0,"connections_current":0,"bytes_in":0,"bytes_out":0,"connect_failures":0,"retries":0,
    "ended":{}}}"#;

const BACKENDS: &str = r#"{"web":{"balance":"round_robin","state":"up","eligible":2,"queued":0,
    "traffic":{"connections_total":0,"connections_current":0,"bytes_in":0,"bytes_out":0,"connect_failures":0,"retries":0,
    "ended":{}},"servers":{
    "a":{"addr":"10.1.0.2:80","state":"up","state_seconds":1.0,"state_reason":null,"eligible":true,
    "weight":1,"configured_weight":1,"effective_percent":100,"priority":1,"max_connections":null,"overridden":null,
    "traffic":{"connections_total":0,"connections_current":0,"bytes_in":0,"bytes_out":0,"connect_failures":0,"retries":0,
    "ended":{}}},
    "c d":{"addr":"10.1.0.3:80","state":"up","state_seconds":1.0,"state_reason":null,"eligible":true,
    "weight":1,"configured_weight":1,"effective_percent":100,"priority":1,"max_connections":null,"overridden":null,
    "traffic":{"connections_total":0,"connections_current":0,"bytes_in":0,"bytes_out":0,"connect_failures":0,"retries":0,
    "ended":{}}}}}}"#;

fn answer(asked: &str, config_is_broken: bool) -> (u16, &'static str) {
    match asked {
        "GET /v1/status" => (
            200,
            r#"{"version":"1.0.0-dev","pid":4242,"uptime_seconds":61.0,"phase":"running","config_file":"c.toml",
                "config_generation":1,"snapshot_generation":1,"last_reload_error":null,"needs_restart":[],"workers":1,
                "proxied_connections":{"open":0,"most":1,"accept_pauses":0},
                "log_events_dropped":0,"admin_connections_refused":0,"frontends":{},"backends":{}}"#,
        ),
        "GET /v1/explain?protocol=tcp&client=192.0.2.1%3A40000&vip=10.0.0.1%3A80" => (
            200,
            r#"{"protocol":"tcp","client":"192.0.2.1:40000","vip":"10.0.0.1:80","frontend":"web","mode":"dsr","backend":"web",
                "because":"maglev","server":"a","server_addr":"10.1.0.2:80","server_state":"up","candidates":1,"slot":7,
                "flow":null,"blocked_by":null}"#,
        ),
        "GET /v1/explain?protocol=tcp&client=192.0.2.1%3A40000&vip=10.0.0.1%3A81" => (
            200,
            r#"{"protocol":"tcp","client":"192.0.2.1:40000","vip":"10.0.0.1:81","frontend":null,"mode":null,"backend":null,
                "because":"not_served","server":null,"server_addr":null,"server_state":null,"candidates":0,"slot":null,
                "flow":null,"blocked_by":null}"#,
        ),
        "GET /v1/backends" => (200, BACKENDS),
        "GET /v1/connections?limit=1000&server=nope" => (
            404,
            r#"{"status":404,"detail":"no server `nope` in any backend (servers: a, b)"}"#,
        ),
        _ if asked.starts_with("POST /v1/backends/web/servers/") => (200, SERVER),
        "POST /v1/reload" if config_is_broken => {
            (422, r#"{"status":422,"detail":"convey.toml:3:1: unknown key\n"}"#)
        }
        "POST /v1/reload" => (
            200,
            r#"{"config_generation":2,"changes":["backend web: server a: weight 1 -> 3"],"needs_restart":[],"warnings":""}"#,
        ),
        _ => (
            404,
            r#"{"status":404,"detail":"no backend `a/b` (backends: web)"}"#,
        ),
    }
}
