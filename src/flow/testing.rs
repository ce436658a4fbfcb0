//! A load balancer on paper: configuration, snapshot, next hops and one path, to send packets through.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Explanation, FiveTuple, Flows, Hop, Hops, Interface, Moment, PacketCounters, Path, Resolution, Services,
    TableLimits, Verdict,
};
use crate::{
    access::{AccessRules, Action, PerClient},
    base::{
        ClientAddr, ListenAddr, Mac, PacketReason, PortRange, Protocol, ServerAddr, ServerKey, ServerName,
        ServerState, WorkerId,
    },
    config::{self, Config, Mode, PortsPerClient},
    packet::{
        Frame, HEADROOM, LinkHeader, Parsed, parse,
        testing::{Packet, wrong_checksums},
    },
    pools::{AdminState, Override, Pools},
    snapshot::{
        self, Builder, Health, Snapshot,
        live::Totals,
        testing::{backend_mut, frontend_mut},
    },
};

pub const SYN: u8 = 0x02;
pub const SYN_ACK: u8 = 0x12;
pub const ACK: u8 = 0x10;
pub const FIN_ACK: u8 = 0x11;
pub const RST: u8 = 0x04;
pub const RST_ACK: u8 = 0x14;

/// Interface towards the clients.
pub const CLIENTS: u32 = 1;
/// Interface towards the servers.
pub const SERVERS: u32 = 2;
pub const CLIENT_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

pub fn own_mac(ifindex: u32) -> Mac {
    Mac([2, 0, 0, 0, 1, ifindex as u8])
}

pub fn server_mac(host: u8) -> Mac {
    Mac([2, 0, 0, 0, 2, host])
}

pub struct Site {
    pub config: Config,
    pools: Pools,
    builder: Builder,
    pub snapshot: Option<Arc<Snapshot>>,
    pub hops: Hops,
    pub flows: Arc<Flows>,
    pub services: Arc<Services>,
    pub path: Path,
    pub now: Moment,
    start: Instant,
    v6: bool,
    /// Connections by client, as both hosts number them.
    talks: HashMap<SocketAddr, Numbering>,
    /// Clients by NAT address and server.
    clients: HashMap<(SocketAddr, SocketAddr), SocketAddr>,
    frontend: Option<Arc<snapshot::live::FrontendStats>>,
}

/// The next sequence number of each side.
#[derive(Debug, Clone, Copy)]
struct Numbering {
    client: u32,
    server: u32,
}

/// What came out of a frame.
#[derive(Debug)]
pub struct Sent {
    pub verdict: Verdict,
    pub frame: Vec<u8>,
    pub answers: Vec<Vec<u8>>,
}

impl Sent {
    pub fn reason(&self) -> Option<PacketReason> {
        match self.verdict {
            Verdict::Send { reason, .. } | Verdict::Done(reason) => Some(reason),
            Verdict::Kept => None,
        }
    }

    pub fn parsed(&self) -> Parsed {
        assert!(matches!(self.verdict, Verdict::Send { .. }), "{:?}", self.verdict);
        parse(&self.frame).expect("what is sent can be read")
    }

    /// From and to, as sent.
    pub fn ends(&self) -> (SocketAddr, SocketAddr) {
        let (_, source, destination) = self.parsed().tuple().expect("ports");
        (source, destination)
    }

    pub fn destination(&self) -> SocketAddr {
        self.ends().1
    }
}

impl Site {
    /// One frontend in a mode and that many servers of weight 1, named s1, s2 …
    pub fn new(mode: Mode, protocol: Protocol, servers: u8) -> Self {
        Self::with(mode, protocol, servers, false, 1_024)
    }

    pub fn with(mode: Mode, protocol: Protocol, servers: u8, v6: bool, max_flows: u32) -> Self {
        let names: Vec<_> = (1..=servers).map(|n| format!("s{n}")).collect();
        let given: Vec<_> = names.iter().map(|name| (name.as_str(), 1, 1)).collect();
        let mut config = snapshot::testing::config(&given);
        config.frontends.remove("b");
        let frontend = frontend_mut(&mut config, "a");
        frontend.listen = vec![ListenAddr::new(vip(v6)).into()];
        (frontend.mode, frontend.protocol) = (mode, protocol);
        let backend = backend_mut(&mut config);
        for (host, server) in (1..).zip(backend.servers.values_mut()) {
            server.addr = ServerAddr::new(server_addr(v6, host));
        }
        let max_flows = NonZeroU32::new(max_flows).unwrap();
        let flows = Arc::new(Flows::new(TableLimits {
            max_flows,
            workers: 1,
            hash_seed: 42,
        }));
        let mut site = Self {
            config,
            pools: Pools::default(),
            builder: Builder::new(4, Arc::default()),
            snapshot: None,
            hops: hops(v6, servers),
            path: Path::new(WorkerId(0), 0, Arc::clone(&flows), 7),
            flows,
            services: Arc::default(),
            now: Moment(1_000),
            start: Instant::now(),
            v6,
            talks: HashMap::new(),
            clients: HashMap::new(),
            frontend: None,
        };
        site.apply();
        let frontend = &site.snapshot.as_ref().unwrap().frontends["a"];
        site.frontend = Some(Arc::clone(&frontend.live));
        site
    }

    /// Applies configuration, health, overrides and hops.
    pub fn apply(&mut self) {
        let changed = self.pools.apply(&self.config);
        self.builder.config_changed(&self.config, changed);
        let snapshot = self.builder.build(&self.config, &self.pools, self.start).snapshot;
        self.services = Arc::new(Services::build(&snapshot, &self.services));
        self.path.set_services(Arc::clone(&self.services));
        self.path.set_hops(Arc::new(self.flows.follow_routes(&self.hops)));
        self.snapshot = Some(snapshot);
    }

    /// `[frontends.a.limits.per_client]`: 0 is no limit.
    pub fn per_client(&mut self, connections: u32, new_per_second: u32) {
        let per_client = PerClient {
            connections: NonZeroU32::new(connections),
            new_per_second: NonZeroU32::new(new_per_second),
            ..PerClient::default()
        };
        self.frontend_mut().limits.per_client = Some(per_client);
        self.apply();
    }

    /// `[frontends.a.access]`.
    pub fn rules(&mut self, rules: &[&str]) {
        let rules = rules.iter().map(|rule| rule.parse().unwrap()).collect();
        let default = Action::Allow;
        self.frontend_mut().access = Some(AccessRules { default, rules });
        self.apply();
    }

    pub fn ports_per_client(&mut self, ports: PortsPerClient) {
        self.config.packet.max_ports_per_client = ports;
        self.apply();
    }

    pub fn nat_ports(&mut self, first: u16, last: u16) {
        self.config.packet.nat_ports = PortRange { first, last }.into();
        self.apply();
    }

    pub fn health(&mut self, server: u8, state: ServerState) {
        let health = Health::new(state, self.start);
        self.builder.set_health(&key(server), Some(health));
        self.apply();
    }

    pub fn admin(&mut self, server: u8, admin: Option<AdminState>) {
        let overridden = Override { admin, weight: None };
        assert!(self.pools.set_override(&key(server), overridden));
        self.builder.pool_changed(&key(server).backend);
        self.apply();
    }

    /// The settings of the frontend, to be changed.
    pub fn frontend_mut(&mut self) -> &mut config::Frontend {
        frontend_mut(&mut self.config, "a")
    }

    pub fn backend(&mut self) -> &mut config::Backend {
        backend_mut(&mut self.config)
    }

    pub fn pass(&mut self, time: Duration) {
        self.now = self.now.after(time);
    }

    /// Time passes and everything that has expired is forgotten.
    pub fn expire_after(&mut self, time: Duration) {
        self.pass(time);
        for _ in 0..4 {
            self.path.expire(self.now);
        }
        self.check();
    }

    pub fn vip(&self) -> SocketAddr {
        vip(self.v6)
    }

    pub fn nat_ip(&self) -> IpAddr {
        local(self.v6)
    }

    pub fn client(&self, host: u8, port: u16) -> SocketAddr {
        client(self.v6, host, port)
    }

    pub fn send(&mut self, packet: &Packet, ifindex: u32) -> Sent {
        let bytes = packet.frame();
        let mut buffer = vec![0; HEADROOM];
        buffer.extend(&bytes);
        let mut frame = Frame::new(&mut buffer, HEADROOM, bytes.len(), packet.offload()).unwrap();
        let verdict = self.path.process(&mut frame, ifindex, self.now);
        let offload = frame.offload;
        let frame = frame.bytes().to_vec();
        if matches!(verdict, Verdict::Send { .. }) {
            assert_eq!(wrong_checksums(&frame, &offload), Vec::<&str>::new());
        }
        let answers: Vec<_> = self.path.answers().map(|answer| answer.frame).collect();
        for answer in &answers {
            assert_eq!(wrong_checksums(answer, &Default::default()), Vec::<&str>::new());
        }
        Sent {
            verdict,
            frame,
            answers,
        }
    }

    /// A client's TCP packet.
    pub fn tcp(&mut self, client: SocketAddr, flags: u8) -> Sent {
        let packet = self.segment(client, flags);
        let sent = self.send(&packet, CLIENTS);
        if matches!(sent.verdict, Verdict::Send { .. }) {
            self.clients.insert(sent.ends(), client);
        }
        sent
    }

    /// The packet that a client sends next.
    pub fn segment(&mut self, client: SocketAddr, flags: u8) -> Packet {
        let talk = self.talks.entry(client).or_insert(Numbering {
            client: ISN,
            server: SERVER_ISN + 1,
        });
        if flags & SYN != 0 {
            talk.client = ISN;
        }
        let packet = Packet::tcp(client, vip(self.v6), flags, b"").numbered(talk.client, talk.server);
        talk.client = talk.client.wrapping_add(counted(flags));
        packet
    }

    /// A client's datagram.
    pub fn udp(&mut self, client: SocketAddr) -> Sent {
        let vip = self.vip();
        self.send(&Packet::udp(client, vip, b"question"), CLIENTS)
    }

    /// A server's TCP packet to a NAT address.
    pub fn reply(&mut self, server: SocketAddr, nat: SocketAddr, flags: u8) -> Sent {
        let packet = self.reply_segment(server, nat, flags);
        self.send(&packet, SERVERS)
    }

    /// The packet that a server sends next.
    pub fn reply_segment(&mut self, server: SocketAddr, nat: SocketAddr, flags: u8) -> Packet {
        let packet = Packet::tcp(server, nat, flags, b"");
        let client = self.clients.get(&(nat, server));
        let Some(talk) = client.and_then(|client| self.talks.get_mut(client)) else {
            return packet;
        };
        if flags & SYN != 0 {
            talk.server = SERVER_ISN;
        }
        let packet = packet.numbered(talk.server, talk.client);
        talk.server = talk.server.wrapping_add(counted(flags));
        packet
    }

    /// A passthrough connection up to the end of its handshake: its NAT address and server.
    pub fn connect(&mut self, client: SocketAddr) -> (SocketAddr, SocketAddr) {
        let (nat, server) = self.tcp(client, SYN).ends();
        assert_eq!(
            self.reply(server, nat, SYN_ACK).reason(),
            Some(PacketReason::ToClient)
        );
        assert_eq!(self.tcp(client, ACK).ends(), (nat, server));
        (nat, server)
    }

    /// Both sides say FIN.
    pub fn close(&mut self, client: SocketAddr, nat: SocketAddr, server: SocketAddr) {
        self.tcp(client, FIN_ACK);
        self.reply(server, nat, FIN_ACK);
        self.tcp(client, ACK);
    }

    pub fn explain(&self, client: SocketAddr, protocol: Protocol) -> Explanation {
        let tuple = FiveTuple {
            protocol,
            client: ClientAddr(client),
            vip: ListenAddr::new(self.vip()),
        };
        self.flows.explain(&self.services, &self.hops, &tuple, self.now)
    }

    pub fn count(&self, reason: PacketReason) -> u64 {
        self.path.counters().read(reason)
    }

    /// The frontend's counters, also when it is configured no more.
    pub fn frontend(&self) -> Totals {
        self.frontend.as_ref().unwrap().counters.totals()
    }

    pub fn server(&self, server: u8) -> Totals {
        let snapshot = self.snapshot.as_ref().unwrap();
        snapshot.server(&key(server)).unwrap().live.counters.totals()
    }

    pub fn check(&self) {
        self.flows.check_invariants();
        let totals = self.frontend();
        let usage = self.flows.usage();
        assert_eq!(
            totals.current,
            usage.nat_flows + usage.dsr_flows,
            "open flows of the frontend"
        );
    }
}

/// First sequence numbers of clients and servers.
pub const ISN: u32 = 1_000;
pub const SERVER_ISN: u32 = 5_000;

/// What flags add to the sequence number.
fn counted(flags: u8) -> u32 {
    u32::from(flags & SYN != 0) + u32::from(flags & 0x01 != 0)
}

pub fn key(server: u8) -> ServerKey {
    ServerKey {
        backend: crate::base::BackendName::new("web").unwrap(),
        server: ServerName::new(&format!("s{server}")).unwrap(),
    }
}

pub fn vip(v6: bool) -> SocketAddr {
    if v6 { "[2001:db8::1]:80" } else { "198.51.100.1:80" }
        .parse()
        .unwrap()
}

fn local(v6: bool) -> IpAddr {
    if v6 { "2001:db8:2::ff" } else { "192.0.2.254" }.parse().unwrap()
}

pub fn server_addr(v6: bool, host: u8) -> SocketAddr {
    let ip: IpAddr = if v6 {
        format!("2001:db8:2::{host:x}").parse().unwrap()
    } else {
        IpAddr::from([192, 0, 2, host])
    };
    SocketAddr::new(ip, 80)
}

pub fn client(v6: bool, host: u8, port: u16) -> SocketAddr {
    let ip: IpAddr = if v6 {
        format!("2001:db8:c::{host:x}").parse().unwrap()
    } else {
        IpAddr::from([203, 0, 113, host])
    };
    SocketAddr::new(ip, port)
}

fn hops(v6: bool, servers: u8) -> Hops {
    let interface = |ifindex| Interface {
        mac: own_mac(ifindex),
        mtu: 1_500,
        address4: None,
        address6: None,
    };
    Hops {
        servers: (1..=servers)
            .map(|host| {
                let link = LinkHeader {
                    ifindex: SERVERS,
                    source: own_mac(SERVERS),
                    destination: server_mac(host),
                };
                let hop = Hop {
                    resolution: Resolution::Known(link),
                    mtu: 1_500,
                    locals: [local(v6)].into(),
                };
                (server_addr(v6, host).ip(), hop)
            })
            .collect(),
        interfaces: [CLIENTS, SERVERS].map(|index| (index, interface(index))).into(),
        ..Hops::default()
    }
}
