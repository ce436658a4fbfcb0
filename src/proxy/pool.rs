//! Sockets of a thread that only the broker can make, asked for ahead: a connection that needs one has it at once, as a rule.
//!
//! Each thread has its own, so that taking one costs no lock. Fewer than [`LOW`] in stock have another batch asked for, whoever
//! finds none waits for it: connections up to their `connect_timeout`, datagrams in a queue of their worker's.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{Notify, oneshot},
    time::timeout_at,
};

use crate::base::SocketKind;

/// Sockets of a kind below which more are asked for.
const LOW: usize = SocketKind::BATCH;

/// Most sockets of a kind that a thread keeps.
pub const MOST: usize = 2 * SocketKind::BATCH;

/// Most batches of a kind that a thread has asked for and not got yet.
const MOST_ASKED: usize = 4;

/// How long no more are asked for after a refusal.
const PAUSE: Duration = Duration::from_secs(1);

/// Least time between two log events about refusals.
const LOG_PAUSE: Duration = Duration::from_secs(60);

/// A batch of sockets, or why there is none.
pub type Batch = Result<Vec<OwnedFd>, String>;

/// Where such sockets come from: whoever may make them.
pub trait SocketPool: Send + Sync {
    /// Asks for a batch; returns at once.
    fn ask(&self, kind: SocketKind, answer: oneshot::Sender<Batch>);
}

/// There are none.
#[cfg(test)]
#[derive(Debug, Clone, Copy)]
pub struct NoSockets;

#[cfg(test)]
impl SocketPool for NoSockets {
    fn ask(&self, _: SocketKind, answer: oneshot::Sender<Batch>) {
        let _ = answer.send(Err("this process has no such sockets".into()));
    }
}

thread_local! {
    static POOL: RefCell<Option<Pool>> = const { RefCell::new(None) };
}

/// The sockets of a thread.
struct Pool {
    source: Arc<dyn SocketPool>,
    stocks: BTreeMap<SocketKind, Stock>,
    /// Signalled when an answer has come.
    answered: Arc<Notify>,
    /// How many have.
    answers: u64,
    logged_at: Option<Instant>,
}

/// Those of a kind.
#[derive(Debug, Default)]
struct Stock {
    sockets: Vec<OwnedFd>,
    /// Batches under way.
    asked: usize,
    /// Connections that wait for one.
    waiting: usize,
    /// Nothing is asked for before.
    paused_until: Option<Instant>,
}

impl Stock {
    /// How many batches to ask for now.
    fn lacking(&self, now: Instant) -> usize {
        if self.is_paused(now) {
            return 0;
        }
        let wanted = LOW + self.waiting;
        let coming = self.sockets.len() + self.asked * SocketKind::BATCH;
        let batches = wanted.saturating_sub(coming).div_ceil(SocketKind::BATCH);
        batches.min(MOST_ASKED.saturating_sub(self.asked))
    }

    fn is_paused(&self, now: Instant) -> bool {
        self.paused_until.is_some_and(|until| now < until)
    }

    /// Takes an answer, `None` for a refusal; what there is no room for is closed.
    fn take_answer(&mut self, batch: Option<Vec<OwnedFd>>, now: Instant) {
        self.asked = self.asked.saturating_sub(1);
        match batch {
            Some(sockets) => {
                self.sockets.extend(sockets);
                self.sockets.truncate(MOST + self.waiting);
                self.paused_until = None;
            }
            None => self.paused_until = Some(now + PAUSE),
        }
    }
}

/// Has this thread ask here.
pub fn begin(source: Arc<dyn SocketPool>) {
    POOL.set(Some(Pool {
        source,
        stocks: BTreeMap::new(),
        answered: Arc::new(Notify::new()),
        answers: 0,
        logged_at: None,
    }));
}

/// Keeps sockets of these kinds ready from now on, and closes all others.
pub fn keep(kinds: &BTreeSet<SocketKind>) {
    with(|pool| {
        pool.stocks.retain(|kind, _| kinds.contains(kind));
        for kind in kinds {
            pool.stocks.entry(*kind).or_default();
            pool.ask(*kind);
        }
        // what waits for one that is gone is told so
        pool.note_answer();
    });
}

/// Takes a socket if there is one.
#[must_use]
pub fn take(kind: SocketKind) -> Option<OwnedFd> {
    with(|pool| {
        let taken = pool.stocks.entry(kind).or_default().sockets.pop();
        pool.ask(kind);
        taken
    })?
}

/// Takes a socket, or waits until that moment at most for one. `None`: there was none, or there will be none soon.
pub async fn wait(kind: SocketKind, until: Instant) -> Option<OwnedFd> {
    let answered = with(|pool| Arc::clone(&pool.answered))?;
    let _waiting = Waiting::new(kind);
    loop {
        // what is answered from here on wakes us
        let next = answered.notified();
        if let Some(socket) = take(kind) {
            return Some(socket);
        }
        if is_paused(kind) {
            return None;
        }
        timeout_at(until.into(), next).await.ok()?;
    }
}

/// Whether this thread keeps sockets at all.
#[must_use]
pub fn keeps_any() -> bool {
    with(|pool| !pool.stocks.is_empty()).unwrap_or(false)
}

/// Whether there is no socket of a kind now, and one will come.
#[must_use]
pub fn is_awaited(kind: SocketKind) -> bool {
    let awaited = with(|pool| {
        pool.ask(kind);
        let stock = pool.stocks.get(&kind);
        stock.is_some_and(|stock| stock.sockets.is_empty() && !stock.is_paused(Instant::now()))
    });
    awaited.unwrap_or(false)
}

/// Resolves when more sockets have come, or been refused.
pub async fn answered() {
    match with(|pool| Arc::clone(&pool.answered)) {
        Some(answered) => answered.notified().await,
        None => std::future::pending().await,
    }
}

/// How often that was.
#[must_use]
pub fn answers() -> u64 {
    with(|pool| pool.answers).unwrap_or(0)
}

fn is_paused(kind: SocketKind) -> bool {
    let paused = with(|pool| {
        let stock = pool.stocks.get(&kind);
        stock.is_none_or(|stock| stock.is_paused(Instant::now()))
    });
    paused.unwrap_or(true)
}

fn with<R>(act: impl FnOnce(&mut Pool) -> R) -> Option<R> {
    POOL.with_borrow_mut(|pool| pool.as_mut().map(act))
}

impl Pool {
    /// Asks for what lacks of a kind.
    fn ask(&mut self, kind: SocketKind) {
        let Some(stock) = self.stocks.get_mut(&kind) else {
            return;
        };
        for _ in 0..stock.lacking(Instant::now()) {
            stock.asked += 1;
            let (answer, answered) = oneshot::channel();
            self.source.ask(kind, answer);
            tokio::spawn(async move {
                let batch = answered.await;
                let batch = batch.unwrap_or_else(|_| Err("the broker's client does not answer".into()));
                let _ = with(|pool| pool.arrive(kind, batch));
            });
        }
    }

    fn arrive(&mut self, kind: SocketKind, batch: Batch) {
        let now = Instant::now();
        if let Err(why) = &batch
            && self.logged_at.is_none_or(|at| now - at >= LOG_PAUSE)
        {
            self.logged_at = Some(now);
            tracing::warn!(
                event = "no_source_sockets",
                "no sockets towards servers ({kind}): {why}"
            );
        }
        // those that are wanted no more are closed
        if let Some(stock) = self.stocks.get_mut(&kind) {
            stock.take_answer(batch.ok(), now);
            self.ask(kind);
        }
        self.note_answer();
    }

    fn note_answer(&mut self) {
        self.answers += 1;
        self.answered.notify_waiters();
    }
}

/// Counts a connection that waits.
struct Waiting(SocketKind);

impl Waiting {
    fn new(kind: SocketKind) -> Self {
        with(|pool| pool.stocks.entry(kind).or_default().waiting += 1);
        Self(kind)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        with(|pool| {
            if let Some(stock) = pool.stocks.get_mut(&self.0) {
                stock.waiting = stock.waiting.saturating_sub(1);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sockets(count: usize) -> Vec<OwnedFd> {
        let one = || OwnedFd::from(std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
        (0..count).map(|_| one()).collect()
    }

    #[test]
    fn a_batch_is_asked_for_ahead_and_more_where_connections_wait_but_never_without_end() {
        let now = Instant::now();
        let mut stock = Stock::default();
        assert_eq!(stock.lacking(now), 1);
        stock.asked = 1;
        assert_eq!(stock.lacking(now), 0);
        stock.take_answer(Some(sockets(SocketKind::BATCH)), now);
        assert_eq!((stock.asked, stock.lacking(now)), (0, 0));
        stock.sockets.pop();
        assert_eq!(stock.lacking(now), 1, "below the mark");
        stock.waiting = 10_000;
        assert_eq!(stock.lacking(now), MOST_ASKED);
        stock.asked = MOST_ASKED;
        assert_eq!(stock.lacking(now), 0);
    }

    #[test]
    fn a_stock_has_a_bound_and_pauses_after_a_refusal() {
        let now = Instant::now();
        let mut stock = Stock::default();
        stock.take_answer(Some(sockets(MOST + 9)), now);
        assert_eq!(stock.sockets.len(), MOST);
        stock.sockets.clear();
        stock.take_answer(None, now);
        assert_eq!((stock.lacking(now), stock.lacking(now + PAUSE)), (0, 1));
        stock.take_answer(Some(Vec::new()), now);
        assert_eq!(stock.lacking(now), 1, "an answer ends the pause");
    }
}
