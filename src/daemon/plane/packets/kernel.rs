//! What the broker does in the kernel for the packet modes: the modules that know how, put together.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
};

use crate::{
    config::PacketService,
    engine::raw::socket,
    firewall::{Applied, Firewall},
    privilege::{KernelOps, Served},
};

/// Packet sockets and firewall of this host.
#[derive(Debug)]
pub struct HostKernel {
    firewall: Firewall,
}

impl HostKernel {
    /// With this firewall.
    #[must_use]
    pub const fn new(firewall: Firewall) -> Self {
        Self { firewall }
    }
}

impl KernelOps for HostKernel {
    fn open_packet_socket(
        &mut self,
        ifindex: u32,
        group: u16,
        services: &[PacketService],
    ) -> io::Result<OwnedFd> {
        socket::open(ifindex, group, services)
    }

    fn refilter(&mut self, socket: BorrowedFd<'_>, services: &[PacketService]) -> io::Result<()> {
        socket::refilter(socket, services)
    }

    fn apply_firewall(&mut self, services: &[PacketService]) -> Result<Served, String> {
        match self.firewall.apply(services) {
            Ok(Applied { has_changed, warning }) => Ok(Served { has_changed, warning }),
            Err(error) => Err(error.to_string()),
        }
    }

    fn clear_firewall(&mut self) -> Result<(), String> {
        self.firewall.clear().map_err(|errors| {
            let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
            texts.join("; ")
        })
    }
}
