//! Where lines about connections go besides the journal: each place has an actor of its own (a thread or a task), which the
//! logging thread hands batches to without waiting. What an actor cannot take in time is dropped and counted.

use std::{
    fmt,
    fs::File,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use tokio::sync::mpsc;

#[cfg(feature = "otlp")]
use crate::{base::OtlpSignal, config::Otlp};
use crate::{
    config::{Facility, LogFormat, SyslogServer},
    daemon::trouble::Trouble,
};

/// Bytes that wait for one actor at most: some 30,000 lines.
const MOST_BYTES: usize = 4 << 20;

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// They are appended to a file.
    File(PathBuf, LogFormat),
    /// They are sent to a syslog server.
    Syslog(SyslogServer, Facility, LogFormat),
    /// They are log records, which a collector gets.
    #[cfg(feature = "otlp")]
    Otlp(Box<Otlp>),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, _) => write!(f, "file {}", path.display()),
            Self::Syslog(server, ..) => write!(f, "syslog {server}"),
            #[cfg(feature = "otlp")]
            Self::Otlp(otlp) => write!(f, "otlp {}", otlp.url(OtlpSignal::Logs)),
        }
    }
}

/// Lines, one after the other.
#[derive(Debug, Default)]
pub struct Batch {
    /// All of them.
    pub bytes: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
}

impl Batch {
    /// Ends the line that was written into `bytes`.
    pub fn end_line(&mut self) {
        self.ends.push(self.bytes.len());
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Each of them from one on.
    pub fn lines_from(&self, first: usize) -> impl Iterator<Item = &[u8]> {
        let start = |line: usize| {
            line.checked_sub(1)
                .and_then(|before| self.ends.get(before).copied())
        };
        (first..self.ends.len()).filter_map(move |line| {
            let end = *self.ends.get(line)?;
            self.bytes.get(start(line).unwrap_or(0)..end)
        })
    }

    /// How many are whole in so many bytes, and whether another one has begun there.
    pub fn within(&self, bytes: usize) -> (usize, bool) {
        let whole = self.ends.partition_point(|end| *end <= bytes);
        let before = whole.checked_sub(1).and_then(|last| self.ends.get(last).copied());
        (whole, bytes > before.unwrap_or(0))
    }
}

/// What an actor is told.
#[derive(Debug)]
pub enum Message {
    /// To write.
    Batch(Batch),
    /// The file to write to from now on, or why there is none.
    Opened(Result<File, String>),
}

/// The way to an actor, which ends when the last of these is dropped and everything is written.
#[derive(Debug)]
pub struct Sink {
    state: Arc<SinkState>,
    sender: mpsc::UnboundedSender<Message>,
}

/// What actor and status know of a place.
#[derive(Debug)]
pub struct SinkState {
    /// Where.
    pub place: Place,
    /// Bytes handed over that are not done with.
    waiting: AtomicUsize,
    dropped: AtomicU64,
    /// Those of them that might not wait, of every place of the kind.
    overflow: Arc<AtomicU64>,
    /// Whether an actor that writes to a file has none, and nobody is asked for it.
    is_unopened: AtomicBool,
    trouble: Mutex<Trouble>,
}

impl Sink {
    /// A place, and what its actor is told.
    pub fn new(place: Place) -> (Arc<Self>, mpsc::UnboundedReceiver<Message>) {
        Self::counting(place, Arc::default())
    }

    /// The same, which also counts elsewhere what may not wait.
    pub fn counting(place: Place, overflow: Arc<AtomicU64>) -> (Arc<Self>, mpsc::UnboundedReceiver<Message>) {
        let (sender, inbox) = mpsc::unbounded_channel();
        let state = SinkState {
            place,
            waiting: AtomicUsize::new(0),
            dropped: AtomicU64::new(0),
            overflow,
            is_unopened: AtomicBool::new(true),
            trouble: Mutex::default(),
        };
        let state = Arc::new(state);
        (Arc::new(Self { state, sender }), inbox)
    }

    /// What is known of it.
    pub const fn state(&self) -> &Arc<SinkState> {
        &self.state
    }

    /// Hands lines over, or counts them as dropped if too many wait. Never waits.
    pub fn hand_over(&self, batch: Batch) {
        let (bytes, lines) = (batch.bytes.len(), batch.len());
        if self.state.waiting.load(Ordering::Relaxed).saturating_add(bytes) > MOST_BYTES {
            self.state.overflow.fetch_add(lines as u64, Ordering::Relaxed);
            return self.state.add_dropped(lines);
        }
        self.state.waiting.fetch_add(bytes, Ordering::Relaxed);
        if self.sender.send(Message::Batch(batch)).is_err() {
            self.state.add_dropped(lines);
        }
    }

    /// Whether it lacks a file that nobody is asked for; whoever is told so asks.
    pub fn takes_a_file(&self) -> bool {
        self.state.is_unopened.swap(false, Ordering::Relaxed)
    }

    /// Tells the actor which file it writes to from now on.
    pub fn opened(&self, opened: Result<File, String>) {
        if opened.is_err() {
            self.state.is_unopened.store(true, Ordering::Relaxed);
        }
        // an actor that is gone needs none
        let _ = self.sender.send(Message::Opened(opened));
    }
}

impl SinkState {
    /// Lines that got lost so far.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Counts lost ones.
    pub fn add_dropped(&self, lines: usize) {
        let lines = u64::try_from(lines).unwrap_or(u64::MAX);
        self.dropped.fetch_add(lines, Ordering::Relaxed);
    }

    /// Makes room: a batch is written, or lost.
    pub fn done(&self, batch: &Batch) {
        self.waiting.fetch_sub(batch.bytes.len(), Ordering::Relaxed);
    }

    /// What is wrong with it now.
    pub fn trouble(&self) -> Option<String> {
        self.lock().now().map(str::to_owned)
    }

    /// Notes that something is wrong, and says so unless that was said a short while ago.
    pub fn fails(&self, why: &str) {
        if self.lock().begins(why, self.dropped()) {
            tracing::warn!(
                event = "connection_log",
                output = %self.place,
                "connection log to {}: {why}; lines that cannot wait are dropped and counted",
                self.place
            );
        }
    }

    /// Notes that all is well, and says so if the contrary was said.
    pub fn works(&self) {
        let ended = self.lock().ends();
        if let Some(before) = ended {
            tracing::info!(
                event = "connection_log",
                output = %self.place,
                "connection log to {} works again; {} lines were dropped",
                self.place,
                self.dropped().wrapping_sub(before)
            );
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Lines of a batch.
    pub fn batch(lines: &[&str]) -> Batch {
        let mut batch = Batch::default();
        for line in lines {
            batch.bytes.extend_from_slice(line.as_bytes());
            batch.end_line();
        }
        batch
    }

    #[test]
    fn a_batch_knows_its_lines() {
        let batch = batch(&["one\n", "two\n", "three\n"]);
        let from = |first| batch.lines_from(first).map(<[u8]>::len).collect::<Vec<_>>();
        assert_eq!((from(0), from(2), from(3)), (vec![4, 4, 6], vec![6], vec![]));
        let within = [0, 3, 4, 5, 8, 14].map(|bytes| batch.within(bytes));
        assert_eq!(
            within,
            [
                (0, false),
                (0, true),
                (1, false),
                (1, true),
                (2, false),
                (3, false)
            ]
        );
    }

    #[test]
    fn what_nobody_takes_is_bounded_dropped_and_counted() {
        let overflow = Arc::<AtomicU64>::default();
        let (sink, mut inbox) =
            Sink::counting(Place::File("/x".into(), LogFormat::Text), Arc::clone(&overflow));
        let line = "x".repeat(1 << 20);
        for _ in 0..10 {
            sink.hand_over(batch(&[&line]));
        }
        assert_eq!((sink.state().dropped(), overflow.load(Ordering::Relaxed)), (6, 6));
        // as soon as some are written there is room again
        let Some(Message::Batch(first)) = inbox.blocking_recv() else {
            panic!("the first batch")
        };
        sink.state().done(&first);
        sink.hand_over(batch(&[&line]));
        assert_eq!(sink.state().dropped(), 6);
        drop(inbox);
        sink.hand_over(batch(&["a", "b"]));
        assert!(sink.state().dropped() >= 8);
    }
}
