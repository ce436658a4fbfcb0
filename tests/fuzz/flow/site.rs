//! A load balancer on paper, and what must be true of it whatever comes in.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    net::SocketAddr,
    num::NonZeroU32,
    sync::Arc,
};

use convey::{
    base::{ClientAddr, ListenAddr, PacketReason, PortRanges, Protocol, WorkerId},
    flow::{
        Because, FiveTuple, Flows, Moment, PacketCounters, Path, ReasonCounters, Resolution, Services,
        TableLimits, Verdict,
    },
    packet::{Content, Frame, HEADROOM, Offload, Parsed, parse, testing::wrong_checksums},
    snapshot::live::{FrontendStats, ServerStats, Totals},
};

use crate::{
    forge,
    input::Step,
    world::{Change, World, Worlds},
};

/// What may become of a server.
pub const SERVER_STATES: [&str; 6] = ["up", "down", "draining", "maintenance", "ready", "weight"];
/// What may become of a next hop.
pub const HOP_STATES: [&str; 6] = ["known", "unresolved", "no_route", "gone", "small", "large"];
/// What may become of an interface.
pub const INTERFACE_STATES: [&str; 4] = ["back", "gone", "small", "large"];

/// Frames that an answer, an error or a repetition may be about.
const REMEMBERED: usize = 16;
/// Flows at most: soon reached, and soon looked through.
const MAX_FLOWS: NonZeroU32 = NonZeroU32::new(64).expect("not zero");
/// Changes of an input at most: each may build a Maglev table.
const MAX_CHANGES: usize = 8;

/// The number by which an input names a world.
pub fn world_number(worlds: &Worlds, name: &str) -> u8 {
    let found = worlds.worlds.keys().position(|known| known == name);
    u8::try_from(found.unwrap_or(0)).unwrap_or(0)
}

fn world_name(worlds: &Worlds, number: u8) -> &str {
    let index = usize::from(number) % worlds.worlds.len();
    worlds.worlds.keys().nth(index).expect("a world")
}

/// Both ends of a NAT'ed flow towards its server: our address, the server's.
type Nat = (Protocol, SocketAddr, SocketAddr);

pub struct Site<'a> {
    worlds: &'a Worlds,
    world: World<'a>,
    flows: Arc<Flows>,
    services: Arc<Services>,
    path: Path,
    counters: Arc<ReasonCounters>,
    now: Moment,
    changes: usize,
    /// Every frontend and server that ever was.
    frontends: Vec<Arc<FrontendStats>>,
    servers: Vec<Arc<ServerStats>>,
    addresses: BTreeSet<SocketAddr>,
    nat_ports: Vec<PortRanges>,
    /// Who was last given an address towards a server: client and VIP.
    holders: HashMap<Nat, (SocketAddr, SocketAddr)>,
    arrived: VecDeque<(Vec<u8>, u32)>,
    forwarded: VecDeque<(Vec<u8>, u32)>,
    received: Received,
}

/// What has come in, and how much of it was seen to leave at once.
#[derive(Default)]
struct Received {
    frames: u64,
    bytes: u64,
    to_server: u64,
    to_client: u64,
}

/// What became of a frame.
struct Sent<'f> {
    before: &'f [u8],
    offload: Offload,
    after: Vec<u8>,
    offload_after: Offload,
    answers: Vec<(u32, Vec<u8>)>,
}

impl<'a> Site<'a> {
    pub fn new(worlds: &'a Worlds, number: u8) -> Self {
        let world = World::new(worlds, world_name(worlds, number)).expect("a world of the corpus");
        let flows = Arc::new(Flows::new(TableLimits {
            max_flows: world.config.packet.max_flows.min(MAX_FLOWS),
            workers: 1,
            hash_seed: 42,
        }));
        let path = Path::new(WorkerId(0), 0, Arc::clone(&flows), 7);
        let mut site = Self {
            worlds,
            world,
            flows,
            services: Arc::default(),
            counters: path.counters(),
            path,
            now: Moment(1_000),
            changes: 0,
            frontends: Vec::new(),
            servers: Vec::new(),
            addresses: BTreeSet::new(),
            nat_ports: Vec::new(),
            holders: HashMap::new(),
            arrived: VecDeque::new(),
            forwarded: VecDeque::new(),
            received: Received::default(),
        };
        site.apply();
        site
    }

    /// Puts the world as it is now in force.
    fn apply(&mut self) {
        let snapshot = self.world.snapshot();
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
            self.addresses.extend(server.addr.on_network().map(|addr| addr.0));
            if !self.servers.iter().any(|known| Arc::ptr_eq(known, &server.live)) {
                self.servers.push(Arc::clone(&server.live));
            }
        }
        self.nat_ports.push(self.world.config.packet.nat_ports);
        self.services = Arc::new(Services::build(&snapshot, &self.services));
        self.path.set_services(Arc::clone(&self.services));
        self.path.set_hops(Arc::new(self.world.hops.clone()));
    }

    pub fn play(&mut self, step: &Step) {
        match step {
            Step::Frame { how, bytes } => {
                let mut bytes = bytes.clone();
                if !how.is_raw {
                    forge::fix(&mut bytes, how.is_unfinished);
                }
                let offload = forge::offload(&bytes, how);
                self.receive(&bytes, offload, how.interface);
            }
            Step::Reply { back, flags } => {
                if let Some(frame) = recall(&self.forwarded, *back, |frame| forge::reply(frame, *flags)) {
                    self.receive(&frame, Offload::default(), 1);
                }
            }
            Step::Again { back, flags, port } => {
                if let Some(frame) = recall(&self.arrived, *back, |frame| forge::again(frame, *flags, *port))
                {
                    self.receive(&frame, Offload::default(), 0);
                }
            }
            Step::Error { back, kind, quoted } => {
                let quoted = usize::from(*quoted) * 2;
                if let Some(frame) =
                    recall(&self.forwarded, *back, |frame| forge::error(frame, *kind, quoted))
                {
                    self.receive(&frame, Offload::default(), kind >> 7);
                }
            }
            Step::Wait { time, does_sweep } => {
                self.now = self.now.after(*time);
                // often enough to go through all parts of the tables
                for _ in 0..if *does_sweep { 3 } else { 0 } {
                    self.path.expire(self.now);
                }
            }
            Step::Server { .. } | Step::Hop { .. } | Step::Interface { .. } | Step::Config { .. } => {
                self.changes += 1;
                if self.changes <= MAX_CHANGES {
                    self.change(step);
                }
            }
        }
        self.check();
    }

    fn change(&mut self, step: &Step) {
        let change = self.wanted_change(step);
        if let Some(change) = change
            && self.world.change(&change).is_ok()
        {
            self.apply();
        }
    }

    fn wanted_change(&self, step: &Step) -> Option<Change> {
        let mut change = Change {
            server: None,
            state: None,
            weight: None,
            hop: None,
            is: None,
            interface: None,
            mtu: None,
            config: None,
        };
        let mtu = |state: &str| if state == "small" { 1_280 } else { 9_000 };
        match *step {
            Step::Server { index, state } => {
                let all: Vec<_> = self.world.config.backends.values().collect();
                let mut servers = all.iter().flat_map(|backend| {
                    let names = backend.servers.keys();
                    names.map(move |server| format!("{}/{server}", backend.name))
                });
                let count = servers.clone().count();
                change.server = servers.nth(usize::from(index).checked_rem(count)?);
                match SERVER_STATES[usize::from(state) % SERVER_STATES.len()] {
                    "weight" => change.weight = Some(u16::from(state)),
                    state => change.state = Some(state.to_owned()),
                }
            }
            Step::Hop { index, state } => {
                let hops = &self.worlds.hops;
                change.hop = hops.keys().nth(usize::from(index) % hops.len()).copied();
                match HOP_STATES[usize::from(state) % HOP_STATES.len()] {
                    size @ ("small" | "large") => change.mtu = Some(mtu(size)),
                    state => change.is = Some(state.to_owned()),
                }
            }
            Step::Interface { index, state } => {
                let interfaces = &self.worlds.interfaces;
                change.interface = interfaces
                    .keys()
                    .nth(usize::from(index) % interfaces.len())
                    .cloned();
                change.mtu = match INTERFACE_STATES[usize::from(state) % INTERFACE_STATES.len()] {
                    "back" => None,
                    "gone" => Some(0),
                    size => Some(mtu(size)),
                };
            }
            Step::Config { world } => change.config = Some(world_name(self.worlds, world).to_owned()),
            _ => return None,
        }
        Some(change)
    }

    /// A frame comes in by the clients' interface (0) or the servers' (1).
    fn receive(&mut self, bytes: &[u8], offload: Offload, interface: u8) {
        let ifindex = u32::from(interface & 1) + 1;
        let before = parse(bytes).ok();
        let foretold = before.and_then(|parsed| self.foretell(&parsed));
        let mut buffer = vec![0; HEADROOM];
        buffer.extend(bytes);
        let mut frame =
            Frame::new(&mut buffer, HEADROOM, bytes.len(), offload).expect("it lies in its buffer");
        let verdict = self.path.process(&mut frame, ifindex, self.now);
        let sent = Sent {
            before: bytes,
            offload,
            after: frame.bytes().to_vec(),
            offload_after: frame.offload,
            answers: self
                .path
                .answers()
                .map(|answer| (answer.ifindex, answer.frame))
                .collect(),
        };
        self.received.frames += 1;
        self.received.bytes += before.map_or(0, |parsed| parsed.ip_len() as u64);
        remember(&mut self.arrived, bytes, ifindex);
        for (ifindex, answer) in &sent.answers {
            check_answer(*ifindex, answer);
        }
        if let Verdict::Send { ifindex, reason } = verdict {
            let before = before.expect("what is sent on could be read");
            self.check_sent(&sent, &before, ifindex, reason);
            if let Some(server) = foretold
                && reason == PacketReason::ToServer
            {
                let to = parse(&sent.after).ok().and_then(|parsed| parsed.tuple());
                assert_eq!(
                    to.map(|(_, _, to)| to),
                    Some(server),
                    "not where `convey explain` said"
                );
            }
            remember(&mut self.forwarded, &sent.after, ifindex);
        }
    }

    /// The server that `convey explain` names for a packet that has no flow yet.
    fn foretell(&self, parsed: &Parsed) -> Option<SocketAddr> {
        let (protocol, source, destination) = parsed.tuple()?;
        let tuple = FiveTuple {
            protocol,
            client: ClientAddr(source),
            vip: ListenAddr::new(destination),
        };
        let told = self
            .flows
            .explain(&self.services, &self.world.hops, &tuple, self.now);
        let (_, server) = told.server?;
        (told.because == Because::Maglev).then_some(server.0)
    }

    /// A frame that is sent on is sound, and leaves for where it should.
    fn check_sent(&mut self, sent: &Sent<'_>, before: &Parsed, ifindex: u32, reason: PacketReason) {
        let after = parse(&sent.after).expect("what is sent can be read");
        assert_eq!(after.ttl, before.ttl - 1);
        assert_eq!(after.ip_len(), before.ip_len());
        // what was wrong before stays as wrong as it was
        assert_eq!(
            wrong_checksums(&sent.after, &sent.offload_after),
            wrong_checksums(sent.before, &sent.offload),
            "{before:?}\n{after:?}"
        );
        match reason {
            PacketReason::ToServer => {
                self.received.to_server += after.ip_len() as u64;
                self.check_to_server(before, &after, ifindex);
            }
            PacketReason::ToClient => {
                self.received.to_client += after.ip_len() as u64;
                self.check_to_client(before, &after);
            }
            reason => {
                assert!(
                    matches!(after.content, Content::Error(_)),
                    "sent because of {reason}: {after:?}"
                );
            }
        }
    }

    fn check_to_server(&mut self, before: &Parsed, after: &Parsed, ifindex: u32) {
        let Some((protocol, from, to)) = after.tuple() else {
            return;
        };
        let (_, client, vip) = before.tuple().expect("it has had ports");
        assert!(self.addresses.contains(&to), "{to} is no server");
        let hop = self.world.hops.servers.get(&to.ip()).expect("a next hop");
        let Resolution::Known(link) = hop.resolution else {
            panic!("sent to {to} by {hop:?}");
        };
        assert_eq!(
            (ifindex, after.link_source, after.link_destination),
            (link.ifindex, link.source, link.destination)
        );
        if from != client {
            assert!(hop.locals.contains(&from.ip()), "{from}");
            assert!(
                self.nat_ports.iter().any(|ports| ports.contains(from.port())),
                "{from}"
            );
            self.holders.insert((protocol, from, to), (client, vip));
        }
    }

    /// What a server sends reaches who was last given the address that it sends to.
    fn check_to_client(&self, before: &Parsed, after: &Parsed) {
        let Some((protocol, server, nat)) = before.tuple() else {
            return;
        };
        let holder = self.holders.get(&(protocol, nat, server));
        let (client, vip) = *holder.unwrap_or_else(|| panic!("{server} > {nat}: nobody's"));
        assert_eq!(after.tuple(), Some((protocol, vip, client)));
    }

    /// The tables are whole, and everything that came in is counted once.
    fn check(&self) {
        self.flows.check_invariants();
        let usage = self.flows.usage();
        let counted: u64 = PacketReason::ALL
            .iter()
            .map(|reason| self.counters.read(*reason))
            .sum();
        assert_eq!(
            counted + usage.fragments_waiting,
            self.received.frames,
            "packets counted and waiting, against those that came in"
        );
        let frontends = sum(self.frontends.iter().map(|live| live.counters.totals()));
        let servers = sum(self.servers.iter().map(|live| live.counters.totals()));
        assert_eq!(frontends, servers, "counted for frontends, against servers");
        let (open, bytes_in, bytes_out) = frontends;
        assert_eq!(open, usage.nat_flows + usage.dsr_flows, "open flows");
        let received = &self.received;
        assert!(received.to_server <= bytes_in && received.to_client <= bytes_out);
        assert!(bytes_in + bytes_out <= received.bytes);
    }

    /// Everything can be listed; and when everything has expired nothing is left.
    pub fn end(mut self) {
        let (count, listed) = self.flows.list(&|_| true, 1_000, self.now);
        assert_eq!(count, listed.len() as u64);
        self.play(&Step::Wait {
            time: std::time::Duration::from_secs(7 * 86_400),
            does_sweep: true,
        });
        let usage = self.flows.usage();
        assert_eq!(
            (usage.nat_flows, usage.dsr_flows, usage.fragments_waiting),
            (0, 0, 0),
            "left for ever"
        );
    }
}

/// Open flows, and bytes in both directions.
fn sum(totals: impl Iterator<Item = Totals>) -> (u64, u64, u64) {
    totals.fold((0, 0, 0), |sum, totals| {
        (
            sum.0 + totals.current,
            sum.1 + totals.bytes_in,
            sum.2 + totals.bytes_out,
        )
    })
}

/// What is sent besides (our own answers, and fragments) has right checksums, whatever an error quotes.
fn check_answer(ifindex: u32, answer: &[u8]) {
    assert!(matches!(ifindex, 1 | 2), "sent by interface {ifindex}");
    let wrong = wrong_checksums(answer, &Offload::default());
    assert!(
        wrong.iter().all(|wrong| wrong.starts_with("inner")),
        "{wrong:?}: {answer:02x?}"
    );
}

fn remember(frames: &mut VecDeque<(Vec<u8>, u32)>, frame: &[u8], ifindex: u32) {
    frames.push_front((frame.to_vec(), ifindex));
    frames.truncate(REMEMBERED);
}

fn recall(
    frames: &VecDeque<(Vec<u8>, u32)>,
    back: u8,
    make: impl FnOnce(&[u8]) -> Option<Vec<u8>>,
) -> Option<Vec<u8>> {
    let (frame, _) = frames.get(usize::from(back).checked_rem(frames.len())?)?;
    make(frame)
}
