//! What the tests of the admin API need: two hosts, tokens, a certificate, and what curl is answered.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
};

use crate::{
    lab::{Host, Lab},
    tls::{EC, Pki},
};

pub const PORT: u16 = 7001;

/// What Cargo built along with this test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_convey");

/// Two hosts, and what the load balancer needs.
pub struct Site {
    pub client: Host,
    pub lb: Host,
    pub pki: Pki,
    pub lab: Lab,
}

/// What curl was answered.
#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    /// With the header.
    pub text: String,
}

impl Answer {
    pub fn has(&self, part: &str) -> bool {
        self.text.to_lowercase().contains(&part.to_lowercase())
    }
}

impl Site {
    pub fn new(name: &str) -> Self {
        let lab = Lab::new(name);
        let (client, lb) = (lab.host("client"), lab.host("lb"));
        let pki = Pki::new(&lb, "lab-ca");
        pki.issue("lb1.example", &["lb1.example"], EC, 30);
        Self { client, lb, pki, lab }
    }

    pub fn tokens_file(&self) -> PathBuf {
        self.lb.path("tokens")
    }

    /// A token by the command that makes them, and its line.
    pub fn token(&self, name: &str, role: &str) -> (String, String) {
        let made = self.lb.try_run(&format!("{BINARY} token {name} --role {role}"));
        assert!(made.status.success(), "{made:?}");
        let (token, line) = (made.stderr.trim().to_owned(), made.stdout);
        assert!(
            line.starts_with(&format!("{name} {role} sha256:")) && !line.contains(&token),
            "{line}"
        );
        (token, line)
    }

    pub fn write_tokens(&self, lines: &str) {
        let new = self.lb.path("tokens.new");
        fs::write(&new, lines).expect("the tokens");
        fs::set_permissions(&new, fs::Permissions::from_mode(0o644)).expect("their mode");
        fs::rename(new, self.tokens_file()).expect("the tokens in their place");
    }

    /// `[admin]` with these keys besides the control socket.
    pub fn admin(&self, keys: &str) -> String {
        let socket = self.lb.path("convey/admin.sock");
        format!("[admin]\nsocket = {socket:?}\n{keys}\n")
    }

    /// The keys of an API with TLS and tokens at a port of the load balancer.
    pub fn keys(&self, port: u16, more: &str) -> String {
        format!(
            "listen_addr = \"{}\"\ntls = {{ cert = \"{}\", key = \"{}\" }}\ntokens_file = {:?}\n{more}",
            self.lb.addr(port),
            self.pki.path("lb1.example.pem"),
            self.pki.path("lb1.example.key"),
            self.tokens_file()
        )
    }

    /// Asks with curl from the client, as this name at this port.
    pub fn ask(&self, port: u16, path: &str, more: &str) -> Answer {
        let url = format!("https://lb1.example:{port}{path}");
        let how = format!(
            "--cacert {} --resolve lb1.example:{port}:{}",
            self.pki.path("ca.pem"),
            self.lb.ip4()
        );
        curl(&self.client, &format!("{how} {more} {url}"))
    }
}

pub fn curl(host: &Host, arguments: &str) -> Answer {
    let output = host.try_run(&format!("curl -sSi --max-time 60 {arguments}"));
    let code = output.stdout.split(' ').nth(1).and_then(|code| code.parse().ok());
    Answer {
        code: code.unwrap_or(0),
        text: output.stdout + &output.stderr,
    }
}

pub fn bearer(token: &str) -> String {
    format!("-H 'Authorization: Bearer {token}'")
}

pub const JSON: &str = "-X POST -H 'Content-Type: application/json'";

/// A connection that stays open.
pub struct Open {
    pub process: std::process::Child,
    request: String,
}

impl Open {
    pub fn new(site: &Site, token: &str) -> Self {
        let process = site.client.inside(|| {
            std::process::Command::new("openssl")
                .args(["s_client", "-quiet", "-connect", &site.lb.addr(PORT).to_string()])
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::null())
                .spawn()
                .expect("openssl")
        });
        Self {
            process,
            request: format!("GET /v1/acme HTTP/1.1\r\nHost: lb1\r\nAuthorization: Bearer {token}\r\n\r\n"),
        }
    }

    /// The beginning of an answer.
    pub fn ask(&mut self) -> String {
        let input = self.process.stdin.as_mut().expect("its input");
        input.write_all(self.request.as_bytes()).expect("a request");
        let mut answer = vec![0; 4_096];
        let output = self.process.stdout.as_mut().expect("its output");
        let length = output.read(&mut answer).expect("an answer");
        String::from_utf8_lossy(&answer[..length]).into_owned()
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
