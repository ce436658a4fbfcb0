//! Settings of access rules and limits.

use super::{Settings, limit, list, set, text};
use crate::access::{AccessRules, Action, Limits, PerClient};

/// `[frontends.NAME.access]`.
pub fn access(access: Option<&AccessRules>) -> Settings {
    let (default, rules) = access.map_or((Action::Allow, [].as_slice()), |a| (a.default, &a.rules));
    vec![("default", text(default.label())), ("rules", list(rules))]
}

/// `[frontends.NAME.limits]`, without `per_client`.
pub fn limits(limits: &Limits) -> Settings {
    let Limits {
        new_per_second,
        per_client: _,
    } = limits;
    vec![("new_per_second", limit(*new_per_second))]
}

/// `[frontends.NAME.limits.per_client]`.
pub fn per_client(limits: &Limits) -> Settings {
    let PerClient {
        prefix4,
        prefix6,
        connections,
        new_per_second,
        datagrams_per_second,
        handshakes_per_second,
    } = limits.per_client.unwrap_or_default();
    vec![
        ("prefix4", set(prefix4)),
        ("prefix6", set(prefix6)),
        ("connections", limit(connections)),
        ("new_per_second", limit(new_per_second)),
        ("datagrams_per_second", limit(datagrams_per_second)),
        ("handshakes_per_second", limit(handshakes_per_second)),
    ]
}
