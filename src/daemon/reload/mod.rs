//! Reload: what the [machine] orders is carried out here. What takes time is a job beside the control loop; what a job has
//! prepared is held until the commit, and put back by dropping it.

mod cut;
mod finish;
mod jobs;
pub mod machine;
mod new;
#[cfg(test)]
mod tests;
mod texts;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::oneshot, task::JoinSet};

use super::{
    Control,
    health::longest_check,
    logging::Which,
    plane::{
        listeners::{PreparedListeners, kept_as},
        packets::Armed,
        socket_files::{set_rights, with_other_rights},
        stats::{StatsChange, StatsSockets, serve_stats},
    },
    watch::{FileWatch, watch_beside},
};
use crate::{
    admin::views::{ReloadFailed, Reloaded},
    config::{self, Config, Source},
    privilege::FileRead,
    sys::config_file::FileIdentity,
};
use cut::{Counted, Cut};
pub(super) use jobs::bind;
use jobs::read;
use machine::{Action, NotRead, ReloadEvent, ReloadMachine, Ticket, Trigger};
use new::{New, Running, load, with_files};
use texts::{failure, panicked};

/// After how long is looked again at a file that could not be looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Where a reload's answer goes.
pub type ReloadReply = oneshot::Sender<Result<Reloaded, ReloadFailed>>;

/// Who asks for a reload, and where the answer goes.
pub type Asker = (String, ReloadReply);

/// A reload under way, and what is remembered of those before.
#[derive(Debug)]
pub struct Reload {
    machine: ReloadMachine,
    /// At most one job runs; dropping it ends it.
    jobs: JoinSet<Done>,
    /// What has been loaded.
    new: Option<New>,
    /// The file that was read last.
    identity: Option<FileIdentity>,
    bound: Option<Bound>,
    armed: Option<Armed>,
    /// What changes hands, and how many connections that concerned when it was last counted.
    cut: (Cut, Counted),
    settle_until: Option<Instant>,
    /// Who asked.
    waiting: BTreeMap<Ticket, Asker>,
    last_ticket: u64,
    is_announced: bool,
    look_again: Option<Instant>,
    /// Whether the operator knows that the file cannot be looked at.
    has_warned: bool,
}

/// New sockets; dropping it closes them.
#[derive(Debug)]
struct Bound {
    listeners: PreparedListeners,
    stats: StatsChange,
}

/// What a job has come to.
#[derive(Debug)]
enum Done {
    /// With what watches the file anew, if that is wanted.
    Read(Option<Result<FileWatch, String>>, Result<FileRead, NotRead>),
    Loaded(Box<Result<New, ReloadFailed>>),
    Checked,
    Bound(Result<(PreparedListeners, StatsSockets), ReloadFailed>),
    Counted(Result<(Cut, Counted), ReloadFailed>),
    Armed(Result<Armed, ReloadFailed>),
    /// With the number of proxied connections that were cut.
    Served(usize),
}

impl Reload {
    /// No reload yet; this configuration was read at the start.
    #[must_use]
    pub fn new(in_effect: Source) -> Self {
        Self {
            machine: ReloadMachine::new(in_effect),
            jobs: JoinSet::new(),
            new: None,
            identity: None,
            bound: None,
            armed: None,
            cut: Default::default(),
            settle_until: None,
            waiting: BTreeMap::new(),
            last_ticket: 0,
            is_announced: false,
            look_again: None,
            has_warned: false,
        }
    }

    /// Whether none is under way.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        self.machine.is_idle()
    }

    /// The text that runs.
    #[must_use]
    pub const fn in_effect(&self) -> &Source {
        self.machine.in_effect()
    }

    /// Why the last reload failed, until one succeeds.
    #[must_use]
    pub fn last_error(&self) -> Option<&ReloadFailed> {
        self.machine.last_error()
    }

    /// When the next step is taken whatever happens.
    #[must_use]
    pub const fn settle_until(&self) -> Option<Instant> {
        self.settle_until
    }

    /// When to look at the file again.
    #[must_use]
    pub const fn look_again(&self) -> Option<Instant> {
        self.look_again
    }

    /// Resolves when the job under way has ended; never without one.
    pub async fn step_done(&mut self) -> StepDone {
        match self.jobs.join_next().await {
            Some(Ok(done)) => StepDone(Some(done)),
            Some(Err(_)) => StepDone(None),
            None => std::future::pending().await,
        }
    }

    fn ticket(&mut self, asker: Asker) -> Ticket {
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        self.waiting.insert(ticket, asker);
        ticket
    }
}

/// A job's end, to be handed to [`Control::reload_step_done`].
#[derive(Debug)]
pub struct StepDone(Option<Done>);

impl Control {
    /// Somebody asks for a reload; the answer comes when it is over.
    pub(super) fn ask_reload(&mut self, trigger: Trigger, asker: Option<Asker>) {
        let ticket = asker.map(|asker| self.reload.ticket(asker));
        self.reload_event(ReloadEvent::Asked(trigger, ticket));
    }

    /// It is time to look at a file again that could not be looked at; once, whatever comes of it.
    pub(super) fn look_again(&mut self) {
        self.reload.look_again = None;
        self.file_changed();
    }

    /// The reload under way, if there is one, is given up; there will be no other.
    pub(super) fn stop_reloading(&mut self) {
        self.reload_event(ReloadEvent::Stop);
    }

    /// The servers that are tried out are known well enough, or the time is over.
    pub(super) fn settled(&mut self) {
        if self.reload.settle_until.take().is_some() {
            self.reload_event(ReloadEvent::Settled);
        }
    }

    /// A job has ended.
    pub(super) fn reload_step_done(&mut self, done: StepDone) {
        let event = match done.0 {
            Some(Done::Read(watched, read)) => {
                if let Some(watched) = watched {
                    self.take_watch(watched);
                }
                // what the broker resolves by, so do we
                if let Ok(file) = &read {
                    self.options.default_nat_ports = file.default_nat_ports;
                    self.reload.identity = Some(file.identity);
                }
                ReloadEvent::Read(read)
            }
            Some(Done::Loaded(loaded)) => ReloadEvent::Loaded((*loaded).map(|new| {
                let changes = !new.diff.changes.is_empty();
                self.reload.new = Some(new);
                changes
            })),
            Some(Done::Checked) => ReloadEvent::Checked,
            Some(Done::Bound(bound)) => ReloadEvent::Bound(bound.and_then(|bound| self.take_bound(bound))),
            Some(Done::Counted(counted)) => ReloadEvent::Counted(counted.map(|cut| self.reload.cut = cut)),
            Some(Done::Served(cut)) => {
                self.reload.cut.1 = self.reload.cut.1.with_connections(cut);
                ReloadEvent::Served
            }
            Some(Done::Armed(armed)) => {
                ReloadEvent::Armed(armed.map(|armed| self.reload.armed = Some(armed)))
            }
            // it has panicked
            None => ReloadEvent::Broken(panicked()),
        };
        self.reload_event(event);
    }

    fn take_bound(
        &mut self,
        (listeners, stats): (PreparedListeners, StatsSockets),
    ) -> Result<(), ReloadFailed> {
        let api = self.reload.new.as_ref().and_then(|new| new.tls.api.access());
        let stats = serve_stats(stats, &self.endpoints, self.acme.tokens(), api).map_err(|e| failure(&e))?;
        self.reload.bound = Some(Bound { listeners, stats });
        Ok(())
    }

    fn reload_event(&mut self, event: ReloadEvent) {
        for action in self.reload.machine.step(event) {
            self.act(action);
        }
        // a trial of servers without checks is over at once
        if self.reload.settle_until.is_some() && self.state.is_settled() {
            self.settled();
        }
        // what sources have answered meanwhile
        self.take_answers();
    }

    fn act(&mut self, action: Action) {
        let broker = self.broker.clone();
        match action {
            Action::Read => {
                // this is the look
                self.reload.look_again = None;
                let wants_watch = self.state.config().global.watch_config;
                let watching =
                    wants_watch.then(|| watch_beside(self.config_path.clone(), self.file_changes.clone()));
                self.reload.jobs.spawn(async move {
                    // before it is read: what changes afterwards is noticed
                    let watched = match watching {
                        Some(watching) => Some(watching.await),
                        None => None,
                    };
                    Done::Read(watched, read(broker).await)
                });
            }
            Action::Announce => {
                self.reload.is_announced = true;
                self.notify.reloading();
            }
            Action::Load(source) => {
                let (options, before) = (self.options, self.state.config().clone());
                let running = Running {
                    config: before.clone(),
                    lists: self.state.lists().clone(),
                    known: self.tls.known(),
                    pools: self.state.pools().clone(),
                    reader: self.discovery.reader(),
                };
                self.reload.jobs.spawn(async move {
                    let parsed = tokio::task::spawn_blocking(move || load(&source, options, &before)).await;
                    Done::Loaded(Box::new(match parsed {
                        Ok(Ok(new)) => with_files(new, &broker, running).await,
                        Ok(Err(why)) => Err(why),
                        Err(_) => Err(panicked()),
                    }))
                });
            }
            Action::Check => {
                let checked = self.packets.check_rules();
                self.reload.jobs.spawn(async move {
                    checked.await;
                    Done::Checked
                });
            }
            Action::Bind => {
                let Some(new) = &self.reload.new else { return };
                let missing = self.listeners.missing(&new.config);
                let stats = self.stats.missing(&new.config);
                let workers = self.workers.count();
                self.reload.jobs.spawn(async move {
                    Done::Bound(
                        bind(missing, stats, &broker, workers)
                            .await
                            .map_err(|e| failure(&e)),
                    )
                });
            }
            Action::TryOut => {
                let Some(new) = &self.reload.new else { return };
                let views = new.tls.to_servers.views().checks;
                self.state.try_out(&new.config, &new.first.discovered, &views);
                self.reload.settle_until = Some(longest_check(&new.config));
            }
            Action::Count { may_cut } => self.count_cut(may_cut),
            Action::Arm => {
                self.discovery.give_way();
                let Some(new) = &self.reload.new else { return };
                let pools = self.state.pools_with(&new.config, &new.first.discovered);
                let pools = Arc::new(pools);
                let armed = self.packets.arm(Arc::clone(&new.config), pools);
                self.reload.jobs.spawn(async move {
                    Done::Armed(armed.await.map_err(|error| ReloadFailed {
                        message: error.to_string(),
                        config_error: false,
                    }))
                });
            }
            Action::Commit => self.commit(),
            Action::PutBack => self.put_back(),
            Action::Finish(ask, outcome) => self.finish(ask, outcome),
        }
    }

    /// Puts what was prepared in effect. Nothing of it can fail.
    fn commit(&mut self) {
        let (Some(new), Some(bound), Some(armed)) = (
            &mut self.reload.new,
            self.reload.bound.take(),
            self.reload.armed.take(),
        ) else {
            return;
        };
        let config = Arc::clone(&new.config);
        let other_rights = with_other_rights(self.state.config(), &config);
        self.log.follow(&config);
        let (tls, broken) = self.tls.commit(std::mem::take(&mut new.tls));
        for line in broken {
            tracing::error!(event = "certificate_broken", "{line}");
        }
        let first = std::mem::take(&mut new.first);
        let lists = new.lists.clone();
        self.state
            .apply(Config::clone(&config), &first.discovered, lists, tls);
        self.discovery.follow(&config, first);
        self.follow_acme();
        self.follow_otlp();
        self.use_ticket_keys();
        self.servers_changed();
        self.config_generation += 1;
        self.keep_sockets();
        self.open_logs(Which::Unopened);
        self.publish();
        // first, for their places are needed
        let removed = bound.listeners.removed;
        self.notify.forget(removed.iter().copied().map(kept_as).collect());
        let mut retired = JoinSet::new();
        for id in removed {
            self.listeners.remove(id);
            self.release_socket(id);
            retired.spawn(self.workers.retire(id));
        }
        bound.listeners.files.keep();
        self.keep(&bound.listeners.added);
        self.listen(bound.listeners.added);
        self.addresses.follow(&config);
        let served = self.packets.commit(armed, config);
        let (broker, identity) = (self.broker.clone(), self.reload.identity);
        let (cut, workers) = (self.reload.cut.0.clone(), Arc::clone(&self.workers));
        self.reload.jobs.spawn(async move {
            set_rights(&broker, other_rights).await;
            if cut.is_empty() {
                retired.detach_all();
            }
            // connections that waited in the queues of listeners are cut too
            retired.join_all().await;
            let connections = cut.perform(&workers).await;
            served.await;
            if let Some(identity) = identity {
                // a broker that is lost ends the daemon, and one that is silent keeps a right for longer
                let _ = broker.in_effect(identity).await;
            }
            Done::Served(connections)
        });
        self.stats.swap(bound.stats, self.tls.api());
        if !self.state.config().global.watch_config {
            self.watcher = None;
        } else if self.watcher.is_none() {
            // full: a look is due already
            let _ = self.file_changes.try_send(());
        }
        // against what the process was started with: a second reload does not make a restart unnecessary
        self.needs_restart = config::diff(&self.startup_config, self.state.config()).needs_restart;
    }

    fn put_back(&mut self) {
        self.reload.jobs.abort_all();
        // what an ended job still had is dropped with it
        self.reload.jobs = JoinSet::new();
        self.reload.settle_until = None;
        self.reload.bound = None;
        self.reload.armed = None;
        self.reload.cut = Default::default();
        self.state.abandon_tryout();
    }
}
