//! Debian's nginx as a web server.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::Command,
};

use super::{Host, PATIENCE, Process, wait_until};

/// A web server on port 80, IPv4 and IPv6. `/` answers its body, `/files/…` serves and takes (PUT) files.
pub struct Nginx {
    host: Host,
    dir: PathBuf,
    process: Option<Process>,
}

impl Nginx {
    /// Starts it on `host`, ready when this returns.
    #[track_caller]
    pub fn start(host: &Host, body: &str) -> Self {
        let dir = host.path("nginx");
        for sub in ["files", "tmp"] {
            fs::create_dir_all(dir.join(sub)).expect("nginx's directories");
        }
        fs::write(dir.join("nginx.conf"), config(body)).expect("nginx's configuration");
        let mut nginx = Self {
            host: host.clone(),
            dir,
            process: None,
        };
        nginx.revive();
        nginx
    }

    /// Starts it (again).
    #[track_caller]
    pub fn revive(&mut self) {
        let mut command = Command::new("nginx");
        command
            .args(["-c", "nginx.conf", "-e", "stderr", "-p"])
            .arg(&self.dir);
        let mut process = self.host.spawn(command);
        let addr = self.addr();
        wait_until("nginx listens", PATIENCE, || {
            if let Some(status) = process.ended() {
                panic!("nginx ended with {status}\n{}", process.stderr());
            }
            self.host.inside(|| TcpStream::connect(addr).is_ok())
        });
        self.process = Some(process);
    }

    /// Kills it as a crash would: its connections are reset, its port is closed.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Its host.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Its IPv4 address.
    pub fn addr(&self) -> SocketAddr {
        self.host.addr(80)
    }

    /// Its IPv6 address.
    pub fn addr6(&self) -> SocketAddr {
        self.host.addr6(80)
    }

    /// Path of a file under `/files/`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join("files").join(name)
    }
}

/// One process, so that killing it is killing the server; nothing is logged.
fn config(body: &str) -> String {
    format!(
        r#"daemon off;
master_process off;
pid nginx.pid;
worker_rlimit_nofile 20000;
events {{ worker_connections 19000; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  keepalive_timeout 600s;
  client_header_timeout 600s;
  client_max_body_size 0;
  client_body_temp_path tmp/body; proxy_temp_path tmp/proxy; fastcgi_temp_path tmp/fastcgi;
  uwsgi_temp_path tmp/uwsgi; scgi_temp_path tmp/scgi;
  default_type application/octet-stream;
  sendfile on;
  server {{
    listen 80 backlog=4096;
    listen [::]:80 backlog=4096 ipv6only=on;
    location / {{ return 200 "{body}"; }}
    location /files/ {{ root .; dav_methods PUT; }}
  }}
}}
"#
    )
}
