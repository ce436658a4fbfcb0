//! `convey backend-script`.

use std::{io::Write, path::Path};

use super::{
    args::{BackendScriptArgs, ModeArgs},
    outcome::{CommandResult, Failure},
    target,
};
use crate::{backend_setup, base::exit, pools::Pools};

/// Prints the script for one server of one frontend.
pub fn run(args: &BackendScriptArgs, config: Option<&Path>, mode: ModeArgs) -> CommandResult {
    let config = target::load(config, args.mode.or(mode))?.config;
    let script = backend_setup::script(&config, &Pools::of(&config), &args.frontend, &args.server)
        .map_err(|error| Failure::new(exit::USAGE, error.to_string()))?;
    let mut out = std::io::stdout().lock();
    out.write_all(script.as_bytes())?;
    out.flush()?;
    Ok(exit::OK)
}
