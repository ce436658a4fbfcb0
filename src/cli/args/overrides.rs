//! `convey overrides`.

use clap::{Args, Subcommand};

use super::DaemonArgs;

/// Arguments of `convey overrides`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
pub struct OverridesArgs {
    #[command(subcommand)]
    pub command: Option<OverridesCommand>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub target: DaemonArgs,
}

impl OverridesArgs {
    /// Where the running convey is reached.
    pub const fn target(&self) -> &DaemonArgs {
        match &self.command {
            Some(OverridesCommand::Clear(args)) => &args.target,
            Some(OverridesCommand::History(args)) => &args.target,
            None => &self.target,
        }
    }
}

/// What is done with overrides.
#[derive(Debug, Subcommand)]
pub enum OverridesCommand {
    /// Clear them: health checks and the configured weight apply again
    #[command(
        override_usage = "convey overrides clear [OPTIONS] <BACKEND/SERVER>...\n       convey overrides clear --all"
    )]
    Clear(ClearOverridesArgs),
    /// The last that were set and cleared since the start, by whom
    History(OverridesHistoryArgs),
}

/// Arguments of `convey overrides history`.
#[derive(Debug, Args)]
pub struct OverridesHistoryArgs {
    /// Print JSON, one event a line
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub target: DaemonArgs,
}

/// Arguments of `convey overrides clear`.
#[derive(Debug, Args)]
pub struct ClearOverridesArgs {
    /// Of these servers; `*` stands for any text, as in web/*. One may be two arguments, BACKEND SERVER
    #[arg(
        value_name = "BACKEND/SERVER",
        required_unless_present = "all",
        conflicts_with = "all"
    )]
    pub servers: Vec<String>,

    /// Every one
    #[arg(long)]
    pub all: bool,

    #[command(flatten)]
    pub target: DaemonArgs,
}
