//! The script that makes one server of a DSR frontend answer with the VIP, rendered with every address filled in.
//!
//! It calls `convey-backend-setup` (package convey-backend), which does the work and keeps it over reboots.

use std::{
    fmt::Write as _,
    fs,
    io::{self, Write as _},
    net::{IpAddr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
};

use crate::{
    balance::hash::name_hash,
    base::{IpServerAddr, PortRange, ServerName},
    config::{Backend, Config, DsrMethod, Frontend, Mode},
    pools::{Pools, Server},
    sys::own_file,
};

/// Mode of a script: there is nothing secret in it.
const SCRIPT_MODE: u32 = 0o644;

/// Longest name that `convey-backend-setup` takes, in bytes.
const MAX_NAME_BYTES: usize = 100;

/// Why there is no script for this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScriptError {
    /// No such frontend.
    #[error("no frontend \"{0}\" in the configuration")]
    NoFrontend(String),
    /// No such server.
    #[error("the backend of frontend \"{frontend}\" has no server \"{server}\"{}", listing(.servers))]
    NoServer {
        /// The frontend.
        frontend: String,
        /// What was asked for.
        server: String,
        /// The servers that there are.
        servers: Vec<String>,
    },
    /// Nothing is to be set up on the servers of this frontend.
    #[error("frontend \"{0}\" is in mode {1}: only servers of a frontend in mode dsr need to be set up")]
    NotDsr(String, Mode),
}

impl ScriptError {
    fn no_server<'a>(
        frontend: &Frontend,
        server: &str,
        servers: impl Iterator<Item = &'a ServerName>,
    ) -> Self {
        Self::NoServer {
            frontend: frontend.name.to_string(),
            server: server.to_owned(),
            servers: servers.map(ToString::to_string).collect(),
        }
    }
}

/// A script that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
pub struct WriteError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

fn listing(servers: &[String]) -> String {
    match servers {
        [] => String::new(),
        some => format!("; it has: {}", some.join(", ")),
    }
}

/// The script for a server of a configuration, as [`script_among`].
///
/// # Errors
/// There is no such frontend or server, or it needs no script.
pub fn script(config: &Config, pools: &Pools, frontend: &str, server: &str) -> Result<String, ScriptError> {
    let front =
        (config.frontends.get(frontend)).ok_or_else(|| ScriptError::NoFrontend(frontend.to_owned()))?;
    let pool = (pools.get(front.backend.as_str()))
        .ok_or_else(|| ScriptError::no_server(front, server, std::iter::empty()))?;
    let servers =
        (pool.servers().iter()).filter_map(|server| Some((&server.name, server.addr.on_network()?)));
    script_among(front, pool.backend(), servers, server)
}

/// The script for a server among those of a frontend's backend, as text. To find our address towards the server it asks the
/// kernel, without sending anything.
///
/// # Errors
/// There is no such server, or it needs no script.
pub fn script_among<'a>(
    frontend: &Frontend,
    backend: &Backend,
    servers: impl Iterator<Item = (&'a ServerName, IpServerAddr)> + Clone,
    server: &str,
) -> Result<String, ScriptError> {
    if frontend.mode != Mode::Dsr {
        return Err(ScriptError::NotDsr(frontend.name.to_string(), frontend.mode));
    }
    let found = servers.clone().find(|(name, _)| name.as_str() == server);
    let Some((name, addr)) = found else {
        return Err(ScriptError::no_server(
            frontend,
            server,
            servers.map(|(name, _)| name),
        ));
    };
    Ok(render(frontend, backend, name, addr))
}

/// Writes the scripts of every DSR frontend and server into a directory, and removes those of others.
///
/// # Errors
/// Every file that could not be written or removed.
pub fn write_all(config: &Config, pools: &Pools, directory: &Path) -> Result<usize, Vec<WriteError>> {
    let mut errors = Vec::new();
    let mut written = Vec::new();
    let dsr = config.frontends.values().filter(|f| f.mode == Mode::Dsr);
    for frontend in dsr {
        let Some(pool) = pools.get(frontend.backend.as_str()) else {
            continue;
        };
        for Server {
            name: server, addr, ..
        } in pool.servers()
        {
            let Some(addr) = addr.on_network() else {
                continue;
            };
            let text = render(frontend, pool.backend(), server, addr);
            let path = directory.join(format!(
                "{}.sh",
                unit_name(frontend.name.as_str(), server.as_str())
            ));
            let same = own_file::open(&path)
                .and_then(io::read_to_string)
                .is_ok_and(|old| old == text);
            if !same && let Err(source) = write(&path, &text) {
                errors.push(WriteError {
                    path: path.clone(),
                    source,
                });
            }
            written.push(path);
        }
    }
    let stale = fs::read_dir(directory).into_iter().flatten().flatten();
    for path in stale.map(|entry| entry.path()) {
        let is_script = path.extension().is_some_and(|extension| extension == "sh");
        if is_script
            && !written.contains(&path)
            && let Err(source) = fs::remove_file(&path)
        {
            errors.push(WriteError { path, source });
        }
    }
    if errors.is_empty() {
        Ok(written.len())
    } else {
        Err(errors)
    }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    own_file::create(path, SCRIPT_MODE)?.write_all(text.as_bytes())
}

fn render(frontend: &Frontend, backend: &Backend, server: &ServerName, addr: IpServerAddr) -> String {
    let mut text = format!(
        "#!/bin/sh\n\
         # Convey {}: makes server {} ({}) answer for the address of frontend {}.\n\
         # Run it as root on that host. It lasts over reboots; run the new one when the configuration has changed.\n\
         # What it would do: run it with --dry-run. To remove it: convey-backend-setup remove {}\n\
         set -eu\n\
         command -v convey-backend-setup >/dev/null || {{\n    \
             echo 'convey-backend-setup is not installed: apt install convey-backend' >&2\n    \
             exit 69\n\
         }}\n",
        env!("CARGO_PKG_VERSION"),
        comment(server.as_str()),
        addr,
        comment(frontend.name.as_str()),
        unit_name(frontend.name.as_str(), server.as_str()),
    );
    let mut lbs: Vec<IpAddr> = backend
        .source_addr
        .into_iter()
        .chain(local_address(addr))
        .collect();
    lbs.dedup();
    if backend.dsr_method == DsrMethod::L2 {
        // nothing is rewritten, so nothing has to be spared
        lbs.clear();
    } else if lbs.is_empty() {
        let _ = writeln!(
            text,
            "# The load balancer has no route to this server: add --lb with the source address of its health checks."
        );
    }
    let _ = write!(
        text,
        "exec convey-backend-setup apply {} --method {}",
        unit_name(frontend.name.as_str(), server.as_str()),
        backend.dsr_method
    );
    for range in &frontend.listen {
        if range.ip().is_ipv4() == addr.0.is_ipv4() {
            let last = range.ports().last - range.ports().first;
            let _ = write!(
                text,
                " \\\n    --rule {},{},{},{},{}",
                frontend.protocol,
                range.ip(),
                ports(range.ports()),
                addr.0.ip(),
                ports(PortRange {
                    first: addr.0.port(),
                    last: addr.further(last).0.port(),
                })
            );
        }
    }
    for lb in lbs {
        let _ = write!(text, " \\\n    --lb {lb}");
    }
    text.push_str(" \"$@\"\n");
    text
}

/// Ports as `convey-backend-setup` reads them.
fn ports(range: PortRange) -> String {
    if range.first == range.last {
        range.first.to_string()
    } else {
        range.to_string()
    }
}

/// A name in a comment: it must not end the line.
fn comment(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).collect()
}

/// What `convey-backend-setup` calls it: letters, digits, `-`, `_`, `.`, at most 100 of them. Two servers never have one name:
/// two dashes stand between names that have dashes themselves, and names that this does not tell apart, or that have other
/// characters or too many, end with a dot and a hash of both.
pub fn unit_name(frontend: &str, server: &str) -> String {
    let is_plain = |name: &str| {
        !name.is_empty()
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
            && !name.starts_with('-')
            && !name.ends_with('-')
            && !name.contains("--")
    };
    let between = if frontend.contains('-') || server.contains('-') {
        "--"
    } else {
        "-"
    };
    let name = format!("{frontend}{between}{server}");
    if is_plain(frontend) && is_plain(server) && name.len() <= MAX_NAME_BYTES {
        return name;
    }
    let shown = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let safe: String = name.chars().map(shown).take(60).collect();
    let both = format!("{}:{frontend}{server}", frontend.len());
    format!("{safe}.{:016x}", name_hash(&both, 0))
}

/// Our address towards a server, as the kernel would choose it. Nothing is sent: connecting a datagram socket only
/// looks up the route.
fn local_address(server: IpServerAddr) -> Option<IpAddr> {
    let any: SocketAddr = if server.0.is_ipv4() {
        ([0, 0, 0, 0], 0).into()
    } else {
        (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(server.0).ok()?;
    let local = socket.local_addr().ok()?.ip();
    (!local.is_unspecified()).then_some(local)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Options, Source};

    fn load(text: &str) -> Config {
        let source = Source {
            name: "test.toml".to_owned(),
            bytes: text.into(),
        };
        config::load(&source, Options::default()).unwrap().config
    }

    fn site() -> Config {
        load(
            r#"
            [frontends.web]
            listen_addr = ["10.9.0.1:80", "10.9.0.2:80"]
            mode = "dsr"
            backend = "web"
            [frontends.plain]
            listen_addr = "127.0.0.1:8080"
            backend = "web"
            [backends.web]
            source_addr = "10.9.0.9"
            servers.a = { addr = "10.9.1.5:80" }
            servers."ä b" = { addr = "10.9.1.6:80" }
            "#,
        )
    }

    #[test]
    fn the_script_of_a_server_names_every_vip_and_spares_the_load_balancer() {
        let text = script(&site(), &Pools::of(&site()), "web", "a").unwrap();
        assert!(text.starts_with("#!/bin/sh\n"));
        for part in [
            "apply web-a --method tc",
            "--rule tcp,10.9.0.1,80,10.9.1.5,80",
            "--rule tcp,10.9.0.2,80,10.9.1.5,80",
            "--lb 10.9.0.9",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(text.ends_with(" \"$@\"\n"));
    }

    #[test]
    fn the_ports_of_a_range_are_one_rule() {
        let text = r#"
            [frontends.rtp]
            listen_addr = "10.9.0.1:9000-9010"
            mode = "dsr"
            protocol = "udp"
            backend = "rtp"
            [backends.rtp]
            dsr_method = "nft"
            servers.a = { addr = "10.9.1.5:8000" }
        "#;
        let config = load(text);
        let text = script(&config, &Pools::of(&config), "rtp", "a").unwrap();
        assert!(
            text.contains("--rule udp,10.9.0.1,9000-9010,10.9.1.5,8000-8010"),
            "{text}"
        );
    }

    #[test]
    fn a_server_that_has_the_vip_is_told_so_and_spares_nobody() {
        let mut config = site();
        let backend = config.backends.get_mut("web").unwrap();
        std::sync::Arc::make_mut(backend).dsr_method = DsrMethod::L2;
        let text = script(&config, &Pools::of(&config), "web", "a").unwrap();
        assert!(text.contains("apply web-a --method l2"), "{text}");
        assert!(text.contains("--rule tcp,10.9.0.1,80,10.9.1.5,80"), "{text}");
        assert!(!text.contains("--lb"), "{text}");
    }

    #[test]
    fn what_needs_no_script_or_does_not_exist_is_said() {
        let config = site();
        let message = |frontend, server| {
            script(&config, &Pools::of(&config), frontend, server)
                .unwrap_err()
                .to_string()
        };
        assert_eq!(message("mail", "a"), "no frontend \"mail\" in the configuration");
        assert!(message("plain", "a").contains("is in mode proxy"));
        assert!(
            message("web", "z").ends_with("it has: a, ä b"),
            "{}",
            message("web", "z")
        );
    }

    #[test]
    fn names_become_safe_and_stay_apart() {
        assert_eq!(unit_name("web", "a"), "web-a");
        assert_eq!(unit_name("web", "a-1"), "web--a-1");
        let parts = [
            "a",
            "b",
            "c",
            "a-b",
            "b-c",
            "a--b",
            "b--c",
            "-",
            "--",
            "a-",
            "-c",
            "a_b",
            "a b",
            "a.b",
            "größe",
            "",
            "A",
            "$(reboot)",
            "\0",
            "a\0b",
        ];
        let long = ["x".repeat(60), "x".repeat(61), "y-".repeat(120)];
        let parts: Vec<&str> = parts.into_iter().chain(long.iter().map(String::as_str)).collect();
        let mut names = std::collections::BTreeMap::new();
        for frontend in &parts {
            for server in &parts {
                let name = unit_name(frontend, server);
                let is_safe = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
                assert!(
                    name.len() <= MAX_NAME_BYTES && name.starts_with(|c| c != '-' && is_safe(c)),
                    "{name}"
                );
                assert!(name.chars().all(is_safe), "{name}");
                let other = names.insert(name.clone(), (frontend, server));
                assert_eq!(other, None, "{name} is also that of {frontend:?} and {server:?}");
            }
        }
    }

    #[test]
    fn scripts_of_what_is_gone_are_removed_and_other_files_stay() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("web-gone.sh"), "old").unwrap();
        fs::write(dir.path().join("README"), "mine").unwrap();
        assert_eq!(write_all(&site(), &Pools::of(&site()), dir.path()).unwrap(), 2);
        let mut names: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names.len(), 3, "{names:?}");
        assert!(names.contains(&"README".to_owned()) && names.contains(&"web-a.sh".to_owned()));
    }
}
