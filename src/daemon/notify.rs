//! Telling systemd how it goes. Without NOTIFY_SOCKET nothing is sent.

use std::{
    cell::RefCell,
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    thread,
    time::Duration,
};

use sd_notify::NotifyState;

/// Messages that may wait for a manager that does not read; later ones are dropped.
const QUEUE: usize = 64;

/// How long the end waits for the last messages to be sent.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// The service manager's ear.
///
/// Sending blocks while the manager's socket is full, so it is a thread's work: a manager that is stuck must not stop
/// the control loop.
#[derive(Debug)]
pub struct Notifier {
    watchdog: Option<Duration>,
    /// The status line as last sent, so that it is sent only when it changes.
    status: RefCell<String>,
    queue: Option<SyncSender<Message>>,
    /// Ends when the thread has sent everything.
    sent: Option<Receiver<()>>,
}

#[derive(Debug)]
enum Message {
    Ready(String),
    /// With the monotonic clock's time of its beginning.
    Reloading(NotifyState<'static>),
    Status(String),
    Stopping(String),
    Watchdog,
}

impl Notifier {
    /// Reads what systemd asked for in the environment.
    #[must_use]
    pub fn from_environment() -> Self {
        let mut notifier = Self {
            watchdog: sd_notify::watchdog_enabled(),
            status: RefCell::default(),
            queue: None,
            sent: None,
        };
        if std::env::var_os("NOTIFY_SOCKET").is_some() {
            let (queue, messages) = sync_channel(QUEUE);
            let (done, sent) = sync_channel(0);
            let thread = thread::Builder::new().name("convey-notify".into());
            let spawned = thread.spawn(move || {
                messages.iter().for_each(|message| send(&message));
                drop(done);
            });
            match spawned {
                Ok(_) => (notifier.queue, notifier.sent) = (Some(queue), Some(sent)),
                Err(error) => tracing::warn!(event = "notify_failed", "start the notifying thread: {error}"),
            }
        }
        notifier
    }

    /// How often the watchdog wants to hear of us: half its time-out.
    #[must_use]
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog
            .map(|timeout| timeout / 2)
            .filter(|interval| !interval.is_zero())
    }

    /// Start or reload is finished.
    pub fn ready(&self, status: &str) {
        status.clone_into(&mut self.status.borrow_mut());
        self.put(Message::Ready(status.to_owned()));
    }

    /// A reload begins; must be followed by [`ready`](Self::ready), successful or not.
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.put(Message::Reloading(now)),
            Err(error) => tracing::debug!(event = "notify_failed", "read the monotonic clock: {error}"),
        }
        self.status.borrow_mut().clear();
    }

    /// The status line of `systemctl status`.
    pub fn status(&self, status: &str) {
        if *self.status.borrow() != status {
            status.clone_into(&mut self.status.borrow_mut());
            self.put(Message::Status(status.to_owned()));
        }
    }

    /// The end has begun.
    pub fn stopping(&self, status: &str) {
        status.clone_into(&mut self.status.borrow_mut());
        self.put(Message::Stopping(status.to_owned()));
    }

    /// The loops that must be alive are.
    pub fn watchdog(&self) {
        self.put(Message::Watchdog);
    }

    fn put(&self, message: Message) {
        if let Some(queue) = &self.queue
            && queue.try_send(message).is_err()
        {
            tracing::debug!(
                event = "notify_failed",
                "the service manager does not read: a message is dropped"
            );
        }
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(sent) = &self.sent {
            // nothing is ever received: the wait ends with the thread, or with the time
            let _: Result<(), RecvTimeoutError> = sent.recv_timeout(LAST_WORDS);
        }
    }
}

fn send(message: &Message) {
    let result = match message {
        Message::Ready(status) => sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(status)]),
        Message::Reloading(since) => sd_notify::notify(&[
            NotifyState::Reloading,
            since.clone(),
            NotifyState::Status("reloading the configuration"),
        ]),
        Message::Status(status) => sd_notify::notify(&[NotifyState::Status(status)]),
        Message::Stopping(status) => sd_notify::notify(&[NotifyState::Stopping, NotifyState::Status(status)]),
        Message::Watchdog => sd_notify::notify(&[NotifyState::Watchdog]),
    };
    // the manager may be gone; we work without it
    if let Err(error) = result {
        tracing::debug!(event = "notify_failed", "notify the service manager: {error}");
    }
}
