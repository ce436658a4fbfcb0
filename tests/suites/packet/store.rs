//! What a service manager keeps of the program for the next start, and who else has it (DESIGN §3, §4 Restart).

use std::{collections::BTreeMap, fs, os::fd::AsFd};

use convey::{
    engine::xdp::layout::{HANDED, REGISTRY},
    sys::bpf,
};
use nix::{sys::signal::Signal, unistd::Pid};

use crate::{
    Test,
    kept::witnesses,
    lab::{Convey, PATIENCE, servers::TcpServer, wait_until},
    site::{Plan, Port, Site, Transport},
    survival::Stage,
    tests,
    xdp::{attached, finish_checksums, has_program},
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    Convey: the_service_manager_keeps_all_of_the_program_and_what_is_no_longer_attached_no_longer,
    Convey: what_is_the_brokers_of_the_program_has_neither_the_daemon_nor_the_runner,
    Convey: another_engine_ends_what_was_kept_of_the_program,
    Convey: without_a_frontend_in_a_packet_mode_what_was_kept_of_the_program_ends,
    Convey: a_start_that_fails_leaves_the_program_at_work,
    Convey: a_program_that_is_not_whole_is_ended_and_another_one_takes_its_place,
    Convey: by_hand_nothing_is_left_of_the_program,
];

const WITNESS: Port = Port::same("witness", Transport::Tcp, 9);

/// The name of all but the links.
const PROGRAM: &str = "xdp";

/// Maps that nobody but the broker has.
const BROKERS_MAPS: [&str; 3] = ["convey_mark", "ranges", "services"];

fn plan(site: &Site, engine: &str) -> Plan {
    Plan {
        passthrough: format!("engine = \"{engine}\""),
        ..Plan::new(&[WITNESS], &site.servers)
    }
}

fn stage(name: &str) -> (Stage, Plan) {
    let site = Site::new(name, 1);
    let ends = [&site.client].into_iter().chain(&site.servers);
    ends.for_each(finish_checksums);
    let plan = plan(&site, "xdp\"\nxdp_mode = \"generic");
    (Stage::new(site, &plan), plan)
}

/// A configuration without packet modes.
fn idle() -> String {
    "[packet]\nengine = \"xdp\"\n".to_owned()
}

/// What is kept of the program: names, and how many descriptors each has.
fn kept(convey: &Convey) -> BTreeMap<String, usize> {
    let mut names = BTreeMap::new();
    for name in convey.notify().kept() {
        if name.starts_with(PROGRAM) {
            *names.entry(name).or_default() += 1;
        }
    }
    names
}

/// All of the program, attached to `eth0` behind its driver.
fn whole(site: &Site) -> BTreeMap<String, usize> {
    let index = site
        .lb
        .inside(|| nix::net::if_::if_nametoindex("eth0").expect("the interface"));
    [
        (PROGRAM.to_owned(), HANDED.len() + BROKERS_MAPS.len() + REGISTRY),
        (format!("{PROGRAM} link {index} stack as configured"), 1),
    ]
    .into()
}

#[track_caller]
fn expect_kept(convey: &Convey, expected: &BTreeMap<String, usize>) {
    // messages of the broker may be on their way yet
    wait_until(&format!("{expected:?} is kept"), PATIENCE, || {
        kept(convey) == *expected
    });
}

/// The kernel's numbers of what a process has open, by what they are numbers of: `map_id:`, `prog_id:`, `link_id:`.
fn open_by(process: Pid) -> Vec<(String, u32)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(format!("/proc/{process}/fdinfo")).expect("its descriptors") {
        let path = entry.expect("a descriptor").path();
        // one may have been closed meanwhile
        let text = fs::read_to_string(path).unwrap_or_default();
        let numbers = text.lines().filter_map(|line| line.split_once(":\t"));
        let number = |(key, value): (&str, &str)| Some((key.to_owned(), value.trim().parse().ok()?));
        let of_bpf = numbers.filter(|(key, _)| ["map_id", "prog_id", "link_id"].contains(key));
        all.extend(of_bpf.filter_map(number));
    }
    all.sort();
    all
}

/// The numbers of the kept links and of the maps that nobody but the broker has.
fn brokers(convey: &Convey) -> Vec<(String, u32)> {
    let mut all = Vec::new();
    for (name, fd) in convey.notify().hand_over() {
        if let Some(map) = bpf::map_identity(fd.as_fd())
            && BROKERS_MAPS.contains(&map.name.as_str())
        {
            all.push(("map_id".to_owned(), map.id));
        } else if name.starts_with(&format!("{PROGRAM} link")) {
            let info = fs::read_to_string(format!(
                "/proc/self/fdinfo/{}",
                std::os::fd::AsRawFd::as_raw_fd(&fd)
            ));
            let info = info.expect("what a link is");
            let id = info.lines().find_map(|line| line.strip_prefix("link_id:\t"));
            all.push((
                "link_id".to_owned(),
                id.expect("its number").parse().expect("a number"),
            ));
        }
    }
    all.sort();
    all
}

fn the_service_manager_keeps_all_of_the_program_and_what_is_no_longer_attached_no_longer() {
    let (stage, plan) = stage("store");
    let (site, convey) = (&stage.site, &stage.convey);
    expect_kept(convey, &whole(site));
    let first = brokers(convey);
    convey.reload(&idle());
    assert!(!has_program(&site.lb), "detached at once, though a copy was kept");
    let mut unattached = whole(site);
    unattached.retain(|name, _| name == PROGRAM);
    expect_kept(convey, &unattached);
    convey.reload(&plan.config());
    assert_eq!(attached(convey).0, "generic");
    expect_kept(convey, &whole(site));
    let maps =
        |all: Vec<(String, u32)>| -> Vec<_> { all.into_iter().filter(|(key, _)| key == "map_id").collect() };
    assert_eq!(maps(brokers(convey)), maps(first), "the same program");
    stage.meet_everywhere("after all");
}

fn what_is_the_brokers_of_the_program_has_neither_the_daemon_nor_the_runner() {
    let (mut stage, plan) = stage("store-who");
    let look = |convey: &Convey| {
        let brokers = brokers(convey);
        assert_eq!(brokers.len(), BROKERS_MAPS.len() + 1, "{brokers:?}");
        let has = open_by(convey.broker());
        assert!(brokers.iter().all(|one| has.contains(one)), "{has:?}");
        let daemons = open_by(convey.pid());
        assert!(!daemons.is_empty() && brokers.iter().all(|one| !daemons.contains(one)));
        assert!(daemons.iter().all(|(key, _)| key != "link_id"), "{daemons:?}");
        assert_eq!(open_by(convey.runner()), []);
        daemons
    };
    let fresh = look(&stage.convey);
    for _ in 0..2 {
        stage.kill();
        stage.start_again(&plan);
        // not a copy more of what it works with than when nothing was kept
        let numbers = |all: &[(String, u32)]| -> BTreeMap<(String, u32), usize> {
            let mut numbers = BTreeMap::new();
            for one in all {
                *numbers.entry(one.clone()).or_default() += 1;
            }
            numbers
        };
        let (before, after) = (numbers(&fresh), numbers(&look(&stage.convey)));
        for (what, copies) in before {
            let now = after.get(&what).copied();
            // tables come and go
            assert!(
                now.is_none_or(|now| now <= copies),
                "{what:?}: {copies}, then {now:?}"
            );
        }
        expect_kept(&stage.convey, &whole(&stage.site));
    }
}

fn another_engine_ends_what_was_kept_of_the_program() {
    let (mut stage, _) = stage("store-raw");
    stage.meet_everywhere("by the program");
    stage.kill();
    let raw = plan(&stage.site, "raw").config();
    stage.convey.start_again(&raw);
    assert!(!has_program(&stage.site.lb));
    expect_kept(&stage.convey, &BTreeMap::new());
    stage.meet_everywhere("by packet sockets");
}

fn without_a_frontend_in_a_packet_mode_what_was_kept_of_the_program_ends() {
    let (mut stage, plan) = stage("store-none");
    stage.kill();
    stage.convey.start_again(&idle());
    assert!(!has_program(&stage.site.lb));
    expect_kept(&stage.convey, &BTreeMap::new());
    stage.convey.reload(&plan.config());
    expect_kept(&stage.convey, &whole(&stage.site));
    stage.meet_everywhere("after a reload");
}

fn a_start_that_fails_leaves_the_program_at_work() {
    let (mut stage, plan) = stage("store-fails");
    let before = brokers(&stage.convey);
    let mut flows = stage.meet_everywhere("at first");
    stage.kill();
    stage.convey.launch_again("nonsense");
    assert_eq!(stage.convey.wait_exit(PATIENCE).code(), Some(78));
    assert_eq!(kept(&stage.convey), whole(&stage.site));
    assert!(has_program(&stage.site.lb));
    crate::survival::all_talk(&mut flows, "while nobody runs");
    stage.start_again(&plan);
    assert_eq!(brokers(&stage.convey), before, "the same maps, and the same link");
    crate::survival::all_talk(&mut flows, "afterwards");
}

fn a_program_that_is_not_whole_is_ended_and_another_one_takes_its_place() {
    let (mut stage, plan) = stage("store-part");
    let before = brokers(&stage.convey);
    stage.kill();
    // the links hold the program where it is
    stage.convey.notify().lose(PROGRAM);
    assert!(has_program(&stage.site.lb));
    stage.convey.start_again(&plan.config());
    let log = stage.convey.stderr();
    assert!(log.contains("xdp_not_taken_over"), "{log}");
    assert_eq!(attached(&stage.convey).0, "generic", "{log}");
    expect_kept(&stage.convey, &whole(&stage.site));
    let now = brokers(&stage.convey);
    assert!(
        before.iter().all(|one| !now.contains(one)),
        "{before:?}, then {now:?}"
    );
    stage.meet_everywhere("by the new one");
}

fn by_hand_nothing_is_left_of_the_program() {
    let site = Site::new("store-hand", 1);
    let _witnesses: Vec<TcpServer> = witnesses(&site);
    let config = plan(&site, "xdp").config();
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        // its service manager keeps descriptors, but is not systemd, which has the rules taken out
        let mut convey = Convey::launch_with(&site.lb, &config, &["env", Convey::FD_STORE]);
        convey.wait_ready();
        wait_until("the program is kept", PATIENCE, || !kept(&convey).is_empty());
        convey.signal(signal);
        convey.wait_exit(PATIENCE);
        wait_until("the program is gone", PATIENCE, || !has_program(&site.lb));
        expect_kept(&convey, &BTreeMap::new());
    }
}
