//! What is done with each datagram.

use std::{os::fd::AsFd as _, sync::Arc, time::Duration};

use super::{
    datagrams::Datagrams,
    listener::Listener,
    live::Live,
    opening::{NotBegun, Opening, is_servers_fault},
    sessions::{Request, SessionId, SessionLimits, Sessions},
    waiting::Waiting,
    wheel::Millis,
};
use crate::{
    base::{DatagramDrop, TerminationReason, WorkerId},
    proxy::{
        owners::{HandedOver, SessionKey},
        shared::WorkerContext,
    },
    sys::{
        poller::Poller,
        udp_socket::{Message, Outgoing, Receiver, Sender},
    },
};

/// Numbers of the poller from here on are listeners'; below are sessions'.
pub const LISTENERS: u64 = 1 << 63;

/// How often a datagram begins a session anew whose server turns out to be unreachable, at most.
const ATTEMPTS: u32 = 3;

/// An answer that waits to be sent: where its bytes are, and where they go.
#[derive(Debug, Clone, Copy)]
struct Answer {
    listener: u32,
    key: SessionKey,
    /// Its number in the receiver.
    index: usize,
    length: usize,
    ecn: u8,
    segment: Option<u16>,
}

/// The sessions of a worker with all that they need.
pub struct Engine {
    pub shared: Arc<WorkerContext>,
    pub worker: WorkerId,
    pub poller: Poller,
    pub listeners: Vec<Option<Listener>>,
    pub sessions: Sessions,
    pub live: Vec<Option<Live>>,
    /// What waits for sockets.
    pub waiting: Waiting,
    sender: Sender,
    answers: Vec<Answer>,
}

impl Engine {
    /// Nothing yet.
    pub fn new(shared: Arc<WorkerContext>, worker: WorkerId, poller: Poller) -> Self {
        Self {
            shared,
            worker,
            poller,
            listeners: Vec::new(),
            sessions: Sessions::default(),
            live: Vec::new(),
            waiting: Waiting::default(),
            sender: Sender::default(),
            answers: Vec::new(),
        }
    }

    /// What a client has sent to a listener.
    pub fn take_from_client(&mut self, number: u32, message: Message, bytes: &[u8], now: Millis) {
        let Some(listener) = self.listeners.get_mut(number as usize).and_then(Option::as_mut) else {
            return;
        };
        if let Some(dropped) = message.dropped {
            listener.note_dropped(dropped);
        }
        let Some(client) = message.from else { return };
        let count = message.datagrams();
        if message.is_to_many {
            listener.drop_datagrams(count, DatagramDrop::NotUnicast);
            return;
        }
        let key = SessionKey {
            client,
            local: listener.local(message),
            interface: listener.endpoint.addr.zone().copied(),
        };
        if message.is_cut || message.longest() > listener.longest() {
            listener.drop_datagrams(count, DatagramDrop::TooLong);
            return;
        }
        let datagrams = Datagrams {
            key,
            ecn: message.ecn,
            segment: message.segment,
            bytes,
            is_handed_over: false,
        };
        if let Some(datagrams) = self.within_rate(number, datagrams, now) {
            self.pass(number, datagrams, now);
        }
    }

    /// Those of them that the limits of the client let through: all of them, the first ones, none.
    fn within_rate<'a>(&mut self, number: u32, all: Datagrams<'a>, now: Millis) -> Option<Datagrams<'a>> {
        let listener = self.listeners.get_mut(number as usize)?.as_mut()?;
        let Some(access) = &listener.frontend.access else {
            return Some(all);
        };
        let client = all.key.client.ip();
        let count = all.count();
        let mut allowed = 0;
        while allowed < count {
            if let Err(reason) = access.datagram(client, now) {
                let counters = listener.frontend.live.counters.shard(self.worker);
                counters.refused[reason as usize].add(u64::from(count - allowed));
                break;
            }
            allowed += 1;
        }
        (allowed > 0).then(|| all.split(allowed).0)
    }

    /// Gives datagrams to the sessions that they belong to, or to whoever has them.
    pub fn pass(&mut self, number: u32, all: Datagrams<'_>, now: Millis) {
        let mut left = Some(all);
        let mut failed = 0;
        while let Some(datagrams) = left {
            match self.sessions.request(&datagrams.key, datagrams.count(), now) {
                Some(request) => {
                    let (some, rest) = datagrams.split(request.taken);
                    // the last one of a session that nobody has heard of yet begins another one
                    left = match self.send(request, some) {
                        Err(()) if failed < ATTEMPTS => {
                            failed += 1;
                            left
                        }
                        Ok(()) | Err(()) => rest,
                    };
                }
                None => {
                    if !self.begin(number, datagrams, now) {
                        return;
                    }
                }
            }
        }
    }

    /// Begins a session for datagrams that have none. False if they are done with.
    fn begin(&mut self, number: u32, datagrams: Datagrams<'_>, now: Millis) -> bool {
        let count = datagrams.count() as usize;
        let number = self.that_begins(number, &datagrams.key);
        let Some(listener) = self.listeners.get_mut(number as usize).and_then(Option::as_mut) else {
            return false;
        };
        if let Some(owner) = self.shared.owners.of(&datagrams.key) {
            hand_over(&self.shared, listener, owner, datagrams);
            return false;
        }
        let opening = Opening {
            key: datagrams.key,
            listener,
            number,
            shared: &self.shared,
            worker: self.worker,
            now,
        };
        match opening.begin() {
            Ok(live) => {
                listener.sessions += 1;
                self.enter(datagrams.key, live, now)
            }
            Err(NotBegun::Dropped(why)) => {
                listener.drop_datagrams(count, why);
                false
            }
            Err(NotBegun::Refused(reason)) => {
                let counters = listener.frontend.live.counters.shard(self.worker);
                counters.refused[reason as usize].add(1);
                listener.log(
                    format_args!(
                        "refuses sessions, now one from {} ({reason})",
                        datagrams.key.client.ip()
                    ),
                    reason.label(),
                );
                false
            }
            Err(NotBegun::Owned(owner)) => {
                hand_over(&self.shared, listener, owner, datagrams);
                false
            }
            Err(NotBegun::NoSocketYet) => {
                // too many wait already
                if !self.waiting.push(number, datagrams) {
                    listener.drop_datagrams(count, DatagramDrop::NoSourceSocket);
                }
                false
            }
            Err(NotBegun::Ended) => false,
        }
    }

    /// The listener at which a session begins whose first datagram has come to this one. A removed address keeps its socket
    /// for the answers of its last sessions, and the kernel prefers that to one of every address, which new ones belong to.
    fn that_begins(&self, number: u32, key: &SessionKey) -> u32 {
        let listener = self.listeners.get(number as usize).and_then(Option::as_ref);
        let is_deaf = listener.is_some_and(|listener| listener.is_deaf);
        let other = is_deaf.then(|| self.listener_of(key)).flatten();
        other.unwrap_or(number)
    }

    /// The listener that an address is served by: one that is not deaf before one that is, one of the interface before one of
    /// all, one of the address before one of every address.
    fn listener_of(&self, key: &SessionKey) -> Option<u32> {
        let all = self.listeners.iter().zip(0_u32..);
        let fitting = all.filter_map(|(listener, number)| {
            let listener = listener.as_ref().filter(|listener| listener.has(key))?;
            let is_of_all = listener.endpoint.addr.zone().is_none();
            Some(((!listener.is_deaf, !is_of_all, !listener.is_wildcard()), number))
        });
        fitting.max_by_key(|(rank, _)| *rank).map(|(_, number)| number)
    }

    /// Enters a session that has begun; false if the poller does not take it.
    fn enter(&mut self, key: SessionKey, live: Live, now: Millis) -> bool {
        let config = &live.frontend.config;
        let millis = |time: Duration| Millis::try_from(time.as_millis()).unwrap_or(Millis::MAX);
        let udp = config.udp.as_ref();
        let limits = SessionLimits {
            idle: millis(config.idle_timeout.unwrap_or_default()),
            lifetime: config.max_lifetime.map(millis),
            max_requests: udp.and_then(|udp| udp.max_requests),
            max_responses: udp.and_then(|udp| udp.max_responses),
        };
        let id = self.sessions.open(key, limits, now);
        let added = self.poller.add(live.socket.as_fd(), id.to_number());
        if self.live.len() <= id.index() {
            self.live.resize_with(id.index() + 1, || None);
        }
        if let Some(place) = self.live.get_mut(id.index()) {
            *place = Some(live);
        }
        if added.is_err() {
            self.end(id, TerminationReason::Resource);
        }
        added.is_ok()
    }

    /// Sends to the server. An error: the server cannot be reached, the session has ended, and nothing was sent.
    fn send(&mut self, request: Request, datagrams: Datagrams<'_>) -> Result<(), ()> {
        let id = request.session;
        if request.is_last {
            self.shared.owners.release(&datagrams.key);
        }
        let Some(live) = self.live.get_mut(id.index()).and_then(Option::as_mut) else {
            return Ok(());
        };
        let Ok(done) = live.forward(&mut self.sender, datagrams) else {
            self.unreachable(id);
            return Err(());
        };
        live.count_in(self.worker, done.sent, done.bytes);
        let number = live.listener as usize;
        if let Some(listener) = self.listeners.get_mut(number).and_then(Option::as_mut) {
            for (count, why) in [
                (done.too_long, DatagramDrop::TooLong),
                (done.failed, DatagramDrop::SendFailed),
            ] {
                if count > 0 {
                    listener.drop_datagrams(count, why);
                }
            }
        }
        Ok(())
    }

    /// Receives what a server has answered, as far as there is room; true if there may be more.
    pub fn take_from_server(
        &mut self,
        id: SessionId,
        receiver: &mut Receiver,
        limit: usize,
        now: Millis,
    ) -> bool {
        let Some(key) = self.sessions.key(id) else {
            return false;
        };
        let Some(live) = self.live.get_mut(id.index()).and_then(Option::as_mut) else {
            return false;
        };
        let first = receiver.len();
        let limit = limit.min(receiver.room());
        let received = match receiver.receive(live.socket.as_fd(), limit) {
            Ok(received) => received,
            Err(error) if is_servers_fault(&error) => {
                self.unreachable(id);
                return false;
            }
            // a way that takes less at a time (ICMPv6): what waits behind it can be had now
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => return true,
            // memory is short: it is told of again with the next datagram
            Err(_) => return false,
        };
        let number = live.listener;
        let longest = live
            .frontend
            .config
            .udp
            .map_or(usize::MAX, |udp| udp.buffer_size as usize);
        for index in first..first + received {
            let Some(message) = receiver.message(index) else {
                continue;
            };
            if let Some(dropped) = message.dropped {
                live.note_dropped(self.worker, dropped);
            }
            let count = message.datagrams();
            if message.is_cut || message.longest() > longest {
                live.frontend.live.counters.shard(self.worker).lost[DatagramDrop::TooLong as usize]
                    .add(count as u64);
                continue;
            }
            let response = self
                .sessions
                .response(id, u32::try_from(count).unwrap_or(u32::MAX), now);
            let Some(response) = response else { break };
            let taken = response.taken as usize;
            let length = match message.segment {
                Some(size) => message.len.min(taken * usize::from(size)),
                None => message.len,
            };
            live.count_out(self.worker, taken, length);
            self.answers.push(Answer {
                listener: number,
                key,
                index,
                length,
                ecn: message.ecn,
                segment: message.segment.filter(|size| length > usize::from(*size)),
            });
            if response.is_last {
                // the listener may be closed with its last session, and its answer leaves by it
                let listener = self.listeners.get(number as usize).and_then(Option::as_ref);
                if listener.is_some_and(|listener| listener.is_deaf) {
                    self.flush(receiver);
                }
                self.end(id, TerminationReason::Answered);
                return false;
            }
        }
        received == limit
    }

    /// Sends the answers that wait, and makes room for others.
    pub fn flush(&mut self, receiver: &mut Receiver) {
        let mut answers = std::mem::take(&mut self.answers);
        // those of one listener in a row, else as they came
        answers.sort_by_key(|answer| answer.listener);
        for of_one in answers.chunk_by(|a, b| a.listener == b.listener) {
            let number = of_one.first().map_or(0, |answer| answer.listener);
            let Some(listener) = self.listeners.get_mut(number as usize).and_then(Option::as_mut) else {
                continue;
            };
            let outgoing: Vec<_> = (of_one.iter())
                .map(|answer| Outgoing {
                    to: Some(answer.key.client),
                    from: listener.is_wildcard().then_some(answer.key.local),
                    is_ipv4: answer.key.client.is_ipv4(),
                    ecn: answer.ecn,
                    dscp: listener.dscp(),
                    segment: answer.segment,
                    before: &[],
                    bytes: receiver
                        .bytes(answer.index)
                        .get(..answer.length)
                        .unwrap_or_default(),
                })
                .collect();
            let mut lost = 0;
            let (socket, is_ipv6) = (listener.socket.as_fd(), listener.is_ipv6());
            self.sender
                .send(socket, is_ipv6, &outgoing, |_, count, _| lost += count);
            if lost > 0 {
                listener.drop_datagrams(lost, DatagramDrop::SendFailed);
            }
        }
        answers.clear();
        self.answers = answers;
        receiver.clear();
    }

    /// Takes what another worker has handed over.
    pub fn handed_over(&mut self, what: &HandedOver, now: Millis) {
        // a worker that has none of the address has no session there either
        let Some(number) = self.listener_of(&what.key) else {
            return;
        };
        let datagrams = Datagrams {
            key: what.key,
            ecn: what.ecn,
            segment: what.segment,
            bytes: &what.bytes,
            is_handed_over: true,
        };
        self.pass(number, datagrams, now);
    }

    /// Ends a session.
    pub fn end(&mut self, id: SessionId, reason: TerminationReason) {
        let Some(ended) = self.sessions.end(id) else {
            return;
        };
        if ended.had_key {
            self.shared.owners.release(&ended.key);
        }
        let Some(live) = self.live.get_mut(id.index()).and_then(Option::take) else {
            return;
        };
        if self.sessions.len() == 0 {
            // what a flood has taken goes back
            self.live = Vec::new();
        }
        let number = live.listener as usize;
        if let Some(place) = self.listeners.get_mut(number)
            && let Some(listener) = place
        {
            listener.sessions = listener.sessions.saturating_sub(1);
            if listener.is_deaf && listener.sessions == 0 {
                *place = None;
            }
        }
        live.end(&ended.key, self.worker, reason);
    }

    /// The network, or a rule of this host, says that the server cannot be reached: the client hears nothing, its next datagram begins another session.
    fn unreachable(&mut self, id: SessionId) {
        let Some(live) = self.live.get(id.index()).and_then(Option::as_ref) else {
            return;
        };
        live.note_failure(self.worker);
        let reason = match live.is_answered {
            true => TerminationReason::ServerAbort,
            false => TerminationReason::ServerConnect,
        };
        self.end(id, reason);
    }
}

/// Hands datagrams over to the worker that has their session. What was handed over to us is not sent round: its session has
/// just ended there.
fn hand_over(shared: &WorkerContext, listener: &mut Listener, owner: WorkerId, datagrams: Datagrams<'_>) {
    if datagrams.is_handed_over || !shared.owners.hand_over(owner, datagrams.to_be_kept()) {
        listener.drop_datagrams(datagrams.count() as usize, DatagramDrop::HandOver);
    }
}
