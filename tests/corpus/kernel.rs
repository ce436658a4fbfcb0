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
        Clock, FlowMap, Keeper, Maps, XdpStore, count,
        layout::{FlowKey, FlowValue, PassReason},
        load::{self, LoadLimits, Loaded},
        object,
        services::ServiceMaps,
    },
    flow::{Flows, Hops, Moment, PacketCounters, Path, ReasonCounters, Services, TableLimits, Verdict},
    packet::{Offload, parse},
    snapshot::Snapshot,
    sys::bpf::{self, BatchCursor, Insert, Map, TestContext, kind},
};

use crate::engine::{Engine, Outcome, by_path};

/// What the program returns (include/uapi/linux/bpf.h).
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
const XDP_REDIRECT: u32 = 4;

/// Room in the program's map of flows: what is evicted first when it is full is the kernel's choice, and none of ours.
const FLOWS: NonZeroU32 = NonZeroU32::new(4_096).expect("not 0");

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
}

impl Kernel {
    /// Loads the program. Takes root, in a network namespace with an interface of each index that the cases use.
    pub fn new(max_flows: NonZeroU32) -> Self {
        let idle = lock(&IDLE).pop();
        let loaded = idle.unwrap_or_else(|| {
            let loaded = load::load(object::OBJECT, LoadLimits { flows: FLOWS });
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
        let path = Path::new(WorkerId(0), 0, Arc::clone(&flows), 7);
        Self {
            // one shard for both: what is counted is compared as a sum
            keeper: RefCell::new(Keeper::new(Arc::clone(&flows), make_tables, WorkerId(0))),
            loaded,
            map,
            flows,
            counters: path.counters(),
            path,
            links: HashMap::new(),
            served: Vec::new(),
            written: ServiceMaps::default(),
            now: Moment(1_000),
        }
    }

    /// Takes expired flows out of the program's map, and counts what it has counted.
    fn scan(&self) {
        let now = self.map.clock.now().expect("a clock");
        self.keeper.borrow_mut().scan(now).expect("the program's flows");
    }

    /// Has the path's time be that of the program, which goes on, and gives it.
    pub fn follow_clock(&mut self) -> Moment {
        self.now = self.map.clock.now().expect("a clock");
        self.now
    }

    /// Packets that the program has left to the path, by why.
    pub fn passes(&self) -> Vec<(PassReason, u64)> {
        let count = |reason| count(&self.map.maps.passes, reason as u32).expect("a counter");
        PassReason::ALL.map(|reason| (reason, count(reason))).to_vec()
    }

    /// Packets that the program has sent to servers, and all that have been.
    pub fn sent_by_program(&self) -> (u64, u64) {
        let reason = PacketReason::ToServer;
        let by_program = count(&self.map.maps.reasons, reason as u32).expect("a counter");
        (by_program, self.count(reason))
    }

    /// Lets the program's flows grow older: the kernel's clock cannot be put forward.
    fn age(&self, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).expect("a short time");
        let flows = &self.map.maps.flows;
        let (mut cursor, mut keys, mut values) = (BatchCursor::default(), Vec::new(), Vec::new());
        let mut all = Vec::new();
        while !cursor.is_at_end() {
            flows
                .lookup_batch(&mut cursor, 256, &mut keys, &mut values)
                .expect("flows");
            let some = keys
                .chunks_exact(FlowKey::SIZE)
                .zip(values.chunks_exact(FlowValue::SIZE));
            all.extend(
                some.map(|(key, value)| (key.to_vec(), FlowValue::from_bytes(value).expect("a flow"))),
            );
        }
        for (key, value) in all {
            let older = FlowValue {
                seen: value.seen.wrapping_sub(nanoseconds),
                begun: value.begun.wrapping_sub(nanoseconds),
                ..value
            };
            flows
                .update(&key, &older.to_bytes(), Insert::Existing)
                .expect("a flow");
        }
        self.map.clock.put_forward(time);
    }

    /// What the program makes of a frame: `None` if it leaves that to the slow path.
    fn by_program(&self, bytes: &[u8], ifindex: u32) -> Option<(u32, Vec<u8>)> {
        let context = TestContext {
            ingress_ifindex: ifindex,
            rx_queue_index: 0,
        };
        let mut out = Vec::new();
        // the kernel refuses to run it on what is no Ethernet frame
        if bytes.len() < 14 {
            return None;
        }
        let run = bpf::test_run(self.map.maps.convey.as_fd(), bytes, Some(context), &mut out);
        match run
            .unwrap_or_else(|error| panic!("{} bytes: {error}", bytes.len()))
            .retval
        {
            XDP_PASS => {
                assert_eq!(out, bytes, "a frame that is passed stays as it is");
                None
            }
            XDP_TX => Some((ifindex, out)),
            XDP_REDIRECT => {
                let parsed = parse(&out).expect("a packet");
                Some((self.links[&parsed.link_source], out))
            }
            other => panic!("the program returned {other}"),
        }
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

/// Empties a map: of an array, each element is set to zeros.
fn empty(map: &Map) -> io::Result<()> {
    if [kind::ARRAY, kind::PERCPU_ARRAY].contains(&map.info().kind) {
        let zeros = vec![0; map.value_bytes()];
        // the first numbers are given first
        let all = 0..map.info().max_entries.min(256);
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
            ..
        } = &self.map.maps;
        let all = [
            targets, tables, flows, reasons, passes, traffic, addresses, interfaces, ports, settings,
        ];
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
        self.age(time);
        self.now = self.now.after(time);
        for _ in 0..50 {
            self.path.expire(self.now);
        }
        self.scan();
    }

    fn packet(&mut self, bytes: &[u8], offload: Offload, ifindex: u32) -> Outcome {
        let by_program = self.by_program(bytes, ifindex);
        match by_program {
            Some((ifindex, frame)) => Outcome {
                verdict: Verdict::Send {
                    ifindex,
                    reason: PacketReason::ToServer,
                },
                frame,
                offload,
                answers: Vec::new(),
            },
            None => by_path(&mut self.path, bytes, offload, ifindex, self.now),
        }
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
