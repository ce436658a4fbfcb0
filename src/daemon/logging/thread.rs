//! The logging thread.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant, SystemTime},
};

use tracing::{
    Level, Metadata,
    callsite::{Callsite, Identifier},
    field::{FieldSet, display},
    metadata::Kind,
    subscriber::Interest,
};

use super::{
    output::Output,
    queue::{Item, LogQueueState, LogRecord, Owned},
    taps::Taps,
};

/// Pause after a batch. While it lasts nobody who puts something in has to wake the thread (a system call on the
/// worker's side), and lines are written in larger pieces; the queue holds what comes in meanwhile at 800,000 a second.
const PAUSE: Duration = Duration::from_millis(10);

/// Least time between two events about connections that were not logged because of their rate.
const RATE_PAUSE: Duration = Duration::from_secs(60);

/// Longest wait for the next item: as good as for ever.
const NO_END: Duration = Duration::from_secs(86_400);

/// Writes what comes in until told to stop. When idle it waits for the first item and writes that one at once.
pub fn run(output: &mut Output, queue: &Receiver<Item>, shared: &LogQueueState) {
    let mut reported = 0;
    let mut rate = RateNews::default();
    let mut taps = Taps::new(shared);
    loop {
        output.set_format(shared.format());
        taps.follow(shared);
        let mut written = 0_u64;
        while let Ok(item) = queue.try_recv() {
            write(output, &mut taps, item);
            written += 1;
        }
        let dropped = shared.dropped();
        if dropped != reported {
            output.event(&drop_report(dropped.wrapping_sub(reported)));
            reported = dropped;
        }
        rate.tell(output, shared, shared.stopped());
        output.flush();
        taps.flush();
        if written > 0 {
            thread::park_timeout(PAUSE);
        } else if shared.stopped() {
            return;
        } else {
            match queue.recv_timeout(rate.due(shared).unwrap_or(NO_END)) {
                Ok(item) => {
                    output.set_format(shared.format());
                    // both may have changed while nothing came
                    taps.follow(shared);
                    write(output, &mut taps, item);
                    taps.flush();
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }
}

fn write(output: &Output, taps: &mut Taps, item: Item) {
    match item {
        Item::Event(record) => output.event(&record),
        Item::Access(record) => {
            let at = record.ended_at();
            if taps.take(at, &record).wants(record.reason) {
                output.access(at, &record);
            }
        }
        Item::Wake => {}
    }
}

/// What is said of connections that were not logged because there were too many a second.
#[derive(Debug, Default)]
struct RateNews {
    said: u64,
    said_at: Option<Instant>,
}

impl RateNews {
    /// How long until there is something to say; `None` as long as there is nothing.
    fn due(&self, shared: &LogQueueState) -> Option<Duration> {
        let wait = |at: Instant| RATE_PAUSE.saturating_sub(at.elapsed());
        (shared.above_rate() != self.said).then(|| self.said_at.map_or(Duration::ZERO, wait))
    }

    /// Says it if it is due, or for the last time.
    fn tell(&mut self, output: &Output, shared: &LogQueueState, is_last: bool) {
        let Some(wait) = self.due(shared) else { return };
        if !is_last && !wait.is_zero() {
            return;
        }
        let so_far = shared.above_rate();
        let missing = so_far.wrapping_sub(self.said);
        let most = shared.access_per_second();
        output.event(&report(
            missing,
            format!(
                "{missing} connections were not logged: more than {most} ended in a second (access_log_per_second); \
                 `convey status` counts them"
            ),
        ));
        (self.said, self.said_at) = (so_far, Some(Instant::now()));
    }
}

fn drop_report(dropped: u64) -> LogRecord {
    let text = format!("{dropped} log events dropped: the log's reader is too slow");
    report(dropped, text)
}

fn report(dropped: u64, text: String) -> LogRecord {
    let message = display(text);
    LogRecord {
        at: SystemTime::now(),
        metadata: &METADATA,
        values: vec![
            (0, Owned::Text(message)),
            (1, Owned::Str("log_dropped".into())),
            (2, Owned::U64(dropped)),
        ],
    }
}

/// As for access records: never registered, because only this thread makes such an event.
static METADATA: Metadata<'static> = Metadata::new(
    "dropped",
    "convey::log",
    Level::WARN,
    None,
    None,
    None,
    FieldSet::new(&["message", "event", "dropped"], Identifier(&DropCallsite)),
    Kind::EVENT,
);

struct DropCallsite;

impl Callsite for DropCallsite {
    fn set_interest(&self, _: Interest) {}

    fn metadata(&self) -> &Metadata<'_> {
        &METADATA
    }
}

#[cfg(test)]
mod tests {
    use super::super::{access, output::Look, queue::Queue, queue::QueueLayer, time::Utc};
    use super::*;
    use crate::{base::AccessSink, config::LogFormat};
    use std::{
        io::{self, Write},
        num::NonZeroU32,
        sync::{Arc, Mutex, mpsc::sync_channel},
    };
    use tracing_subscriber::{Registry, layer::SubscriberExt};

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What a log of `format` and `capacity` writes of the events that `emit` makes.
    fn log(format: LogFormat, capacity: usize, emit: impl FnOnce(&dyn AccessSink)) -> String {
        log_that_looks(Look::default(), format, capacity, emit)
    }

    fn log_that_looks(
        look: Look,
        format: LogFormat,
        capacity: usize,
        emit: impl FnOnce(&dyn AccessSink),
    ) -> String {
        let (sender, receiver) = sync_channel(capacity);
        let queue = Queue::new(sender);
        queue.set_access(true);
        queue.set_format(format);
        let subscriber = Registry::default().with(QueueLayer::new(queue.clone()));
        let sink = access::AccessLog::new(queue.clone());
        tracing::subscriber::with_default(subscriber, || emit(&sink));
        queue.stop();
        let memory = Memory::default();
        let mut output = Output::to(Box::new(memory.clone()), look, Arc::clone(queue.shared()));
        run(&mut output, &receiver, queue.shared());
        let bytes = memory.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn fields_arrive_as_json_with_their_types() {
        let text = log(LogFormat::Json, 10, |sink| {
            tracing::warn!(event = "server_state", server = %"a", weight = 3_u32, up = false, ratio = 0.5, "server {} is down", "a");
            tracing::error!(error = ?io::ErrorKind::NotFound, n = -1, big = u128::MAX);
            sink.record(access::tests::record());
            sink.record(access::tests::refused());
        });
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 4);
        assert_eq!(lines[0]["message"], "server a is down");
        assert_eq!(lines[0]["level"], "WARN");
        assert_eq!(
            (&lines[0]["event"], &lines[0]["server"]),
            (&"server_state".into(), &"a".into())
        );
        assert_eq!(
            (&lines[0]["weight"], &lines[0]["up"], &lines[0]["ratio"]),
            (&3.into(), &false.into(), &0.5.into())
        );
        assert_eq!(
            (&lines[1]["error"], &lines[1]["n"]),
            (&"NotFound".into(), &(-1).into())
        );
        let access = &lines[2];
        assert_eq!(
            access["timestamp"], "2009-02-06T12:12:56.450Z",
            "the time at which the connection ended"
        );
        assert_eq!(
            (&access["event"], &access["frontend"]),
            (&"access".into(), &"fnt".into())
        );
        assert_eq!(
            (&access["server"], &access["server_addr"]),
            (&"srv1".into(), &"10.0.2.1:8080".into())
        );
        assert_eq!(
            (&access["reason"], &access["code"]),
            (&"normal".into(), &"--".into())
        );
        assert_eq!(
            (&access["bytes_out"], &access["total_ms"]),
            (&212.into(), &5007.into())
        );
        assert_eq!(
            (&access["connect_ms"], &access["redispatched"]),
            (&1.into(), &true.into())
        );
    }

    #[test]
    fn a_text_line_says_when_it_happened_not_when_it_was_written() {
        let now = || Utc::from(SystemTime::now()).to_string();
        let (before, mut after) = (now(), String::new());
        let text = log(LogFormat::Text, 10, |sink| {
            tracing::info!(target: "convey::test", server = "a", "server up");
            sink.record(access::tests::record());
            after = now();
            // it is written later
            while now() == after {
                thread::yield_now();
            }
        });
        let (event, access) = text.trim_end().split_once('\n').unwrap();
        let (time, rest) = event.split_once(' ').unwrap();
        assert_eq!(rest, " INFO server up server=\"a\"");
        assert!(
            before.as_str() <= time && time <= after.as_str(),
            "{before} {time} {after}"
        );
        assert_eq!(
            access,
            "2009-02-06T12:12:56.450Z  INFO 10.0.1.2:33313 [06/Feb/2009:12:12:51.443] fnt bck/srv1 \
             0/1/5007 77/212 -- 3/2/+1"
        );
    }

    #[test]
    fn on_a_terminal_an_event_is_its_sentence_alone() {
        let look = |terminal, colour| Look { terminal, colour };
        let emit = |sink: &dyn AccessSink| {
            tracing::info!(event = "server_up", backend = %"web", server = %"a", "server web/a is up");
            tracing::warn!(event = "server_down", server = %"a", "server web/a is down: \x1b[2Jx");
            tracing::debug!(event = "probe", ifindex = 3, "probing");
            sink.record(access::tests::record());
        };
        let text = log_that_looks(look(true, false), LogFormat::Text, 10, emit);
        // the clock's part of each line
        let lines: Vec<&str> = text.lines().map(|line| &line[9..]).collect();
        assert_eq!(lines[0], " server web/a is up");
        assert_eq!(lines[1], " warn: server web/a is down: \u{fffd}[2Jx");
        assert!(
            lines[2].starts_with(" debug: probing") && lines[2].contains("ifindex=3"),
            "{text}"
        );
        assert!(lines[3].starts_with(" 10.0.1.2:33313 [06/Feb/2009"), "{text}");
        assert!(text.contains("12:12:56Z 10.0.1.2"), "{text}");
        assert!(!text.contains('\x1b') && !text.contains("convey::"), "{text}");
        let coloured = log_that_looks(look(true, true), LogFormat::Text, 10, emit);
        assert!(coloured.contains("\x1b[33mwarn\x1b[0m: "), "{coloured:?}");
        // programs read the fields, wherever they go
        let json = log_that_looks(look(true, true), LogFormat::Json, 10, emit);
        assert!(
            json.contains(r#""event":"server_up""#) && !json.contains('\x1b'),
            "{json}"
        );
    }

    #[test]
    fn the_thread_says_how_many_it_missed() {
        let text = log(LogFormat::Json, 3, |_| {
            for n in 0..10 {
                tracing::info!(n, "many");
            }
        });
        let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(
            (&last["event"], &last["dropped"]),
            (&"log_dropped".into(), &7.into())
        );
        assert_eq!(text.lines().count(), 4);
    }

    #[test]
    fn connections_above_the_rate_are_counted_and_said_and_events_are_not_among_them() {
        let (sender, receiver) = sync_channel(100);
        let queue = Queue::new(sender);
        queue.set_access(true);
        queue.set_access_per_second(NonZeroU32::new(3).unwrap());
        queue.set_format(LogFormat::Json);
        for _ in 0..10 {
            queue.access(access::tests::record());
            queue.event(drop_report(1));
        }
        queue.stop();
        let memory = Memory::default();
        let mut output = Output::to(
            Box::new(memory.clone()),
            Look::default(),
            Arc::clone(queue.shared()),
        );
        run(&mut output, &receiver, queue.shared());
        let text = String::from_utf8(memory.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let of = |event: &str| lines.iter().filter(|line| line["event"] == event).count();
        assert_eq!((of("access"), of("log_dropped")), (3, 11), "{text}");
        let said = lines.last().unwrap();
        assert_eq!(said["dropped"], 7);
        let message = said["message"].as_str().unwrap();
        assert!(message.contains("access_log_per_second"), "{message}");
        assert_eq!((queue.shared().dropped(), queue.shared().above_rate()), (0, 7));
    }

    #[test]
    fn a_changed_format_holds_for_the_lines_that_follow() {
        let memory = Memory::default();
        let queue = Queue::new(sync_channel(1).0);
        let mut output = Output::to(
            Box::new(memory.clone()),
            Look::default(),
            Arc::clone(queue.shared()),
        );
        output.event(&drop_report(1));
        output.set_format(LogFormat::Json);
        output.event(&drop_report(2));
        output.flush();
        let text = String::from_utf8(memory.0.lock().unwrap().clone()).unwrap();
        let (first, second) = text.split_once('\n').unwrap();
        assert!(first.contains(" WARN 1 log events dropped"), "{first}");
        let second: serde_json::Value = serde_json::from_str(second).unwrap();
        assert_eq!(second["dropped"], 2);
    }

    /// Fails as a closed pipe or a full non-blocking one does.
    struct Broken(io::ErrorKind);

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_standard_error_that_takes_nothing_loses_lines_but_stops_nothing() {
        for kind in [io::ErrorKind::BrokenPipe, io::ErrorKind::WouldBlock] {
            let (sender, receiver) = sync_channel(10);
            let queue = Queue::new(sender);
            queue.set_access(true);
            for _ in 0..5 {
                queue.access(access::tests::record());
            }
            queue.stop();
            let shared = queue.shared();
            run(
                &mut Output::to(Box::new(Broken(kind)), Look::default(), Arc::clone(shared)),
                &receiver,
                shared,
            );
            assert!(shared.dropped() >= 5, "{kind:?}: {}", shared.dropped());
        }
    }
}
