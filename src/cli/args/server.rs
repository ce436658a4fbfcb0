//! `convey server`.

use clap::{Args, Subcommand};

use super::DaemonArgs;

/// The overrides of a server.
#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub enum ServerCommand {
    /// Send it no new connections, but keep the open ones
    #[command(override_usage = "convey server drain [OPTIONS] <BACKEND/SERVER>...")]
    Drain(ServerArgs),
    /// Send it no new connections and stop its health checks
    #[command(override_usage = "convey server maintenance [OPTIONS] <BACKEND/SERVER>...")]
    Maintenance(ServerArgs),
    /// Clear all overrides: health checks and the configured weight apply again
    #[command(override_usage = "convey server ready [OPTIONS] <BACKEND/SERVER>...")]
    Ready(ServerArgs),
    /// Override the configured weight; 0 means no new connections
    #[command(override_usage = "convey server weight [OPTIONS] <BACKEND/SERVER>... <WEIGHT>")]
    Weight(WeightArgs),
}

/// What `convey server` does about the last eligible server of a backend.
#[derive(Debug, Clone, Copy, Args)]
pub struct ForceArgs {
    /// Do it even if no eligible server of the backend is left, so that new connections are refused
    #[arg(long)]
    pub force: bool,
}

/// Arguments of `convey server drain|maintenance|ready`.
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
