//! Servers that come by themselves, go and come back.

use std::{sync::Arc, time::Instant};

use crate::{
    base::{BackendName, ServerName, WorkerId},
    config::{self, Config, Options, Server, Source},
    pools::Pools,
    snapshot::Builder,
};

fn config() -> Config {
    let source = Source {
        name: "c.toml".to_owned(),
        bytes: "[frontends.web]\nlisten_addr = \"192.0.2.1:80\"\nbackend = \"web\"\n\
            [backends.web.discovery]\nkind = \"file\"\npath = \"/w\"\nmax_servers = 10000\n"
            .into(),
    };
    config::load(&source, Options::default()).unwrap().config
}

/// Servers at 10.0.X.Y of these numbers.
fn found(numbers: impl IntoIterator<Item = u16>) -> Arc<[Server]> {
    let server = |number: u16| {
        let addr = format!("10.0.{}.{}:80", number >> 8, number & 255);
        Server {
            name: ServerName::new(&format!("s{number:05}")).unwrap(),
            addr: addr.parse().unwrap(),
            weight: 1,
            priority: 1,
            max_connections: None,
            sni: Vec::new(),
            check_addr: None,
        }
    };
    numbers.into_iter().map(server).collect()
}

struct World {
    config: Config,
    pools: Pools,
    builder: Builder,
}

impl World {
    fn new() -> Self {
        let (config, mut pools) = (config(), Pools::default());
        let mut builder = Builder::new(1, Arc::default());
        builder.config_changed(&config, pools.apply(&config));
        Self {
            config,
            pools,
            builder,
        }
    }

    /// What the servers of these numbers have had of connections, now that there are these.
    fn opened(&mut self, numbers: impl IntoIterator<Item = u16>) -> Vec<u64> {
        let web = BackendName::new("web").unwrap();
        self.pools.discover(&self.config, &web, found(numbers));
        self.builder.pool_changed(&web);
        let built = self.builder.build(&self.config, &self.pools, Instant::now());
        let servers = &built.snapshot.backends["web"].servers;
        let opened = servers.iter().map(|server| {
            let counters = &server.live.counters;
            let before = counters.totals().opened;
            counters.shard(WorkerId(0)).opened.add(1);
            before
        });
        opened.collect()
    }
}

#[test]
fn a_server_that_comes_back_has_its_counters() {
    let mut world = World::new();
    assert_eq!(world.opened([1, 2]), [0, 0]);
    assert_eq!(world.opened([2]), [1]);
    assert_eq!(world.opened([1, 2]), [1, 2]);
    assert_eq!(world.opened([]), [0; 0]);
    assert_eq!(world.opened([1, 2, 3]), [2, 3, 0]);
}

#[test]
fn of_very_many_that_went_the_last_are_remembered() {
    let mut world = World::new();
    for number in 1..=1_200 {
        world.opened([number]);
    }
    world.opened([]);
    assert_eq!(world.opened([150, 1_200]), [0, 1], "the first ones are forgotten");
}
