//! Traffic meets the program with its slow path, and the pure path: both must do the same with each packet, and have the same
//! flows and counters afterwards.
//!
//! `CONVEY_PACKETS=1000000` plays so many, from `CONVEY_SEED=N`; a failure names both. `CONVEY_CLOSELY=N` compares flows and
//! counters after each packet from the Nth on.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{Debug, Write as _},
    num::NonZeroU32,
    sync::atomic::Ordering,
    time::Duration,
};

use convey::{
    base::{AccessReason, Handshake, PacketReason, ServerDrop},
    flow::{FlowInfo, Verdict},
    snapshot::live::Counters,
};

use crate::{
    dice::Dice,
    engine::{Engine, Outcome, Pure},
    expect::Arrived,
    kernel::{GRID, Kernel},
    words::{Wrong, to_hex},
    world::{Change, World, Worlds},
};

/// How often a failure may be blamed on the machine's having done something else meanwhile.
const ATTEMPTS: u32 = 5;

/// What is played.
pub struct Plan<'a> {
    /// The name of its world.
    pub world: &'a str,
    /// Other worlds whose configurations are loaded meanwhile.
    pub others: &'a [&'a str],
    /// Our addresses towards servers, instead of one.
    pub locals: &'a [&'a str],
    /// Packets that CI plays.
    pub packets: u64,
    /// Packets between two changes of the world, about.
    pub calm: u64,
    /// Each packet comes at a moment of its own, which takes a millisecond or two; else only seconds are told apart, and no flow
    /// must give way to another.
    pub is_timed: bool,
    /// How seldom bytes are changed, times as seldom as once in ten packets.
    pub seldom: u64,
}

/// Who sends packets.
pub trait Traffic {
    /// A packet in words, and the interface that it comes in by; `None`: it is lost on the way.
    fn next(&mut self, worlds: &Worlds, dice: &mut Dice) -> Result<Option<(String, String)>, Wrong>;
    /// What has become of it.
    fn became(&mut self, outcome: &Outcome);
}

/// A number that is set from outside, or this.
fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(otherwise)
}

/// Plays traffic in a world.
pub fn run<T: Traffic>(worlds: &Worlds, plan: &Plan<'_>, traffic: impl Fn() -> T) -> Result<(), Wrong> {
    let mut result = Ok(());
    for _ in 0..ATTEMPTS {
        let mut both = Both::new(worlds, plan)?;
        result = both.play(&mut traffic());
        if result.is_ok() || !both.kernel.was_late() {
            return result;
        }
    }
    result
}

struct Both<'a> {
    worlds: &'a Worlds,
    plan: &'a Plan<'a>,
    /// A world for each: each has counters of its own.
    pure_world: World<'a>,
    kernel_world: World<'a>,
    pure: Pure,
    kernel: Kernel,
    dice: Dice,
    /// Frontends and servers that all configurations have: counters of others begin anew when nothing remembers them.
    lasting: BTreeSet<String>,
    /// The clients' interface is not as it should be.
    is_disturbed: bool,
    /// What has expired has been taken out of the tables since the last packet.
    is_swept: bool,
}

impl<'a> Both<'a> {
    fn new(worlds: &'a Worlds, plan: &'a Plan<'a>) -> Result<Self, Wrong> {
        let max_flows = NonZeroU32::new(1 << 20).ok_or("0")?;
        let mut both = Self {
            worlds,
            plan,
            pure_world: World::new(worlds, plan.world)?,
            kernel_world: World::new(worlds, plan.world)?,
            pure: Pure::new(max_flows),
            kernel: Kernel::new(max_flows),
            dice: Dice(number("CONVEY_SEED", 1)),
            lasting: lasting(worlds, plan)?,
            is_disturbed: false,
            is_swept: false,
        };
        if !plan.locals.is_empty() {
            let locals: Vec<_> = plan.locals.iter().filter_map(|ip| ip.parse().ok()).collect();
            both.pure_world.set_locals(&locals);
            both.kernel_world.set_locals(&locals);
        }
        both.apply();
        Ok(both)
    }

    fn play(&mut self, traffic: &mut impl Traffic) -> Result<(), Wrong> {
        let (seed, name) = (self.dice.0, self.plan.world);
        let closely = number("CONVEY_CLOSELY", u64::MAX);
        for n in 0..number("CONVEY_PACKETS", self.plan.packets) {
            if self.dice.is_one_in(self.plan.calm) {
                let changed = self.change().and_then(|()| self.compare());
                changed.map_err(|wrong| format!("{name}, seed {seed}, before packet {n}: {wrong}"))?;
            }
            let mut played = self.packet(traffic);
            if n >= closely {
                played = played.and_then(|told| {
                    self.compare()
                        .map_err(|wrong| format!("{told}: {wrong}"))
                        .map(|()| told)
                });
            }
            played.map_err(|wrong| format!("{name}, seed {seed}, packet {n}: {wrong}"))?;
        }
        let all = self.compare().and_then(|()| self.compare_work());
        all.map_err(|wrong| format!("{name}, seed {seed}, at the end: {wrong}"))
    }

    fn worlds(&mut self) -> [&mut World<'a>; 2] {
        [&mut self.pure_world, &mut self.kernel_world]
    }

    fn apply(&mut self) {
        for (world, engine) in [
            (&mut self.pure_world, &mut self.pure as &mut dyn Engine),
            (&mut self.kernel_world, &mut self.kernel),
        ] {
            let snapshot = world.snapshot();
            engine.apply(&snapshot, &world.hops, &world.config.packet_services());
        }
    }

    /// Something happens: time, a reload, a server's state, a next hop.
    fn change(&mut self) -> Result<(), Wrong> {
        if self.dice.is_one_in(if self.plan.is_timed { 2 } else { 4 }) {
            let time = if self.plan.is_timed {
                // about so many seconds
                GRID * 13 * self.dice.one_of(&[1, 1, 1, 2, 3, 5, 11, 61, 901])
            } else {
                // far from all times that anything lasts, as the real time between two of these is short
                Duration::from_millis(7_900) * (1 + self.dice.roll(9) as u32)
            };
            if !self.plan.is_timed {
                self.kernel.follow_clock();
            }
            self.kernel.pass(time);
            self.pure.go_to(self.kernel.time());
            // where ports are scarce, who is forgotten first decides who lives on; after this time nobody does
            if !self.plan.is_timed || time > Duration::from_secs(60) {
                self.kernel.wait(Duration::ZERO);
                self.pure.wait(Duration::ZERO);
                self.is_swept = true;
            }
            return Ok(());
        }
        let dice = &mut self.dice;
        let mut change = Change::default();
        if std::mem::take(&mut self.is_disturbed) {
            change.interface = Some("clients".to_owned());
        } else if !self.plan.others.is_empty() && dice.is_one_in(8) {
            let other = match dice.is_one_in(2) {
                true => self.plan.world,
                false => dice.one_of(self.plan.others),
            };
            change.config = Some(other.to_owned());
        } else if self.plan.is_timed && dice.is_one_in(20) {
            change.interface = Some("clients".to_owned());
            change.mtu = Some(dice.one_of(&[0, 1_000]));
            self.is_disturbed = true;
        } else if dice.is_one_in(3) {
            let hops = self.worlds.hops.keys();
            change.hop = hops.clone().nth(dice.roll(hops.len() as u64) as usize).copied();
            match dice.roll(8) {
                0 => change.is = Some("unresolved".to_owned()),
                1 => change.mtu = Some(1_000),
                _ => (change.is, change.mtu) = (Some("known".to_owned()), Some(1_500)),
            }
        } else {
            let servers = self.pure_world.server_names();
            change.server = Some(servers[dice.roll(servers.len() as u64) as usize].clone());
            match dice.roll(12) {
                0 => change.weight = Some(1 + dice.roll(9) as u16),
                1 if !self.plan.is_timed || dice.is_one_in(3) => change.state = Some("draining".to_owned()),
                2 if self.plan.is_timed && dice.is_one_in(2) => change.state = Some("up".to_owned()),
                2 => change.state = Some("down".to_owned()),
                3..6 => change.state = Some("ready".to_owned()),
                _ => change.state = Some("up".to_owned()),
            }
        }
        for world in self.worlds() {
            world.change(&change)?;
        }
        self.apply();
        Ok(())
    }

    /// Plays a packet, and gives it for people.
    fn packet(&mut self, traffic: &mut impl Traffic) -> Result<String, Wrong> {
        let Some((text, from)) = traffic.next(self.worlds, &mut self.dice)? else {
            return Ok(String::new());
        };
        let packet = Arrived::read(self.worlds, &from, &text)
            .map_err(|wrong| format!("{text}: {wrong}"))?
            .described
            .whole();
        let (mut bytes, offload) = (packet.frame(), packet.offload());
        let (dice, seldom) = (&mut self.dice, self.plan.seldom);
        // what a sender leaves unfinished has not been on a wire
        if offload.checksum.is_none() && dice.is_one_in(10 * seldom) {
            for _ in 0..1 + dice.roll(3) {
                let at = dice.roll(bytes.len().min(80) as u64) as usize;
                bytes[at] = dice.roll(256) as u8;
            }
        }
        if dice.is_one_in(40 * seldom) {
            bytes.truncate(dice.roll(bytes.len() as u64) as usize);
        }
        // both draw the same NAT ports
        let random = dice.number();
        self.pure.reseed(random);
        self.kernel.reseed(random);
        self.pure.go_to(if self.plan.is_timed {
            self.kernel.go_on()
        } else {
            self.kernel.follow_clock()
        });
        let ifindex = self.worlds.interface(&from)?.index;
        let pure = self.pure.packet(&bytes, offload, ifindex);
        let kernel = self.kernel.packet(&bytes, offload, ifindex);
        let told = format!("{text} by {from}");
        same(&pure, &kernel).map_err(|wrong| format!("{told}: {wrong}\nframe {}", shown(&bytes)))?;
        traffic.became(&pure);
        self.is_swept = false;
        Ok(told)
    }

    /// Both must have the same flows and counters.
    fn compare(&mut self) -> Result<(), Wrong> {
        self.kernel.collect();
        let [pure, kernel] =
            [self.pure.listed(), self.kernel.listed()].map(|flows| listed(flows, self.plan.is_timed));
        let mut wrong = differing("flow", &pure, &kernel);
        let [pure, kernel] = [&self.pure_world, &self.kernel_world].map(|world| {
            let mut counted = counted(world, self.is_swept && self.plan.is_timed);
            counted.retain(|name, _| self.lasting.contains(name));
            counted
        });
        wrong.extend(differing("counted for", &pure, &kernel));
        let [pure, kernel] = [&self.pure as &dyn Engine, &self.kernel].map(|engine| {
            let reasons = PacketReason::ALL.iter();
            reasons
                .map(|reason| (reason.to_string(), engine.count(*reason)))
                .collect()
        });
        wrong.extend(differing("packets", &pure, &kernel));
        let [pure, kernel] = [self.pure.nat_usage(), self.kernel.nat_usage()]
            .map(|usage| BTreeMap::from([(String::new(), usage)]));
        wrong.extend(differing("passthrough flows, half-open ones", &pure, &kernel));
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(wrong.join("\n")),
        }
    }

    /// The program must have done most of what it is there for: else nothing has been compared.
    fn compare_work(&self) -> Result<(), Wrong> {
        let (sent, passes) = (self.kernel.sent_by_program(), self.kernel.passes());
        if std::env::var_os("CONVEY_PACKETS").is_some() {
            let name = self.plan.world;
            eprintln!("{name}: of all sent on, those by the program: {sent:?}; left to the path: {passes:?}");
        }
        for (reason, by_program, all) in sent {
            if by_program * 10 < all {
                return Err(format!(
                    "{reason}: by the program only {by_program} of {all} packets; left to the path: {passes:?}"
                ));
            }
        }
        Ok(())
    }
}

/// Passthrough flows by their 5-tuples: server, NAT address and state, and in a timed run for how many moments nothing has made
/// them last longer.
fn listed(flows: Vec<FlowInfo>, is_timed: bool) -> BTreeMap<String, String> {
    let nat = flows.into_iter().filter_map(|flow| {
        let mut text = format!("{:?} by {:?}, {}", flow.server_addr, flow.nat?, flow.state);
        if is_timed {
            let _ = write!(
                text,
                ", {}",
                (flow.idle + GRID / 2).as_millis() / GRID.as_millis()
            );
        }
        Some((format!("{:?}", flow.tuple), text))
    });
    nat.collect()
}

/// What is counted for a frontend or server.
#[derive(Debug, PartialEq, Eq)]
struct Counted {
    opened: u64,
    /// The program's DSR flows are not seen to end before what has expired is taken out.
    current: Option<u64>,
    bytes: (u64, u64),
    handshakes: [u64; Handshake::ALL.len()],
    refused: [u64; AccessReason::ALL.len()],
    dropped: [u64; ServerDrop::ALL.len()],
    nat_ports: u32,
}

impl Counted {
    fn of(counters: &Counters, nat_ports: u32, are_ends_seen: bool) -> Self {
        let totals = counters.totals();
        let mut handshakes = totals.handshakes;
        if !are_ends_seen {
            handshakes[Handshake::DsrIncomplete as usize] = 0;
        }
        Self {
            opened: totals.opened,
            current: are_ends_seen.then_some(totals.current),
            bytes: (totals.bytes_in, totals.bytes_out),
            handshakes,
            refused: totals.refused,
            dropped: totals.dropped,
            nat_ports,
        }
    }
}

/// What is counted for frontends and servers, by name.
fn counted(world: &World<'_>, are_ends_seen: bool) -> BTreeMap<String, Counted> {
    let mut all = BTreeMap::new();
    if let Some(snapshot) = &world.snapshot {
        for (name, frontend) in &snapshot.frontends {
            let counted = Counted::of(&frontend.live.counters, 0, are_ends_seen);
            all.insert(format!("frontend {name}"), counted);
        }
        for (backend, server) in snapshot.servers() {
            let name = format!("server {}/{}", backend.config.name, server.name);
            let claimed = server.live.nat_ports.load(Ordering::Relaxed);
            all.insert(name, Counted::of(&server.live.counters, claimed, are_ends_seen));
        }
    }
    all
}

/// The names of what is counted for in all worlds of a plan.
fn lasting(worlds: &Worlds, plan: &Plan<'_>) -> Result<BTreeSet<String>, Wrong> {
    let names = |name: &str| -> Result<BTreeSet<String>, Wrong> {
        let world = World::new(worlds, name)?;
        Ok(counted(&world, true).into_keys().collect())
    };
    let mut lasting = names(plan.world)?;
    for other in plan.others {
        let others = names(other)?;
        lasting.retain(|name| others.contains(name));
    }
    Ok(lasting)
}

/// What is not the same of two, in words.
fn differing<T: PartialEq + Debug>(
    what: &str,
    pure: &BTreeMap<String, T>,
    kernel: &BTreeMap<String, T>,
) -> Vec<String> {
    let keys: BTreeSet<_> = pure.keys().chain(kernel.keys()).collect();
    let different = keys.into_iter().filter(|key| pure.get(*key) != kernel.get(*key));
    different
        .map(|key| {
            let (pure, kernel) = (pure.get(key), kernel.get(key));
            format!("{what} {key}: {pure:?} by the path, {kernel:?} by program and path")
        })
        .collect()
}

fn equal<T: PartialEq + Debug>(what: &str, pure: &T, kernel: &T) -> Result<(), Wrong> {
    match pure == kernel {
        true => Ok(()),
        false => Err(format!(
            "{what}: {pure:?} by the path, {kernel:?} by program and path"
        )),
    }
}

/// The beginning of a frame, for people.
fn shown(frame: &[u8]) -> String {
    to_hex(&frame[..frame.len().min(100)])
}

fn same(pure: &Outcome, kernel: &Outcome) -> Result<(), Wrong> {
    equal("verdict", &pure.verdict, &kernel.verdict)?;
    equal("sent besides", &pure.answers, &kernel.answers)?;
    let is_sent = matches!(pure.verdict, Verdict::Send { .. });
    if is_sent && (pure.frame != kernel.frame || pure.offload != kernel.offload) {
        let (pure, kernel) = (shown(&pure.frame), shown(&kernel.frame));
        return Err(format!(
            "sent by the path:\n{pure}\nby program and path:\n{kernel}"
        ));
    }
    Ok(())
}
