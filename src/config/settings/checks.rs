//! Settings of checks.

use super::{Settings, set, text, time};
use crate::config::model::{HealthCheck, PassiveCheck};

/// `[backends.NAME.health_check]`.
pub fn health_check(check: Option<&HealthCheck>) -> Settings {
    let Some(HealthCheck {
        interval,
        timeout,
        rise,
        fall,
        fast_interval,
        send_proxy,
        initial,
    }) = check
    else {
        return vec![("enabled", set(false))];
    };
    vec![
        ("enabled", set(true)),
        ("interval", time(*interval)),
        ("timeout", time(*timeout)),
        ("rise", set(*rise)),
        ("fall", set(*fall)),
        ("fast_interval", time(*fast_interval)),
        ("send_proxy", set(*send_proxy)),
        ("initial", text(initial.label())),
    ]
}

/// `[backends.NAME.passive_check]`.
pub fn passive_check(check: Option<&PassiveCheck>) -> Settings {
    let Some(PassiveCheck {
        max_failures,
        ejection_time,
        max_ejection_time,
    }) = check
    else {
        return vec![("enabled", set(false))];
    };
    vec![
        ("enabled", set(true)),
        ("max_failures", set(*max_failures)),
        ("ejection_time", time(*ejection_time)),
        ("max_ejection_time", time(*max_ejection_time)),
    ]
}
