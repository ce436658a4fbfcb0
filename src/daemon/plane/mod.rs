//! The planes that carry traffic or answers: what a reload prepares, and then commits or puts back by dropping it.

pub mod addresses;
pub mod listeners;
pub mod packets;
pub mod socket_files;
pub mod sockets;
pub mod stats;
