//! `convey reload`.

use clap::Args;

use super::{DaemonArgs, SettleArgs};

/// Arguments of `convey reload`.
#[derive(Debug, Args)]
pub struct ReloadArgs {
    #[command(flatten)]
    pub target: DaemonArgs,

    /// Change nothing, and print what a reload would change: what would be added, changed and removed, which connections would
    /// drain, and which would be cut
    ///
    /// Files that the configuration names and ports that are taken are looked at by a reload alone.
    #[arg(long, conflicts_with_all = ["cut", "wait", "rollback"])]
    pub dry_run: bool,

    /// With --dry-run: print JSON
    #[arg(long, requires = "dry_run")]
    pub json: bool,

    /// Cut established connections where the change leaves no other way: an address that changes between mode proxy and a
    /// packet mode. Without it such a reload fails as long as there are any
    #[arg(long, conflicts_with = "rollback")]
    pub cut: bool,

    #[command(flatten)]
    pub settle: SettleArgs,
}
