//! Export by OTLP (`[otlp]`).
//!
//! ```text
//! admin's Parts ─ every interval ─► task (metrics)      ┐
//!                                                       ├─ Collector ─► HTTP, on the thread convey-export
//! logging thread ─ batches ─► actor of a place (logs)   ┘
//! ```
//! Metrics are made when they are due, a part at a time, and what is not taken until the next ones are due is dropped: their sums
//! go on. Log records wait in the bounded queue of their place, as those for a syslog server do. Neither the control loop nor
//! those who move traffic wait for any of it.

#[cfg(not(feature = "otlp"))]
mod absent;
#[cfg(feature = "otlp")]
mod collector;
#[cfg(feature = "otlp")]
mod control;
#[cfg(feature = "otlp")]
mod metrics;
mod state;

#[cfg(feature = "otlp")]
pub use collector::{Collector, Sent};
#[cfg(feature = "otlp")]
pub use metrics::MetricsExport;
pub use state::{OtlpState, SignalState};
