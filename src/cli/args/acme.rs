//! `convey acme`.

use clap::{Args, Subcommand};

use super::DaemonArgs;

/// What is done with ordered certificates.
#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub enum AcmeCommand {
    /// Show the certificates: until when they are valid, when they are ordered next, and what the CA said
    Status(AcmeStatusArgs),
    /// Order certificates now, whenever that would be due, and whatever failed before
    Renew(AcmeRenewArgs),
}

/// Arguments of `convey acme status`.
#[derive(Debug, Args)]
pub struct AcmeStatusArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub target: DaemonArgs,
}

/// Arguments of `convey acme renew`.
#[derive(Debug, Args)]
pub struct AcmeRenewArgs {
    /// The certificates, each by its first name [default: all]
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,

    #[command(flatten)]
    pub target: DaemonArgs,
}

impl AcmeCommand {
    /// Where the running convey is reached.
    pub const fn target(&self) -> &DaemonArgs {
        match self {
            Self::Status(args) => &args.target,
            Self::Renew(args) => &args.target,
        }
    }
}
