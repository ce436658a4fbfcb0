//! What goes on of late, and how long things take.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::snapshot::{
    histogram::Times,
    trend::{self, Rate},
};

/// What goes on in a second, on the average of the last ten seconds, minute and five minutes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Rates {
    /// New connections.
    pub connections: Windows,
    /// Connections that failed or were refused; those that clients have ended are none.
    pub failures: Windows,
    /// Bytes from clients to servers.
    pub bytes_in: Windows,
    /// Bytes from servers to clients.
    pub bytes_out: Windows,
}

/// An average of each window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Windows {
    /// Of the last ten seconds.
    #[serde(rename = "10s")]
    pub ten_seconds: f64,
    /// Of the last minute.
    #[serde(rename = "1m")]
    pub minute: f64,
    /// Of the last five minutes.
    #[serde(rename = "5m")]
    pub five_minutes: f64,
}

/// Percentiles of the last five to ten minutes, in milliseconds: each is exact to the bucket of the histogram that it lies in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Percentiles {
    /// What half of them took at most.
    pub p50: f64,
    /// Nine of ten.
    pub p90: f64,
    /// Ninety-nine of a hundred.
    pub p99: f64,
    /// How many there were.
    pub count: u64,
}

impl From<trend::Rates> for Rates {
    fn from(rates: trend::Rates) -> Self {
        let windows = |of: fn(&Rate) -> f64| Windows {
            ten_seconds: of(&rates.ten_seconds),
            minute: of(&rates.minute),
            five_minutes: of(&rates.five_minutes),
        };
        Self {
            connections: windows(|rate| rate.connections),
            failures: windows(|rate| rate.failures),
            bytes_in: windows(|rate| rate.bytes_in),
            bytes_out: windows(|rate| rate.bytes_out),
        }
    }
}

impl Percentiles {
    /// Of what came between two moments; `None` if nothing did.
    #[must_use]
    pub fn between(earlier: &Times, now: &Times) -> Option<Self> {
        let times = now.since(earlier);
        let at = |percent| times.percentile(percent).map(milliseconds);
        Some(Self {
            p50: at(50)?,
            p90: at(90)?,
            p99: at(99)?,
            count: times.count(),
        })
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
