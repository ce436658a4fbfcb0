//! The control loop: one task that owns all state that changes slowly, and is told of everything by channels.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    future::pending,
    os::{fd::OwnedFd, unix::net::UnixListener},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::{Interval, MissedTickBehavior, interval, sleep_until},
};

use super::{
    Fatal,
    answers::list_connections,
    listeners::{Listeners, Predecessors, kept_as},
    logging::Logging,
    notify::{Notifier, not_kept},
    packets::{self, Packets},
    reload::Trigger,
    saved::SavedOverrides,
    scripts::Scripts,
    state::{Published, State},
    stop::Stopping,
    watch::{self, FileWatch},
};
use crate::{
    admin::{self, BindError, Command, Commands, HttpListener, SocketFile, views::ReloadFailed},
    base::{
        Endpoint, TerminationReason,
        exit::{self, Exit},
    },
    config::{self, Config, Source},
    health::HealthUpdate,
    privilege::Broker,
    proxy::{ProxyEvent, Select, Workers},
    snapshot::ServerCounts,
    sys::readiness,
};

/// How often the end of the last connections is looked for while stopping.
const DRAIN_POLL: Duration = Duration::from_millis(50);

/// How often the workers are asked for a sign of life, unless systemd's watchdog wants it more often.
const WORKERS_ALIVE: Duration = Duration::from_secs(10);

/// All state of the control thread.
pub struct Control {
    pub(super) config_path: PathBuf,
    pub(super) options: config::Options,
    /// Configuration, pools, health and the snapshot in effect.
    pub(super) state: State,
    /// The configuration that the process was started with.
    pub(super) booted: Config,
    pub(super) config_generation: u64,
    pub(super) broker: Broker,
    pub(super) workers: Arc<Workers>,
    pub(super) listeners: Listeners,
    /// Until the start has taken what it needs of them.
    pub(super) predecessors: Predecessors,
    pub(super) packets: Packets,
    pub(super) scripts: Scripts,
    /// The overrides that outlive the process.
    pub(super) saved: SavedOverrides,
    pub(super) notify: Notifier,
    pub(super) log: Arc<Logging>,
    pub(super) commands: Commands,
    pub(super) admin: Option<(SocketFile, HttpListener)>,
    pub(super) stats: Option<(Endpoint, HttpListener)>,
    pub(super) watcher: Option<FileWatch>,
    /// What the configuration file held when it was last read, or why it could not be.
    pub(super) last_source: Result<Source, ReloadFailed>,
    /// The last reload that failed, until one succeeds.
    pub(super) last_reload_error: Option<String>,
    /// Settings that wait for a restart.
    pub(super) needs_restart: Vec<String>,
    pub(super) stopping: Option<Stopping>,
    pub(super) ready: bool,
    pub(super) started: Instant,
}

/// Where the control loop hears of things.
pub struct Inboxes {
    /// From the workers.
    pub events: mpsc::Receiver<ProxyEvent>,
    /// From the checks.
    pub health: mpsc::Receiver<HealthUpdate>,
    /// From the control socket.
    pub commands: mpsc::Receiver<Command>,
    /// From the file watcher, and its sender for the next watcher.
    pub file_changes: mpsc::Receiver<()>,
    /// Given to each new watcher.
    pub file_changes_tx: mpsc::Sender<()>,
}

/// The signals that are acted on. Made before anything that takes time, for their default is to kill.
pub struct Signals {
    /// Those that end the daemon.
    pub end: EndSignals,
    hang_up: Signal,
}

/// SIGTERM and SIGINT.
pub struct EndSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes the signals over; must be called within the runtime.
    ///
    /// # Errors
    /// A handler cannot be installed.
    pub fn new() -> Result<Self, Fatal> {
        let handle =
            |kind| signal(kind).map_err(|e| Fatal::new(exit::OS_ERROR, format_args!("handle signals: {e}")));
        Ok(Self {
            end: EndSignals {
                terminate: handle(SignalKind::terminate())?,
                interrupt: handle(SignalKind::interrupt())?,
            },
            hang_up: handle(SignalKind::hangup())?,
        })
    }
}

impl EndSignals {
    /// Waits for one, and names it.
    pub async fn recv(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

impl Control {
    /// Serves the control socket, or warns that there is none.
    pub fn serve_admin(&mut self, socket: Result<Option<(UnixListener, SocketFile)>, BindError>) {
        let served = match socket {
            Ok(None) => return,
            Ok(Some((listener, file))) => admin::serve(listener, self.commands.clone())
                .map(|served| (file, served))
                .map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match served {
            Ok(served) => self.admin = Some(served),
            Err(error) => tracing::warn!(
                event = "admin_unavailable",
                "{error}; running without the control socket, so `convey status` and the like do not work"
            ),
        }
    }

    /// Binds everything, waits for the first checks, starts to accept, and says that it is ready.
    pub async fn go_live(&mut self, inboxes: &mut Inboxes) -> Result<(), Fatal> {
        let bind_failed = |e: &dyn std::fmt::Display| Fatal::new(exit::OS_ERROR, e);
        let mut predecessors = std::mem::take(&mut self.predecessors);
        let prepared = self
            .listeners
            .prepare(
                self.state.config(),
                &self.broker,
                self.workers.count(),
                &mut predecessors,
            )
            .map_err(|e| bind_failed(&e))?;
        // before they are kept anew: one name may have had sockets of both kinds
        self.notify.forget(predecessors.end());
        // clients come to them from now on, and what follows takes time and may fail
        self.keep(&prepared.added);
        let stats = self.prepare_stats(None).map_err(|e| bind_failed(&e))?;
        // rules come before packets
        let packets = self
            .packets
            .prepare(
                self.state.config(),
                self.state.pools(),
                &self.broker,
                self.state.published(),
            )
            .await
            .map_err(|e| bind_failed(&e))?;
        self.state.start_checks();
        self.first_round(&mut inboxes.health).await;
        self.publish();
        self.listen(prepared.added);
        self.packets.commit(packets, self.state.config(), &self.broker);
        self.scripts.write(self.state.config(), self.state.pools());
        self.swap_stats(stats);
        self.ready = true;
        self.notify.ready(&self.status_line());
        tracing::info!(
            event = "ready",
            "ready: {}{}",
            self.status_line(),
            if self.state.config().frontends.is_empty() {
                "; add a [frontends.NAME] to the configuration and reload"
            } else {
                ""
            }
        );
        Ok(())
    }

    /// Has systemd keep new listeners over a restart.
    pub(super) fn keep(&self, added: &BTreeMap<Endpoint, Vec<OwnedFd>>) {
        let named = added
            .iter()
            .map(|(endpoint, sockets)| (kept_as(*endpoint), sockets.as_slice()));
        if let Err(error) = self.notify.keep(named) {
            not_kept(&error);
        }
    }

    /// Accepts on new listeners.
    pub(super) fn listen(&mut self, added: BTreeMap<Endpoint, Vec<OwnedFd>>) {
        for (endpoint, sockets) in added {
            self.listeners.insert(endpoint, sockets.len());
            self.workers.listen(endpoint, sockets);
        }
        let (room, sockets) = (self.notify.store(), self.listeners.sockets());
        if room > 0 && sockets > room {
            tracing::warn!(
                event = "listener_not_kept",
                "systemd keeps {room} of {sockets} listening sockets over a restart, which will refuse connections: raise \
                 FileDescriptorStoreMax= and Environment=FDSTORE= (systemctl edit convey)"
            );
        }
    }

    /// Runs until told to end; the result is the exit status.
    pub async fn run(mut self, mut inboxes: Inboxes, mut signals: Signals) -> Result<Exit, Fatal> {
        let death = self
            .broker
            .death_fd()
            .map_err(|e| Fatal::new(exit::OS_ERROR, format_args!("watch the broker: {e}")))?;
        let mut broker_dies = std::pin::pin!(hung_up(death));
        let (alive_tx, mut alive) = mpsc::channel(1);
        let mut watchdog = ticker(self.notify.watchdog_interval().unwrap_or(WORKERS_ALIVE));
        let mut drain_poll = ticker(DRAIN_POLL);
        let mut upkeep = ticker(packets::UPKEEP);
        let mut file_change = watch::Debounce::default();
        loop {
            tokio::select! {
                () = &mut broker_dies => {
                    return Err(Fatal::new(exit::SOFTWARE, "the privileged broker has died; ending"));
                }
                signal = signals.end.recv() => if self.terminate(signal) { break },
                _ = signals.hang_up.recv() => { let _ = self.reload(Trigger::Signal, &mut inboxes).await; }
                Some(update) = inboxes.health.recv() => self.health_changed(update, &mut inboxes.health),
                Some(ProxyEvent::ServerFailing(key)) = inboxes.events.recv() => self.state.checker().passive_failure(&key),
                news = self.packets.news() => self.network_changed(&news),
                _ = upkeep.tick() => self.keep_up(),
                Some(command) = inboxes.commands.recv() => self.obey(command, &mut inboxes).await,
                Some(()) = inboxes.file_changes.recv() => file_change.noticed(Instant::now()),
                () = at(file_change.due()) => {
                    file_change = watch::Debounce::default();
                    self.watch_file(&inboxes.file_changes_tx);
                    // it may have been turned off since
                    if self.watcher.is_some() {
                        let _ = self.reload(Trigger::FileChange, &mut inboxes).await;
                    }
                }
                () = at(self.state.due()) => self.publish(),
                _ = drain_poll.tick(), if self.stopping.is_some() => if self.is_drained().await { break },
                _ = watchdog.tick() => {
                    let (workers, alive) = (Arc::clone(&self.workers), alive_tx.clone());
                    let packets_alive = self.packets.alive();
                    tokio::spawn(async move {
                        let all = workers.ping().await && packets_alive.await;
                        let _ = alive.try_send(all);
                    });
                }
                // said by this loop and only after every worker's has answered: the loops that must be alive
                Some(all_alive) = alive.recv() => {
                    if !all_alive {
                        return Err(Fatal::new(exit::SOFTWARE, "a worker thread has died; ending"));
                    }
                    self.notify.watchdog();
                }
            }
        }
        self.end().await;
        Ok(exit::OK)
    }

    /// Watches the file anew, for its directories may be others now, or no longer if the configuration in effect says so.
    pub(super) fn watch_file(&mut self, changes: &mpsc::Sender<()>) {
        if !self.state.config().global.watch_config {
            self.watcher = None;
        } else if let Some(watcher) = watch::watch(&self.config_path, changes.clone()) {
            // without a new one the old one is better than none
            self.watcher = Some(watcher);
        }
    }

    /// Puts a snapshot of what is known now in effect, and does what follows from it.
    pub fn publish(&mut self) {
        let Published { built, to_close } = self.state.publish(Instant::now());
        if built.concerns_packets {
            self.packets.snapshot_changed();
        }
        // whoever waits for room looks again: a limit may be higher, a server may be back
        built.wake_queues();
        if !to_close.is_empty() {
            let servers = Select::Servers(Arc::new(to_close));
            self.workers.close(&servers, TerminationReason::ServerDown);
        }
        if self.ready {
            self.notify.status(&self.status_line());
        }
    }

    /// What `systemctl status` shows.
    pub fn status_line(&self) -> String {
        if let Some(stopping) = &self.stopping {
            return stopping.status_line(self.workers.open_connections());
        }
        let ServerCounts {
            servers, eligible, ..
        } = self.state.snapshot().counts;
        let mut line = match self.state.config().frontends.len() {
            0 => "idle, no frontends configured".to_owned(),
            frontends => format!("{frontends} frontend(s), {eligible} of {servers} server(s) eligible"),
        };
        match self.state.backends_down() {
            0 => {}
            1 => line.push_str("; 1 backend is down"),
            down => {
                let _ = write!(line, "; {down} backends are down");
            }
        }
        let waiting = self.packets.vips().waiting();
        if !waiting.is_empty() {
            line.push_str("; waiting for the address of ");
            line.push_str(waiting);
        }
        if let Some(error) = &self.last_reload_error {
            line.push_str("; last reload failed: ");
            line.push_str(&in_one_line(error));
        }
        line
    }

    fn keep_up(&mut self) {
        self.packets.keep_up(self.state.config(), &self.broker);
        // the last one may have found no room
        if self.ready {
            self.notify.status(&self.status_line());
        }
    }

    fn network_changed(&mut self, news: &packets::News) {
        self.packets.heed(news, self.state.config(), &self.broker);
        if self.ready {
            self.notify.status(&self.status_line());
        }
    }

    async fn obey(&mut self, command: Command, inboxes: &mut Inboxes) {
        // a reply that nobody waits for any more is no error
        match command {
            Command::Status { reply } => {
                let _ = reply.send(self.status());
            }
            Command::Reload { reply } => {
                let _ = reply.send(self.reload(Trigger::Request, inboxes).await);
            }
            Command::Server {
                backend,
                server,
                request,
                reply,
            } => {
                let _ = reply.send(self.override_server(&backend, &server, request));
            }
            Command::Connections { filter, reply } => {
                // asked in a task of its own: a stuck worker must not hold up the loop
                let workers = Arc::clone(&self.workers);
                let engine = self.packets.engine().map(Arc::clone);
                let snapshot = Arc::clone(self.state.snapshot());
                tokio::spawn(async move {
                    let _ = reply.send(list_connections(&workers, engine, snapshot, filter).await);
                });
            }
            Command::Explain { tuple, reply } => {
                let _ = reply.send(self.explain(&tuple));
            }
            Command::BackendScript {
                frontend,
                server,
                reply,
            } => {
                let _ = reply.send(self.backend_script(&frontend, &server));
            }
        }
    }
}

/// Resolves when the other end of a socket is gone.
async fn hung_up(socket: OwnedFd) {
    let Ok(socket) = readiness::readable(socket) else {
        return;
    };
    loop {
        let Ok(mut ready) = socket.readable().await else {
            return;
        };
        if readiness::is_hung_up(socket.get_ref()) {
            return;
        }
        // an answer of the broker to a call that has read it by now
        ready.clear_ready();
    }
}

async fn at(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when.into()).await,
        None => pending().await,
    }
}

fn ticker(every: Duration) -> Interval {
    let mut ticker = interval(every);
    ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticker
}

/// The first finding of what an operator is told, with its place if it has one, as `systemctl status` shows it.
fn in_one_line(error: &str) -> String {
    let mut lines = error.lines();
    let first = lines.next().unwrap_or_default();
    let place = lines
        .next()
        .and_then(|line| line.trim_start().strip_prefix("--> "));
    place.map_or_else(|| first.to_owned(), |place| format!("{place}: {first}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_line_says_where_a_configuration_is_wrong() {
        let error = "error: `x` has no port\n --> /etc/convey/convey.toml:2:15\n  |\n2 | listen_addr = \"x\"";
        assert_eq!(
            in_one_line(error),
            "/etc/convey/convey.toml:2:15: error: `x` has no port"
        );
        assert_eq!(in_one_line("port 80 is taken\nby somebody"), "port 80 is taken");
    }
}
