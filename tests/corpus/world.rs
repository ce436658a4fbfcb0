//! The small worlds that cases play in: a configuration, interfaces, next hops, and what changes in them.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use convey::{
    base::{Mac, ServerKey, ServerState},
    config::{self, Config, Options, Source},
    flow::{Hop, Hops, Interface, Resolution},
    packet::LinkHeader,
    pools::{AdminState, Override, Pools},
    snapshot::{Builder, Health, Snapshot},
};
use serde::Deserialize;

use crate::words::{self, Wrong};

/// `worlds.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Worlds {
    pub interfaces: BTreeMap<String, InterfaceText>,
    pub hops: BTreeMap<IpAddr, HopText>,
    /// Configurations by name.
    pub worlds: BTreeMap<String, String>,
    /// A first snapshot of each: lends its Maglev tables, which take long to build, to every case of that world.
    #[serde(skip)]
    first: Mutex<BTreeMap<String, Arc<Snapshot>>>,
}

/// An interface.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InterfaceText {
    pub index: u32,
    pub mac: String,
    pub mtu: u32,
    /// The link address that packets come from by it, unless their source is a next hop of ours.
    pub peer: String,
}

/// The way to a server.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HopText {
    /// Name of the interface.
    pub by: String,
    pub mac: String,
    pub mtu: u32,
    pub local: IpAddr,
}

/// A change of the world.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// `BACKEND/SERVER`, or a variable that holds a server's address.
    pub server: Option<String>,
    /// `up`, `down`, `draining`, `maintenance`, `ready`.
    pub state: Option<String>,
    pub weight: Option<u16>,
    pub hop: Option<IpAddr>,
    /// `known`, `unresolved`, `no_route`, `gone`, `behind_gateway`.
    pub is: Option<String>,
    pub interface: Option<String>,
    /// Of the hop or interface; 0: the interface is gone.
    pub mtu: Option<u32>,
    /// Name of another world whose configuration is loaded.
    pub config: Option<String>,
}

/// A world as it is now.
pub struct World<'a> {
    all: &'a Worlds,
    pub config: Config,
    pools: Pools,
    builder: Builder,
    pub hops: Hops,
    pub snapshot: Option<Arc<Snapshot>>,
    start: Instant,
}

impl<'a> World<'a> {
    pub fn new(all: &'a Worlds, name: &str) -> Result<Self, Wrong> {
        let mut world = Self {
            all,
            config: load(all, name)?,
            pools: Pools::default(),
            builder: Builder::new(1, all.first().get(name).cloned().unwrap_or_default()),
            hops: all.hops()?,
            snapshot: None,
            start: Instant::now(),
        };
        let snapshot = world.snapshot();
        all.first().entry(name.to_owned()).or_insert(snapshot);
        Ok(world)
    }

    /// The snapshot of now. Servers of which nothing was said are up.
    pub fn snapshot(&mut self) -> Arc<Snapshot> {
        self.take_config();
        for (key, _) in self.servers() {
            if self.builder.health(&key).is_none() {
                let health = self.health(ServerState::Up);
                self.builder.set_health(&key, Some(health));
            }
        }
        let snapshot = self.builder.build(&self.config, &self.pools, self.start).snapshot;
        self.snapshot = Some(Arc::clone(&snapshot));
        snapshot
    }

    fn take_config(&mut self) {
        let changed = self.pools.apply(&self.config);
        self.builder.config_changed(&self.config, changed);
    }

    pub fn change(&mut self, change: &Change) -> Result<(), Wrong> {
        if let Some(name) = &change.config {
            self.config = load(self.all, name)?;
        }
        if let Some(server) = &change.server {
            let key = self.server(server)?;
            if let Some(weight) = change.weight {
                self.overridden(&key, |overridden| overridden.weight = Some(weight));
            }
            if let Some(state) = &change.state {
                self.state(&key, state)?;
            }
        }
        if let Some(ip) = change.hop {
            if change.is.as_deref() == Some("gone") {
                self.hops.servers.remove(&ip);
                return Ok(());
            }
            if change.is.as_deref() == Some("behind_gateway") {
                self.hops.behind_gateways.insert(ip);
                return Ok(());
            }
            let known = self.all.hop(ip)?;
            let hop = self.hops.servers.entry(ip).or_insert_with(|| known.clone());
            hop.mtu = change.mtu.unwrap_or(hop.mtu);
            hop.resolution = match change.is.as_deref() {
                None => hop.resolution,
                Some("known") => known.resolution,
                Some("unresolved") => Resolution::Unresolved { ifindex: 2 },
                Some("no_route") => Resolution::NoRoute,
                Some(other) => return Err(format!("{other}: no state of a hop")),
            };
        }
        if let Some(name) = &change.interface {
            let index = self.all.interface(name)?.index;
            match change.mtu {
                Some(0) => {
                    self.hops.interfaces.remove(&index);
                }
                Some(mtu) => {
                    let interface = self.hops.interfaces.get_mut(&index);
                    interface.ok_or("the interface is gone")?.mtu = mtu;
                }
                None => {
                    self.hops
                        .interfaces
                        .insert(index, self.all.interface(name)?.read()?);
                }
            }
        }
        Ok(())
    }

    fn state(&mut self, key: &ServerKey, state: &str) -> Result<(), Wrong> {
        let mut admin = |admin| self.overridden(key, |overridden| overridden.admin = admin);
        let state = match state {
            "draining" => {
                admin(Some(AdminState::Draining));
                return Ok(());
            }
            "maintenance" => {
                admin(Some(AdminState::Maintenance));
                return Ok(());
            }
            "ready" => {
                admin(None);
                return Ok(());
            }
            "up" => ServerState::Up,
            "down" => ServerState::Down,
            other => return Err(format!("{other}: no state of a server")),
        };
        let health = self.health(state);
        self.builder.set_health(key, Some(health));
        Ok(())
    }

    fn overridden(&mut self, key: &ServerKey, change: impl FnOnce(&mut Override)) {
        self.take_config();
        let pool = self.pools.get(key.backend.as_str());
        let server = pool.and_then(|pool| pool.server(key.server.as_str()));
        let mut overridden = server.map(|server| server.overridden).unwrap_or_default();
        change(&mut overridden);
        self.pools.set_override(key, overridden);
        self.builder.pool_changed(&key.backend);
    }

    fn health(&self, state: ServerState) -> Health {
        Health::new(state, self.start)
    }

    /// Every server and its address.
    fn servers(&self) -> Vec<(ServerKey, SocketAddr)> {
        let backends = self.config.backends.values();
        let all = backends.flat_map(|backend| {
            backend.servers.values().filter_map(|server| {
                let key = ServerKey {
                    backend: backend.name.clone(),
                    server: server.name.clone(),
                };
                Some((key, server.addr.on_network()?.0))
            })
        });
        all.collect()
    }

    /// Has every way lead from these addresses of ours, each from those of its family.
    pub fn set_locals(&mut self, locals: &[IpAddr]) {
        for (ip, hop) in &mut self.hops.servers {
            hop.locals = (locals.iter())
                .filter(|local| local.is_ipv4() == ip.is_ipv4())
                .copied()
                .collect();
        }
    }

    /// The names of all servers (`BACKEND/SERVER`).
    pub fn server_names(&self) -> Vec<String> {
        let servers = self.servers().into_iter();
        servers
            .map(|(key, _)| format!("{}/{}", key.backend, key.server))
            .collect()
    }

    /// The server of a name (`BACKEND/SERVER`) or an address.
    fn server(&self, text: &str) -> Result<ServerKey, Wrong> {
        let mut found = self.servers().into_iter().filter(|(key, addr)| {
            format!("{}/{}", key.backend, key.server) == text || addr.to_string() == text
        });
        let (key, _) = found.next().ok_or(format!("{text}: no such server"))?;
        Ok(key)
    }
}

fn load(all: &Worlds, name: &str) -> Result<Config, Wrong> {
    let text = all.worlds.get(name).ok_or(format!("{name}: no such world"))?;
    let source = Source {
        name: name.to_owned(),
        bytes: text.clone().into_bytes(),
    };
    config::load(&source, Options::default())
        .map(|loaded| loaded.config)
        .map_err(|findings| config::render(&findings, &source, false))
}

impl Worlds {
    fn first(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Snapshot>>> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn interface(&self, name: &str) -> Result<&InterfaceText, Wrong> {
        self.interfaces
            .get(name)
            .ok_or(format!("{name}: no such interface"))
    }

    /// The link address that an IP address of our side of the world has on an interface.
    pub fn link_of(&self, ip: IpAddr, interface: &InterfaceText) -> Result<Mac, Wrong> {
        words::mac(self.hops.get(&ip).map_or(&interface.peer, |hop| &hop.mac))
    }

    fn hop(&self, ip: IpAddr) -> Result<Hop, Wrong> {
        let hop = self.hops.get(&ip).ok_or(format!("{ip}: no such hop"))?;
        let interface = self.interface(&hop.by)?;
        let link = LinkHeader {
            ifindex: interface.index,
            source: words::mac(&interface.mac)?,
            destination: words::mac(&hop.mac)?,
        };
        Ok(Hop {
            resolution: Resolution::Known(link),
            mtu: hop.mtu,
            locals: [hop.local].into(),
        })
    }

    fn hops(&self) -> Result<Hops, Wrong> {
        let servers = self.hops.keys().map(|ip| Ok((*ip, self.hop(*ip)?)));
        let interfaces = (self.interfaces.values()).map(|text| Ok((text.index, text.read()?)));
        Ok(Hops {
            servers: servers.collect::<Result<HashMap<_, _>, Wrong>>()?,
            interfaces: interfaces.collect::<Result<HashMap<_, _>, Wrong>>()?,
            ..Hops::default()
        })
    }
}

impl InterfaceText {
    fn read(&self) -> Result<Interface, Wrong> {
        Ok(Interface {
            mac: words::mac(&self.mac)?,
            mtu: self.mtu,
            address4: None,
            address6: None,
        })
    }
}
