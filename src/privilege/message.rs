//! What daemon and broker say to each other: one JSON document a message, descriptors beside it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{ListenerRef, Served, Takeover, What, XdpAttached};
use crate::{
    base::{Holder, PortRanges, SocketKind, SocketPath},
    config::PacketService,
    sys::{config_file::FileIdentity, fdpass::MAX_MESSAGE_BYTES},
};

/// Longest text in a reply, in bytes: far below [`MAX_MESSAGE_BYTES`] even if every byte must be escaped.
const MAX_TEXT_BYTES: usize = 4096;

/// Longest list of services, in bytes of JSON: enough for 200,000 servers, counted for each frontend that uses them.
pub const MAX_SERVICES_BYTES: usize = 8 << 20;

/// Maps and programs of the XDP engine that come with a reply.
pub const XDP_DESCRIPTORS: usize = 20;

/// Notes for the process after this one, which come with them.
pub const XDP_REGISTRY: usize = 3;

/// Tables of the XDP engine that are asked for at once, at most.
pub const MAX_TABLES: u8 = 16;

/// Daemon to broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Number of the request; the reply has the same one.
    pub number: u64,
    /// What to do.
    pub verb: Verb,
}

/// The few things that the broker does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Bind and listen.
    Bind(ListenerRef),
    /// Read a file and pass its bytes; adopt a configuration as the policy if it is valid.
    Read(What),
    /// Open a packet socket on the interface of this name.
    PacketSocket(String),
    /// Forget the packet sockets of the interface of this name.
    ReleasePacketSockets(String),
    /// Put rules and filters in effect for the services in the sealed memfd that comes with the request: they may be too
    /// many for a message.
    Serve,
    /// Make [`SocketKind::BATCH`] sockets towards servers.
    ServerSockets(SocketKind),
    /// Go on with the unix socket of a frontend that comes with the request: an earlier process has made it.
    TakeOverSocket(ListenerRef),
    /// Set who may connect to the unix socket of a frontend as the configuration says.
    SocketRights(ListenerRef),
    /// Remove the file of a unix socket that is listened at no longer.
    ReleaseSocket(SocketPath),
    /// Connect to a unix socket that a source of servers is asked at.
    Connect(SocketPath),
    /// Open a file that lines about connections are appended to.
    LogFile(PathBuf),
    /// Connect to the syslog socket that they are sent to.
    LogSocket(SocketPath),
    /// Replace the configuration file: the text that it must still have, and the new one, each in a sealed memfd that comes
    /// with the request.
    WriteConfig,
    /// Note that the configuration that was read from a file of this identity is in effect, and what only the one before it
    /// had is over.
    InEffect(FileIdentity),
    /// Load the program of the XDP engine with its maps; again: hand out the same once more.
    XdpLoad,
    /// Attach it to the interface of this name.
    XdpAttach(String),
    /// Detach it from the interface of this name.
    XdpDetach(String),
    /// Make so many tables for it, [`MAX_TABLES`] at most.
    XdpTables(u8),
    /// End what an earlier process has left of it and this one has not taken over.
    XdpSettled,
}

impl Verb {
    /// How many descriptors come with it: exactly.
    #[must_use]
    pub const fn descriptors(&self) -> usize {
        match self {
            Self::WriteConfig => 2,
            Self::Serve | Self::TakeOverSocket(_) => 1,
            Self::Bind(_)
            | Self::Read(_)
            | Self::PacketSocket(_)
            | Self::ReleasePacketSockets(_)
            | Self::ServerSockets(_)
            | Self::SocketRights(_)
            | Self::ReleaseSocket(_)
            | Self::Connect(_)
            | Self::LogFile(_)
            | Self::LogSocket(_)
            | Self::InEffect(_)
            | Self::XdpLoad
            | Self::XdpAttach(_)
            | Self::XdpDetach(_)
            | Self::XdpTables(_)
            | Self::XdpSettled => 0,
        }
    }
}

/// Broker to daemon. Number 0 is what it says unasked: at its start, and when a file or
/// the firewall has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reply {
    /// Number of the request.
    pub number: u64,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Outcome {
    /// The broker is confined and serves.
    Ready,
    /// The listening socket comes with the reply.
    Bound,
    /// A sealed memfd with the bytes of the file comes with the reply.
    Contents {
        /// Changes when it is saved again.
        identity: FileIdentity,
        /// For the configuration: the NAT ports by which the broker has resolved it where it names none.
        default_nat_ports: Option<PortRanges>,
    },
    /// Number 0, said unasked: the file is another than when it was last read.
    Changed(What),
    /// Number 0, said unasked: another program may have changed the firewall rules.
    RulesChanged,
    /// The packet socket comes with the reply.
    PacketSocket,
    /// [`SocketKind::BATCH`] sockets towards servers come with the reply.
    ServerSockets,
    /// The connected socket comes with the reply.
    Connected,
    /// The file comes with the reply, open to be appended to.
    LogFile,
    /// Done; there is nothing to pass.
    Done,
    /// The file is not the one that was to be replaced.
    Stale,
    /// The services are in effect.
    Served(Served),
    /// Another process holds the packet modes of this network namespace.
    Held(Holder),
    /// The program of the XDP engine is loaded: [`XDP_DESCRIPTORS`] of its maps and programs come with the reply, and
    /// [`XDP_REGISTRY`] notes.
    XdpLoaded {
        /// Whether it goes on with what an earlier process has left.
        takeover: Takeover,
        /// Why the process after this one will not find it, if it will not.
        not_kept: Option<String>,
    },
    /// Where it is attached to an interface now.
    XdpAttached(XdpAttached),
    /// So many tables come with the reply.
    XdpTables(u8),
    /// The policy does not allow it.
    Refused {
        /// Why.
        why: String,
    },
    /// A system call failed.
    Failed {
        /// Which step of what.
        step: String,
        /// The error number, 0 if there is none.
        errno: i32,
    },
    /// It could not be done; what was in effect still is.
    Unable {
        /// Why, and what to do.
        why: String,
    },
    /// The file cannot be read.
    Unreadable {
        /// Why, and what to do.
        why: String,
    },
}

impl Outcome {
    /// How many descriptors come with it: exactly.
    #[must_use]
    pub const fn descriptors(&self) -> usize {
        match self {
            Self::Bound | Self::Contents { .. } | Self::PacketSocket | Self::Connected | Self::LogFile => 1,
            Self::ServerSockets => SocketKind::BATCH,
            Self::XdpLoaded { .. } => XDP_DESCRIPTORS + XDP_REGISTRY,
            Self::XdpTables(count) => *count as usize,
            Self::Ready
            | Self::Changed(_)
            | Self::RulesChanged
            | Self::Done
            | Self::Stale
            | Self::Served(_)
            | Self::Held(_)
            | Self::XdpAttached(_)
            | Self::Refused { .. }
            | Self::Failed { .. }
            | Self::Unable { .. }
            | Self::Unreadable { .. } => 0,
        }
    }

    /// A refusal.
    #[must_use]
    pub fn refused(why: &str) -> Self {
        Self::Refused { why: shorten(why) }
    }

    /// Services are in effect.
    #[must_use]
    pub fn served(served: Served) -> Self {
        Self::Served(Served {
            warning: served.warning.map(|text| shorten(&text)),
            ..served
        })
    }

    /// Somebody else holds the packet modes.
    #[must_use]
    pub fn held(holder: Holder) -> Self {
        Self::Held(Holder {
            config_file: holder.config_file.map(|file| shorten(&file)),
            ..holder
        })
    }

    /// The program of the XDP engine is loaded.
    #[must_use]
    pub fn xdp_loaded(takeover: Takeover, not_kept: Option<&str>) -> Self {
        Self::XdpLoaded {
            takeover: match takeover {
                Takeover::Refused { why } => Takeover::Refused { why: shorten(&why) },
                other => other,
            },
            not_kept: not_kept.map(shorten),
        }
    }

    /// Where the program of the XDP engine is attached.
    #[must_use]
    pub fn xdp_attached(attached: &XdpAttached) -> Self {
        Self::XdpAttached(XdpAttached {
            mode: attached.mode,
            why: shorten(&attached.why),
            not_kept: attached.not_kept.as_deref().map(shorten),
        })
    }

    /// Something that could not be done.
    #[must_use]
    pub fn unable(why: &str) -> Self {
        Self::Unable { why: shorten(why) }
    }

    /// A file that cannot be read.
    #[must_use]
    pub fn unreadable(why: &str) -> Self {
        Self::Unreadable { why: shorten(why) }
    }

    /// A step that failed.
    #[must_use]
    pub fn failed(step: &str, errno: i32) -> Self {
        Self::Failed {
            step: shorten(step),
            errno,
        }
    }
}

fn shorten(text: &str) -> String {
    let end = (0..=text.len().min(MAX_TEXT_BYTES))
        .rev()
        .find(|&at| text.is_char_boundary(at))
        .unwrap_or(0);
    text.get(..end).unwrap_or_default().to_owned()
}

/// Why bytes are not a message.
#[derive(Debug, thiserror::Error)]
pub enum FormError {
    /// More than fits.
    #[error("a message of {0} bytes is longer than {MAX_MESSAGE_BYTES}")]
    TooLong(usize),
    /// More services than fit.
    #[error(
        "the VIPs and servers of all packet-mode frontends together are too many: {0} bytes as JSON, \
         at most {MAX_SERVICES_BYTES}; use fewer frontends for a backend, or several load balancers"
    )]
    TooManyServices(usize),
    /// Not what the type says.
    #[error("malformed message: {0}")]
    Malformed(#[from] serde_json::Error),
}

/// The bytes of a message.
///
/// # Errors
/// It is too long.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FormError> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() > MAX_MESSAGE_BYTES {
        Err(FormError::TooLong(bytes.len()))
    } else {
        Ok(bytes)
    }
}

/// The bytes of a list of services, which travel in a sealed memfd.
///
/// # Errors
/// There are more than [`MAX_SERVICES_BYTES`].
pub fn encode_services(services: &[PacketService]) -> Result<Vec<u8>, FormError> {
    let bytes = serde_json::to_vec(services)?;
    if bytes.len() > MAX_SERVICES_BYTES {
        Err(FormError::TooManyServices(bytes.len()))
    } else {
        Ok(bytes)
    }
}

/// The message that bytes are.
///
/// # Errors
/// They are no such message: unknown fields and verbs, missing fields and trailing bytes included.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, FormError> {
    Ok(serde_json::from_slice(bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;

    use crate::base::{Endpoint, IpFamily, IpServerAddr, ListenerId, Protocol};

    fn at_path() -> ListenerRef {
        ListenerRef::Frontend {
            name: "web".into(),
            listener: ListenerId::Unix(SocketPath::new("/run/web.sock").unwrap()),
        }
    }

    #[test]
    fn requests_survive_the_way() {
        for verb in [
            Verb::Bind(ListenerRef::Stats),
            Verb::Bind(ListenerRef::Frontend {
                name: "größe".into(),
                listener: Endpoint::tcp(([127, 0, 0, 1], 80).into()).into(),
            }),
            Verb::TakeOverSocket(at_path()),
            Verb::SocketRights(at_path()),
            Verb::ReleaseSocket(SocketPath::new("/run/größe.sock").unwrap()),
            Verb::Connect(SocketPath::new("/run/docker.sock").unwrap()),
            Verb::LogFile("/var/log/größe".into()),
            Verb::LogSocket(SocketPath::new("/dev/log").unwrap()),
            Verb::Read(What::Config),
            Verb::PacketSocket("eth0".into()),
            Verb::ReleasePacketSockets("größe\0".into()),
            Verb::Serve,
            Verb::ServerSockets(SocketKind {
                protocol: Protocol::Udp,
                family: IpFamily::V6,
                is_transparent: true,
                mark: NonZeroU32::new(7),
            }),
            Verb::InEffect(FileIdentity::of_test(1)),
            Verb::XdpLoad,
            Verb::XdpAttach("eth0".into()),
            Verb::XdpDetach("größe\0".into()),
            Verb::XdpTables(16),
            Verb::XdpSettled,
        ] {
            let request = Request { number: 7, verb };
            assert_eq!(decode::<Request>(&encode(&request).unwrap()).unwrap(), request);
        }
    }

    #[test]
    fn nothing_but_a_known_message_is_taken() {
        for bytes in [
            "",
            "{}",
            "null",
            r#"{"number":1,"verb":"read"}"#,
            r#"{"number":1,"verb":{"read":"/etc/shadow"}}"#,
            r#"{"number":1,"verb":{"read":"config"},"path":"/etc/shadow"}"#,
            r#"{"number":1,"verb":{"bind":{"frontend":{"name":"web","addr":"0.0.0.0:80","as":"root"}}}}"#,
            r#"{"number":-1,"verb":{"read":"config"}}"#,
            r#"{"number":1,"verb":"packet_socket"}"#,
            r#"{"number":1,"verb":{"packet_socket":2}}"#,
            r#"{"number":1,"verb":{"packet_socket":{"interface":"eth0"}}}"#,
            r#"{"number":1,"verb":{"serve":[]}}"#,
            r#"{"number":1,"verb":"server_sockets"}"#,
            r#"{"number":1,"verb":{"server_sockets":{"protocol":"tcp","family":"v4","is_transparent":true,"mark":0}}}"#,
            r#"{"number":1,"verb":{"server_sockets":{"protocol":"tcp","family":"unix","is_transparent":true,"mark":null}}}"#,
            r#"{"number":1,"verb":{"server_sockets":{"protocol":"tcp","family":"v4","is_transparent":true,"mark":null,"count":1000}}}"#,
            r#"{"number":1,"verb":{"read":"config"}} {"number":2,"verb":{"read":"config"}}"#,
            r#"{"number":1,"verb":{"release_socket":"/run/web.sock"}}"#,
            r#"{"number":1,"verb":{"release_socket":"unix:/run/../etc/passwd"}}"#,
            r#"{"number":1,"verb":{"connect":"10.0.0.1:80"}}"#,
            r#"{"number":1,"verb":{"xdp_load":"/tmp/program.o"}}"#,
            r#"{"number":1,"verb":{"xdp_tables":256}}"#,
            "\u{0}\u{1}\u{2}",
        ] {
            assert!(decode::<Request>(bytes.as_bytes()).is_err(), "{bytes} was taken");
        }
    }

    #[test]
    fn the_fuzzer_begins_with_messages_as_they_are_now() {
        let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz/seeds/broker");
        let identity = serde_json::to_string(&FileIdentity::of_test(1)).unwrap();
        let mut verbs = 0;
        for seed in std::fs::read_dir(seeds).unwrap() {
            let path = seed.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            for line in text.lines().filter(|line| line.starts_with('{')) {
                let message = line.split('\t').next().unwrap_or_default();
                let message = message.replace("\"$read\"", &identity);
                let is_one = decode::<Request>(message.as_bytes()).is_ok();
                let is_exec = message.contains("\"exec\"");
                assert_eq!(is_one, !is_exec, "{}: {message}", path.display());
                verbs += usize::from(is_one);
            }
        }
        assert!(verbs > 50, "{verbs}");
    }

    #[test]
    fn services_have_one_form_and_a_limit() {
        let service = PacketService {
            vip: Endpoint::udp(([10, 0, 0, 1], 80).into()).into(),
            nat_ports: Some(PortRanges::STOCK),
            servers: vec![IpServerAddr::new(([10, 0, 0, 2], 80).into())],
        };
        let services = vec![service.clone(), service.clone()];
        let bytes = encode_services(&services).unwrap();
        assert_eq!(decode::<Vec<PacketService>>(&bytes).unwrap(), services);
        let odd = String::from_utf8(bytes)
            .unwrap()
            .replace("\"vip\"", "\"interface\":\"eth0\",\"vip\"");
        assert!(
            decode::<Vec<PacketService>>(odd.as_bytes()).is_err(),
            "{odd} was taken"
        );

        let many = PacketService {
            servers: vec![service.servers[0]; MAX_SERVICES_BYTES / 10],
            ..service
        };
        let error = encode_services(&[many]).unwrap_err().to_string();
        assert!(error.contains("too many"), "{error}");
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character_and_fits() {
        let outcome = Outcome::refused(&"ß\u{1}".repeat(MAX_MESSAGE_BYTES));
        let reply = Reply {
            number: u64::MAX,
            outcome,
        };
        let bytes = encode(&reply).unwrap();
        assert_eq!(decode::<Reply>(&bytes).unwrap(), reply);
    }
}
