//! Which places the lines of each frontend go to.

use std::{
    collections::HashMap,
    fs::File,
    io,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    time::Duration,
};

use super::{
    export::Exporter,
    file,
    sink::{Place, Sink},
    syslog,
};
#[cfg(feature = "otlp")]
use crate::base::OtlpLoss;
use crate::{
    base::{FrontendName, OtlpSignal},
    config::{AccessLog, Config, ConnectionLog, Frontend},
    daemon::otlp::{OtlpState, SignalState},
    privilege::Client,
};

/// How long the end of the process waits for what was handed over.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Where the lines of every frontend go by one configuration.
#[derive(Debug, Default)]
pub struct Routes {
    frontends: HashMap<FrontendName, Route>,
    /// Frontends of which the configuration before had lines: those of their last connections come now.
    before: HashMap<FrontendName, Route>,
}

/// Where the lines of a frontend go.
#[derive(Debug, Clone)]
pub struct Route {
    /// What of them goes to the journal.
    pub journal: AccessLog,
    /// The others.
    pub sinks: Vec<Arc<Sink>>,
}

/// Of what no configuration says.
const JOURNAL: &Route = &Route {
    journal: AccessLog::All,
    sinks: Vec::new(),
};

impl Routes {
    /// That of a frontend.
    pub fn of(&self, frontend: &FrontendName) -> &Route {
        let known = self.frontends.get(frontend).or_else(|| self.before.get(frontend));
        known.unwrap_or(JOURNAL)
    }

    /// Whether lines go to other places than the journal.
    pub fn has_sinks(&self) -> bool {
        let mut routes = self.frontends.values().chain(self.before.values());
        routes.any(|route| !route.sinks.is_empty())
    }
}

/// A place as the status has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputState {
    /// Which.
    pub output: String,
    /// Lines that got lost.
    pub dropped: u64,
    /// What is wrong with it now.
    pub trouble: Option<String>,
}

/// The places that there are, and what is needed for more.
#[derive(Debug)]
pub struct Outputs {
    otlp: Arc<OtlpState>,
    known: Mutex<Vec<Weak<Sink>>>,
    needs: Mutex<Needs>,
    /// Every actor has a clone; it is taken away at the end.
    alive: Mutex<Option<Sender<()>>>,
    all_gone: Mutex<Receiver<()>>,
}

/// What actors are started with.
#[derive(Debug, Default)]
struct Needs {
    broker: Option<Client>,
    exporter: Option<Exporter>,
}

/// Which files are opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Those that are not open.
    Unopened,
    /// All of them, for somebody may have renamed them.
    All,
}

impl Outputs {
    /// None yet.
    pub fn new() -> Self {
        let (alive, all_gone) = channel();
        Self {
            otlp: Arc::default(),
            known: Mutex::default(),
            needs: Mutex::default(),
            alive: Mutex::new(Some(alive)),
            all_gone: Mutex::new(all_gone),
        }
    }

    /// Whom files and sockets are asked of.
    pub fn set_broker(&self, broker: Client) {
        lock(&self.needs).broker = Some(broker);
    }

    /// The routes of a configuration after those of the one before. `journal`: whether lines about connections go to the
    /// journal at all.
    pub fn routes(&self, config: &Config, before: &Routes, journal: bool) -> Routes {
        let mut routes = Routes::default();
        let logs = config.otlp.as_ref().filter(|otlp| otlp.connections);
        self.logs()
            .set_url(logs.map(|otlp| otlp.url(OtlpSignal::Logs).to_string()));
        for frontend in config
            .frontends
            .values()
            .filter(|frontend| frontend.logs_connections())
        {
            let journal = match journal {
                true => frontend.connection_log.journal,
                false => AccessLog::Off,
            };
            let sinks = places(frontend, config);
            let sinks = sinks
                .into_iter()
                .map(|place| self.known(&place).unwrap_or_else(|| self.start(place)))
                .collect();
            (routes.frontends).insert(frontend.name.clone(), Route { journal, sinks });
        }
        let gone = (before.frontends.iter()).filter(|(name, _)| !routes.frontends.contains_key(*name));
        routes.before = gone.map(|(name, route)| (name.clone(), route.clone())).collect();
        routes
    }

    /// How the places are.
    pub fn states(&self) -> Vec<OutputState> {
        let state = |sink: Arc<Sink>| OutputState {
            output: sink.state().place.to_string(),
            dropped: sink.state().dropped(),
            trouble: sink.state().trouble(),
        };
        self.sinks().into_iter().map(state).collect()
    }

    /// Has the broker open files, one after the other, and hands them to their actors.
    pub fn open(&self, which: Which) -> impl Future<Output = ()> + Send + 'static {
        let broker = lock(&self.needs).broker.clone();
        let mut files: Vec<_> = (self.sinks().into_iter())
            .filter_map(|sink| match &sink.state().place {
                Place::File(path, _) => Some((path.clone(), sink)),
                _ => None,
            })
            .collect();
        // each is asked: one that lacks its file does not ask a second time
        files.retain(|(_, sink)| sink.takes_a_file() || which == Which::All);
        async move {
            let Some(broker) = broker else { return };
            for (path, sink) in files {
                let opened = broker.log_file(path.clone()).await;
                if opened.is_ok() && which == Which::All {
                    tracing::info!(
                        event = "connection_log",
                        "opened {} again: it is written to from now on",
                        path.display()
                    );
                }
                sink.opened(opened.map(File::from).map_err(|error| error.to_string()));
            }
        }
    }

    /// Waits for the end of all actors, whose sinks are gone.
    pub fn shutdown(&self) {
        drop(lock(&self.alive).take());
        match lock(&self.all_gone).recv_timeout(LAST_LINES) {
            // one that hangs is left behind: the process ends without it
            Ok(()) | Err(RecvTimeoutError::Disconnected | RecvTimeoutError::Timeout) => {}
        }
    }

    fn sinks(&self) -> Vec<Arc<Sink>> {
        let mut known = lock(&self.known);
        known.retain(|sink| sink.strong_count() > 0);
        known.iter().filter_map(Weak::upgrade).collect()
    }

    fn known(&self, place: &Place) -> Option<Arc<Sink>> {
        self.sinks().into_iter().find(|sink| sink.state().place == *place)
    }

    /// A place with its actor. One that cannot be started loses what it is handed.
    fn start(&self, place: Place) -> Arc<Sink> {
        let (sink, inbox) = match &place {
            #[cfg(feature = "otlp")]
            Place::Otlp(_) => {
                Sink::counting(place.clone(), Arc::clone(self.logs().losses(OtlpLoss::QueueFull)))
            }
            _ => Sink::new(place.clone()),
        };
        lock(&self.known).push(Arc::downgrade(&sink));
        let Some(alive) = lock(&self.alive).clone() else {
            return sink;
        };
        let state = Arc::clone(sink.state());
        let started = match place {
            Place::File(..) => file::start(state, inbox, alive),
            Place::Syslog(server, ..) => self.exporter().map(|exporter| {
                exporter.syslog(server, state, inbox, alive);
            }),
            #[cfg(feature = "otlp")]
            Place::Otlp(settings) => self.exporter().map(|exporter| {
                exporter.otlp(*settings, state, Arc::clone(self.logs()), inbox, alive);
            }),
        };
        if let Err(error) = started {
            sink.state().fails(&format!("start: {error}"));
        }
        sink
    }

    /// What is exported by OTLP, and what becomes of it.
    pub const fn otlp(&self) -> &Arc<OtlpState> {
        &self.otlp
    }

    fn logs(&self) -> &Arc<SignalState> {
        self.otlp.of(OtlpSignal::Logs)
    }

    /// The thread of what is sent to other programs.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn exporter(&self) -> io::Result<Exporter> {
        let mut needs = lock(&self.needs);
        if let Some(exporter) = &needs.exporter {
            return Ok(exporter.clone());
        }
        let broker = needs.broker.clone().ok_or(io::ErrorKind::NotConnected)?;
        let exporter = Exporter::start(broker)?;
        Ok(needs.exporter.insert(exporter).clone())
    }
}

/// The places of a frontend besides the journal.
fn places(frontend: &Frontend, config: &Config) -> Vec<Place> {
    let ConnectionLog {
        sample: _,
        journal: _,
        file,
        syslog,
        format,
        facility,
    } = &frontend.connection_log;
    let file = file.iter().map(|path| Place::File(path.clone(), *format));
    let syslog = (syslog.iter()).map(|server| Place::Syslog(server.clone(), *facility, *format));
    file.chain(syslog).chain(collector(config)).collect()
}

/// The collector that gets every frontend's records.
#[cfg(feature = "otlp")]
fn collector(config: &Config) -> Option<Place> {
    let otlp = config.otlp.as_ref().filter(|otlp| otlp.connections)?;
    Some(Place::Otlp(Box::new(otlp.only(OtlpSignal::Logs))))
}

/// None without the feature.
#[cfg(not(feature = "otlp"))]
const fn collector(_: &Config) -> Option<Place> {
    None
}

/// Who sends messages of syslog.
pub fn sender() -> syslog::Sender {
    let host = nix::unistd::gethostname().unwrap_or_default();
    syslog::Sender::new(&host.to_string_lossy(), std::process::id())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
