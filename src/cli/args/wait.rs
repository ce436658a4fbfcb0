//! How long is waited, and for what.

use std::time::Duration;

use clap::Args;

use crate::config::parse_duration;

/// `--wait` and `--rollback` of what changes the configuration.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct SettleArgs {
    /// Wait until the servers of the backends that the change concerns are up, for TIME at most (10s, 2m; 10 s if none is given),
    /// and print how many are
    ///
    /// The exit status is 69 if one of these backends has no eligible server then.
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "10s", value_parser = parse_time)]
    pub wait: Option<Duration>,

    /// With --wait: if one of these backends has no eligible server when the time is over, put the configuration before back, in
    /// the file too
    ///
    /// The file is written through the running convey if `allow_config_writes` is set, else by this command: then you need the
    /// right to write it. If neither may, nothing is changed in the first place. With `watch_config` an edited file is applied
    /// before this command can be: use `convey config edit` with these options there.
    #[arg(long, requires = "wait")]
    pub rollback: bool,
}

/// `--wait` of what drains.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct DrainWaitArgs {
    /// Wait until no connection is left, for TIME at most if one is given (30s, 5m); exit with 75 if there are some then
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "0s",
          value_parser = parse_time)]
    pub wait: Option<Duration>,
}

impl DrainWaitArgs {
    /// Until when, if it is to be waited at all: `Some(None)` is for ever.
    #[must_use]
    pub fn limit(self) -> Option<Option<Duration>> {
        self.wait.map(|time| (!time.is_zero()).then_some(time))
    }
}

fn parse_time(text: &str) -> Result<Duration, String> {
    let whole = text.parse().ok().map(Duration::from_secs);
    (whole.or_else(|| parse_duration(text))).ok_or_else(|| "write a time such as 30s, 5m or 1h30m".to_owned())
}
