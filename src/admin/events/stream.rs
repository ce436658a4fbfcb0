//! Events as they come: `text/event-stream` (HTML, section 9.2, "Server-sent events").

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Bytes, HttpBody};
use hyper::body::Frame;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};

use super::{EventLog, EventRecord};
use crate::admin::admission::Admission;

/// Streams at a time: half of the places, so that the others remain for requests.
const MOST: usize = 24;

/// Events of one turn.
const BATCH: usize = 64;

/// After so long without an event a comment is sent, so that nobody on the way takes the connection for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// So often is looked whether the listener still would be let in.
const LOOK: Duration = Duration::from_secs(1);

/// A client that takes nothing for so long has lost its place.
const PATIENCE: Duration = Duration::from_secs(30);

/// After so many milliseconds a client should ask again.
const RETRY: &str = "retry: 2000\n\n";

/// The places for streams.
#[derive(Debug, Clone)]
pub struct Streams(Arc<Semaphore>);

impl Default for Streams {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MOST)))
    }
}

/// The body of an answer.
#[derive(Debug)]
pub struct EventStream(mpsc::Receiver<Bytes>);

impl Streams {
    /// Begins a stream of the events that are wanted, after a number or from now on, from a task of the current runtime.
    /// It ends soon after its listener would not be let in any more. `None`: there are too many.
    #[must_use]
    pub fn begin(
        &self,
        log: Arc<EventLog>,
        after: Option<u64>,
        admission: Admission,
        wanted: impl Fn(&EventRecord) -> bool + Send + 'static,
        text: impl Fn(u64, &EventRecord) -> String + Send + 'static,
    ) -> Option<EventStream> {
        let place = Arc::clone(&self.0).try_acquire_owned().ok()?;
        let (sender, receiver) = mpsc::channel(1);
        let events = Wanted { log, wanted, text };
        tokio::spawn(run(events, after, admission, sender, place));
        Some(EventStream(receiver))
    }
}

/// What is told, and how.
struct Wanted<W, T> {
    log: Arc<EventLog>,
    wanted: W,
    text: T,
}

async fn run<W, T>(
    Wanted { log, wanted, text }: Wanted<W, T>,
    after: Option<u64>,
    admission: Admission,
    sender: mpsc::Sender<Bytes>,
    _place: OwnedSemaphorePermit,
) where
    W: Fn(&EventRecord) -> bool,
    T: Fn(u64, &EventRecord) -> String,
{
    let mut news = log.news();
    let mut seen = after.unwrap_or_else(|| *news.borrow());
    let mut part = RETRY.to_owned();
    let mut silent = Duration::ZERO;
    loop {
        if !admission.holds() {
            return;
        }
        news.mark_unchanged();
        let found = log.after(Some(seen), BATCH, &wanted);
        if found.is_gap {
            part.push_str("event: gap\ndata: {}\n\n");
        }
        for (number, event) in &found.events {
            part.push_str(&format!("id: {number}\ndata: {}\n\n", text(*number, event)));
        }
        let is_full = found.events.len() == BATCH;
        seen = found.last;
        if !part.is_empty() {
            silent = Duration::ZERO;
            let sent = timeout(PATIENCE, sender.send(std::mem::take(&mut part).into())).await;
            if !matches!(sent, Ok(Ok(()))) {
                return;
            }
        }
        if is_full {
            continue;
        }
        tokio::select! {
            // the log is there as long as we are
            _ = news.changed() => {}
            () = sender.closed() => return,
            () = tokio::time::sleep(LOOK) => {
                silent += LOOK;
                if silent >= KEEP_ALIVE {
                    part.push_str(":\n\n");
                }
            }
        }
    }
}

impl HttpBody for EventStream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0
            .poll_recv(cx)
            .map(|part| part.map(|part| Ok(Frame::data(part))))
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::SystemTime};

    use super::{super::Level, *};

    fn event(name: &str) -> EventRecord {
        EventRecord {
            at: SystemTime::UNIX_EPOCH,
            level: Level::Info,
            name: name.to_owned(),
            message: String::new(),
            fields: BTreeMap::new(),
        }
    }

    async fn next(stream: &mut EventStream) -> String {
        let part = stream.0.recv().await.expect("the stream goes on");
        String::from_utf8(part.to_vec()).expect("text")
    }

    #[tokio::test]
    async fn who_comes_back_goes_on_where_he_was_and_hears_what_comes() {
        let log = Arc::new(EventLog::new(SystemTime::UNIX_EPOCH));
        log.add(event("one"));
        log.add(event("two"));
        let named = |_: u64, event: &EventRecord| event.name.clone();
        let wanted = |event: &EventRecord| event.name != "three";
        let mut stream = Streams::default()
            .begin(Arc::clone(&log), Some(1), Admission::default(), wanted, named)
            .unwrap();
        assert_eq!(next(&mut stream).await, "retry: 2000\n\nid: 2\ndata: two\n\n");
        log.add(event("three"));
        log.add(event("four"));
        assert_eq!(next(&mut stream).await, "id: 4\ndata: four\n\n");
    }

    #[tokio::test]
    async fn without_a_number_it_begins_now() {
        let log = Arc::new(EventLog::new(SystemTime::UNIX_EPOCH));
        log.add(event("old"));
        let named = |_: u64, event: &EventRecord| event.name.clone();
        let mut stream = Streams::default()
            .begin(Arc::clone(&log), None, Admission::default(), |_| true, named)
            .unwrap();
        assert_eq!(next(&mut stream).await, "retry: 2000\n\n");
        log.add(event("new"));
        assert_eq!(next(&mut stream).await, "id: 2\ndata: new\n\n");
    }

    #[tokio::test]
    async fn who_would_not_be_let_in_any_more_hears_nothing_more() {
        use std::sync::atomic::{AtomicBool, Ordering};
        let log = Arc::new(EventLog::new(SystemTime::UNIX_EPOCH));
        let is_in = Arc::new(AtomicBool::new(true));
        let seen = Arc::clone(&is_in);
        let admission = Admission::new(move || seen.load(Ordering::Relaxed));
        let named = |_: u64, event: &EventRecord| event.name.clone();
        let mut stream = Streams::default()
            .begin(Arc::clone(&log), None, admission, |_| true, named)
            .unwrap();
        assert_eq!(next(&mut stream).await, "retry: 2000\n\n");
        is_in.store(false, Ordering::Relaxed);
        log.add(event("secret"));
        assert!(stream.0.recv().await.is_none());
    }

    #[tokio::test]
    async fn there_are_so_many_places_and_who_goes_leaves_his() {
        let log = Arc::new(EventLog::new(SystemTime::UNIX_EPOCH));
        let streams = Streams::default();
        let begin = || {
            streams.begin(
                Arc::clone(&log),
                None,
                Admission::default(),
                |_| true,
                |_, _| String::new(),
            )
        };
        let mut all: Vec<_> = (0..MOST).map(|_| begin().unwrap()).collect();
        assert!(begin().is_none());
        drop(all.pop());
        while streams.0.available_permits() == 0 {
            tokio::task::yield_now().await;
        }
        assert!(begin().is_some());
    }
}
