//! Convey, a layer-4 load balancer for Linux.

pub mod admin;
pub mod balance;
pub mod base;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod health;
pub mod privilege;
pub mod proxy;
pub mod snapshot;
pub mod sys;
