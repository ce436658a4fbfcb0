//! What the broker holds for the packet modes: a duplicate of each packet socket, so that filters can be replaced in
//! place, and what knows rules and sockets.

mod xdp;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use super::{ClaimError, KernelOps, Policy, Served, message::Outcome, policy::SocketRequest};
use crate::{
    base::PortRanges,
    config::{Config, PacketService},
    sys::{
        capability,
        interfaces::{self, Interface, Routes},
    },
};

/// Packet sockets at a time: 64 interfaces with 16 workers.
const MAX_SOCKETS: usize = 1_024;
/// How long we wait for a holder of the packet modes that is ending: it gives them up when it is told to end.
const GIVE_UP: Duration = Duration::from_secs(5);
/// Fanout groups that a process numbers before it comes to those of the process with the next id.
const GROUPS_PER_PROCESS: u32 = 64;

/// The packet modes' part of the broker.
pub struct PacketSockets {
    kernel: Box<dyn KernelOps>,
    sockets: Vec<HeldSocket>,
    /// The fanout group of each interface that has sockets, by index.
    groups: BTreeMap<u32, u16>,
    next_group: u16,
    /// Whether the firewall may hold something of ours.
    is_firewall_touched: bool,
    /// Whether the program of the XDP engine is loaded.
    is_xdp_loaded: bool,
    /// The interfaces that it is attached to, by name.
    attached: BTreeMap<String, u32>,
}

/// The broker's duplicate of a packet socket.
struct HeldSocket {
    name: String,
    index: u32,
    socket: OwnedFd,
}

impl PacketSockets {
    /// Nothing is open, nothing in effect. Groups are numbered from the process id: two Conveys on one interface must
    /// not share one.
    pub fn new(kernel: Box<dyn KernelOps>, pid: u32) -> Self {
        let [low, high, ..] = pid.wrapping_mul(GROUPS_PER_PROCESS).to_le_bytes();
        Self {
            kernel,
            sockets: Vec::new(),
            groups: BTreeMap::new(),
            next_group: u16::from_le_bytes([low, high]),
            is_firewall_touched: false,
            is_xdp_loaded: false,
            attached: BTreeMap::new(),
        }
    }

    /// Opens a packet socket if the policy allows it.
    pub fn open(&mut self, policy: &Policy, name: &str) -> (Outcome, Option<OwnedFd>) {
        match self.try_open(policy, name) {
            Ok(socket) => (Outcome::PacketSocket, Some(socket)),
            Err(outcome) => (outcome, None),
        }
    }

    fn try_open(&mut self, policy: &Policy, name: &str) -> Result<OwnedFd, Outcome> {
        let interface = self.permitted(policy, name)?;
        if self.sockets.len() >= MAX_SOCKETS {
            let why = format!(
                "{MAX_SOCKETS} packet sockets are open already, one for each worker and interface: use fewer workers \
                 ([packet] workers) or interfaces"
            );
            return Err(Outcome::refused(&why));
        }
        let step = format!("open a packet socket on {name}");
        let group = self.group(interface.index);
        let opened = self
            .kernel
            .open_packet_socket(interface.index, group, policy.in_effect())
            .and_then(|socket| Ok((socket.try_clone()?, socket)));
        let (duplicate, socket) = opened.map_err(|e| failed(&step, &e))?;
        self.sockets.push(HeldSocket {
            name: name.to_owned(),
            index: interface.index,
            socket: duplicate,
        });
        Ok(socket)
    }

    /// The interface of this name, if the policy allows packets to be taken there.
    fn permitted(&mut self, policy: &Policy, name: &str) -> Result<Interface, Outcome> {
        let mut all = interfaces::list().map_err(|e| failed("list the interfaces", &e))?;
        let Some(interface) = all.get(name) else {
            return Err(if policy.names_interface(name) {
                Outcome::failed(&format!("find interface {name}"), libc::ENODEV)
            } else {
                Outcome::refused(&format!("interface {name:?} does not exist"))
            });
        };
        let routes = Routes::new().map_err(|e| failed("query the routes", &e))?;
        let wanted = SocketRequest {
            name,
            index: interface.index,
            is_loopback: interface.is_loopback,
            addresses: &interface.addresses,
        };
        policy
            .may_open(&wanted, |server| routes.egress(server))
            .map_err(|why| Outcome::refused(&why))?;
        self.prune(&all);
        Ok(all.remove(name).unwrap_or_default())
    }

    /// Forgets the sockets of an interface. Those that are opened there later get a group of their own, whoever still
    /// holds the old ones.
    pub fn release(&mut self, name: &str) -> Outcome {
        for held in self.sockets.extract_if(.., |held| held.name == name) {
            self.groups.remove(&held.index);
        }
        Outcome::Done
    }

    /// Puts rules and filters in effect if the policy allows it; if that fails, those that were.
    pub fn serve(&mut self, policy: &mut Policy, services: Vec<PacketService>) -> Outcome {
        let host = match policy.has_bounds() {
            true => interfaces::own_addresses(),
            false => BTreeSet::new(),
        };
        if let Err(why) = policy.may_serve(&services, &host) {
            return Outcome::refused(&why);
        }
        // whoever needs nothing does not wait
        let patience = if services.is_empty() {
            Duration::ZERO
        } else {
            GIVE_UP
        };
        match self.kernel.claim(patience) {
            Ok(()) => {}
            // what is there is another one's, and right
            Err(ClaimError::Held(_)) if services.is_empty() => {
                return Outcome::served(Served::default());
            }
            Err(ClaimError::Held(holder)) => return Outcome::held(holder),
            Err(ClaimError::Failed(step, error)) => {
                return Outcome::failed(step, error.raw_os_error().unwrap_or(libc::EIO));
            }
        }
        let outcome = self.serve_held(policy, services);
        if policy.in_effect().is_empty() && !self.is_firewall_touched {
            self.kernel.release();
        }
        outcome
    }

    fn serve_held(&mut self, policy: &mut Policy, services: Vec<PacketService>) -> Outcome {
        if let Ok(all) = interfaces::list() {
            self.prune(&all);
        }
        let filters_too = services != policy.in_effect();
        match self.put_in_force(&services, filters_too) {
            Ok(served) => {
                policy.served(services);
                Outcome::served(served)
            }
            Err(why) => match self.put_in_force(policy.in_effect(), true) {
                Ok(_) => Outcome::unable(&why),
                Err(same) if same == why => Outcome::unable(&why),
                Err(worse) => Outcome::unable(&format!(
                    "{why}; the previous rules could not be restored either: {worse}"
                )),
            },
        }
    }

    /// Rules first: a packet that a filter admits must not reach the kernel's own stack too. What the XDP program decides is
    /// always within both: it passes on what it does not decide itself.
    fn put_in_force(&mut self, services: &[PacketService], filters_too: bool) -> Result<Served, String> {
        self.kernel.narrow_xdp(services)?;
        let mut served = self.put_rules_in_force(services, filters_too)?;
        let warning = self.kernel.widen_xdp(services)?;
        served.warning = match (served.warning.take(), warning) {
            (Some(first), Some(second)) => Some(format!("{first}; {second}")),
            (one, other) => one.or(other),
        };
        Ok(served)
    }

    fn put_rules_in_force(
        &mut self,
        services: &[PacketService],
        filters_too: bool,
    ) -> Result<Served, String> {
        self.is_firewall_touched = true;
        let served = capability::with_ambient(|| self.kernel.apply_firewall(services))
            .map_err(|e| format!("lend capabilities to iptables: {e}"))??;
        self.is_firewall_touched = !services.is_empty();
        if !filters_too {
            return Ok(served);
        }
        for held in &self.sockets {
            self.kernel
                .refilter(held.socket.as_fd(), services)
                .map_err(|e| format!("replace the filter of a packet socket on {}: {e}", held.name))?;
        }
        Ok(served)
    }

    /// As [`KernelOps::default_nat_ports`].
    pub fn default_nat_ports(&self, config: &Config, assumed: Option<PortRanges>) -> Option<PortRanges> {
        // without the capabilities its programs see less
        capability::with_ambient(|| self.kernel.default_nat_ports(config, assumed)).unwrap_or_default()
    }

    /// What to wait for besides the daemon.
    pub fn events(&self) -> Vec<BorrowedFd<'_>> {
        self.kernel.events()
    }

    /// Deals with what is readable of it. Whether the firewall rules may have been changed.
    pub fn attend(&mut self) -> bool {
        self.kernel.attend()
    }

    /// Detaches the XDP program and takes out the firewall rules, at the end. Nobody is left who could be told of an error.
    pub fn clear(&mut self) {
        for (_, ifindex) in std::mem::take(&mut self.attached) {
            self.kernel.detach_xdp(ifindex);
        }
        self.kernel.end_xdp();
        if self.is_firewall_touched {
            let _ = capability::with_ambient(|| self.kernel.clear_firewall());
        }
    }

    /// Drops the sockets of interfaces that have vanished, and what is attached there.
    fn prune(&mut self, all: &BTreeMap<String, Interface>) {
        let exists = |index| all.values().any(|interface| interface.index == index);
        let gone = self.attached.values().copied().filter(|index| !exists(*index));
        for ifindex in gone.collect::<Vec<_>>() {
            self.kernel.detach_xdp(ifindex);
        }
        self.attached.retain(|_, index| exists(*index));
        self.sockets.retain(|held| exists(held.index));
        self.groups.retain(|index, _| exists(*index));
    }

    fn group(&mut self, index: u32) -> u16 {
        if let Some(group) = self.groups.get(&index) {
            return *group;
        }
        while self.groups.values().any(|used| *used == self.next_group) {
            self.next_group = self.next_group.wrapping_add(1);
        }
        let group = self.next_group;
        self.next_group = group.wrapping_add(1);
        self.groups.insert(index, group);
        group
    }
}

fn failed(step: &str, error: &io::Error) -> Outcome {
    Outcome::failed(step, error.raw_os_error().unwrap_or(libc::EIO))
}
