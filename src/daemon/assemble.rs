//! The control loop's state, and the threads and channels around it.

use std::{num::NonZeroU32, os::fd::OwnedFd, path::PathBuf, sync::Arc, thread, time::Instant};

use tokio::sync::mpsc;

#[cfg(feature = "otlp")]
use super::otlp::MetricsExport;
use super::{
    Control, Fatal, RunOptions,
    acme::Certificates,
    alerts::AlertWatch,
    discovery::Discovery,
    history::History,
    hooks::Hooks,
    live::Sources,
    logging::Logging,
    notify::Notifier,
    plane::{
        addresses::ProxiedAddresses,
        listeners::{Listeners, Predecessors},
        packets::{PacketPlane, PacketThreads},
        sockets::BrokerSockets,
        stats::Stats,
    },
    reload::Reload,
    run::Inboxes,
    saved::SavedOverrides,
    scripts::Scripts,
    state::{State, TlsViews},
    state_dir::StateDir,
    status::Board,
    terminal::Terminal,
    ticket_keys::TicketKeyFile,
    tls::TlsFrontends,
    watch,
};
use crate::{
    access::NetworkLists,
    admin::{self, AdminThread, status::ConfigInEffect, views::Phase},
    base::exit,
    client::runner::Runner,
    config::{Config, Source},
    discovery, health,
    privilege::{Channel, Client},
    proxy::{Descriptors, Workers},
    sys,
};

/// Commands, health updates and passive failures that may wait for the control loop.
const INBOX: usize = 1_024;

/// What the control loop takes over of it.
pub struct Kept {
    pub lists: NetworkLists,
    pub tls: TlsFrontends,
    pub views: TlsViews,
    pub ticket_keys: TicketKeyFile,
    pub predecessors: Predecessors,
    pub broker: Channel,
    pub runner: OwnedFd,
    pub state_dir: StateDir,
    pub scripts: Scripts,
    pub record: PathBuf,
    /// The limit of open files.
    pub files: u64,
}

/// Makes the threads and channels; nothing is bound or checked yet.
pub fn assemble(
    run: RunOptions,
    source: &Source,
    config: Config,
    kept: Kept,
    logging: &Arc<Logging>,
    started: Instant,
) -> Result<(Control, Inboxes), Fatal> {
    let Kept {
        lists,
        tls,
        views,
        ticket_keys,
        predecessors,
        broker,
        runner,
        state_dir,
        scripts,
        record,
        files,
    } = kept;
    let workers = worker_count(&config);
    let packet_workers = config
        .packet
        .workers
        .map_or_else(cpus, |n| usize::try_from(n.get()).unwrap_or(usize::MAX));
    let (events_tx, events) = mpsc::channel(INBOX);
    let (health_tx, health) = mpsc::channel(INBOX);
    let (commands_tx, commands) = mpsc::channel(INBOX);
    let (found_tx, found) = mpsc::channel(discovery::INBOX);
    let startup_config = config.clone();
    let (broker, broker_news) = Client::start(broker)
        .map_err(|e| Fatal::new(exit::OS_ERROR, format_args!("start the broker's client: {e}")))?;
    logging.set_broker(broker.clone());
    logging.follow(&config);
    let runner = Runner::start(runner)
        .map_err(|e| Fatal::new(exit::OS_ERROR, format_args!("ask the runner of commands: {e}")))?;
    let mut saved = SavedOverrides::open(&state_dir);
    let discovery = Discovery::new(broker.clone(), runner.clone(), found_tx, &state_dir);
    let acme = Certificates::new(broker.clone(), runner.clone(), &state_dir, tls.challenges());
    let mut state = State::new(
        config,
        saved.saved(),
        lists,
        views,
        // the one behind the packet workers' is for who counts what a program in the kernel has done
        workers + packet_workers + 1,
        health_tx,
        started,
    );
    saved.restored(state.pools());
    let snapshots = Arc::clone(state.published());
    let packets = PacketPlane::start(
        PacketThreads {
            workers: packet_workers,
            first_shard: workers,
            engine: startup_config.packet.engine,
        },
        record,
        broker.clone(),
        Arc::clone(&snapshots),
    );
    let descriptors = Descriptors {
        limit: files,
        // none to be had is noticed by all that follows
        open: sys::rlimit::open_files().unwrap_or(files),
        checks: health::MAX_CONNECTS,
    };
    let sockets = BrokerSockets::new(broker.clone());
    state.set_check_sockets(Arc::new(sockets.clone()));
    state.set_check_runner(runner.clone());
    let pool = Workers::start(
        workers,
        snapshots,
        logging.access_log(),
        events_tx,
        descriptors,
        Arc::new(sockets.clone()),
    )
    .map_err(|e| Fatal::new(exit::OS_ERROR, format_args!("start the workers: {e}")))?;
    tracing::debug!(
        event = "descriptors",
        "open files limit {files}, enough for {} connections",
        pool.occupancy().most
    );
    let pool = Arc::new(pool);
    let history = Arc::new(History::open(&state_dir));
    let in_effect = Arc::new(ConfigInEffect::new(
        source.clone(),
        run.options,
        startup_config.admin.allow_config_writes,
        started,
    ));
    let first = admin::Status {
        config: Arc::clone(&in_effect),
        started,
        phase: Phase::Starting,
        // for those who are elsewhere
        config_file: std::path::absolute(&run.config_path)
            .unwrap_or_else(|_| run.config_path.clone())
            .display()
            .to_string()
            .into(),
        config_generation: 1,
        last_reload_error: None,
        needs_restart: Vec::new(),
        workers,
        snapshot: Arc::clone(state.snapshot()),
        waiting: admin::status::Waiting::new(),
        packet: None,
        discovery: Arc::default(),
        acme: Arc::default(),
    };
    let live = Arc::new(Sources::new(
        Arc::clone(&pool),
        (logging.losses(), Arc::clone(logging.events())),
        Arc::clone(packets.engine()),
        Arc::clone(&history),
    ));
    let board = Board::new(first, live);
    let endpoints = AdminThread::start(
        Arc::clone(board.published()),
        Arc::clone(board.live()) as _,
        commands_tx,
        Some(runner.clone()),
    )
    .map_err(|e| Fatal::new(exit::OS_ERROR, format_args!("start the admin thread: {e}")))?;
    let (file_changes_tx, file_changes) = mpsc::channel(1);
    let mut control = Control {
        config_path: run.config_path,
        options: run.options,
        startup_config,
        state,
        config_generation: 1,
        in_effect,
        history,
        broker,
        workers: pool,
        sockets,
        listeners: Listeners::default(),
        addresses: ProxiedAddresses::default(),
        predecessors,
        packets,
        alerts: AlertWatch::default(),
        scripts,
        discovery,
        acme,
        #[cfg(feature = "otlp")]
        otlp: MetricsExport::default(),
        saved,
        hooks: Hooks::new(runner),
        tls,
        ticket_keys,
        notify: Notifier::from_environment(),
        log: Arc::clone(logging),
        board,
        endpoints,
        admin: None,
        stats: Stats::default(),
        watcher: None,
        has_watch_failed: false,
        file_changes: file_changes_tx,
        reload: Reload::new(source.clone()),
        needs_restart: Vec::new(),
        stopping: None,
        terminal: Terminal::of_process(),
        ready: false,
    };
    if control.state.config().global.watch_config {
        let watched = watch::watch(&control.config_path, control.file_changes.clone());
        control.take_watch(watched.map_err(|error| error.to_string()));
    }
    control.keep_text("start".to_owned(), &[]);
    control.use_ticket_keys();
    let inboxes = Inboxes {
        events,
        health,
        commands,
        found,
        file_changes,
        broker: broker_news,
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
