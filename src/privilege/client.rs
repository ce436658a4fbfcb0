//! Asking the broker without waiting for it: a thread of its own holds the channel, carries out one request after another
//! and says what the broker tells unasked.

use std::{
    future::pending,
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use tokio::{
    runtime::Builder,
    select,
    sync::{Notify, mpsc, oneshot},
};

use super::{BrokerError, Changed, Channel, FileRead, ListenerRef, Served, What, XdpAttached, XdpGrant};
use crate::{
    base::{SocketKind, SocketPath},
    config::PacketService,
    sys::{config_file::FileIdentity, readiness},
};

/// Requests that may wait; who asks then waits for room.
const QUEUE: usize = 64;

/// Asks the broker. Cheap to clone; the thread ends with the last clone.
#[derive(Debug, Clone)]
pub struct Client {
    requests: mpsc::Sender<Request>,
    keeps_rules: bool,
}

/// What the broker tells unasked.
#[derive(Debug)]
pub struct BrokerNews {
    untold: Arc<Untold>,
    lost: oneshot::Receiver<String>,
}

/// What has changed and nobody has been told of.
#[derive(Debug, Default)]
struct Untold {
    changed: Mutex<Changed>,
    some: Notify,
}

impl Untold {
    fn add(&self, more: Changed) {
        let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        changed.files.extend(more.files);
        changed.rules |= more.rules;
        drop(changed);
        self.some.notify_one();
    }

    fn take(&self) -> Changed {
        std::mem::take(&mut self.changed.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// News of the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// Files or firewall rules.
    Changed(Changed),
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
        let untold = Arc::new(Untold::default());
        let telling = Arc::clone(&untold);
        let keeps_rules = channel.keeps_rules();
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
        Ok((
            Self {
                requests,
                keeps_rules,
            },
            BrokerNews { untold, lost },
        ))
    }

    /// [`Channel::keeps_rules`].
    #[must_use]
    pub const fn keeps_rules(&self) -> bool {
        self.keeps_rules
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

    /// [`Channel::in_effect`].
    ///
    /// # Errors
    /// As [`Channel::in_effect`].
    pub async fn in_effect(&self, identity: FileIdentity) -> Result<(), BrokerError> {
        self.ask(move |channel| channel.in_effect(identity)).await
    }

    /// [`Channel::write_config`].
    ///
    /// # Errors
    /// As [`Channel::write_config`].
    pub async fn write_config(&self, before: Vec<u8>, text: Vec<u8>) -> Result<(), BrokerError> {
        self.ask(move |channel| channel.write_config(&before, &text))
            .await
    }

    /// [`Channel::xdp_load`].
    ///
    /// # Errors
    /// As [`Channel::xdp_load`].
    pub async fn xdp_load(&self) -> Result<XdpGrant, BrokerError> {
        self.ask(Channel::xdp_load).await
    }

    /// [`Channel::xdp_settled`].
    ///
    /// # Errors
    /// As [`Channel::xdp_settled`].
    pub async fn xdp_settled(&self) -> Result<(), BrokerError> {
        self.ask(Channel::xdp_settled).await
    }

    /// [`Channel::xdp_attach`].
    ///
    /// # Errors
    /// As [`Channel::xdp_attach`].
    pub async fn xdp_attach(&self, interface: Arc<str>) -> Result<XdpAttached, BrokerError> {
        self.ask(move |channel| channel.xdp_attach(&interface)).await
    }

    /// [`Channel::xdp_detach`].
    ///
    /// # Errors
    /// As [`Channel::xdp_detach`].
    pub async fn xdp_detach(&self, interface: Arc<str>) -> Result<(), BrokerError> {
        self.ask(move |channel| channel.xdp_detach(&interface)).await
    }

    /// [`Channel::xdp_tables`].
    ///
    /// # Errors
    /// As [`Channel::xdp_tables`].
    pub async fn xdp_tables(&self, count: u8) -> Result<Vec<OwnedFd>, BrokerError> {
        self.ask(move |channel| channel.xdp_tables(count)).await
    }

    /// [`Channel::connect`].
    ///
    /// # Errors
    /// As [`Channel::connect`].
    pub async fn connect(&self, path: SocketPath) -> Result<OwnedFd, BrokerError> {
        self.ask(move |channel| channel.connect(path)).await
    }

    /// [`Channel::log_file`].
    ///
    /// # Errors
    /// As [`Channel::log_file`].
    pub async fn log_file(&self, path: PathBuf) -> Result<OwnedFd, BrokerError> {
        self.ask(move |channel| channel.log_file(path)).await
    }

    /// [`Channel::log_socket`].
    ///
    /// # Errors
    /// As [`Channel::log_socket`].
    pub async fn log_socket(&self, path: SocketPath) -> Result<OwnedFd, BrokerError> {
        self.ask(move |channel| channel.log_socket(path)).await
    }

    /// [`Channel::take_over_socket`].
    ///
    /// # Errors
    /// As [`Channel::take_over_socket`].
    pub async fn take_over_socket(
        &self,
        listener: ListenerRef,
        socket: OwnedFd,
    ) -> Result<OwnedFd, BrokerError> {
        self.ask(move |channel| {
            channel
                .take_over_socket(&listener, socket.as_fd())
                .map(|()| socket)
        })
        .await
    }

    /// [`Channel::socket_rights`].
    ///
    /// # Errors
    /// As [`Channel::socket_rights`].
    pub async fn socket_rights(&self, listener: ListenerRef) -> Result<(), BrokerError> {
        self.ask(move |channel| channel.socket_rights(&listener)).await
    }

    /// [`Channel::release_socket`], for who must not wait. If too many requests wait already the file stays until the broker
    /// hears of a configuration in effect.
    pub fn release_socket(&self, path: SocketPath) {
        let request: Request = Box::new(move |channel| lost(&channel.release_socket(path)));
        // a thread that is gone has its own end
        let _ = self.requests.try_send(request);
    }

    /// [`Channel::server_sockets`], for who must not wait: `answer` is called by the client's thread. False if too many
    /// requests wait already, or the thread is gone: then it is not called.
    #[must_use]
    pub fn ask_server_sockets(
        &self,
        kind: SocketKind,
        answer: impl FnOnce(Result<Vec<OwnedFd>, BrokerError>) + Send + 'static,
    ) -> bool {
        let request: Request = Box::new(move |channel| {
            let result = channel.server_sockets(kind);
            let lost = lost(&result);
            answer(result);
            lost
        });
        self.requests.try_send(request).is_ok()
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
            let lost = lost(&result);
            let _ = reply.send(result);
            lost
        });
        self.requests.send(boxed).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

/// Why the broker is lost, if it is.
fn lost<T>(result: &Result<T, BrokerError>) -> Option<String> {
    match result {
        Err(BrokerError::Lost(why)) => Some(why.clone()),
        _ => None,
    }
}

impl BrokerNews {
    /// Waits for news. After [`News::Lost`] there are none.
    pub async fn next(&mut self) -> News {
        loop {
            let changed = self.untold.take();
            if !changed.is_empty() {
                return News::Changed(changed);
            }
            let untold = Arc::clone(&self.untold);
            select! {
                biased;
                why = self.lost() => return News::Lost(why),
                () = untold.some.notified() => {}
            }
        }
    }

    /// Waits until the broker is lost, and says why; what else it tells stays for [`next`](Self::next). Resolves once at most.
    pub async fn lost(&mut self) -> String {
        if self.lost.is_terminated() {
            pending::<()>().await;
        }
        (&mut self.lost)
            .await
            .unwrap_or_else(|_| "its client thread has ended".into())
    }
}

/// Serves until nobody can ask any more, or the broker is lost: why.
async fn serve(
    channel: &Channel,
    news_fd: OwnedFd,
    mut inbox: mpsc::Receiver<Request>,
    untold: &Untold,
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
            Ok(changed) if changed.is_empty() => {}
            Ok(changed) => untold.add(changed),
            Err(error) => return Some(error.to_string()),
        }
    }
}
