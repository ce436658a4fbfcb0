//! What is sent to other programs: actors as tasks on a thread of their own, so that whoever does not answer holds up
//! nobody else.

#[cfg(feature = "otlp")]
mod otlp;
mod syslog;

use std::{
    future::pending,
    io,
    sync::{Arc, mpsc::Sender},
    thread,
    time::Duration,
};

use tokio::{
    runtime::{Builder, Handle},
    sync::mpsc::UnboundedReceiver,
};

use super::sink::{Message, SinkState};
#[cfg(feature = "otlp")]
use crate::{
    base::OtlpSignal,
    config::Otlp,
    daemon::otlp::{Collector, SignalState},
};
use crate::{config::SyslogServer, privilege::Client};

/// The thread, and whom actors ask for what only the broker can open.
#[derive(Debug, Clone)]
pub struct Exporter {
    runtime: Handle,
    broker: Client,
}

impl Exporter {
    /// Starts the thread, which ends with the process.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(broker: Client) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        thread::Builder::new()
            .name("convey-export".into())
            .spawn(move || runtime.block_on(pending::<()>()))?;
        Ok(Self {
            runtime: handle,
            broker,
        })
    }

    /// Starts the actor of a syslog server; `alive` is dropped at its end.
    pub fn syslog(
        &self,
        server: SyslogServer,
        state: Arc<SinkState>,
        inbox: UnboundedReceiver<Message>,
        alive: Sender<()>,
    ) {
        let exporter = self.clone();
        self.runtime.spawn(async move {
            syslog::run(&server, &exporter, &state, inbox).await;
            drop(alive);
        });
    }

    /// Starts the actor of a collector; `alive` is dropped at its end.
    #[cfg(feature = "otlp")]
    pub fn otlp(
        &self,
        settings: Otlp,
        place: Arc<SinkState>,
        signal: Arc<SignalState>,
        inbox: UnboundedReceiver<Message>,
        alive: Sender<()>,
    ) {
        let collector = Collector::new(settings, OtlpSignal::Logs, self.broker.clone());
        self.runtime.spawn(async move {
            otlp::run(collector, &place, signal, inbox).await;
            drop(alive);
        });
    }

    /// Its thread, for more tasks that hold up nobody.
    #[cfg(feature = "otlp")]
    pub const fn runtime(&self) -> &Handle {
        &self.runtime
    }
}

/// How long to wait before the next attempt.
#[derive(Debug)]
struct Backoff(Duration);

impl Backoff {
    const FIRST: Duration = Duration::from_millis(200);
    const LAST: Duration = Duration::from_secs(15);

    const fn new() -> Self {
        Self(Self::FIRST)
    }

    /// The time until the next one, which is longer each time.
    fn next(&mut self) -> Duration {
        let longer = (self.0 * 2).min(Self::LAST);
        std::mem::replace(&mut self.0, longer)
    }
}
