//! Structured logging through a bounded queue to one thread.
//!
//! ```text
//! any thread ── tracing event ──► QueueLayer ─┐ try_send (full: counted, never waits)
//! worker ────── AccessRecord ───► AccessLog ──┴─► queue ─► thread convey-log ─► journald, or stderr as text or JSON
//!                                                                │ batches (bounded: counted, never waits)
//!                                                                ├─► a thread convey-logfile for each file
//!                                                                └─► thread convey-export ─► syslog servers and an OTLP collector, a task each
//! ```
//!
//! What a caller pays is collecting the values of an event, or moving a record; formatting, time stamps as text and
//! system calls are the thread's. The thread *replays* each event into an ordinary stack of `tracing` layers of its
//! own, so that tracing-journald and tracing-subscriber do the formatting. Events say what they are in a field
//! `event` and name things in `frontend`, `backend`, `server`, …: in the journal CONVEY_EVENT=, CONVEY_FRONTEND=, ….
//! Spans are not used: an event carries all its fields.

mod access;
mod events;
mod export;
mod file;
mod journal;
mod output;
mod outputs;
mod queue;
mod rate;
#[cfg(feature = "otlp")]
mod record;
mod sink;
mod syslog;
mod taps;
mod terminal;
mod thread;
pub(super) mod time;

use std::{
    io,
    num::NonZeroU32,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, SystemTime},
};

#[cfg(feature = "otlp")]
use tokio::runtime::Handle;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{Layer as _, Registry, filter::Targets, layer::SubscriberExt, reload};

use crate::{
    admin::EventLog,
    base::AccessSink,
    config::{Config, LogFormat, LogLevel},
    daemon::otlp::OtlpState,
    privilege::Client,
};
pub(crate) use access::AccessLog;
use events::EventLayer;
use output::Output;
pub(crate) use output::is_stderr_coloured;
use outputs::Outputs;
pub(crate) use outputs::{OutputState, Which};
use queue::{Queue, QueueLayer};

/// Events and access records that wait for the thread at most: a tenth of a second of the access log at 80,000
/// connections a second, in about 2 MB.
const QUEUE_CAPACITY: usize = 8192;

/// How long [`Logging::shutdown`] waits for the last lines.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// Why logging could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The thread could not be made.
    #[error("start the logging thread: {0}")]
    Thread(io::Error),
    /// Something else has already installed itself.
    #[error("logging was started twice")]
    Twice,
}

/// The running logging thread, and the process-wide subscriber that feeds it.
#[derive(Debug)]
pub struct Logging {
    queue: Queue,
    outputs: Arc<Outputs>,
    filter: reload::Handle<Targets, Registry>,
    events: Arc<EventLog>,
    thread: JoinHandle<()>,
    done: Receiver<()>,
}

/// Tells how much was lost.
#[derive(Debug)]
pub struct Losses {
    queue: Queue,
    outputs: Arc<Outputs>,
}

impl Losses {
    /// How the places are that lines about connections go to besides the journal.
    #[must_use]
    pub fn outputs(&self) -> Vec<OutputState> {
        self.outputs.states()
    }

    /// What is exported by OTLP, and what becomes of it.
    #[must_use]
    pub fn otlp(&self) -> &OtlpState {
        self.outputs.otlp()
    }

    /// Events and access records lost since start: the queue was full, there were too many a second, or they could not be
    /// written.
    #[must_use]
    pub fn count(&self) -> u64 {
        let shared = self.queue.shared();
        shared.dropped().wrapping_add(shared.above_rate())
    }
}

impl Logging {
    /// Starts the thread and takes over all `tracing` events of the process. Call it after privileges are dropped.
    ///
    /// Writes to journald if standard error is connected to it (`format` is ignored then), else to standard error.
    ///
    /// # Errors
    /// The thread cannot be made, or this is the second call.
    pub fn start(level: LogLevel, format: LogFormat) -> Result<Self, StartError> {
        let (sender, receiver) = sync_channel(QUEUE_CAPACITY);
        let queue = Queue::new(sender);
        queue.set_access(logs_access(level));
        queue.set_format(format);
        let (filter, handle) = reload::Layer::new(targets(level));
        let events = Arc::new(EventLog::new(SystemTime::now()));
        let to_journal = QueueLayer::new(queue.clone()).with_filter(filter);
        // what operators see there is the same whatever the journal gets
        let to_api = EventLayer(Arc::clone(&events)).with_filter(LevelFilter::INFO);
        tracing::subscriber::set_global_default(Registry::default().with(to_journal).with(to_api))
            .map_err(|_| StartError::Twice)?;
        let (done_sender, done) = sync_channel(1);
        let shared = Arc::clone(queue.shared());
        let thread = std::thread::Builder::new()
            .name("convey-log".into())
            .spawn(move || {
                thread::run(&mut Output::choose(&shared), &receiver, &shared);
                // the daemon may have stopped waiting
                let _ = done_sender.try_send(());
            })
            .map_err(StartError::Thread)?;
        Ok(Self {
            queue,
            outputs: Arc::new(Outputs::new()),
            filter: handle,
            events,
            thread,
            done,
        })
    }

    /// Whom files and sockets are asked of from now on.
    pub fn set_broker(&self, broker: Client) {
        self.outputs.set_broker(broker);
    }

    /// Goes by the settings of a configuration from now on. Files that are new are to be [opened](Self::open_files).
    pub fn follow(&self, config: &Config) {
        let global = &config.global;
        self.set_level(global.log_level);
        self.set_format(global.log_format);
        self.set_access_per_second(global.access_log_per_second);
        let in_journal = logs_access(global.log_level);
        let shared = self.queue.shared();
        let routes = self.outputs.routes(config, &shared.routes(), in_journal);
        // the level is that of the journal: what goes elsewhere goes there as before
        self.queue.set_access(in_journal || routes.has_sinks());
        shared.set_routes(Arc::new(routes));
        // it lets go of the places that are no more
        self.queue.wake();
    }

    /// Has files opened: all of them anew, because somebody has renamed them, or those that are not open.
    pub fn open_files(&self, which: Which) -> impl Future<Output = ()> + Send + 'static {
        self.outputs.open(which)
    }

    /// What is exported by OTLP.
    pub fn otlp(&self) -> &Arc<OtlpState> {
        self.outputs.otlp()
    }

    /// The thread for what is sent to other programs.
    ///
    /// # Errors
    /// It cannot be started.
    #[cfg(feature = "otlp")]
    pub fn export_thread(&self) -> io::Result<Handle> {
        Ok(self.outputs.exporter()?.runtime().clone())
    }

    /// Changes how much is logged, from now on.
    pub fn set_level(&self, level: LogLevel) {
        self.queue.set_access(logs_access(level));
        // fails only when the subscriber is gone, and then nothing is logged anyway
        let _ = self.filter.reload(targets(level));
    }

    /// Changes how many finished connections a second are logged, from now on. No limit before.
    pub fn set_access_per_second(&self, most: NonZeroU32) {
        self.queue.set_access_per_second(most);
    }

    /// Changes the shape of lines on standard error, from about now on.
    pub fn set_format(&self, format: LogFormat) {
        self.queue.set_format(format);
    }

    /// Where the proxy reports finished connections. Cheap to clone; lives as long as anyone needs it.
    #[must_use]
    pub fn access_log(&self) -> Arc<dyn AccessSink> {
        Arc::new(AccessLog::new(self.queue.clone()))
    }

    /// The last events.
    #[must_use]
    pub const fn events(&self) -> &Arc<EventLog> {
        &self.events
    }

    /// Tells how many events and access records were lost. Lives as long as anyone needs it.
    #[must_use]
    pub fn losses(&self) -> Losses {
        Losses {
            queue: self.queue.clone(),
            outputs: Arc::clone(&self.outputs),
        }
    }

    /// Writes what is queued, for at most a second, and ends the thread. Events after this are dropped.
    pub fn shutdown(self) {
        let (outputs, shared) = (Arc::clone(&self.outputs), Arc::clone(self.queue.shared()));
        // a thread that hangs in a write is left behind: the process ends without it
        let _ = self.end_within(SHUTDOWN_TIMEOUT);
        // nothing is handed over any more
        shared.set_routes(Arc::default());
        outputs.shutdown();
    }

    /// Whether the thread has ended by itself, in time.
    fn end_within(self, time: Duration) -> bool {
        self.queue.stop();
        self.thread.thread().unpark();
        match self.done.recv_timeout(time) {
            // a thread that panicked has said so on standard error
            Ok(()) | Err(RecvTimeoutError::Disconnected) => self.thread.join().is_ok(),
            Err(RecvTimeoutError::Timeout) => false,
        }
    }
}

/// The access log is information: it is silent at `warn` and `error`.
fn logs_access(level: LogLevel) -> bool {
    !matches!(level, LogLevel::Error | LogLevel::Warn)
}

/// What gets through: Convey's own events at `level`, those of its libraries only from warnings up (below, they
/// narrate every poll), but for `trace`, which means everything.
fn targets(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let others = if level == LevelFilter::TRACE {
        level
    } else {
        level.min(LevelFilter::WARN)
    };
    let of_names = match level {
        LevelFilter::TRACE => level,
        // whoever can send answers could fill the log with its warnings; what counts is an event of ours
        _ => LevelFilter::OFF,
    };
    let hickory = ["hickory_net", "hickory_proto", "hickory_resolver"].map(|target| (target, of_names));
    Targets::new()
        .with_default(others)
        .with_target("convey", level)
        .with_targets(hickory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Level;

    #[test]
    fn libraries_are_heard_only_when_they_warn() {
        let info = targets(LogLevel::Info);
        assert!(info.would_enable("convey::health", &Level::INFO));
        assert!(!info.would_enable("convey::health", &Level::DEBUG));
        assert!(info.would_enable("hyper", &Level::WARN) && !info.would_enable("hyper", &Level::INFO));
        let error = targets(LogLevel::Error);
        assert!(error.would_enable("hyper", &Level::ERROR) && !error.would_enable("hyper", &Level::WARN));
        assert!(targets(LogLevel::Trace).would_enable("hyper", &Level::TRACE));
    }

    /// The one test that installs the process-wide subscriber.
    #[test]
    fn a_started_log_takes_events_changes_its_level_and_ends_by_itself() {
        let logging = Logging::start(LogLevel::Error, LogFormat::Text).unwrap();
        assert!(matches!(
            Logging::start(LogLevel::Error, LogFormat::Text),
            Err(StartError::Twice)
        ));
        assert!(!tracing::enabled!(target: "convey::test", Level::DEBUG));
        logging.set_level(LogLevel::Debug);
        assert!(tracing::enabled!(target: "convey::test", Level::DEBUG));
        logging.set_level(LogLevel::Error);
        assert!(!tracing::enabled!(target: "convey::test", Level::DEBUG));
        tracing::info!(target: "convey::test", event = "tested", "for the API also where the log is silent");
        assert_eq!(
            logging.events().after(None, 1, |_| true).events[0].1.name,
            "tested"
        );
        assert!(logging.end_within(crate::PATIENCE));
    }
}
