//! The engine's threads.

use std::{
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use convey::{
    engine::raw::{Engine, Event, Settings, socket},
    snapshot::Snapshot,
};
use tokio::sync::mpsc::{Receiver, channel};

use crate::{
    Test,
    wire::{GROUP, Wire},
};

pub const TESTS: &[Test] = crate::tests![
    an_interface_that_vanishes_is_told_of_once,
    an_interface_that_goes_down_and_up_is_kept,
    threads_are_pinned_answer_and_end,
    a_thread_that_cannot_be_confined_ends_the_start,
];

fn start(workers: usize) -> (Engine, Receiver<Event>) {
    let settings = Settings {
        workers,
        first_shard: 0,
        max_flows: NonZeroU32::new(1_000).expect("not 0"),
    };
    let (events, told) = channel(8);
    let snapshot = Arc::new(ArcSwap::from_pointee(Snapshot::default()));
    let engine = Engine::start(&settings, snapshot, events, || Ok(())).expect("the engine");
    (engine, told)
}

/// An engine of two workers that serves the receiver's end of the cable.
fn serve(wire: &Wire) -> (Engine, Receiver<Event>) {
    let (engine, told) = start(2);
    let sockets = wire.receiver.inside(|| {
        (0..2)
            .map(|_| socket::open(wire.into, GROUP, &[]).expect("a socket"))
            .collect()
    });
    engine.add_interface(wire.into, sockets);
    assert!(engine.is_alive(Duration::from_secs(2)));
    (engine, told)
}

fn within(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while start.elapsed() < limit {
        if holds() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

fn an_interface_that_vanishes_is_told_of_once() {
    let wire = Wire::new("vanish");
    let (engine, mut told) = serve(&wire);
    assert_eq!(engine.report().interfaces, [wire.into]);
    wire.receiver.run("ip link del cable");
    assert!(
        within(Duration::from_secs(2), || told.try_recv()
            == Ok(Event::InterfaceLost(wire.into))),
        "nobody noticed"
    );
    assert!(engine.report().interfaces.is_empty());
    std::thread::sleep(Duration::from_millis(300));
    assert!(told.try_recv().is_err(), "told of twice");
    assert!(engine.is_alive(Duration::from_secs(2)));
}

fn an_interface_that_goes_down_and_up_is_kept() {
    let wire = Wire::new("updown");
    let (engine, mut told) = serve(&wire);
    wire.receiver
        .run("ip link set cable down; sleep 0.3; ip link set cable up; sleep 0.3");
    assert!(told.try_recv().is_err(), "it is still there");
    assert_eq!(engine.report().interfaces, [wire.into]);
}

fn threads_are_pinned_answer_and_end() {
    let threads = || {
        let mut named: Vec<String> = Vec::new();
        for task in std::fs::read_dir("/proc/self/task").expect("threads") {
            let path = task.expect("a thread").path();
            let name = std::fs::read_to_string(path.join("comm")).unwrap_or_default();
            if name.starts_with("convey-packet-") {
                let status = std::fs::read_to_string(path.join("status")).unwrap_or_default();
                let cpus = status
                    .lines()
                    .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
                named.push(format!("{} {}", name.trim(), cpus.unwrap_or_default().trim()));
            }
        }
        named
    };
    // other tests run engines at the same time: five is this one's
    let (engine, _told) = start(5);
    assert!(engine.is_alive(Duration::from_secs(2)));
    let running = threads();
    for index in 0..5 {
        let own: Vec<_> = (running.iter())
            .filter(|thread| thread.starts_with(&format!("convey-packet-{index} ")))
            .collect();
        assert!(!own.is_empty(), "{running:?}");
        let one_cpu = |thread: &&String| {
            thread
                .split(' ')
                .nth(1)
                .is_some_and(|cpus| cpus.parse::<u32>().is_ok())
        };
        assert!(own.iter().all(one_cpu), "{own:?}");
    }
    engine.stop();
    // the kernel lists a thread for a moment after it has been joined
    let over = Instant::now() + Duration::from_secs(1);
    while threads()
        .iter()
        .any(|thread| thread.starts_with("convey-packet-4"))
    {
        assert!(Instant::now() < over, "{:?}", threads());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(
        !engine.is_alive(Duration::from_millis(100)),
        "a stopped engine does not answer"
    );
}

fn a_thread_that_cannot_be_confined_ends_the_start() {
    let settings = Settings {
        workers: 2,
        first_shard: 0,
        max_flows: NonZeroU32::new(1_000).expect("not 0"),
    };
    let (events, _told) = channel(8);
    let snapshot = Arc::new(ArcSwap::from_pointee(Snapshot::default()));
    let refuse = || Err(std::io::Error::from(std::io::ErrorKind::PermissionDenied));
    let error = Engine::start(&settings, snapshot, events, refuse).expect_err("not confined");
    assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
}
