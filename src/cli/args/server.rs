//! `convey server`.

use clap::{Args, Subcommand};

use super::{DaemonArgs, DrainWaitArgs};

/// The overrides of a server.
#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub enum ServerCommand {
    /// Send it no new connections, but keep the open ones
    #[command(override_usage = "convey server drain [OPTIONS] <BACKEND/SERVER>...")]
    Drain(DrainArgs),
    /// Send it no new connections and stop its health checks
    #[command(override_usage = "convey server maintenance [OPTIONS] <BACKEND/SERVER>...")]
    Maintenance(ServerArgs),
    /// Clear all overrides: health checks and the configured weight apply again
    #[command(override_usage = "convey server ready [OPTIONS] <BACKEND/SERVER>...")]
    Ready(ServerArgs),
    /// Override the configured weight; 0 means no new connections
    #[command(override_usage = "convey server weight [OPTIONS] <BACKEND/SERVER>... <WEIGHT>")]
    Weight(WeightArgs),
    /// Close its connections, UDP sessions and passthrough flows at once
    #[command(override_usage = "convey server close [OPTIONS] <BACKEND/SERVER>...")]
    Close(CloseArgs),
    /// Add a server at run time, to a backend with `discovery = { kind = "api" }`
    ///
    /// It outlives reloads and restarts, until `remove` removes it.
    Add(AddServerArgs),
    /// Remove a server that was added at run time; its connections go on until they end
    #[command(override_usage = "convey server remove [OPTIONS] <BACKEND/SERVER>...")]
    Remove(CloseArgs),
}

impl ServerCommand {
    /// Where the running convey is reached.
    pub const fn target(&self) -> &DaemonArgs {
        match self {
            Self::Drain(args) => &args.common.target,
            Self::Maintenance(args) | Self::Ready(args) => &args.target,
            Self::Weight(args) => &args.target,
            Self::Close(args) | Self::Remove(args) => &args.target,
            Self::Add(args) => &args.target,
        }
    }
}

/// What `convey server` does about the last eligible server of a backend.
#[derive(Debug, Clone, Copy, Args)]
pub struct ForceArgs {
    /// Do it even if no eligible server of the backend is left, so that new connections are refused
    #[arg(long)]
    pub force: bool,
}

/// Arguments of `convey server drain`.
#[derive(Debug, Args)]
pub struct DrainArgs {
    #[command(flatten)]
    pub common: ServerArgs,

    #[command(flatten)]
    pub wait: DrainWaitArgs,
}

/// Arguments of `convey server close|remove`.
#[derive(Debug, Args)]
pub struct CloseArgs {
    /// The servers; `*` stands for any text, as in web/*. One may be two arguments, BACKEND SERVER
    #[arg(value_name = "BACKEND/SERVER", num_args = 1.., required = true)]
    pub servers: Vec<String>,

    #[command(flatten)]
    pub target: DaemonArgs,
}

/// Arguments of `convey server add`.
#[derive(Debug, Args)]
pub struct AddServerArgs {
    /// The backend
    #[arg(value_name = "BACKEND")]
    pub backend: String,

    /// Its address
    #[arg(value_name = "IP:PORT")]
    pub addr: String,

    /// Its name [default: its address]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,

    /// Its weight [default: 1]
    #[arg(long, value_name = "N")]
    pub weight: Option<u16>,

    /// Its priority group: a group is used only when no server of a lower number is up [default: 1]
    #[arg(long, value_name = "N")]
    pub priority: Option<u16>,

    /// Its limit of connections [default: none]
    #[arg(long, value_name = "N")]
    pub max_connections: Option<u32>,

    /// The name that it serves (SNI)
    #[arg(long, value_name = "NAME")]
    pub sni: Option<String>,

    #[command(flatten)]
    pub target: DaemonArgs,
}

/// Arguments of `convey server maintenance|ready`.
#[derive(Debug, Args)]
pub struct ServerArgs {
    /// The servers; `*` stands for any text, as in web/*. One may be two arguments, BACKEND SERVER
    #[arg(value_name = "BACKEND/SERVER", num_args = 1.., required = true)]
    pub servers: Vec<String>,

    #[command(flatten)]
    pub force: ForceArgs,

    #[command(flatten)]
    pub target: DaemonArgs,
}

/// Arguments of `convey server weight`.
#[derive(Debug, Args)]
pub struct WeightArgs {
    /// The servers (`*` stands for any text, as in web/*; one may be two arguments, BACKEND SERVER) and their weight, from 0
    /// to 65535
    #[arg(value_names = ["BACKEND/SERVER", "WEIGHT"], num_args = 2.., required = true)]
    pub servers_and_weight: Vec<String>,

    #[command(flatten)]
    pub force: ForceArgs,

    #[command(flatten)]
    pub target: DaemonArgs,
}
