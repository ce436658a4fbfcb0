//! The maps and programs that the engine has been handed, each by its name.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use nix::time::{ClockId, clock_gettime};

use super::layout::{HANDED, Order, OrderResult, sum_of_numbers};
use crate::{
    flow::Moment,
    sys::bpf::{self, Map, MappedCounters, TestRun},
};

/// What the broker hands over: all maps but those of the services, and the programs.
#[derive(Debug)]
pub struct Maps {
    /// Targets by number.
    pub targets: Map,
    /// Maglev tables by endpoint.
    pub tables: Map,
    /// DSR flows.
    pub flows: Map,
    /// Packets by what became of them.
    pub reasons: Map,
    /// Packets of ours that were left to the slow path, by why.
    pub passes: Map,
    /// What each target has had.
    pub traffic: Map,
    /// Addresses of this host, and VIPs.
    pub addresses: Map,
    /// Interfaces that the program is attached to.
    pub interfaces: Map,
    /// Interfaces that packets may be redirected to.
    pub ports: Map,
    /// What the program is told besides.
    pub settings: Map,
    /// Passthrough flows by their clients' packets.
    pub forwards: Map,
    /// The same by their servers' packets: who has which NAT port.
    pub reverses: Map,
    /// NAT ports that are claimed, by server, and passthrough flows.
    pub claims: MappedCounters,
    /// What clients hold of the servers' NAT ports.
    pub shares: Map,
    /// How flows begin towards targets of mode passthrough.
    pub sources: Map,
    /// Where replies go instead of where their clients' packets come from.
    pub moved: Map,
    /// What each CPU draws random numbers from.
    pub seeds: Map,
    /// The program of the receive path.
    pub convey: OwnedFd,
    /// The program that takes in what the slow path has seen of a DSR flow.
    pub touch: OwnedFd,
    /// The program that changes passthrough flows for the slow path.
    pub order: OwnedFd,
}

impl Maps {
    /// Those of these descriptors, in the order of [`HANDED`].
    ///
    /// # Errors
    /// There are others than that, or one is no map.
    pub fn from_fds(fds: Vec<OwnedFd>) -> io::Result<Self> {
        if fds.len() != HANDED.len() {
            let text = format!("{} descriptors for {} maps and programs", fds.len(), HANDED.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let mut fds = HANDED.into_iter().zip(fds);
        let mut next = |name: &str| match fds.next() {
            Some((handed, fd)) if handed == name => Ok(fd),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("no {name} is handed over"),
            )),
        };
        Ok(Self {
            targets: Map::new(next("targets")?)?,
            tables: Map::new(next("tables")?)?,
            flows: Map::new(next("flows")?)?,
            reasons: Map::new(next("reasons")?)?,
            passes: Map::new(next("passes")?)?,
            traffic: Map::new(next("traffic")?)?,
            addresses: Map::new(next("addresses")?)?,
            interfaces: Map::new(next("interfaces")?)?,
            ports: Map::new(next("ports")?)?,
            settings: Map::new(next("settings")?)?,
            forwards: Map::new(next("forwards")?)?,
            reverses: Map::new(next("reverses")?)?,
            claims: MappedCounters::new(&Map::new(next("claims")?)?)?,
            shares: Map::new(next("shares")?)?,
            sources: Map::new(next("sources")?)?,
            moved: Map::new(next("moved")?)?,
            seeds: Map::new(next("seeds")?)?,
            convey: next("convey")?,
            touch: next("touch")?,
            order: next("order")?,
        })
    }

    /// Has the program take in a frame that the slow path has handled. Whether it is of a flow.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn touch(&self, frame: &[u8]) -> io::Result<bool> {
        let TestRun { retval, .. } = bpf::test_run(self.touch.as_fd(), frame, None, &mut Vec::new())?;
        Ok(retval == XDP_PASS)
    }

    /// Has the program change a passthrough flow.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn order(&self, order: &Order) -> io::Result<OrderResult> {
        let mut left = Vec::new();
        bpf::test_run(self.order.as_fd(), &order.to_bytes(), None, &mut left)?;
        Ok(OrderResult::from_bytes(&left))
    }
}

/// `XDP_PASS` of include/uapi/linux/bpf.h.
const XDP_PASS: u32 = 2;

/// The engine's moments on the clock of the program.
#[derive(Debug)]
pub struct Clock {
    /// Nanoseconds of CLOCK_MONOTONIC at moment 0. Arithmetic wraps: a moment may be before the machine's start.
    start: AtomicU64,
}

impl Clock {
    /// The clock of an engine that has started then.
    ///
    /// # Errors
    /// The kernel has no such clock.
    pub fn of(start: Instant) -> io::Result<Self> {
        let since = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Ok(Self {
            start: AtomicU64::new(monotonic()?.wrapping_sub(since)),
        })
    }

    /// The moment that it is.
    ///
    /// # Errors
    /// The kernel has no such clock.
    pub fn now(&self) -> io::Result<Moment> {
        Ok(self.moment(monotonic()?))
    }

    /// Has it be so much later, as if moment 0 had been so much earlier. What the program has noted is as much later, too.
    pub fn put_forward(&self, time: Duration) {
        let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.start.fetch_sub(time, Ordering::Relaxed);
    }

    /// The program's time at a moment.
    #[must_use]
    pub fn nanoseconds(&self, moment: Moment) -> u64 {
        let since = moment.0.saturating_mul(1_000_000);
        self.start.load(Ordering::Relaxed).wrapping_add(since)
    }

    /// The moment at a time of the program; moment 0 of what was before.
    #[must_use]
    pub fn moment(&self, nanoseconds: u64) -> Moment {
        let since = nanoseconds.wrapping_sub(self.start.load(Ordering::Relaxed)) as i64;
        Moment(u64::try_from(since).unwrap_or(0) / 1_000_000)
    }
}

/// CLOCK_MONOTONIC in nanoseconds.
fn monotonic() -> io::Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    let seconds = u64::try_from(now.tv_sec()).unwrap_or(0);
    Ok(seconds * 1_000_000_000 + u64::try_from(now.tv_nsec()).unwrap_or(0))
}

/// What is under a number in a map of one number for each CPU.
///
/// # Errors
/// The kernel refused.
pub fn count(map: &Map, index: u32) -> io::Result<u64> {
    let mut values = vec![0; map.value_bytes()];
    map.lookup(&index.to_ne_bytes(), &mut values)?;
    Ok(sum_of_numbers(&values))
}
