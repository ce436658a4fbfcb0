//! An xdp engine without threads and interfaces: the program in test runs, and the slow path over its flows.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddrV4},
    num::NonZeroU32,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::Arc,
    time::Instant,
};

use convey::{
    base::{Mac, PacketReason, ServerKey, ServerState, WorkerId},
    config::{self, Config, Options, Source},
    engine::xdp::{
        Clock, FlowMap, Keeper, Maps, Registry, XdpStore,
        load::{self, KEPT, LoadLimits, Loaded, Predecessor},
        object,
        services::ServiceMaps,
    },
    flow::{FlowInfo, Flows, Hop, Hops, Interface, Moment, Path, Resolution, Services, TableLimits, Verdict},
    packet::{Frame, HEADROOM, LinkHeader, Offload},
    pools::Pools,
    snapshot::{Builder, Health, Snapshot, live::Totals},
    sys::bpf,
};

/// What the program returns (include/uapi/linux/bpf.h).
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;

/// The loopback interface, which test runs come by.
const BY: u32 = 1;
const OURS: Mac = Mac([2, 0, 0, 0, 1, 1]);

pub const SYN: u8 = 0x02;
pub const ACK: u8 = 0x10;
pub const SYN_ACK: u8 = SYN | ACK;
pub const FIN_ACK: u8 = 0x01 | ACK;

/// A client and the VIP of all that is configured here.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);
pub const VIP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 1), 80);

/// See the file's text.
pub struct Site {
    pub config: Config,
    pools: Pools,
    builder: Builder,
    pub snapshot: Arc<Snapshot>,
    services: Services,
    hops: Hops,
    pub loaded: Arc<Loaded>,
    pub map: Arc<FlowMap>,
    pub flows: Arc<Flows<XdpStore>>,
    pub keeper: Keeper,
    path: Path<XdpStore>,
}

/// A TCP segment without payload.
#[derive(Debug, Clone, Copy)]
pub struct Segment {
    pub from: SocketAddrV4,
    pub to: SocketAddrV4,
    pub flags: u8,
    pub sequence: u32,
    pub acknowledges: u32,
    /// Link address of who sends it.
    pub by: Mac,
}

impl Site {
    /// With this configuration, whose VIP is [`VIP`].
    pub fn new(text: &str) -> Self {
        Self::with(text, 1_024)
    }

    /// With room for so many flows.
    pub fn with(text: &str, max_flows: u32) -> Self {
        let loaded = load::load(object::OBJECT, limits(max_flows)).unwrap_or_else(|error| panic!("{error}"));
        Self::over(loaded, text, max_flows, |keeper| {
            keeper.clear().expect("the maps");
        })
    }

    /// What comes after this one with the same room, and takes over what it leaves: with this configuration.
    pub fn restarted(self, text: &str) -> Self {
        let max_flows = self.map.maps.forwards.info().max_entries;
        let predecessor = Predecessor::of(kept(&self.loaded));
        drop(self);
        let loaded = load::take_over(predecessor, object::OBJECT, limits(max_flows));
        let loaded = loaded.unwrap_or_else(|error| panic!("{error}"));
        Self::over(loaded, text, max_flows, |keeper| {
            keeper.adopt().expect("the maps");
        })
    }

    fn over(mut loaded: Loaded, text: &str, max_flows: u32, begin: impl FnOnce(&mut Keeper)) -> Self {
        let max_flows = NonZeroU32::new(max_flows).expect("not 0");
        let config = parse(text);
        let ours = ServiceMaps::of(&config.packet_services());
        loaded.narrow(&ours).expect("services");
        loaded.widen(&ours).expect("services");
        let maps = Maps::from_fds(loaded.hand_out().expect("descriptors")).expect("maps");
        let map = Arc::new(FlowMap::new(maps, Clock::of(Instant::now()).expect("a clock")));
        let limits = TableLimits {
            max_flows,
            workers: 1,
            hash_seed: 42,
        };
        let flows = Arc::new(XdpStore::flows(&limits, Arc::clone(&map)));
        let loaded = Arc::new(loaded);
        let mut site = Self {
            config,
            pools: Pools::default(),
            builder: Builder::new(2, Arc::default()),
            snapshot: Arc::default(),
            services: Services::default(),
            hops: hops(),
            keeper: keeper(&loaded, &flows),
            loaded,
            map,
            path: Path::new(WorkerId(0), 0, Arc::clone(&flows), 7),
            flows,
        };
        begin(&mut site.keeper);
        site.apply();
        site
    }

    /// Has engine and program take the configuration.
    pub fn apply(&mut self) {
        let changed = self.pools.apply(&self.config);
        self.builder.config_changed(&self.config, changed);
        let now = Instant::now();
        for backend in self.config.backends.values() {
            for server in backend.servers.keys() {
                let key = ServerKey {
                    backend: backend.name.clone(),
                    server: server.clone(),
                };
                self.builder
                    .set_health(&key, Some(Health::new(ServerState::Up, now)));
            }
        }
        self.snapshot = self.builder.build(&self.config, &self.pools, now).snapshot;
        self.services = Services::build(&self.snapshot, &self.services);
        let attached = BTreeMap::from([(BY, true)]);
        let hops = self.flows.follow_routes(&self.hops);
        self.keeper
            .apply(&self.services, &hops, &attached)
            .expect("the maps");
        let services = Services::build(&self.snapshot, &Services::default());
        self.path.set_services(Arc::new(services));
        self.path.set_hops(Arc::new(hops));
    }

    pub fn now(&self) -> Moment {
        self.map.clock.now().expect("a clock")
    }

    /// Looks through all flows as if it were so many seconds later.
    pub fn scan_after(&mut self, seconds: u64) {
        let now = self.now().after(std::time::Duration::from_secs(seconds));
        self.keeper.scan(now).expect("a scan");
    }

    /// What the slow path makes of a segment, and where it then comes from and goes to.
    pub fn slowly(&mut self, segment: Segment) -> (PacketReason, Ends) {
        let bytes = segment.frame();
        let mut buffer = vec![0; HEADROOM];
        buffer.extend(&bytes);
        let mut frame = Frame::new(&mut buffer, HEADROOM, bytes.len(), Offload::default()).expect("a frame");
        let now = self.now();
        let verdict = self.path.process(&mut frame, BY, now);
        let ends = ends(frame.bytes());
        match verdict {
            Verdict::Send { reason, .. } | Verdict::Done(reason) => (reason, ends),
            Verdict::Kept => panic!("it is no fragment"),
        }
    }

    /// Where a segment comes from and goes to that the program has forwarded; `None`: it leaves it to the slow path.
    pub fn by_program(&self, segment: Segment) -> Option<Ends> {
        by_program(self.map.maps.convey.as_fd(), segment)
    }

    /// Closes flows that somebody has seen. How many were still there.
    pub fn close(&mut self, flows: &[FlowInfo]) -> u64 {
        let now = self.now();
        self.path.forget(flows, now)
    }

    /// A client is behind this router.
    pub fn route(&mut self, client: Ipv4Addr, router: Mac) {
        let link = LinkHeader {
            ifindex: BY,
            source: OURS,
            destination: router,
        };
        let hop = Hop {
            resolution: Resolution::Known(link),
            mtu: 1_500,
            locals: [].into(),
        };
        self.hops.clients.insert(client.into(), hop);
    }

    /// How the flows stand for people.
    pub fn listed(&self) -> Vec<String> {
        let (_, flows) = self.flows.list(&|_| true, 10, self.now());
        flows.iter().map(|flow| flow.state.label().to_owned()).collect()
    }

    /// Flows that have begun and are open, by the frontend's counters.
    pub fn counted(&self) -> (u64, u64) {
        let Totals { opened, current, .. } = self.snapshot.frontends["web"].live.counters.totals();
        (opened, current)
    }
}

/// Source and destination.
pub type Ends = (SocketAddrV4, SocketAddrV4);

/// What a program makes of a segment: see [`Site::by_program`].
pub fn by_program(program: BorrowedFd<'_>, segment: Segment) -> Option<Ends> {
    let mut out = Vec::new();
    let run = bpf::test_run(program, &segment.frame(), None, &mut out).expect("a test run");
    match run.retval {
        XDP_PASS => None,
        XDP_TX => Some(ends(&out)),
        other => panic!("the program returned {other}"),
    }
}

impl Segment {
    /// A client's to the VIP.
    pub fn of_client(port: u16, flags: u8) -> Self {
        Self {
            from: SocketAddrV4::new(CLIENT, port),
            to: VIP,
            flags,
            sequence: 1,
            acknowledges: 0,
            by: Mac([2, 0, 0, 0, 9, 9]),
        }
    }

    /// The one that answers it, after translation to these ends.
    pub fn answer(self, (from, to): Ends, flags: u8) -> Self {
        Self {
            from: to,
            to: from,
            flags,
            sequence: 1_000,
            acknowledges: self.sequence + u32::from(self.flags & (SYN | 0x01) != 0),
            by: Mac([2, 0, 0, 0, 2, to.ip().octets()[3]]),
        }
    }

    /// With these numbers.
    pub fn numbered(self, sequence: u32, acknowledges: u32) -> Self {
        Self {
            sequence,
            acknowledges,
            ..self
        }
    }

    /// As a frame to us, its checksums finished.
    pub fn frame(&self) -> Vec<u8> {
        let mut ip = vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0];
        ip.extend(self.from.ip().octets());
        ip.extend(self.to.ip().octets());
        let checksum = !sum(&ip);
        put(&mut ip, 10, checksum);
        let mut tcp = Vec::new();
        tcp.extend(self.from.port().to_be_bytes());
        tcp.extend(self.to.port().to_be_bytes());
        tcp.extend(self.sequence.to_be_bytes());
        tcp.extend(self.acknowledges.to_be_bytes());
        tcp.extend([5 << 4, self.flags, 0xff, 0xff, 0, 0, 0, 0]);
        // addresses, protocol and length of the pseudo-header
        let pseudo = [&ip[12..], &[0, 6, 0, 20], &tcp[..]].concat();
        put(&mut tcp, 16, !sum(&pseudo));
        [&OURS.0[..], &self.by.0, &[8, 0], &ip, &tcp].concat()
    }
}

/// The ends of a TCP segment over IPv4 without options.
fn ends(frame: &[u8]) -> Ends {
    let end = |ip: usize, port: usize| {
        let address: [u8; 4] = frame[ip..ip + 4].try_into().expect("an address");
        SocketAddrV4::new(address.into(), u16::from_be_bytes([frame[port], frame[port + 1]]))
    };
    (end(26, 34), end(30, 36))
}

/// Room for so many flows of either mode.
pub fn limits(max_flows: u32) -> LoadLimits {
    let max_flows = NonZeroU32::new(max_flows).expect("not 0");
    LoadLimits {
        flows: max_flows,
        nat_flows: max_flows,
    }
}

/// Copies of what the service manager keeps of a program, but for its links.
pub fn kept(loaded: &Loaded) -> Vec<(String, OwnedFd)> {
    let copy = |fd: BorrowedFd<'_>| (KEPT.to_owned(), fd.try_clone_to_owned().expect("a descriptor"));
    loaded.kept().into_iter().map(copy).collect()
}

/// One of the flows' maps.
pub fn keeper(loaded: &Arc<Loaded>, flows: &Arc<Flows<XdpStore>>) -> Keeper {
    let tables = Arc::clone(loaded);
    let make = move |count: usize| tables.make_tables(u8::try_from(count).unwrap_or(u8::MAX));
    let registry = Registry::new(loaded.hand_out_registry().expect("descriptors"));
    Keeper::new(Arc::clone(flows), Box::new(make), registry, WorkerId(1))
}

pub fn parse(text: &str) -> Config {
    let source = Source {
        name: "c.toml".to_owned(),
        bytes: text.into(),
    };
    let loaded = config::load(&source, Options::default());
    loaded.unwrap_or_else(|errors| panic!("{errors:?}")).config
}

fn hops() -> Hops {
    let hop = |host: u8| {
        let link = LinkHeader {
            ifindex: BY,
            source: OURS,
            destination: Mac([2, 0, 0, 0, 2, host]),
        };
        let hop = Hop {
            resolution: Resolution::Known(link),
            mtu: 1_500,
            locals: [IpAddr::from([10, 0, 0, 254])].into(),
        };
        (IpAddr::from([10, 0, 0, host]), hop)
    };
    let interface = Interface {
        mac: OURS,
        mtu: 1_500,
        address4: None,
        address6: None,
    };
    Hops {
        servers: [hop(11), hop(12)].into(),
        interfaces: [(BY, interface)].into(),
        ..Hops::default()
    }
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// The sum of RFC 1071.
fn sum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    ((folded & 0xffff) + (folded >> 16)) as u16
}
