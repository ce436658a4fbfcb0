//! The control loop: it is told of everything by channels, and each of its arms returns at once. What takes time is a job
//! or a thread beside it.

use std::{
    future::pending,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::{Interval, MissedTickBehavior, interval, sleep_until},
};

use super::{
    Control, Fatal,
    logging::Which,
    plane::stats::{bind_stats, serve_stats},
    reload::machine::Trigger,
    watch,
};
use crate::{
    admin::AdminCommand,
    base::exit::{self, Exit},
    discovery::Found,
    health::HealthUpdate,
    privilege::{BrokerNews, News},
    proxy::ProxyEvent,
};

/// How often the end of the last connections is looked for while stopping.
const DRAIN_POLL: Duration = Duration::from_millis(50);

/// How often the workers are asked for a sign of life, unless systemd's watchdog wants it more often.
const WORKERS_ALIVE: Duration = Duration::from_secs(10);

/// How often counters are looked at for alerts, and the status line is sent again that found no room.
const LOOK_AROUND: Duration = Duration::from_secs(5);

/// Where the control loop hears of things.
pub struct Inboxes {
    /// From the workers.
    pub events: mpsc::Receiver<ProxyEvent>,
    /// From the checks.
    pub health: mpsc::Receiver<HealthUpdate>,
    /// From the control socket.
    pub commands: mpsc::Receiver<AdminCommand>,
    /// From sources of servers.
    pub found: mpsc::Receiver<Found>,
    /// From the file watcher.
    pub file_changes: mpsc::Receiver<()>,
    /// From the broker.
    pub broker: BrokerNews,
}

/// The signals that are acted on. Made before anything that takes time, for their default is to kill.
pub struct Signals {
    /// Those that end the daemon.
    pub end: EndSignals,
    hang_up: Signal,
    reopen: Signal,
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
            reopen: handle(SignalKind::user_defined1())?,
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
    /// Binds everything, waits for the first checks, starts to accept, and says that it is ready.
    pub async fn go_live(&mut self, health: &mut mpsc::Receiver<HealthUpdate>) -> Result<(), Fatal> {
        let bind_failed = |e: &dyn std::fmt::Display| Fatal::new(exit::OS_ERROR, e);
        self.open_logs(Which::Unopened);
        self.first_servers().await;
        let mut predecessors = std::mem::take(&mut self.predecessors);
        let missing = self.listeners.missing(self.state.config());
        let prepared = missing
            .bind(&self.broker, self.workers.count(), &mut predecessors)
            .await
            .map_err(|e| bind_failed(&e))?;
        // before they are kept anew: one name may have had sockets of both kinds
        self.notify.forget(predecessors.end());
        // clients come to them from now on, and what follows takes time and may fail
        self.keep(&prepared.added);
        let stats = bind_stats(self.stats.missing(self.state.config()), &self.broker)
            .await
            .map_err(|e| bind_failed(&e))?;
        let config = Arc::new(self.state.config().clone());
        // rules come before packets
        let armed = self
            .packets
            .arm(Arc::clone(&config), Arc::new(self.state.pools().clone()))
            .await
            .map_err(|e| Fatal::new(e.exit(), e))?;
        self.first_certificates();
        self.state.start_checks();
        self.first_round(health).await;
        self.keep_sockets();
        self.publish();
        self.state.say_empty();
        prepared.files.keep();
        self.listen(prepared.added);
        self.addresses.follow(&config);
        self.packets.commit(armed, config).await;
        self.scripts.write(self.state.config(), self.state.pools());
        let (tokens, api) = (self.acme.tokens(), self.tls.api());
        let stats = serve_stats(stats, &self.endpoints, tokens, api).map_err(|e| bind_failed(&e))?;
        self.stats.swap(stats, api);
        self.ready = true;
        self.follow_otlp();
        self.acme_due();
        self.publish_status();
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

    /// Runs until told to end; the result is the exit status.
    pub async fn run(mut self, mut inboxes: Inboxes, mut signals: Signals) -> Result<Exit, Fatal> {
        let (alive_tx, mut alive) = mpsc::channel(1);
        let mut watchdog = ticker(self.notify.watchdog_interval().unwrap_or(WORKERS_ALIVE));
        let mut drain_poll = ticker(DRAIN_POLL);
        let mut look_around = ticker(LOOK_AROUND);
        let mut file_change = watch::Debounce::default();
        loop {
            let (look_again, settle_until) = (self.reload.look_again(), self.reload.settle_until());
            tokio::select! {
                news = inboxes.broker.next() => match news {
                    News::Lost(why) => return Err(broker_lost(&why)),
                    News::Changed(changed) => self.broker_noticed(&changed, &mut file_change),
                },
                signal = signals.end.recv() => if self.terminate(signal) { break },
                _ = signals.hang_up.recv() => {
                    self.terminal.signalled();
                    if !self.terminal_closed() {
                        self.ask_reload(Trigger::Signal, None);
                    }
                }
                _ = signals.reopen.recv() => self.open_logs(Which::All),
                Some(update) = inboxes.health.recv() => self.health_changed(update, &mut inboxes.health),
                Some(ProxyEvent::ServerFailing(key, tls)) = inboxes.events.recv() => self.state.checker().passive_failure(&key, tls),
                Some(found) = inboxes.found.recv() => self.found(found),
                done = self.acme.done() => self.acme_done(done),
                armed = self.discovery.armed() => self.discovery_armed(armed),
                () = self.packets.changed() => self.packets_changed(),
                () = self.addresses.changed() => self.addresses_changed(),
                Some(command) = inboxes.commands.recv() => self.handle_command(command),
                Some(()) = inboxes.file_changes.recv() => file_change.noticed(Instant::now()),
                () = at(file_change.due()) => {
                    file_change = watch::Debounce::default();
                    self.file_changed();
                }
                () = at(look_again) => self.look_again(),
                done = self.reload.step_done() => self.reload_step_done(done),
                () = at(settle_until) => self.settled(),
                () = at(self.state.due()) => self.publish(),
                _ = look_around.tick() => {
                    self.terminal_closed();
                    self.look_for_alerts(Instant::now());
                    self.turn_ticket_keys();
                    self.retry_discovery();
                    self.acme_tick();
                    self.open_logs(Which::Unopened);
                    self.tell_status();
                }
                _ = drain_poll.tick(), if self.stopping.is_some() => if self.is_drained() { break },
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
                        return Err(Fatal::new(exit::SOFTWARE, "a worker thread has died; exiting"));
                    }
                    self.notify.watchdog();
                }
            }
        }
        self.end().await;
        Ok(exit::OK)
    }
}

/// Why the daemon ends when its broker is lost.
pub fn broker_lost(why: &str) -> Fatal {
    Fatal::new(
        exit::SOFTWARE,
        format_args!("the privileged broker has died ({why}); exiting"),
    )
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
