//! Safe wrappers of system calls: the only unsafe code of the crate.
#![allow(
    unsafe_code,
    reason = "this is the one place for it; every block says why it is sound"
)]

pub mod capability;
pub mod config_file;
pub mod environment;
pub mod fdpass;
pub mod forbidden;
pub mod ids;
pub mod inherited;
pub mod interfaces;
pub mod listener;
pub mod memfd;
pub mod netlink;
pub mod packet_socket;
pub mod process;
pub mod readiness;
pub mod rlimit;
pub mod signals;
pub mod splice;
pub mod task_status;
pub mod tcp;
