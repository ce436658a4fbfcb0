//! Wiring: start order, reload, signals, shutdown, readiness. The only place where the I/O modules meet.
//!
//! ```text
//! start:  what systemd kept ─ read, parse ─ control socket ─ fork broker ─ drop and prove ─ logging ─ threads ─ bind ─ READY
//! loop:   signals · broker · file changes · commands · health · passive failures · slow start · steps of a reload · orders of
//!         certificates · watchdog
//! end:    reload given up ─ listeners retired, or left to systemd ─ connections drained (shutdown_timeout) ─ threads joined
//! ```
//! Until privileges are dropped there is one thread. Afterwards: this control thread (reload, checks), the broker's client,
//! the admin thread (control socket, `/stats`), the workers, the logging thread, the file watcher's, and the one that saves
//! overrides.
//!
//! The loop ([`run`]) never waits. What takes time is a job: a step of a reload, what the packet modes ask of broker and
//! network (a task, `plane::packets`), a file that is written. `Control` holds its state; what is done with it lies beside it,
//! by occasion.

mod acme;
mod alerts;
mod api_access;
mod assemble;
mod coalesce;
mod config_text;
mod control;
mod discovery;
mod health;
mod history;
mod hooks;
mod key_log;
mod listening;
mod lists;
mod live;
pub mod logging;
mod names;
mod notify;
mod otlp;
mod overrides;
mod plane;
mod reload;
mod run;
mod saved;
mod scripts;
mod start;
mod state;
mod state_dir;
mod status;
mod stop;
mod terminal;
mod ticket_keys;
mod tls;
mod tls_to_servers;
mod trouble;
mod watch;

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use tokio::sync::mpsc;

use crate::{
    admin::{AdminThread, HttpListener, SocketFile, status::ConfigInEffect},
    base::exit::Exit,
    config::{self, Config},
    privilege::Client,
    proxy::Workers,
};
use acme::Certificates;
use alerts::AlertWatch;
use discovery::Discovery;
use history::History;
use hooks::Hooks;
use logging::Logging;
use notify::Notifier;
use plane::{
    addresses::ProxiedAddresses,
    listeners::{Listeners, Predecessors},
    packets::PacketPlane,
    sockets::BrokerSockets,
    stats::Stats,
};
use reload::Reload;
use saved::SavedOverrides;
use scripts::Scripts;
use state::State;
use status::Board;
use stop::Stopping;
use terminal::Terminal;
use ticket_keys::TicketKeyFile;
use tls::TlsFrontends;
use watch::FileWatch;

/// What the command line says about the daemon.
#[derive(Debug, Clone)]
pub(crate) struct RunOptions {
    /// The configuration file.
    pub config_path: PathBuf,
    /// What `-p` and `-d` say.
    pub options: config::Options,
}

/// Why the daemon ends. What is said has been said where the operator looks: on stderr before logging runs, in the
/// log afterwards.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
struct Fatal {
    exit: Exit,
    message: String,
}

impl Fatal {
    fn new(exit: Exit, message: impl std::fmt::Display) -> Self {
        Self {
            exit,
            message: message.to_string(),
        }
    }
}

/// All state of the control loop, which one task owns; what is done with it is in the files of this folder.
struct Control {
    config_path: PathBuf,
    options: config::Options,
    /// Configuration, pools, health and the snapshot in effect.
    state: State,
    /// The configuration that the process was started with.
    startup_config: Config,
    config_generation: u64,
    /// Its text.
    in_effect: Arc<ConfigInEffect>,
    /// The texts that were in effect.
    history: Arc<History>,
    broker: Client,
    workers: Arc<Workers>,
    sockets: BrokerSockets,
    listeners: Listeners,
    /// Of proxied frontends: those that wait.
    addresses: ProxiedAddresses,
    /// Until the start has taken what it needs of them.
    predecessors: Predecessors,
    packets: PacketPlane,
    /// What an operator should look at in the packet modes.
    alerts: AlertWatch,
    scripts: Scripts,
    /// Servers that come by themselves.
    discovery: Discovery,
    /// Certificates that are ordered.
    acme: Certificates,
    /// Metrics that a collector gets.
    #[cfg(feature = "otlp")]
    otlp: otlp::MetricsExport,
    /// The overrides that outlive the process.
    saved: SavedOverrides,
    /// Tells commands of the operator what happens.
    hooks: Hooks,
    tls: TlsFrontends,
    ticket_keys: TicketKeyFile,
    notify: Notifier,
    log: Arc<Logging>,
    /// What the endpoints answer from.
    board: Board,
    /// Serves the endpoints.
    endpoints: AdminThread,
    /// The file is given up when the end begins.
    admin: Option<(Option<SocketFile>, HttpListener)>,
    stats: Stats,
    watcher: Option<FileWatch>,
    /// Whether the last try to watch has failed, which is said once.
    has_watch_failed: bool,
    /// Given to each new watcher.
    file_changes: mpsc::Sender<()>,
    reload: Reload,
    /// Settings that wait for a restart.
    needs_restart: Vec<String>,
    stopping: Option<Stopping>,
    terminal: Terminal,
    ready: bool,
}

/// Runs the daemon to its end.
#[must_use]
pub(crate) fn run(options: RunOptions) -> ExitCode {
    match start::start(options) {
        Ok(exit) => exit.into(),
        Err(fatal) => {
            eprintln!("{}", fatal.message);
            fatal.exit.into()
        }
    }
}
