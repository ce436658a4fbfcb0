//! What a process leaves with its service manager, and the next one takes over: the program with its maps, and its links.

use std::{
    fs::File,
    io,
    os::fd::{AsFd as _, OwnedFd},
    time::Instant,
};

use convey::{
    base::{PacketReason, XdpAttachMode},
    config::model::XdpMode,
    engine::xdp::{
        load::{self, KEPT, Loaded, Predecessor},
        object::OBJECT,
        services::ServiceMaps,
    },
    sys::{
        bpf::{self, Insert, Map, NewMap, map_identity, program_identity},
        memfd,
    },
};

use crate::{
    Test,
    site::{ACK, SYN, SYN_ACK, Segment, Site, by_program, kept, limits},
    stage::{FLOWS, Stage, another_object, copies, id_of, map_named, program},
    tests,
};

pub const TESTS: &[Test] = tests![
    flows_go_on_before_anybody_has_written_anything,
    another_program_goes_on_with_the_flows,
    a_flow_is_the_slow_paths_too_after_one_process_has_followed_another,
    another_program_is_loaded_with_few_rights_too,
    the_program_stays_at_its_interfaces_while_one_process_follows_another,
    services_are_those_of_before_until_they_are_changed,
    where_the_program_is_not_to_be_any_more_it_is_detached_at_once,
    a_better_place_is_tried_where_it_was_not_wanted_before,
    an_interface_that_has_gone_or_moved_away_is_nobodys,
    an_interface_that_has_the_index_of_one_that_has_gone_gets_a_link_of_its_own,
    what_is_missing_is_named,
    of_two_that_were_kept_the_later_one_that_is_whole_is_taken,
    whatever_else_was_kept_is_not_taken_for_what_it_is_not,
    other_limits_are_refused,
    maps_that_are_laid_out_in_another_way_are_refused,
    what_is_refused_is_detached_though_somebody_keeps_its_links,
    what_nobody_takes_over_ends,
];

const BOTH: &str = r#"
[frontends.web]
listen_addr = "198.51.100.1:80"
mode = "passthrough"
backend = "web"
[backends.web.servers]
s1 = { addr = "10.0.0.11:80" }
s2 = { addr = "10.0.0.12:80" }
[packet]
nat_ports = "20000-20999"
"#;

/// What comes of a flow of passthrough after another process has taken it over, which has written nothing.
fn flow_goes_on(object: &[u8]) -> (Loaded, u32) {
    let mut site = Site::new(BOTH);
    let syn = Segment::of_client(40_000, SYN);
    let to_server = site.by_program(syn).expect("a server");
    let answer = syn.answer(to_server, SYN_ACK);
    let to_client = site.by_program(answer).expect("a client");
    let ack = Segment::of_client(40_000, ACK).numbered(2, 1_001);
    assert_eq!(site.by_program(ack), Some(to_server));
    assert_eq!(site.listed(), ["established"]);
    site.keeper.collect().expect("counters");
    let before = id_of(&site.loaded);
    let predecessor = Predecessor::of(kept(&site.loaded));
    drop(site);

    let start = Instant::now();
    let loaded =
        load::take_over(predecessor, object, limits(FLOWS)).unwrap_or_else(|error| panic!("{error}"));
    println!("taken over within {:?}", start.elapsed());
    let now = program(&loaded);
    assert_eq!(by_program(now.as_fd(), ack), Some(to_server), "the flow goes on");
    let answer = syn.answer(to_server, ACK).numbered(1_001, 2);
    assert_eq!(by_program(now.as_fd(), answer), Some(to_client), "both ways");
    let new = by_program(now.as_fd(), Segment::of_client(40_001, SYN));
    assert!(new.is_some(), "and new ones begin");
    (loaded, before)
}

fn flows_go_on_before_anybody_has_written_anything() {
    let (loaded, before) = flow_goes_on(OBJECT);
    assert_eq!(id_of(&loaded), before, "by the program that was there");
    assert!(loaded.is_kept());
}

fn another_program_goes_on_with_the_flows() {
    let (loaded, before) = flow_goes_on(&another_object());
    assert_ne!(id_of(&loaded), before);
    assert!(!loaded.is_kept(), "the new one is to be kept");
    let of_new = Predecessor::of(kept(&loaded));
    let again = load::take_over(of_new, &another_object(), limits(FLOWS)).expect("the new one is whole");
    assert_eq!(id_of(&again), id_of(&loaded));
    assert!(again.is_kept());
}

fn a_flow_is_the_slow_paths_too_after_one_process_has_followed_another() {
    let site = Site::new(BOTH);
    let syn = Segment::of_client(40_000, SYN);
    let to_server = site.by_program(syn).expect("a server");
    let mut site = site.restarted(BOTH).restarted(BOTH);
    assert_eq!(site.listed(), ["syn"]);
    let (reason, to_client) = site.slowly(syn.answer(to_server, SYN_ACK));
    assert_eq!((reason, to_client.1), (PacketReason::ToClient, syn.from));
    let ack = Segment::of_client(40_000, ACK).numbered(2, 1_001);
    assert_eq!(site.slowly(ack), (PacketReason::ToServer, to_server));
    let site = site.restarted(BOTH);
    assert_eq!(site.listed(), ["established"]);
    assert_eq!(site.by_program(ack), Some(to_server));
}

fn another_program_is_loaded_with_few_rights_too() {
    use caps::{CapSet, Capability};
    let few = [Capability::CAP_BPF, Capability::CAP_NET_ADMIN].into();
    // of this thread alone
    let joined = std::thread::spawn(move || {
        caps::set(None, CapSet::Effective, &few).expect("fewer rights");
        let first = load::load(OBJECT, limits(FLOWS)).expect("a program");
        let kept = Predecessor::of(kept(&first));
        let second = load::take_over(kept, &another_object(), limits(FLOWS)).expect("one that is taken over");
        assert_ne!(id_of(&second), id_of(&first));
    });
    joined
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

fn the_program_stays_at_its_interfaces_while_one_process_follows_another() {
    let mut stage = Stage::new("stays");
    let first = stage.keep();
    for (object, is_new) in [(OBJECT.to_vec(), false), (another_object(), true)] {
        let mut loaded = stage.take_over(&object).expect("taken over");
        let now = id_of(&loaded);
        assert_eq!(now != first, is_new);
        assert_eq!(stage.at("pair"), Some(("driver".to_owned(), now)));
        assert_eq!(stage.at("plain"), Some(("stack".to_owned(), now)));
        let links = stage.kept.len();
        let attached = stage.attach(&mut loaded, "pair", XdpMode::Auto);
        assert_eq!(
            (attached.mode, attached.why.as_str()),
            (XdpAttachMode::Native, "")
        );
        let attached = stage.attach(&mut loaded, "plain", XdpMode::Auto);
        assert_eq!(attached.mode, XdpAttachMode::Generic);
        assert!(
            attached.why.contains("before convey's restart"),
            "{}",
            attached.why
        );
        let names =
            |kept: &[(String, OwnedFd)]| kept.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        let (before, again) = stage.kept.split_at(links);
        assert_eq!(
            names(again),
            names(before.get(before.len() - 2..).unwrap_or_default()),
            "kept under the same names"
        );
        stage.kept.truncate(links);
        assert!(loaded.settle().is_empty());
        assert_eq!(stage.at("pair"), Some(("driver".to_owned(), now)));
    }
}

fn services_are_those_of_before_until_they_are_changed() {
    let site = Site::new(BOTH);
    let ours = ServiceMaps::of(&site.config.packet_services());
    let services = map_named(&site.loaded, "services");
    let predecessor = Predecessor::of(kept(&site.loaded));
    drop(site);
    let mut loaded = load::take_over(predecessor, OBJECT, limits(FLOWS)).expect("taken over");
    let count = || {
        let mut keys = 0;
        let mut last = None;
        while let Some(key) = services.next_key(last.as_deref()).expect("the map") {
            keys += 1;
            last = Some(key);
        }
        keys
    };
    assert_eq!(count(), ours.services.len());
    loaded.narrow(&ours).expect("the maps");
    assert_eq!(count(), ours.services.len(), "the same ones stay");
    loaded.narrow(&ServiceMaps::default()).expect("the maps");
    assert_eq!(count(), 0, "what was there before is known, and goes");
    loaded.widen(&ours).expect("the maps");
    assert_eq!(count(), ours.services.len());
}

fn where_the_program_is_not_to_be_any_more_it_is_detached_at_once() {
    let mut stage = Stage::new("leaves");
    stage.keep();
    let mut loaded = stage.take_over(OBJECT).expect("taken over");
    stage.attach(&mut loaded, "pair", XdpMode::Auto);
    assert!(stage.at("plain").is_some(), "nobody has said what is to be there");
    let stale = loaded.settle();
    assert_eq!(stale, [format!("xdp link {} stack", stage.index("plain"))]);
    assert_eq!(stage.at("plain"), None, "though its link is kept");
    assert!(stage.at("pair").is_some());
    stage.forget(&stale);
    let name = stage.detach(&mut loaded, "pair").expect("a name to forget");
    assert_eq!(name, format!("xdp link {} driver", stage.index("pair")));
    assert_eq!(stage.at("pair"), None, "though its link is kept");
    assert_eq!(stage.detach(&mut loaded, "pair"), None);
    // a link that nobody could make the service manager forget
    let again = stage.take_over(OBJECT).expect("taken over");
    assert_eq!(stage.at("pair"), None);
    drop(again);
}

fn a_better_place_is_tried_where_it_was_not_wanted_before() {
    let mut stage = Stage::new("better");
    let mut loaded = load::load(OBJECT, limits(FLOWS)).expect("a program");
    stage.kept = kept(&loaded);
    stage.attach(&mut loaded, "pair", XdpMode::Generic);
    let chosen = format!("xdp link {} stack as configured", stage.index("pair"));
    assert_eq!(stage.kept.last().map(|(name, _)| name), Some(&chosen));
    drop(loaded);
    for (mode, place) in [
        (XdpMode::Generic, "stack"),
        (XdpMode::Auto, "driver"),
        (XdpMode::Generic, "stack"),
        (XdpMode::Native, "driver"),
    ] {
        let mut loaded = stage.take_over(OBJECT).expect("taken over");
        let attached = stage.attach(&mut loaded, "pair", mode);
        let (at, _) = stage
            .at("pair")
            .unwrap_or_else(|| panic!("{mode:?}: {}", attached.why));
        assert_eq!(at, place, "{mode:?}");
        let stale = loaded.settle();
        let name = loaded.kept_link(stage.index("pair")).expect("a link").0;
        assert!(!stale.contains(&name), "{mode:?}: {stale:?}");
        stage.forget(&stale);
    }
}

fn an_interface_that_has_gone_or_moved_away_is_nobodys() {
    let mut stage = Stage::new("gone");
    let program = stage.keep();
    let elsewhere = stage.lab.host("elsewhere");
    stage.host.run("ip link del plain");
    (stage.host).run(&format!("ip link set pair netns {}", elsewhere.namespace()));
    // others that have their numbers
    let mut loaded = stage.take_over(OBJECT).expect("taken over");
    assert_eq!(id_of(&loaded), program);
    let mut stale = loaded.settle();
    stale.sort();
    assert_eq!(stale.len(), 2, "{stale:?}");
    let left = elsewhere.run("ip link show pair");
    assert!(!left.contains("prog/xdp"), "{left}");
    stage.host.run("ip link add plain type bridge");
    let attached = stage.attach(&mut loaded, "plain", XdpMode::Auto);
    assert_eq!(attached.mode, XdpAttachMode::Generic, "{}", attached.why);
}

fn an_interface_that_has_the_index_of_one_that_has_gone_gets_a_link_of_its_own() {
    let mut stage = Stage::new("index");
    let program = stage.keep();
    let mut loaded = stage.take_over(OBJECT).expect("taken over");
    let index = stage.index("plain");
    (stage.host).run(&format!(
        "ip link del plain && ip link add plain index {index} type bridge"
    ));
    stage.attach(&mut loaded, "plain", XdpMode::Auto);
    assert_eq!(stage.at("plain"), Some(("stack".to_owned(), program)));
}

fn what_is_missing_is_named() {
    let loaded = load::load(OBJECT, limits(FLOWS)).expect("a program");
    let all = kept(&loaded);
    for missing in 0..all.len() {
        let mut some = copies(&all);
        let (_, gone) = some.remove(missing);
        let name = (map_identity(gone.as_fd()).map(|map| map.name))
            .or_else(|| program_identity(gone.as_fd()).map(|program| program.name));
        let why = load::take_over(Predecessor::of(some), OBJECT, limits(FLOWS));
        let why = why.expect_err("it is not whole").to_string();
        let named = match name.as_deref() {
            Some("convey") => why.contains("the program is"),
            Some(name) => why.contains(name),
            None => why.contains("registry"),
        };
        assert!(
            named && why.contains("not among what was kept"),
            "{name:?}: {why}"
        );
    }
    let none = load::take_over(Predecessor::default(), OBJECT, limits(FLOWS));
    assert!(none.is_err());
    load::take_over(Predecessor::of(all), OBJECT, limits(FLOWS)).expect("all of it is whole");
}

fn of_two_that_were_kept_the_later_one_that_is_whole_is_taken() {
    let [first, second] = [(); 2].map(|()| load::load(OBJECT, limits(FLOWS)).expect("a program"));
    let both = kept(&second).into_iter().chain(kept(&first)).collect();
    let loaded = load::take_over(Predecessor::of(both), OBJECT, limits(FLOWS)).expect("one");
    assert_eq!(id_of(&loaded), id_of(&second));
    assert!(!loaded.is_kept(), "the other is to be forgotten");
    let mut half = kept(&second);
    half.truncate(half.len() / 2);
    half.push((KEPT.to_owned(), program(&second)));
    half.extend(kept(&first));
    let loaded = load::take_over(Predecessor::of(half), OBJECT, limits(FLOWS)).expect("one");
    assert_eq!(id_of(&loaded), id_of(&first));
}

fn whatever_else_was_kept_is_not_taken_for_what_it_is_not() {
    let mut stage = Stage::new("alien");
    let first = stage.keep();
    let all = copies(&stage.kept);
    let mut alien = |name: &str, fd: OwnedFd| stage.kept.push((name.to_owned(), fd));
    let (reader, writer) = io::pipe().expect("a pipe");
    alien("xdp", reader.into());
    drop(writer);
    alien("xdp", File::open("/proc/self/stat").expect("a file").into());
    alien(
        "xdp link 4294967295 driver",
        File::open("/").expect("a directory").into(),
    );
    alien("xdp", memfd::shared(c"convey-numbers").expect("a memfd"));
    alien(
        "xdp",
        std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket").into(),
    );
    // maps of the same names that somebody else's program uses
    let other = load::load(OBJECT, limits(64)).expect("a program");
    for (name, fd) in kept(&other) {
        let is_program = program_identity(fd.as_fd()).is_some_and(|program| program.name == "convey");
        if !is_program {
            alien(&name, fd);
        }
    }
    // all of it once more, and hundreds of others
    for (name, fd) in copies(&all) {
        alien(&name, fd);
    }
    let nobodys = map_named(&other, "flows");
    for number in 0..300 {
        let fd = nobodys.as_fd().try_clone_to_owned().expect("a descriptor");
        alien(&format!("xdp {number}"), fd);
    }
    let start = Instant::now();
    let mut loaded = stage.take_over(OBJECT).expect("taken over");
    println!(
        "{} descriptors looked at within {:?}",
        stage.kept.len(),
        start.elapsed()
    );
    assert_eq!(id_of(&loaded), first);
    assert!(!loaded.is_kept(), "the others are to be forgotten");
    let flows = Map::new(loaded.hand_out().expect("descriptors").swap_remove(2)).expect("a map");
    assert_eq!(flows.info().max_entries, FLOWS, "its own");
    let attached = stage.attach(&mut loaded, "pair", XdpMode::Native);
    assert_eq!(attached.mode, XdpAttachMode::Native, "{}", attached.why);
    assert_eq!(
        loaded.settle().len(),
        302,
        "and of one of both links nobody has asked"
    );
    assert!(stage.at("pair").is_some());
}

fn other_limits_are_refused() {
    for other in [64, 2_048] {
        let loaded = load::load(OBJECT, limits(FLOWS)).expect("a program");
        let why = load::take_over(Predecessor::of(kept(&loaded)), OBJECT, limits(other));
        let why = why.expect_err("they are not what they were").to_string();
        assert!(why.contains("max_flows"), "{why}");
    }
}

fn maps_that_are_laid_out_in_another_way_are_refused() {
    let loaded = load::load(OBJECT, limits(FLOWS)).expect("a program");
    let mark = map_named(&loaded, "convey_mark");
    let mut value = vec![0; mark.value_bytes()];
    assert!(mark.lookup(&[0; 4], &mut value).expect("the mark"));
    assert!(
        mark.update(&[0; 4], &value, Insert::Any).is_err(),
        "nobody changes a mark"
    );
    let mut kept = kept(&loaded);
    kept.retain(|(_, fd)| map_identity(fd.as_fd()).is_none_or(|map| map.name != "convey_mark"));
    // of a program that has another first half of its mark
    value[0] ^= 1;
    let other = NewMap {
        name: "convey_mark",
        info: mark.info(),
    };
    let other = Map::new(other.create().expect("a map")).expect("a map");
    other.update(&[0; 4], &value, Insert::Any).expect("the mark");
    let copy = other.as_fd().try_clone_to_owned().expect("a descriptor");
    kept.push((KEPT.to_owned(), copy));
    let why = |kept| {
        let taken = load::take_over(Predecessor::of(kept), OBJECT, limits(FLOWS));
        taken.expect_err("it is refused").to_string()
    };
    let unbound = why(copies(&kept));
    assert!(
        unbound.contains("convey_mark"),
        "it is not the program's: {unbound}"
    );
    bpf::bind_map(program(&loaded).as_fd(), other.as_fd()).expect("the program");
    let refused = why(kept);
    assert!(refused.contains("lays its maps out in another way"), "{refused}");
}

fn what_is_refused_is_detached_though_somebody_keeps_its_links() {
    let mut stage = Stage::new("refused");
    stage.keep();
    stage.kept.remove(0);
    let why = stage.take_over(OBJECT).expect_err("it is not whole");
    assert!(why.contains("not among what was kept"), "{why}");
    assert_eq!((stage.at("pair"), stage.at("plain")), (None, None));
    let mut fresh = load::load(OBJECT, limits(FLOWS)).expect("a program");
    let attached = stage.attach(&mut fresh, "pair", XdpMode::Native);
    assert_eq!(attached.mode, XdpAttachMode::Native, "{}", attached.why);
}

fn what_nobody_takes_over_ends() {
    let mut stage = Stage::new("ends");
    stage.keep();
    let predecessor = stage.predecessor();
    drop(stage.predecessor());
    assert!(
        stage.at("pair").is_some(),
        "whoever only lets go of it changes nothing"
    );
    let (pair, plain) = (stage.index("pair"), stage.index("plain"));
    let names = stage.host.inside(|| predecessor.end());
    assert_eq!(
        names,
        [
            "xdp".to_owned(),
            format!("xdp link {pair} driver"),
            format!("xdp link {plain} stack")
        ]
    );
    assert_eq!((stage.at("pair"), stage.at("plain")), (None, None));
}
