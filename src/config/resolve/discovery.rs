//! `[backends.NAME.discovery]`.

use std::{num::NonZeroU32, time::Duration};

use super::{discovery_source::source, int, limit, time, value};
use crate::config::{
    discovery::{Discovery, MaxRemoval, OnFailure},
    discovery_source::DiscoverySource,
    findings::Findings,
    raw::{self, Located},
};

/// As gobetween and awe4lb have it in their examples.
const INTERVAL: Duration = Duration::from_secs(10);

const MAX_SERVERS: NonZeroU32 = NonZeroU32::new(1_000).expect("not zero");

/// Room for 10,000 servers a line.
const MAX_ANSWER_BYTES: u32 = 1 << 20;

/// Where the servers of a backend come from besides the file.
pub fn discovery(at: Option<&Located<raw::Discovery>>, findings: &mut Findings) -> Option<Discovery> {
    let at = at?;
    findings.within("discovery", |findings| {
        let raw = &at.value;
        let max_servers = limit(raw.max_servers.as_ref()).unwrap_or(MAX_SERVERS);
        let min_servers = int(raw.min_servers.as_ref(), 1);
        if let Some(at) = raw
            .min_servers
            .as_ref()
            .filter(|_| min_servers > max_servers.get())
        {
            findings.within("min_servers", |findings| {
                findings.error(
                    at.span.clone(),
                    format!("`min_servers` is above `max_servers` ({max_servers}): no answer could be taken"),
                    "lower it, or raise `max_servers`".to_owned(),
                );
            });
        }
        let source = source(at, findings)?;
        // an operator removes what they mean to
        let (least, removal) = match source {
            DiscoverySource::Api => (0, MaxRemoval::Percent(100)),
            _ => (min_servers, MaxRemoval::Percent(50)),
        };
        Some(Discovery {
            source,
            interval: time(raw.interval.as_ref(), INTERVAL),
            on_failure: value(raw.on_failure.as_ref(), OnFailure::Keep, |v| v),
            max_servers,
            min_servers: least,
            max_removal: value(raw.max_removal.as_ref(), removal, |v| v),
            servers_within: value(raw.servers_within.as_ref(), Vec::new(), |v| v.0),
            max_answer_bytes: int(raw.max_answer_bytes.as_ref(), MAX_ANSWER_BYTES),
        })
    })
}
