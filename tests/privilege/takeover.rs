//! What an earlier process has left of the XDP engine's program, which the broker goes on with, and nobody else gets.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read, Write},
    num::NonZeroU32,
    os::fd::OwnedFd,
};

use convey::{
    base::XdpAttachMode,
    config::model::XdpMode,
    engine::xdp::{
        attach::Interface,
        load::{self, KEPT, Loaded},
        object::OBJECT,
        services::ServiceMaps,
    },
    privilege::{Channel, Sandbox, Takeover, XDP_REGISTRY, drop_privileges},
    sys::bpf::Insert,
};
use libtest_mimic::{Failed, Trial};

use crate::{
    Idle, command, config,
    packets::{RootShell, own_network},
    passing, runner_of,
    scenario::{nobody, nowhere},
    xdp::{OTHER_ENGINE, Real, Stage, TEXT, limits},
};

/// Maps that nobody but the broker has: services, ranges, the mark.
const BROKERS_MAPS: usize = 3;

/// The tests, all of which need root.
pub fn trials(root: bool) -> Vec<Trial> {
    let mut trials = vec![
        Trial::test(
            "neither_daemon_nor_runner_has_links_or_maps_of_the_brokers",
            neither_daemon_nor_runner_has_what_is_the_brokers,
        ),
        Trial::test(
            "a_command_learns_nothing_of_the_service_manager",
            a_command_learns_nothing_of_the_service_manager,
        ),
    ];
    let scenarios = [
        (
            "a_program_that_was_left_goes_on_with_its_flows_and_services",
            "xdp_taken_over",
        ),
        (
            "where_the_program_is_not_attached_again_it_is_detached_once_all_is_settled",
            "xdp_settled",
        ),
        (
            "a_program_that_was_left_ends_where_another_engine_is_configured",
            "xdp_left_to_another_engine",
        ),
    ];
    trials.extend(scenarios.map(|(name, scenario)| passing(name, scenario)));
    let ignore = |trial: Trial| trial.with_ignored_flag(!root);
    trials.into_iter().map(ignore).collect()
}

/// What a service manager keeps of a process that has served [`TEXT`] and was attached to these interfaces.
fn left(interfaces: &[&str]) -> Vec<(String, OwnedFd)> {
    let mut loaded = load::load(OBJECT, limits(NonZeroU32::new(4_096).unwrap())).unwrap();
    let services = ServiceMaps::of(&config::services(TEXT));
    loaded.narrow(&services).unwrap();
    loaded.widen(&services).unwrap();
    let copy = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned().unwrap();
    let all = loaded.kept().into_iter().map(|fd| (KEPT.to_owned(), copy(fd)));
    let mut all: Vec<_> = all.collect();
    for name in interfaces {
        let index = attach(&mut loaded, name);
        let (name, link) = loaded.kept_link(index).unwrap();
        all.push((name, copy(link)));
    }
    all
}

fn attach(loaded: &mut Loaded, name: &str) -> u32 {
    let interface = Interface {
        index: nix::net::if_::if_nametoindex(name).unwrap(),
        name,
        is_loopback: false,
        is_veth: true,
    };
    let attached = loaded.attach(&interface, XdpMode::Auto);
    assert_eq!(attached.mode, XdpAttachMode::Generic, "{}", attached.why);
    interface.index
}

/// The copies that the service manager goes on to have.
fn copies(kept: &[(String, OwnedFd)]) -> Vec<OwnedFd> {
    kept.iter().map(|(_, fd)| fd.try_clone().unwrap()).collect()
}

fn start(kept: Vec<(String, OwnedFd)>, text: &str) -> Channel {
    let target = nobody();
    let broker = config::fork_after(kept, &nowhere(), text, Some(&target), Box::new(Real::default()));
    let broker = broker.unwrap();
    drop_privileges(Some(&target), &Sandbox::default()).unwrap();
    broker
}

fn has_program(root: &mut RootShell, name: &str, has: bool) {
    let count = u8::from(has);
    root.run(&format!(
        "ip -d link show {name} | grep -c xdpgeneric | grep -qx {count}"
    ));
}

pub fn the_program_goes_on() {
    let root = own_network();
    let mut kept = left(&["va"]);
    let manager = copies(&kept);
    // whatever order the manager hands them over in
    kept.reverse();
    let broker = start(kept, TEXT);
    let grant = broker.xdp_load().unwrap();
    assert_eq!(grant.takeover, Takeover::TakenOver);
    assert_eq!(grant.registry.len(), XDP_REGISTRY);
    let mut stage = Stage {
        handed: grant.fds,
        broker,
        root,
    };
    let ours = |stage: &Stage| (stage.is_ours([10, 9, 3, 1], 53), stage.is_ours([10, 9, 3, 1], 54));
    assert_eq!(
        ours(&stage),
        (true, false),
        "what was served goes on to be, before anything is asked"
    );
    has_program(&mut stage.root, "va", true);
    let flows = stage.map("flows");
    flows.update(&[1; 40], &[2; 32], Insert::New).unwrap();

    assert_eq!(
        stage.broker.xdp_attach("va").unwrap().mode,
        XdpAttachMode::Generic
    );
    stage.broker.xdp_settled().unwrap();
    has_program(&mut stage.root, "va", true);
    stage.broker.serve(&config::services(TEXT)).unwrap();
    assert_eq!(ours(&stage), (true, false));
    stage.broker.serve(&[]).unwrap();
    assert_eq!(
        ours(&stage),
        (false, false),
        "what is served no longer has been taken out"
    );
    // it is detached at once, though the manager has a copy of the link
    stage.broker.xdp_detach("va").unwrap();
    has_program(&mut stage.root, "va", false);
    // the same once more
    let again = stage.broker.xdp_load().unwrap();
    assert_eq!(again.takeover, Takeover::TakenOver);
    drop(manager);
}

pub fn what_is_not_attached_again_is_detached() {
    let mut root = own_network();
    let kept = left(&["va", "vd"]);
    let manager = copies(&kept);
    let broker = start(kept, TEXT);
    assert_eq!(broker.xdp_load().unwrap().takeover, Takeover::TakenOver);
    broker.xdp_attach("va").unwrap();
    has_program(&mut root, "vd", true);
    broker.xdp_settled().unwrap();
    has_program(&mut root, "vd", false);
    has_program(&mut root, "va", true);
    drop(manager);
}

pub fn another_engine() {
    let mut root = own_network();
    let kept = left(&["va"]);
    let manager = copies(&kept);
    let _broker = start(kept, OTHER_ENGINE);
    has_program(&mut root, "va", false);
    drop(manager);
}

/// Takes over what was left at `va`, says the broker's process id and waits.
pub fn idle() {
    let mut root = own_network();
    let broker = start(left(&["va"]), TEXT);
    let grant = broker.xdp_load().unwrap();
    assert_eq!(grant.takeover, Takeover::TakenOver);
    broker.xdp_attach("va").unwrap();
    has_program(&mut root, "va", true);
    println!("{}", broker.pid());
    io::stdout().flush().unwrap();
    io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

/// What a process has open of maps, programs and links: their numbers, and how often.
type OfBpf = BTreeMap<(String, u32), usize>;

fn open_of_bpf(process: u32) -> Result<OfBpf, Failed> {
    let mut all = OfBpf::new();
    for entry in fs::read_dir(format!("/proc/{process}/fdinfo"))? {
        let text = fs::read_to_string(entry?.path())?;
        let numbers = text.lines().filter_map(|line| line.split_once(":\t"));
        // a link says which program it is one of, too
        let is_link = text.contains("link_id:");
        for (key, number) in numbers {
            if matches!((key, is_link), ("link_id", true) | ("map_id" | "prog_id", false)) {
                *all.entry((key.to_owned(), number.trim().parse()?)).or_default() += 1;
            }
        }
    }
    Ok(all)
}

fn neither_daemon_nor_runner_has_what_is_the_brokers() -> Result<(), Failed> {
    for (scenario, links) in [("xdp_loaded_idle", 0), ("xdp_taken_over_idle", 1)] {
        let idle = Idle::of(&mut command(scenario)?)?;
        let (daemon, broker) = (open_of_bpf(idle.daemon.id())?, open_of_bpf(idle.broker)?);
        assert_eq!(
            open_of_bpf(runner_of(&idle)?)?,
            OfBpf::new(),
            "{scenario}: the runner's"
        );
        let of = |all: &OfBpf, kind: &str| all.keys().filter(|(key, _)| key == kind).count();
        assert_eq!(
            (of(&daemon, "link_id"), of(&broker, "link_id")),
            (0, links),
            "{scenario}"
        );
        assert_eq!(of(&daemon, "prog_id"), of(&broker, "prog_id"), "{scenario}");
        assert_eq!(
            of(&daemon, "map_id") + BROKERS_MAPS,
            of(&broker, "map_id"),
            "{scenario}"
        );
        assert!(of(&daemon, "map_id") > 0 && daemon.keys().all(|one| broker.contains_key(one)));
        // not a copy more than it was handed
        assert!(
            daemon.values().all(|copies| *copies == 1),
            "{scenario}: {daemon:?}"
        );
    }
    Ok(())
}

fn a_command_learns_nothing_of_the_service_manager() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let output = command("runner_environment")?
        .env(crate::DIRECTORY, dir.path())
        .envs([
            ("NOTIFY_SOCKET", "/run/systemd/notify"),
            ("FDSTORE", "64"),
            ("INVOCATION_ID", "x"),
            ("LISTEN_FDNAMES", "xdp"),
        ])
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned().into())
}
