//! From the bytes of a file to a [`Config`], and back.
//!
//! ```text
//! bytes ─ toml ─► spanned tree ─ raw ─► raw tables ─ resolve ─► Config ─ print ─► text that parses to the same Config
//!                     └──────────────────┴──────────────┴──► Diagnostics (all of them, each with its place)
//! ```

mod acme;
mod acme_orders;
mod address;
mod admin;
mod answer_format;
mod balancing;
mod certificate_dir;
mod check_addr;
mod checks;
mod command_list;
mod commands;
mod connection_log;
mod connections;
mod destination;
mod diff;
mod discovery;
mod discovery_source;
mod duration;
mod families;
mod findings;
mod foreign;
mod hidden;
mod http_service;
mod listen;
mod log_places;
mod merge;
pub mod model;
mod named_server;
mod otlp;
mod packet_modes;
mod place;
mod platforms;
mod print;
mod quote;
mod raw;
mod render;
mod resolve;
mod routing;
mod secret;
mod server_rules;
mod server_sockets;
mod services;
mod settings;
mod socket_path;
mod source;
mod synonyms;
mod text;
mod tls;
mod tls_names;
mod udp;
mod users;
mod words;

use std::{borrow::Cow, collections::BTreeSet, net::IpAddr, path::Path};

use crate::base::{BackendName, PortRanges};
use findings::Findings;

pub use acme::{Acme, CertificateOrder, Challenge, ExternalAccount};
pub(crate) use address::parse_server;
pub use admin::{Admin, AdminApi, AdminEntry};
pub use answer_format::{
    AnswerFormat, FormatKind, JsonPath, JsonPaths, JsonStep, LinePattern, NotAJsonPath, NotALinePattern,
};
pub use balancing::Sticky;
pub use certificate_dir::{DirectoryFile, MAX_DIRECTORY_ENTRIES, certificates_of};
pub use check_addr::{CheckAddr, NotACheckAddr};
pub use checks::{
    AgentCheck, Check, CheckKind, ExecCheck, Expected, HttpCheck, HttpMethod, MAX_PROBE_BYTES, Probe,
    ProbeBytes, ProbeRegex, StatusRange, TlsCheck,
};
pub use commands::{Command, Hooks, at_server};
pub use connection_log::{ConnectionLog, Facility, HostPort, NotASyslogServer, SyslogServer};
pub use connections::ConnectionRates;
pub use discovery::{Discovery, MAX_DISCOVERED, MaxRemoval, OnFailure};
pub use discovery_source::{ConsulQuery, DiscoveryKind, DiscoverySource, HOSTS, NameQuery, RESOLV_CONF};
pub(crate) use duration::parse as parse_duration;
#[cfg(feature = "import")]
pub(crate) use duration::print as print_duration;
pub use families::Families;
pub(crate) use hidden::without_secrets;
pub use http_service::{HttpService, SourceTls};
pub use merge::{MergeError, merge};
pub use model::*;
pub use named_server::{NamedServer, Resolve};
pub use otlp::{Compression, Otlp};
pub use platforms::{
    DockerAddress, DockerQuery, KubernetesQuery, KubernetesVia, LabelMatch, LxdFlavour, LxdQuery,
    NAMESPACE_FILE, ServicePort,
};
#[cfg(feature = "import")]
pub(crate) use quote::{key as toml_key, string as toml_string};
pub(crate) use render::in_one_line;
pub use routing::*;
pub use secret::{NotASecret, Secret};
pub use server_rules::{ServerRules, Unfit};
pub use services::{PacketService, ProxiedEndpoints};
pub use source::SourceAddress;
pub use tls::{
    BackendTls, CertificateFiles, FrontendTls, LOCAL_ADDRESS, SYSTEM_CAS, ServerAlpn, ServerNameFrom,
    ServerTrust,
};
pub use tls_names::*;
pub use udp::UdpSessions;
pub(crate) use words::nearest;

/// Largest configuration that is read, in bytes: far above any real one, small enough to hold twice.
pub const MAX_CONFIG_BYTES: usize = 4 << 20;

/// A configuration as it was read: where from, and what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// What diagnostics call the file.
    pub name: String,
    /// Its content, at most [`MAX_CONFIG_BYTES`].
    pub bytes: Vec<u8>,
}

/// What the command line adds to a configuration.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Mode of frontends that name none (`-p`, `-d`); proxy without.
    pub default_mode: Option<Mode>,
    /// NAT ports of a file that names none, as the host makes them at a start or reload; the stock list without.
    pub default_nat_ports: Option<PortRanges>,
    /// Control socket of a file that names none, where it is not `/run/convey/admin.sock`: that of a user who is not root.
    pub default_socket: Option<&'static Path>,
}

/// The host that a configuration is read on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Here {
    /// Its addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// How much it matters that they contradict the configuration: an error where it is to run, a warning where it may be
    /// another host's.
    pub severity: Severity,
}

/// A configuration that can be run.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What should be looked at but stops nothing.
    pub warnings: Vec<Diagnostic>,
}

/// One finding about a configuration.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// Name of the file.
    pub file: String,
    /// Line, from 1; 0 when the finding is about the file as a whole.
    pub line: usize,
    /// Column in characters, from 1; 0 when the finding is about the file as a whole.
    pub column: usize,
    /// Bytes of the source that it is about.
    #[serde(skip)]
    pub span: std::ops::Range<usize>,
    /// Dotted key path, such as `frontends.web.listen_addr`; empty for the file as a whole.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub help: Option<String>,
}

/// Weight of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can, but probably not as meant.
    Warning,
}

/// Parses and resolves a configuration.
///
/// # Errors
/// Every error and warning found, in the order of the file; of very many the first hundred, and how many more.
pub fn load(source: &Source, options: Options) -> Result<Loaded, Vec<Diagnostic>> {
    load_here(source, options, None)
}

/// As [`load`], on a host: servers of the packet modes that are this host itself are found too.
///
/// # Errors
/// As [`load`].
pub fn load_here(source: &Source, options: Options, here: Option<&Here>) -> Result<Loaded, Vec<Diagnostic>> {
    let mut findings = Findings::default();
    let text = text::decode(&source.bytes, &mut findings);
    let text = text.filter(|text| !text::is_foreign(text, &mut findings));
    let config = text.map(|text| {
        let mut mended = Cow::Borrowed("");
        let tree = text::parse(text, &mut mended, &mut findings);
        let file: raw::File = raw::read_file(&tree, &mut findings);
        resolve::resolve(&file, options, here, &mut findings)
    });
    let found = findings.finish(&source.name, &source.bytes);
    match config {
        Some(config) if found.iter().all(|d| d.severity == Severity::Warning) => Ok(Loaded {
            config,
            warnings: found,
        }),
        _ => Err(found),
    }
}

/// Findings as text for a terminal: `file:line:column`, an excerpt with a caret, a suggestion.
#[must_use]
pub fn render(findings: &[Diagnostic], source: &Source, colour: bool) -> String {
    render::render(findings, source, colour)
}

/// The canonical text of a configuration; [`load`] reads the same [`Config`] from it.
#[must_use]
pub fn print(config: &Config) -> String {
    print::print(config)
}

/// JSON Schema (2020-12) of the file, for editors.
#[must_use]
pub fn schema() -> serde_json::Value {
    let generator = schemars::generate::SchemaSettings::draft2020_12().into_generator();
    let mut schema = generator.into_root_schema_for::<raw::File>();
    schema.insert("title".to_owned(), "Convey".into());
    let both = serde_json::json!({ "required": ["packet", "passthrough"] });
    schema.insert("not".to_owned(), both);
    schema.to_value()
}

/// What a reload changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diff {
    /// One readable line each, such as `backend web: server a: weight 1 -> 3`; empty when nothing changed.
    pub changes: Vec<String>,
    /// Settings that differ and take effect only after a restart (such as `global.workers` and `packet.max_flows`), as
    /// key paths.
    pub needs_restart: Vec<String>,
    /// Backends that are new or changed, or that new or changed frontends lead to, by name.
    pub backends: Vec<BackendName>,
}

/// Compares two configurations.
#[must_use]
pub fn diff(old: &Config, new: &Config) -> Diff {
    diff::diff(old, new)
}
