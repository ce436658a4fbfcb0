//! The command line: clap definitions in [`args`], one file for each subcommand.

mod acme;
mod aliases;
mod applied;
mod args;
mod backend;
mod backend_script;
mod check;
mod check_admin;
mod check_commands;
mod check_discovery;
mod check_otlp;
mod check_sockets;
mod check_tls;
mod client;
mod compare;
mod configuration;
mod connections;
mod doctor;
mod events;
mod explain;
mod firewall;
mod gateways;
mod generate;
mod import;
mod init;
mod live;
mod man_config;
mod names;
mod others;
mod outcome;
mod overrides;
mod picture;
mod progress;
mod reload;
mod select;
mod server;
mod settle;
mod source_notes;
mod status;
mod support;
mod table;
mod target;
mod text;
mod token;
mod xdp_memory;

use std::{ffi::OsString, process::ExitCode};

use clap::{CommandFactory, Parser, error::ErrorKind};

use crate::{
    base::exit::{self, Exit},
    daemon::{self, RunOptions},
};
use args::{Cli, Command, DaemonArgs, FirewallCommand};
use client::Client;
use outcome::{CommandResult, Failure};

/// Does what the process's command line says; the exit status is one of sysexits.h.
#[must_use]
pub fn run() -> ExitCode {
    run_with(std::env::args_os())
}

fn run_with(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let (arguments, tip) = aliases::translate(arguments.into_iter().collect());
    if let Some(tip) = tip {
        say(&tip);
    }
    let cli = match parse(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // the reader of the help text may have gone
            let _ = error.print();
            return usage_exit(&error).into();
        }
    };
    let done = match &cli.command {
        None => match target::config_to_run(cli.config.as_deref()) {
            Ok(config_path) => {
                let options = cli.mode.options();
                return daemon::run(RunOptions { config_path, options });
            }
            Err(failure) => Err(failure),
        },
        Some(command) => dispatch(&cli, command),
    };
    match done {
        Ok(exit) => exit.into(),
        Err(Failure::ReaderGone) => exit::OK.into(),
        Err(Failure::Told { exit, message }) => {
            say(&format!("convey: {message}"));
            exit.into()
        }
    }
}

fn say(line: &str) {
    // nothing is left to say it to if stderr is gone
    let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("{line}\n").as_bytes());
}

fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let cli = Cli::try_parse_from(arguments)?;
    let takes_mode = matches!(
        cli.command,
        None | Some(
            Command::Check(_)
                | Command::Doctor(_)
                | Command::Support(_)
                | Command::BackendScript(_)
                | Command::Firewall(FirewallCommand::Show(_))
        )
    );
    if cli.mode.any() && !takes_mode {
        return Err(Cli::command().error(
            ErrorKind::ArgumentConflict,
            "--passthrough and --dsr are for running convey and for commands that read its configuration",
        ));
    }
    Ok(cli)
}

/// Help and version are what was asked for; anything else is bad usage.
fn usage_exit(error: &clap::Error) -> Exit {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => exit::OK,
        _ => exit::USAGE,
    }
}

fn dispatch(cli: &Cli, command: &Command) -> CommandResult {
    let client = |target: &DaemonArgs| {
        target::socket_path(target.socket.as_deref(), cli.config.as_deref()).and_then(Client::new)
    };
    match command {
        Command::Init(args) => init::run(args),
        Command::Check(args) => check::run(args, cli.config.as_deref(), cli.mode),
        Command::Status(args) => status::run(args, &client(&args.target)?),
        Command::Top(args) => live::top(args, &client(&args.target)?),
        Command::Reload(args) => reload::run(args, &client(&args.target)?),
        Command::Server(command) => server::run(command, &client(command.target())?),
        Command::Backend(command) => backend::run(command, &client(command.target())?),
        Command::Overrides(args) => overrides::run(args, &client(args.target())?),
        Command::Config(command) => configuration::run(command, &client(command.target())?),
        Command::Acme(command) => acme::run(command, &client(command.target())?),
        Command::Connections(args) => connections::run(args, &client(&args.target)?),
        Command::Events(args) => events::run(args, &client(&args.target)?),
        Command::Explain(args) => explain::run(args, &client(&args.target)?),
        Command::Doctor(args) => doctor::run(args, cli.config.as_deref(), cli.mode),
        Command::Support(args) => support::run(args, cli.config.as_deref(), cli.mode),
        Command::BackendScript(args) => backend_script::run(args, cli.config.as_deref(), cli.mode),
        Command::Firewall(command) => firewall::run(command, cli.config.as_deref(), cli.mode),
        Command::Token(args) => token::run(args),
        Command::Import(args) => import::run(args),
        Command::Completions(args) => generate::completions(args),
        Command::Names(args) => names::run(args, cli.config.as_deref()),
        Command::GenerateMan(args) => generate::man_pages(&args.directory),
    }
}
