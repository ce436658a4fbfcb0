//! The program of the XDP engine, which the broker loads and attaches, and the daemon uses.

use std::{
    io::{self, Read, Write},
    num::NonZeroU32,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    process::Stdio,
};

use caps::Capability;
use convey::{
    base::{Protocol, XdpAttachMode},
    config::{PacketService, model::XdpMode},
    engine::xdp::{
        attach,
        layout::{EndpointKey, FlowKey, HANDED, Order, OrderKind, OrderResult, TABLE_ELEMENTS},
        load::{self, LoadLimits, Loaded, Predecessor},
        object::OBJECT,
        services::ServiceMaps,
    },
    privilege::{
        BrokerError, Channel, KernelOps, MAX_TABLES, Sandbox, Served, Takeover, Target, XDP_REGISTRY,
        XdpAttached, XdpInterface, XdpLoad, drop_privileges, prove,
    },
    sys::{
        bpf::{
            self, Insert, MMAPABLE, Map, MapInfo, MappedCounters, MappedTable, NewMap, XdpPlace, attach_xdp,
            kind, test_run,
        },
        task_status,
    },
};
use libtest_mimic::{Failed, Trial};

use crate::{
    CAP_DAC_READ_SEARCH, Idle, NET_CAPABILITIES, command, config,
    packets::{RootShell, own_network},
    passing,
    scenario::{become_a_unit_with, become_the_packaged_unit, nobody, nowhere},
};

/// CAP_PERFMON and CAP_BPF of include/uapi/linux/capability.h.
const CAP_PERFMON: u64 = 1 << 38;
const CAP_BPF: u64 = 1 << 39;

/// `va` has the first VIP, `vd` is named by the second.
pub const TEXT: &str =
    "engine=xdp\nweb 10.9.0.1:80 passthrough - 10.9.1.2:80\ndns 10.9.3.1:53 dsr vd 10.9.3.2:53";
pub const OTHER_ENGINE: &str = "web 10.9.0.1:80 passthrough - 10.9.1.2:80";

/// The tests, all of which need root.
pub fn trials(root: bool) -> Vec<Trial> {
    let mut trials = vec![Trial::test(
        "the_broker_gives_up_what_loading_the_xdp_program_took",
        the_broker_gives_up_what_loading_took,
    )];
    let scenarios = [
        ("the_daemon_uses_the_xdp_programs_maps_and_makes_none", "xdp_used"),
        (
            "which_packets_are_ours_is_said_by_the_broker_alone",
            "xdp_services",
        ),
        (
            "the_xdp_program_is_attached_only_where_a_frontend_needs_it_and_replaces_none",
            "xdp_attached",
        ),
        (
            "without_the_xdp_engine_in_the_configuration_nothing_is_loaded",
            "xdp_refused",
        ),
        ("the_xdp_program_is_loaded_under_the_packaged_unit", "xdp_unit"),
        (
            "the_xdp_program_is_loaded_without_perfmon",
            "xdp_unit_without_perfmon",
        ),
    ];
    trials.extend(scenarios.map(|(name, scenario)| passing(name, scenario)));
    let ignore = |trial: Trial| trial.with_ignored_flag(!root);
    trials.into_iter().map(ignore).collect()
}

/// The program of this build, and neither firewall nor packet sockets.
#[derive(Default)]
pub struct Real {
    predecessor: Predecessor,
    loaded: Option<(Loaded, Takeover)>,
}

impl Real {
    fn loaded(&mut self) -> io::Result<&mut Loaded> {
        let loaded = self.loaded.as_mut().map(|(loaded, _)| loaded);
        loaded.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

pub fn limits(max_flows: NonZeroU32) -> LoadLimits {
    LoadLimits {
        flows: max_flows,
        nat_flows: max_flows,
    }
}

impl KernelOps for Real {
    fn open_packet_socket(&mut self, _: u32, _: u16, _: &[PacketService]) -> io::Result<OwnedFd> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn refilter(&mut self, _: BorrowedFd<'_>, _: &[PacketService]) -> io::Result<()> {
        Ok(())
    }

    fn apply_firewall(&mut self, _: &[PacketService]) -> Result<Served, String> {
        Ok(Served::default())
    }

    fn clear_firewall(&mut self) -> Result<(), String> {
        Ok(())
    }

    fn inherit(&mut self, kept: Vec<(String, OwnedFd)>) {
        self.predecessor = Predecessor::of(kept);
    }

    fn load_xdp(&mut self, max_flows: NonZeroU32) -> Result<XdpLoad, String> {
        if self.loaded.is_none() {
            let predecessor = std::mem::take(&mut self.predecessor);
            self.loaded = Some(if predecessor.is_empty() {
                let loaded = load::load(OBJECT, limits(max_flows));
                let loaded = loaded.map_err(|error| format!("{error}\n{}", error.log))?;
                (loaded, Takeover::Fresh)
            } else {
                let taken = load::take_over(predecessor, OBJECT, limits(max_flows));
                (taken.map_err(|why| why.to_string())?, Takeover::TakenOver)
            });
        }
        let (loaded, takeover) = self.loaded.as_ref().ok_or("nothing is loaded")?;
        let hand_out = || -> io::Result<Vec<OwnedFd>> {
            let mut fds = loaded.hand_out()?;
            fds.extend(loaded.hand_out_registry()?);
            Ok(fds)
        };
        Ok(XdpLoad {
            fds: hand_out().map_err(|error| error.to_string())?,
            takeover: takeover.clone(),
            not_kept: None,
        })
    }

    fn settle_xdp(&mut self) {
        match self.loaded() {
            Ok(loaded) => drop(loaded.settle()),
            Err(_) => drop(std::mem::take(&mut self.predecessor).end()),
        }
    }

    fn attach_xdp(&mut self, to: XdpInterface<'_>, mode: XdpMode) -> io::Result<XdpAttached> {
        let interface = attach::Interface {
            index: to.index,
            name: to.name,
            is_loopback: to.is_loopback,
            // as all interfaces here
            is_veth: true,
        };
        let attach::Attached { mode, why } = self.loaded()?.attach(&interface, mode);
        Ok(XdpAttached {
            mode,
            why,
            not_kept: None,
        })
    }

    fn detach_xdp(&mut self, ifindex: u32) {
        let _ = self.loaded().unwrap().detach(ifindex);
    }

    fn make_xdp_tables(&mut self, count: u8) -> io::Result<Vec<OwnedFd>> {
        self.loaded()?.make_tables(count)
    }

    fn narrow_xdp(&mut self, services: &[PacketService]) -> Result<(), String> {
        let Ok(loaded) = self.loaded() else {
            return Ok(());
        };
        let narrowed = loaded.narrow(&ServiceMaps::of(services));
        narrowed.map_err(|error| error.to_string())
    }

    fn widen_xdp(&mut self, services: &[PacketService]) -> Result<Option<String>, String> {
        if let Ok(loaded) = self.loaded() {
            let widened = loaded.widen(&ServiceMaps::of(services));
            widened.map_err(|error| error.to_string())?;
        }
        Ok(None)
    }
}

fn fork(path: &Path, text: &str, target: Option<&Target>) -> Channel {
    config::fork(path, text, target, Box::new(Real::default())).unwrap()
}

fn refused<T: std::fmt::Debug>(result: Result<T, BrokerError>) -> String {
    match result {
        Err(BrokerError::Refused(why)) => why,
        other => panic!("not refused: {other:?}"),
    }
}

/// The daemon as it is dropped, and what it is handed.
pub struct Stage {
    pub broker: Channel,
    pub root: RootShell,
    pub handed: Vec<OwnedFd>,
}

impl Stage {
    fn new() -> Self {
        let root = own_network();
        let broker = fork(&nowhere(), TEXT, Some(&nobody()));
        drop_privileges(Some(&nobody()), &Sandbox::default()).unwrap();
        let grant = broker.xdp_load().unwrap();
        let handed = grant.fds;
        assert_eq!((handed.len(), grant.takeover), (HANDED.len(), Takeover::Fresh));
        assert_eq!(grant.registry.len(), XDP_REGISTRY);
        Self { broker, root, handed }
    }

    fn fd(&self, name: &str) -> BorrowedFd<'_> {
        let at = HANDED.iter().position(|handed| *handed == name).unwrap();
        self.handed[at].as_fd()
    }

    pub fn map(&self, name: &str) -> Map {
        Map::new(self.fd(name).try_clone_to_owned().unwrap()).unwrap()
    }

    /// Packets of ours that the program has left to the slow path.
    fn left(&self) -> u64 {
        let passes = self.map("passes");
        let mut value = vec![0; passes.value_bytes()];
        let count = |reason: u32| {
            assert!(passes.lookup(&reason.to_ne_bytes(), &mut value).unwrap());
            let (numbers, _) = value.as_chunks::<8>();
            numbers.iter().map(|one| u64::from_ne_bytes(*one)).sum::<u64>()
        };
        (0..passes.info().max_entries).map(count).sum()
    }

    /// Whether the program takes a segment to be one of ours: it has no servers, so that all of them are left.
    pub fn is_ours(&self, to: [u8; 4], port: u16) -> bool {
        let before = self.left();
        let run = test_run(self.fd("convey"), &syn(to, port), None, &mut Vec::new()).unwrap();
        assert_eq!(run.retval, 2, "XDP_PASS");
        self.left() > before
    }
}

/// A frame with the first segment of a TCP connection.
fn syn(to: [u8; 4], port: u16) -> Vec<u8> {
    let mut ip = vec![0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 192, 0, 2, 1];
    ip.extend(to);
    let sum: u32 = (ip.chunks(2))
        .map(|word| u32::from(word[0]) * 256 + u32::from(word[1]))
        .sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let check = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    ip[10..12].copy_from_slice(&check.to_be_bytes());
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    frame.extend(ip);
    frame.extend(40_000_u16.to_be_bytes());
    frame.extend(port.to_be_bytes());
    frame.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 4, 0, 0, 0, 0, 0]);
    frame
}

pub fn used_without_a_capability() {
    let stage = Stage::new();
    prove().unwrap();

    let (targets, flows) = (stage.map("targets"), stage.map("flows"));
    let key = 7_u32.to_ne_bytes();
    let mut value = vec![0; targets.value_bytes()];
    targets.update(&key, &[9; 64], Insert::Any).unwrap();
    assert!(targets.lookup(&key, &mut value).unwrap() && value == [9; 64]);
    flows.update(&[1; 40], &[2; 32], Insert::New).unwrap();
    let again = flows.update(&[1; 40], &[2; 32], Insert::New).unwrap_err();
    assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(flows.delete_batch(&[1; 40]).unwrap(), 1);
    let untouched = test_run(stage.fd("touch"), &syn([10, 9, 3, 1], 53), None, &mut Vec::new());
    assert_eq!(untouched.unwrap().retval, 1, "XDP_DROP: it is of no flow");

    let unknown = Order {
        what: OrderKind::End,
        key: FlowKey {
            from: "192.0.2.1:40000".parse().unwrap(),
            to: EndpointKey {
                addr: "10.9.0.1:80".parse().unwrap(),
                protocol: Protocol::Tcp,
            },
        },
        begun: 1,
    };
    let mut said = Vec::new();
    test_run(stage.fd("order"), &unknown.to_bytes(), None, &mut said).unwrap();
    assert_eq!(
        OrderResult::from_bytes(&said),
        OrderResult::default(),
        "of no flow"
    );
    let claims = MappedCounters::new(&stage.map("claims")).unwrap();
    claims.add(7, 1);
    assert_eq!(claims.get(7), 1);

    let tables = stage.broker.xdp_tables(3).unwrap();
    assert_eq!(tables.len(), 3);
    for table in &tables {
        let map = Map::new(table.try_clone().unwrap()).unwrap();
        let mut mapped = MappedTable::new(&map).unwrap();
        assert_eq!(mapped.len(), TABLE_ELEMENTS);
        mapped.fill([1, 2, 3]);
    }
    let id = std::os::fd::AsRawFd::as_raw_fd(&tables[0]).to_ne_bytes();
    stage.map("tables").update(&[0; 20], &id, Insert::New).unwrap();
    assert!(refused(stage.broker.xdp_tables(MAX_TABLES + 1)).contains("more than"));

    // nothing new is made by it
    let eperm = |error: io::Error| assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    let info = MapInfo {
        kind: kind::ARRAY,
        key_size: 4,
        value_size: 8,
        max_entries: 1,
        flags: MMAPABLE,
    };
    eperm(NewMap { name: "own", info }.create().unwrap_err());
    eperm(attach_xdp(stage.fd("convey"), 2, XdpPlace::Stack).unwrap_err());
    // the same once more
    let again = stage.broker.xdp_load().unwrap().fds;
    let at = HANDED.iter().position(|name| *name == "targets").unwrap();
    assert_eq!(bpf::info(again[at].as_fd()).unwrap(), targets.info());
    let same = Map::new(again[at].try_clone().unwrap()).unwrap();
    assert!(same.lookup(&key, &mut value).unwrap() && value == [9; 64]);
}

pub fn services_are_the_brokers() {
    let stage = Stage::new();
    let ours = || (stage.is_ours([10, 9, 3, 1], 53), stage.is_ours([10, 9, 3, 1], 54));
    assert_eq!(ours(), (false, false), "nothing is served yet");
    let services = config::services(TEXT);
    stage.broker.serve(&services).unwrap();
    assert_eq!(ours(), (true, false));
    refused(
        stage
            .broker
            .serve(&config::services("dns 10.9.3.1:54 dsr vd 10.9.3.2:54")),
    );
    assert_eq!(ours(), (true, false));
    stage.broker.serve(&services[..1]).unwrap();
    let kept = services[0].vip.first().port();
    assert_eq!(ours(), (kept == 53, false));
    stage.broker.serve(&[]).unwrap();
    assert_eq!(ours(), (false, false));
}

pub fn attached_where_packets_are_taken() {
    let root = own_network();
    let broker = fork(&nowhere(), TEXT, Some(&nobody()));
    let other = fork(&nowhere(), TEXT, Some(&nobody()));
    drop_privileges(Some(&nobody()), &Sandbox::default()).unwrap();
    let mut stage = Stage {
        handed: broker.xdp_load().unwrap().fds,
        broker,
        root,
    };
    other.xdp_load().unwrap();
    let unloaded = |name| refused(stage.broker.xdp_attach(name));
    for name in ["vc", "lo", "eth9"] {
        assert!(unloaded(name).contains(name));
    }
    let attached = stage.broker.xdp_attach("va").unwrap();
    assert_eq!(attached.mode, XdpAttachMode::Generic);
    assert!(attached.why.contains("veth"), "{attached:?}");
    assert_eq!(
        stage.broker.xdp_attach("va").unwrap(),
        attached,
        "the same once more"
    );
    stage.root.run("ip -d link show va | grep -q xdpgeneric");

    // somebody else's stays
    let taken = other.xdp_attach("va").unwrap();
    assert_eq!(taken.mode, XdpAttachMode::None);
    assert!(taken.why.starts_with("another XDP program"), "{taken:?}");
    other.xdp_detach("va").unwrap();
    stage.root.run("ip -d link show va | grep -q xdpgeneric");
    stage.broker.xdp_detach("va").unwrap();
    stage
        .root
        .run("ip -d link show va | grep -c xdpgeneric | grep -qx 0");
    assert_eq!(other.xdp_attach("va").unwrap().mode, XdpAttachMode::Generic);

    // an interface that comes back is another one
    stage.broker.xdp_attach("vd").unwrap();
    stage.root.run("ip link del vd");
    let gone = stage.broker.xdp_attach("vd").unwrap_err().to_string();
    assert!(gone.starts_with("find interface vd: No such device"), "{gone}");
    stage
        .root
        .run("ip link add vd type veth peer name pd; ip link set vd up");
    assert_eq!(
        stage.broker.xdp_attach("vd").unwrap().mode,
        XdpAttachMode::Generic
    );
    stage.root.run("ip -d link show vd | grep -q xdpgeneric");
    stage.broker.xdp_detach("no such").unwrap();
}

pub fn refused_with_another_engine() {
    let _root = own_network();
    let broker = fork(&nowhere(), OTHER_ENGINE, Some(&nobody()));
    drop_privileges(Some(&nobody()), &Sandbox::default()).unwrap();
    let expected = "the configuration does not have engine = \"xdp\"";
    assert_eq!(refused(broker.xdp_load()), expected);
    assert_eq!(refused(broker.xdp_attach("va")), expected);
    assert_eq!(refused(broker.xdp_tables(1)), expected);
    broker.xdp_detach("va").unwrap();
}

/// As the packaged unit starts, with CAP_PERFMON and without.
pub fn the_packaged_unit(perfmon: bool) {
    let _root = own_network();
    if perfmon {
        become_the_packaged_unit();
    } else {
        become_a_unit_with(&[
            Capability::CAP_SETPCAP,
            Capability::CAP_NET_ADMIN,
            Capability::CAP_NET_RAW,
            Capability::CAP_BPF,
        ]);
    }
    let broker = fork(&nowhere(), TEXT, None);
    drop_privileges(None, &Sandbox::default()).unwrap();
    assert_eq!(broker.xdp_load().unwrap().fds.len(), HANDED.len());
    assert_eq!(broker.xdp_attach("va").unwrap().mode, XdpAttachMode::Generic);
}

/// Loads, or not, says the broker's process id and waits.
pub fn idle(loads: bool) {
    let _root = own_network();
    let broker = fork(&nowhere(), TEXT, Some(&nobody()));
    drop_privileges(Some(&nobody()), &Sandbox::default()).unwrap();
    let _handed = loads.then(|| broker.xdp_load().unwrap());
    println!("{}", broker.pid());
    io::stdout().flush().unwrap();
    io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

/// From outside: the broker has what loading takes until it has loaded.
fn the_broker_gives_up_what_loading_took() -> Result<(), Failed> {
    let before = NET_CAPABILITIES | CAP_DAC_READ_SEARCH | CAP_BPF | CAP_PERFMON;
    for (scenario, kept) in [("xdp_idle", before), ("xdp_loaded_idle", before & !CAP_PERFMON)] {
        let idle = Idle::of(command(scenario)?.stderr(Stdio::inherit()))?;
        let tasks = task_status::read_process(idle.broker)?;
        assert_eq!(tasks.len(), 1, "{scenario}");
        for task in tasks {
            let has = (task.permitted, task.effective, task.bounding, task.ambient);
            assert_eq!(has, (kept, kept, 0, 0), "{scenario}: {task:?}");
        }
    }
    Ok(())
}
