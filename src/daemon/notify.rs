//! Telling systemd how it goes. Without NOTIFY_SOCKET nothing is sent.

use std::{
    cell::RefCell,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    thread,
    time::Duration,
};

use sd_notify::NotifyState;

use crate::sys::manager::store_size;

/// Messages that may wait for a manager that does not read; later ones are dropped.
const QUEUE: usize = 64;

/// The kernel passes 253 at most (SCM_MAX_FD).
const FDS_PER_MESSAGE: usize = 128;

/// How long the end waits for the last messages to be sent.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// The service manager's ear.
///
/// Sending blocks while the manager's socket is full, so it is a thread's work: a manager that is stuck must not stop
/// the control loop.
#[derive(Debug)]
pub struct Notifier {
    watchdog: Option<Duration>,
    /// How many descriptors the manager keeps for us over a restart.
    store: usize,
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
    /// Descriptors to keep over a restart, and the names to keep them under.
    Keep(Vec<(String, Vec<OwnedFd>)>),
    /// Keep those of these names no longer.
    Forget(Vec<String>),
}

impl Notifier {
    /// Reads what systemd asked for in the environment.
    #[must_use]
    pub fn from_environment() -> Self {
        let mut notifier = Self {
            watchdog: sd_notify::watchdog_enabled(),
            store: 0,
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
                Ok(_) => {
                    (notifier.queue, notifier.sent) = (Some(queue), Some(sent));
                    notifier.store = store_size();
                }
                Err(error) => {
                    tracing::warn!(event = "notify_failed", "cannot start the notify thread: {error}");
                }
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
            Ok(now) => {
                self.put(Message::Reloading(now));
            }
            Err(error) => tracing::debug!(
                event = "notify_failed",
                "cannot read the monotonic clock: {error}"
            ),
        }
        self.status.borrow_mut().clear();
    }

    /// The status line of `systemctl status`.
    pub fn status(&self, status: &str) {
        // one for which there was no room is sent the next time
        if *self.status.borrow() != status && self.put(Message::Status(status.to_owned())) {
            status.clone_into(&mut self.status.borrow_mut());
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

    /// How many descriptors the manager keeps for us over a restart; 0 without such a manager.
    #[must_use]
    pub const fn store(&self) -> usize {
        self.store
    }

    /// Has descriptors kept over a restart, under names. Those that are kept already stay so.
    ///
    /// # Errors
    /// No descriptor is left, or the manager does not read.
    pub fn keep<'a>(&self, named: impl Iterator<Item = (String, &'a [OwnedFd])>) -> io::Result<()> {
        if self.store == 0 {
            return Ok(());
        }
        let copied = named.map(|(name, fds)| {
            let copies: io::Result<Vec<_>> = fds.iter().map(OwnedFd::try_clone).collect();
            copies.map(|copies| (name, copies))
        });
        let message = Message::Keep(copied.collect::<io::Result<_>>()?);
        if self.put(message) {
            Ok(())
        } else {
            Err(io::Error::other("the service manager does not read"))
        }
    }

    /// Has the descriptors of these names kept no longer.
    pub fn forget(&self, names: Vec<String>) {
        if self.store > 0 && !names.is_empty() {
            self.put(Message::Forget(names));
        }
    }

    /// Whether there was room for the message.
    fn put(&self, message: Message) -> bool {
        let taken = self
            .queue
            .as_ref()
            .is_none_or(|queue| queue.try_send(message).is_ok());
        if !taken {
            tracing::debug!(
                event = "notify_failed",
                "the service manager is not reading: message dropped"
            );
        }
        taken
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

/// Whether the service manager keeps descriptors for the process after this one.
pub fn keeps_descriptors() -> bool {
    store_size() > 0
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
        Message::Keep(named) => named.iter().try_for_each(|(name, fds)| keep(name, fds)),
        Message::Forget(names) => names
            .iter()
            .try_for_each(|name| sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)])),
    };
    // the manager may be gone; we work without it
    match (result, message) {
        (Ok(()), _) => {}
        (Err(error), Message::Keep(_)) => not_kept(&error),
        (Err(error), _) => {
            tracing::debug!(
                event = "notify_failed",
                "cannot notify the service manager: {error}"
            );
        }
    }
}

/// Says that a restart will not be as smooth as it could.
pub(super) fn not_kept(error: &io::Error) {
    tracing::warn!(
        event = "listener_not_kept",
        "systemd will not keep new listeners across a restart: connections will be refused meanwhile: {error}"
    );
}

fn keep(name: &str, fds: &[OwnedFd]) -> io::Result<()> {
    fds.chunks(FDS_PER_MESSAGE).try_for_each(|fds| {
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        // one of UDP with an error that nobody has been told of would be dropped, were they watched
        let unwatched = NotifyState::Custom("FDPOLL=0");
        sd_notify::notify_with_fds(
            &[NotifyState::FdStore, unwatched, NotifyState::FdName(name)],
            &fds,
        )
    })
}
