//! What goes into the archive.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Read as _,
    path::Path,
    process::{Command, Stdio},
};

use regex::bytes::Regex;
use serde::Serialize;

use super::scrub::Scrubber;
use crate::{
    admin::views::{Connections, Status},
    cli::{
        args::ModeArgs,
        client::Client,
        doctor,
        outcome::Failure,
        picture::{self, Look},
        progress::Progress,
        target,
    },
    config::MAX_CONFIG_BYTES,
    firewall::{Firewall, has_left_rules, record_path},
    sys::config_file,
};

/// Most that is taken of anything, in bytes; of logs it is the end.
const MOST: u64 = 8 << 20;

/// Lines of the log.
const LOG_LINES: &str = "5000";

/// How long a program may take, in seconds, as timeout(1) has it.
const PATIENCE: &str = "20";

/// Settings of the kernel that matter.
const SYSCTLS: [&str; 24] = [
    "fs/file-max",
    "fs/file-nr",
    "fs/nr_open",
    "kernel/unprivileged_bpf_disabled",
    "net/core/netdev_max_backlog",
    "net/core/rmem_max",
    "net/core/somaxconn",
    "net/core/wmem_max",
    "net/ipv4/conf/all/rp_filter",
    "net/ipv4/conf/default/rp_filter",
    "net/ipv4/ip_forward",
    "net/ipv4/ip_local_port_range",
    "net/ipv4/ip_local_reserved_ports",
    "net/ipv4/ip_nonlocal_bind",
    "net/ipv4/tcp_fastopen",
    "net/ipv4/tcp_max_syn_backlog",
    "net/ipv4/tcp_mem",
    "net/ipv4/tcp_migrate_req",
    "net/ipv4/tcp_syncookies",
    "net/ipv4/udp_mem",
    "net/ipv6/conf/all/forwarding",
    "net/ipv6/ip_nonlocal_bind",
    "net/netfilter/nf_conntrack_count",
    "net/netfilter/nf_conntrack_max",
];

/// What was collected, without secrets.
#[derive(Default)]
pub struct Collected {
    /// Contents by path.
    pub files: BTreeMap<&'static str, Vec<u8>>,
    /// What could not be, and why.
    pub missing: Vec<String>,
}

/// Collects everything that can be read.
pub fn everything(
    socket: Option<&Path>,
    config: Option<&Path>,
    mode: ModeArgs,
    progress: &mut Progress,
) -> Collected {
    let client = target::socket_path(socket, config).and_then(Client::new);
    let status = client.as_ref().ok().and_then(|client| {
        let answer = client.get("/v1/status").ok()?;
        answer.parse::<Status>().ok()
    });
    let path = match &status {
        Some(status) => Path::new(&status.config_file).to_owned(),
        None => target::config_path(config),
    };
    let text = config_file::read(&path, MAX_CONFIG_BYTES);
    let in_effect = client.as_ref().ok().and_then(|client| {
        let answer = client.get("/v1/config").ok()?;
        answer.content().ok().map(|text| text.to_vec())
    });
    let texts = [
        text.as_deref().unwrap_or_default(),
        in_effect.as_deref().unwrap_or_default(),
    ];
    let mut collecting = Collecting {
        collected: Collected::default(),
        scrubber: scrubber(&texts),
    };
    match &text {
        Ok(text) => collecting.config("config/file.toml", text),
        Err(error) => collecting.missing("the configuration file", &error.to_string()),
    }
    if let Some(text) = &in_effect
        && text.as_slice() != texts[0]
    {
        collecting.config("config/in-effect.toml", text);
    }
    progress.tell(|| "asking the running convey".to_owned());
    match &client {
        Ok(client) => collecting.daemon(client, status.as_ref()),
        Err(failure) => collecting.missing("the running convey", &told(failure)),
    }
    progress.tell(|| "looking at the host".to_owned());
    let found = doctor::diagnose(socket, config, mode);
    collecting.json("doctor.json", &found);
    collecting.file("doctor.txt", doctor::draw(&found, false).as_bytes());
    collecting.host(status.as_ref().map(|status| status.pid));
    collecting.firewall(
        &path,
        status.as_ref().is_some_and(|status| status.packet.is_some()),
    );
    progress.tell(|| "reading the log".to_owned());
    collecting.log();
    collecting.about();
    collecting.collected
}

/// Knows the secrets that configurations name, as far as they can be read here.
fn scrubber(texts: &[&[u8]]) -> Scrubber {
    let (mut known, mut variables) = (Vec::new(), BTreeSet::new());
    // both are plain: a test makes them
    let file = Regex::new(r#"(?-u)file:(/[^"'\s,\]]+)"#).ok();
    let variable = Regex::new(r"(?-u)\$\{([A-Za-z_][A-Za-z0-9_]*)\}").ok();
    for text in texts {
        let places = file.iter().flat_map(|look| look.captures_iter(text));
        for path in
            places.filter_map(|found| Some(String::from_utf8_lossy(found.get(1)?.as_bytes()).into_owned()))
        {
            known.extend(config_file::read(Path::new(&path), MAX_CONFIG_BYTES).ok());
        }
        let names = variable.iter().flat_map(|look| look.captures_iter(text));
        for name in
            names.filter_map(|found| Some(String::from_utf8_lossy(found.get(1)?.as_bytes()).into_owned()))
        {
            known.extend(std::env::var(&name).ok().map(String::into_bytes));
            variables.insert(name);
        }
    }
    Scrubber::new(known, &variables)
}

struct Collecting {
    collected: Collected,
    scrubber: Scrubber,
}

impl Collecting {
    fn file(&mut self, path: &'static str, content: &[u8]) {
        self.collected.files.insert(path, self.scrubber.scrub(content));
    }

    fn config(&mut self, path: &'static str, content: &[u8]) {
        self.collected
            .files
            .insert(path, self.scrubber.scrub_config(content));
    }

    fn json(&mut self, path: &'static str, content: &impl Serialize) {
        if let Ok(content) = serde_json::to_vec_pretty(content) {
            self.file(path, &content);
        }
    }

    fn missing(&mut self, what: &str, why: &str) {
        let line = format!("{what}: {}", why.replace('\n', " "));
        let line = self.scrubber.scrub(line.as_bytes());
        self.collected
            .missing
            .push(String::from_utf8_lossy(&line).into_owned());
    }

    /// What the running convey says.
    fn daemon(&mut self, client: &Client, status: Option<&Status>) {
        for (path, target) in [
            ("daemon/info.json", "/v1/info"),
            ("daemon/status.json", "/v1/status"),
            ("daemon/overrides.json", "/v1/overrides"),
            ("daemon/events.json", "/v1/events?limit=1024"),
            ("daemon/certificates.json", "/v1/certificates"),
            ("daemon/acme.json", "/v1/acme"),
            ("daemon/discovery.json", "/v1/discovery"),
            ("config/resolved.json", "/v1/config/resolved"),
            ("config/history.json", "/v1/config/history"),
        ] {
            let answer = client
                .get(target)
                .and_then(|answer| answer.parse::<serde_json::Value>());
            match answer {
                Ok(answer) => self.json(path, &answer),
                Err(failure) => {
                    self.missing(target, &told(&failure));
                    // one that does not run answers nothing else either
                    if status.is_none() {
                        return;
                    }
                }
            }
        }
        if let Some(status) = status {
            self.file(
                "daemon/status.txt",
                picture::draw(status, &Look::default()).as_bytes(),
            );
        }
        let connections = client.get("/v1/connections?limit=100000");
        match connections.and_then(|answer| answer.parse::<Connections>()) {
            Ok(connections) => self.json("daemon/connections.json", &summary(&connections)),
            Err(failure) => self.missing("connections", &told(&failure)),
        }
    }

    /// Kernel, interfaces, limits.
    fn host(&mut self, pid: Option<u32>) {
        self.commands(
            "host/network.txt",
            &[
                &["ip", "-s", "-d", "address"],
                &["ip", "-4", "route", "show", "table", "all"],
                &["ip", "-6", "route", "show", "table", "all"],
                &["ip", "-4", "rule"],
                &["ip", "-6", "rule"],
                &["ip", "neighbour"],
                &["ss", "-s"],
            ],
        );
        self.commands(
            "host/system.txt",
            &[
                &["uname", "-a"],
                &["cat", "/etc/os-release"],
                &["uptime"],
                &["free", "-m"],
                &["df", "-h", "/", "/var", "/run"],
                &["timedatectl"],
            ],
        );
        self.commands(
            "host/unit.txt",
            &[
                &["systemctl", "--no-pager", "status", "--lines=0", "convey.service"],
                &["systemctl", "--no-pager", "cat", "convey.service"],
            ],
        );
        let sysctls: String = (SYSCTLS.iter())
            .filter_map(|name| {
                let value = fs::read_to_string(format!("/proc/sys/{name}")).ok()?;
                Some(format!("{} = {}\n", name.replace('/', "."), value.trim()))
            })
            .collect();
        self.file("host/sysctls.txt", sysctls.as_bytes());
        for name in ["netstat", "snmp", "softnet_stat", "sockstat"] {
            if let Ok(text) = fs::read(format!("/proc/net/{name}")) {
                let path = match name {
                    "netstat" => "host/netstat.txt",
                    "snmp" => "host/snmp.txt",
                    "sockstat" => "host/sockstat.txt",
                    _ => "host/softnet_stat.txt",
                };
                self.file(path, &text);
            }
        }
        let Some(pid) = pid else { return };
        let of_process = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}"));
        match of_process("limits").and_then(|limits| Ok(format!("{limits}\n{}", of_process("status")?))) {
            Ok(text) => self.file("daemon/process.txt", text.as_bytes()),
            Err(error) => self.missing("limits of the process", &error.to_string()),
        }
    }

    /// Our chains, and no others.
    fn firewall(&mut self, config: &Path, has_packet_modes: bool) {
        let socket = target::socket_path(None, Some(config)).ok();
        let record = record_path(socket.as_deref());
        // iptables would make a table where there is none
        if !has_packet_modes && !has_left_rules(&record) {
            return;
        }
        let families = Firewall::new(record).families();
        match families {
            Ok(families) => {
                let text: String = (families.iter())
                    .map(|family| {
                        let program = if family.v6 { "ip6tables" } else { "iptables" };
                        let rules = family.rules.as_deref().unwrap_or_default().join("\n  ");
                        let there = if family.rules.is_some() { "" } else { "no " };
                        format!(
                            "{program}: {there}chain CONVEY, {} jump(s)\n  {rules}\n",
                            family.jumps
                        )
                    })
                    .collect();
                self.file("host/firewall.txt", text.as_bytes());
            }
            Err(error) => self.missing("firewall rules", &error.to_string()),
        }
    }

    fn log(&mut self) {
        let lines = [
            "journalctl",
            "--no-pager",
            "-q",
            "-o",
            "short-iso",
            "-u",
            "convey.service",
            "-n",
            LOG_LINES,
        ];
        match output(&lines) {
            Ok(text) if text.trim_ascii().is_empty() => {
                self.missing(
                    "log",
                    "the journal has nothing of convey.service that you may read (run it with sudo)",
                );
            }
            Ok(text) => self.file("log.txt", &text),
            Err(why) => self.missing("log", &why),
        }
    }

    /// What the archive is.
    fn about(&mut self) {
        let missing: String = self
            .collected
            .missing
            .iter()
            .map(|line| format!("  {line}\n"))
            .collect();
        let missing = if missing.is_empty() {
            "  nothing\n".to_owned()
        } else {
            missing
        };
        let text = format!(
            "Made by `convey support` of version {}.\nKeys, tokens and passwords are removed; names, addresses and log lines are \
             not.\nCould not be read:\n{missing}",
            env!("CARGO_PKG_VERSION")
        );
        self.file("README.txt", text.as_bytes());
    }

    /// What programs print, one after the other.
    fn commands(&mut self, path: &'static str, commands: &[&[&str]]) {
        let mut text = Vec::new();
        for command in commands {
            text.extend_from_slice(format!("$ {}\n", command.join(" ")).as_bytes());
            match output(command) {
                Ok(printed) => text.extend_from_slice(&printed),
                Err(why) => text.extend_from_slice(why.as_bytes()),
            }
            text.extend_from_slice(b"\n");
        }
        self.file(path, &text);
    }
}

/// What a program prints, to both of its outputs.
fn output(command: &[&str]) -> Result<Vec<u8>, String> {
    let name = command.first().copied().unwrap_or_default();
    let mut child = Command::new("timeout")
        .arg(PATIENCE)
        .args(command)
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("cannot run {name}: {error}"))?;
    let mut text = Vec::new();
    let read = child
        .stdout
        .take()
        .map(|out| out.take(MOST).read_to_end(&mut text));
    // one that says more than is taken ends as its output closes
    let ended = child
        .wait()
        .map_err(|error| format!("cannot run {name}: {error}"))?;
    match (read, ended.code()) {
        (Some(Err(error)), _) => Err(format!("cannot read what {name} prints: {error}")),
        (_, Some(124)) => Err(format!("{name} took more than {PATIENCE} s")),
        (_, Some(125..=127)) => Err(format!("there is no {name} here, or it may not be run")),
        _ => Ok(text),
    }
}

/// How many connections there are of what: not whose.
#[derive(Debug, Default, Serialize)]
struct Summary {
    total: usize,
    by_frontend: BTreeMap<String, usize>,
    by_server: BTreeMap<String, usize>,
    by_mode: BTreeMap<String, usize>,
    by_flow_state: BTreeMap<String, usize>,
    clients: usize,
    oldest_seconds: f64,
}

fn summary(connections: &Connections) -> Summary {
    let mut summary = Summary {
        total: connections.total,
        ..Summary::default()
    };
    let mut clients = BTreeSet::new();
    for connection in &connections.connections {
        let mut count = |map: fn(&mut Summary) -> &mut BTreeMap<String, usize>, key: String| {
            *map(&mut summary).entry(key).or_default() += 1;
        };
        count(
            |summary| &mut summary.by_frontend,
            connection.frontend.to_string(),
        );
        count(|summary| &mut summary.by_mode, connection.mode.to_string());
        if let (Some(backend), Some(server)) = (&connection.backend, &connection.server) {
            count(|summary| &mut summary.by_server, format!("{backend}/{server}"));
        }
        if let Some(flow) = &connection.flow {
            count(|summary| &mut summary.by_flow_state, flow.state.to_string());
        }
        // by address, without the port
        let client = connection.client.to_string();
        clients.insert(
            client
                .rsplit_once(':')
                .map_or(client.clone(), |(ip, _)| ip.to_owned()),
        );
        summary.oldest_seconds = summary.oldest_seconds.max(connection.age_seconds.unwrap_or(0.0));
    }
    summary.clients = clients.len();
    summary
}

fn told(failure: &Failure) -> String {
    match failure {
        Failure::Told { message, .. } => message.clone(),
        Failure::ReaderGone => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_that_a_configuration_names_are_known_where_they_can_be_read() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("token");
        fs::write(&path, "plain words\n").expect("write");
        let text = format!(
            "token = \"file:{}\"\nother = \"${{HUSH_HUSH}}\"\n",
            path.display()
        );
        let scrubber = scrubber(&[text.as_bytes()]);
        assert_eq!(
            scrubber.scrub(b"a plain words b HUSH_HUSH=x"),
            b"a [removed] b HUSH_HUSH=[removed]"
        );
    }

    #[test]
    fn a_program_that_is_not_there_or_fails_is_said() {
        assert_eq!(output(&["printf", "a"]), Ok(b"a".to_vec()));
        assert!(output(&["no-such-program-here"]).is_err());
        assert_eq!(output(&["sh", "-c", "echo b; exit 1"]), Ok(b"b\n".to_vec()));
    }
}
