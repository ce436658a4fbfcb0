//! Keeps the program's maps: writes what services and next hops say, reads what it has counted, and clears expired flows away.

mod adopt;
mod held;
mod live;
mod nat;
mod scan;
mod writing;

use std::{
    collections::{BTreeMap, HashMap},
    io,
    sync::{Arc, atomic::Ordering},
};

use super::{
    accounts::{Accounts, Reading},
    audit::Audit,
    contents::{Circumstances, Contents},
    flow_map::{BATCH, FlowMap},
    layout::{CLAIMS, TrafficValue},
    nat_map::NatMap,
    registry::Registry,
    store::XdpStore,
    tables::{TableMaker, Tables},
};
use crate::{
    balance::hash::SplitMix64,
    base::WorkerId,
    flow::{Flows, Hops, ReturnLink, SeenElsewhere, Services, stored::ReturnOrigin},
    sys::bpf::{BatchCursor, Insert, Map},
};
pub use adopt::Adopted;
use nat::Orphans;
use scan::Scan;

/// Keys that are taken out of a map at once.
const AT_ONCE: u32 = 4_096;

/// See the [module](self). One thread's.
#[derive(Debug)]
pub struct Keeper {
    flows: Arc<Flows<XdpStore>>,
    map: Arc<FlowMap>,
    nat: Arc<NatMap>,
    /// Its shard of the snapshot's counters.
    worker: WorkerId,
    tables: Tables,
    registry: Registry,
    /// What the maps hold, but for the tables.
    written: Contents,
    /// Of the targets' entries, even.
    version: u32,
    accounts: Accounts,
    scan: Option<Scan>,
    /// What the last scan says of the counters of passthrough flows.
    audit: Audit,
    orphans: Orphans,
    /// Whether clients may have entries among the shares.
    has_shares: bool,
    /// Flows that the program has been told of.
    others: Others,
    /// The changes of the numbers that the registry has.
    noted: u64,
    /// The maps hold what was last to be there: nothing names what is not configured any more, but flows do.
    is_in_force: bool,
    /// They have once.
    has_applied: bool,
    /// When the maps were taken over, on the program's clock; 0: they were not.
    taken_over: u64,
    /// There has been no scan since then.
    is_to_be_scanned: bool,
    /// Where replies went then instead of where their clients' packets come from, as long as nothing newer is known.
    moved_before: HashMap<ReturnOrigin, ReturnLink>,
}

/// Whether there are flows that a packet may be of which is of no DSR flow of the program's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Others {
    passthrough: bool,
    /// The slow path has some for itself.
    in_memory: bool,
}

impl Keeper {
    /// Of maps that are to be [cleared](Self::clear) or [taken over](Self::adopt) first. `worker` is a shard of the snapshot's
    /// counters that nobody else writes.
    #[must_use]
    pub fn new(
        flows: Arc<Flows<XdpStore>>,
        make_tables: TableMaker,
        registry: Registry,
        worker: WorkerId,
    ) -> Self {
        Self {
            map: Arc::clone(flows.store().map()),
            nat: Arc::clone(flows.store().nat()),
            flows,
            worker,
            tables: Tables::new(make_tables),
            registry,
            written: Contents::default(),
            version: 0,
            accounts: Accounts::default(),
            scan: None,
            audit: Audit::default(),
            orphans: Orphans::default(),
            has_shares: false,
            others: Others::default(),
            noted: 0,
            is_in_force: false,
            has_applied: false,
            taken_over: 0,
            is_to_be_scanned: false,
            moved_before: HashMap::new(),
        }
    }

    /// Takes out of the maps what an engine before this one has left there, and gives each CPU something to draw random numbers
    /// from.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn clear(&mut self) -> io::Result<()> {
        self.registry.withdraw();
        let maps = &self.map.maps;
        for map in [&maps.tables, &maps.addresses, &maps.ports, &maps.interfaces] {
            while let Some(key) = map.next_key(None)? {
                map.delete(&key)?;
            }
        }
        for map in [
            &maps.sources,
            &maps.flows,
            &maps.forwards,
            &maps.reverses,
            &maps.shares,
            &maps.moved,
        ] {
            empty(map)?;
        }
        for place in 0..CLAIMS {
            maps.claims.set(place.try_into().unwrap_or(usize::MAX), 0);
        }
        let mut random = SplitMix64::new(self.flows.store().seed());
        let cpus = maps.seeds.value_bytes() / size_of::<u64>();
        let seeds: Vec<u8> = (0..cpus).flat_map(|_| random.next_u64().to_ne_bytes()).collect();
        maps.seeds.update(&0_u32.to_ne_bytes(), &seeds, Insert::Any)
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
        self.is_in_force = false;
        self.others = self.others_now();
        let circumstances = Circumstances {
            attached,
            has_passthrough: self.others.passthrough,
            has_others: self.others.in_memory,
            moved: &self.moved(hops),
            max_flows: self.nat.max_flows(),
        };
        let wanted = {
            let mut numbers = self.map.numbers();
            let mut wanted = Contents::plan(services, hops, &circumstances, &mut numbers);
            wanted.keep(&self.written, &numbers);
            wanted
        };
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
        (self.nat.is_served).store(services.has_passthrough(), Ordering::Relaxed);
        self.note_numbers();
        self.write(&wanted)?;
        if !self.has_applied {
            self.count_for_clients(self.map.clock.now()?);
        }
        (self.is_in_force, self.has_applied) = (true, true);
        Ok(())
    }

    /// Where replies go instead of where their clients' packets come from.
    fn moved(&self, hops: &Hops) -> HashMap<ReturnOrigin, ReturnLink> {
        let mut moved = self.moved_before.clone();
        moved.extend(self.nat.returns.moved(hops));
        moved
    }

    /// Notes for whoever comes after what the numbers mean that the maps are about to name.
    fn note_numbers(&mut self) {
        let numbers = self.map.numbers();
        let changes = numbers.changes();
        if changes != self.noted {
            let noted = numbers.noted();
            drop(numbers);
            self.registry.write(&noted);
            self.noted = changes;
        }
    }

    fn others_now(&self) -> Others {
        Others {
            passthrough: self.nat.counts().flows() > 0,
            in_memory: self.flows.store().has_in_memory(),
        }
    }

    /// Whether [`apply`](Self::apply) would tell the program something else, though nothing was configured: there have come to
    /// be flows of a kind, or there are none any more; or a number is free for what had found none.
    #[must_use]
    pub fn is_outdated(&self) -> bool {
        self.others != self.others_now() || self.map.numbers().is_short()
    }

    /// Whether scans are to follow each other quickly: flows were taken over and are not counted yet; or there are passthrough
    /// flows, whose ways back are to be found soon, and so few flows that it costs nothing.
    #[must_use]
    pub fn is_quick(&self) -> bool {
        if self.is_to_be_scanned {
            return true;
        }
        let is_used = self.nat.counts().flows() > 0;
        is_used && self.nat.has_few() && self.accounts.live() <= u64::from(BATCH)
    }

    /// Reads what the program has counted of each target, and counts it in the snapshot's counters.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn collect(&mut self) -> io::Result<()> {
        self.read_traffic()?;
        self.read_claims();
        self.count_live();
        Ok(())
    }

    fn read_traffic(&mut self) -> io::Result<()> {
        let numbered: Vec<_> = (self.map.numbers().iter())
            .map(|(number, of)| (number, Reading::of(of), Arc::clone(&of.target)))
            .collect();
        let traffic = &self.map.maps.traffic;
        let mut values = vec![0; traffic.value_bytes()];
        for (number, mut reading, target) in numbered {
            traffic.lookup(&u32::from(number).to_ne_bytes(), &mut values)?;
            reading.traffic = TrafficValue::sum(&values);
            let seen = self.accounts.read(number, &reading);
            if seen != SeenElsewhere::default() {
                target.count_seen(self.worker, &seen);
            }
        }
        self.registry.write_counted(&self.accounts.take_new());
        Ok(())
    }

    /// Tells the servers how many of their NAT ports are claimed.
    fn read_claims(&self) {
        let numbers = self.map.numbers();
        for (_, numbered) in numbers.iter().filter(|(_, numbered)| !numbered.is_dsr) {
            let claimed = self.nat.counts().towards(numbered.server);
            numbered.target.set_claimed_ports(claimed);
        }
    }

    fn count_live(&self) {
        // those that have been displaced are found out by the next scan
        let room = u64::from(self.map.maps.flows.info().max_entries);
        let live = self.accounts.live().min(room);
        self.map.live.store(live, Ordering::Relaxed);
    }
}

/// Takes everything out of a map.
fn empty(map: &Map) -> io::Result<()> {
    let (mut cursor, mut keys, mut values) = (BatchCursor::default(), Vec::new(), Vec::new());
    while !cursor.is_at_end() {
        map.lookup_batch(&mut cursor, AT_ONCE, &mut keys, &mut values)?;
        map.delete_batch(&keys)?;
    }
    Ok(())
}
