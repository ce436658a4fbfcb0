//! Keeps the program's maps: writes what services and next hops say, reads what it has counted, and clears expired flows away.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    sync::{Arc, atomic::Ordering},
};

use super::{
    accounts::Accounts,
    contents::{Contents, Difference, Port},
    flow_map::{self, FlowBatch, FlowMap},
    layout::{FlowValue, InterfaceValue, SettingsValue, TargetFlags, TargetValue, TrafficValue},
    store::XdpStore,
    tables::{TableMaker, Tables},
    write::{delete_all, put_all},
};
use crate::{
    base::{Mac, WorkerId},
    flow::{FlowTarget, Flows, Hops, Moment, SeenElsewhere, Services},
    sys::bpf::{BatchCursor, Insert},
};

/// Flows that are looked at while the numbers are locked.
const AT_ONCE: usize = 256;

/// See the [module](self). One thread's.
#[derive(Debug)]
pub struct Keeper {
    flows: Arc<Flows<XdpStore>>,
    map: Arc<FlowMap>,
    /// Its shard of the snapshot's counters.
    worker: WorkerId,
    tables: Tables,
    /// What the maps hold, but for the tables.
    written: Contents,
    /// Of the targets' entries, even.
    version: u32,
    accounts: Accounts,
    scan: Option<Scan>,
    /// Whether services that the program has now may still have flows in memory.
    is_mixed: bool,
}

/// A walk through all flows.
#[derive(Debug)]
struct Scan {
    cursor: BatchCursor,
    batch: FlowBatch,
    /// When it began, on the program's clock.
    start: u64,
    /// Live flows by the number of their target; those of them that had begun before the scan.
    live: HashMap<u16, Live>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Live {
    all: u64,
    from_before: u64,
}

/// What a scan does with a flow.
enum Fate {
    Lives(u16),
    Expired(Arc<FlowTarget>),
    /// It is of nothing that has a number.
    Unknown,
}

impl Keeper {
    /// Of maps that hold nothing yet. `worker` is a shard of the snapshot's counters that nobody else writes.
    #[must_use]
    pub fn new(flows: Arc<Flows<XdpStore>>, make_tables: TableMaker, worker: WorkerId) -> Self {
        Self {
            map: Arc::clone(flows.store().map()),
            flows,
            worker,
            tables: Tables::new(make_tables),
            written: Contents::default(),
            version: 0,
            accounts: Accounts::default(),
            scan: None,
            is_mixed: false,
        }
    }

    /// Takes out of the maps what an engine before this one has left there.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn clear(&mut self) -> io::Result<()> {
        let maps = &self.map.maps;
        for map in [&maps.tables, &maps.addresses, &maps.ports, &maps.interfaces] {
            while let Some(key) = map.next_key(None)? {
                map.delete(&key)?;
            }
        }
        let (mut cursor, mut batch) = (BatchCursor::default(), FlowBatch::default());
        loop {
            let is_over = self.map.next(&mut cursor, &mut batch)?;
            maps.flows.delete_batch(batch.keys())?;
            if is_over {
                return Ok(());
            }
        }
    }

    /// Has the maps hold what services, next hops and interfaces say. `attached`: those that the program is attached to, by
    /// index, and whether in the driver. New flows are decided so once it has returned.
    ///
    /// # Errors
    /// The kernel refused something: it can be called again, and does what is left.
    pub fn apply(
        &mut self,
        services: &Services,
        hops: &Hops,
        attached: &BTreeMap<u32, bool>,
    ) -> io::Result<()> {
        self.is_mixed = self.has_in_memory();
        let wanted = Contents::plan(services, hops, attached, self.is_mixed, &mut self.map.numbers());
        if wanted.left_out > 0 && wanted.left_out != self.written.left_out {
            tracing::warn!(
                event = "xdp_full",
                left_out = wanted.left_out,
                "the program's maps have no room for {} addresses or services: the slow path has their packets",
                wanted.left_out
            );
        }
        self.written.left_out = wanted.left_out;
        // what was counted before a target has its number is none of its
        self.read_traffic()?;
        if services.dsr().next().is_some() {
            self.map.may_have_flows.store(true, Ordering::Relaxed);
        }
        // what the program may do less comes before what it may do more
        self.write_settings(wanted.settings)?;
        self.write_addresses(&wanted.addresses)?;
        self.write_interfaces(&wanted.interfaces)?;
        self.write_targets(&wanted.targets)?;
        self.tables.apply(&self.map.maps.tables, &wanted.tables)
    }

    /// Whether the slow path has flows for itself: then it is asked about packets that the program knows no flow of.
    fn has_in_memory(&self) -> bool {
        let (nat, dsr) = self.flows.store().has_in_memory();
        nat || dsr
    }

    /// Whether [`apply`](Self::apply) would tell the program something else, though nothing was configured: the slow path has
    /// come to have flows, or has none any more.
    #[must_use]
    pub fn is_outdated(&self) -> bool {
        self.is_mixed != self.has_in_memory()
    }

    fn write_settings(&mut self, wanted: SettingsValue) -> io::Result<()> {
        if self.written.settings != wanted {
            (self.map.maps.settings).update(&0_u32.to_ne_bytes(), &wanted.to_bytes(), Insert::Any)?;
            self.written.settings = wanted;
        }
        Ok(())
    }

    fn write_addresses(&mut self, wanted: &BTreeMap<[u8; 16], u32>) -> io::Result<()> {
        let Difference { put, gone } = Difference::between(&self.written.addresses, wanted);
        let map = &self.map.maps.addresses;
        delete_all(map, gone.iter().copied())?;
        put_all(
            map,
            put.iter()
                .map(|(address, flags)| (**address, flags.to_ne_bytes())),
        )?;
        self.written.addresses.clone_from(wanted);
        Ok(())
    }

    fn write_interfaces(&mut self, wanted: &BTreeMap<u32, Port>) -> io::Result<()> {
        let Difference { put, gone } = Difference::between(&self.written.interfaces, wanted);
        let maps = &self.map.maps;
        // the kernel removes ports of interfaces that vanish by itself
        delete_all(&maps.ports, gone.iter().map(|ifindex| ifindex.to_ne_bytes()))?;
        delete_all(&maps.interfaces, gone.iter().map(|ifindex| ifindex.to_ne_bytes()))?;
        for (ifindex, port) in put {
            let (key, value) = (ifindex.to_ne_bytes(), InterfaceValue::from(*port));
            maps.interfaces.update(&key, &value.to_bytes(), Insert::Any)?;
            if let Err(error) = maps.ports.update(&key, &key, Insert::Any) {
                // it may have vanished meanwhile; what would leave by it is left to the slow path
                tracing::debug!(
                    event = "xdp_map_error",
                    "no packets can be redirected to interface {ifindex}: {error}"
                );
            }
        }
        self.written.interfaces.clone_from(wanted);
        Ok(())
    }

    /// Writes targets in three steps, so that the program never reads half of one: the version made odd with what was there,
    /// the rest, and the version made even.
    fn write_targets(&mut self, wanted: &BTreeMap<u16, TargetValue>) -> io::Result<()> {
        let none = nothing();
        let Difference { put, gone } = Difference::between(&self.written.targets, wanted);
        let changed: Vec<_> = (put.into_iter().map(|(number, value)| (*number, *value)))
            .chain(gone.into_iter().map(|number| (number, none)))
            .collect();
        let before: Vec<_> = (changed.iter())
            .map(|(number, _)| (*number, *self.written.targets.get(number).unwrap_or(&none)))
            .collect();
        let (odd, even) = (self.version.wrapping_add(1), self.version.wrapping_add(2));
        self.version = even;
        for (values, version) in [(&before, odd), (&changed, odd), (&changed, even)] {
            let elements = values.iter().map(|(number, value)| {
                let value = TargetValue { version, ..*value };
                (u32::from(*number).to_ne_bytes(), value.to_bytes())
            });
            put_all(&self.map.maps.targets, elements)?;
        }
        self.written.targets.clone_from(wanted);
        Ok(())
    }

    /// Reads what the program has counted of each target, and counts it in the snapshot's counters.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn collect(&mut self) -> io::Result<()> {
        self.read_traffic()?;
        self.count_live();
        Ok(())
    }

    fn read_traffic(&mut self) -> io::Result<()> {
        let numbered: Vec<_> = (self.map.numbers().iter())
            .map(|(number, of)| (number, of.incarnation, of.opened_here, Arc::clone(&of.target)))
            .collect();
        let traffic = &self.map.maps.traffic;
        let mut values = vec![0; traffic.value_bytes()];
        for (number, incarnation, put_in, target) in numbered {
            traffic.lookup(&u32::from(number).to_ne_bytes(), &mut values)?;
            let now = TrafficValue::sum(&values);
            let seen = self.accounts.read(number, incarnation, now, put_in);
            if seen != SeenElsewhere::default() {
                target.count_seen(self.worker, &seen);
            }
        }
        Ok(())
    }

    fn count_live(&self) {
        // those that have been displaced are found out by the next scan
        let room = u64::from(self.map.maps.flows.info().max_entries);
        let live = self.accounts.live().min(room);
        self.map.live.store(live, Ordering::Relaxed);
    }

    /// Looks at all flows: forgets those that have expired, and finds out which have ended.
    ///
    /// # Errors
    /// The kernel refused; then the scan is given up.
    pub fn scan(&mut self, now: Moment) -> io::Result<()> {
        self.scan = None;
        while !self.scan_some(now, 1)? {}
        Ok(())
    }

    /// Looks at the next flows, so many batches of [`flow_map::BATCH`]; at the first ones after the last. Whether these were the
    /// last ones.
    ///
    /// # Errors
    /// The kernel refused; then the scan is given up.
    pub fn scan_some(&mut self, now: Moment, batches: usize) -> io::Result<bool> {
        let mut scan = match self.scan.take() {
            Some(scan) => scan,
            None => self.begin_scan(now)?,
        };
        for _ in 0..batches {
            let is_over = self.map.next(&mut scan.cursor, &mut scan.batch)?;
            self.sort(&mut scan, now)?;
            if is_over {
                self.end_scan(&scan);
                return Ok(true);
            }
        }
        self.scan = Some(scan);
        Ok(false)
    }

    fn begin_scan(&mut self, now: Moment) -> io::Result<Scan> {
        self.collect()?;
        self.accounts.scan_begins();
        self.map.numbers().scan_begins();
        Ok(Scan {
            cursor: BatchCursor::default(),
            batch: FlowBatch::default(),
            start: self.map.clock.nanoseconds(now),
            live: HashMap::new(),
        })
    }

    /// Takes expired flows out of the map, and counts the others.
    fn sort(&self, scan: &mut Scan, now: Moment) -> io::Result<()> {
        let flows: Vec<_> = scan.batch.iter().collect();
        let mut over: Vec<u8> = Vec::new();
        for some in flows.chunks(AT_ONCE) {
            let fates = self.fates(
                some.iter().map(|(_, flow)| flow.as_ref().map(|(_, value)| value)),
                now,
            );
            for ((key, flow), fate) in some.iter().zip(fates) {
                match (fate, flow) {
                    (Fate::Lives(number), Some((_, value))) => {
                        let live = scan.live.entry(number).or_default();
                        live.all += 1;
                        live.from_before += u64::from(value.begun <= scan.start);
                    }
                    (Fate::Expired(target), Some((_, value))) => {
                        if let Some(handshake) = flow_map::forgotten(value) {
                            target.count_handshake(self.worker, handshake);
                        }
                        over.extend_from_slice(key);
                    }
                    _ => over.extend_from_slice(key),
                }
            }
        }
        if !over.is_empty() {
            self.map.maps.flows.delete_batch(&over)?;
        }
        Ok(())
    }

    fn fates<'a>(&self, flows: impl Iterator<Item = Option<&'a FlowValue>>, now: Moment) -> Vec<Fate> {
        let numbers = self.map.numbers();
        let fate = |flow: Option<&FlowValue>| {
            let Some(flow) = flow else { return Fate::Unknown };
            let known = numbers.of_flow(flow.target, flow.incarnation);
            // what has a number has one of 16 bits
            let (Some(numbered), Ok(number)) = (known, u16::try_from(flow.target)) else {
                return Fate::Unknown;
            };
            let target = &numbered.target;
            let expires = self
                .map
                .clock
                .moment(flow.seen)
                .after(target.lifetime(flow_map::life(flow.state)));
            if expires <= now {
                Fate::Expired(Arc::clone(target))
            } else {
                Fate::Lives(number)
            }
        };
        flows.map(fate).collect()
    }

    fn end_scan(&mut self, scan: &Scan) {
        let live = |number: u16| scan.live.get(&number).copied().unwrap_or_default();
        let close = |worker, target: &FlowTarget, closed| {
            if closed > 0 {
                let seen = SeenElsewhere {
                    closed,
                    ..SeenElsewhere::default()
                };
                target.count_seen(worker, &seen);
            }
        };
        let mut numbers = self.map.numbers();
        for (number, numbered) in numbers.iter() {
            let closed = self.accounts.scan_ended(number, live(number).from_before);
            close(self.worker, &numbered.target, closed);
        }
        let free = numbers.scan_ended(|number| live(number).all > 0);
        drop(numbers);
        for (number, numbered) in &free {
            close(self.worker, &numbered.target, self.accounts.forget(*number));
        }
        self.count_live();
    }
}

/// The entry of a number that nothing has.
const fn nothing() -> TargetValue {
    TargetValue {
        version: 0,
        incarnation: 0,
        address: std::net::IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
        hop: Mac([0; 6]),
        shift: 0,
        interface_mac: Mac([0; 6]),
        flags: TargetFlags {
            known: false,
            down: false,
            l2: false,
            slow: false,
        },
        ifindex: 0,
        mtu: 0,
        idle: 0,
    }
}
