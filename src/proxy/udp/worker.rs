//! The UDP side of a worker thread: what it is ordered, and its turns.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::Sleep;

use super::{
    engine::{Engine, LISTENERS},
    listener::Listener,
    sessions::SessionId,
    wheel::Millis,
};
use crate::{
    base::{Endpoint, TerminationReason, WorkerId},
    proxy::{
        owners::{HandedOver, Inbox},
        pool,
        shared::{OpenConnection, Select, WorkerContext},
    },
    sys::{poller::Poller, udp_socket::Receiver},
};

/// Datagrams, merged ones as one, that are received at a time.
const BATCH: usize = 64;

/// Those that are received of one session before others have a turn.
const OF_A_SESSION: usize = 8;

/// Sessions that are looked at for their end before datagrams have a turn.
const LOOKS: usize = 1_024;

/// The UDP sockets and sessions of a thread.
pub struct UdpWorker {
    shared: Arc<WorkerContext>,
    worker: WorkerId,
    inbox: Inbox,
    /// Made with the first socket.
    work: Option<Work>,
}

struct Work {
    engine: Engine,
    receiver: Receiver,
    /// What is to be looked at now.
    ready: Vec<u64>,
    /// What may have more than a turn has taken.
    again: Vec<u64>,
    over: Vec<SessionId>,
    /// Whether more sessions may be over than were looked at.
    has_more_over: bool,
    timer: Pin<Box<Sleep>>,
    /// When the timer goes off.
    wakes_at: Option<Millis>,
}

impl UdpWorker {
    /// No sockets yet.
    pub fn new(shared: Arc<WorkerContext>, worker: WorkerId, inbox: Inbox) -> Self {
        Self {
            shared,
            worker,
            inbox,
            work: None,
        }
    }

    /// Receives from this socket too.
    ///
    /// # Errors
    /// No frontend has the endpoint, or the reactor refused the socket.
    pub fn listen(&mut self, endpoint: Endpoint, socket: OwnedFd) -> io::Result<()> {
        let listener = Listener::new(endpoint, socket, &self.shared, self.worker)?;
        if self.work.is_none() {
            self.work = Some(Work {
                engine: Engine::new(Arc::clone(&self.shared), self.worker, Poller::new()?),
                receiver: Receiver::new(BATCH),
                ready: Vec::new(),
                again: Vec::new(),
                over: Vec::new(),
                has_more_over: false,
                timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
                wakes_at: None,
            });
        }
        let Some(work) = &mut self.work else { return Ok(()) };
        // one that waits for the end of its last sessions hears again
        for same in work.engine.listeners.iter_mut().flatten() {
            if same.endpoint == endpoint {
                same.is_deaf = false;
            }
        }
        let listeners = &mut work.engine.listeners;
        let number = match listeners.iter().position(Option::is_none) {
            Some(number) => number,
            None => {
                listeners.push(None);
                listeners.len() - 1
            }
        };
        work.engine
            .poller
            .add(listener.socket.as_fd(), LISTENERS | number as u64)?;
        if let Some(place) = work.engine.listeners.get_mut(number) {
            *place = Some(listener);
        }
        Ok(())
    }

    /// Begins no session of this endpoint any more. Its sockets are closed with its last session: answers leave by them.
    pub fn retire(&mut self, endpoint: Endpoint) {
        let Some(work) = &mut self.work else { return };
        for place in &mut work.engine.listeners {
            if let Some(listener) = place
                && listener.endpoint == endpoint
            {
                listener.is_deaf = true;
                if listener.sessions == 0 {
                    *place = None;
                }
            }
        }
    }

    /// Receives nothing from clients any more: what they send is the next process's. Answers still pass.
    pub fn leave(&mut self) {
        let Some(work) = &mut self.work else { return };
        for listener in work.engine.listeners.iter_mut().flatten() {
            work.engine.poller.remove(listener.socket.as_fd());
            listener.is_deaf = true;
        }
        work.again.retain(|number| number & LISTENERS == 0);
    }

    /// How many sessions began before.
    pub fn count_older(&self, than: Instant) -> usize {
        let live = self
            .work
            .iter()
            .flat_map(|work| work.engine.live.iter().flatten());
        live.filter(|session| session.begun.at < than).count()
    }

    /// How many sessions are selected.
    pub fn count(&self, select: &Select) -> usize {
        self.work.as_ref().map_or(0, |work| work.selected(select).count())
    }

    /// Ends the selected sessions; how many.
    pub fn close(&mut self, select: &Select, reason: TerminationReason) -> usize {
        let Some(work) = &mut self.work else { return 0 };
        let selected: Vec<_> = work.selected(select).collect();
        for id in &selected {
            work.engine.end(*id, reason);
        }
        selected.len()
    }

    /// The sessions that the filter accepts: how many, and the `limit` oldest.
    pub fn list(
        &self,
        filter: &dyn Fn(&OpenConnection) -> bool,
        limit: usize,
    ) -> (usize, Vec<OpenConnection>) {
        let Some(work) = &self.work else {
            return (0, Vec::new());
        };
        let now = self.shared.now();
        let engine = &work.engine;
        let all = engine.sessions.iter().filter_map(|(id, key, last)| {
            let live = engine.live.get(id.index())?.as_ref()?;
            let idle = Duration::from_millis(now.saturating_sub(last));
            Some((live.view(key, self.worker, idle), live))
        });
        let mut found: Vec<_> = all.filter(|(session, _)| filter(session)).collect();
        let total = found.len();
        found.sort_by_key(|(session, _)| session.accepted_at);
        found.truncate(limit);
        // what only the kernel knows, and only of those that are shown
        let whole = |(session, live): (OpenConnection, &super::live::Live)| OpenConnection {
            local: live.local(),
            ..session
        };
        (total, found.into_iter().map(whole).collect())
    }

    /// Waits for something to do, and does some of it.
    pub async fn turn(&mut self) {
        let Some(work) = &mut self.work else {
            return std::future::pending().await;
        };
        // one that came while nobody waited for it, too
        let has_answer = work.engine.waiting.has_news(pool::answers());
        let is_waiting = work.again.is_empty() && !work.has_more_over && !has_answer;
        let handed = if is_waiting {
            work.set_timer(self.shared.now());
            let has_timer = work.wakes_at.is_some();
            let has_held = work.engine.waiting.len() > 0;
            tokio::select! {
                ready = work.engine.poller.ready(&mut work.ready) => {
                    // the reactor's end is the thread's
                    if ready.is_err() {
                        return std::future::pending().await;
                    }
                    None
                }
                handed = self.inbox.recv() => handed,
                () = pool::answered(), if has_held => None,
                () = &mut work.timer, if has_timer => None,
            }
        } else {
            // whoever else has something to do on this thread
            tokio::task::yield_now().await;
            None
        };
        let now = self.shared.now();
        work.engine.try_again(now, pool::answers());
        work.turn(now, handed.as_ref());
    }
}

impl Work {
    fn selected(&self, select: &Select) -> impl Iterator<Item = SessionId> {
        let live = &self.engine.live;
        self.engine.sessions.iter().filter_map(move |(id, key, _)| {
            let session = live.get(id.index())?.as_ref()?;
            session.is_selected(key, select).then_some(id)
        })
    }

    /// Has the timer go off when the next session may be over.
    fn set_timer(&mut self, now: Millis) {
        let next = self.engine.sessions.next_look();
        if next != self.wakes_at {
            self.wakes_at = next;
            if let Some(at) = next {
                let left = Duration::from_millis(at.saturating_sub(now));
                self.timer.as_mut().reset(tokio::time::Instant::now() + left);
            }
        }
    }

    fn turn(&mut self, now: Millis, handed: Option<&HandedOver>) {
        if let Some(handed) = handed {
            self.engine.handed_over(handed, now);
        }
        self.ready.append(&mut self.again);
        let mut ready = std::mem::take(&mut self.ready);
        for number in ready.drain(..) {
            let has_more = match number.checked_sub(LISTENERS) {
                Some(listener) => self.clients(u32::try_from(listener).unwrap_or(u32::MAX), now),
                None => {
                    if self.receiver.room() < OF_A_SESSION {
                        self.engine.flush(&mut self.receiver);
                    }
                    let id = SessionId::from_number(number);
                    self.engine
                        .take_from_server(id, &mut self.receiver, OF_A_SESSION, now)
                }
            };
            if has_more {
                self.again.push(number);
            }
        }
        self.engine.flush(&mut self.receiver);
        self.ready = ready;
        self.expire(now);
    }

    /// Receives a batch of clients; true if there may be more.
    fn clients(&mut self, number: u32, now: Millis) -> bool {
        self.engine.flush(&mut self.receiver);
        let place = self.engine.listeners.get_mut(number as usize);
        let Some(listener) = place.and_then(Option::as_mut) else {
            return false;
        };
        listener.refresh();
        // an error of it is none that would stay: memory is short
        let received = self.receiver.receive(listener.socket.as_fd(), BATCH).unwrap_or(0);
        for index in 0..received {
            if let Some(message) = self.receiver.message(index) {
                self.engine
                    .take_from_client(number, message, self.receiver.bytes(index), now);
            }
        }
        self.receiver.clear();
        received == BATCH
    }

    /// Ends what is over.
    fn expire(&mut self, now: Millis) {
        let mut over = std::mem::take(&mut self.over);
        self.has_more_over = self.engine.sessions.expired(now, LOOKS, &mut over);
        for id in over.drain(..) {
            let reason = match self.engine.sessions.has_lived(id, now) {
                true => TerminationReason::MaxLifetime,
                false => TerminationReason::Idle,
            };
            self.engine.end(id, reason);
        }
        self.over = over;
    }
}
