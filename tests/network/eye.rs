//! A follower on a host, without a single capability, and what it sees.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use convey::{
    engine::network::{Counters, Follower, NoWay, Picture, Wanted},
    flow::{Hop, Resolution},
    packet::LinkHeader,
};
use tokio::sync::{oneshot, watch};

use crate::lab::{Host, PATIENCE};

/// The follower.
pub struct Eye {
    follower: Option<Follower>,
    pictures: watch::Receiver<Arc<Picture>>,
    /// Every one after the first.
    seen: Arc<Mutex<Vec<Arc<Picture>>>>,
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
        let (mut news, album) = (follower.pictures(), Arc::clone(&seen));
        drop(runtime.spawn(async move {
            while news.changed().await.is_ok() {
                let picture = Arc::clone(&news.borrow_and_update());
                album.lock().expect("the album").push(picture);
            }
        }));
        Self {
            pictures: follower.pictures(),
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

    /// The latest picture.
    pub fn picture(&self) -> Arc<Picture> {
        Arc::clone(&self.pictures.borrow())
    }

    /// The new pictures since the last time that this was asked.
    pub fn new_pictures(&self) -> Vec<Arc<Picture>> {
        std::mem::take(&mut *self.seen.lock().expect("the album"))
    }

    /// Changes what matters.
    pub fn want(&self, wanted: Wanted) {
        self.follower.as_ref().expect("open").want(wanted);
    }

    /// What was counted.
    pub fn counters(&self) -> Counters {
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
