//! The keeper of the xdp engine's maps, the program in test runs, and the slow path over the program's flows.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU32,
    os::fd::AsFd as _,
    sync::Arc,
    time::{Duration, Instant},
};

use convey::{
    base::{Mac, PacketReason, ServerKey, ServerState, WorkerId},
    config::{self, Config, Options, Source},
    engine::xdp::{
        Clock, FlowMap, Keeper, Maps, XdpStore,
        load::{self, LoadLimits, Loaded},
        object,
        services::ServiceMaps,
    },
    flow::{Flows, Hop, Hops, Interface, Moment, Path, Resolution, Services, TableLimits, Verdict},
    packet::{Frame, HEADROOM, LinkHeader, Offload},
    pools::Pools,
    snapshot::{Builder, Health, Snapshot, live::Totals},
    sys::bpf,
};

use crate::{Test, tests};

pub const TESTS: &[Test] = tests![
    a_flow_of_the_slow_path_is_in_the_programs_map_lives_by_its_packets_and_ends_there,
    a_flow_that_the_map_has_dropped_counts_as_ended,
    new_flows_are_decided_by_the_newest_configuration_and_others_stay,
    what_an_engine_before_has_left_is_cleared,
];

/// What the program returns (include/uapi/linux/bpf.h).
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;

/// The loopback interface, which test runs come by.
const BY: u32 = 1;
const OURS: Mac = Mac([2, 0, 0, 0, 1, 1]);

const TWO: &str = r#"
[frontends.web]
listen_addr = "198.51.100.1:80"
mode = "dsr"
backend = "web"
[backends.web.servers]
s1 = { addr = "10.0.0.11:80" }
s2 = { addr = "10.0.0.12:80" }
"#;

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// An xdp engine without threads and interfaces.
struct Site {
    config: Config,
    pools: Pools,
    builder: Builder,
    snapshot: Arc<Snapshot>,
    services: Services,
    hops: Hops,
    loaded: Arc<Loaded>,
    map: Arc<FlowMap>,
    flows: Arc<Flows<XdpStore>>,
    keeper: Keeper,
    path: Path<XdpStore>,
}

impl Site {
    fn new() -> Self {
        let flows = NonZeroU32::new(1_024).expect("not 0");
        let mut loaded =
            load::load(object::OBJECT, LoadLimits { flows }).unwrap_or_else(|error| panic!("{error}"));
        let config = parse(TWO);
        let ours = ServiceMaps::of(&config.packet_services());
        loaded.narrow(&ours).expect("services");
        loaded.widen(&ours).expect("services");
        let maps = Maps::from_fds(loaded.hand_out().expect("descriptors")).expect("maps");
        let map = Arc::new(FlowMap::new(maps, Clock::of(Instant::now()).expect("a clock")));
        let limits = TableLimits {
            max_flows: flows,
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
        site.apply();
        site
    }

    /// Has engine and program take the configuration.
    fn apply(&mut self) {
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
        self.keeper
            .apply(&self.services, &self.hops, &attached)
            .expect("the maps");
        let services = Services::build(&self.snapshot, &Services::default());
        self.path.set_services(Arc::new(services));
        self.path.set_hops(Arc::new(self.hops.clone()));
    }

    fn now(&self) -> Moment {
        self.map.clock.now().expect("a clock")
    }

    /// What the slow path makes of a client's segment.
    fn slowly(&mut self, client: u16, flags: u8) -> PacketReason {
        let bytes = segment(client, flags);
        let mut buffer = vec![0; HEADROOM];
        buffer.extend(&bytes);
        let mut frame = Frame::new(&mut buffer, HEADROOM, bytes.len(), Offload::default()).expect("a frame");
        let now = self.now();
        match self.path.process(&mut frame, BY, now) {
            Verdict::Send { reason, .. } | Verdict::Done(reason) => reason,
            Verdict::Kept => panic!("it is no fragment"),
        }
    }

    /// The server that the program sends a client's segment to; `None`: it leaves it to the slow path.
    fn by_program(&self, client: u16, flags: u8) -> Option<IpAddr> {
        let mut out = Vec::new();
        let program = self.map.maps.convey.as_fd();
        let run = bpf::test_run(program, &segment(client, flags), None, &mut out).expect("a test run");
        match run.retval {
            XDP_PASS => None,
            XDP_TX => Some(Ipv4Addr::from([out[30], out[31], out[32], out[33]]).into()),
            other => panic!("the program returned {other}"),
        }
    }

    /// How the only flow stands for people.
    fn listed(&self) -> Vec<String> {
        let (_, flows) = self.flows.list(&|_| true, 10, self.now());
        flows.iter().map(|flow| flow.state.label().to_owned()).collect()
    }

    /// Flows that have begun and are open, by the frontend's counters.
    fn counted(&self) -> (u64, u64) {
        let Totals { opened, current, .. } = self.snapshot.frontends["web"].live.counters.totals();
        (opened, current)
    }
}

fn keeper(loaded: &Arc<Loaded>, flows: &Arc<Flows<XdpStore>>) -> Keeper {
    let tables = Arc::clone(loaded);
    let make = move |count: usize| tables.make_tables(u8::try_from(count).unwrap_or(u8::MAX));
    Keeper::new(Arc::clone(flows), Box::new(make), WorkerId(1))
}

fn parse(text: &str) -> Config {
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

/// A segment without payload from 203.0.113.5 to the VIP, its checksum finished.
fn segment(client: u16, flags: u8) -> Vec<u8> {
    let mut ip = vec![
        0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 203, 0, 113, 5, 198, 51, 100, 1,
    ];
    let checksum = !sum(&ip);
    put(&mut ip, 10, checksum);
    let mut tcp = client.to_be_bytes().to_vec();
    tcp.extend([
        0,
        80,
        0,
        0,
        0,
        1,
        0,
        0,
        0,
        0,
        5 << 4,
        flags,
        0xff,
        0xff,
        0,
        0,
        0,
        0,
    ]);
    // addresses, protocol and length of the pseudo-header
    let pseudo = [&ip[12..], &[0, 6, 0, 20], &tcp[..]].concat();
    put(&mut tcp, 16, !sum(&pseudo));
    [&OURS.0[..], &[2, 0, 0, 0, 9, 9, 8, 0], &ip, &tcp].concat()
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

fn a_flow_of_the_slow_path_is_in_the_programs_map_lives_by_its_packets_and_ends_there() {
    let mut site = Site::new();
    assert_eq!(site.slowly(40_000, SYN), PacketReason::ToServer);
    assert_eq!(site.listed(), ["syn"]);
    assert_eq!(site.slowly(40_000, ACK), PacketReason::ToServer);
    assert_eq!(site.listed(), ["established"], "the program has taken it in");
    assert!(site.by_program(40_000, ACK).is_some(), "and goes on with it");
    site.keeper.collect().expect("counters");
    assert_eq!(site.counted(), (1, 1));
    let now = site.now().after(Duration::from_secs(901));
    site.keeper.scan(now).expect("a scan");
    assert_eq!(site.counted(), (1, 0));
    assert_eq!(site.map.maps.flows.next_key(None).expect("the map"), None);
}

fn a_flow_that_the_map_has_dropped_counts_as_ended() {
    let mut site = Site::new();
    for client in 40_000..40_010 {
        assert!(site.by_program(client, SYN).is_some());
    }
    site.keeper.collect().expect("counters");
    assert_eq!(site.counted(), (10, 10));
    let dropped = site
        .map
        .maps
        .flows
        .next_key(None)
        .expect("the map")
        .expect("a flow");
    assert!(site.map.maps.flows.delete(&dropped).expect("the map"));
    let now = site.now();
    site.keeper.scan(now).expect("a scan");
    assert_eq!(site.counted(), (10, 9));
    assert_eq!(site.flows.usage().dsr_flows, 9);
}

fn new_flows_are_decided_by_the_newest_configuration_and_others_stay() {
    let mut site = Site::new();
    let first: IpAddr = IpAddr::from([10, 0, 0, 11]);
    let before: Vec<_> = (40_000..40_064)
        .map(|client| site.by_program(client, SYN))
        .collect();
    assert!(before.contains(&Some(first)), "{before:?}");
    site.config = parse(&TWO.replace("s1 = ", "# s1 = "));
    site.apply();
    let after: Vec<_> = (50_000..50_064)
        .map(|client| site.by_program(client, SYN))
        .collect();
    assert!(
        !after.contains(&Some(first)) && !after.contains(&None),
        "{after:?}"
    );
    let kept: Vec<_> = (40_000..40_064)
        .map(|client| site.by_program(client, ACK))
        .collect();
    assert_eq!(kept, before, "flows outlive their server's configuration");
}

fn what_an_engine_before_has_left_is_cleared() {
    let mut site = Site::new();
    assert!(site.by_program(40_000, SYN).is_some());
    let mut successor = keeper(&site.loaded, &site.flows);
    successor.clear().expect("the maps");
    let maps = &site.map.maps;
    for map in [
        &maps.flows,
        &maps.tables,
        &maps.addresses,
        &maps.interfaces,
        &maps.ports,
    ] {
        assert_eq!(map.next_key(None).expect("a map"), None);
    }
    assert_eq!(site.by_program(40_001, SYN), None, "nothing says where it goes");
    site.keeper = successor;
    site.apply();
    assert!(site.by_program(40_001, SYN).is_some());
}
