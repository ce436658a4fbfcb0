//! What a reload would cut: an address that changes between mode proxy and the packet modes, within a frontend or from one to
//! another, takes established connections from whoever has them. (Between passthrough and dsr flows go on as they began.)

use std::{
    collections::{BTreeSet, HashSet},
    net::IpAddr,
    sync::Arc,
};

use tokio::sync::oneshot;

use super::Done;
use crate::{
    admin::views::{ReloadFailed, WouldCut},
    base::{Endpoint, EndpointRange, Protocol, TerminationReason},
    config::{Config, ProxiedEndpoints},
    daemon::Control,
    engine::Engine,
    flow::FiveTuple,
    proxy::{Select, Workers},
};

/// Most addresses that a refusal names.
const NAMED: usize = 3;

/// See the [module](self).
#[derive(Debug, Clone, Default)]
pub struct Cut {
    /// Addresses whose packets go to the packet modes from now on, and not to the kernel any more.
    to_packets: Arc<HashSet<(IpAddr, u16)>>,
    /// VIPs whose packets go to a listener from now on, and not to the packet modes any more.
    to_listeners: Arc<HashSet<Endpoint>>,
}

/// Connections that are cut.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    connections: usize,
    flows: u64,
}

impl Cut {
    /// What changes hands from one configuration to the next. `in_effect` are VIPs that flows may still have.
    pub fn between(
        before: &Config,
        after: &Config,
        in_effect: impl IntoIterator<Item = EndpointRange>,
    ) -> Self {
        let (vips_before, vips_after) = (vips(before), vips(after));
        let listeners: ProxiedEndpoints = after.proxied_endpoints();
        let new = vips_after.difference(&vips_before);
        let tcp = new.filter(|vip| vip.protocol == Protocol::Tcp);
        let to_packets = tcp.map(|vip| (vip.ip(), vip.port())).collect();
        let in_effect = in_effect.into_iter().flat_map(EndpointRange::endpoints);
        let left = (vips_before.into_iter().chain(in_effect))
            .filter(|vip| !vips_after.contains(vip) && listeners.take(*vip));
        Self {
            to_packets: Arc::new(to_packets),
            to_listeners: Arc::new(left.collect()),
        }
    }

    /// How many established connections that concerns.
    pub fn count(
        &self,
        workers: &Workers,
        engine: Option<Arc<Engine>>,
    ) -> impl Future<Output = Counted> + use<> {
        let proxied = (!self.to_packets.is_empty()).then(|| workers.count_connections(&self.proxied()));
        let vips = Arc::clone(&self.to_listeners);
        async move {
            let connections = match proxied {
                Some(count) => count.await,
                None => 0,
            };
            let flows = match engine {
                Some(engine) if !vips.is_empty() => {
                    let wanted = move |tuple: &FiveTuple| vips.contains(&tuple.endpoint());
                    // a walk through all flows: not on this thread
                    let walk = tokio::task::spawn_blocking(move || engine.count_flows(&wanted));
                    walk.await.unwrap_or_default()
                }
                _ => 0,
            };
            Counted { connections, flows }
        }
    }

    /// Cuts the proxied ones; flows end by themselves, with a reset from the kernel at their next packet. Resolves to how many
    /// there were.
    pub fn perform(&self, workers: &Workers) -> impl Future<Output = usize> + use<> {
        let cut =
            (!self.to_packets.is_empty()).then(|| workers.close(&self.proxied(), TerminationReason::Killed));
        async move {
            match cut {
                Some(cut) => cut.await,
                None => 0,
            }
        }
    }

    /// Whether nothing changes hands.
    pub fn is_empty(&self) -> bool {
        self.to_packets.is_empty() && self.to_listeners.is_empty()
    }

    /// Why a reload that may not cut them is refused.
    pub fn refusal(&self, counted: Counted) -> ReloadFailed {
        ReloadFailed {
            message: self.in_words(counted),
            config_error: false,
        }
    }

    fn in_words(&self, counted: Counted) -> String {
        let mut addresses: BTreeSet<String> = (self.to_packets.iter())
            .map(|(ip, port)| std::net::SocketAddr::new(*ip, *port).to_string())
            .collect();
        addresses.extend(self.to_listeners.iter().map(|vip| vip.addr.to_string()));
        let mut named: Vec<&str> = addresses.iter().map(String::as_str).take(NAMED).collect();
        if addresses.len() > NAMED {
            named.push("…");
        }
        format!(
            "{} would be cut: {} would change between mode proxy and a packet mode, which established connections do not \
             survive; wait until they have ended, or run `convey reload --cut`",
            counted.in_words(),
            named.join(", ")
        )
    }

    fn proxied(&self) -> Select {
        Select::At(Arc::clone(&self.to_packets))
    }
}

impl Counted {
    /// With so many proxied ones instead.
    pub const fn with_connections(self, connections: usize) -> Self {
        Self { connections, ..self }
    }

    /// All of them.
    pub fn total(self) -> u64 {
        u64::try_from(self.connections)
            .unwrap_or(u64::MAX)
            .saturating_add(self.flows)
    }

    fn in_words(self) -> String {
        match self.total() {
            1 => "1 established connection".to_owned(),
            many => format!("{many} established connections"),
        }
    }
}

impl Control {
    /// Counts what a configuration would cut, for who only asks.
    pub(in crate::daemon) fn tell_cut(&self, config: &Config, reply: oneshot::Sender<WouldCut>) {
        let in_effect = self.packets.view().in_effect.clone();
        let cut = Cut::between(self.state.config(), config, in_effect);
        let counted = cut.count(&self.workers, self.packets.engine().load_full());
        drop(tokio::spawn(async move {
            let counted = counted.await;
            // whoever asked may have gone
            let _ = reply.send(WouldCut {
                connections: counted.total(),
                why: match counted.total() {
                    0 => String::new(),
                    _ => cut.in_words(counted),
                },
            });
        }));
    }

    /// Counts what the new configuration would cut, and refuses it if it may not.
    pub(super) fn count_cut(&mut self, may_cut: bool) {
        let Some(new) = &self.reload.new else { return };
        let in_effect = self.packets.view().in_effect.clone();
        let cut = Cut::between(self.state.config(), &new.config, in_effect);
        let counted = cut.count(&self.workers, self.packets.engine().load_full());
        self.reload.jobs.spawn(async move {
            let counted = counted.await;
            Done::Counted(match may_cut || counted.total() == 0 {
                true => Ok((cut, counted)),
                false => Err(cut.refusal(counted)),
            })
        });
    }
}

fn vips(config: &Config) -> HashSet<Endpoint> {
    let forwarded = config
        .frontends
        .values()
        .filter(|frontend| frontend.mode.is_packet());
    forwarded.flat_map(|frontend| frontend.endpoints()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Options, Source};

    /// Frontends by address and mode.
    fn load(frontends: &[(&str, &str)]) -> Config {
        use std::fmt::Write as _;
        let mut text = "[backends.b]\nservers.s = { addr = \"10.1.0.2:80\" }\n".to_owned();
        for (number, (addr, mode)) in frontends.iter().enumerate() {
            let _ = write!(
                text,
                "[frontends.f{number}]\nlisten_addr = \"{addr}\"\nmode = \"{mode}\"\nbackend = \"b\"\n"
            );
        }
        let source = Source {
            name: "test.toml".to_owned(),
            bytes: text.into(),
        };
        config::load(&source, Options::default()).unwrap().config
    }

    /// What goes to the packet modes, and what to listeners.
    fn cut(before: &[(&str, &str)], after: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
        let cut = Cut::between(&load(before), &load(after), []);
        let packets = cut.to_packets.iter().map(|(ip, port)| format!("{ip}:{port}"));
        let listeners = cut.to_listeners.iter().map(|vip| vip.addr.to_string());
        (packets.collect(), listeners.collect())
    }

    #[test]
    fn what_changes_between_proxy_and_a_packet_mode_is_cut_whichever_frontends_have_it() {
        let web = "10.0.0.1:80".to_owned();
        for mode in ["passthrough", "dsr"] {
            let (proxied, forwarded) = ([("10.0.0.1:80", "proxy")], [("10.0.0.1:80", mode)]);
            assert_eq!(cut(&proxied, &forwarded), (vec![web.clone()], vec![]));
            assert_eq!(cut(&forwarded, &proxied), (vec![], vec![web.clone()]));
            let beside = [("0.0.0.0:80", "proxy"), ("10.0.0.1:80", mode)];
            let alone = [("0.0.0.0:80", "proxy")];
            assert_eq!(cut(&alone, &beside), (vec![web.clone()], vec![]));
            assert_eq!(cut(&beside, &alone), (vec![], vec![web.clone()]));
            assert_eq!(
                cut(&forwarded, &[("[::]:80", "proxy")]),
                (vec![], vec![web.clone()])
            );
        }
    }

    #[test]
    fn what_stays_among_the_packet_modes_or_has_no_listener_is_not() {
        let passthrough = [("10.0.0.1:80", "passthrough")];
        for after in [
            [("10.0.0.1:80", "dsr")].as_slice(),
            &passthrough,
            &[("10.0.0.1:81", "proxy")],
            &[("[fd00::1]:80", "proxy")],
            &[],
        ] {
            assert_eq!(cut(&passthrough, after), (vec![], vec![]), "{after:?}");
        }
    }

    #[test]
    fn flows_that_have_outlived_their_frontend_count_as_well() {
        let old = Endpoint::tcp("10.0.0.1:80".parse().unwrap());
        let cut = Cut::between(&load(&[]), &load(&[("10.0.0.1:80", "proxy")]), [old.into()]);
        assert_eq!(*cut.to_listeners, [old].into());
    }

    #[test]
    fn a_refusal_says_how_many_where_and_what_to_do() {
        let cut = Cut::between(&load(&[]), &load(&[("10.0.0.1:80", "passthrough")]), []);
        let counted = Counted {
            connections: 2,
            flows: 1,
        };
        let message = cut.refusal(counted).message;
        assert!(
            message.starts_with("3 established connections would be cut: 10.0.0.1:80 would change"),
            "{message}"
        );
        assert!(message.ends_with("`convey reload --cut`"), "{message}");
    }
}
