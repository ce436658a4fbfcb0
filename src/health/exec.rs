//! A command that checks a server.

use super::{machine::CheckResult, probe};
use crate::{base::ServerAddr, client::runner::Runner, config::ExecCheck};

/// Runs it, and judges how it ends and what it prints.
pub async fn check(addr: ServerAddr, exec: ExecCheck, runner: Option<Runner>) -> CheckResult {
    let not_made = |why: &str| CheckResult::NotMade(format!("check not possible: {why}").into());
    let Some(runner) = runner else {
        return not_made("no runner of commands");
    };
    let Some(server) = addr.on_network() else {
        // the configuration has none
        return not_made("a unix socket has no address for a command");
    };
    let output = match runner.run_for(&exec.command, server.0).await {
        Ok(output) => output,
        Err(error) => return not_made(&error.to_string()),
    };
    if let Some(why) = output.failure() {
        return CheckResult::Failed(why.into());
    }
    match probe::judge_printed(exec.expect.as_ref(), &output.printed) {
        Some(fault) => CheckResult::Failed(fault.to_string().into()),
        None => CheckResult::Passed,
    }
}
