//! `convey config`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{DaemonArgs, SettleArgs};

/// What is done with the configuration.
#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub enum ConfigCommand {
    /// Print the text in effect, byte for byte
    Show(ConfigShowArgs),
    /// Print what a file would change of what is in effect
    ///
    /// Exits with 0 whether there is a difference or not, and with 78 if the file has errors.
    Diff(ConfigDiffArgs),
    /// List the texts that were in effect: when, who applied them, and what they changed
    History(ConfigHistoryArgs),
    /// Put a text that was in effect back into the file and apply it
    Rollback(ConfigRollbackArgs),
    /// Edit a copy, check it, show what it would change, ask, and apply it
    ///
    /// The editor is that of $VISUAL, $EDITOR, or `editor`. If the text in effect has changed meanwhile, nothing is applied; the copy
    /// stays in every such case, and where it is is said.
    Edit(ConfigEditArgs),
}

/// Arguments of `convey config show`.
#[derive(Debug, Args)]
pub struct ConfigShowArgs {
    /// Every setting in effect, those that the file does not name too, as JSON
    #[arg(long)]
    pub resolved: bool,

    /// One of the texts of `convey config history`
    #[arg(long, value_name = "N", conflicts_with = "resolved")]
    pub revision: Option<u64>,

    #[command(flatten)]
    pub target: DaemonArgs,
}

/// Arguments of `convey config diff`.
#[derive(Debug, Args)]
pub struct ConfigDiffArgs {
    /// The file; `-` is standard input [default: the one that the running convey reads]
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub target: DaemonArgs,
}

/// Arguments of `convey config history`.
#[derive(Debug, Args)]
pub struct ConfigHistoryArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub target: DaemonArgs,
}

/// Arguments of `convey config rollback`.
#[derive(Debug, Args)]
pub struct ConfigRollbackArgs {
    /// The revision, as `convey config history` lists it
    #[arg(value_name = "N")]
    pub revision: u64,

    #[command(flatten)]
    pub target: DaemonArgs,
}

/// Arguments of `convey config edit`.
#[derive(Debug, Args)]
pub struct ConfigEditArgs {
    /// Apply a valid text without asking
    #[arg(long, short)]
    pub yes: bool,

    #[command(flatten)]
    pub settle: SettleArgs,

    #[command(flatten)]
    pub target: DaemonArgs,
}

impl ConfigCommand {
    /// Where the running convey is reached.
    pub const fn target(&self) -> &DaemonArgs {
        match self {
            Self::Show(args) => &args.target,
            Self::Diff(args) => &args.target,
            Self::History(args) => &args.target,
            Self::Rollback(args) => &args.target,
            Self::Edit(args) => &args.target,
        }
    }
}
