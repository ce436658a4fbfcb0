//! `convey top`.

use clap::Args;

use super::{DaemonArgs, parse_interval};

/// Arguments of `convey top`.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// Show only these frontends, backends and servers (BACKEND/SERVER)
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,

    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = parse_interval)]
    pub interval: f64,

    #[command(flatten)]
    pub target: DaemonArgs,
}
