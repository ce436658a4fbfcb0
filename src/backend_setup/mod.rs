//! The scripts that make a host answer for a VIP (DSR), rendered for each frontend and server.

use crate::config::Config;

/// Why there is no script.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ScriptError(String);

/// The script for a server of a frontend in mode dsr.
///
/// # Errors
/// There is no such frontend or server, or the frontend is not in mode dsr.
pub fn script(config: &Config, frontend: &str, server: &str) -> Result<String, ScriptError> {
    let _ = (config, frontend, server);
    todo!("backend_setup")
}
