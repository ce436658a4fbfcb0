//! The `convey` binary: dispatch only.

use std::process::ExitCode;

fn main() -> ExitCode {
    convey::cli::run()
}
