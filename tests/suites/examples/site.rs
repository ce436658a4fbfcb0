//! The network that an example is about: every address that it names belongs to somebody.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use convey::{
    base::Protocol,
    config::{self, Config, DsrMethod, Options, Source},
};

use crate::{
    lab::{
        Host, Lab,
        servers::{TcpServer, Witness},
        udp::{UdpClient, UdpServer},
    },
    machine::{Machine, Service},
};

/// A shipped file.
pub fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("configs").join(file)
}

/// What a shipped file says.
#[track_caller]
pub fn read(file: &str) -> String {
    fs::read_to_string(path(file)).unwrap_or_else(|error| panic!("configs/{file}: {error}"))
}

/// A client, the servers of an example, and a load balancer with its configuration, not started yet.
pub struct Site {
    /// Servers that run, by `backend/server`.
    pub running: BTreeMap<String, Running>,
    /// Where Convey runs.
    pub lb: Machine,
    /// What the example means.
    pub config: Config,
    /// Hosts of the servers, by address.
    pub servers: BTreeMap<IpAddr, Machine>,
    /// Where requests come from.
    pub client: Host,
    /// Last, so that it ends last.
    pub lab: Lab,
}

/// One server at work, by TCP, UDP or both; it ends when dropped.
pub struct Running {
    /// Says who it is and whom it talks to, then gives back every byte.
    _tcp: Option<TcpServer>,
    /// Gives back every datagram, after its name.
    pub udp: Option<UdpServer>,
}

impl Site {
    /// The network of a shipped file, in which the load balancer has these addresses of its own (with prefix length).
    /// VIPs come on top: on eth0, or on lo for a frontend that names its interface. Every server runs.
    #[track_caller]
    pub fn new(file: &str, own: &[&str], options: Options) -> Self {
        let site = Self::without_vips(file, own, options);
        site.add_vips(own);
        site
    }

    /// The same before the load balancer has its VIPs.
    #[track_caller]
    pub fn without_vips(file: &str, own: &[&str], options: Options) -> Self {
        let text = read(file);
        let source = Source {
            name: file.to_owned(),
            bytes: text.clone().into(),
        };
        let config = config::load(&source, options).expect("a good example").config;
        let lab = Lab::new(file);
        let client = lab.host("client");
        let lb = Machine::new(&lab.host("lb"));
        for address in own {
            lb.host().add_address("eth0", address);
        }
        lb.configure(&text);
        let mut site = Self {
            running: BTreeMap::new(),
            servers: BTreeMap::new(),
            lb,
            config,
            client,
            lab,
        };
        site.add_servers();
        site
    }

    /// Gives the load balancer every address that frontends listen on, and shows the client the way.
    fn add_vips(&self, own: &[&str]) {
        let mut done = BTreeSet::new();
        for frontend in self.config.frontends.values() {
            for ip in frontend.listen.iter().map(|range| range.ip()) {
                if ip.is_unspecified() || !done.insert(ip) {
                    continue;
                }
                let is_own = own
                    .iter()
                    .any(|own| own.split('/').next() == Some(&ip.to_string()));
                if !is_own {
                    let interface = if frontend.interface.is_some() {
                        "lo"
                    } else {
                        "eth0"
                    };
                    self.lb.host().add_address(interface, &host_route(ip));
                }
                self.client
                    .run(&format!("ip route add {} dev eth0", host_route(ip)));
            }
        }
    }

    fn add_servers(&mut self) {
        let names: Vec<(String, String)> = (self.config.backends.iter())
            .flat_map(|(backend, pool)| pool.servers.keys().map(move |server| (backend, server)))
            .map(|(backend, server)| (backend.to_string(), server.to_string()))
            .collect();
        for (backend, server) in names {
            self.start(&backend, &server);
        }
    }

    /// Starts a server, on a host of its own (the load balancer's, if that is what its address means).
    #[track_caller]
    pub fn start(&mut self, backend: &str, server: &str) {
        let mut addr = self.addr(backend, server);
        let ip = addr.ip();
        if self.config.backends[backend].dsr_method == DsrMethod::L2 {
            // at the VIP too, which it has later
            addr.set_ip(if ip.is_ipv4() {
                Ipv4Addr::UNSPECIFIED.into()
            } else {
                Ipv6Addr::UNSPECIFIED.into()
            });
        }
        if !ip.is_loopback() && !self.servers.contains_key(&ip) {
            let host = self.lab.host(&format!("server-{ip}").replace([':', '.'], "-"));
            let prefix = if ip.is_ipv4() { 24 } else { 64 };
            host.add_address("eth0", &format!("{ip}/{prefix}"));
            // nobody is there, but tc's filters go where it points
            host.run(&format!("ip route add default via {}", self.client.ip4()));
            self.servers.insert(ip, Machine::new(&host));
        }
        let host = self.servers.get(&ip).unwrap_or(&self.lb).host();
        let has_udp = self.serves_udp(backend);
        // whoever speaks UDP alone cannot be checked by a connection, and the example says so
        let has_tcp = !has_udp || self.config.backends[backend].health_check.is_some();
        let running = Running {
            _tcp: has_tcp.then(|| TcpServer::witness(host, addr, server)),
            udp: has_udp.then(|| UdpServer::echo(host, addr, server)),
        };
        self.running.insert(format!("{backend}/{server}"), running);
    }

    /// Ends a server: connections to it are refused.
    #[track_caller]
    pub fn stop(&mut self, backend: &str, server: &str) {
        let name = format!("{backend}/{server}");
        assert!(self.running.remove(&name).is_some(), "{name} does not run");
    }

    fn serves_udp(&self, backend: &str) -> bool {
        let mut frontends = self.config.frontends.values();
        frontends.any(|f| f.backend.as_str() == backend && f.protocol == Protocol::Udp)
    }

    /// Who has sent datagrams to servers.
    pub fn udp_senders(&self) -> BTreeSet<SocketAddr> {
        let servers = self.running.values().filter_map(|running| running.udp.as_ref());
        servers
            .flat_map(|server| server.seen().senders.into_keys())
            .collect()
    }

    /// A server's address.
    #[track_caller]
    pub fn addr(&self, backend: &str, server: &str) -> SocketAddr {
        self.config.backends[backend].servers[server]
            .addr
            .on_network()
            .expect("no unix socket")
            .0
    }

    /// Runs on each server of a frontend in mode dsr what `convey backend-script` prints for it, with `more` arguments.
    /// `mode` is a flag of Convey's, or nothing.
    #[track_caller]
    pub fn set_up_servers(&self, frontend: &str, mode: &str, more: &str) {
        let backend = &self.config.backends[self.config.frontends[frontend].backend.as_str()];
        for server in backend.servers.values() {
            let script = self.lb.run(&format!(
                "convey {mode} backend-script {frontend} {}",
                server.name
            ));
            set_up_server(
                &self.servers[&server.addr.ip().expect("no unix socket")],
                &script,
                more,
            );
        }
    }

    /// Starts the load balancer.
    #[track_caller]
    pub fn convey(&self) -> Service {
        self.lb.convey("")
    }

    /// Connects to an address of the load balancer's, and hears which server it came to.
    #[track_caller]
    pub fn meet(&self, to: &str) -> Witness {
        meet(&self.client, to)
    }

    /// Opens so many connections, each of which carries bytes both ways, and counts the servers that they came to.
    #[track_caller]
    pub fn shares(&self, to: &str, connections: usize) -> BTreeMap<String, usize> {
        let mut shares = BTreeMap::new();
        // open together, for what counts them
        let open: Vec<Witness> = (0..connections).map(|_| self.meet(to)).collect();
        for witness in open {
            *shares.entry(witness.server).or_default() += 1;
        }
        shares
    }

    /// Sends a datagram and returns the name of the server that gave it back, and the asking socket's own address.
    #[track_caller]
    pub fn ask(&self, to: &str) -> (String, SocketAddr) {
        let socket = UdpClient::new(&self.client, to.parse().expect("an address"));
        let answer = socket
            .ask(b"who?")
            .unwrap_or_else(|error| panic!("no answer from {to}: {error}"));
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let name = answer.strip_suffix(":who?").expect("the datagram comes back");
        (name.to_owned(), socket.own())
    }
}

/// Connects and talks; a load balancer is allowed no failure here.
#[track_caller]
pub fn meet(client: &Host, to: &str) -> Witness {
    try_meet(client, to).unwrap_or_else(|error| panic!("{} cannot talk to {to}: {error}", client.name()))
}

/// Connects and talks.
///
/// # Errors
/// As connecting and talking.
pub fn try_meet(client: &Host, to: &str) -> io::Result<Witness> {
    let mut witness = Witness::meet(client, to.parse().expect("an address"))?;
    witness.talk(b"hello")?;
    Ok(witness)
}

/// Repeats until a connection comes through, as clients do.
#[track_caller]
pub fn keep_trying(client: &Host, to: &str, limit: Duration) -> Witness {
    let start = Instant::now();
    loop {
        match try_meet(client, to) {
            Ok(witness) => return witness,
            Err(error) if start.elapsed() > limit => panic!("{to} for {limit:?}: {error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Runs a script of `convey backend-script`. Where the kernel lacks tc's nat action nftables does the same, as it advises.
#[track_caller]
fn set_up_server(server: &Machine, script: &str, more: &str) {
    server.write("/run/setup.sh", script);
    let output = server.try_run(&format!("sh /run/setup.sh --no-boot {more}"));
    if !output.status.success() {
        assert!(
            output.stderr.contains("act_nat") && output.stderr.contains("--method nft"),
            "{}{}",
            output.stdout,
            output.stderr
        );
        server.run(&format!("sh /run/setup.sh --no-boot --method nft {more}"));
    }
}

/// Each server's part of the connections must be what its weight says, give or take a tenth.
#[track_caller]
pub fn assert_shares(shares: &BTreeMap<String, usize>, weights: &[(&str, usize)]) {
    let connections: usize = shares.values().sum();
    let sum: usize = weights.iter().map(|(_, weight)| weight).sum();
    assert!(
        shares
            .keys()
            .all(|server| weights.iter().any(|(name, _)| name == server)),
        "others than {weights:?} serve: {shares:?}"
    );
    for (server, weight) in weights {
        let (part, due) = (
            shares.get(*server).copied().unwrap_or_default() as f64 / connections as f64,
            *weight as f64 / sum as f64,
        );
        assert!(
            (part - due).abs() < 0.1,
            "{server} by weight {weights:?}: {shares:?}"
        );
    }
}

/// An address as a route to one host.
fn host_route(ip: IpAddr) -> String {
    format!("{ip}/{}", if ip.is_ipv4() { 32 } else { 128 })
}
