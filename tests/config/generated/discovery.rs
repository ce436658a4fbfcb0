//! Any source of servers.

use convey::{
    access::Network,
    config::{AnswerFormat, Discovery, DiscoverySource, MaxRemoval, OnFailure},
};
use proptest::{collection::vec, option, prelude::*};

use super::{
    configs::{DAY, count, millis},
    process::command,
};

/// Any, or none.
pub fn discovery() -> impl Strategy<Value = Option<Discovery>> {
    use prop::sample::select;
    let removal = prop_oneof![
        (0..=100_u8).prop_map(MaxRemoval::Percent),
        (0..=10_000_u32).prop_map(MaxRemoval::Count)
    ];
    let networks = vec(
        any::<u8>().prop_map(|ip| Network::of([10, ip, 0, 0].into(), 16)),
        0..3,
    );
    let source = (
        select(vec!["/etc/convey/web.servers", "/ü"]),
        select(vec![AnswerFormat::Text, AnswerFormat::Json]),
    );
    let source = (source, command(), any::<bool>()).prop_map(|((path, format), command, is_file)| {
        if is_file {
            let path = path.into();
            return DiscoverySource::File { path, format };
        }
        DiscoverySource::Exec { command, format }
    });
    let discovery = (
        source,
        millis(1, DAY),
        select(vec![OnFailure::Keep, OnFailure::Empty]),
        (count(10_000), count(10_000)),
        removal,
        networks,
        1..=1_u32 << 24,
    );
    option::of(discovery.prop_map(
        |(source, interval, on_failure, (one, other), max_removal, servers_within, max_answer_bytes)| {
            Discovery {
                source,
                interval,
                on_failure,
                max_servers: one.max(other),
                min_servers: one.min(other).get() - 1,
                max_removal,
                servers_within,
                max_answer_bytes,
            }
        },
    ))
}
