//! A follower on a host, without a single capability, and what it sees.

use std::{
    net::IpAddr,
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use convey::{
    engine::network::{Counters, Follower, NoWay, Picture, Wanted},
    flow::{Hop, Resolution},
    packet::LinkHeader,
};
use tokio::sync::{oneshot, watch};

use crate::lab::Host;

/// How long anything may take to be seen. On an idle machine it is far less.
const PATIENCE: Duration = Duration::from_secs(10);

/// The follower.
pub struct Eye {
    follower: Option<Follower>,
    pictures: watch::Receiver<Arc<Picture>>,
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
        Self {
            pictures: follower.pictures(),
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

    /// The latest picture.
    pub fn picture(&self) -> Arc<Picture> {
        Arc::clone(&self.pictures.borrow())
    }

    /// Whether there was a new picture since the last time that this was asked.
    pub fn has_blinked(&mut self) -> bool {
        let has_changed = self.pictures.has_changed().expect("the follower lives");
        self.pictures.mark_unchanged();
        has_changed
    }

    /// Changes what matters.
    pub fn want(&self, wanted: Wanted) {
        self.follower.as_ref().expect("open").want(wanted);
    }

    /// What was counted.
    pub fn counters(&self) -> Counters {
        self.follower.as_ref().expect("open").counters()
    }

    /// Keeps the follower's thread busy with something else.
    pub fn distract(&self, time: Duration) {
        drop(self.runtime.spawn(async move { std::thread::sleep(time) }));
    }

    /// Waits until the picture is as described.
    #[track_caller]
    pub fn sees(&self, what: &str, is_seen: impl Fn(&Picture) -> bool) -> Arc<Picture> {
        let start = Instant::now();
        loop {
            let picture = self.picture();
            if is_seen(&picture) {
                return picture;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "not seen: {what}\n{picture:#?}\n{:?}",
                self.counters()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until the next hop to a server is known to be some link address.
    #[track_caller]
    pub fn sees_hop(&self, server: IpAddr, mac: &str) -> (Hop, LinkHeader) {
        let is_it = |picture: &Picture| {
            known(picture, server).is_some_and(|(_, link)| link.destination.to_string() == mac)
        };
        let picture = self.sees(&format!("{server} by way of {mac}"), is_it);
        known(&picture, server).expect("just seen")
    }

    /// Waits until there is no way to a server, for some reason.
    #[track_caller]
    pub fn sees_no_way(&self, server: IpAddr, reason: &NoWay) {
        let picture = self.sees(&format!("no way to {server}: {reason}"), |picture| {
            picture.no_way.get(&server) == Some(reason)
        });
        assert_eq!(picture.hops.servers[&server].resolution, Resolution::NoRoute);
        assert!(!picture.server_interfaces.contains_key(&server));
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
pub fn known(picture: &Picture, server: IpAddr) -> Option<(Hop, LinkHeader)> {
    let hop = picture.hops.servers.get(&server)?;
    match hop.resolution {
        Resolution::Known(link) => Some((*hop, link)),
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
