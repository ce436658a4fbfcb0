//! Replacing the configuration file for an operator who asks through the API.
//!
//! Only where the file allowed that when the process started, and only by a text that gives the process no more power over
//! the host than it has: what it would add is an administrator's to write into the file.

use std::{
    collections::BTreeSet,
    fmt::Display,
    mem::ManuallyDrop,
    num::NonZeroU32,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use super::{
    BrokerError, Channel, Parser,
    message::{Outcome, Verb},
};
use crate::{
    base::{ListenPlace, Protocol, ServerAddr, SocketPath},
    config::{self, Config, MAX_CONFIG_BYTES, Options, Source},
    sys::{config_file, memfd, replace_file},
};

/// Ports below need a privilege (capabilities(7), CAP_NET_BIND_SERVICE).
const FIRST_FREE_PORT: u16 = 1_024;

impl Channel {
    /// Has the broker replace the configuration file, if its text is still `before`. Blocks until that is on the disk.
    ///
    /// # Errors
    /// The file has another text; the new one is no configuration, or adds what only an administrator may; a step failed.
    pub fn write_config(&self, before: &[u8], text: &[u8]) -> Result<(), BrokerError> {
        let copy = |bytes: &[u8]| {
            memfd::sealed(bytes).map_err(|source| BrokerError::Failed {
                step: "copy the configuration into memory".into(),
                source,
            })
        };
        let (before, text) = (copy(before)?, copy(text)?);
        self.call(Verb::WriteConfig, &[before.as_fd(), text.as_fd()], &Outcome::Done)
            .map(drop)
    }
}

/// The two texts that come with the request; `None` if they have another form. Closed is only what is a memfd.
pub fn texts(fds: Vec<ManuallyDrop<OwnedFd>>) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut texts = fds.into_iter().map(|copy| {
        let is_one = memfd::is_sealed(copy.as_fd());
        is_one.then(|| memfd::read_sealed(ManuallyDrop::into_inner(copy), MAX_CONFIG_BYTES).ok())?
    });
    Some((texts.next()??, texts.next()??))
}

/// Whether the API may replace the configuration, and what it has replaced.
#[derive(Debug)]
pub struct Writes {
    /// As the file said when the process started.
    allowed: bool,
    /// What was replaced last by what, as long as that has not taken effect.
    last: Option<(Vec<u8>, Vec<u8>)>,
}

impl Writes {
    /// Nothing yet.
    pub const fn new(allowed: bool) -> Self {
        Self { allowed, last: None }
    }

    /// What was written has taken effect, so nothing comes back.
    pub fn in_effect(&mut self) {
        self.last = None;
    }

    /// The file was read; if somebody else has written, nothing comes back either.
    pub fn read(&mut self, text: &[u8]) {
        self.last = self.last.take().filter(|(_, written)| written == text);
    }

    /// Replaces the file, if it may be.
    pub fn perform(&mut self, write: &ConfigWrite<'_>) -> Outcome {
        if !self.allowed {
            return Outcome::refused(
                "the configuration had no `allow_config_writes` when the process started",
            );
        }
        // what an administrator has written may come back, if the text that took its place does not take effect
        let last = self.last.as_ref();
        let is_back = last.is_some_and(|(before, text)| before == write.text && text == write.before);
        let outcome = write.perform(is_back);
        if outcome == Outcome::Done {
            self.last = Some((write.before.to_vec(), write.text.to_vec()));
        }
        outcome
    }
}

/// A file to be replaced.
#[derive(Debug)]
pub struct ConfigWrite<'a> {
    /// Where it is.
    pub path: &'a Path,
    /// What diagnostics call it.
    pub name: &'a str,
    /// Makes a configuration of its bytes.
    pub parse: Parser,
    /// What the command line adds.
    pub options: Options,
    /// The configuration that was read from it last.
    pub now: &'a Config,
    /// What it must have.
    pub before: &'a [u8],
    /// What it shall have.
    pub text: &'a [u8],
}

impl ConfigWrite<'_> {
    /// Replaces it; one that is back may have what only an administrator may write.
    fn perform(&self, is_back: bool) -> Outcome {
        match config_file::read(self.path, MAX_CONFIG_BYTES) {
            Ok(now) if now == self.before => {}
            Ok(_) => return Outcome::Stale,
            Err(error) => return Outcome::unreadable(&error.to_string()),
        }
        let source = Source {
            name: self.name.to_owned(),
            bytes: self.text.to_vec(),
        };
        let loaded = match (self.parse)(&source, self.options) {
            Ok(loaded) => loaded,
            Err(findings) => return Outcome::unreadable(&config::render(&findings, &source, false)),
        };
        if !is_back && let Err(why) = adds_nothing(self.now, &loaded.config, self.path) {
            return Outcome::refused(&why);
        }
        match replace_file::replace(self.path, self.before, self.text) {
            Ok(true) => Outcome::Done,
            Ok(false) => Outcome::Stale,
            Err(error) => Outcome::unable(&error.to_string()),
        }
    }
}

/// Whether a configuration gives the process no more than the one that the file has.
fn adds_nothing(now: &Config, new: &Config, path: &Path) -> Result<(), String> {
    let only = |what: &str, added: Option<String>| match added {
        None => Ok(()),
        Some(added) => Err(format!(
            "{what} {added} is new, and that is an administrator's to write: edit {} on the host",
            path.display()
        )),
    };
    only("the command", first_new(&commands(now), &commands(new)))?;
    only("the interface", first_new(&interfaces(now), &interfaces(new)))?;
    only("the privileged port", first_new(&ports(now), &ports(new)))?;
    only("the unix socket", first_new(&sockets(now), &sockets(new)))?;
    only("the mark", first_new(&marks(now), &marks(new)))?;
    only("the file", first_new(&files(now), &files(new)))?;
    only(
        "with its token, the source",
        first_new(&with_tokens(now), &with_tokens(new)),
    )?;
    only(
        "with its secrets, the collector",
        first_new(&with_secrets(now), &with_secrets(new)),
    )?;
    only(
        "the log of TLS keys of",
        first_new(&key_logs(now), &key_logs(new)),
    )?;
    let is_new = |what: &str, differs: bool| only(what, differs.then(|| "another".to_owned()));
    let (of_now, of_new) = (&now.global, &new.global);
    is_new("`user` in [global]", of_now.user != of_new.user)?;
    is_new("`state_dir` in [global]", of_now.state_dir != of_new.state_dir)?;
    is_new("[admin]", now.admin != new.admin)?;
    // sockets that speak for clients, and what else only the broker can make
    is_new(
        "a kind of socket towards servers (`source`, `mark`, `interface`)",
        !new.socket_kinds().is_subset(&now.socket_kinds()),
    )
}

fn first_new<T: Ord + Display>(now: &BTreeSet<T>, new: &BTreeSet<T>) -> Option<String> {
    new.difference(now).next().map(ToString::to_string)
}

fn commands(config: &Config) -> BTreeSet<String> {
    let commands = config.commands();
    let line = |command: &config::Command| format!("{:?}", command.line);
    commands.values().map(line).collect()
}

fn interfaces(config: &Config) -> BTreeSet<String> {
    let of_frontends = config.frontends.values();
    let of_frontends = of_frontends.filter_map(|frontend| frontend.interface.clone());
    let of_servers = (config.backends.values()).filter_map(|backend| backend.server_socket.interface);
    of_frontends
        .chain(of_servers.map(|zone| zone.to_string()))
        .collect()
}

fn marks(config: &Config) -> BTreeSet<u32> {
    let of_clients = config.frontends.values().map(|frontend| frontend.client_socket);
    let of_servers = (config.backends.values()).map(|backend| backend.server_socket.common);
    let marks = of_clients.chain(of_servers).filter_map(|options| options.mark);
    marks.map(NonZeroU32::get).collect()
}

fn ports(config: &Config) -> BTreeSet<String> {
    let of_frontends = config.frontends.values().flat_map(|frontend| {
        let ranges = frontend.listen.iter();
        let ports = ranges.flat_map(|range| range.addrs().map(|addr| addr.0.port()));
        let ports = ports.filter(|port| *port < FIRST_FREE_PORT);
        ports.map(|port| format!("{port} ({})", frontend.protocol))
    });
    let others = (config.stats.iter().map(|stats| stats.listen))
        .chain(config.acme.iter().filter_map(|acme| acme.http_listen_addr));
    let others = others
        .map(|listen| listen.0.port())
        .filter(|port| *port < FIRST_FREE_PORT)
        .map(|port| format!("{port} ({})", Protocol::Tcp));
    of_frontends.chain(others).collect()
}

/// Where is listened, and where something is asked: behind one there may be more than a server.
fn sockets(config: &Config) -> BTreeSet<SocketPath> {
    let places = config.frontends.values().flat_map(|frontend| frontend.places());
    let listened = places.filter_map(|place| match place {
        ListenPlace::Unix(path) => Some(path),
        ListenPlace::Network(_) => None,
    });
    let servers = (config.backends.values()).flat_map(|backend| backend.servers.values());
    let servers = servers.filter_map(|server| match server.addr {
        ServerAddr::Unix(path) => Some(path),
        ServerAddr::Ip(_) => None,
    });
    (listened.chain(servers))
        .chain(config.source_sockets())
        .chain(config.log_sockets())
        .collect()
}

/// What they say is told in errors and sent to servers.
fn files(config: &Config) -> BTreeSet<String> {
    let lists = config.network_lists.values().map(|list| list.path.as_path());
    let logs = config.log_files();
    (config.tls_files())
        .chain(config.certificate_dirs())
        .chain(config.discovery_files())
        .chain(config.acme_files())
        .chain(config.telemetry_files())
        .chain(lists)
        .chain(logs.iter().map(PathBuf::as_path))
        .map(|path| path.display().to_string())
        .collect()
}

/// Sources that are shown a secret: another one would get it.
fn with_tokens(config: &Config) -> BTreeSet<String> {
    let sources = (config.backends.values()).filter_map(|backend| backend.discovery.as_ref());
    let sources = sources.map(|discovery| &discovery.source);
    let shown =
        sources.filter(|source| source.token_variable().is_some() || source.secret_files().next().is_some());
    shown
        .map(|source| format!("{source} ({:?})", source.token_variable()))
        .collect()
}

/// The collector, and whom it is believed to be, if it is shown secrets: another one would get them.
fn with_secrets(config: &Config) -> BTreeSet<String> {
    let otlp = (config.otlp.iter()).filter(|otlp| !otlp.headers.is_empty() || otlp.tls.identity.is_some());
    let collector = otlp.map(|otlp| {
        let secrets: Vec<String> = otlp.headers.values().map(ToString::to_string).collect();
        let tls = &otlp.tls;
        format!(
            "{} ({}; {:?}, {:?})",
            otlp.endpoint,
            secrets.join(", "),
            tls.trust,
            tls.server_name
        )
    });
    collector.collect()
}

fn key_logs(config: &Config) -> BTreeSet<&str> {
    let logged =
        (config.frontends.values()).filter(|frontend| frontend.tls.as_ref().is_some_and(|tls| tls.key_log));
    logged.map(|frontend| frontend.name.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SITE: &str = "[frontends.web]\nlisten_addr = \"192.0.2.1:443\"\nbackend = \"web\"\n[backends.web]\n\
                        servers.a = { addr = \"10.0.0.1:80\" }\n";

    fn config(more: &str) -> Config {
        let source = Source {
            name: "convey.toml".into(),
            bytes: format!("{SITE}{more}").into(),
        };
        let loaded = config::load(&source, Options::default());
        loaded.unwrap_or_else(|found| panic!("{more}: {found:?}")).config
    }

    fn refused(more: &str) -> Option<String> {
        adds_nothing(&config(""), &config(more), Path::new("/etc/convey/convey.toml")).err()
    }

    #[test]
    fn servers_and_frontends_on_free_ports_may_be_written() {
        for more in [
            "servers.b = { addr = \"10.0.0.2:80\" }\n",
            "discovery = { kind = \"http\", url = \"http://10.0.0.9/servers\" }\n",
            "[frontends.more]\nlisten_addr = \"192.0.2.1:8443\"\nbackend = \"web\"\n",
            "[global]\nlog_level = \"debug\"\n",
        ] {
            assert_eq!(refused(more), None);
        }
    }

    #[test]
    fn what_gives_power_over_the_host_is_an_administrators_to_write() {
        for (more, what) in [
            (
                "[hooks]\non_change = [\"/bin/true\"]\n",
                "the command [\"/bin/true\"]",
            ),
            (
                "health_check = { kind = \"exec\", command = [\"/bin/x\"] }\n",
                "the command [\"/bin/x\"]",
            ),
            (
                "[frontends.more]\nlisten_addr = \"192.0.2.1:80\"\nbackend = \"web\"\n",
                "the privileged port 80 (tcp)",
            ),
            (
                "[frontends.more]\nlisten_addr = \"192.0.2.1:8080\"\ninterface = \"eth7\"\nbackend = \"web\"\n",
                "the interface eth7",
            ),
            (
                "[frontends.more]\nlisten_addr = \"unix:/run/x.sock\"\nbackend = \"web\"\n",
                "the unix socket unix:/run/x.sock",
            ),
            (
                "[network_lists]\noffice = \"/etc/convey/key.pem\"\n",
                "the file /etc/convey/key.pem",
            ),
            (
                "servers.u = { addr = \"unix:/run/convey/admin.sock\" }\n",
                "the unix socket unix:/run/convey/admin.sock",
            ),
            (
                "[defaults.connection_log]\nfile = \"/var/lib/convey/x\"\n",
                "the file /var/lib/convey/x",
            ),
            (
                "[defaults.connection_log]\nsyslog = \"unix:/run/x.sock\"\n",
                "the unix socket unix:/run/x.sock",
            ),
            ("server_socket.interface = \"eth0\"\n", "the interface eth0"),
            ("server_socket.mark = 7\n", "the mark 7"),
            (
                "discovery = { kind = \"http\", url = \"http://10.0.0.9/\", token = \"${PATH}\" }\n",
                "with its token, the source http://10.0.0.9/",
            ),
            #[cfg(feature = "otlp")]
            (
                "[otlp]\nendpoint = \"http://127.0.0.1:4318\"\nheaders.authorization = \"${PATH}\"\n",
                "with its secrets, the collector http://127.0.0.1:4318/ (${PATH}; System, None)",
            ),
            ("[admin]\nlisten_addr = \"127.0.0.1:7001\"\n", "[admin] another"),
            ("[admin]\nsocket = \"/root/evil.sock\"\n", "[admin] another"),
            ("[global]\nuser = \"daemon\"\n", "`user` in [global] another"),
            (
                "[global]\nstate_dir = \"/srv\"\n",
                "`state_dir` in [global] another",
            ),
        ] {
            let why = refused(more).unwrap_or_else(|| panic!("allowed: {more}"));
            assert!(why.starts_with(what), "{why}");
            assert!(why.ends_with("edit /etc/convey/convey.toml on the host"), "{why}");
        }
    }

    #[test]
    fn what_an_administrator_has_written_comes_back_only_as_long_as_nothing_else_has_taken_effect() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("convey.toml");
        let hook = format!("{SITE}[hooks]\non_change = [\"/bin/true\"]\n");
        let (now, mut writes) = (config(""), Writes::new(true));
        let write = |writes: &mut Writes, before: &str, text: &str| {
            std::fs::write(&path, before).unwrap();
            writes.perform(&ConfigWrite {
                path: &path,
                name: "convey.toml",
                parse: config::load,
                options: Options::default(),
                now: &now,
                before: before.as_bytes(),
                text: text.as_bytes(),
            })
        };
        assert_eq!(write(&mut writes, &hook, SITE), Outcome::Done);
        assert_eq!(
            write(&mut writes, SITE, &hook),
            Outcome::Done,
            "it has not taken effect"
        );
        for forget in [Writes::in_effect, |writes: &mut Writes| writes.read(b"# by hand")] {
            assert_eq!(write(&mut writes, &hook, SITE), Outcome::Done);
            forget(&mut writes);
            let refused = write(&mut writes, SITE, &hook);
            assert!(matches!(refused, Outcome::Refused { .. }), "{refused:?}");
        }
        let refused = write(&mut Writes::new(false), SITE, SITE);
        assert!(matches!(refused, Outcome::Refused { .. }), "{refused:?}");
    }

    #[test]
    fn what_is_there_already_may_stay() {
        let more = "[frontends.more]\nlisten_addr = \"192.0.2.1:80\"\nbackend = \"web\"\n";
        let path = Path::new("/etc/convey/convey.toml");
        assert_eq!(adds_nothing(&config(more), &config(more), path), Ok(()));
        assert_eq!(adds_nothing(&config(more), &config(""), path), Ok(()));
    }
}
