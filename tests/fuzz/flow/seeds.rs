//! The cases of the packet corpus as inputs.

use std::{cell::RefCell, num::NonZeroU32, rc::Rc, time::Duration};

use convey::{base::PacketReason, flow::Hops, packet::Offload, snapshot::Snapshot};

use crate::{
    case::{self, Case},
    engine::{Engine, Outcome, Pure},
    forge,
    input::{How, Step},
    site,
    words::Wrong,
    world::{Change, Worlds},
};

/// Steps of a seed at most: floods are cut short.
const MAX_STEPS: usize = 24;

/// What a case made the engine do.
enum Event {
    Applied,
    Done(Step),
}

/// Plays a case and writes down what comes in.
struct Recorder {
    engine: Pure,
    events: Rc<RefCell<Vec<Event>>>,
}

impl Engine for Recorder {
    fn apply(&mut self, snapshot: &Snapshot, hops: &Hops) {
        self.engine.apply(snapshot, hops);
        self.events.borrow_mut().push(Event::Applied);
    }

    fn wait(&mut self, time: Duration) {
        self.engine.wait(time);
        let step = Step::Wait {
            time,
            does_sweep: true,
        };
        self.events.borrow_mut().push(Event::Done(step));
    }

    fn packet(&mut self, bytes: &[u8], offload: Offload, ifindex: u32) -> Outcome {
        let mut fixed = bytes.to_vec();
        forge::fix(&mut fixed, offload.checksum.is_some());
        let how = How {
            interface: u8::from(ifindex != 1),
            is_raw: fixed != bytes,
            is_unfinished: offload.checksum.is_some(),
            segment_size: offload.segments.map_or(0, |segments| segments.size.get()),
        };
        let bytes = bytes.to_vec();
        self.events.borrow_mut().push(Event::Done(Step::Frame {
            how,
            bytes: bytes.clone(),
        }));
        self.engine.packet(&bytes, offload, ifindex)
    }

    fn count(&self, reason: PacketReason) -> u64 {
        self.engine.count(reason)
    }

    fn usage(&self) -> (u64, u64) {
        self.engine.usage()
    }
}

/// The input that a case is.
pub fn of(case: &Case, worlds: &Worlds) -> Result<Vec<u8>, Wrong> {
    let events = Rc::new(RefCell::new(Vec::new()));
    let recorded = Rc::clone(&events);
    let engine = move |max_flows: NonZeroU32| {
        let engine = Pure::new(max_flows);
        Box::new(Recorder {
            engine,
            events: recorded,
        }) as Box<dyn Engine>
    };
    case::run(case, worlds, engine)?;
    let mut changes = case.step.iter().filter_map(|step| step.set.as_ref());
    let mut seed = vec![site::world_number(worlds, &case.world)];
    // the world as it begins is applied too
    for event in events.borrow().iter().skip(1).take(MAX_STEPS) {
        match event {
            Event::Done(step) => step.encode(&mut seed),
            Event::Applied => {
                let change = changes.next().ok_or("a change that no step has")?;
                for step in steps_of(change, worlds) {
                    step.encode(&mut seed);
                }
            }
        }
    }
    Ok(seed)
}

/// The change as steps, as nearly as they can say it.
fn steps_of(change: &Change, worlds: &Worlds) -> Vec<Step> {
    let mut steps = Vec::new();
    let place = |states: &[&str], state: &str| {
        let found = states.iter().position(|known| *known == state);
        u8::try_from(found.unwrap_or(0)).unwrap_or(0)
    };
    if let Some(world) = &change.config {
        let world = site::world_number(worlds, world);
        steps.push(Step::Config { world });
    }
    if let Some(server) = &change.server {
        let state = change.state.as_deref().unwrap_or("weight");
        steps.push(Step::Server {
            index: u8::from(server.ends_with('2')),
            state: place(&site::SERVER_STATES, state),
        });
    }
    if let Some(ip) = change.hop {
        let index = worlds.hops.keys().position(|known| *known == ip).unwrap_or(0);
        let state = change.is.as_deref().unwrap_or("small");
        steps.push(Step::Hop {
            index: u8::try_from(index).unwrap_or(0),
            state: place(&site::HOP_STATES, state),
        });
    }
    if let Some(name) = &change.interface {
        let index = worlds
            .interfaces
            .keys()
            .position(|known| known == name)
            .unwrap_or(0);
        let state = match change.mtu {
            Some(0) => "gone",
            Some(_) => "small",
            None => "back",
        };
        steps.push(Step::Interface {
            index: u8::try_from(index).unwrap_or(0),
            state: place(&site::INTERFACE_STATES, state),
        });
    }
    steps
}
