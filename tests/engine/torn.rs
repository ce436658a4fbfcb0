//! Whatever the keeper before was doing when it ended: half written targets and flows, registries that are torn or lie.

use std::{collections::BTreeMap, fs::File, os::unix::fs::FileExt as _};

use convey::{
    engine::xdp::layout::{
        CLAIMS_FLOWS, CLAIMS_HALF_OPEN, EndpointKey, FlowKey, ForwardValue, ReverseValue, SourceValue,
        TargetValue,
    },
    sys::bpf::{self, Insert},
};

use crate::{
    Test,
    inherited::{ack, close, element, of_server, without_first},
    passthrough::{By, ONE, SERVER, claimed, connect, is_empty, sent, used},
    site::{CLIENT, Ends, SYN, Segment, Site, VIP, keeper, parse},
    tests,
};

pub const TESTS: &[Test] = tests![
    what_was_half_written_is_written_again_or_taken_out,
    what_was_noted_and_not_written_yet_does_no_harm,
    a_port_that_was_claimed_for_no_flow_comes_back_soon,
    ports_that_are_claimed_towards_nobody_are_forgotten,
    without_a_registry_nothing_is_taken_over,
    whatever_stands_in_maps_and_registry_is_survived,
    one_follows_another_many_times,
    whenever_one_ends_flows_go_on_and_counts_are_right,
];

/// Has the version of a target's entry be odd, as in the first of the three steps in which it is written, and what follows be
/// half of something else.
fn tear(site: &Site, number: u32) {
    let targets = &site.map.maps.targets;
    let mut target: [u8; TargetValue::SIZE] = element(targets, &number.to_ne_bytes()).expect("a target");
    target[0] |= 1;
    target[20..].fill(7);
    targets
        .update(&number.to_ne_bytes(), &target, Insert::Any)
        .expect("targets");
}

fn what_was_half_written_is_written_again_or_taken_out() {
    let mut site = Site::new(ONE);
    let towards = connect(&mut site, 40_000, [By::Program; 3]);
    tear(&site, 1);
    // of an interface one entry, of a number nothing but one of its entries
    let maps = &site.map.maps;
    maps.ports.delete(&1_u32.to_ne_bytes()).expect("a port");
    tear(&site, 9);
    let source: [u8; SourceValue::SIZE] = element(&maps.sources, &1_u32.to_ne_bytes()).expect("a source");
    maps.sources
        .update(&9_u32.to_ne_bytes(), &source, Insert::Any)
        .expect("a source");
    assert_eq!(site.by_program(ack(40_000)), None);

    let mut site = site.restarted(ONE);
    assert_eq!(sent(&mut site, By::Program, ack(40_000)), towards);
    let maps = &site.map.maps;
    assert!(!is_empty(&maps.ports));
    assert_eq!(
        element::<{ SourceValue::SIZE }>(&maps.sources, &9_u32.to_ne_bytes()),
        None
    );
    let target =
        element(&maps.targets, &9_u32.to_ne_bytes()).and_then(|bytes| TargetValue::from_bytes(&bytes));
    let target = target.expect("an entry that can be read");
    assert_eq!((target.incarnation, target.version % 2), (0, 0));
    let versions: Vec<_> = (1..=9_u32)
        .filter_map(|number| element(&maps.targets, &number.to_ne_bytes()))
        .filter_map(|bytes| TargetValue::from_bytes(&bytes))
        .map(|target| target.version)
        .collect();
    site.config = parse(&without_first());
    site.apply();
    let again: [u8; TargetValue::SIZE] = element(&site.map.maps.targets, &2_u32.to_ne_bytes()).expect("one");
    let again = TargetValue::from_bytes(&again).expect("a target");
    assert!(
        versions.iter().all(|version| *version < again.version),
        "no version comes twice"
    );
}

fn what_was_noted_and_not_written_yet_does_no_harm() {
    let site = Site::new(ONE);
    let maps = &site.map.maps;
    // as if that had ended right after it had noted its only target
    maps.targets
        .update(&1_u32.to_ne_bytes(), &[0; TargetValue::SIZE], Insert::Any)
        .expect("targets");
    for map in [&maps.sources, &maps.tables] {
        let key = map.next_key(None).expect("a map").expect("an element");
        map.delete(&key).expect("an element");
    }
    let mut site = site.restarted(ONE);
    connect(&mut site, 40_000, [By::Program; 3]);
    connect(&mut site, 40_001, [By::SlowPath; 3]);
    site.scan_after(1);
    assert_eq!(
        (site.counted(), used(&site), claimed(&mut site)),
        ((2, 2), (2, 0), 2)
    );
}

fn a_port_that_was_claimed_for_no_flow_comes_back_soon() {
    let mut site = Site::new(ONE);
    connect(&mut site, 40_000, [By::SlowPath; 3]);
    sent(&mut site, By::SlowPath, Segment::of_client(40_001, SYN));
    let key = FlowKey {
        from: std::net::SocketAddrV4::new(CLIENT, 40_001).into(),
        to: EndpointKey {
            addr: VIP.into(),
            protocol: convey::base::Protocol::Tcp,
        },
    };
    // the slow path had claimed a place and a port for it, and not made it yet
    let forwards = &site.map.maps.forwards;
    let forward: [u8; ForwardValue::SIZE] = element(forwards, &key.to_bytes()).expect("a flow");
    let nat = ForwardValue::from_bytes(&forward).expect("a flow").nat;
    assert!(forwards.delete(&key.to_bytes()).expect("a flow"));
    let reverse = FlowKey {
        from: SERVER.into(),
        to: nat,
    };
    let mut site = site.restarted(ONE);
    assert_eq!(used(&site), (2, 1));
    let is_claimed = |site: &Site| {
        element::<{ ReverseValue::SIZE }>(&site.map.maps.reverses, &reverse.to_bytes()).is_some()
    };
    site.scan_after(1);
    assert!(is_claimed(&site), "it may be on its way");
    site.scan_after(1);
    assert!(!is_claimed(&site));
    assert_eq!((used(&site), claimed(&mut site)), ((1, 0), 1));
    assert_eq!(site.counted(), (1, 1));
}

fn ports_that_are_claimed_towards_nobody_are_forgotten() {
    let mut site = Site::new(ONE);
    connect(&mut site, 40_000, [By::Program; 3]);
    for server in [2, 3, 65_535] {
        site.map.maps.claims.set(server, 40);
    }
    let mut site = site.restarted(ONE);
    let claims = &site.map.maps.claims;
    assert_eq!([1, 2, 3, 65_535].map(|server| claims.get(server)), [1, 0, 0, 0]);
    assert_eq!(claims.get(CLAIMS_FLOWS as usize), 1);
    assert_eq!(claims.get(CLAIMS_HALF_OPEN as usize), 0);
    assert_eq!(claimed(&mut site), 1);
}

fn without_a_registry_nothing_is_taken_over() {
    let mut site = Site::new(ONE);
    connect(&mut site, 40_000, [By::Program; 3]);
    let [first, second, _] = site.loaded.hand_out_registry().expect("descriptors");
    for file in [first, second] {
        let file = File::from(file);
        // the checksum of what was noted
        file.write_all_at(&[0x55; 8], 24).expect("a file");
    }
    let mut successor = keeper(&site.loaded, &site.flows);
    assert!(successor.adopt().is_err());
    assert_eq!(used(&site), (1, 0), "nothing was changed");
    successor.clear().expect("the maps");
    site.keeper = successor;
    site.apply();
    assert_eq!(used(&site), (0, 0));
    connect(&mut site, 40_000, [By::Program; 3]);
    let mut site = site.restarted(ONE);
    site.scan_after(1);
    assert_eq!(site.counted(), (1, 1), "what came after can be taken over");
}

fn whatever_stands_in_maps_and_registry_is_survived() {
    let mut site = Site::new(ONE);
    let towards = connect(&mut site, 40_000, [By::Program; 3]);
    let maps = &site.map.maps;
    for byte in [0x00, 0x5a, 0xff] {
        for map in [
            &maps.targets,
            &maps.sources,
            &maps.moved,
            &maps.addresses,
            &maps.interfaces,
            &maps.settings,
            &maps.forwards,
            &maps.reverses,
            &maps.flows,
            &maps.shares,
        ] {
            let info = map.info();
            let key = match info.kind {
                bpf::kind::ARRAY => vec![0; 4],
                _ => vec![byte; info.key_size as usize],
            };
            let value = vec![byte | 1; map.value_bytes()];
            map.update(&key, &value, Insert::Any).expect("an element");
        }
        maps.claims.set(usize::from(byte) + 2, i64::MIN);
    }
    let [_, _, counted] = site.loaded.hand_out_registry().expect("descriptors");
    File::from(counted)
        .write_all_at(&[0xff; 4_096], 0)
        .expect("a file");
    let mut site = site.restarted(ONE);
    assert_eq!(sent(&mut site, By::Program, ack(40_000)), towards);
    for _ in 0..3 {
        site.scan_after(1);
    }
    assert_eq!(
        (site.counted(), used(&site), claimed(&mut site)),
        ((1, 1), (1, 0), 1)
    );
    connect(&mut site, 40_001, [By::Program; 3]);
    let maps = &site.map.maps;
    assert_eq!(element::<{ SourceValue::SIZE }>(&maps.sources, &[0x5a; 4]), None);
}

fn one_follows_another_many_times() {
    let mut site = Site::new(ONE);
    let towards = connect(&mut site, 40_000, [By::Program; 3]);
    for port in 50_000..50_010 {
        site = match port % 3 {
            0 => site.restarted(&without_first()),
            _ => site.restarted(ONE),
        };
        connect(&mut site, port, [By::Program; 3]);
        if port % 2 == 0 {
            site.scan_after(1);
        }
        assert_eq!(sent(&mut site, By::Program, ack(40_000)), towards);
    }
    site = site.restarted(ONE);
    site.scan_after(1);
    assert_eq!(used(&site), (11, 0));
    let open = site.counted().1;
    assert!(
        (1..11).contains(&open),
        "those of the other server are nobody's: {open}"
    );
    site.scan_after(901);
    assert_eq!(
        (site.counted().1, used(&site), claimed(&mut site)),
        (0, (0, 0), 0)
    );
}

/// What has happened to the flows of a site.
struct Story {
    site: Site,
    /// The state of a xorshift generator: never 0.
    random: u64,
    /// Open connections, and the ends that they have towards their servers.
    open: BTreeMap<u16, Ends>,
    closed: u64,
    next: u16,
}

/// With both servers, and with one.
const SERVERS: [&str; 3] = [
    "s1 = { addr = \"10.0.0.11:80\" }\ns2 = { addr = \"10.0.0.12:80\" }",
    "s1 = { addr = \"10.0.0.11:80\" }",
    "s2 = { addr = \"10.0.0.12:80\" }",
];

fn with_servers(servers: &str) -> String {
    ONE.replace("s1 = { addr = \"10.0.0.11:80\" }", servers)
}

impl Story {
    fn below(&mut self, limit: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        usize::try_from(self.random % limit as u64).expect("a small number")
    }

    fn by(&mut self) -> By {
        [By::Program, By::SlowPath][self.below(2)]
    }

    fn somebody(&mut self) -> Option<(u16, Ends)> {
        let at = self.below(self.open.len().max(1));
        self.open.iter().nth(at).map(|(port, ends)| (*port, *ends))
    }

    /// Something happens; a restart is not among it.
    fn step(&mut self) {
        let by = self.by();
        match self.below(12) {
            0..4 => {
                let ends = connect(&mut self.site, self.next, [by; 3]);
                self.open.insert(self.next, ends);
                self.next += 1;
            }
            4..6 => {
                if let Some((port, ends)) = self.somebody() {
                    assert_eq!(sent(&mut self.site, by, ack(port)), ends, "port {port}");
                }
            }
            6..8 => {
                if let Some((port, _)) = self.somebody() {
                    close(&mut self.site, port, by);
                    self.open.remove(&port);
                    self.closed += 1;
                }
            }
            8 => self.site.keeper.collect().expect("counters"),
            9 => {
                self.site.config = parse(&with_servers(SERVERS[self.below(3)]));
                self.site.apply();
            }
            _ => {
                // a part of a scan
                let now = self.site.now();
                self.site.keeper.scan_some(now, 1).expect("a scan");
            }
        }
        let (opened, current) = self.site.counted();
        assert!(current <= opened, "{current} of {opened}");
    }

    fn restart(mut self) -> Self {
        let servers = SERVERS[self.below(3)];
        self.site = self.site.restarted(&with_servers(servers));
        self
    }
}

fn whenever_one_ends_flows_go_on_and_counts_are_right() {
    for seed in 0..4 {
        let mut story = Story {
            site: Site::new(&with_servers(SERVERS[0])),
            random: 0x9e37_79b9_7f4a_7c15 ^ seed,
            open: BTreeMap::new(),
            closed: 0,
            next: 40_000,
        };
        for _ in 0..12 {
            for _ in 0..story.below(24) {
                story.step();
            }
            story = story.restart();
        }
        let Story {
            mut site,
            open,
            closed,
            ..
        } = story;
        site.config = parse(&with_servers(SERVERS[0]));
        site.apply();
        for _ in 0..3 {
            site.scan_after(1);
        }
        let flows = open.len() as u64 + closed;
        assert_eq!(used(&site), (flows, 0), "seed {seed}");
        assert_eq!(site.counted().1, flows, "seed {seed}");
        let servers = ["s1", "s2"].map(|name| of_server(&mut site, name).1);
        assert_eq!(servers.iter().sum::<u64>(), flows, "seed {seed}");
        for (port, ends) in open {
            assert_eq!(
                sent(&mut site, By::Program, ack(port)),
                ends,
                "seed {seed}, port {port}"
            );
        }
        site.scan_after(901);
        site.scan_after(901);
        assert_eq!((used(&site), site.counted().1), ((0, 0), 0), "seed {seed}");
        let claims = &site.map.maps.claims;
        assert!(
            (1..=u16::MAX).all(|server| claims.get(server.into()) == 0),
            "seed {seed}"
        );
    }
}
