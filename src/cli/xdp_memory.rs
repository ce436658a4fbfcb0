//! What engine "xdp" takes of the kernel's memory.

use crate::{
    config::{Config, EngineChoice, PacketService},
    engine::xdp::memory::MapMemory,
    sys::bpf,
};

/// A megabyte, as `convey check` counts.
const MB: u64 = 1_000_000;

/// How much it is, where that engine is configured and needed. The number of CPUs is this host's.
pub fn note(config: &Config, services: &[PacketService]) -> Option<String> {
    if config.packet.engine != EngineChoice::Xdp || services.is_empty() {
        return None;
    }
    // one for each is assumed where it cannot be known
    let cpus = bpf::possible_cpus().unwrap_or(1);
    let memory = MapMemory::of(config.packet.max_flows.get(), services.len(), cpus);
    Some(text(&memory))
}

fn text(memory: &MapMemory) -> String {
    let megabytes = |bytes: u64| bytes.div_ceil(MB);
    format!(
        "engine \"xdp\" takes up to {} MB of kernel memory: {} MB for {} flows of mode dsr (half of max_flows), {} MB for tables of \
         servers, {} MB for the rest, and as flows of mode passthrough come up to {} MB for {}",
        megabytes(memory.total()),
        megabytes(memory.of_flows),
        memory.flows,
        megabytes(memory.of_tables),
        megabytes(memory.of_others),
        megabytes(memory.of_nat),
        memory.nat_flows,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_is_said_by_what_takes_it() {
        let text = text(&MapMemory {
            flows: 5,
            of_flows: 70_000_000,
            nat_flows: 10,
            of_nat: 500_000_000,
            of_others: 20_000_001,
            of_tables: 131_104,
        });
        assert_eq!(
            text,
            "engine \"xdp\" takes up to 591 MB of kernel memory: 70 MB for 5 flows of mode dsr (half of max_flows), 1 MB for tables of \
             servers, 21 MB for the rest, and as flows of mode passthrough come up to 500 MB for 10"
        );
    }
}
