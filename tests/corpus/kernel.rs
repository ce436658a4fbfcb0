//! The kernel program and its slow path, as the xdp engine runs them: each frame is given to the program in a test run, and what
//! that passes goes on to the path over the program's flows.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    io,
    num::NonZeroU32,
    os::fd::AsFd as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use convey::{
    base::{Mac, PacketReason, WorkerId},
    config::PacketService,
    engine::xdp::{
        Clock, FlowMap, Keeper, Maps, Registry, XdpStore, count,
        layout::{
            CLAIMS_FLOWS, CLAIMS_GAVE_WAY, CLAIMS_HALF_OPEN, FlowKey, FlowValue, ForwardValue, PassReason,
            ReverseValue, WatchCode,
        },
        load::{self, LoadLimits, Loaded},
        object,
        services::ServiceMaps,
    },
    flow::{
        FlowInfo, Flows, Hops, Moment, PacketCounters, Path, ReasonCounters, Services, TableLimits, Verdict,
    },
    packet::{Offload, parse},
    snapshot::Snapshot,
    sys::bpf::{self, BatchCursor, Insert, Map, TestContext, kind},
};

use nix::time::{ClockId, clock_gettime};

use crate::engine::{Engine, Outcome, by_path};

/// What the program returns (include/uapi/linux/bpf.h).
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
const XDP_REDIRECT: u32 = 4;

/// Packets of a timed run come at moments a multiple of this apart. No time that anything lasts in a timed world is within
/// 25 ms of one, so that program and path always agree on whether it is over, although the program's clock ticks every 10 ms at
/// worst, and the path looks at its own a little earlier.
pub const GRID: Duration = Duration::from_millis(79);
/// Time that a packet may come late.
const LATE: Duration = Duration::from_millis(10);
/// Time before one is due that is not counted on.
const SPARE: Duration = Duration::from_micros(100);

/// Room in the program's maps of flows: what is evicted first when that of DSR's is full is the kernel's choice, and none of
/// ours.
const FLOWS: NonZeroU32 = NonZeroU32::new(4_096).expect("not 0");

/// Numbers of targets and servers that are used at most: the first ones are given first.
const NUMBERS: u32 = 256;

/// Programs that nobody uses now, with empty maps: the kernel takes long to look through one.
static IDLE: Mutex<Vec<Arc<Mutex<Loaded>>>> = Mutex::new(Vec::new());

/// The program, its maps and its slow path.
pub struct Kernel {
    loaded: Arc<Mutex<Loaded>>,
    map: Arc<FlowMap>,
    flows: Arc<Flows<XdpStore>>,
    keeper: RefCell<Keeper>,
    path: Path<XdpStore>,
    counters: Arc<ReasonCounters>,
    /// Interfaces by their link addresses.
    links: HashMap<Mac, u32>,
    /// What was ever served: flows outlive their frontends.
    served: Vec<PacketService>,
    written: ServiceMaps,
    /// What the path takes for now: time stands still but for what is waited.
    now: Moment,
    /// Somebody says what time it is.
    has_own_time: bool,
    /// When the next packet of a timed run is due.
    due: Option<Instant>,
    /// Time that making flows older took.
    aging: Duration,
    /// Whether one came so late that program and path may disagree on what was over.
    was_late: bool,
}

impl Kernel {
    /// Loads the program. Takes root, in a network namespace with an interface of each index that the cases use.
    pub fn new(max_flows: NonZeroU32) -> Self {
        let idle = lock(&IDLE).pop();
        let loaded = idle.unwrap_or_else(|| {
            let limits = LoadLimits {
                flows: FLOWS,
                nat_flows: FLOWS,
            };
            let loaded = load::load(object::OBJECT, limits);
            Arc::new(Mutex::new(loaded.unwrap_or_else(|error| panic!("{error}"))))
        });
        let fds = lock(&loaded).hand_out().expect("descriptors");
        // moments begin a second ago, as the path's
        let clock = Clock::of(Instant::now()).expect("a clock");
        clock.put_forward(Duration::from_secs(1));
        let map = Arc::new(FlowMap::new(Maps::from_fds(fds).expect("maps"), clock));
        let limits = TableLimits {
            max_flows,
            workers: 1,
            hash_seed: 42,
        };
        let flows = Arc::new(XdpStore::flows(&limits, Arc::clone(&map)));
        let tables = Arc::clone(&loaded);
        let make_tables =
            Box::new(move |count: usize| lock(&tables).make_tables(count.try_into().unwrap_or(u8::MAX)));
        let registry = Registry::new(lock(&loaded).hand_out_registry().expect("descriptors"));
        let path = Path::new(WorkerId(0), 0, Arc::clone(&flows), 7);
        let keeper = Keeper::new(Arc::clone(&flows), make_tables, registry, WorkerId(0));
        let mut kernel = Self {
            // one shard for both: what is counted is compared as a sum
            keeper: RefCell::new(keeper),
            loaded,
            map,
            flows,
            counters: path.counters(),
            path,
            links: HashMap::new(),
            served: Vec::new(),
            written: ServiceMaps::default(),
            now: Moment(1_000),
            has_own_time: false,
            due: None,
            aging: Duration::ZERO,
            was_late: false,
        };
        kernel.reseed(7);
        kernel
    }

    /// Takes expired flows out of the program's map, and counts what it has counted.
    fn scan(&self) {
        let now = match self.has_own_time {
            true => self.now,
            false => self.map.clock.now().expect("a clock"),
        };
        self.keeper.borrow_mut().scan(now).expect("the program's flows");
        // NAT ports of those that it has ended
        self.collect();
    }

    /// Has the path's time be that of the program, which goes on, and gives it.
    pub fn follow_clock(&mut self) -> Moment {
        self.has_own_time = true;
        self.now = self.map.clock.now().expect("a clock");
        self.now
    }

    /// Has what the program has counted counted.
    pub fn collect(&self) {
        let collected = self.keeper.borrow_mut().collect();
        collected.expect("the program's counters");
    }

    /// Time passes.
    pub fn pass(&mut self, time: Duration) {
        self.age(time);
        self.now = self.now.after(time);
    }

    /// Packets that the program has left to the path, by why.
    pub fn passes(&self) -> Vec<(PassReason, u64)> {
        let count = |reason| count(&self.map.maps.passes, reason as u32).expect("a counter");
        PassReason::ALL.map(|reason| (reason, count(reason))).to_vec()
    }

    /// Packets that were sent on, by where: those that the program has sent, and all.
    pub fn sent_by_program(&self) -> Vec<(PacketReason, u64, u64)> {
        let both = [PacketReason::ToServer, PacketReason::ToClient].into_iter();
        both.zip(self.decided())
            .map(|(reason, by_program)| (reason, by_program, self.count(reason)))
            .collect()
    }

    /// Packets that the program has sent to servers and to clients.
    fn decided(&self) -> [u64; 2] {
        [PacketReason::ToServer, PacketReason::ToClient]
            .map(|reason| count(&self.map.maps.reasons, reason as u32).expect("a counter"))
    }

    /// NAT ports are drawn from this on, by program and path.
    pub fn reseed(&mut self, seed: u64) {
        self.path.reseed(seed);
        let seeds = &self.map.maps.seeds;
        let of_all_cpus = seed.to_ne_bytes().repeat(seeds.value_bytes() / 8);
        (seeds.update(&0_u32.to_ne_bytes(), &of_all_cpus, Insert::Any)).expect("the seeds");
    }

    /// Live flows.
    pub fn listed(&self) -> Vec<FlowInfo> {
        self.flows.list(&|_| true, usize::MAX, self.now).1
    }

    /// Passthrough flows, and those of them that are half-open.
    pub fn nat_usage(&self) -> (u64, u64) {
        let usage = self.flows.usage();
        (usage.nat_flows, usage.half_open)
    }

    /// The path's time.
    pub const fn time(&self) -> Moment {
        self.now
    }

    /// Has the next packet come at the next moment of a timed run, which it gives: right when program and path agree on what
    /// time it is.
    pub fn go_on(&mut self) -> Moment {
        loop {
            let begun = Instant::now();
            let due = begun + self.aging + SPARE;
            let start = self.map.clock.nanoseconds(Moment(0));
            let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).expect("a clock"));
            let now = u64::try_from(now.as_nanos()).expect("a time");
            let then = Duration::from_nanos(now.wrapping_sub(start)) + self.aging + SPARE;
            let grid = GRID.as_nanos();
            let ahead = grid - then.as_nanos() % grid;
            self.age(Duration::from_nanos(u64::try_from(ahead).expect("a short time")));
            self.aging = begun.elapsed();
            // else the machine did something else: the one after that
            if Instant::now() < due + LATE / 2 {
                while Instant::now() < due {
                    std::hint::spin_loop();
                }
                self.due = Some(due);
                return self.follow_clock();
            }
        }
    }

    /// Whether program and path may have disagreed on what time it was: the machine did something else.
    pub const fn was_late(&self) -> bool {
        self.was_late
    }

    /// Lets the program's flows grow older: the kernel's clock cannot be put forward.
    fn age(&self, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).expect("a short time");
        let older = |moment: u64| moment.wrapping_sub(nanoseconds);
        let maps = &self.map.maps;
        change_all(&maps.flows, FlowKey::SIZE, |_, bytes| {
            let flow = FlowValue::from_bytes(bytes).expect("a flow");
            let (seen, begun) = (older(flow.seen), older(flow.begun));
            FlowValue { seen, begun, ..flow }.to_bytes().to_vec()
        });
        // what is kept beside the maps knows a flow by when it has begun, from the time on when its handshake is over
        let mut begun = HashMap::new();
        change_all(&maps.forwards, FlowKey::SIZE, |key, bytes| {
            let mut flow = ForwardValue::from_bytes(bytes).expect("a flow");
            flow.seen = older(flow.seen);
            if flow.watch == WatchCode::Awaited {
                flow.begun = older(flow.begun);
            }
            begun.insert(key.to_vec(), flow.begun);
            flow.to_bytes().to_vec()
        });
        change_all(&maps.reverses, FlowKey::SIZE, |_, bytes| {
            let mut flow = ReverseValue::from_bytes(bytes).expect("a flow");
            flow.seen = older(flow.seen);
            if let Some(begun) = begun.get(flow.client.to_bytes().as_slice()) {
                flow.begun = *begun;
            }
            flow.to_bytes().to_vec()
        });
        self.map.clock.put_forward(time);
    }

    /// What the program makes of a frame: `None` if it leaves that to the slow path.
    fn by_program(&self, bytes: &[u8], ifindex: u32) -> Option<Outcome> {
        let context = TestContext {
            ingress_ifindex: ifindex,
            rx_queue_index: 0,
        };
        let mut frame = Vec::new();
        // the kernel refuses to run it on what is no Ethernet frame
        if bytes.len() < 14 {
            return None;
        }
        let before = self.decided();
        let run = bpf::test_run(self.map.maps.convey.as_fd(), bytes, Some(context), &mut frame);
        let run = run.unwrap_or_else(|error| panic!("{} bytes: {error}", bytes.len()));
        let after = self.decided();
        let ifindex = match run.retval {
            XDP_PASS => {
                assert_eq!(frame, bytes, "a frame that is passed stays as it is");
                assert_eq!(before, after, "and the path counts it");
                return None;
            }
            XDP_TX => ifindex,
            XDP_REDIRECT => self.links[&parse(&frame).expect("a packet").link_source],
            other => panic!("the program returned {other}"),
        };
        let reason = match [after[0] - before[0], after[1] - before[1]] {
            [1, 0] => PacketReason::ToServer,
            [0, 1] => PacketReason::ToClient,
            other => panic!("a packet is counted as {other:?}"),
        };
        Some(Outcome {
            verdict: Verdict::Send { ifindex, reason },
            frame,
            offload: Offload::default(),
            answers: Vec::new(),
        })
    }

    fn write_services(&mut self, services: &[PacketService]) {
        let is_there = |vip| services.iter().any(|service| service.vip == vip);
        let kept = self
            .served
            .iter()
            .filter(|service| !is_there(service.vip))
            .cloned();
        let all: Vec<_> = services.iter().cloned().chain(kept).collect();
        let wanted = ServiceMaps::of(&all);
        if wanted != self.written {
            let mut loaded = lock(&self.loaded);
            loaded.narrow(&wanted).expect("services");
            loaded.widen(&wanted).expect("services");
            self.written = wanted;
        }
        self.served = all;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Changes every value of a map.
fn change_all(map: &Map, key_bytes: usize, mut change: impl FnMut(&[u8], &[u8]) -> Vec<u8>) {
    let (mut cursor, mut keys, mut values) = (BatchCursor::default(), Vec::new(), Vec::new());
    let mut all = Vec::new();
    while !cursor.is_at_end() {
        map.lookup_batch(&mut cursor, 256, &mut keys, &mut values)
            .expect("entries");
        let some = keys
            .chunks_exact(key_bytes)
            .zip(values.chunks_exact(map.value_bytes()));
        all.extend(some.map(|(key, value)| (key.to_vec(), change(key, value))));
    }
    for (key, value) in all {
        map.update(&key, &value, Insert::Existing).expect("an entry");
    }
}

/// Empties a map: of an array, each element is set to zeros.
fn empty(map: &Map) -> io::Result<()> {
    if [kind::ARRAY, kind::PERCPU_ARRAY].contains(&map.info().kind) {
        let zeros = vec![0; map.value_bytes()];
        let all = 0..map.info().max_entries.min(NUMBERS);
        return all
            .into_iter()
            .try_for_each(|index| map.update(&index.to_ne_bytes(), &zeros, Insert::Any));
    }
    while let Some(key) = map.next_key(None)? {
        map.delete(&key)?;
    }
    Ok(())
}

impl Drop for Kernel {
    /// Leaves the program to the next one, if its maps can be emptied.
    fn drop(&mut self) {
        let Maps {
            targets,
            tables,
            flows,
            reasons,
            passes,
            traffic,
            addresses,
            interfaces,
            ports,
            settings,
            forwards,
            reverses,
            shares,
            sources,
            moved,
            claims,
            ..
        } = &self.map.maps;
        let all = [
            targets, tables, flows, reasons, passes, traffic, addresses, interfaces, ports, settings,
            forwards, reverses, shares, sources, moved,
        ];
        let sums = [CLAIMS_FLOWS, CLAIMS_HALF_OPEN, CLAIMS_GAVE_WAY];
        for number in (0..NUMBERS).chain(sums) {
            claims.set(number as usize, 0);
        }
        let are_empty = all.into_iter().try_for_each(empty).is_ok();
        if are_empty && lock(&self.loaded).narrow(&ServiceMaps::default()).is_ok() {
            lock(&IDLE).push(Arc::clone(&self.loaded));
        }
    }
}

impl Engine for Kernel {
    fn apply(&mut self, snapshot: &Snapshot, hops: &Hops, services: &[PacketService]) {
        self.write_services(services);
        let services = Services::build(snapshot, &Services::default());
        let attached: BTreeMap<_, _> = hops.interfaces.keys().map(|ifindex| (*ifindex, true)).collect();
        self.links = hops
            .interfaces
            .iter()
            .map(|(ifindex, of)| (of.mac, *ifindex))
            .collect();
        self.keeper
            .get_mut()
            .apply(&services, hops, &attached)
            .expect("the program's maps");
        self.path.set_services(Arc::new(services));
        self.path.set_hops(Arc::new(hops.clone()));
    }

    fn wait(&mut self, time: Duration) {
        self.pass(time);
        for _ in 0..50 {
            self.path.expire(self.now);
        }
        self.scan();
    }

    fn packet(&mut self, bytes: &[u8], offload: Offload, ifindex: u32) -> Outcome {
        let by_program = self.by_program(bytes, ifindex);
        let outcome = match by_program {
            Some(outcome) => Outcome { offload, ..outcome },
            None => by_path(&mut self.path, bytes, offload, ifindex, self.now),
        };
        self.was_late |= (self.due.take()).is_some_and(|due| due.elapsed() > LATE);
        outcome
    }

    fn count(&self, reason: PacketReason) -> u64 {
        let by_program = count(&self.map.maps.reasons, reason as u32).expect("a counter");
        self.counters.read(reason) + by_program
    }

    fn usage(&self) -> (u64, u64) {
        self.scan();
        let usage = self.flows.usage();
        (usage.nat_flows + usage.dsr_flows, usage.fragments_waiting)
    }
}
