//! `[backends.NAME.sticky]` as text.

use super::{Settings, set, time};
use crate::config::balancing::Sticky;

/// `[backends.NAME.sticky]`.
pub fn sticky(sticky: &Sticky) -> Settings {
    let Sticky {
        ttl,
        prefix4,
        prefix6,
        max_entries,
    } = sticky;
    vec![
        ("ttl", time(*ttl)),
        ("prefix4", set(*prefix4)),
        ("prefix6", set(*prefix6)),
        ("max_entries", set(*max_entries)),
    ]
}
