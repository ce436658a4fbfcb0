//! What the broker does in the kernel for the packet modes, as it is handed to it.

use std::{
    io,
    num::NonZeroU32,
    os::fd::{BorrowedFd, OwnedFd},
    time::Duration,
};

use crate::{
    base::{Holder, PortRanges, XdpAttachMode},
    config::{Config, PacketService, model::XdpMode},
};

/// What the broker does for the packet modes, handed to it by the daemon's wiring: it defines the verbs and the policy, and
/// knows neither firewall nor packet sockets. Called in the broker's process only.
pub trait KernelOps {
    /// Opens a packet socket on an interface, as `engine::raw::socket::open` does. `group` is the same for all sockets
    /// of one interface, and another for each interface.
    ///
    /// # Errors
    /// The system call that failed.
    fn open_packet_socket(
        &mut self,
        ifindex: u32,
        group: u16,
        services: &[PacketService],
    ) -> io::Result<OwnedFd>;

    /// Replaces the filter of a packet socket.
    ///
    /// # Errors
    /// The system call that failed.
    fn refilter(&mut self, socket: BorrowedFd<'_>, services: &[PacketService]) -> io::Result<()>;

    /// Takes the packet modes of this network namespace, of which one process is the holder, unless this one is already;
    /// waits this long at most for a holder that gives them up. Where nobody could be in the way, there is nothing to do.
    ///
    /// # Errors
    /// Somebody else holds them, or that cannot be found out.
    fn claim(&mut self, _patience: Duration) -> Result<(), ClaimError> {
        Ok(())
    }

    /// Gives the packet modes up.
    fn release(&mut self) {}

    /// What to wait for besides the daemon: when one of these is readable, [`attend`](Self::attend) is called.
    fn events(&self) -> Vec<BorrowedFd<'_>> {
        Vec::new()
    }

    /// Deals with what is readable, without waiting. Whether the firewall rules may have been changed.
    fn attend(&mut self) -> bool {
        false
    }

    /// The NAT ports of this host where a configuration, which was resolved with the `_assumed` ones, names none; `None`: the
    /// stock list.
    fn default_nat_ports(&self, _config: &Config, _assumed: Option<PortRanges>) -> Option<PortRanges> {
        None
    }

    /// Makes firewall rules and reserved ports be those of these services.
    ///
    /// # Errors
    /// What to tell the operator.
    fn apply_firewall(&mut self, services: &[PacketService]) -> Result<Served, String>;

    /// Takes out everything that [`apply_firewall`](Self::apply_firewall) put in, going on after errors.
    ///
    /// # Errors
    /// What to tell the operator.
    fn clear_firewall(&mut self) -> Result<(), String>;

    /// Takes what an earlier process has left to this broker, by the names under which the service manager kept it; before the
    /// broker confines itself.
    fn inherit(&mut self, _kept: Vec<(String, OwnedFd)>) {}

    /// Loads the program of the XDP engine with maps for so many flows, or takes over what an earlier process has left of it;
    /// again: the same once more.
    ///
    /// # Errors
    /// What to tell the operator.
    fn load_xdp(&mut self, _max_flows: NonZeroU32) -> Result<XdpLoad, String> {
        Err("this process has no XDP engine".into())
    }

    /// Attaches the program to an interface, unless it is, and says where; [`XdpAttachMode::None`] with the reason where that
    /// cannot be.
    ///
    /// # Errors
    /// It is not loaded, or the interface cannot be looked at.
    fn attach_xdp(&mut self, _to: XdpInterface<'_>, _mode: XdpMode) -> io::Result<XdpAttached> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Detaches the program from the interface of this index.
    fn detach_xdp(&mut self, _ifindex: u32) {}

    /// Ends what an earlier process has left of the program and this one has not taken over.
    fn settle_xdp(&mut self) {}

    /// Ends all of the program, so that nothing of it is left to the process after this one.
    fn end_xdp(&mut self) {}

    /// Makes tables of the program.
    ///
    /// # Errors
    /// It is not loaded, or there is no memory.
    fn make_xdp_tables(&mut self, _count: u8) -> io::Result<Vec<OwnedFd>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Has the program, if it is loaded, decide nothing any more that is not for these services.
    ///
    /// # Errors
    /// What to tell the operator.
    fn narrow_xdp(&mut self, _services: &[PacketService]) -> Result<(), String> {
        Ok(())
    }

    /// Has the program, if it is loaded, decide what is for these services, after [`narrow_xdp`](Self::narrow_xdp). What the
    /// operator should know of it.
    ///
    /// # Errors
    /// What to tell the operator.
    fn widen_xdp(&mut self, _services: &[PacketService]) -> Result<Option<String>, String> {
        Ok(None)
    }
}

/// The program of the XDP engine is loaded.
#[derive(Debug)]
pub struct XdpLoad {
    /// [`XDP_DESCRIPTORS`](super::XDP_DESCRIPTORS) maps and programs, then [`XDP_REGISTRY`](super::XDP_REGISTRY) notes, in the
    /// order that the engine knows.
    pub fds: Vec<OwnedFd>,
    /// Whether it goes on with what an earlier process has left.
    pub takeover: Takeover,
    /// Why the process after this one will not find it, if it will not.
    pub not_kept: Option<String>,
}

/// Whether the program of the XDP engine goes on with what an earlier process has left of it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Takeover {
    /// There was nothing.
    Fresh,
    /// It does: its flows go on.
    TakenOver,
    /// It does not: what there was has ended.
    Refused {
        /// Why, for the operator.
        why: String,
    },
}

/// An interface that the program of the XDP engine is attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XdpInterface<'a> {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: &'a str,
    /// Whether it is a loopback interface.
    pub is_loopback: bool,
}

/// Where the program of the XDP engine is attached to an interface.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct XdpAttached {
    /// Where.
    pub mode: XdpAttachMode,
    /// Why not better; empty where it is native.
    pub why: String,
    /// Why the process after this one will not find it attached, if it will not.
    pub not_kept: Option<String>,
}

/// Why the packet modes cannot be claimed.
#[derive(Debug)]
pub enum ClaimError {
    /// Somebody else holds them.
    Held(Holder),
    /// This step failed.
    Failed(&'static str, io::Error),
}

/// Rules are in effect for the services that were asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Served {
    /// Whether rules had to be changed for it.
    pub has_changed: bool,
    /// Whether the broker tells when another program changes rules.
    pub is_watched: bool,
    /// What the operator should know.
    pub warning: Option<String>,
}

/// Those of a process without packet modes: it can do nothing, and has nothing to clear.
#[derive(Debug, Clone, Copy)]
pub struct NoPacketModes;

impl KernelOps for NoPacketModes {
    fn open_packet_socket(&mut self, _: u32, _: u16, _: &[PacketService]) -> io::Result<OwnedFd> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn refilter(&mut self, _: BorrowedFd<'_>, _: &[PacketService]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn apply_firewall(&mut self, services: &[PacketService]) -> Result<Served, String> {
        if services.is_empty() {
            Ok(Served::default())
        } else {
            Err("this process has no packet modes".into())
        }
    }

    fn clear_firewall(&mut self) -> Result<(), String> {
        Ok(())
    }
}
