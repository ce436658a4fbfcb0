//! The start order (DESIGN §3): everything that needs one thread, then everything that needs none of our privileges.

use std::{
    io::{self, IsTerminal as _},
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::runtime::Builder;

use super::{
    Fatal, RunOptions,
    assemble::{Kept, assemble},
    key_log::KeyLogFile,
    lists,
    logging::{Logging, is_stderr_coloured},
    notify,
    plane::{listeners::Predecessors, packets::HostKernel},
    run::{Inboxes, Signals, broker_lost},
    scripts::Scripts,
    state_dir::StateDir,
    ticket_keys::TicketKeyFile,
    tls::{self, TlsFrontends},
};
use crate::{
    admin::{
        self, SocketFile,
        holder::{ClaimError, claim_socket},
    },
    base::{
        Holder,
        exit::{self, Exit},
    },
    config::{self, Config, EngineChoice, Here, Loaded, Options, Severity, Source},
    firewall::{self, Firewall},
    privilege::{self, Children, Proof, Sandbox, Start, Target},
    sys,
};

/// What files that are being written get at the end.
const LAST_JOBS: Duration = Duration::from_secs(1);

/// The control socket, if one is wanted and could be made.
type AdminSocket = Result<Option<(UnixListener, SocketFile)>, admin::BindError>;

/// What exists when the privileges are gone and before any thread has started.
struct Unprivileged {
    predecessors: io::Result<Predecessors>,
    children: Children,
    proof: Proof,
    socket: AdminSocket,
    state_dir: StateDir,
    scripts: Scripts,
    /// Where the firewall notes which ports it has reserved.
    record: PathBuf,
    descriptors: io::Result<u64>,
}

/// Starts and runs the daemon.
pub fn start(mut run: RunOptions) -> Result<Exit, Fatal> {
    let started = Instant::now();
    let predecessors = Predecessors::take();
    let source = read(&run.config_path)?;
    // the broker resolves by the same ephemeral ports, and tells at each reload by which
    let loaded;
    (loaded, run.options) = load(&source, run.options)?;
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

fn load(source: &Source, options: Options) -> Result<(Loaded, Options), Fatal> {
    let here = Here {
        addresses: sys::interfaces::own_addresses(),
        severity: Severity::Error,
    };
    firewall::load_for_host(source, options, Some(&here)).map_err(|findings| {
        let text = config::render(&findings, source, is_stderr_coloured());
        Fatal::new(exit::CONFIG, text.trim_end())
    })
}

fn read(path: &Path) -> Result<Source, Fatal> {
    // who starts it by hand may be shown everything, but what it prints may go to a log
    let nobody = sys::controllers::Controllers::default();
    let read = sys::config_file::read_vetted(path, config::MAX_CONFIG_BYTES, &nobody)
        .map_err(|e| Fatal::new(exit::NO_INPUT, format_args!("convey: {e}")))?;
    Ok(Source {
        name: path.display().to_string(),
        bytes: read.content,
    })
}

/// What must happen while there is one thread.
fn drop_everything(
    run: &RunOptions,
    source: &Source,
    config: &Config,
    mut predecessors: io::Result<Predecessors>,
) -> Result<Unprivileged, Fatal> {
    let failed = |e: &dyn std::fmt::Display| Fatal::new(exit::OS_ERROR, format_args!("convey: {e}"));
    let target = privilege::resolve_target(config.global.user.as_deref())
        .map_err(|e| Fatal::new(exit::CONFIG, format_args!("convey: {e}")))?;
    let descriptors = sys::rlimit::raise_open_files();
    let socket = bind_admin(config, target.as_ref())?;
    let state_dir = StateDir::prepare(config, target.as_ref());
    let scripts = Scripts::find(&state_dir, target.as_ref());
    let record = firewall::record_path(config.admin.socket.as_deref());
    let us = Holder {
        pid: i32::try_from(std::process::id()).ok(),
        config_file: std::path::absolute(&run.config_path)
            .ok()
            .map(|path| path.display().to_string()),
    };
    let kernel = HostKernel::new(Firewall::new(record.clone()), us);
    let children = Start {
        parse: config::load,
        path: &run.config_path,
        source,
        options: run.options,
        target: target.as_ref(),
        kernel: Box::new(kernel),
        bound: predecessors.iter().flat_map(Predecessors::ports).collect(),
        kept: predecessors
            .as_mut()
            .map(Predecessors::take_for_broker)
            .unwrap_or_default(),
        keeps_sockets: notify::keeps_descriptors(),
        hidden: state_dir.path().map(Path::to_owned).into_iter().collect(),
    };
    let children = children.fork().map_err(|e| failed(&e))?;
    let sandbox = Sandbox::of(config, state_dir.path());
    let proof = privilege::drop_privileges(target.as_ref(), &sandbox).map_err(|e| failed(&e))?;
    Ok(Unprivileged {
        predecessors,
        children,
        proof,
        socket,
        state_dir,
        scripts,
        record,
        descriptors,
    })
}

/// The control socket is made by whoever starts Convey: after the drop its directory may be out of reach. One that somebody
/// else serves ends the start; without one that cannot be made we can do.
fn bind_admin(config: &Config, target: Option<&Target>) -> Result<AdminSocket, Fatal> {
    let owner = target.map(|t| admin::Owner {
        uid: t.uid,
        gid: t.gid,
    });
    let Some(path) = config.admin.socket.as_deref() else {
        return Ok(Ok(None));
    };
    match claim_socket(path, owner) {
        Ok(socket) => Ok(Ok(Some(socket))),
        Err(ClaimError::Bind(error)) => Ok(Err(error)),
        Err(error @ ClaimError::Held { .. }) => {
            Err(Fatal::new(exit::UNAVAILABLE, format_args!("convey: {error}")))
        }
    }
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
        children: Children { broker, runner },
        proof,
        socket,
        state_dir,
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
    if predecessors.as_ref().is_ok_and(Predecessors::had_program) {
        say_what_ends(&loaded.config);
    }
    let files = descriptors.unwrap_or_else(|error| {
        tracing::warn!(
            event = "descriptors",
            "cannot raise the limit of open files: {error}"
        );
        u64::MAX
    });
    let lists = lists::read_at_start(&broker, &loaded.config)
        .map_err(|e| Fatal::new(exit::CONFIG, format_args!("convey: {}", e.message)))?;
    let ticket_keys = TicketKeyFile::open(&state_dir, SystemTime::now())
        .map_err(|e| Fatal::new(exit::OS_ERROR, format_args!("convey: {e}")))?;
    let mut tls = TlsFrontends::new(ticket_keys.keys(), KeyLogFile::new(&state_dir));
    let prepared = tls::read_at_start(&broker, &loaded.config, &tls.known())
        .map_err(|e| Fatal::new(exit::CONFIG, format_args!("convey: {}", e.message)))?;
    for warning in &prepared.warnings {
        tracing::warn!(event = "config_warning", "{warning}");
    }
    // at the start there is nothing that could go on
    let (views, _) = tls.commit(prepared);
    let kept = Kept {
        lists,
        tls,
        views,
        ticket_keys,
        predecessors: log_inherited(predecessors),
        broker,
        runner,
        state_dir,
        scripts,
        record,
        files,
    };
    tracing::info!(event = "privileges_dropped", "{proof}");
    for warning in &loaded.warnings {
        tracing::warn!(event = "config_warning", "{}", config::in_one_line(warning));
    }
    // where somebody looks at it: the place itself
    if !loaded.warnings.is_empty() && io::stderr().is_terminal() {
        eprint!(
            "{}",
            config::render(&loaded.warnings, source, is_stderr_coloured())
        );
    }
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Fatal::new(exit::OS_ERROR, format_args!("make the control runtime: {e}")))?;
    let outcome = runtime.block_on(async {
        let mut signals = Signals::new()?;
        let (mut control, mut inboxes) = assemble(run, source, loaded.config, kept, logging, started)?;
        control.serve_admin(socket);
        let Inboxes { health, broker, .. } = &mut inboxes;
        tokio::select! {
            live = control.go_live(health) => live?,
            // without it nothing that is begun comes to an end, and another start may
            why = broker.lost() => return Err(broker_lost(&why)),
            signal = signals.end.recv() => {
                tracing::info!(event = "stopped", "{signal} during startup: stopped");
                return Ok(exit::OK);
            }
        }
        control.run(inboxes, signals).await
    });
    // a file system that hangs must not hold up the end
    runtime.shutdown_timeout(LAST_JOBS);
    outcome
}

/// Says that a program which an earlier process left in the kernel is detached, where the configuration has no use for it.
fn say_what_ends(config: &Config) {
    let why = if config.packet.engine != EngineChoice::Xdp {
        "[packet] engine is not \"xdp\" any more"
    } else if config
        .frontends
        .values()
        .any(|frontend| frontend.mode.is_packet())
    {
        return;
    } else {
        "no frontend is in a packet mode any more"
    };
    tracing::warn!(
        event = "xdp_not_taken_over",
        "the program of the previous process is detached, and its flows end: {why}"
    );
}

/// Says what an earlier process left; without it there is nothing to take over.
fn log_inherited(predecessors: io::Result<Predecessors>) -> Predecessors {
    let predecessors = predecessors.unwrap_or_else(|error| {
        tracing::warn!(
            event = "listener_not_taken_over",
            "cannot inherit descriptors from the service manager: {error}"
        );
        Predecessors::default()
    });
    let addresses: Vec<_> = predecessors
        .listeners()
        .map(|id| id.place().to_string())
        .collect();
    if !addresses.is_empty() {
        tracing::info!(
            event = "listeners_found",
            "inherited listeners from the previous process: {}",
            addresses.join(", ")
        );
    }
    predecessors
}
