//! The command line: clap definitions, one file for each subcommand.
pub fn run() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
