//! What the broker does in the kernel for the packet modes: the modules that know how, put together.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    time::Duration,
};

use crate::{
    base::{Holder, PortRanges},
    config::{Config, PacketService},
    engine::raw::socket,
    firewall::{Applied, Firewall, Lock, LockError, Monitor},
    privilege::{ClaimError, KernelOps, Served},
};

/// Packet sockets and firewall of this host.
#[derive(Debug)]
pub struct HostKernel {
    firewall: Firewall,
    /// Who holds the packet modes when we do.
    us: Holder,
    held: Option<Held>,
}

/// The packet modes are ours.
#[derive(Debug)]
struct Held {
    lock: Lock,
    /// Without it nobody tells of changes to the rules.
    monitor: Option<Monitor>,
}

impl HostKernel {
    /// With this firewall, for this process.
    #[must_use]
    pub const fn new(firewall: Firewall, us: Holder) -> Self {
        Self {
            firewall,
            us,
            held: None,
        }
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

    fn claim(&mut self, patience: Duration) -> Result<(), ClaimError> {
        if self.held.is_some() {
            return Ok(());
        }
        let lock = Lock::claim(&self.us, patience).map_err(|error| match error {
            LockError::Held(holder) => ClaimError::Held(holder),
            LockError::Failed(error) => ClaimError::Failed("claim the packet modes", error),
        })?;
        // the rules are looked at every few seconds besides
        let monitor = self.firewall.is_nft().then(Monitor::open).and_then(Result::ok);
        self.held = Some(Held { lock, monitor });
        Ok(())
    }

    fn release(&mut self) {
        self.held = None;
    }

    fn events(&self) -> Vec<BorrowedFd<'_>> {
        let Some(Held { lock, monitor }) = &self.held else {
            return Vec::new();
        };
        let mut events = vec![lock.as_fd()];
        events.extend(monitor.iter().map(Monitor::as_fd));
        events
    }

    fn attend(&mut self) -> bool {
        let Some(Held { lock, monitor }) = &mut self.held else {
            return false;
        };
        lock.answer();
        monitor.as_mut().is_some_and(Monitor::take)
    }

    fn default_nat_ports(&self, config: &Config, assumed: Option<PortRanges>) -> Option<PortRanges> {
        self.firewall.default_nat_ports(config, assumed)
    }

    fn apply_firewall(&mut self, services: &[PacketService]) -> Result<Served, String> {
        match self.firewall.apply(services) {
            Ok(Applied { has_changed, warning }) => Ok(Served {
                has_changed,
                is_watched: self.held.as_ref().is_some_and(|held| held.monitor.is_some()),
                warning,
            }),
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
