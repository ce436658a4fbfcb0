//! The interfaces that are served, and those that should be and cannot.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::OwnedFd,
    sync::Arc,
};

use crate::{
    base::XdpAttachMode,
    engine::{Engine, xdp::Attached},
    privilege::{BrokerError, Client},
};

/// Interfaces by name and index, with a socket for each worker.
pub type Sockets = Vec<(String, u32, Vec<OwnedFd>)>;

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Interfaces {
    /// Those that are served, with their indexes.
    served: BTreeMap<String, u32>,
    /// Where the program of the xdp engine is attached to them.
    attached: BTreeMap<String, Attached>,
    /// Those whose sockets could not be had, and why: said once.
    refused: BTreeMap<String, String>,
    /// Those of which the broker may hold duplicates that nobody needs.
    unreleased: BTreeSet<Arc<str>>,
}

impl Interfaces {
    /// Those that are served, with their indexes.
    pub const fn served(&self) -> &BTreeMap<String, u32> {
        &self.served
    }

    /// Where the program of the xdp engine is attached to them.
    pub const fn attached(&self) -> &BTreeMap<String, Attached> {
        &self.attached
    }

    /// Has the program of an engine that has one attached to an interface whose sockets are served.
    pub async fn attach(&mut self, name: String, ifindex: u32, engine: &Engine, broker: &Client) {
        let Some(xdp) = engine.xdp() else { return };
        let attached = match broker.xdp_attach(name.as_str().into()).await {
            Ok(attached) => {
                if let Some(why) = attached.not_kept {
                    tracing::warn!(
                        event = "xdp_not_kept", interface = %name,
                        "systemd will not keep xdp on interface {name} over a restart, during which its packets will be lost: {why}; restart \
                         convey when that is mended"
                    );
                }
                Attached {
                    mode: attached.mode,
                    why: attached.why,
                }
            }
            Err(error) => Attached {
                mode: XdpAttachMode::None,
                why: error.to_string(),
            },
        };
        let (mode, why) = (attached.mode, attached.why.as_str());
        let reason = if why.is_empty() {
            String::new()
        } else {
            format!(": {why}")
        };
        tracing::info!(
            event = "xdp_attached", interface = %name, mode = %mode,
            "xdp on interface {name}: {mode}{reason}"
        );
        xdp.attached(ifindex, Some(attached.clone()));
        self.attached.insert(name, attached);
    }

    /// Has the program detached from an interface, whose packets all go to its sockets from then on.
    pub async fn detach(&mut self, name: &str, broker: &Client) {
        if self.attached.remove(name).is_some()
            && let Err(error) = broker.xdp_detach(name.into()).await
        {
            tracing::error!(event = "xdp_kept", interface = %name, "cannot detach xdp from interface {name}: {error}");
        }
    }

    /// Whether something has to be tried again.
    pub fn have_failed(&self) -> bool {
        !self.refused.is_empty() || !self.unreleased.is_empty()
    }

    /// Notes one that is served now.
    pub fn insert(&mut self, name: String, ifindex: u32) {
        self.refused.remove(&name);
        self.served.insert(name, ifindex);
    }

    /// One has vanished, and its sockets with it.
    pub async fn lost(&mut self, ifindex: u32, engine: Option<&Engine>, broker: &Client) {
        let lost = self.served.iter().find(|(_, index)| **index == ifindex);
        let Some(name) = lost.map(|(name, _)| name.clone()) else {
            return;
        };
        self.served.remove(&name);
        tracing::warn!(event = "interface_lost", interface = %name, "interface {name} was removed from the host");
        if let Some(xdp) = engine.and_then(Engine::xdp) {
            xdp.attached(ifindex, None);
        }
        self.detach(&name, broker).await;
        self.release(name.into(), broker).await;
    }

    /// Opens sockets on the interfaces that are needed and not served; those that could be had are in `opened`, even on an
    /// error.
    ///
    /// # Errors
    /// The first that could not be had.
    pub async fn open_missing(
        &mut self,
        needed: BTreeMap<String, u32>,
        opened: &mut Sockets,
        workers: usize,
        broker: &Client,
    ) -> Result<(), BrokerError> {
        for (name, ifindex) in needed {
            if !self.served.contains_key(&name) {
                let sockets = self.open(&name, workers, broker).await?;
                opened.push((name, ifindex, sockets));
            }
        }
        Ok(())
    }

    /// Has the engine serve exactly the interfaces that are needed, as far as their sockets can be had.
    pub async fn serve(
        &mut self,
        needed: BTreeMap<String, u32>,
        engine: &Engine,
        workers: usize,
        broker: &Client,
    ) {
        let gone: Vec<String> = (self.served.iter())
            .filter(|(name, ifindex)| needed.get(*name) != Some(ifindex))
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            if let Some(ifindex) = self.served.remove(&name) {
                self.detach(&name, broker).await;
                if let Some(xdp) = engine.xdp() {
                    xdp.attached(ifindex, None);
                }
                engine.remove_interface(ifindex);
                tracing::info!(event = "interface_left", interface = %name, "no longer serving interface {name}");
                self.release(name.into(), broker).await;
            }
        }
        self.refused.retain(|name, _| needed.contains_key(name));
        for (name, ifindex) in needed {
            if self.served.contains_key(&name) {
                continue;
            }
            match self.open(&name, workers, broker).await {
                Ok(sockets) => {
                    engine.add_interface(ifindex, sockets);
                    tracing::info!(event = "interface_served", interface = %name, "serving interface {name}");
                    self.insert(name.clone(), ifindex);
                    self.attach(name, ifindex, engine, broker).await;
                }
                Err(error) => self.refuse(name, error.to_string()),
            }
        }
    }

    fn refuse(&mut self, name: String, why: String) {
        if self.refused.get(&name) != Some(&why) {
            tracing::error!(event = "interface_refused", interface = %name, "cannot use interface {name}: {why}");
            self.refused.insert(name, why);
        }
    }

    async fn open(
        &mut self,
        name: &str,
        workers: usize,
        broker: &Client,
    ) -> Result<Vec<OwnedFd>, BrokerError> {
        let name: Arc<str> = name.into();
        if self.unreleased.contains(&name) {
            // or the release would come to mean these sockets
            broker.release_packet_sockets(Arc::clone(&name)).await?;
            self.unreleased.remove(&name);
        }
        let mut sockets = Vec::with_capacity(workers);
        while sockets.len() < workers {
            match broker.packet_socket(Arc::clone(&name)).await {
                Ok(socket) => sockets.push(socket),
                Err(error) => {
                    drop(sockets);
                    self.release(name, broker).await;
                    return Err(error);
                }
            }
        }
        Ok(sockets)
    }

    /// Has the broker close its duplicates of an interface's sockets: as long as it holds them they are members of the
    /// fanout group, and what the kernel gives them is lost.
    pub async fn release(&mut self, name: Arc<str>, broker: &Client) {
        match broker.release_packet_sockets(Arc::clone(&name)).await {
            Ok(()) => {
                self.unreleased.remove(&name);
            }
            Err(error) => {
                if self.unreleased.insert(Arc::clone(&name)) {
                    tracing::error!(event = "interface_kept", interface = %name, "cannot release interface {name}: {error}");
                }
            }
        }
    }

    /// Tries again to have released what could not be.
    pub async fn release_rest(&mut self, broker: &Client) {
        for name in self.unreleased.clone() {
            self.release(name, broker).await;
        }
    }
}
