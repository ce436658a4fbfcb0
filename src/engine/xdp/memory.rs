//! How much of the kernel's memory the maps take. Pure.

use super::layout::{
    ADDRESSES, CLAIMS, EndpointKey, FlowKey, FlowValue, ForwardValue, RANGED, RANGES_SIZE, ReverseValue,
    SERVICES, SHARES, ServiceValue, ShareKey, SourceValue, TABLE_ELEMENTS, TABLES, TARGETS, TargetValue,
    TrafficValue,
};

/// What the kernel adds to an element of a hash, in bytes (`struct htab_elem`).
const OF_ELEMENT: u64 = 48;
/// A bucket, of which a hash has as many as elements, rounded up to a power of two (`struct bucket`).
const OF_BUCKET: u64 = 16;
/// What the kernel adds to memory that it takes for an element when that is made (`LLIST_NODE_SZ`), and the sizes that such
/// memory comes in (`kmalloc`).
const OF_NODE: u64 = 8;
const KMALLOC: [u64; 8] = [16, 32, 64, 96, 128, 192, 256, 512];

/// Bytes of kernel memory that the maps take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapMemory {
    /// DSR flows that their map has room for.
    pub flows: u32,
    /// The map of DSR flows, taken at once.
    pub of_flows: u64,
    /// Passthrough flows that their maps have room for.
    pub nat_flows: u32,
    /// The maps of passthrough flows when they are full: taken with each flow.
    pub of_nat: u64,
    /// All others, taken at once.
    pub of_others: u64,
    /// The Maglev tables of so many services.
    pub of_tables: u64,
}

impl MapMemory {
    /// Of `max_flows` flows of both modes, `tables` addresses of frontends in packet modes, and so many CPUs that there may be.
    #[must_use]
    pub fn of(max_flows: u32, tables: usize, cpus: usize) -> Self {
        let flows = room(max_flows);
        let targets = u64::from(TARGETS);
        let arrays = targets * bytes(TargetValue::SIZE)
            + targets * bytes(TrafficValue::SIZE) * bytes(cpus)
            + u64::from(CLAIMS) * 8;
        let hashes = hash(bytes(SERVICES), EndpointKey::SIZE + ServiceValue::SIZE)
            + hash(bytes(RANGED), EndpointKey::SIZE + RANGES_SIZE)
            + hash(bytes(TABLES), EndpointKey::SIZE + 8)
            + hash(bytes(ADDRESSES), 16 + 4)
            + hash(targets, 4 + SourceValue::SIZE)
            + hash(bytes(SHARES), ShareKey::SIZE + 8);
        Self {
            flows,
            of_flows: hash(flows.into(), FlowKey::SIZE + FlowValue::SIZE),
            nat_flows: max_flows,
            of_nat: growing(max_flows.into(), FlowKey::SIZE + ForwardValue::SIZE)
                + growing(max_flows.into(), FlowKey::SIZE + ReverseValue::SIZE),
            of_others: arrays + hashes,
            of_tables: bytes(tables.min(TABLES)) * bytes(TABLE_ELEMENTS) * 8,
        }
    }

    /// All of it, when the maps are full.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.of_flows + self.of_nat + self.of_others + self.of_tables
    }
}

/// Entries of the map of DSR flows: half of those of both modes, as in memory.
#[must_use]
pub fn room(max_flows: u32) -> u32 {
    (max_flows / 2).max(1)
}

fn bytes(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn hash(elements: u64, size: usize) -> u64 {
    elements * (OF_ELEMENT + bytes(size.next_multiple_of(8))) + elements.next_power_of_two() * OF_BUCKET
}

/// The same where elements are made one by one.
fn growing(elements: u64, size: usize) -> u64 {
    let element = OF_ELEMENT + bytes(size.next_multiple_of(8)) + OF_NODE;
    let taken = KMALLOC
        .into_iter()
        .find(|taken| *taken >= element)
        .unwrap_or(element);
    elements * taken + elements.next_power_of_two() * OF_BUCKET
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_flows_of_both_modes_take_so_much_and_each_table_an_eighth_of_a_megabyte() {
        let none = MapMemory::of(1 << 20, 0, 1);
        assert_eq!(none.flows, 1 << 19);
        assert_eq!(none.of_flows, (1 << 19) * (48 + 72 + 16));
        // two entries each
        assert_eq!(none.of_nat, (1 << 20) * (192 + 256 + 2 * 16));
        let one = MapMemory::of(1 << 20, 1, 1);
        assert_eq!(one.total() - none.total(), 16_388 * 8);
    }

    #[test]
    fn counters_are_there_for_each_cpu() {
        let (one, two) = (MapMemory::of(64, 0, 1), MapMemory::of(64, 0, 2));
        assert_eq!(two.of_others - one.of_others, 65_536 * 96);
    }
}
