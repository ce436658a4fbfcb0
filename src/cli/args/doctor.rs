//! `convey doctor` and `convey support`.

use std::path::PathBuf;

use clap::Args;

use super::{DaemonArgs, ModeArgs};

/// Arguments of `convey doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    #[command(flatten)]
    pub mode: ModeArgs,

    /// Print JSON
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub target: DaemonArgs,
}

/// Arguments of `convey support`.
#[derive(Debug, Args)]
pub struct SupportArgs {
    /// The archive, which must not exist yet; `-` is standard output [default: convey-support-HOST-TIME.tar.gz]
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,

    #[command(flatten)]
    pub mode: ModeArgs,

    #[command(flatten)]
    pub target: DaemonArgs,
}
