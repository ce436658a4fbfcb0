//! How servers are chosen, besides the algorithm: the bound of a hash, and what sticks.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use super::{int, limit, merged, time, value};
use crate::{
    base::BackendName,
    config::{
        balancing::Sticky,
        findings::Findings,
        model::{Algorithm, Backend, Config},
        raw::{self, Located},
        users::Users,
    },
};

/// As HAProxy's manual has it in its example of a stick table.
const TTL: Duration = Duration::from_secs(30 * 60);

/// Some 15 MB.
const MAX_ENTRIES: NonZeroU32 = NonZeroU32::new(100_000).expect("not zero");

/// `sticky`; on where a section is given.
pub fn sticky(own: Option<&Located<raw::Sticky>>, defaults: Option<&Located<raw::Sticky>>) -> Option<Sticky> {
    own.or(defaults)?;
    let raw = merged(own, defaults);
    value(raw.enabled.as_ref(), true, |v| v).then(|| Sticky {
        ttl: time(raw.ttl.as_ref(), TTL),
        prefix4: int(raw.prefix4.as_ref(), 32),
        prefix6: int(raw.prefix6.as_ref(), 64),
        max_entries: limit(raw.max_entries.as_ref()).unwrap_or(MAX_ENTRIES),
    })
}

/// Whether an algorithm sends a client where a hash says.
const fn hashes(algorithm: Algorithm) -> bool {
    matches!(algorithm, Algorithm::SourceHash | Algorithm::Maglev)
}

/// Warns about keys of backends that have no effect there.
pub fn check(file: &raw::File, config: &Config, users: &Users<'_>, findings: &mut Findings) {
    for (name, at) in file.backends.iter().flat_map(|at| &at.value.0) {
        let Some(backend) = config.backends.get(name.as_str()) else {
            continue;
        };
        findings.within_all(&["backends", name], |findings| {
            about(&at.value.options, backend, users.are_only_packets(name), findings);
        });
    }
}

fn about(own: &raw::BackendOptions, backend: &Backend, is_packets: bool, findings: &mut Findings) {
    let by_packets = "in packet modes, and no other frontend uses this backend";
    let factor = own.hash_balance_factor.as_ref().map(|at| &at.key);
    let factor = factor.filter(|_| is_packets || !hashes(backend.balance));
    if let Some(span) = factor {
        let (why, help) = if is_packets {
            (
                by_packets.to_owned(),
                "remove it: a flow's server follows from its addresses alone",
            )
        } else {
            (
                format!("with balance = \"{}\"", backend.balance.label()),
                "remove it, or write balance = \"maglev\" or \"source_hash\"",
            )
        };
        findings.within("hash_balance_factor", |findings| {
            findings.warn(
                span.clone(),
                format!("`hash_balance_factor` has no effect {why}"),
                help.to_owned(),
            );
        });
    }
    if let Some(at) = own.sticky.as_ref().filter(|_| is_packets) {
        findings.within("sticky", |findings| {
            findings.warn(
                at.key.clone(),
                format!("`sticky` has no effect {by_packets}"),
                "remove it: packet modes choose by the client's address and port; a range of ports by its address alone"
                    .to_owned(),
            );
        });
    }
}

/// Puts what has no effect back to its default.
pub fn clear(config: &mut Config) {
    let users = Users::of(config);
    let by_packets_only: Vec<BackendName> = (config.backends.keys())
        .filter(|name| users.are_only_packets(name.as_str()))
        .cloned()
        .collect();
    for name in by_packets_only {
        if let Some(backend) = config.backends.get_mut(&name) {
            let backend = Arc::make_mut(backend);
            (backend.hash_balance_factor, backend.sticky) = (None, None);
        }
    }
    for backend in config.backends.values_mut() {
        if backend.hash_balance_factor.is_some() && !hashes(backend.balance) {
            Arc::make_mut(backend).hash_balance_factor = None;
        }
    }
}
