//! The socket filter: classic BPF that admits what the services need, and nothing else. Pure.

use crate::{config::PacketService, sys::packet_socket::Instruction};

/// The program for these services: incoming packets to a VIP's port, from a server to the NAT ports, ICMP errors and
/// non-first fragments to the addresses of these; never what we send ourselves.
#[must_use]
pub fn program(services: &[PacketService]) -> Vec<Instruction> {
    let _ = services;
    todo!("engine")
}
