//! Cases and how they are played.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use convey::{
    base::PacketReason,
    flow::Verdict,
    packet::parse,
    snapshot::{Snapshot, live::FrontendStats, live::ServerStats},
};
use serde::Deserialize;

use crate::{
    engine::{Engine, Outcome},
    expect::{self, Arrived},
    numbering::Numbering,
    words::{self, Wrong},
    world::{Change, World, Worlds},
};

/// A file of cases.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    pub case: Vec<Case>,
}

/// A case.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What it shows, in one line.
    pub what: String,
    pub world: String,
    pub step: Vec<Step>,
}

/// A step; see the text of `main.rs`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    pub wait: Option<String>,
    pub set: Option<Change>,
    pub from: Option<String>,
    #[serde(rename = "in")]
    pub packet: Option<String>,
    pub hex: Option<String>,
    #[serde(default)]
    pub patch: BTreeMap<String, String>,
    pub truncate: Option<usize>,
    pub times: Option<u32>,
    pub verdict: Option<String>,
    pub by: Option<String>,
    pub out: Option<String>,
    #[serde(default)]
    pub answers: Vec<String>,
    #[serde(default)]
    pub split: Vec<String>,
    #[serde(default)]
    pub released: Vec<String>,
    #[serde(default)]
    pub counts: BTreeMap<String, u64>,
    pub flows: Option<u64>,
    pub waiting: Option<u64>,
}

/// The verdict on a fragment that waits: nothing is counted yet.
const KEPT: &str = "kept";

/// A case being played.
struct Player<'a> {
    worlds: &'a Worlds,
    world: World<'a>,
    engine: Box<dyn Engine>,
    names: HashMap<String, String>,
    numbering: Numbering,
    /// What came in at each step.
    arrived: Vec<Option<Arrived>>,
    live: Live,
    /// Bytes that must have been counted: towards servers, towards clients.
    bytes: (u64, u64),
}

/// Counters of everything that was ever configured.
#[derive(Default)]
struct Live {
    frontends: Vec<Arc<FrontendStats>>,
    servers: Vec<Arc<ServerStats>>,
}

/// Plays a case on an engine that is made for so many flows.
pub fn run(
    case: &Case,
    worlds: &Worlds,
    engine: impl FnOnce(NonZeroU32) -> Box<dyn Engine>,
) -> Result<(), Wrong> {
    let world = World::new(worlds, &case.world)?;
    let engine = engine(world.config.packet.max_flows);
    let mut player = Player {
        worlds,
        world,
        engine,
        names: HashMap::new(),
        numbering: Numbering::default(),
        arrived: Vec::new(),
        live: Live::default(),
        bytes: (0, 0),
    };
    player.apply();
    for (index, step) in case.step.iter().enumerate() {
        let played = player.step(step);
        played.map_err(|wrong| format!("step {}: {wrong}", index + 1))?;
    }
    Ok(())
}

impl Player<'_> {
    fn apply(&mut self) {
        let snapshot = self.world.snapshot();
        self.live.add(&snapshot);
        let services = self.world.config.packet_services();
        self.engine.apply(&snapshot, &self.world.hops, &services);
    }

    fn step(&mut self, step: &Step) -> Result<(), Wrong> {
        let before = self.counts();
        let mut expected = step.counts.clone();
        if let Some(time) = &step.wait {
            self.engine.wait(duration(time)?);
        }
        if let Some(change) = &step.set {
            let mut change = change.clone();
            change.server = change.server.map(|server| self.known(&server)).transpose()?;
            self.world.change(&change)?;
            self.apply();
        }
        self.arrived.push(None);
        if step.packet.is_some() || step.hex.is_some() {
            let verdict = step.verdict.as_ref().ok_or("a packet without a verdict")?;
            for n in 0..step.times.unwrap_or(1) {
                let played = self.packet(step, verdict, n);
                let label = played.map_err(|wrong| format!("packet {n}: {wrong}"))?;
                if label != KEPT {
                    *expected.entry(label.to_owned()).or_default() += 1;
                }
            }
        }
        self.check_counts(&before, &expected)?;
        let (flows, waiting) = self.engine.usage();
        same("flows", step.flows.unwrap_or(flows), flows)?;
        same("fragments that wait", step.waiting.unwrap_or(waiting), waiting)?;
        same("bytes counted", self.bytes, self.live.frontends())?;
        same("bytes counted for servers", self.bytes, self.live.servers())
    }

    /// Every counter by its label, those at zero left out.
    fn counts(&self) -> BTreeMap<&'static str, u64> {
        let all = PacketReason::ALL.iter();
        all.map(|reason| (reason.label(), self.engine.count(*reason)))
            .collect()
    }

    fn check_counts(
        &self,
        before: &BTreeMap<&'static str, u64>,
        expected: &BTreeMap<String, u64>,
    ) -> Result<(), Wrong> {
        for label in expected.keys() {
            label
                .parse::<PacketReason>()
                .map_err(|_| format!("{label}: no such counter"))?;
        }
        for (label, after) in self.counts() {
            let wanted = expected.get(label).copied().unwrap_or(0);
            same(&format!("counter {label}"), wanted, after - before[label])?;
        }
        Ok(())
    }

    /// Plays a packet. Gives what became of it.
    fn packet(&mut self, step: &Step, verdict: &str, n: u32) -> Result<&'static str, Wrong> {
        let from = step.from.as_deref().unwrap_or("clients");
        let ifindex = self.worlds.interface(from)?.index;
        let (mut bytes, offload, arrived) = match (&step.packet, &step.hex) {
            (Some(text), None) => {
                let text = self.known(&counted(text, n))?;
                let text = self.numbering.fill(&text, from == "servers");
                let arrived = Arrived::read(self.worlds, from, &text)?;
                let packet = arrived.described.whole();
                (packet.frame(), packet.offload(), Some(arrived))
            }
            (None, Some(hex)) => (words::hex(hex)?, Default::default(), None),
            _ => return Err("either in or hex".to_owned()),
        };
        for (at, patch) in &step.patch {
            let at: usize = words::number(at)?;
            let patch = words::hex(patch)?;
            let place = bytes
                .get_mut(at..at + patch.len())
                .ok_or("a patch beyond the frame")?;
            place.copy_from_slice(&patch);
        }
        bytes.truncate(step.truncate.unwrap_or(usize::MAX));
        let outcome = self.engine.packet(&bytes, offload, ifindex);
        let label = match outcome.verdict {
            Verdict::Kept => KEPT,
            Verdict::Done(reason) | Verdict::Send { reason, .. } => reason.label(),
        };
        if !verdict.split('|').any(|allowed| allowed == label) {
            return same("verdict", verdict, label).map(|()| label);
        }
        self.check_sent(step, verdict, n, arrived.as_ref(), &outcome)?;
        if label == PacketReason::ToServer.label()
            && let (Ok(came), Ok(sent)) = (parse(&bytes), parse(&outcome.frame))
            && let (Some((_, client, _)), Some((_, nat, _))) = (came.tuple(), sent.tuple())
        {
            self.numbering.left(client.to_string(), nat.to_string());
        }
        self.check_answers(step, verdict, arrived.as_ref(), &outcome)?;
        if let Some(last) = self.arrived.last_mut() {
            *last = arrived;
        }
        Ok(label)
    }

    fn check_sent(
        &mut self,
        step: &Step,
        verdict: &str,
        n: u32,
        arrived: Option<&Arrived>,
        outcome: &Outcome,
    ) -> Result<(), Wrong> {
        let Verdict::Send { ifindex, .. } = outcome.verdict else {
            return match step.out {
                Some(_) => Err("nothing was sent".to_owned()),
                None => Ok(()),
            };
        };
        let text = step.out.as_ref().ok_or("a packet was sent: out?")?;
        let arrived = arrived.ok_or("only packets in words can be told how they leave")?;
        let text = self.bind(&counted(text, n), &outcome.frame)?;
        let by = step.by.as_deref().unwrap_or(default_way(verdict));
        let expected = arrived.leaving(self.worlds, by, &text)?.whole();
        same("interface", self.worlds.interface(by)?.index, ifindex)?;
        expect::same_frames(&expected.frame(), &outcome.frame)?;
        same("offload", expected.offload(), outcome.offload)?;
        self.count_bytes(verdict, &outcome.frame);
        Ok(())
    }

    fn check_answers(
        &mut self,
        step: &Step,
        verdict: &str,
        arrived: Option<&Arrived>,
        outcome: &Outcome,
    ) -> Result<(), Wrong> {
        let wanted = step.answers.len() + step.split.len() + step.released.len();
        same("packets sent besides", wanted, outcome.answers.len())?;
        let (answers, rest) = outcome.answers.split_at(step.answers.len());
        let (split, released) = rest.split_at(step.split.len());
        for (text, (ifindex, frame)) in step.answers.iter().zip(answers) {
            let arrived = arrived.ok_or("only packets in words can be answered")?;
            let by = self.worlds.interface(&arrived.from)?.index;
            same("interface of the answer", by, *ifindex)?;
            let expected = arrived.answer(text).map_err(|wrong| format!("{text}: {wrong}"))?;
            expect::same_frames(&expected.frame(), frame).map_err(|wrong| format!("{text}: {wrong}"))?;
        }
        for (text, sent) in step.split.iter().zip(split) {
            let arrived = arrived.ok_or("only packets in words can be split")?;
            self.check_besides(arrived, verdict, text, sent)?;
        }
        if let Some(arrived) = arrived.filter(|_| !step.split.is_empty()) {
            self.count_bytes(verdict, &arrived.described.whole().frame());
        }
        for (text, sent) in step.released.iter().zip(released) {
            let (number, text) = text.split_once(": ").ok_or("STEP: SOURCE > DESTINATION wanted")?;
            let index = words::number::<usize>(number)?
                .checked_sub(1)
                .ok_or("steps count from 1")?;
            let earlier = self.arrived.get(index).cloned().flatten();
            let earlier = earlier.ok_or(format!("step {number} has no packet"))?;
            self.check_besides(&earlier, verdict, text, sent)?;
            self.count_bytes(verdict, &sent.1);
        }
        Ok(())
    }

    /// A packet that is sent besides, on the way that the verdict names.
    fn check_besides(
        &mut self,
        arrived: &Arrived,
        verdict: &str,
        text: &str,
        (ifindex, frame): &(u32, Vec<u8>),
    ) -> Result<(), Wrong> {
        let text = self.bind(text, frame)?;
        let by = default_way(verdict);
        let expected = arrived.leaving(self.worlds, by, &text)?.whole();
        same("interface", self.worlds.interface(by)?.index, *ifindex)?;
        expect::same_frames(&expected.frame(), frame).map_err(|wrong| format!("{text}: {wrong}"))
    }

    fn count_bytes(&mut self, verdict: &str, frame: &[u8]) {
        let len = parse(frame).map_or(0, |parsed| parsed.ip_len() as u64);
        match verdict {
            "to_server" => self.bytes.0 += len,
            "to_client" => self.bytes.1 += len,
            _ => {}
        }
    }

    /// The text with what names stand for.
    fn known(&self, text: &str) -> Result<String, Wrong> {
        let text = self.substituted(text);
        match text.contains('$') {
            true => Err(format!("{text}: a name that nothing has been bound to")),
            false => Ok(text),
        }
    }

    fn substituted(&self, text: &str) -> String {
        let mut names: Vec<_> = self.names.iter().collect();
        // a name may be the beginning of another
        names.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        names
            .iter()
            .fold(text.to_owned(), |text, (name, value)| text.replace(*name, value))
    }

    /// The text with what names stand for, new ones bound to what the frame has in their places.
    fn bind(&mut self, text: &str, frame: &[u8]) -> Result<String, Wrong> {
        let text = self.substituted(text);
        let mut parts: Vec<String> = text.split(' ').map(str::to_owned).collect();
        let place = parts
            .iter()
            .position(|part| part == ">")
            .ok_or("SOURCE > DESTINATION wanted")?;
        let (source, destination) = (place - 1, place + 1);
        let actual = || {
            let parsed = parse(frame).map_err(|error| error.to_string())?;
            parsed.tuple().ok_or("a packet without ports".to_owned())
        };
        if let Some(at) = parts[source].find('$') {
            let port = actual()?.1.port();
            if !self.world.config.packet.nat_ports.contains(port) {
                return Err(format!("{port} is no NAT port"));
            }
            let name = parts[source].split_off(at);
            parts[source] += &port.to_string();
            self.name(name, port.to_string())?;
        }
        if parts[destination].starts_with('$') {
            let socket = actual()?.2;
            let all = self
                .world
                .config
                .backends
                .values()
                .flat_map(|b| b.servers.values());
            let servers: BTreeSet<_> = all
                .filter_map(|server| server.addr.on_network().map(|addr| addr.0))
                .collect();
            if !servers.contains(&socket) {
                return Err(format!("{socket} is no server"));
            }
            let name = std::mem::replace(&mut parts[destination], socket.to_string());
            self.name(name, socket.to_string())?;
        }
        self.known(&parts.join(" "))
    }

    /// Other names stand for other things.
    fn name(&mut self, name: String, value: String) -> Result<(), Wrong> {
        if let Some((other, _)) = self.names.iter().find(|(_, known)| **known == value) {
            return Err(format!("{name} is {value}, as {other} is"));
        }
        if name != "$_" {
            self.names.insert(name, value);
        }
        Ok(())
    }
}

impl Live {
    fn add(&mut self, snapshot: &Snapshot) {
        for frontend in snapshot.frontends.values() {
            if !self
                .frontends
                .iter()
                .any(|known| Arc::ptr_eq(known, &frontend.live))
            {
                self.frontends.push(Arc::clone(&frontend.live));
            }
        }
        for (_, server) in snapshot.servers() {
            if !self.servers.iter().any(|known| Arc::ptr_eq(known, &server.live)) {
                self.servers.push(Arc::clone(&server.live));
            }
        }
    }

    /// Bytes towards servers and clients, as counted for frontends.
    fn frontends(&self) -> (u64, u64) {
        let totals = self.frontends.iter().map(|live| live.counters.totals());
        totals.fold((0, 0), |sum, totals| {
            (sum.0 + totals.bytes_in, sum.1 + totals.bytes_out)
        })
    }

    /// The same, as counted for servers.
    fn servers(&self) -> (u64, u64) {
        let totals = self.servers.iter().map(|live| live.counters.totals());
        totals.fold((0, 0), |sum, totals| {
            (sum.0 + totals.bytes_in, sum.1 + totals.bytes_out)
        })
    }
}

fn default_way(verdict: &str) -> &'static str {
    if verdict.ends_with("to_client") {
        "clients"
    } else {
        "servers"
    }
}

/// Replaces `{40000+n}` by the sum.
fn counted(text: &str, n: u32) -> String {
    let mut parts = text.split('{');
    let mut result = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let sum = part
            .split_once("+n}")
            .and_then(|(base, rest)| Some((base.parse::<u32>().ok()?, rest)));
        match sum {
            Some((base, rest)) => result += &format!("{}{rest}", base + n),
            None => result += &format!("{{{part}"),
        }
    }
    result
}

fn duration(text: &str) -> Result<Duration, Wrong> {
    let digits = text.trim_end_matches(char::is_alphabetic);
    let number: u64 = words::number(digits)?;
    match &text[digits.len()..] {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number * 60)),
        _ => Err(format!("{text}: ms, s or m")),
    }
}

/// What is wanted and what is there must be the same.
fn same<T: PartialEq + std::fmt::Debug + Copy>(what: &str, wanted: T, got: T) -> Result<(), Wrong> {
    match wanted == got {
        true => Ok(()),
        false => Err(format!("{what}: wanted {wanted:?}, got {got:?}")),
    }
}
