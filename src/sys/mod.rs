//! Safe wrappers of system calls: the only unsafe code of the crate.
#![allow(
    unsafe_code,
    reason = "this is the one place for it; every block says why it is sound"
)]

pub mod bpf;
pub mod calls;
pub mod capability;
pub(crate) mod clock;
pub(crate) mod config_file;
pub(crate) mod controllers;
pub(crate) mod directory;
pub(crate) mod environment;
pub mod fdpass;
pub mod ids;
pub(crate) mod inherited;
pub mod interfaces;
pub(crate) mod link_settings;
pub(crate) mod listener;
pub(crate) mod listener_options;
pub(crate) mod manager;
pub mod memfd;
pub mod memory;
pub(crate) mod netlink;
pub(crate) mod own_file;
pub mod packet_socket;
pub(crate) mod poller;
pub mod process;
pub(crate) mod processes;
pub(crate) mod readiness;
pub(crate) mod replace_file;
pub(crate) mod rlimit;
pub mod seccomp;
pub mod server_socket;
pub(crate) mod signals;
pub(crate) mod socket_file;
pub(crate) mod socket_options;
pub(crate) mod splice;
pub mod task_status;
pub(crate) mod tcp;
pub(crate) mod udp_socket;
pub(crate) mod unix_stream;
pub(crate) mod usage;
pub(crate) mod zone;
