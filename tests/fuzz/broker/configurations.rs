//! The configurations that the broker reads, and what each gives: said by hand, not read from them by the product's code.
//!
//! They name addresses for documentation only, which no host has: nothing is listened on but unix sockets in the target's own
//! directory, which texts and messages call `/fuzz`.

use std::{num::NonZeroU32, path::PathBuf, sync::LazyLock};

use convey::{
    base::{IpFamily, NetworkListName, Protocol, SocketKind},
    config::{self, Config, Diagnostic, Loaded, Options, Source},
    privilege::What,
};

use super::place;

/// One that may stand in the file.
pub struct Configuration {
    /// As the operator wrote it, with the target's own directory in it.
    pub text: String,
    /// What the product makes of it, once: how, is another target's concern.
    loaded: Result<Loaded, Vec<Diagnostic>>,
    /// What it gives the process that is an administrator's to give, in words.
    powers: &'static [&'static str],
    /// The unix sockets that sources of servers are asked at.
    pub sources: &'static [&'static str],
    /// The sockets towards servers that only the broker can make.
    kinds: &'static [Kind],
    /// The files that it names besides, by their names in the target's directory.
    files: &'static [Named],
    /// The unix sockets that are listened at, each with its frontend and its mode.
    pub sockets: &'static [(&'static str, &'static str, u32)],
}

/// Whether it is transparent, and its mark: all are of TCP over IPv4.
type Kind = (bool, Option<u32>);

/// A file that a configuration names.
enum Named {
    List(&'static str, &'static str),
    Tls(&'static str),
    Tokens(&'static str),
}

/// Everything that there is.
const FULL: &str = r#"
    [packet]
    nat_ports = "50000-50100"
    [stats]
    port = 7000
    listen_addr = "192.0.2.9"
    [admin]
    allow_config_writes = true
    [network_lists]
    office = "/fuzz/office.list"
    [frontends.web]
    listen_addr = ["192.0.2.1:80", "[2001:db8::1]:80", "unix:/fuzz/web.sock"]
    socket_mode = "0600"
    backend = "pool"
    [frontends.clients]
    listen_addr = "192.0.2.4:8080"
    source = "client"
    backend = "pool"
    [frontends.marked]
    listen_addr = ["192.0.2.4:8081", "unix:/fuzz/precious"]
    backend = "marked"
    [frontends.found]
    listen_addr = "192.0.2.4:8082"
    backend = "found"
    [frontends.nat]
    listen_addr = "192.0.2.2:80"
    mode = "passthrough"
    interface = "eth0"
    backend = "pool"
    [frontends.dns]
    listen_addr = ["192.0.2.3:53", "[2001:db8::3]:53"]
    mode = "dsr"
    protocol = "udp"
    backend = "names"
    [backends.pool]
    servers.a = { addr = "198.51.100.1:80" }
    servers.b = { addr = "198.51.100.2:80" }
    [backends.marked]
    server_socket.mark = 7
    servers.a = { addr = "198.51.100.4:80" }
    servers.u = { addr = "unix:/fuzz/secret.sock" }
    [backends.found.discovery]
    kind = "docker"
    url = "unix:/fuzz/docker.sock"
    port = 80
    [backends.names]
    dsr_method = "nft"
    servers.a = { addr = "198.51.100.3:53" }
    servers.b = { addr = "[2001:db8:2::3]:53" }
"#;

/// Another one, which the API may not replace.
const OTHER: &str = r#"
    [packet]
    nat_ports = "40000-40100"
    [admin]
    listen_addr = "192.0.2.8:7001"
    tls = { cert = "/fuzz/admin.pem" }
    tokens_file = "/fuzz/tokens"
    [frontends.web]
    listen_addr = ["192.0.2.1:81", "unix:/fuzz/web.sock", "unix:/fuzz/other.sock"]
    socket_mode = "0666"
    backend = "pool"
    [frontends.nat]
    listen_addr = "192.0.2.2:80"
    mode = "passthrough"
    backend = "pool"
    [backends.pool]
    servers.a = { addr = "198.51.100.1:80" }
"#;

/// A part of the first one, with a server and a frontend that are new.
const PART: &str = r#"
    [packet]
    nat_ports = "50000-50100"
    [admin]
    allow_config_writes = true
    [frontends.web]
    listen_addr = ["192.0.2.1:80", "192.0.2.1:8443", "unix:/fuzz/web.sock"]
    socket_mode = "0640"
    backend = "pool"
    [backends.pool]
    servers.a = { addr = "198.51.100.1:80" }
    servers.c = { addr = "198.51.100.9:80" }
"#;

const WEB: &[(&str, &str, u32)] = &[("web.sock", "web", 0o640)];

/// The part with a line more each, that no API may add to it.
const MORE: [(&str, &[&str]); 6] = [
    (
        "[hooks]\non_change = [\"/bin/true\"]",
        &["command", "admin", "port 80", "web.sock"],
    ),
    (
        "[frontends.ssh]\nlisten_addr = \"192.0.2.1:22\"\nbackend = \"pool\"",
        &["port 22", "admin", "port 80", "web.sock"],
    ),
    (
        "[backends.more]\nservers.u = { addr = \"unix:/fuzz/secret.sock\" }\nservers.v = { addr = \"unix:/fuzz/new.sock\" }",
        &["new.sock", "secret.sock", "admin", "port 80", "web.sock"],
    ),
    (
        "[backends.more]\nserver_socket.mark = 8\nservers.a = { addr = \"198.51.100.4:80\" }",
        &["mark 8", "admin", "port 80", "web.sock"],
    ),
    (
        "[network_lists]\noffice = \"/fuzz/secret\"",
        &["file secret", "admin", "port 80", "web.sock"],
    ),
    (
        "[global]\nuser = \"root\"",
        &["user", "admin", "port 80", "web.sock"],
    ),
];

/// All of them, by the number that an input has for them.
pub static ALL: LazyLock<Vec<Configuration>> = LazyLock::new(|| {
    let full = Configuration {
        powers: &[
            "admin",
            "port 80",
            "port 53",
            "web.sock",
            "precious",
            "secret.sock",
            "docker.sock",
            "mark 7",
            "transparent",
            "interface eth0",
            "file office",
        ],
        sources: &["docker.sock"],
        kinds: &[(true, None), (false, Some(7))],
        files: &[Named::List("office", "office.list")],
        sockets: &[("web.sock", "web", 0o600), ("precious", "marked", 0o660)],
        ..Configuration::new(FULL)
    };
    let other = Configuration {
        powers: &[
            "another admin",
            "port 80",
            "port 81",
            "web.sock",
            "other.sock",
            "files of admin",
        ],
        files: &[Named::Tls("admin.pem"), Named::Tokens("tokens")],
        sockets: &[("web.sock", "web", 0o666), ("other.sock", "web", 0o666)],
        ..Configuration::new(OTHER)
    };
    let part = Configuration {
        powers: &["admin", "port 80", "web.sock"],
        sockets: WEB,
        ..Configuration::new(PART)
    };
    let mut all = vec![full, other, Configuration::new("this is no configuration"), part];
    for (line, powers) in MORE {
        all.push(Configuration {
            powers,
            sockets: WEB,
            files: if line.starts_with("[network_lists]") {
                &[Named::List("office", "secret")]
            } else {
                &[]
            },
            ..Configuration::new(&format!("{PART}\n{line}\n"))
        });
    }
    for (number, one) in all.iter().enumerate() {
        assert_eq!(one.loaded.is_err(), number == 2, "{number}: {:?}", one.loaded);
    }
    all
});

impl Configuration {
    /// One that gives nothing.
    fn new(text: &str) -> Self {
        let text = place::in_place(text.as_bytes());
        let source = Source {
            name: "convey.toml".to_owned(),
            bytes: text.clone(),
        };
        Self {
            text: String::from_utf8(text).expect("a text"),
            loaded: config::load(&source, Options::default()),
            powers: &[],
            sources: &[],
            kinds: &[],
            files: &[],
            sockets: &[],
        }
    }

    /// What it is, if it is valid.
    pub fn config(&self) -> Option<&Config> {
        self.loaded.as_ref().ok().map(|loaded| &loaded.config)
    }

    /// Whether it gives the process nothing that another one does not.
    pub fn adds_nothing_to(&self, now: &Self) -> bool {
        self.powers.iter().all(|power| now.powers.contains(power))
    }

    /// Whether it needs sockets of a kind that only the broker can make.
    pub fn needs(&self, kind: SocketKind) -> bool {
        self.kinds.iter().any(|&(is_transparent, mark)| {
            let needed = SocketKind {
                protocol: Protocol::Tcp,
                family: IpFamily::V4,
                is_transparent,
                mark: mark.and_then(NonZeroU32::new),
            };
            kind == needed
        })
    }

    /// The file of the target's directory that it names, as what it names it.
    pub fn file(&self, what: &What) -> Option<&'static str> {
        self.files.iter().find_map(|named| {
            let (name, it) = match *named {
                Named::List(list, name) => (
                    name,
                    What::NetworkList(NetworkListName::new(list).expect("a name")),
                ),
                Named::Tls(name) => (name, What::TlsFile(path_of(name))),
                Named::Tokens(name) => (name, What::TokensFile(path_of(name))),
            };
            (it == *what).then_some(name)
        })
    }
}

fn path_of(name: &str) -> PathBuf {
    place::directory().join(name)
}

/// The number of a text, if it is one of them.
pub fn number_of(text: &[u8]) -> Option<usize> {
    ALL.iter().position(|one| one.text.as_bytes() == text)
}

/// The broker's parser. A text that is none of them is no configuration.
pub fn parse(source: &Source, _: Options) -> Result<Loaded, Vec<Diagnostic>> {
    let known = number_of(&source.bytes).map(|number| ALL[number].loaded.clone());
    known.unwrap_or_else(|| Err(Vec::new()))
}
