//! The program of the XDP engine, which the broker loads and attaches.

use std::os::fd::OwnedFd;

use super::{PacketSockets, failed};
use crate::privilege::{
    Policy, XDP_DESCRIPTORS, XDP_REGISTRY, XdpInterface, XdpLoad, confine,
    message::{MAX_TABLES, Outcome},
};

impl PacketSockets {
    /// Takes what an earlier process has left, by the names under which it was kept.
    pub fn inherit(&mut self, kept: Vec<(String, OwnedFd)>) {
        self.kernel.inherit(kept);
    }

    /// Loads the program, unless it is, or takes over what an earlier process has left, and hands its maps and programs out.
    /// What is not taken over decides nothing before it is attached.
    pub fn load_xdp(&mut self, policy: &Policy) -> (Outcome, Vec<OwnedFd>) {
        if let Some(refused) = self.refuse_xdp(policy) {
            return (refused, Vec::new());
        }
        let loaded = self.kernel.load_xdp(policy.config().packet.max_flows);
        // whatever came of it: what is tried again does without
        if let Err(error) = confine::has_loaded() {
            let why = format!("give up a capability after loading the XDP program: {error}");
            return (Outcome::unable(&why), Vec::new());
        }
        let XdpLoad {
            fds,
            takeover,
            not_kept,
        } = match loaded {
            Ok(loaded) => loaded,
            Err(why) => return (Outcome::unable(&why), Vec::new()),
        };
        self.is_xdp_loaded = true;
        if let Err(why) = self.kernel.widen_xdp(policy.in_effect()) {
            return (Outcome::unable(&why), Vec::new());
        }
        debug_assert_eq!(fds.len(), XDP_DESCRIPTORS + XDP_REGISTRY);
        (Outcome::xdp_loaded(takeover, not_kept.as_deref()), fds)
    }

    /// Makes tables.
    pub fn xdp_tables(&mut self, policy: &Policy, count: u8) -> (Outcome, Vec<OwnedFd>) {
        if let Some(refused) = self.refuse_xdp(policy) {
            return (refused, Vec::new());
        }
        if count > MAX_TABLES {
            let why = format!("{count} tables at once are more than {MAX_TABLES}");
            return (Outcome::refused(&why), Vec::new());
        }
        match self.kernel.make_xdp_tables(count) {
            Ok(tables) => (Outcome::XdpTables(count), tables),
            Err(error) => (failed("make tables of the XDP program", &error), Vec::new()),
        }
    }

    /// Attaches the program to an interface where the policy allows packets to be taken.
    pub fn attach_xdp(&mut self, policy: &Policy, name: &str) -> Outcome {
        if let Some(refused) = self.refuse_xdp(policy) {
            return refused;
        }
        let interface = match self.permitted(policy, name) {
            Ok(interface) => interface,
            Err(outcome) => return outcome,
        };
        let to = XdpInterface {
            index: interface.index,
            name,
            is_loopback: interface.is_loopback,
        };
        match self.kernel.attach_xdp(to, policy.config().packet.xdp_mode) {
            Ok(attached) => {
                self.attached.insert(name.to_owned(), interface.index);
                Outcome::xdp_attached(&attached)
            }
            Err(error) => failed(&format!("attach the XDP program to {name}"), &error),
        }
    }

    /// Detaches the program from an interface, if it is attached there.
    pub fn detach_xdp(&mut self, name: &str) -> Outcome {
        if let Some(ifindex) = self.attached.remove(name) {
            self.kernel.detach_xdp(ifindex);
        }
        Outcome::Done
    }

    /// Ends what an earlier process has left and this one has not taken over.
    pub fn settle_xdp(&mut self) -> Outcome {
        self.kernel.settle_xdp();
        Outcome::Done
    }

    /// A refusal, where no configuration since the start has wanted the XDP engine.
    fn refuse_xdp(&self, policy: &Policy) -> Option<Outcome> {
        let is_wanted = self.is_xdp_loaded || policy.has_xdp();
        (!is_wanted).then(|| Outcome::refused("the configuration does not have engine = \"xdp\""))
    }
}
