//! Safe wrappers of system calls: the only unsafe code of the crate.
#![allow(unsafe_code)]

pub mod readiness;
pub mod splice;
pub mod tcp;
