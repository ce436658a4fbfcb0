//! `convey events`.

use clap::{Args, ValueEnum, value_parser};

use super::DaemonArgs;

/// Arguments of `convey events`.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Go on with those that come, until interrupted
    #[arg(long, short)]
    pub follow: bool,

    /// Only those that matter so much or more
    #[arg(long, value_enum, value_name = "LEVEL")]
    pub level: Option<EventLevel>,

    /// Only those of this name, as in the log; several between commas
    #[arg(long, value_name = "NAME")]
    pub event: Option<String>,

    /// Only those about this frontend
    #[arg(long, value_name = "NAME")]
    pub frontend: Option<String>,

    /// Only those about this backend
    #[arg(long, value_name = "NAME")]
    pub backend: Option<String>,

    /// Only those about servers of this name
    #[arg(long, value_name = "NAME")]
    pub server: Option<String>,

    /// List this many of the last ones
    #[arg(long, short = 'n', value_name = "N", default_value_t = 20, value_parser = value_parser!(u16).range(0..=1_024))]
    pub limit: u16,

    /// Print JSON, an event a line
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub target: DaemonArgs,
}

/// How much an event matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EventLevel {
    /// Everything
    Info,
    /// What may need a look
    Warning,
    /// What needs one
    Error,
}

impl EventLevel {
    /// As the API has it.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}
