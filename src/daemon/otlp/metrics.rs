//! The task that exports metrics.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    runtime::Handle,
    select,
    sync::oneshot,
    time::{Interval, MissedTickBehavior, interval, sleep, timeout},
};

use super::{Collector, Sent, SignalState};
use crate::{
    admin::Parts,
    base::{OtlpLoss, OtlpSignal},
    client::otlp::retry::Backoff,
    config::{Config, Otlp},
    privilege::Client,
};

/// How long the end of the process waits for the last export.
const LAST_EXPORT: Duration = Duration::from_secs(2);

/// Makes the metrics of a moment.
pub type Source = Arc<dyn Fn() -> Parts + Send + Sync>;

/// The export of metrics, as long as the configuration wants it. Dropping it ends it.
#[derive(Debug, Default)]
pub struct MetricsExport(Option<Running>);

#[derive(Debug)]
struct Running {
    /// What concerns it.
    settings: Otlp,
    /// Has it export for the last time, and end.
    stop: oneshot::Sender<oneshot::Sender<()>>,
}

impl MetricsExport {
    /// Goes by a configuration from now on.
    ///
    /// # Errors
    /// There is no thread for it.
    pub fn follow<E>(
        &mut self,
        config: &Config,
        state: &Arc<SignalState>,
        broker: &Client,
        source: impl FnOnce() -> Source,
        thread: impl FnOnce() -> Result<Handle, E>,
    ) -> Result<(), E> {
        let wanted = config.otlp.as_ref().filter(|otlp| otlp.metrics);
        let wanted = wanted.map(|otlp| otlp.only(OtlpSignal::Metrics));
        if self.0.as_ref().map(|running| &running.settings) == wanted.as_ref() {
            return Ok(());
        }
        self.0 = None;
        state.set_url(
            wanted
                .as_ref()
                .map(|otlp| otlp.url(OtlpSignal::Metrics).to_string()),
        );
        let Some(settings) = wanted else { return Ok(()) };
        let (stop, stopped) = oneshot::channel();
        let task = Task {
            every: settings.interval,
            collector: Collector::new(settings.clone(), OtlpSignal::Metrics, broker.clone()),
            source: source(),
            state: Arc::clone(state),
            random: RandomState::new(),
        };
        thread()?.spawn(task.run(stopped));
        self.0 = Some(Running { settings, stop });
        Ok(())
    }

    /// Exports for the last time, within two seconds.
    pub async fn end(&mut self) {
        let Some(running) = self.0.take() else { return };
        let (done, ended) = oneshot::channel();
        if running.stop.send(done).is_ok() {
            let _ = timeout(LAST_EXPORT, ended).await;
        }
    }
}

struct Task {
    every: Duration,
    collector: Collector,
    source: Source,
    state: Arc<SignalState>,
    random: RandomState,
}

impl Task {
    async fn run(mut self, mut stopped: oneshot::Receiver<oneshot::Sender<()>>) {
        let mut ticks = interval(self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let last = select! {
            stop = &mut stopped => stop,
            () = self.export_for_ever(&mut ticks) => return,
        };
        // dropped without a word: a reload has ended it
        let Ok(done) = last else { return };
        self.export(Instant::now()).await;
        let _ = done.send(());
    }

    async fn export_for_ever(&mut self, ticks: &mut Interval) {
        loop {
            ticks.tick().await;
            let next = Instant::now() + self.every;
            self.export(next).await;
        }
    }

    /// Exports what is counted now. What is not taken until the deadline is dropped; each part is tried once in any case, unless
    /// one before it was not taken.
    async fn export(&mut self, deadline: Instant) {
        let mut parts = (self.source)();
        let mut trouble = None;
        while let Some(part) = parts.next() {
            let points = part.points as u64;
            match self.deliver(&part.items, deadline).await {
                Sent::Yes(None) => {}
                Sent::Yes(Some((rejected, why))) => {
                    self.state.lose(OtlpLoss::Rejected, rejected.min(points));
                    trouble = Some(why);
                }
                Sent::Refused(why) => {
                    self.state.lose(OtlpLoss::Refused, points);
                    trouble = Some(why);
                }
                Sent::Again(_, why) => {
                    let rest: usize = parts.map(|part| part.points).sum();
                    self.state.lose(OtlpLoss::Late, points + rest as u64);
                    trouble = Some(why);
                    break;
                }
            }
        }
        match trouble {
            Some(why) => self.fails(&why),
            None => self.works(),
        }
    }

    /// Sends a part until it is taken or refused, or there is no time for another attempt.
    async fn deliver(&mut self, items: &[u8], deadline: Instant) -> Sent {
        let mut backoff = Backoff::new();
        loop {
            let sent = self.collector.send(&[items], &self.state).await;
            let Sent::Again(after, why) = &sent else {
                return sent;
            };
            let wait = backoff.wait(*after, self.random.hash_one(Instant::now()));
            if Instant::now() + wait >= deadline {
                return sent;
            }
            self.fails(why);
            sleep(wait).await;
        }
    }

    fn fails(&self, why: &str) {
        if self.state.fails(why) {
            tracing::warn!(
                event = "otlp",
                "export of metrics by OTLP: {why}; what is not taken in time is dropped and counted"
            );
        }
    }

    fn works(&self) {
        if let Some(lost) = self.state.works() {
            tracing::info!(
                event = "otlp",
                "export of metrics by OTLP works again; {lost} data points were dropped"
            );
        }
    }
}
