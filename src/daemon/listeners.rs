//! The addresses that are listened on, what a reload has to add and remove, and what systemd keeps over a restart.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd as _, OwnedFd},
    time::Duration,
};

use crate::{
    base::ListenAddr,
    config::Config,
    privilege::{Broker, BrokerError, ListenerRef},
    sys::{
        inherited::{self, Inherited},
        listener,
    },
};

/// Addresses of frontends that workers accept on, with the number of their sockets.
#[derive(Debug, Default)]
pub struct Listeners(BTreeMap<ListenAddr, usize>);

/// Sockets made for a configuration that is not in force yet; dropping it closes them.
#[derive(Debug)]
pub struct Prepared {
    /// New addresses with at least one socket for each worker.
    pub added: BTreeMap<ListenAddr, Vec<OwnedFd>>,
    /// Addresses that the configuration no longer has.
    pub removed: Vec<ListenAddr>,
}

/// Listening sockets of the process before this one, which the service manager kept (DESIGN §4, Restart): clients that
/// came in between wait in their queues.
#[derive(Debug, Default)]
pub struct Predecessors {
    sockets: BTreeMap<ListenAddr, Vec<OwnedFd>>,
    /// Names of descriptors that are none of our listeners.
    strangers: Vec<String>,
}

impl Predecessors {
    /// Takes over what was kept. Must be called before anything opens a descriptor.
    ///
    /// # Errors
    /// What the service manager says about them is not so.
    pub fn take() -> std::io::Result<Self> {
        let mut all = Self::default();
        for Inherited { name, fd } in inherited::take()? {
            match listener::address_of(fd.as_fd()) {
                Some(addr) => all.sockets.entry(ListenAddr(addr)).or_default().push(fd),
                None => all.strangers.push(name),
            }
        }
        Ok(all)
    }

    /// Ports that their sockets listen on.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        self.sockets.keys().map(|addr| addr.0.port())
    }

    /// Addresses that they listen on.
    pub fn addresses(&self) -> impl Iterator<Item = ListenAddr> {
        self.sockets.keys().copied()
    }

    /// Ends the listeners that nobody has taken; the names of all descriptors that need not be kept any longer.
    pub fn end(self) -> Vec<String> {
        let mut names = self.strangers;
        for (addr, sockets) in self.sockets {
            for socket in sockets {
                listener::end(socket.as_fd());
            }
            names.push(kept_as(addr));
        }
        names
    }

    fn take_address(&mut self, addr: ListenAddr, user_timeout: Option<Duration>) -> Vec<OwnedFd> {
        let mut sockets = self.sockets.remove(&addr).unwrap_or_default();
        sockets.retain(|socket| {
            let taken = listener::take_over(socket.as_fd(), user_timeout);
            if let Err(error) = &taken {
                tracing::warn!(
                    event = "listener_not_taken_over",
                    "a kept socket of {addr}: {error}"
                );
                listener::end(socket.as_fd());
            }
            taken.is_ok()
        });
        sockets
    }
}

impl Listeners {
    /// Makes the listeners that `config` has and we have not, of a predecessor's sockets as far as they go. Addresses that
    /// stay are not touched, whatever frontend has them.
    ///
    /// # Errors
    /// The first address that could not be bound; nothing new is left bound.
    pub fn prepare(
        &self,
        config: &Config,
        broker: &Broker,
        workers: usize,
        predecessors: &mut Predecessors,
    ) -> Result<Prepared, BrokerError> {
        let proxied = config.frontends.values().filter(|f| !f.mode.is_packet());
        let wanted: BTreeMap<ListenAddr, _> = proxied
            .flat_map(|f| f.listen.iter().map(move |addr| (*addr, f)))
            .collect();
        let mut added = BTreeMap::new();
        for (addr, frontend) in &wanted {
            if self.0.contains_key(addr) {
                continue;
            }
            let reference = ListenerRef::frontend(&frontend.name, *addr);
            let mut sockets = predecessors.take_address(*addr, frontend.tcp_user_timeout);
            while sockets.len() < workers {
                sockets.push(broker.bind(&reference)?);
            }
            added.insert(*addr, sockets);
        }
        let gone = self.0.keys().filter(|addr| !wanted.contains_key(addr));
        let removed = gone.copied().collect();
        Ok(Prepared { added, removed })
    }

    /// Notes an address that is listened on now, by so many sockets.
    pub fn insert(&mut self, addr: ListenAddr, sockets: usize) {
        self.0.insert(addr, sockets);
    }

    /// Notes an address that is no longer listened on.
    pub fn remove(&mut self, addr: ListenAddr) {
        self.0.remove(&addr);
    }

    /// Number of sockets.
    pub fn sockets(&self) -> usize {
        self.0.values().sum()
    }

    /// Takes all addresses out.
    pub fn take_all(&mut self) -> Vec<ListenAddr> {
        std::mem::take(&mut self.0).into_keys().collect()
    }
}

/// The name under which the service manager keeps the sockets of an address: it separates names by colons.
pub fn kept_as(addr: ListenAddr) -> String {
    format!("listener {addr}").replace(':', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_kept_sockets_have_no_colon() {
        let name = |addr: &str| kept_as(ListenAddr(addr.parse().unwrap()));
        assert_eq!(name("192.0.2.1:80"), "listener 192.0.2.1_80");
        assert_eq!(name("[2001:db8::1]:443"), "listener [2001_db8__1]_443");
    }

    #[test]
    fn listeners_that_nobody_takes_are_ended() {
        let socket = listener::listen(&listener::Listen {
            addr: "127.0.0.1:0".parse().unwrap(),
            user_timeout: None,
        })
        .unwrap();
        let addr = ListenAddr(listener::address_of(socket.as_fd()).unwrap());
        let manager = socket.try_clone().unwrap();
        let predecessors = Predecessors {
            sockets: [(addr, vec![socket])].into(),
            strangers: vec!["map".into()],
        };
        assert_eq!(predecessors.end(), ["map".to_owned(), kept_as(addr)]);
        assert_eq!(listener::address_of(manager.as_fd()), None);
    }
}
