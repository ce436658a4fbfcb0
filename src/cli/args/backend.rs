//! `convey backend`.

use clap::{Args, Subcommand};

use super::{DaemonArgs, DrainWaitArgs, ForceArgs};

/// What is done with whole backends.
#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub enum BackendCommand {
    /// Send its servers no new connections, but keep the open ones
    Drain(BackendDrainArgs),
    /// Send its servers no new connections and stop their health checks
    Maintenance(BackendArgs),
    /// Clear all overrides of its servers
    Ready(BackendArgs),
    /// Override the configured weight of all its servers; 0 means no new connections
    #[command(override_usage = "convey backend weight [OPTIONS] <BACKEND>... <WEIGHT>")]
    Weight(BackendWeightArgs),
    /// Close its connections, UDP sessions and passthrough flows at once
    Close(BackendCloseArgs),
}

/// Arguments of `convey backend drain`.
#[derive(Debug, Args)]
pub struct BackendDrainArgs {
    #[command(flatten)]
    pub common: BackendArgs,

    #[command(flatten)]
    pub wait: DrainWaitArgs,
}

/// Arguments of `convey backend maintenance|ready`.
#[derive(Debug, Args)]
pub struct BackendArgs {
    /// The backends
    #[arg(value_name = "BACKEND", num_args = 1.., required = true)]
    pub backends: Vec<String>,

    #[command(flatten)]
    pub force: ForceArgs,

    #[command(flatten)]
    pub target: DaemonArgs,
}

/// Arguments of `convey backend weight`.
#[derive(Debug, Args)]
pub struct BackendWeightArgs {
    /// The backends and the weight of their servers, from 0 to 65535
    #[arg(value_names = ["BACKEND", "WEIGHT"], num_args = 2.., required = true)]
    pub backends_and_weight: Vec<String>,

    #[command(flatten)]
    pub force: ForceArgs,

    #[command(flatten)]
    pub target: DaemonArgs,
}

/// Arguments of `convey backend close`.
#[derive(Debug, Args)]
pub struct BackendCloseArgs {
    /// The backends
    #[arg(value_name = "BACKEND", num_args = 1.., required = true)]
    pub backends: Vec<String>,

    #[command(flatten)]
    pub target: DaemonArgs,
}

impl BackendCommand {
    /// Where the running convey is reached.
    pub const fn target(&self) -> &DaemonArgs {
        match self {
            Self::Drain(args) => &args.common.target,
            Self::Maintenance(args) | Self::Ready(args) => &args.target,
            Self::Weight(args) => &args.target,
            Self::Close(args) => &args.target,
        }
    }
}
