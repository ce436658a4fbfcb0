//! `convey firewall`.

use clap::{Args, Subcommand};

use super::ModeArgs;

/// The commands for the firewall rules.
#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub enum FirewallCommand {
    /// Show the rules and reserved ports, and where they differ from what the configuration requires
    ///
    /// Exits with 0 if they do not, else with 69.
    Show(FirewallShowArgs),
    /// Remove the rules, and the reserved ports that convey added
    ///
    /// While convey runs in a packet mode this breaks its connections until the rules are restored.
    Clear(FirewallClearArgs),
}

/// Arguments of `convey firewall show`.
#[derive(Debug, Args)]
pub struct FirewallShowArgs {
    #[command(flatten)]
    pub mode: ModeArgs,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `convey firewall clear`.
#[derive(Debug, Args)]
pub struct FirewallClearArgs {
    /// Do nothing if systemd is about to start this unit again; for its ExecStopPost
    #[arg(long, value_name = "UNIT", num_args = 0..=1, require_equals = true,
          default_missing_value = "convey.service")]
    pub unless_restarting: Option<String>,
}
