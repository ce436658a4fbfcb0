//! The engine's threads.

use std::{io, num::NonZeroU32, os::fd::OwnedFd, sync::Arc, time::Instant};

use arc_swap::ArcSwap;
use convey::{
    engine::{Engine, EngineEvent, EngineSettings, raw::socket},
    flow::{Flows, TableLimits},
    snapshot::Snapshot,
};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::{
    Test,
    lab::{PATIENCE, wait_until},
    wire::{GROUP, Wire, ifindex},
};

pub const TESTS: &[Test] = crate::tests![
    an_interface_that_vanishes_is_told_of_once,
    an_interface_that_goes_down_and_up_is_kept,
    threads_are_pinned_answer_and_end,
    a_thread_that_cannot_be_confined_ends_the_start,
];

fn start(workers: usize) -> (Engine, Receiver<EngineEvent>) {
    let (events, told) = channel(8);
    (
        start_prepared(workers, events, || Ok(())).expect("the engine"),
        told,
    )
}

fn start_prepared(
    workers: usize,
    events: Sender<EngineEvent>,
    prepare: fn() -> io::Result<()>,
) -> io::Result<Engine> {
    let flows = Flows::new(TableLimits {
        max_flows: NonZeroU32::new(1_000).expect("not 0"),
        workers,
        hash_seed: 42,
    });
    let settings = EngineSettings {
        workers,
        first_shard: 0,
        start: Instant::now(),
    };
    let snapshot = Arc::new(ArcSwap::from_pointee(Snapshot::default()));
    Engine::start_raw(&settings, Arc::new(flows), snapshot, events, prepare)
}

/// An engine of two workers that serves the receiver's end of the cable.
fn serve(wire: &Wire) -> (Engine, Receiver<EngineEvent>) {
    let (engine, told) = start(2);
    engine.add_interface(wire.into, open_two(wire, wire.into));
    assert!(engine.is_alive(PATIENCE));
    (engine, told)
}

/// A socket for each of two workers, on an interface of the receiver.
fn open_two(wire: &Wire, ifindex: u32) -> Vec<OwnedFd> {
    let group = GROUP + u16::try_from(ifindex).expect("a small index");
    wire.receiver.inside(|| {
        (0..2)
            .map(|_| socket::open(ifindex, group, &[]).expect("a socket"))
            .collect()
    })
}

/// Deletes an interface that two workers serve, and waits until it is told of and both have looked after it.
#[track_caller]
fn delete(wire: &Wire, engine: &Engine, told: &mut Receiver<EngineEvent>, interface: &str, left: usize) {
    let index = ifindex(&wire.receiver, interface);
    wire.receiver.run(&format!("ip link del {interface}"));
    wait_until("somebody notices", PATIENCE, || match told.try_recv() {
        Ok(event) => {
            assert_eq!(event, EngineEvent::InterfaceLost(index));
            true
        }
        Err(_) => false,
    });
    // each closes its socket in the moment in which it would tell
    wait_until("both have closed their sockets", PATIENCE, || {
        let sockets = wire.receiver.run("tail -n +2 /proc/net/packet");
        sockets.lines().count() == left
    });
    assert!(engine.is_alive(PATIENCE), "and go on");
}

fn an_interface_that_vanishes_is_told_of_once() {
    let wire = Wire::new("vanish");
    let (engine, mut told) = serve(&wire);
    assert_eq!(engine.report().interfaces, [wire.into]);
    delete(&wire, &engine, &mut told, "cable", 0);
    assert!(told.try_recv().is_err(), "told of twice");
    assert!(engine.report().interfaces.is_empty());
}

fn an_interface_that_goes_down_and_up_is_kept() {
    let wire = Wire::new("updown");
    let (engine, mut told) = serve(&wire);
    for state in ["down", "up"] {
        // one that vanishes meanwhile shows when both workers have looked
        wire.receiver.run(&format!(
            "ip link set cable {state}; ip link add other up type veth peer name end"
        ));
        let other = ifindex(&wire.receiver, "other");
        engine.add_interface(other, open_two(&wire, other));
        assert!(engine.is_alive(PATIENCE));
        delete(&wire, &engine, &mut told, "other", 2);
        assert!(told.try_recv().is_err(), "it is still there");
        assert_eq!(engine.report().interfaces, [wire.into]);
    }
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
    assert!(engine.is_alive(PATIENCE));
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
    wait_until("its threads are gone", PATIENCE, || {
        let left = threads();
        !left.iter().any(|thread| thread.starts_with("convey-packet-4"))
    });
    assert!(!engine.is_alive(PATIENCE), "a stopped engine does not answer");
}

fn a_thread_that_cannot_be_confined_ends_the_start() {
    let (events, _told) = channel(8);
    let refuse = || Err(io::ErrorKind::PermissionDenied.into());
    let error = start_prepared(2, events, refuse).expect_err("not confined");
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
}
