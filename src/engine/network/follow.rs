//! The task that follows the network: listens, asks, publishes, probes.

use std::{collections::BTreeSet, io, net::IpAddr, os::fd::OwnedFd, sync::Arc, time::Duration};

use tokio::{
    io::unix::AsyncFd,
    sync::watch,
    task::yield_now,
    time::{Instant, sleep_until},
};

use crate::sys::{netlink, readiness};

use super::{
    NetworkState, Wanted,
    counters::Counts,
    kernel::{DATAGRAM_BYTES, Kernel},
    probe::Prober,
    schedule::Probes,
    table::{NetworkEvent, Table},
    wire::{self, Message},
};

/// What we are told of where addresses alone matter.
pub const ADDRESS_GROUPS: &[u32] = &[
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV6_IFADDR,
];

/// What we are told of else.
pub const GROUPS: &[u32] = &[
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV6_IFADDR,
    libc::RTNLGRP_IPV4_ROUTE,
    libc::RTNLGRP_IPV6_ROUTE,
    libc::RTNLGRP_IPV4_RULE,
    libc::RTNLGRP_IPV6_RULE,
    libc::RTNLGRP_NEXTHOP,
    libc::RTNLGRP_NEIGH,
];

/// Room for news that come while the thread does something else, in bytes.
const RECEIVE_BUFFER: usize = 1 << 20;

/// How long a burst of news is collected: `ip` and routing daemons make several changes for one.
const DEBOUNCE: Duration = Duration::from_millis(5);

/// How long nothing is asked after a network state was made, in times of what making it took: where interfaces come and go
/// all the time, following them takes at most a fifth of the thread.
const REST: u32 = 4;

/// Datagrams read, and servers asked for, before other tasks of the thread have their turn.
const BATCH: usize = 64;

/// How often all routes are asked for without a reason: no news tells of a path MTU that expires, or of a sysctl.
const RECHECK_EVERY: Duration = Duration::from_secs(60);

/// How long after a question without an answer it is asked again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The state of the task.
#[derive(Debug)]
pub struct Follow {
    kernel: Kernel,
    prober: Prober,
    table: Table,
    probes: Probes,
    network_states: watch::Sender<Arc<NetworkState>>,
    counts: Arc<Counts>,
    buffer: Vec<u8>,
    /// Whether interfaces and addresses must be asked for.
    is_lost: bool,
    /// When to make the next network state.
    refresh_at: Option<Instant>,
    rest_until: Instant,
    recheck_at: Instant,
    /// Whether the operator knows that the firewall is in the way.
    has_warned: bool,
}

impl Follow {
    /// Opens all sockets and makes the first network state. The news come by the socket that is returned.
    ///
    /// # Errors
    /// No socket, or the kernel did not answer.
    pub fn start(
        groups: &[u32],
        wanted: Wanted,
        counts: Arc<Counts>,
    ) -> io::Result<(Self, AsyncFd<OwnedFd>, watch::Receiver<Arc<NetworkState>>)> {
        // listen first and ask then, so that no change falls in between
        let news = readiness::readable(netlink::open(groups, RECEIVE_BUFFER)?)?;
        let now = Instant::now();
        let (network_states, receiver) = watch::channel(Arc::default());
        let mut follow = Self {
            kernel: Kernel::open()?,
            prober: Prober::open()?,
            table: Table::default(),
            probes: Probes::new(now),
            network_states,
            counts,
            buffer: vec![0; DATAGRAM_BYTES],
            is_lost: true,
            refresh_at: None,
            rest_until: now,
            has_warned: false,
            recheck_at: now + RECHECK_EVERY,
        };
        follow.table.want(wanted);
        while follow.ask_some()? {}
        follow.publish();
        Ok((follow, news, receiver))
    }

    /// Follows until nobody wants anything any more.
    pub async fn run(
        mut self,
        news: AsyncFd<OwnedFd>,
        mut wanted: watch::Receiver<Wanted>,
        mut clients: watch::Receiver<BTreeSet<IpAddr>>,
    ) {
        loop {
            let (probe_at, refresh_at) = (self.probes.next(), self.refresh_at);
            tokio::select! {
                ready = news.readable() => match ready {
                    Ok(mut ready) => {
                        // that it would block is what clears the readiness
                        let _ = ready.try_io(|socket| self.read(socket.get_ref()));
                    }
                    Err(error) => {
                        tracing::error!(event = "network", "network changes are no longer tracked: {error}; restart convey");
                        return;
                    }
                },
                changed = wanted.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.table.want(wanted.borrow_and_update().clone());
                    self.refresh_after(Duration::ZERO);
                }
                // its end comes with that of `wanted`
                Ok(()) = clients.changed() => {
                    self.table.want_clients(clients.borrow_and_update().clone());
                    self.refresh_after(DEBOUNCE);
                }
                () = sleep_until_some(refresh_at) => self.refresh().await,
                () = sleep_until_some(probe_at) => self.probe(),
                () = sleep_until(self.recheck_at) => {
                    self.recheck_at = Instant::now() + RECHECK_EVERY;
                    self.table.routing_changed();
                    self.refresh_after(Duration::ZERO);
                }
            }
        }
    }

    /// Reads a batch of news. As the reactor wants it: an error says that there are no more.
    fn read(&mut self, socket: &OwnedFd) -> io::Result<()> {
        for _ in 0..BATCH {
            match netlink::receive(socket, &mut self.buffer) {
                Ok(len) => self.take_in(len),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
                Err(error) => {
                    tracing::debug!(
                        event = "network",
                        "network events were lost ({error}); reading everything again"
                    );
                    self.counts.overruns.add(1);
                    self.is_lost = true;
                    self.refresh_after(DEBOUNCE);
                    if error.raw_os_error() != Some(libc::ENOBUFS) {
                        // not to try again at once what may fail for ever
                        return Err(io::ErrorKind::WouldBlock.into());
                    }
                }
            }
        }
        Ok(())
    }

    fn take_in(&mut self, len: usize) {
        let mut may_matter = false;
        for envelope in wire::decode(self.buffer.get(..len).unwrap_or_default()) {
            may_matter |= match envelope.map(|envelope| envelope.message) {
                Ok(Message::NetworkEvent(event)) => self.table.apply(event),
                Ok(Message::Route(route)) => self.table.route_changed(&route),
                Ok(Message::End { .. } | Message::Other) => false,
                Err(error) => {
                    tracing::debug!(event = "network", "malformed netlink message: {error}");
                    self.counts.unreadable.add(1);
                    self.table.apply(NetworkEvent::Routing)
                }
            };
        }
        if may_matter {
            self.refresh_after(DEBOUNCE);
        }
    }

    /// The first reason sets the time: a network that never rests has network states too.
    fn refresh_after(&mut self, wait: Duration) {
        let at = (Instant::now() + wait).max(self.rest_until);
        self.refresh_at = Some(self.refresh_at.map_or(at, |planned| planned.min(at)));
    }

    async fn refresh(&mut self) {
        self.refresh_at = None;
        let start = Instant::now();
        loop {
            match self.ask_some() {
                Ok(true) => yield_now().await,
                Ok(false) => break,
                Err(error) => {
                    tracing::warn!(
                        event = "network",
                        "the kernel does not answer: {error}; trying again in 1 s"
                    );
                    self.refresh_after(RETRY_AFTER);
                    // what is known is better than what was
                    break;
                }
            }
        }
        if !self.is_lost {
            self.publish();
        }
        let now = Instant::now();
        self.rest_until = now + (now - start) * REST;
    }

    /// Asks for what is not known. Returns whether there is more to ask for.
    fn ask_some(&mut self) -> io::Result<bool> {
        if self.is_lost {
            let events = self.kernel.links_and_addresses()?;
            self.table.clear();
            for event in events {
                self.table.apply(event);
            }
            self.is_lost = false;
        }
        for _ in 0..BATCH {
            let Some(server) = self.table.stale().first().copied() else {
                return Ok(false);
            };
            let source = self.table.fixed_source(server);
            let answer = self.kernel.route(server, source)?;
            if let Some(key) = self.table.answered(server, answer) {
                let state = self.kernel.neighbour(key)?;
                self.table.apply(NetworkEvent::Neighbour(key, state));
            }
        }
        Ok(true)
    }

    fn publish(&mut self) {
        self.table.forget_neighbours();
        self.counts.table_full.set(self.table.refused());
        let mut network_state = self.table.network_state();
        self.network_states.send_if_modified(|old| {
            if **old == network_state {
                return false;
            }
            if old.hops == network_state.hops {
                // so that readers see at a glance that these have not changed
                network_state.hops = Arc::clone(&old.hops);
            }
            *old = Arc::new(network_state);
            true
        });
        self.probes.update(Instant::now(), self.table.needs());
    }

    fn probe(&mut self) {
        let due = self.probes.due(Instant::now());
        self.counts.probes_put_off.add(due.refused);
        for server in due.servers {
            match self.prober.probe(server, self.table.fixed_source(server)) {
                Ok(()) => self.counts.probes.add(1),
                Err(error) => {
                    tracing::debug!(
                        event = "next_hop",
                        "cannot probe {server} to resolve its next hop: {error}"
                    );
                    self.counts.probes_failed.add(1);
                    if error.kind() == io::ErrorKind::PermissionDenied && !self.has_warned {
                        self.has_warned = true;
                        tracing::warn!(
                            event = "next_hop",
                            "a firewall on this host drops the probes of next hops (UDP to port 9): allow them in the OUTPUT \
                             chain"
                        );
                    }
                }
            }
        }
    }
}

async fn sleep_until_some(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
