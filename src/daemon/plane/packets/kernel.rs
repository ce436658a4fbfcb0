//! What the broker does in the kernel for the packet modes: the modules that know how, put together.

mod xdp;

use std::{
    io,
    num::NonZeroU32,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    time::Duration,
};

use crate::{
    base::{Holder, PortRanges},
    config::{Config, PacketService, model::XdpMode},
    engine::{
        raw::socket,
        xdp::{attach, layout, load::LoadLimits, services::ServiceMaps},
    },
    firewall::{Applied, Firewall, Lock, LockError, Monitor},
    privilege::{
        ClaimError, KernelOps, Served, XDP_DESCRIPTORS, XDP_REGISTRY, XdpAttached, XdpInterface, XdpLoad,
    },
    sys::link_settings,
};

use xdp::XdpProgram;

const _: () = assert!(
    layout::HANDED.len() == XDP_DESCRIPTORS && layout::REGISTRY == XDP_REGISTRY,
    "the broker hands out what the engine takes"
);

/// Packet sockets and firewall of this host.
#[derive(Debug)]
pub struct HostKernel {
    firewall: Firewall,
    /// Who holds the packet modes when we do.
    us: Holder,
    held: Option<Held>,
    /// The program of the XDP engine.
    xdp: XdpProgram,
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
            xdp: XdpProgram::new(),
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

    fn inherit(&mut self, kept: Vec<(String, OwnedFd)>) {
        self.xdp.inherit(kept);
    }

    fn load_xdp(&mut self, max_flows: NonZeroU32) -> Result<XdpLoad, String> {
        let limits = LoadLimits {
            // half of those of both modes, as in memory
            flows: NonZeroU32::new(max_flows.get() / 2).unwrap_or(NonZeroU32::MIN),
            nat_flows: max_flows,
        };
        self.xdp.load(limits)
    }

    fn attach_xdp(&mut self, to: XdpInterface<'_>, mode: XdpMode) -> io::Result<XdpAttached> {
        let interface = attach::Interface {
            index: to.index,
            name: to.name,
            is_loopback: to.is_loopback,
            // who does not say is none
            is_veth: link_settings::driver(to.name).is_ok_and(|driver| driver == "veth"),
        };
        self.xdp.attach(&interface, mode)
    }

    fn detach_xdp(&mut self, ifindex: u32) {
        self.xdp.detach(ifindex);
    }

    fn settle_xdp(&mut self) {
        self.xdp.settle();
    }

    fn end_xdp(&mut self) {
        self.xdp.end();
    }

    fn make_xdp_tables(&mut self, count: u8) -> io::Result<Vec<OwnedFd>> {
        self.xdp.loaded()?.make_tables(count)
    }

    fn narrow_xdp(&mut self, services: &[PacketService]) -> Result<(), String> {
        let Ok(loaded) = self.xdp.loaded() else {
            return Ok(());
        };
        let narrowed = loaded.narrow(&ServiceMaps::of(services));
        narrowed.map_err(|error| format!("take services from the XDP program: {error}"))
    }

    fn widen_xdp(&mut self, services: &[PacketService]) -> Result<Option<String>, String> {
        let Ok(loaded) = self.xdp.loaded() else {
            return Ok(None);
        };
        let wanted = ServiceMaps::of(services);
        let widened = loaded.widen(&wanted);
        widened.map_err(|error| format!("give services to the XDP program: {error}"))?;
        let left_out = wanted.left_out;
        Ok((left_out > 0).then(|| {
            format!(
                "{left_out} services are left to packet sockets: the XDP program has room for {} of one port, and for {} of several \
                 ports at one address",
                layout::SERVICES,
                layout::RANGES
            )
        }))
    }
}
