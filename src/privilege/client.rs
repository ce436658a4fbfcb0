//! Asking the broker without waiting for it: a thread of its own holds the channel, carries out one request after another
//! and says what the broker tells unasked.

use std::{
    collections::BTreeSet,
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use tokio::{
    runtime::Builder,
    select,
    sync::{Notify, mpsc, oneshot},
};

use super::{BrokerError, Channel, FileRead, ListenerRef, Served, What};
use crate::{config::PacketService, sys::readiness};

/// Requests that may wait; who asks then waits for room.
const QUEUE: usize = 64;

/// Asks the broker. Cheap to clone; the thread ends with the last clone.
#[derive(Debug, Clone)]
pub struct Client {
    requests: mpsc::Sender<Request>,
}

/// What the broker tells unasked.
#[derive(Debug)]
pub struct BrokerNews {
    changed: Arc<Changed>,
    lost: oneshot::Receiver<String>,
}

/// Files that have changed and that nobody has been told of.
#[derive(Debug, Default)]
struct Changed {
    files: Mutex<BTreeSet<What>>,
    some: Notify,
}

impl Changed {
    fn add(&self, files: BTreeSet<What>) {
        self.files
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(files);
        self.some.notify_one();
    }

    fn take(&self) -> BTreeSet<What> {
        std::mem::take(&mut self.files.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// News of the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// These files are others than when they were last read.
    Changed(BTreeSet<What>),
    /// The broker is gone or talks nonsense, and why: the daemon must end.
    Lost(String),
}

/// Is given the channel, unless nobody waits for the answer any more.
type Request = Box<dyn FnOnce(&Channel) -> Option<String> + Send>;

impl Client {
    /// Starts the thread.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(channel: Channel) -> io::Result<(Self, BrokerNews)> {
        let news_fd = channel.news_fd()?;
        let (requests, inbox) = mpsc::channel(QUEUE);
        let changed = Arc::new(Changed::default());
        let telling = Arc::clone(&changed);
        let (lost_tx, lost) = oneshot::channel();
        let runtime = Builder::new_current_thread().enable_io().build()?;
        thread::Builder::new()
            .name("convey-client".into())
            .spawn(move || {
                if let Some(why) = runtime.block_on(serve(&channel, news_fd, inbox, &telling)) {
                    // whoever would hear it is gone
                    let _ = lost_tx.send(why);
                }
            })?;
        Ok((Self { requests }, BrokerNews { changed, lost }))
    }

    /// [`Channel::bind`].
    ///
    /// # Errors
    /// As [`Channel::bind`].
    pub async fn bind(&self, listener: ListenerRef) -> Result<OwnedFd, BrokerError> {
        self.ask(move |channel| channel.bind(&listener)).await
    }

    /// [`Channel::read`].
    ///
    /// # Errors
    /// As [`Channel::read`].
    pub async fn read(&self, what: What) -> Result<FileRead, BrokerError> {
        self.ask(move |channel| channel.read(what)).await
    }

    /// [`Channel::packet_socket`].
    ///
    /// # Errors
    /// As [`Channel::packet_socket`].
    pub async fn packet_socket(&self, interface: Arc<str>) -> Result<OwnedFd, BrokerError> {
        self.ask(move |channel| channel.packet_socket(&interface)).await
    }

    /// [`Channel::release_packet_sockets`].
    ///
    /// # Errors
    /// As [`Channel::release_packet_sockets`].
    pub async fn release_packet_sockets(&self, interface: Arc<str>) -> Result<(), BrokerError> {
        self.ask(move |channel| channel.release_packet_sockets(&interface))
            .await
    }

    /// [`Channel::serve`].
    ///
    /// # Errors
    /// As [`Channel::serve`].
    pub async fn serve(&self, services: Arc<[PacketService]>) -> Result<Served, BrokerError> {
        self.ask(move |channel| channel.serve(&services)).await
    }

    /// Has the thread carry out a request. One that nobody waits for any more when its turn comes is not carried out; what
    /// one that has begun brings is dropped.
    async fn ask<T: Send + 'static>(
        &self,
        request: impl FnOnce(&Channel) -> Result<T, BrokerError> + Send + 'static,
    ) -> Result<T, BrokerError> {
        let (reply, answer) = oneshot::channel();
        let gone = || BrokerError::Lost("its client thread has ended".into());
        let boxed: Request = Box::new(move |channel| {
            if reply.is_closed() {
                return None;
            }
            let result = request(channel);
            let lost = match &result {
                Err(BrokerError::Lost(why)) => Some(why.clone()),
                _ => None,
            };
            let _ = reply.send(result);
            lost
        });
        self.requests.send(boxed).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

impl BrokerNews {
    /// Waits for news. After [`News::Lost`] there are none.
    pub async fn next(&mut self) -> News {
        loop {
            let files = self.changed.take();
            if !files.is_empty() {
                return News::Changed(files);
            }
            select! {
                biased;
                lost = &mut self.lost, if !self.lost.is_terminated() => {
                    return News::Lost(lost.unwrap_or_else(|_| "its client thread has ended".into()));
                }
                () = self.changed.some.notified() => {}
            }
        }
    }
}

/// Serves until nobody can ask any more, or the broker is lost: why.
async fn serve(
    channel: &Channel,
    news_fd: OwnedFd,
    mut inbox: mpsc::Receiver<Request>,
    changed: &Changed,
) -> Option<String> {
    let news = match readiness::readable(news_fd) {
        Ok(news) => news,
        Err(error) => return Some(format!("wait for its events: {error}")),
    };
    loop {
        select! {
            request = inbox.recv() => {
                if let Some(lost) = request?(channel) {
                    return Some(lost);
                }
            }
            ready = news.readable() => match ready {
                // it may have been an answer that the request before has taken
                Ok(mut ready) => ready.clear_ready(),
                Err(error) => return Some(format!("wait for its events: {error}")),
            },
        }
        match channel.news() {
            Ok(files) if files.is_empty() => {}
            Ok(files) => changed.add(files),
            Err(error) => return Some(error.to_string()),
        }
    }
}
