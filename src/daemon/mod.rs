//! Wiring: start order, reload, signals, shutdown, readiness.
