//! Which addresses of proxied frontends this host has: their listeners are bound all the same, so that a standby is ready when
//! the address comes, and a mistyped one must be seen.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use tokio::sync::watch;

use super::packets::{Vip, VipState, Vips, absence};
use crate::{
    base::{EndpointRange, FrontendName},
    config::Config,
    engine::network::{self, Follower, NetworkState},
};

/// See the [module](self).
#[derive(Debug, Default)]
pub struct ProxiedAddresses {
    /// Those of the configuration in effect, wildcards not among them.
    listened: BTreeMap<EndpointRange, FrontendName>,
    following: Option<Following>,
    /// Those that wait, or have waited.
    vips: Vips,
    has_warned: bool,
}

/// The follower, and what it says.
#[derive(Debug)]
struct Following {
    follower: Follower,
    states: watch::Receiver<Arc<NetworkState>>,
}

impl ProxiedAddresses {
    /// Follows the addresses of a configuration from now on. To be called within the runtime.
    pub fn follow(&mut self, config: &Config) {
        let proxied = config.frontends.values().filter(|f| !f.mode.is_packet());
        self.listened = proxied
            .flat_map(|frontend| {
                frontend
                    .ranges()
                    .map(|endpoint| (endpoint, frontend.name.clone()))
            })
            .filter(|(endpoint, _)| !endpoint.ip().is_unspecified())
            .collect();
        let wanted: BTreeSet<IpAddr> = self.listened.keys().map(|endpoint| endpoint.ip()).collect();
        if wanted.is_empty() {
            self.following = None;
        } else if let Some(following) = &self.following {
            following.follower.want_addresses(wanted);
        } else {
            self.start(wanted);
        }
        self.update();
    }

    fn start(&mut self, wanted: BTreeSet<IpAddr>) {
        match Follower::start_addresses(wanted) {
            Ok(follower) => {
                let states = follower.network_states();
                self.following = Some(Following { follower, states });
            }
            Err(error) if !self.has_warned => {
                self.has_warned = true;
                tracing::warn!(
                    event = "addresses_not_followed",
                    "cannot follow the addresses of this host: {error}; frontends on one that it does not have are not shown \
                     as waiting"
                );
            }
            Err(_) => {}
        }
    }

    /// Resolves when the addresses of this host are others.
    pub async fn changed(&mut self) {
        if let Some(following) = &mut self.following
            && following.states.changed().await.is_ok()
        {
            return;
        }
        std::future::pending::<()>().await;
    }

    /// Takes up what is known now, and says which addresses have come and gone.
    pub fn update(&mut self) {
        let Some(following) = &mut self.following else {
            self.vips.update(BTreeMap::new());
            return;
        };
        let state = Arc::clone(&following.states.borrow_and_update());
        let before = self.vips.states();
        let states = self.listened.iter().filter_map(|(endpoint, frontend)| {
            let (ip, known) = (endpoint.ip(), before.get(endpoint));
            let vip = |state| Vip {
                frontend: frontend.clone(),
                state,
            };
            let has = state.vips.contains_key(&ip);
            if !has && !state.hops.absent_vips.contains(&ip) {
                // the follower has not heard yet that it is wanted
                return known.cloned().map(|known| (*endpoint, known));
            }
            // a route of type local gives a host whole networks; a kernel that does not answer is no reason to warn
            if has || network::is_own(ip).unwrap_or(true) {
                return known.map(|_| (*endpoint, vip(VipState::Live)));
            }
            let waiting = VipState::Waiting {
                why: absence(ip, &state),
                is_elsewhere: true,
            };
            Some((*endpoint, vip(waiting)))
        });
        let states = states.collect();
        self.vips.update(states);
    }

    /// Those that wait, and some that do not.
    #[must_use]
    pub const fn states(&self) -> &BTreeMap<EndpointRange, Vip> {
        self.vips.states()
    }

    /// Names of the frontends that wait for one of theirs, in words; empty if none does.
    #[must_use]
    pub fn waiting(&self) -> &str {
        self.vips.waiting()
    }
}
