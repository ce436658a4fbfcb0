//! The pure state machine of one server's health.
