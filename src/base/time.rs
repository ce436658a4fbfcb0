//! Times for people.

use std::time::Duration;

/// A time with its two largest units: `59s`, `3m 12s`, `2h 3m`, `5d 4h`.
#[must_use]
pub fn two_units(time: Duration) -> String {
    let whole = time.as_secs();
    let (days, hours, minutes) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{whole}s"),
        (0, 0, _) => format!("{minutes}m {}s", whole % 60),
        (0, ..) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}
