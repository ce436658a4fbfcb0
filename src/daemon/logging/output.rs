//! Where lines go: journald, or standard error as text or JSON.

use std::{
    cell::Cell,
    fmt,
    io::{self, IsTerminal as _, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use anstream::{AutoStream, ColorChoice};
use tracing::{Event, Level, Metadata, Subscriber, field::Value};
use tracing_subscriber::{
    Registry,
    fmt::{MakeWriter, format::Writer, time::FormatTime},
    layer::SubscriberExt,
};

use super::{
    access, journal,
    queue::{LogQueueState, LogRecord},
    terminal,
    time::Utc,
};
use crate::{base::AccessRecord, config::LogFormat};

/// Lines are written together once so many bytes have come, or when the queue is empty.
const BATCH_BYTES: usize = 64 << 10;
/// How long a standard error that takes nothing (non-blocking, full) holds the thread up.
const WRITE_TIMEOUT: Duration = Duration::from_millis(100);
/// Pause between two attempts to write to such a one.
const WRITE_PAUSE: Duration = Duration::from_millis(5);

thread_local! {
    /// When the event that this thread is replaying happened.
    static HAPPENED: Cell<SystemTime> = const { Cell::new(SystemTime::UNIX_EPOCH) };
}

/// How lines of text look on standard error.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Look {
    /// Whether a person reads them as they come: then they have no fields, which say again what the sentence says.
    pub terminal: bool,
    /// Whether they are coloured.
    pub colour: bool,
}

/// Whether what is written to standard error is coloured: what a terminal and the environment (NO_COLOR, CLICOLOR) say.
pub fn is_stderr_coloured() -> bool {
    AutoStream::choice(&io::stderr()) != ColorChoice::Never
}

/// One way of writing.
pub struct Output {
    /// Ordinary `tracing` layers. They get events by a direct call, not through a dispatcher: a second dispatcher
    /// would make `tracing` ask at every disabled event of the process which of the two wants it.
    layers: Box<dyn Subscriber>,
    /// Where the layers' lines go; none for journald, where each event is a datagram.
    stream: Option<Stream>,
}

/// Records as lines of JSON, of the shape that standard error has.
pub struct JsonLines {
    layers: Box<dyn Subscriber>,
    lines: Lines,
}

impl JsonLines {
    /// Makes the layers.
    pub fn new() -> Self {
        let stream = Stream {
            lines: Lines::default(),
            format: LogFormat::Json,
            look: Look::default(),
        };
        Self {
            layers: stream.layers(),
            lines: stream.lines,
        }
    }

    /// The line of a connection that ended at a time, without its end.
    pub fn line(&self, at: SystemTime, record: &AccessRecord) -> Vec<u8> {
        access::with_values(record, |values| {
            replay(&*self.layers, at, &access::METADATA, values);
        });
        let mut line = std::mem::take(&mut self.lines.lock().bytes);
        line.truncate(line.trim_ascii_end().len());
        line
    }
}

/// Standard error, and the shape of what is written to it.
struct Stream {
    lines: Lines,
    format: LogFormat,
    look: Look,
}

impl Output {
    /// journald if standard error is connected to it, else standard error.
    pub fn choose(shared: &Arc<LogQueueState>) -> Self {
        if let Some(journal) = journal::layer() {
            return Self {
                layers: Box::new(Registry::default().with(journal)),
                stream: None,
            };
        }
        let look = Look {
            terminal: io::stderr().is_terminal(),
            colour: is_stderr_coloured(),
        };
        Self::to(Box::new(io::stderr()), look, Arc::clone(shared))
    }

    /// Lines to a writer.
    pub fn to(writer: Box<dyn Write + Send>, look: Look, shared: Arc<LogQueueState>) -> Self {
        let format = shared.format();
        let lines = Lines::default();
        lines.lock().writer = Some((writer, shared));
        let stream = Stream { lines, format, look };
        Self {
            layers: stream.layers(),
            stream: Some(stream),
        }
    }

    /// Changes the shape of the lines that come next. journald has a shape of its own.
    pub fn set_format(&mut self, format: LogFormat) {
        if let Some(stream) = self.stream.as_mut().filter(|stream| stream.format != format) {
            stream.format = format;
            self.layers = stream.layers();
        }
    }

    /// Writes an event.
    pub fn event(&self, record: &LogRecord) {
        let mut values: Vec<Option<&dyn Value>> = vec![None; record.metadata.fields().len()];
        for (index, value) in &record.values {
            if let Some(slot) = values.get_mut(*index) {
                *slot = Some(value.as_value());
            }
        }
        replay(&*self.layers, record.at, record.metadata, &values);
    }

    /// Writes a finished connection, which happened now as far as the log goes: it ended.
    pub fn access(&self, at: SystemTime, record: &AccessRecord) {
        match &self.stream {
            // the text says it all: there are no fields to replay
            Some(stream) if stream.format == LogFormat::Text && stream.look.terminal => {
                let text = access::Line(record).to_string();
                let line = terminal::line(at.into(), &text, stream.look.colour);
                stream.lines.line(format_args!("{line}"));
            }
            Some(stream) if stream.format == LogFormat::Text => {
                stream.lines.line(format_args!(
                    "{}  {} {}",
                    Utc::from(at),
                    Level::INFO,
                    access::Line(record)
                ));
            }
            _ => access::with_values(record, |values| {
                replay(&*self.layers, at, &access::METADATA, values);
            }),
        }
    }

    /// Writes what is buffered.
    pub fn flush(&self) {
        if let Some(stream) = &self.stream {
            stream.lines.lock().flush();
        }
    }
}

/// Gives layers an event made of `metadata` and a value for each of its fields.
fn replay(
    layers: &dyn Subscriber,
    at: SystemTime,
    metadata: &'static Metadata<'static>,
    values: &[Option<&dyn Value>],
) {
    HAPPENED.set(at);
    layers.event(&Event::new(metadata, &metadata.fields().value_set_all(values)));
}

impl Stream {
    fn layers(&self) -> Box<dyn Subscriber> {
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(self.lines.clone())
            // what is told of an event is its name, not the file that told it
            .with_target(false);
        match self.format {
            LogFormat::Text if self.look.terminal => {
                let readable = terminal::Readable {
                    happened: || HAPPENED.get().into(),
                };
                let layer = layer.event_format(readable).with_ansi(self.look.colour);
                Box::new(Registry::default().with(layer))
            }
            LogFormat::Text => {
                let layer = layer.with_timer(Happened).with_ansi(self.look.colour);
                Box::new(Registry::default().with(layer))
            }
            LogFormat::Json => {
                let json = layer
                    .json()
                    .flatten_event(true)
                    .with_current_span(false)
                    .with_span_list(false);
                Box::new(Registry::default().with(json.with_timer(Happened)))
            }
        }
    }
}

/// The time of the event, in place of the time of writing.
struct Happened;

impl FormatTime for Happened {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        write!(w, "{}", Utc::from(HAPPENED.get()))
    }
}

/// Lines that wait to be written together.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Buffer>>);

#[derive(Default)]
struct Buffer {
    bytes: Vec<u8>,
    writer: Option<(Box<dyn Write + Send>, Arc<LogQueueState>)>,
}

impl Lines {
    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn line(&self, line: fmt::Arguments<'_>) {
        let mut buffer = self.lock();
        // a Vec takes everything
        let _ = writeln!(buffer.bytes, "{line}");
        buffer.flush_if_large();
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut buffer = self.lock();
        buffer.bytes.extend_from_slice(bytes);
        buffer.flush_if_large();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Buffer {
    fn flush_if_large(&mut self) {
        if self.bytes.len() >= BATCH_BYTES {
            self.flush();
        }
    }

    /// Writes all, or counts the lines that could not be written as dropped: a standard error that is closed or
    /// stuck must not stop the thread.
    fn flush(&mut self) {
        let Some((writer, shared)) = &mut self.writer else {
            return;
        };
        let rest = write_all_in_time(writer, &self.bytes);
        if !rest.is_empty() {
            let lines = rest.iter().filter(|byte| **byte == b'\n').count();
            shared.add_dropped(u64::try_from(lines).unwrap_or(u64::MAX));
        }
        self.bytes.clear();
        self.bytes.shrink_to(BATCH_BYTES);
    }
}

/// Writes `bytes`; returns what could not be written.
fn write_all_in_time<'a>(writer: &mut dyn Write, bytes: &'a [u8]) -> &'a [u8] {
    let mut rest = bytes;
    let mut stuck_since = None;
    while !rest.is_empty() {
        match writer.write(rest) {
            Ok(0) => break,
            Ok(n) => {
                rest = rest.get(n..).unwrap_or_default();
                stuck_since = None;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                if stuck_since.get_or_insert_with(Instant::now).elapsed() > WRITE_TIMEOUT {
                    break;
                }
                std::thread::sleep(WRITE_PAUSE);
            }
            Err(_) => break,
        }
    }
    rest
}
