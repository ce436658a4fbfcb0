//! The command line's grammar, and with it the text of `--help`, the man pages and the completions.

mod acme;
mod backend;
mod configuration;
mod doctor;
mod events;
mod firewall;
mod import;
mod overrides;
mod reload;
mod server;
mod token;
mod top;
mod wait;

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum, value_parser};

use crate::{
    base::{PortRange, PortRanges, Protocol},
    config::{Mode, Options},
    sys::environment,
};

pub use acme::{AcmeCommand, AcmeRenewArgs, AcmeStatusArgs};
pub use backend::BackendCommand;
pub use configuration::{
    ConfigCommand, ConfigDiffArgs, ConfigEditArgs, ConfigHistoryArgs, ConfigRollbackArgs, ConfigShowArgs,
};
pub use doctor::{DoctorArgs, SupportArgs};
pub use events::EventsArgs;
pub use firewall::{FirewallClearArgs, FirewallCommand, FirewallShowArgs};
pub use import::ImportArgs;
#[cfg(feature = "import")]
pub use import::ImportKind;
pub use overrides::{ClearOverridesArgs, OverridesArgs, OverridesCommand, OverridesHistoryArgs};
pub use reload::ReloadArgs;
pub use server::{AddServerArgs, ForceArgs, ServerCommand};
pub use token::{TokenArgs, TokenRole};
pub use top::TopArgs;
pub use wait::{DrainWaitArgs, SettleArgs};

/// A layer-4 load balancer for Linux.
///
/// Without a subcommand, convey runs: it reads its configuration, listens on the addresses of its frontends and
/// relays connections to the servers of their backends, or forwards their packets, until it is told to stop. It reads
/// the configuration again when the file changes, on SIGHUP and on `convey reload`, without dropping established
/// connections. SIGTERM lets connections finish for `shutdown_timeout`, a second one stops at once.
#[derive(Debug, Parser)]
#[command(name = "convey", version, disable_version_flag = true)]
pub struct Cli {
    /// Configuration file [default: config.toml if there is one here, else /etc/convey/convey.toml]
    #[arg(short, long, value_name = "FILE", global = true, value_parser = value_parser!(PathBuf))]
    pub config: Option<PathBuf>,

    #[command(flatten)]
    pub mode: ModeArgs,

    /// Print the version
    #[arg(short = 'v', long, short_alias = 'V', action = clap::ArgAction::Version)]
    pub version: Option<bool>,

    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The mode of frontends that name none.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct ModeArgs {
    /// Frontends that name no mode are passthrough: packets are forwarded with both addresses rewritten, and servers see
    /// the load balancer's
    #[arg(short, long, conflicts_with = "dsr")]
    pub passthrough: bool,

    /// Frontends that name no mode are DSR: only the destination of packets is rewritten, and servers answer the clients
    /// directly
    #[arg(short, long)]
    pub dsr: bool,
}

impl ModeArgs {
    /// Whether a mode was given at all.
    pub const fn any(self) -> bool {
        self.passthrough || self.dsr
    }

    /// These flags or, if there are none, the others.
    pub const fn or(self, other: Self) -> Self {
        if self.any() { self } else { other }
    }

    /// What they mean to the configuration.
    pub fn options(self) -> Options {
        let default_mode = match (self.passthrough, self.dsr) {
            (true, _) => Some(Mode::Passthrough),
            (_, true) => Some(Mode::Dsr),
            (false, false) => None,
        };
        Options {
            default_mode,
            default_nat_ports: None,
            default_socket: environment::user_socket(),
        }
    }
}

/// What else convey can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a commented configuration to start from
    ///
    /// Six lines at its top are a load balancer once their `#` is removed; below them is every setting with its default.
    Init(InitArgs),

    /// Check a configuration file without running it
    ///
    /// Reports every error and warning at once, each with its line and column. Exits with 0 when the configuration
    /// is valid (warnings do not matter), 78 when it has errors, and 66 when the file cannot be read. `convey check -` reads
    /// standard input.
    Check(CheckArgs),

    /// Show what the running convey does
    ///
    /// Its frontends and backends, and for each server its state and since when, why it is in it, its weight, and its
    /// connections and bytes. For the packet modes: how full the flow table is, packets by verdict, and the
    /// next hops to the servers.
    Status(StatusArgs),

    /// Watch the servers, those with the most new connections first
    ///
    /// As `convey status --watch` on a terminal, in another order. q leaves, the arrows choose a server, Enter shows its detail, s
    /// sorts by something else, r the other way round.
    Top(TopArgs),

    /// Reload the configuration of the running convey
    ///
    /// Returns when the new configuration is in effect and prints what changed. If it has errors, nothing changes, the
    /// errors are printed and the exit status is 78; if the system refuses something (a port that is taken), nothing
    /// changes either and it is 71. With --wait it is 69 if a backend that the change concerns has no eligible server when the time
    /// is over.
    Reload(ReloadArgs),

    /// Take a server out of service, bring it back, override its weight, close its connections, add or remove one
    ///
    /// The override holds until `ready` clears it or the server is removed from the configuration; neither a reload nor a
    /// restart undoes it.
    #[command(subcommand)]
    Server(ServerCommand),

    /// Override all servers of a backend, or close its connections
    ///
    /// The overrides are those of `convey server`: each server has its own afterwards.
    #[command(subcommand)]
    Backend(BackendCommand),

    /// List or clear what operators have overridden
    Overrides(OverridesArgs),

    /// Show, compare, edit or roll back the configuration of the running convey
    ///
    /// `edit` and `rollback` write the configuration file through the running convey. That takes `allow_config_writes = true`
    /// in [admin]; without it, edit the file and run `convey reload`.
    #[command(subcommand)]
    Config(ConfigCommand),

    /// Show or renew the certificates that are ordered by themselves
    #[command(subcommand)]
    Acme(AcmeCommand),

    /// List the open connections and the flows of the packet modes
    ///
    /// Connections first, the oldest before the others, then flows. What is no longer configured is marked (removed).
    Connections(ConnectionsArgs),

    /// List what has happened: servers and backends that came and went, reloads, requests of operators, warnings
    ///
    /// The last ones, the newest at the end; with --follow those that come, too, also over a restart of convey.
    Events(EventsArgs),

    /// Show which server a client would be sent to now, and why
    ///
    /// For example: convey explain tcp 192.0.2.1:40000 10.0.0.1:80. Nothing is sent, and nothing changes. Exits with 0
    /// when there is a server, and 69 when there is none.
    Explain(ExplainArgs),

    /// Find out what is wrong with this host and the convey on it
    ///
    /// Looks at the configuration and its files, what the running convey says of itself, firewall rules, ports, open files,
    /// connection tracking, the clock, and interfaces. Each finding comes with what to do. Exits with 0 if there is nothing
    /// but notes, with 75 if there are warnings, and with 69 if something does not work. Runs without a running convey and without
    /// root, too, and says what it could not look at.
    Doctor(DoctorArgs),

    /// Write an archive with everything that somebody needs to help
    ///
    /// Version, configuration and its history, status, the doctor's findings, logs, addresses, routes, neighbours, rules and
    /// limits. Keys, tokens and passwords are removed; names and addresses are not, so look at it before you send it. As root it
    /// has more in it; what could not be read is said.
    Support(SupportArgs),

    /// Print what to run on a server so that it answers for a frontend in mode dsr
    ///
    /// The script is made from the configuration file; convey need not run. For example: convey backend-script web web1
    /// | ssh root@web1 sh
    BackendScript(BackendScriptArgs),

    /// Show or remove the firewall rules of the packet modes
    ///
    /// The running convey maintains them itself; use this to inspect them, and to remove those that a killed convey left behind.
    #[command(subcommand)]
    Firewall(FirewallCommand),

    /// Make a token for the admin API
    ///
    /// Prints its line for the file of [admin] tokens_file on standard output, and the token itself on standard error: it is
    /// kept nowhere, so note it where it is used. For example, as root: convey token grafana --role read >>
    /// /etc/convey/tokens
    Token(TokenArgs),

    /// Translate another load balancer's configuration
    ///
    /// Prints a configuration of Convey on standard output, with a comment at each thing that differs or has no equal, and lists
    /// these on standard error. Exits with 0 when the file could be read as one of that kind, 65 when it could not, and 78 when
    /// what came of it has errors, which are shown. For example: convey import haproxy /etc/haproxy/haproxy.cfg > convey.toml
    Import(ImportArgs),

    /// Print the completion script of a shell
    ///
    /// For example: convey completions bash > /etc/bash_completion.d/convey
    Completions(CompletionsArgs),

    /// Print names for completions
    #[command(hide = true)]
    Names(NamesArgs),

    /// Write the man pages into a directory
    #[command(hide = true)]
    GenerateMan(GenerateManArgs),
}

/// Where the running convey is reached.
#[derive(Debug, Clone, Default, Args)]
pub struct DaemonArgs {
    /// Control socket of the running convey [default: the configuration's, else a user's own in $XDG_RUNTIME_DIR if convey runs
    /// there, else /run/convey/admin.sock]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

/// Arguments of `convey init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// The file, which must not exist yet; `-` prints it
    #[arg(value_name = "FILE", default_value = "config.toml")]
    pub file: PathBuf,
}

/// Arguments of `convey check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The file, as with --config; `-` is standard input
    #[arg(value_name = "FILE", conflicts_with = "config")]
    pub file: Option<PathBuf>,

    #[command(flatten)]
    pub mode: ModeArgs,

    /// How findings are printed
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub format: Format,

    /// Print the configuration in full, with every default, if it has no errors
    #[arg(long, conflicts_with = "format")]
    pub print: bool,

    /// The other host's net.ipv4.ip_local_port_range, FIRST-LAST, from which the default of nat_ports follows
    #[arg(long, value_name = "FIRST-LAST", value_parser = port_range)]
    pub ephemeral: Option<PortRange>,

    /// Print the JSON Schema of configuration files, for editors
    #[arg(long, conflicts_with_all = ["file", "format", "print"])]
    pub schema: bool,
}

/// One range of ports.
fn port_range(text: &str) -> Result<PortRange, String> {
    let ranges: Vec<PortRange> = (text.parse::<PortRanges>())
        .map(|ranges| ranges.iter().collect())
        .unwrap_or_default();
    match ranges.as_slice() {
        [range] => Ok(*range),
        _ => Err("write the first and the last port, such as 32768-60999".to_owned()),
    }
}

/// How `convey check` speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Excerpts of the file with suggestions, for people
    Human,
    /// One JSON object, for programs
    Json,
}

/// Arguments of `convey status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Show only these frontends, backends and servers (BACKEND/SERVER)
    #[arg(value_name = "NAME", conflicts_with = "quiet")]
    pub names: Vec<String>,

    /// Show only servers that are down, and frontends and backends that serve nobody
    #[arg(long, conflicts_with = "quiet")]
    pub down: bool,

    #[command(flatten)]
    pub target: DaemonArgs,

    /// Refresh every second (or every SECONDS) and show rates, what is down first
    ///
    /// On a terminal: q leaves, the arrows choose a server, Enter shows its detail, s sorts by something else, r the other way round.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "1",
          value_parser = parse_interval)]
    pub watch: Option<f64>,

    /// Print JSON; with --watch one object a line
    #[arg(long)]
    pub json: bool,

    /// Print nothing; exit with 0 if convey serves, else with 69
    ///
    /// It serves if it runs and each frontend has an eligible server and a listener, or live VIPs. A VIP that no
    /// interface of this host has is not a fault: on a standby, keepalived could not take over otherwise.
    #[arg(long, short, conflicts_with_all = ["watch", "json"])]
    pub quiet: bool,

    /// With --quiet: ask about this frontend only
    #[arg(long, value_name = "NAME", requires = "quiet")]
    pub frontend: Option<String>,
}

/// Arguments of `convey connections`.
#[derive(Debug, Args)]
pub struct ConnectionsArgs {
    /// Only those of this frontend
    #[arg(long, value_name = "NAME")]
    pub frontend: Option<String>,

    /// Only those to this backend
    #[arg(long, value_name = "NAME")]
    pub backend: Option<String>,

    /// Only those to servers of this name
    #[arg(long, value_name = "NAME")]
    pub server: Option<String>,

    /// List at most this many
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = value_parser!(u32).range(1..=100_000))]
    pub limit: u32,

    /// Print JSON
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub target: DaemonArgs,
}

/// Arguments of `convey explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The protocol
    #[arg(value_enum)]
    pub protocol: Transport,

    /// Source address and port of the client
    #[arg(value_name = "CLIENT:PORT", value_parser = parse_address)]
    pub client: SocketAddr,

    /// Destination address and port, those of a frontend
    #[arg(value_name = "VIP:PORT", value_parser = parse_address)]
    pub vip: SocketAddr,

    /// Name that the client asks for in its TLS ClientHello (SNI), for frontends with routes
    #[arg(long, value_name = "NAME")]
    pub sni: Option<String>,

    /// Protocols that the client offers in its TLS ClientHello, such as h2,http/1.1
    #[arg(long, value_name = "PROTOCOLS")]
    pub alpn: Option<String>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub target: DaemonArgs,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Transport {
    /// TCP
    Tcp,
    /// UDP
    Udp,
}

impl From<Transport> for Protocol {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Tcp => Self::Tcp,
            Transport::Udp => Self::Udp,
        }
    }
}

/// Arguments of `convey backend-script`.
#[derive(Debug, Args)]
pub struct BackendScriptArgs {
    /// A frontend in mode dsr
    pub frontend: String,

    /// A server of its backend
    pub server: String,

    #[command(flatten)]
    pub mode: ModeArgs,
}

/// Arguments of `convey completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// Arguments of `convey names`.
#[derive(Debug, Args)]
pub struct NamesArgs {
    /// Of what
    #[arg(value_enum)]
    pub kind: NameKind,

    #[command(flatten)]
    pub target: DaemonArgs,
}

/// What can be named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum NameKind {
    /// Frontends
    Frontends,
    /// Backends
    Backends,
    /// Servers, without their backends
    Servers,
    /// BACKEND/SERVER
    Pairs,
    /// Frontends, backends and BACKEND/SERVER
    Any,
}

/// Arguments of `convey generate-man`.
#[derive(Debug, Args)]
pub struct GenerateManArgs {
    /// The directory, which must exist
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
}

/// Shortest and longest time between two pictures of `--watch`, in seconds.
const INTERVALS: std::ops::RangeInclusive<f64> = 0.1..=3600.0;

fn parse_address(text: &str) -> Result<SocketAddr, String> {
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() > 0 => Ok(address),
        _ => Err("write IP:port, such as 192.0.2.1:40000 or [2001:db8::1]:40000".to_owned()),
    }
}

fn parse_interval(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if INTERVALS.contains(&seconds) => Ok(seconds),
        Ok(_) | Err(_) => Err(format!(
            "pass a number of seconds from {} to {}",
            INTERVALS.start(),
            INTERVALS.end()
        )),
    }
}

#[cfg(test)]
mod tests;
