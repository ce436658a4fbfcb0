//! The bounded queue, and the layer that turns events into what can wait in it.

use std::{
    error::Error,
    fmt,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::SyncSender,
    },
    time::SystemTime,
};

use arc_swap::ArcSwap;
use tracing::{
    Event, Metadata, Subscriber,
    field::{self, DisplayValue, Field, Value, Visit},
};
use tracing_subscriber::{Layer, layer::Context};

use super::{outputs::Routes, rate::Rate};
use crate::{base::AccessRecord, config::LogFormat};

/// What waits in the queue.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "nearly all are access records, which are moved in without allocating"
)]
pub enum Item {
    /// An event. Boxed: access records are what the queue is sized for.
    Event(Box<LogRecord>),
    /// A finished connection.
    Access(AccessRecord),
    /// Nothing: makes a thread that waits look at [`LogQueueState::stopped`].
    Wake,
}

/// An event with values of its own.
#[derive(Debug)]
pub struct LogRecord {
    /// When it happened.
    pub at: SystemTime,
    /// Level, target and field names.
    pub metadata: &'static Metadata<'static>,
    /// The values by field index.
    pub values: Vec<(usize, Owned)>,
}

/// The value of a field, copied.
#[derive(Debug)]
pub enum Owned {
    /// Shown as a string (quoted in text).
    Str(String),
    /// What `%` and `?` made of it, shown as it is.
    Text(DisplayValue<String>),
    /// A signed number.
    I64(i64),
    /// An unsigned number.
    U64(u64),
    /// A large signed number.
    I128(i128),
    /// A large unsigned number.
    U128(u128),
    /// A fraction.
    F64(f64),
    /// Yes or no.
    Bool(bool),
}

impl Owned {
    /// The value, to be recorded again.
    pub fn as_value(&self) -> &dyn Value {
        match self {
            Self::Str(value) => value,
            Self::Text(value) => value,
            Self::I64(value) => value,
            Self::U64(value) => value,
            Self::I128(value) => value,
            Self::U128(value) => value,
            Self::F64(value) => value,
            Self::Bool(value) => value,
        }
    }
}

/// What both sides of the queue share.
#[derive(Debug, Default)]
pub struct LogQueueState {
    dropped: AtomicU64,
    /// Access records above the rate.
    above_rate: AtomicU64,
    rate: Rate,
    access: AtomicBool,
    /// Where access records go.
    routes: ArcSwap<Routes>,
    json: AtomicBool,
    stopped: AtomicBool,
}

impl LogQueueState {
    /// Events and records lost so far.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Counts lost ones.
    pub fn add_dropped(&self, n: u64) {
        self.dropped.fetch_add(n, Ordering::Relaxed);
    }

    /// Access records so far that were not logged because there were too many a second.
    pub fn above_rate(&self) -> u64 {
        self.above_rate.load(Ordering::Relaxed)
    }

    /// Access records a second, at most.
    pub fn access_per_second(&self) -> u32 {
        self.rate.most()
    }

    /// Shape of the lines that come next.
    pub fn format(&self) -> LogFormat {
        if self.json.load(Ordering::Relaxed) {
            LogFormat::Json
        } else {
            LogFormat::Text
        }
    }

    /// Where access records go.
    pub fn routes(&self) -> Arc<Routes> {
        self.routes.load_full()
    }

    /// Changes that.
    pub fn set_routes(&self, routes: Arc<Routes>) {
        self.routes.store(routes);
    }

    /// Whether the thread should end once the queue is empty.
    pub fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}

/// The sending end.
#[derive(Debug, Clone)]
pub struct Queue {
    sender: SyncSender<Item>,
    shared: Arc<LogQueueState>,
}

impl Queue {
    /// A queue that sends to the receiver of `sender`.
    pub fn new(sender: SyncSender<Item>) -> Self {
        Self {
            sender,
            shared: Arc::default(),
        }
    }

    /// What both sides share.
    pub const fn shared(&self) -> &Arc<LogQueueState> {
        &self.shared
    }

    /// Puts an event in, or counts it as dropped. Never waits.
    pub fn event(&self, record: LogRecord) {
        self.put(Item::Event(Box::new(record)));
    }

    /// Puts an access record in, or counts it as dropped, unless the level excludes the access log. Never waits.
    pub fn access(&self, record: AccessRecord) {
        if !self.shared.access.load(Ordering::Relaxed) {
            return;
        }
        if self.shared.rate.admits(record.ended_at()) {
            self.put(Item::Access(record));
        } else {
            self.shared.above_rate.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Changes how many access records a second are taken.
    pub fn set_access_per_second(&self, most: NonZeroU32) {
        self.shared.rate.set(most);
    }

    /// Whether access records are taken.
    pub fn set_access(&self, enabled: bool) {
        self.shared.access.store(enabled, Ordering::Relaxed);
    }

    /// Changes the shape of lines.
    pub fn set_format(&self, format: LogFormat) {
        self.shared
            .json
            .store(format == LogFormat::Json, Ordering::Relaxed);
    }

    /// Tells the thread to end when the queue is empty.
    pub fn stop(&self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        self.wake();
    }

    /// Has the thread look at what has changed.
    pub fn wake(&self) {
        // if the queue is full the thread is awake
        let _ = self.sender.try_send(Item::Wake);
    }

    fn put(&self, item: Item) {
        if self.sender.try_send(item).is_err() {
            self.shared.add_dropped(1);
        }
    }
}

/// Collects events into the queue.
#[derive(Debug)]
pub struct QueueLayer {
    queue: Queue,
}

impl QueueLayer {
    /// A layer that feeds a queue.
    pub const fn new(queue: Queue) -> Self {
        Self { queue }
    }
}

impl<S: Subscriber> Layer<S> for QueueLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let at = SystemTime::now();
        let mut values = Values(Vec::with_capacity(event.metadata().fields().len()));
        event.record(&mut values);
        self.queue.event(LogRecord {
            at,
            metadata: event.metadata(),
            values: values.0,
        });
    }
}

/// Copies values. What is only `Debug` is formatted here: it may not outlive the call.
struct Values(Vec<(usize, Owned)>);

impl Values {
    fn put(&mut self, field: &Field, value: Owned) {
        self.0.push((field.index(), value));
    }
}

impl Visit for Values {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, Owned::Str(value.to_owned()));
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, Owned::I64(value));
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, Owned::U64(value));
    }
    fn record_i128(&mut self, field: &Field, value: i128) {
        self.put(field, Owned::I128(value));
    }
    fn record_u128(&mut self, field: &Field, value: u128) {
        self.put(field, Owned::U128(value));
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, Owned::F64(value));
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, Owned::Bool(value));
    }
    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.put(field, Owned::Text(field::display(value.to_string())));
    }
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, Owned::Text(field::display(format!("{value:?}"))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::sync_channel;
    use tracing_subscriber::{Registry, layer::SubscriberExt};

    #[test]
    fn a_full_queue_drops_and_counts_and_never_waits() {
        let (sender, receiver) = sync_channel(4);
        let queue = Queue::new(sender);
        let subscriber = Registry::default().with(QueueLayer::new(queue.clone()));
        // who waited would wait for ever
        tracing::subscriber::with_default(subscriber, || {
            for n in 0..10 {
                tracing::warn!(n, "nobody reads this");
            }
        });
        assert_eq!((queue.shared().dropped(), receiver.try_iter().count()), (6, 4));
        drop(receiver);
        queue.stop();
        assert!(queue.shared().stopped());
    }
}
