//! The actor of a file that lines are appended to: a thread, for a disk that hangs holds up who writes to it.

use std::{
    fs::File,
    io::{self, Write as _},
    sync::{Arc, mpsc::Sender},
    thread,
};

use tokio::sync::mpsc::UnboundedReceiver;

use super::sink::{Batch, Message, SinkState};

/// Starts the thread; `alive` is dropped at its end.
///
/// # Errors
/// It cannot be started.
pub fn start(state: Arc<SinkState>, inbox: UnboundedReceiver<Message>, alive: Sender<()>) -> io::Result<()> {
    thread::Builder::new()
        .name("convey-logfile".into())
        .spawn(move || {
            run(&state, inbox);
            drop(alive);
        })
        .map(drop)
}

/// Writes until nobody hands anything over any more.
fn run(state: &SinkState, mut inbox: UnboundedReceiver<Message>) {
    let mut place = Target::Awaited(Vec::new());
    while let Some(message) = inbox.blocking_recv() {
        match message {
            Message::Batch(batch) => place.take(state, batch),
            Message::Opened(opened) => place.change(state, opened),
        }
    }
    // it was never opened
    if let Target::Awaited(batches) = place {
        batches.iter().for_each(|batch| lose(state, batch));
    }
}

/// Where lines go.
enum Target {
    /// The broker has been asked for the file: what comes meanwhile waits.
    Awaited(Vec<Batch>),
    /// There is none.
    None,
    /// This file.
    Open(Open),
}

struct Open {
    file: File,
    /// Whether its last line was not written whole.
    is_torn: bool,
}

impl Target {
    fn take(&mut self, state: &SinkState, batch: Batch) {
        match self {
            Self::Awaited(batches) => batches.push(batch),
            Self::None => lose(state, &batch),
            Self::Open(open) => open.append(state, &batch),
        }
    }

    /// Goes on with another file; if that cannot be opened with the one that there is.
    fn change(&mut self, state: &SinkState, opened: Result<File, String>) {
        match opened {
            Ok(file) => {
                let mut open = Open { file, is_torn: false };
                let before = std::mem::replace(self, Self::None);
                if let Self::Awaited(batches) = before {
                    batches.iter().for_each(|batch| open.append(state, batch));
                }
                state.works();
                *self = Self::Open(open);
            }
            Err(why) => {
                state.fails(&why);
                if let Self::Awaited(batches) = self {
                    batches.iter().for_each(|batch| lose(state, batch));
                    *self = Self::None;
                }
            }
        }
    }
}

impl Open {
    fn append(&mut self, state: &SinkState, batch: &Batch) {
        // what comes next begins a line of its own
        let mended = !self.is_torn || self.file.write_all(b"\n").is_ok();
        let (written, result) = match mended {
            true => write_all(&mut self.file, &batch.bytes),
            false => (0, Err(io::ErrorKind::StorageFull.into())),
        };
        let (whole, is_torn) = batch.within(written);
        self.is_torn = is_torn || !mended;
        state.add_dropped(batch.len() - whole);
        match result {
            Ok(()) => state.works(),
            Err(error) => state.fails(&format!("write: {error}")),
        }
        state.done(batch);
    }
}

fn lose(state: &SinkState, batch: &Batch) {
    state.add_dropped(batch.len());
    state.done(batch);
}

/// Writes bytes; how many were written before it failed.
fn write_all(file: &mut File, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match file.write(rest) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(more) => written += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::{
        config::LogFormat,
        daemon::logging::sink::{Place, Sink, tests::batch},
    };

    fn append(path: &Path) -> Result<File, String> {
        let opened = File::options().append(true).create(true).open(path);
        opened.map_err(|error| error.to_string())
    }

    fn sink() -> (Arc<Sink>, UnboundedReceiver<Message>) {
        Sink::new(Place::File("/x".into(), LogFormat::Text))
    }

    #[test]
    fn what_comes_before_the_file_waits_and_what_comes_after_another_goes_there() {
        let directory = tempfile::tempdir().unwrap();
        let (first, second) = (directory.path().join("first"), directory.path().join("second"));
        let (sink, inbox) = sink();
        let state = Arc::clone(sink.state());
        sink.hand_over(batch(&["1\n", "2\n"]));
        sink.opened(append(&first));
        sink.hand_over(batch(&["3\n"]));
        sink.opened(append(&second));
        sink.hand_over(batch(&["4\n"]));
        sink.opened(Err("no such directory".to_owned()));
        sink.hand_over(batch(&["5\n"]));
        drop(sink);
        run(&state, inbox);
        assert_eq!(fs::read_to_string(first).unwrap(), "1\n2\n3\n");
        assert_eq!(
            fs::read_to_string(second).unwrap(),
            "4\n5\n",
            "the old one is better than none"
        );
        assert_eq!(state.dropped(), 0);
    }

    #[test]
    fn lines_without_a_file_are_counted_and_the_next_file_gets_the_next_ones() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let (sink, inbox) = sink();
        let state = Arc::clone(sink.state());
        sink.hand_over(batch(&["1\n", "2\n"]));
        sink.opened(Err("no such directory".to_owned()));
        sink.hand_over(batch(&["3\n"]));
        sink.opened(append(&path));
        sink.hand_over(batch(&["4\n"]));
        drop(sink);
        run(&state, inbox);
        assert_eq!(fs::read_to_string(path).unwrap(), "4\n");
        assert_eq!((state.dropped(), state.trouble()), (3, None));
    }

    #[test]
    fn a_full_disk_loses_lines_and_stops_nothing() {
        let (sink, inbox) = sink();
        let state = Arc::clone(sink.state());
        let full = File::options().write(true).open("/dev/full");
        sink.opened(full.map_err(|error| error.to_string()));
        for _ in 0..100 {
            sink.hand_over(batch(&["a\n", "b\n"]));
        }
        drop(sink);
        run(&state, inbox);
        assert_eq!(state.dropped(), 200);
        assert!(state.trouble().is_some_and(|why| why.contains("No space")));
    }
}
