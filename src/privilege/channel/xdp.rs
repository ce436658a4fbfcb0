//! What is asked about the program of the XDP engine.

use std::os::fd::OwnedFd;

use super::{Channel, unexpected};
use crate::privilege::{
    BrokerError, Takeover, XDP_DESCRIPTORS, XDP_REGISTRY, XdpAttached,
    message::{Outcome, Verb},
};

/// The program of the XDP engine as the broker has loaded it.
#[derive(Debug)]
pub struct XdpGrant {
    /// Maps and programs, in the order that the engine knows.
    pub fds: Vec<OwnedFd>,
    /// Notes for the process after this one.
    pub registry: [OwnedFd; XDP_REGISTRY],
    /// Whether it goes on with what an earlier process has left.
    pub takeover: Takeover,
    /// Why the process after this one will not find it, if it will not.
    pub not_kept: Option<String>,
}

impl Channel {
    /// Has the broker load the program of the XDP engine with its maps, unless it has; or take over what an earlier process has
    /// left of it. What is not taken over decides nothing before it is attached.
    ///
    /// # Errors
    /// Refused (another engine is configured), it cannot be loaded, or the broker is lost.
    pub fn xdp_load(&self) -> Result<XdpGrant, BrokerError> {
        let (outcome, mut fds) = self.request(Verb::XdpLoad, &[])?;
        let Outcome::XdpLoaded { takeover, not_kept } = outcome else {
            return Err(unexpected(&outcome));
        };
        // their number has been looked at
        let registry = fds.split_off(XDP_DESCRIPTORS.min(fds.len()));
        let registry = <[OwnedFd; XDP_REGISTRY]>::try_from(registry)
            .map_err(|_| BrokerError::Lost("descriptors of the XDP program are missing".into()))?;
        Ok(XdpGrant {
            fds,
            registry,
            takeover,
            not_kept,
        })
    }

    /// Has the broker end what an earlier process has left of that program and this one has not taken over: once the first
    /// configuration is in effect.
    ///
    /// # Errors
    /// The broker is lost.
    pub fn xdp_settled(&self) -> Result<(), BrokerError> {
        self.call(Verb::XdpSettled, &[], &Outcome::Done).map(drop)
    }

    /// Has the broker attach that program to an interface, unless it is; where packet sockets may be opened, too. Where it
    /// cannot be attached, that is no error.
    ///
    /// # Errors
    /// Refused (nothing needs this interface), the interface is gone (`ENODEV`), or the broker is lost.
    pub fn xdp_attach(&self, interface: &str) -> Result<XdpAttached, BrokerError> {
        match self.request(Verb::XdpAttach(interface.to_owned()), &[])? {
            (Outcome::XdpAttached(attached), _) => Ok(attached),
            (outcome, _) => Err(unexpected(&outcome)),
        }
    }

    /// Has the broker detach that program from an interface.
    ///
    /// # Errors
    /// The broker is lost.
    pub fn xdp_detach(&self, interface: &str) -> Result<(), BrokerError> {
        let verb = Verb::XdpDetach(interface.to_owned());
        self.call(verb, &[], &Outcome::Done).map(drop)
    }

    /// Has the broker make tables for that program, [`MAX_TABLES`](super::MAX_TABLES) at most.
    ///
    /// # Errors
    /// Refused (another engine is configured, too many), there is no memory, or the broker is lost.
    pub fn xdp_tables(&self, count: u8) -> Result<Vec<OwnedFd>, BrokerError> {
        self.call(Verb::XdpTables(count), &[], &Outcome::XdpTables(count))
    }
}
