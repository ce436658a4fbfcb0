//! Wiring: start order, reload, signals, shutdown, readiness.

pub mod logging;
