//! The keeper's thread: hears what the maps are to hold, and does by time what has to be done by time.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc::SyncSender},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{attach::Attached, flow_map::BATCH, keeper::Keeper};
use crate::{
    base::XdpAttachMode,
    flow::{Hops, Moment, Services},
};

/// How often the program's counters are read, and what failed is tried again.
const COLLECT: Duration = Duration::from_secs(1);

/// How often some of the flows are looked at.
const STEP: Duration = Duration::from_millis(100);

/// Steps of a scan of maps that are full: it is over after ten seconds.
const STEPS: u32 = 100;

/// Steps from one scan to the next where there are few flows.
const QUICK_STEPS: u32 = 10;

/// What the thread is told.
#[derive(Debug)]
pub struct Desk {
    orders: Mutex<Orders>,
    bell: Condvar,
    /// The number of the last that is in force.
    applied: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Orders {
    services: Arc<Services>,
    hops: Arc<Hops>,
    attached: BTreeMap<u32, Attached>,
    /// Rises with each change of these.
    number: u64,
    /// Whether the maps are to hold them: see [`Desk::begin`].
    has_begun: bool,
    pings: Vec<SyncSender<()>>,
    is_over: bool,
}

impl Desk {
    /// Nothing is to be done yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            orders: Mutex::default(),
            bell: Condvar::new(),
            applied: watch::channel(0).0,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Orders> {
        // nothing is left half changed by a panic
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn order(&self, change: impl FnOnce(&mut Orders)) {
        let mut orders = self.lock();
        change(&mut orders);
        drop(orders);
        self.bell.notify_one();
    }

    /// What has been ordered is what the maps are to hold from now on. Until then nothing is written or ended, so that a program
    /// that has been taken over goes on by what it has been told before, and not by what is half known.
    pub fn begin(&self) {
        self.order(|orders| orders.has_begun = true);
    }

    /// These services and next hops are in effect.
    pub fn apply(&self, services: Arc<Services>, hops: Arc<Hops>) {
        self.order(|orders| {
            orders.services = services;
            orders.hops = hops;
            orders.number += 1;
        });
    }

    /// The program is attached to an interface, or not any more.
    pub fn attach(&self, ifindex: u32, attached: Option<Attached>) {
        self.order(|orders| {
            match attached {
                Some(attached) => orders.attached.insert(ifindex, attached),
                None => orders.attached.remove(&ifindex),
            };
            orders.number += 1;
        });
    }

    /// Where the program is attached, by the interface's index.
    #[must_use]
    pub fn attached(&self) -> BTreeMap<u32, Attached> {
        self.lock().attached.clone()
    }

    /// Has the thread answer, if it lives.
    pub fn ping(&self, answer: SyncSender<()>) {
        self.order(|orders| orders.pings.push(answer));
    }

    /// Ends the thread.
    pub fn stop(&self) {
        self.order(|orders| orders.is_over = true);
    }

    /// Resolves when the maps hold all that has been ordered so far.
    pub fn applied(&self) -> impl Future<Output = ()> + Send + use<> {
        let number = self.lock().number;
        let mut applied = self.applied.subscribe();
        async move {
            // an error is that the thread has ended, which the watchdog sees
            let _ = applied.wait_for(|applied| *applied >= number).await;
        }
    }
}

impl Default for Desk {
    fn default() -> Self {
        Self::new()
    }
}

/// What the thread knows.
struct Shift {
    desk: Arc<Desk>,
    keeper: Keeper,
    /// When moments begin.
    start: Instant,
    /// Batches of flows in each step.
    batches: usize,
    /// The number of what the maps hold.
    applied: u64,
    collect: Instant,
    step: Instant,
    /// When the last scan began.
    last_scan: Instant,
    is_scanning: bool,
    /// The last error, which is said once.
    last_error: Option<String>,
}

/// What the maps hold when the thread starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inherited {
    /// Nothing that is of use.
    Nothing,
    /// What an engine before this one has written, by which the program may decide.
    Everything,
}

/// Starts the thread. `flows`: entries that the maps of flows have room for.
///
/// # Errors
/// No thread is left.
pub fn start(
    desk: Arc<Desk>,
    keeper: Keeper,
    inherited: Inherited,
    start: Instant,
    flows: u32,
) -> io::Result<JoinHandle<()>> {
    let batches = flows.div_ceil(BATCH).div_ceil(STEPS).max(1);
    let now = Instant::now();
    let shift = Shift {
        desk,
        keeper,
        start,
        batches: usize::try_from(batches).unwrap_or(usize::MAX),
        applied: 0,
        collect: now,
        step: now,
        last_scan: now,
        is_scanning: false,
        last_error: None,
    };
    thread::Builder::new()
        .name("convey-xdp".to_owned())
        .spawn(move || shift.run(inherited))
}

impl Shift {
    fn run(mut self, inherited: Inherited) {
        let desk = Arc::clone(&self.desk);
        self.prepare(inherited);
        loop {
            let orders = self.wait(&desk);
            if orders.is_over {
                return;
            }
            let (services, hops) = (Arc::clone(&orders.services), Arc::clone(&orders.hops));
            let attached = (orders.attached.iter())
                .filter(|(_, at)| at.mode != XdpAttachMode::None)
                .map(|(ifindex, at)| (*ifindex, at.mode == XdpAttachMode::Native))
                .collect();
            let number = orders.number;
            drop(orders);
            self.work(number, (&services, &hops), &attached);
        }
    }

    /// Takes over what the maps hold, or clears them.
    fn prepare(&mut self, inherited: Inherited) {
        if inherited == Inherited::Everything {
            match self.keeper.adopt() {
                Ok(adopted) => {
                    tracing::info!(
                        event = "xdp_taken_over",
                        "the program in the kernel and its flows are taken over from the previous process: {adopted}"
                    );
                    return;
                }
                Err(error) => tracing::error!(
                    event = "xdp_not_taken_over",
                    "cannot take over what the program in the kernel was told by the previous process: {error}; its flows end"
                ),
            }
        }
        let cleared = self.keeper.clear();
        self.judge("clear the program's maps", cleared);
    }

    /// Waits until there is something to do, and answers whoever asks.
    fn wait<'a>(&self, desk: &'a Desk) -> MutexGuard<'a, Orders> {
        let mut orders = desk.lock();
        loop {
            for ping in orders.pings.drain(..) {
                // who asked may have stopped waiting
                let _ = ping.try_send(());
            }
            if orders.is_over {
                return orders;
            }
            if !orders.has_begun {
                orders = desk.bell.wait(orders).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let now = Instant::now();
            let due = self.collect.min(self.step);
            let is_new = orders.number != self.applied && self.last_error.is_none();
            if is_new || now >= due {
                return orders;
            }
            let waited = desk.bell.wait_timeout(orders, due - now);
            orders = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn work(&mut self, number: u64, (services, hops): (&Services, &Hops), attached: &BTreeMap<u32, bool>) {
        let now = Instant::now();
        let is_new = number != self.applied && self.last_error.is_none();
        let is_collecting = now >= self.collect;
        if is_new || (is_collecting && (number != self.applied || self.keeper.is_outdated())) {
            let applied = self.keeper.apply(services, hops, attached);
            if self.judge("write the program's maps", applied) {
                self.applied = number;
                self.desk.applied.send_replace(number);
            }
        }
        if is_collecting {
            self.collect = now + COLLECT;
            let collected = self.keeper.collect();
            self.judge("read the program's counters", collected);
        }
        if now >= self.step {
            self.step = now + STEP;
            self.scan(now);
        }
    }

    fn scan(&mut self, now: Instant) {
        if !self.is_scanning {
            // asked each time: the first flow after a quiet time is not to wait for long
            let steps = if self.keeper.is_quick() {
                QUICK_STEPS
            } else {
                STEPS
            };
            if now < self.last_scan + STEP * steps {
                return;
            }
            self.is_scanning = true;
            self.last_scan = now;
        }
        let moment = Moment(u64::try_from((now - self.start).as_millis()).unwrap_or(u64::MAX));
        let scanned = self.keeper.scan_some(moment, self.batches);
        if matches!(scanned, Ok(false)) {
            return;
        }
        self.is_scanning = false;
        self.judge("look through the program's flows", scanned.map(drop));
    }

    /// Whether it went well. What went wrong is said once, and tried again.
    fn judge(&mut self, what: &str, done: io::Result<()>) -> bool {
        let error = done.err().map(|error| format!("cannot {what}: {error}"));
        let is_well = error.is_none();
        if let Some(text) = error
            .as_ref()
            .filter(|text| self.last_error.as_ref() != Some(text))
        {
            tracing::error!(event = "xdp_map_error", "{text}; trying again in {COLLECT:?}");
        }
        self.last_error = error;
        is_well
    }
}
