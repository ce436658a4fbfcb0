//! A follower on a host, without a single capability, and what it sees.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use convey::{
    engine::network::{Follower, NetworkCounters, NetworkState, NoWay, Wanted},
    flow::{Hop, Resolution},
    packet::LinkHeader,
};
use tokio::sync::{oneshot, watch};

use crate::lab::{Host, PATIENCE};

/// The follower.
pub struct Eye {
    follower: Option<Follower>,
    network_states: watch::Receiver<Arc<NetworkState>>,
    /// Every one after the first.
    seen: Arc<Mutex<Vec<Arc<NetworkState>>>>,
    runtime: tokio::runtime::Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Eye {
    /// Opens on a host.
    pub fn open(host: &Host, wanted: Wanted) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (ready, started) = mpsc::channel();
        let thread = host.thread(move || {
            let kept = convey::sys::capability::keep_only(&[], &[]).expect("give up all capabilities");
            assert_eq!(kept.held, 0);
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let follower = Follower::start(wanted).expect("a follower");
                let handle = tokio::runtime::Handle::current();
                ready.send((follower, handle)).expect("the test waits");
                stopped.await.ok();
            });
        });
        let (follower, runtime) = started.recv_timeout(PATIENCE).expect("the follower starts");
        let seen = Arc::<Mutex<Vec<_>>>::default();
        let (mut news, album) = (follower.network_states(), Arc::clone(&seen));
        drop(runtime.spawn(async move {
            while news.changed().await.is_ok() {
                let network_state = Arc::clone(&news.borrow_and_update());
                album.lock().expect("the album").push(network_state);
            }
        }));
        Self {
            network_states: follower.network_states(),
            seen,
            follower: Some(follower),
            runtime,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Opens on a host for some servers.
    pub fn on_servers(host: &Host, servers: &[IpAddr]) -> Self {
        Self::open(host, servers_wanted(servers))
    }

    /// The latest network state.
    pub fn network_state(&self) -> Arc<NetworkState> {
        Arc::clone(&self.network_states.borrow())
    }

    /// The new network states since the last time that this was asked.
    pub fn new_network_states(&self) -> Vec<Arc<NetworkState>> {
        std::mem::take(&mut *self.seen.lock().expect("the album"))
    }

    /// Changes what matters.
    pub fn want(&self, wanted: Wanted) {
        self.follower.as_ref().expect("open").want(wanted);
    }

    /// What was counted.
    pub fn counters(&self) -> NetworkCounters {
        self.follower.as_ref().expect("open").counters()
    }

    /// Keeps the follower's thread busy with something else meanwhile.
    pub fn distracted(&self, work: impl FnOnce()) {
        let (busy, is_busy) = mpsc::channel();
        let (done, wait) = mpsc::channel::<()>();
        drop(self.runtime.spawn(async move {
            busy.send(()).expect("the test waits");
            // it ends with the other side
            assert!(wait.recv().is_err());
        }));
        is_busy.recv_timeout(PATIENCE).expect("the thread is busy");
        work();
        drop(done);
    }

    /// Waits until the network state is as described.
    #[track_caller]
    pub fn sees(&self, what: &str, is_seen: impl Fn(&NetworkState) -> bool) -> Arc<NetworkState> {
        let start = Instant::now();
        loop {
            let network_state = self.network_state();
            if is_seen(&network_state) {
                return network_state;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "not seen: {what}\n{network_state:#?}\n{:?}",
                self.counters()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until the next hop to a server is known to be some link address.
    #[track_caller]
    pub fn sees_hop(&self, server: IpAddr, mac: &str) -> (Hop, LinkHeader) {
        let is_it = |network_state: &NetworkState| {
            known(network_state, server).is_some_and(|(_, link)| link.destination.to_string() == mac)
        };
        let network_state = self.sees(&format!("{server} by way of {mac}"), is_it);
        known(&network_state, server).expect("just seen")
    }

    /// Waits until there is no way to a server, for some reason.
    #[track_caller]
    pub fn sees_no_way(&self, server: IpAddr, reason: &NoWay) {
        let network_state = self.sees(&format!("no way to {server}: {reason}"), |network_state| {
            network_state.no_way.get(&server) == Some(reason)
        });
        assert_eq!(
            network_state.hops.servers[&server].resolution,
            Resolution::NoRoute
        );
        assert!(!network_state.server_interfaces.contains_key(&server));
    }
}

impl Drop for Eye {
    fn drop(&mut self) {
        drop(self.follower.take());
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// Some servers and nothing else.
pub fn servers_wanted(servers: &[IpAddr]) -> Wanted {
    Wanted {
        servers: servers.iter().copied().collect(),
        ..Wanted::default()
    }
}

/// Some VIPs and nothing else.
pub fn vips_wanted(vips: &[IpAddr]) -> Wanted {
    Wanted {
        vips: vips.iter().copied().collect(),
        ..Wanted::default()
    }
}

/// An address from text.
pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// The way to a server, if it is known.
pub fn known(network_state: &NetworkState, server: IpAddr) -> Option<(Hop, LinkHeader)> {
    let hop = network_state.hops.servers.get(&server)?;
    match hop.resolution {
        Resolution::Known(link) => Some((hop.clone(), link)),
        _ => None,
    }
}

/// The link address of a host's interface.
pub fn mac(host: &Host, interface: &str) -> String {
    let text = host.run(&format!("ip -o link show dev {interface}"));
    let (_, rest) = text.split_once("link/ether ").expect("an Ethernet interface");
    rest.split(' ').next().expect("a link address").to_owned()
}

/// The index of a host's interface.
pub fn index(host: &Host, interface: &str) -> u32 {
    let text = host.run(&format!("ip -o link show dev {interface}"));
    text.split(':')
        .next()
        .and_then(|index| index.parse().ok())
        .expect("an index")
}
