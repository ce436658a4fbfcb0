//! A worker thread: receives, lets the path decide, sends.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc,
        mpsc::{Receiver as Inbox, Sender as Outbox, SyncSender, channel, sync_channel},
    },
    thread::{self, JoinHandle},
};

use nix::{
    errno::Errno,
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    sys::{
        epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
        eventfd::{EfdFlags, EventFd},
    },
    unistd::Pid,
};

use super::{
    super::EngineEvent,
    shared::{EngineState, Versions},
};
use crate::{
    base::PacketReason,
    flow::{Answer, FlowInfo, FlowStore, Moment, PacketCounters, Path, ReasonCounters, Verdict},
    packet::Offload,
    sys::packet_socket::{self, Outgoing, Receiver, Sender},
};

/// Frames received and sent by one system call, at most.
const BATCH: usize = 64;

/// Fewest frames that a batch is limited to.
const SMALLEST_BATCH: usize = 4;

/// Bytes that a batch should not exceed: super-frames that have left the CPU's cache before they are sent cost half as
/// much again (12 µs against 8 a frame of 65,000 bytes to receive, 64 or 4–8 at a time, 512 KiB of cache).
const BATCH_BYTES: usize = 256 << 10;

/// Batches taken from one socket before the others have their turn.
const FAIR_SHARE: usize = 4;

/// Batches served of a socket that is to be closed: more than its kernel memory holds, yet an end if more keeps coming.
const LAST_BATCHES: usize = 256;

/// Milliseconds between two rounds of what is done by time: expiry, and looking after interfaces.
const TICK: u16 = 100;

/// Rounds between two readings of what the kernel has dropped.
const DROPS_EVERY: u32 = 10;

/// What stands for the inbox among the interfaces in epoll; no interface has this index.
const INBOX: u64 = 0;

/// What a worker is told.
pub enum WorkerOrder {
    /// Serve an interface by this socket.
    Serve(u32, OwnedFd),
    /// Serve what the interface's socket has queued, then close it.
    Retire(u32),
    /// Forget these flows and tell how many there were.
    Forget(Vec<FlowInfo>, SyncSender<u64>),
    /// Show that the loop turns.
    Ping(SyncSender<()>),
    /// End the thread.
    Stop,
}

/// The engine's end of a worker.
pub struct Handle {
    /// What the worker has counted.
    pub counters: Arc<ReasonCounters>,
    /// Few are sent: by the control loop, and by who closes flows, which waits for each answer.
    orders: Outbox<WorkerOrder>,
    bell: Arc<EventFd>,
}

impl Handle {
    /// Gives an order; a thread that has ended takes none.
    pub fn order(&self, order: WorkerOrder) {
        if self.orders.send(order).is_ok() {
            self.wake();
        }
    }

    /// Makes the worker look around.
    pub fn wake(&self) {
        // it fails only when the counter is about to overflow, and then the worker is awake
        let _ = self.bell.write(1);
    }
}

/// Starts a worker; `prepare` runs first on its thread.
///
/// # Errors
/// No descriptor or thread is left, or `prepare` failed.
pub fn start<S: FlowStore>(
    index: usize,
    path: Path<S>,
    shared: Arc<EngineState<S>>,
    prepare: fn() -> io::Result<()>,
) -> io::Result<(Handle, JoinHandle<()>)> {
    let bell = Arc::new(EventFd::from_flags(
        EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK,
    )?);
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(&bell, EpollEvent::new(EpollFlags::EPOLLIN, INBOX))?;
    let (orders, inbox) = channel();
    let counters = path.counters();
    let handle = Handle {
        counters,
        orders,
        bell: Arc::clone(&bell),
    };
    let (ready, started) = sync_channel(1);
    let thread = thread::Builder::new()
        .name(format!("convey-packet-{index}"))
        .spawn(move || {
            pin(index);
            let prepared = prepare();
            let is_prepared = prepared.is_ok();
            let _ = ready.send(prepared);
            if is_prepared {
                Worker::new(path, shared, inbox, bell, epoll).run();
            }
        })?;
    match started.recv() {
        Ok(Ok(())) => Ok((handle, thread)),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(io::Error::other("a packet thread ended during startup")),
    }
}

/// Keeps the thread on one of the CPUs that it may use, so that caches and counters stay where they are. Where the
/// kernel refuses, it works without.
fn pin(index: usize) {
    let pinned = sched_getaffinity(Pid::from_raw(0)).and_then(|permitted| {
        let cpus: Vec<_> = (0..CpuSet::count())
            .filter(|cpu| permitted.is_set(*cpu) == Ok(true))
            .collect();
        let mut own = CpuSet::new();
        if let Some(cpu) = index.checked_rem(cpus.len()).and_then(|place| cpus.get(place)) {
            own.set(*cpu)?;
            sched_setaffinity(Pid::from_raw(0), &own)?;
        }
        Ok(())
    });
    if let Err(error) = pinned {
        tracing::debug!("cannot pin packet thread {index} to a CPU: {error}");
    }
}

/// A frame of the batch that is to be sent.
struct Departure {
    /// Which of the batch.
    index: usize,
    /// Where it now lies in its buffer.
    start: usize,
    len: usize,
    offload: Offload,
    ifindex: u32,
}

struct Worker<S> {
    path: Path<S>,
    shared: Arc<EngineState<S>>,
    counters: Arc<ReasonCounters>,
    inbox: Inbox<WorkerOrder>,
    bell: Arc<EventFd>,
    epoll: Epoll,
    /// The socket of each interface.
    sockets: HashMap<u32, OwnedFd>,
    receiver: Receiver,
    sender: Sender,
    plans: Vec<Departure>,
    /// Frames that the next batch may have, adapted to their size.
    batch: usize,
    /// [`EngineState::versions`] that the path has.
    versions: Versions<u64>,
    next_tick: Moment,
    ticks: u32,
    /// Interfaces whose loss could not be told yet; no more than there were.
    untold: Vec<u32>,
    /// The return hops that have been told of.
    told_returns: u64,
}

impl<S: FlowStore> Worker<S> {
    fn new(
        path: Path<S>,
        shared: Arc<EngineState<S>>,
        inbox: Inbox<WorkerOrder>,
        bell: Arc<EventFd>,
        epoll: Epoll,
    ) -> Self {
        Self {
            counters: path.counters(),
            path,
            shared,
            inbox,
            bell,
            epoll,
            sockets: HashMap::new(),
            receiver: Receiver::new(BATCH),
            sender: Sender::new(BATCH),
            plans: Vec::with_capacity(BATCH),
            batch: BATCH,
            versions: Versions::default(),
            next_tick: Moment::default(),
            ticks: 0,
            untold: Vec::new(),
            told_returns: 0,
        }
    }

    fn run(mut self) {
        let mut events = [EpollEvent::empty(); 16];
        loop {
            let ready = match self.epoll.wait(&mut events, EpollTimeout::from(TICK)) {
                Ok(ready) => ready,
                Err(Errno::EINTR) => 0,
                Err(error) => {
                    // the watchdog misses this thread
                    tracing::error!(
                        event = "packet_thread_error",
                        "a packet thread cannot wait for packets: {error}"
                    );
                    return;
                }
            };
            self.catch_up();
            let now = self.shared.now();
            for event in events.iter().take(ready) {
                match u32::try_from(event.data()) {
                    Ok(ifindex) if event.data() != INBOX => self.serve(ifindex, FAIR_SHARE, now),
                    _ => {
                        if self.handle_orders(now).is_break() {
                            return;
                        }
                    }
                }
            }
            if now >= self.next_tick {
                self.next_tick = Moment(now.0 + u64::from(TICK));
                self.tick(now);
            }
        }
    }

    /// Takes newer services and next hops, if there are any.
    fn catch_up(&mut self) {
        let now = self.shared.versions();
        let had = std::mem::replace(&mut self.versions, now);
        if now.services != had.services {
            self.path.set_services(self.shared.services.load_full());
        }
        if now.hops != had.hops {
            self.path.set_hops(self.shared.hops.load_full());
        }
    }

    fn handle_orders(&mut self, now: Moment) -> std::ops::ControlFlow<()> {
        // it only says that there is something to read
        let _ = self.bell.read();
        while let Ok(order) = self.inbox.try_recv() {
            match order {
                WorkerOrder::Serve(ifindex, socket) => self.add(ifindex, socket),
                WorkerOrder::Retire(ifindex) => {
                    self.serve(ifindex, LAST_BATCHES, now);
                    self.close(ifindex);
                }
                WorkerOrder::Forget(flows, answer) => {
                    // who asked may have stopped waiting
                    let _ = answer.try_send(self.path.forget(&flows, now));
                }
                WorkerOrder::Ping(answer) => {
                    let _ = answer.try_send(());
                }
                WorkerOrder::Stop => return std::ops::ControlFlow::Break(()),
            }
        }
        std::ops::ControlFlow::Continue(())
    }

    fn add(&mut self, ifindex: u32, socket: OwnedFd) {
        self.close(ifindex);
        let interest = EpollEvent::new(EpollFlags::EPOLLIN, u64::from(ifindex));
        match self.epoll.add(&socket, interest) {
            Ok(()) => {
                self.sockets.insert(ifindex, socket);
            }
            Err(error) => tracing::error!(
                event = "packet_socket_error",
                "cannot use interface {ifindex}: {error}"
            ),
        }
    }

    fn close(&mut self, ifindex: u32) {
        if let Some(socket) = self.sockets.remove(&ifindex) {
            self.count_drops(&socket);
            // closing would not take it out: the broker has a duplicate
            let _ = self.epoll.delete(&socket);
        }
    }

    /// Serves what waits in an interface's socket, so many batches at most.
    fn serve(&mut self, ifindex: u32, batches: usize, now: Moment) {
        for _ in 0..batches {
            let Some(socket) = self.sockets.get(&ifindex) else {
                return;
            };
            let limit = self.batch;
            match self.receiver.receive(socket.as_fd(), limit) {
                Ok(count) => {
                    // after they were received: what was sent once newer services were in force is decided by them
                    self.catch_up();
                    self.process(ifindex, count, now);
                    self.send(ifindex);
                    self.adapt();
                    if count < limit {
                        return;
                    }
                }
                // noted at the socket; the next call receives again
                Err(error) if error.raw_os_error() == Some(Errno::ENETDOWN as i32) => {}
                // a super-frame that the kernel cannot describe to us
                Err(_) => self.counters.add(PacketReason::ReceiveDropped, 1),
            }
        }
    }

    /// Makes the next batch smaller if this one was large in bytes, and larger if small.
    fn adapt(&mut self) {
        let bytes = self.receiver.received_bytes();
        if bytes > BATCH_BYTES {
            self.batch = (self.batch / 2).max(SMALLEST_BATCH);
        } else if bytes < BATCH_BYTES / 4 {
            self.batch = (self.batch * 2).min(BATCH);
        }
    }

    fn process(&mut self, ifindex: u32, count: usize, now: Moment) {
        self.plans.clear();
        for index in 0..count {
            let mut frame = match self.receiver.frame(index) {
                Ok(frame) => frame,
                Err(reason) => {
                    self.counters.add(reason, 1);
                    continue;
                }
            };
            match self.path.process(&mut frame, ifindex, now) {
                Verdict::Send { ifindex, .. } => self.plans.push(Departure {
                    index,
                    start: frame.start(),
                    len: frame.len(),
                    offload: frame.offload,
                    ifindex,
                }),
                // the path has counted what it was
                Verdict::Done(_) | Verdict::Kept => {}
            }
        }
    }

    /// Sends what has been processed, and answers to it. `ifindex` is the interface that it came in by.
    fn send(&mut self, ifindex: u32) {
        self.plans.sort_by_key(|plan| plan.ifindex);
        for plans in self.plans.chunk_by(|a, b| a.ifindex == b.ifindex) {
            let frames = plans.iter().map(|plan| Outgoing {
                ifindex: plan.ifindex,
                frame: self.receiver.bytes(plan.index, plan.start, plan.len),
                offload: plan.offload,
            });
            let egress = plans.first().map_or(ifindex, |plan| plan.ifindex);
            if let Some(socket) = socket_for(&self.sockets, egress, ifindex) {
                let refused = |_, _| self.counters.add(PacketReason::SendFailed, 1);
                self.sender.send(socket.as_fd(), frames, refused);
            }
        }
        self.send_answers(ifindex);
    }

    fn send_answers(&mut self, ifindex: u32) {
        let mut answers: Vec<Answer> = self.path.answers().collect();
        // fragments of one datagram stay in their order
        answers.sort_by_key(|answer| answer.ifindex);
        for answers in answers.chunk_by(|a, b| a.ifindex == b.ifindex) {
            let frames = answers.iter().map(|answer| Outgoing {
                ifindex: answer.ifindex,
                frame: &answer.frame,
                offload: Offload::default(),
            });
            let egress = answers.first().map_or(ifindex, |answer| answer.ifindex);
            if let Some(socket) = socket_for(&self.sockets, egress, ifindex) {
                let refused = |_, _| self.counters.add(PacketReason::SendFailed, 1);
                self.sender.send(socket.as_fd(), frames, refused);
            }
        }
    }

    /// What is done by time.
    fn tick(&mut self, now: Moment) {
        self.path.expire(now);
        if let Some(any) = self.sockets.keys().next().copied() {
            self.send_answers(any);
        }
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks.is_multiple_of(DROPS_EVERY) {
            self.tell_of_returns();
            for socket in self.sockets.values() {
                self.count_drops(socket);
            }
        }
        self.look_after_interfaces();
    }

    /// Has new return hops looked up. Each worker tells, for none knows whether another one lives; the second time costs
    /// nothing.
    fn tell_of_returns(&mut self) {
        let version = self.shared.flows.returns_version();
        if version != self.told_returns && self.shared.tell(EngineEvent::ReturnHops) {
            self.told_returns = version;
        }
    }

    fn count_drops(&self, socket: &OwnedFd) {
        if let Ok(drops) = packet_socket::take_drops(socket.as_fd()) {
            self.counters.add(PacketReason::ReceiveDropped, u64::from(drops));
        }
    }

    /// Gives up interfaces that have vanished: the kernel tells only of the going down that precedes it. One that comes
    /// up again is received from again by itself.
    fn look_after_interfaces(&mut self) {
        let is_lost =
            |socket: &OwnedFd| matches!(packet_socket::bound_interface(socket.as_fd()), Ok(None) | Err(_));
        let lost: Vec<_> = (self.sockets.iter())
            .filter(|(_, socket)| is_lost(socket))
            .map(|(ifindex, _)| *ifindex)
            .collect();
        for ifindex in lost {
            self.close(ifindex);
            if self.shared.forget_interface(ifindex) {
                self.untold.push(ifindex);
            }
        }
        self.untold
            .retain(|ifindex| !self.shared.tell(EngineEvent::InterfaceLost(*ifindex)));
    }
}

/// The socket to send by: any would do, but the one of the interface itself does not make the kernel show the frame to
/// that interface's sockets.
fn socket_for(sockets: &HashMap<u32, OwnedFd>, egress: u32, ingress: u32) -> Option<&OwnedFd> {
    sockets.get(&egress).or_else(|| sockets.get(&ingress))
}
