//! The start order (DESIGN §3): everything that needs one thread, then everything that needs none of our privileges.

use std::{
    io::{self, IsTerminal as _},
    num::NonZeroU32,
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Instant,
};

use tokio::{runtime::Builder, sync::mpsc};

use super::{
    Fatal, RunOptions,
    control::{Control, Inboxes, Signals},
    listeners::{Listeners, Predecessors},
    logging::Logging,
    notify::Notifier,
    packets::{KernelExecutor, Packets},
    scripts::Scripts,
    state::State,
    watch,
};
use crate::{
    admin::{self, SocketFile},
    base::exit::{self, Exit},
    config::{self, Config, Loaded, Source},
    firewall::{self, Firewall},
    health,
    privilege::{self, Broker, Proof, Sandbox, Target},
    proxy::{Descriptors, Workers},
    sys,
};

/// Commands, health updates and passive failures that may wait for the control loop.
const INBOX: usize = 1_024;

/// What exists when the privileges are gone and before any thread has started.
struct Unprivileged {
    predecessors: io::Result<Predecessors>,
    broker: Broker,
    proof: Proof,
    socket: Result<Option<(UnixListener, SocketFile)>, admin::BindError>,
    scripts: Scripts,
    /// Where the firewall notes which ports it has reserved.
    record: PathBuf,
    descriptors: io::Result<u64>,
}

/// What the control loop takes over of it.
struct Kept {
    predecessors: Predecessors,
    broker: Broker,
    scripts: Scripts,
    record: PathBuf,
    /// The limit of open files.
    files: u64,
}

/// Starts and runs the daemon.
pub fn start(run: RunOptions) -> Result<Exit, Fatal> {
    let started = Instant::now();
    let predecessors = Predecessors::take();
    let source = read(&run.config_path)?;
    let loaded = config::load(&source, run.options).map_err(|findings| {
        let text = config::render(&findings, &source, io::stderr().is_terminal());
        Fatal::new(exit::CONFIG, text.trim_end())
    })?;
    let unprivileged = drop_everything(&run, &source, &loaded.config, predecessors)?;
    let logging = Logging::start(loaded.config.global.log_level, loaded.config.global.log_format)
        .map(Arc::new)
        .map_err(|e| Fatal::new(exit::OS_ERROR, format_args!("convey: start logging: {e}")))?;
    let outcome = run_unprivileged(run, &source, loaded, unprivileged, &logging, started);
    if let Err(fatal) = &outcome {
        tracing::error!(event = "failed", "{fatal}");
    }
    let exit = outcome.unwrap_or_else(|fatal| fatal.exit);
    // everything else that held it is gone
    if let Some(logging) = Arc::into_inner(logging) {
        logging.shutdown();
    }
    Ok(exit)
}

fn read(path: &Path) -> Result<Source, Fatal> {
    let bytes = sys::config_file::read(path, config::MAX_CONFIG_BYTES)
        .map_err(|e| Fatal::new(exit::NO_INPUT, format_args!("convey: {e}")))?;
    Ok(Source {
        name: path.display().to_string(),
        bytes,
    })
}

/// What must happen while there is one thread.
fn drop_everything(
    run: &RunOptions,
    source: &Source,
    config: &Config,
    predecessors: io::Result<Predecessors>,
) -> Result<Unprivileged, Fatal> {
    let failed = |e: &dyn std::fmt::Display| Fatal::new(exit::OS_ERROR, format_args!("convey: {e}"));
    let target = privilege::resolve_target(config.global.user.as_deref())
        .map_err(|e| Fatal::new(exit::CONFIG, format_args!("convey: {e}")))?;
    let descriptors = sys::rlimit::raise_open_files();
    let socket = bind_admin(config, target.as_ref());
    let scripts = Scripts::find(target.as_ref());
    let record = firewall::record_path(config.admin.socket.as_deref());
    let executor = KernelExecutor::new(Firewall::new(record.clone()));
    let broker = Broker::fork(
        &run.config_path,
        source,
        run.options,
        target.as_ref(),
        Box::new(executor),
        predecessors.iter().flat_map(Predecessors::ports).collect(),
    )
    .map_err(|e| failed(&e))?;
    let sandbox = Sandbox::of(config, scripts.directory());
    let proof = privilege::drop_privileges(target.as_ref(), &sandbox).map_err(|e| failed(&e))?;
    Ok(Unprivileged {
        predecessors,
        broker,
        proof,
        socket,
        scripts,
        record,
        descriptors,
    })
}

/// The control socket is made by whoever starts Convey: after the drop its directory may be out of reach.
fn bind_admin(
    config: &Config,
    target: Option<&Target>,
) -> Result<Option<(UnixListener, SocketFile)>, admin::BindError> {
    let owner = target.map(|t| admin::Owner {
        uid: t.uid,
        gid: t.gid,
    });
    config
        .admin
        .socket
        .as_deref()
        .map(|path| admin::bind_socket(path, owner))
        .transpose()
}

fn run_unprivileged(
    run: RunOptions,
    source: &Source,
    loaded: Loaded,
    unprivileged: Unprivileged,
    logging: &Arc<Logging>,
    started: Instant,
) -> Result<Exit, Fatal> {
    let Unprivileged {
        predecessors,
        broker,
        proof,
        socket,
        scripts,
        record,
        descriptors,
    } = unprivileged;
    tracing::info!(
        event = "starting",
        "convey {} starts with {}",
        env!("CARGO_PKG_VERSION"),
        run.config_path.display()
    );
    let files = descriptors.unwrap_or_else(|error| {
        tracing::warn!(
            event = "descriptors",
            "cannot raise the limit of open files: {error}"
        );
        u64::MAX
    });
    let kept = Kept {
        predecessors: greet(predecessors),
        broker,
        scripts,
        record,
        files,
    };
    tracing::info!(event = "privileges_dropped", "{proof}");
    if !loaded.warnings.is_empty() {
        tracing::warn!(
            event = "config_warning",
            "{}",
            config::render(&loaded.warnings, source, false).trim_end()
        );
    }
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Fatal::new(exit::OS_ERROR, format_args!("make the control runtime: {e}")))?;
    runtime.block_on(async {
        let mut signals = Signals::new()?;
        let (mut control, mut inboxes) = assemble(run, source, loaded.config, kept, logging, started)?;
        control.serve_admin(socket);
        tokio::select! {
            live = control.go_live(&mut inboxes) => live?,
            signal = signals.end.recv() => {
                tracing::info!(event = "stopped", "{signal} during the start: stopped");
                return Ok(exit::OK);
            }
        }
        control.run(inboxes, signals).await
    })
}

/// Says what an earlier process left; without it there is nothing to take over.
fn greet(predecessors: io::Result<Predecessors>) -> Predecessors {
    let predecessors = predecessors.unwrap_or_else(|error| {
        tracing::warn!(
            event = "listener_not_taken_over",
            "cannot take the descriptors that the service manager hands over: {error}"
        );
        Predecessors::default()
    });
    let addresses: Vec<_> = predecessors
        .endpoints()
        .map(|endpoint| endpoint.addr.to_string())
        .collect();
    if !addresses.is_empty() {
        tracing::info!(
            event = "listeners_found",
            "the process before has left its listeners, which go on where the configuration has them: {}",
            addresses.join(", ")
        );
    }
    predecessors
}

/// Makes the threads and channels; nothing is bound or checked yet.
fn assemble(
    run: RunOptions,
    source: &Source,
    config: Config,
    kept: Kept,
    logging: &Arc<Logging>,
    started: Instant,
) -> Result<(Control, Inboxes), Fatal> {
    let Kept {
        predecessors,
        broker,
        scripts,
        record,
        files,
    } = kept;
    let workers = worker_count(&config);
    let packet_workers = config
        .passthrough
        .workers
        .map_or_else(cpus, |n| usize::try_from(n.get()).unwrap_or(usize::MAX));
    let (events_tx, events) = mpsc::channel(INBOX);
    let (health_tx, health) = mpsc::channel(INBOX);
    let (commands_tx, commands) = mpsc::channel(INBOX);
    let watch_config = config.global.watch_config;
    let booted = config.clone();
    let state = State::new(config, workers + packet_workers, health_tx, started);
    let snapshots = Arc::clone(state.published());
    let descriptors = Descriptors {
        limit: files,
        // none to be had is noticed by all that follows
        open: sys::rlimit::open_files().unwrap_or(files),
        checks: health::MAX_CONNECTS,
    };
    let pool = Workers::start(workers, snapshots, logging.access_log(), events_tx, descriptors)
        .map_err(|e| Fatal::new(exit::OS_ERROR, format_args!("start the workers: {e}")))?;
    tracing::debug!(
        event = "descriptors",
        "at most {files} open files, which allow {} connections",
        pool.occupancy().most
    );
    let (file_changes_tx, file_changes) = mpsc::channel(1);
    let watcher = if watch_config {
        watch::watch(&run.config_path, file_changes_tx.clone())
    } else {
        None
    };
    let control = Control {
        config_path: run.config_path,
        options: run.options,
        booted,
        state,
        config_generation: 1,
        broker,
        workers: Arc::new(pool),
        listeners: Listeners::default(),
        predecessors,
        packets: Packets::new(packet_workers, workers, record),
        scripts,
        notify: Notifier::from_environment(),
        log: Arc::clone(logging),
        commands: commands_tx,
        admin: None,
        stats: None,
        watcher,
        last_source: Ok(source.clone()),
        last_reload_error: None,
        needs_restart: Vec::new(),
        stopping: None,
        ready: false,
        started,
    };
    let inboxes = Inboxes {
        events,
        health,
        commands,
        file_changes,
        file_changes_tx,
    };
    Ok((control, inboxes))
}

fn worker_count(config: &Config) -> usize {
    let configured = config.global.workers.map(NonZeroU32::get);
    configured.map_or_else(cpus, |n| usize::try_from(n).unwrap_or(usize::MAX))
}

/// CPUs that the process may use.
fn cpus() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}
