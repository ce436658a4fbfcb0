//! The path of packets through one worker: what a frame is, where it goes, and carrying that out.

use std::{num::NonZeroU32, sync::Arc};

use super::{
    Answer, FlowInfo, Flows, Hops, Moment, ReasonCounters, Services, Verdict,
    counters::PacketCounters,
    fragments::{Datagram, Decision, Follow, Waiting},
    memory::MemoryStore,
    plan::{Arrival, DropReason, Plan, Rewrite},
    router::Router,
    split::split,
    store::{FlowStore, Visitor},
    ways::Ways,
};
use crate::{
    access::Bucket,
    balance::hash::SplitMix64,
    base::{PacketReason, WorkerId},
    packet::{
        Content, Fragment, Frame, HEADROOM, Offload, Parsed, RewriteError,
        answer::{self, IcmpReason},
        decrement_ttl, parse, put_tags, raise_mtu, set_link, translate, translate_error,
    },
};

/// TCP resets a second, and at once: they end connections quickly that could only time out.
const RESETS: NonZeroU32 = NonZeroU32::MIN.saturating_add(10_000 - 1);
/// ICMP answers a second, and at once (Linux: icmp_msgs_per_sec = 1,000).
const ICMP_ANSWERS: NonZeroU32 = NonZeroU32::MIN.saturating_add(1_000 - 1);
/// Flows that one call of [`Path::expire`] looks at, about.
const EXPIRE_BUDGET: usize = 8_192;

/// The path of packets through one worker thread.
#[derive(Debug)]
pub struct Path<S = MemoryStore, C = ReasonCounters> {
    index: usize,
    router: Router<S>,
    random: SplitMix64,
    counters: Arc<C>,
    answers: Vec<Answer>,
    resets: Bucket,
    icmp_answers: Bucket,
    next_part: usize,
}

impl<S: FlowStore> Path<S> {
    /// The path of a worker. `worker` is also its shard in the snapshot's counters; `index` its number among the
    /// workers that share `flows`, from 0; `random` any number, another one for each worker.
    #[must_use]
    pub fn new(worker: WorkerId, index: usize, flows: Arc<Flows<S>>, random: u64) -> Self {
        Self::with_counters(worker, index, flows, random, Arc::default())
    }
}

impl<S: FlowStore, C: PacketCounters> Path<S, C> {
    /// As [`new`](Path::new), counting there.
    #[must_use]
    pub fn with_counters(
        worker: WorkerId,
        index: usize,
        flows: Arc<Flows<S>>,
        random: u64,
        counters: Arc<C>,
    ) -> Self {
        Self {
            index,
            router: Router {
                worker,
                flows,
                services: Arc::default(),
                ways: Ways::default(),
            },
            random: SplitMix64::new(random),
            counters,
            answers: Vec::new(),
            resets: Bucket::default(),
            icmp_answers: Bucket::default(),
            next_part: 0,
        }
    }

    /// Begins its random numbers anew: for tests that hold two data planes side by side.
    pub const fn reseed(&mut self, seed: u64) {
        self.random = SplitMix64::new(seed);
    }

    /// Applies newer services.
    pub fn set_services(&mut self, services: Arc<Services>) {
        self.router.services = services;
    }

    /// Applies newer next hops.
    // an Arc, because all workers are given the same
    #[expect(clippy::needless_pass_by_value, reason = "the workers share one picture")]
    pub fn set_hops(&mut self, hops: Arc<Hops>) {
        self.router.ways = Ways::new(&hops);
    }

    /// What this worker has counted. The engine counts there too what only it sees.
    #[must_use]
    pub fn counters(&self) -> Arc<C> {
        Arc::clone(&self.counters)
    }

    /// Forgets passthrough flows that somebody has seen, and counts those that were still there. Their next packets are of no
    /// flow: a client's is reset, or begins another one.
    pub fn forget(&mut self, seen: &[FlowInfo], now: Moment) -> u64 {
        let forgotten = seen.iter().filter(|flow| self.router.forget(flow, now));
        forgotten.count() as u64
    }

    /// Decides about a frame that came in by an interface, and rewrites it in place if it is to be forwarded.
    pub fn process(&mut self, frame: &mut Frame<'_>, ifindex: u32, now: Moment) -> Verdict {
        let verdict = match parse(frame.bytes()) {
            Err(malformed) => Verdict::Done(malformed.reason()),
            Ok(parsed) => {
                let offload = frame.offload;
                self.dispatch(
                    frame,
                    &Arrival {
                        parsed,
                        offload,
                        ifindex,
                        now,
                    },
                )
            }
        };
        match verdict {
            Verdict::Send { reason, .. } | Verdict::Done(reason) => self.counters.add(reason, 1),
            Verdict::Kept => {}
        }
        verdict
    }

    fn dispatch(&mut self, frame: &mut Frame<'_>, arrival: &Arrival) -> Verdict {
        if !arrival.parsed.is_unicast() {
            return Verdict::Done(PacketReason::NotOurs);
        }
        match arrival.parsed.fragment {
            None => {
                let decision = self.decide(arrival);
                self.carry_out(frame, arrival, decision)
            }
            Some(fragment) if fragment.is_first() => self.first_fragment(frame, arrival, &fragment),
            Some(fragment) => self.later_fragment(frame, arrival, &fragment),
        }
    }

    /// Where a packet with ports, or an ICMP error, goes.
    fn decide(&mut self, arrival: &Arrival) -> Result<Plan, DropReason> {
        match arrival.parsed.content {
            Content::Error(error) => self.router.route_error(arrival, &error),
            _ => self.router.route(arrival, &mut self.random),
        }
    }

    /// Sends a packet on as planned, or answers it.
    fn carry_out(
        &mut self,
        frame: &mut Frame<'_>,
        arrival: &Arrival,
        decision: Result<Plan, DropReason>,
    ) -> Verdict {
        match decision {
            Ok(plan) => match rewrite(frame, &arrival.parsed, &plan) {
                Ok(()) if arrival.exceeds(plan.mtu) => Verdict::Done(self.send_split(frame, &plan)),
                Ok(()) => Verdict::Send {
                    ifindex: plan.link.ifindex,
                    reason: plan.reason,
                },
                Err(unfit) => Verdict::Done(unfit.reason()),
            },
            Err(refusal) => Verdict::Done(self.answer(frame, arrival, refusal)),
        }
    }

    /// Sends a rewritten packet in fragments. Gives the reason to count.
    fn send_split(&mut self, frame: &mut Frame<'_>, plan: &Plan) -> PacketReason {
        let Some(fragments) = split(frame, plan.mtu) else {
            return PacketReason::TooBig;
        };
        let ifindex = plan.link.ifindex;
        (self.answers).extend(fragments.into_iter().map(|frame| Answer { ifindex, frame }));
        plan.reason
    }

    /// Answers a packet that is refused, if its reason asks for that. Gives the reason to count.
    fn answer(&mut self, frame: &Frame<'_>, arrival: &Arrival, refusal: DropReason) -> PacketReason {
        let reason = refusal.reason();
        let trouble = match reason {
            PacketReason::ResetNoFlow | PacketReason::ResetNoServer | PacketReason::ResetServerDown => None,
            PacketReason::UnreachableNoServer => Some(IcmpReason::PortUnreachable),
            PacketReason::TimeExceeded => Some(IcmpReason::TimeExceeded),
            PacketReason::TooBig => match refusal {
                DropReason::TooBig { mtu } => Some(IcmpReason::TooBig { mtu }),
                DropReason::For(_) => return reason,
            },
            _ => return reason,
        };
        let parsed = &arrival.parsed;
        let answer = match trouble {
            None => answer::reset(frame.bytes(), parsed),
            Some(trouble) => answer::icmp_error(
                frame.bytes(),
                parsed,
                &arrival.offload,
                parsed.destination,
                trouble,
            ),
        };
        let Some(answer) = answer else { return reason };
        let (bucket, rate) = if trouble.is_none() {
            (&mut self.resets, RESETS)
        } else {
            (&mut self.icmp_answers, ICMP_ANSWERS)
        };
        if !bucket.take(rate, arrival.now.0) {
            return PacketReason::AnswerLimited;
        }
        self.answers.push(Answer {
            ifindex: arrival.ifindex,
            frame: answer,
        });
        reason
    }

    fn first_fragment(&mut self, frame: &mut Frame<'_>, arrival: &Arrival, fragment: &Fragment) -> Verdict {
        let decision = self.decide(arrival);
        let is_none_of_ours = matches!(decision, Err(DropReason::For(PacketReason::NotOurs)));
        if is_none_of_ours && !self.may_wait(arrival) {
            return Verdict::Done(PacketReason::NotOurs);
        }
        // a first one that is too big is answered; the sender will send smaller ones
        let remembered = decision.clone().map_err(DropReason::reason);
        let datagram = datagram(&arrival.parsed, fragment);
        let early = (self.router.flows.fragments).decide(datagram, fragment, remembered.clone(), arrival.now);
        let (strangers, displaced) = (early.strangers as u64, early.displaced as u64);
        self.counters.add(PacketReason::BadFragment, strangers);
        self.counters.add(PacketReason::FragmentTableFull, displaced);
        let verdict = self.carry_out(frame, arrival, decision);
        for follower in early.followers {
            self.release(follower, &remembered, arrival.now);
        }
        verdict
    }

    /// Whether a fragment whose ports are not known may be ours.
    fn may_wait(&self, arrival: &Arrival) -> bool {
        let destination = arrival.parsed.destination;
        self.router.services.has_address(destination) || self.router.ways.is_local(destination)
    }

    fn later_fragment(&mut self, frame: &mut Frame<'_>, arrival: &Arrival, fragment: &Fragment) -> Verdict {
        let may_wait = self.may_wait(arrival);
        let datagram = datagram(&arrival.parsed, fragment);
        let table = &self.router.flows.fragments;
        let (follow, late) = table.follow(datagram, fragment, arrival.now, may_wait, || {
            let mut buffer = vec![0; HEADROOM];
            buffer.extend_from_slice(frame.bytes());
            Waiting {
                fragment: *fragment,
                buffer,
                ifindex: arrival.ifindex,
            }
        });
        if late > 0 {
            self.counters.add(PacketReason::FragmentTimeout, late as u64);
        }
        match follow {
            Follow::Kept => Verdict::Kept,
            Follow::Refused(reason) | Follow::Decided(Err(reason)) => Verdict::Done(reason),
            Follow::Decided(Ok(plan)) => {
                let decision = self.follow(arrival, plan);
                self.carry_out(frame, arrival, decision)
            }
        }
    }

    /// The plan of a datagram's first fragment for a later one.
    fn follow(&self, arrival: &Arrival, plan: Plan) -> Result<Plan, DropReason> {
        arrival.check(plan.mtu)?;
        if let Some(target) = &plan.counted {
            let bytes = arrival.parsed.ip_len();
            if plan.reason == PacketReason::ToClient {
                target.count_out(self.router.worker, bytes);
            } else {
                target.count_in(self.router.worker, bytes);
            }
        }
        Ok(plan)
    }

    /// Sends a fragment that has waited, as its first one was.
    fn release(&mut self, mut waiting: Waiting, decision: &Decision, now: Moment) {
        let len = waiting.buffer.len().saturating_sub(HEADROOM);
        let Some(mut frame) = Frame::new(&mut waiting.buffer, HEADROOM, len, Offload::default()) else {
            return;
        };
        let Ok(parsed) = parse(frame.bytes()) else { return };
        let arrival = Arrival {
            parsed,
            offload: Offload::default(),
            ifindex: waiting.ifindex,
            now,
        };
        let decision = match decision {
            Ok(plan) => self.follow(&arrival, plan.clone()),
            Err(reason) => Err(DropReason::For(*reason)),
        };
        let verdict = self.carry_out(&mut frame, &arrival, decision);
        match verdict {
            Verdict::Send { ifindex, reason } => {
                let frame = frame.bytes().to_vec();
                self.answers.push(Answer { ifindex, frame });
                self.counters.add(reason, 1);
            }
            Verdict::Done(reason) => self.counters.add(reason, 1),
            Verdict::Kept => {}
        }
    }

    /// Takes what is to be sent besides: to be called after each batch of frames.
    pub fn answers(&mut self) -> std::vec::Drain<'_, Answer> {
        self.answers.drain(..)
    }

    /// Forgets what has expired in this worker's part of the tables, a bounded number at a time. To be called about
    /// every 100 ms.
    pub fn expire(&mut self, now: Moment) {
        let flows = Arc::clone(&self.router.flows);
        let visitor = Visitor {
            now,
            worker: self.router.worker,
        };
        let parts = flows.store.parts();
        let workers = flows.workers.max(1);
        let mut looked_at = 0;
        for _ in 0..parts.div_ceil(workers) {
            let part = self.next_part * workers + self.index;
            self.next_part += 1;
            if part < parts {
                looked_at += flows.store.sweep(part, visitor);
            } else {
                self.next_part = 0;
            }
            if looked_at >= EXPIRE_BUDGET {
                break;
            }
        }
        if self.index == 0 {
            let lost = flows.fragments.sweep(now) as u64;
            if lost > 0 {
                self.counters.add(PacketReason::FragmentTimeout, lost);
            }
        }
    }
}

fn datagram(parsed: &Parsed, fragment: &Fragment) -> Datagram {
    Datagram {
        source: parsed.source,
        destination: parsed.destination,
        id: fragment.id,
        protocol: fragment.protocol,
    }
}

/// Rewrites a frame as planned.
fn rewrite(frame: &mut Frame<'_>, parsed: &Parsed, plan: &Plan) -> Result<(), RewriteError> {
    match &plan.to {
        Rewrite::Nothing { least_mtu } => raise(frame, parsed, *least_mtu)?,
        Rewrite::Packet(to) => translate(frame, parsed, to)?,
        Rewrite::Error {
            source,
            destination,
            least_mtu,
            quoted,
        } => {
            translate_error(frame, parsed, *source, *destination, quoted)?;
            raise(frame, parsed, *least_mtu)?;
        }
    }
    decrement_ttl(frame, parsed)?;
    if plan.tags != parsed.tags {
        put_tags(frame, &mut parsed.clone(), &plan.tags)?;
    }
    set_link(frame, &plan.link);
    Ok(())
}

/// Raises the MTU that an ICMP error tells, if it may not be as small as it is.
fn raise(frame: &mut Frame<'_>, parsed: &Parsed, least_mtu: Option<u32>) -> Result<(), RewriteError> {
    least_mtu.map_or(Ok(()), |least| raise_mtu(frame, parsed, least))
}
