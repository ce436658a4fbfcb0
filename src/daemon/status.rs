//! What is published for the endpoints, and the one place that fills it.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::{
    Control,
    live::Sources,
    plane::packets::{Vip, VipState},
};
use crate::{
    admin::{
        Status,
        status::{AttachStatus, Network, PacketStatus, Wait, Waiting},
        views::Phase,
    },
    base::EndpointRange,
    config::EngineChoice,
    engine::network::NetworkState,
};

/// Where the status is published.
pub struct Board {
    published: Arc<ArcSwap<Status>>,
    live: Arc<Sources>,
    /// The network state that was published last, and what was made of it.
    network: Option<(Arc<NetworkState>, Arc<Network>)>,
}

impl Board {
    /// Publishes a first status.
    #[must_use]
    pub fn new(first: Status, live: Arc<Sources>) -> Self {
        Self {
            published: Arc::new(ArcSwap::from_pointee(first)),
            live,
            network: None,
        }
    }

    /// Where readers find the latest.
    #[must_use]
    pub const fn published(&self) -> &Arc<ArcSwap<Status>> {
        &self.published
    }

    /// What readers take besides.
    #[must_use]
    pub const fn live(&self) -> &Arc<Sources> {
        &self.live
    }

    /// What is made of a network state, anew only if it is another one.
    fn network(&mut self, network_state: Arc<NetworkState>) -> Arc<Network> {
        if let Some((last, network)) = &self.network
            && Arc::ptr_eq(last, &network_state)
        {
            return Arc::clone(network);
        }
        let network = Arc::new(Network {
            hops: Arc::clone(&network_state.hops),
            links: (network_state.links.iter())
                .map(|(name, link)| (link.ifindex, name.clone()))
                .collect(),
            no_way: (network_state.no_way.iter())
                .map(|(ip, why)| (*ip, why.to_string()))
                .collect(),
            moving: network_state.moving.keys().copied().collect(),
        });
        self.network = Some((network_state, Arc::clone(&network)));
        network
    }
}

impl Control {
    /// Publishes the status as it is now. To be called whenever something of it has changed, before anybody is told so.
    /// Costs no more than what waits or is served; the network's part only if that has changed.
    pub(super) fn publish_status(&mut self) {
        let packet = self.packet_status();
        let view = self.packets.view();
        let waiting = waiting(view.vips.iter().chain(self.addresses.states()));
        let before = self.board.published.load();
        let status = Status {
            started: before.started,
            phase: match (self.ready, &self.stopping) {
                (_, Some(_)) => Phase::Stopping,
                (true, None) => Phase::Running,
                (false, None) => Phase::Starting,
            },
            config_file: Arc::clone(&before.config_file),
            config_generation: self.config_generation,
            config: Arc::clone(&self.in_effect),
            last_reload_error: self.reload.last_error().map(|failed| failed.message.clone()),
            needs_restart: self.needs_restart.clone(),
            workers: before.workers,
            snapshot: Arc::clone(self.state.snapshot()),
            waiting,
            packet,
            discovery: Arc::clone(self.discovery.statuses()),
            acme: Arc::clone(self.acme.statuses()),
        };
        drop(before);
        self.board.published.store(Arc::new(status));
    }

    fn packet_status(&mut self) -> Option<PacketStatus> {
        let runs = self.packets.engine().load();
        runs.as_ref()?;
        let view = self.packets.view();
        // between its start and what its task says next
        let starting = || (EngineChoice::Raw, Arc::from("starting"));
        let (engine, engine_reason) = view.engine.clone().unwrap_or_else(starting);
        Some(PacketStatus {
            engine,
            engine_reason,
            xdp: (view.attached.iter())
                .map(|(name, at)| {
                    (
                        name.clone(),
                        AttachStatus {
                            mode: at.mode,
                            why: at.why.clone(),
                        },
                    )
                })
                .collect(),
            workers: self.packets.workers(),
            interfaces: view.served.keys().cloned().collect(),
            network: self.board.network(Arc::clone(&view.network_state)),
            rules: view.rules.clone(),
            alerts: Arc::clone(self.alerts.active()),
        })
    }
}

fn waiting<'a>(vips: impl Iterator<Item = (&'a EndpointRange, &'a Vip)>) -> Waiting {
    vips.filter_map(|(range, vip)| match &vip.state {
        VipState::Live => None,
        VipState::Waiting { why, is_elsewhere } => {
            let wait = Wait {
                why: why.clone(),
                is_elsewhere: *is_elsewhere,
            };
            Some((*range, wait))
        }
    })
    .collect()
}
