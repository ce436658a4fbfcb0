//! The task that watches one server.

use std::{
    future::pending,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::sleep_until,
};

use super::{
    ConnectsFailed, HealthUpdate, Orders, TaskId,
    agent::Agent,
    ask,
    connect::{self, CheckSockets},
    exec,
    machine::{CheckResult, Machine, with_jitter},
    probe::Dialogue,
    share::{Made, Share, Shares, Turn},
    watched::Said,
};
use crate::{
    balance::hash::{SplitMix64, below},
    base::{CheckOutcome, ServerAddr, ServerKey},
    client::runner::Runner,
    config,
    snapshot::{CheckRecord, Health},
};

/// Everything that one task owns.
pub(super) struct Watcher {
    pub key: ServerKey,
    pub addr: ServerAddr,
    pub id: TaskId,
    pub machine: Machine,
    pub orders: watch::Receiver<Orders>,
    pub connects_failed: Arc<ConnectsFailed>,
    pub had_result: watch::Sender<bool>,
    pub updates: mpsc::Sender<HealthUpdate>,
    pub connects: Arc<Semaphore>,
    pub questions: Arc<Semaphore>,
    pub sockets: Option<Arc<dyn CheckSockets>>,
    pub runner: Option<Runner>,
    pub shares: Arc<Shares>,
    pub agent: Agent,
    pub said: Said,
    pub random: SplitMix64,
}

/// A check under way, and the right to make it where several servers wait for its result.
struct Running {
    check: Pin<Box<dyn Future<Output = CheckResult> + Send>>,
    started: Instant,
    turn: Option<Turn>,
}

/// A question to the agent under way.
type Question = Pin<Box<dyn Future<Output = Result<Vec<u8>, String>> + Send>>;

/// What a task has under way, and what comes next.
struct Plan {
    running: Option<Running>,
    next_check: Option<Instant>,
    /// Its part in a check that is made for several servers.
    share: Option<Share>,
    asking: Option<Question>,
    next_question: Option<Instant>,
    /// Whether a first check has had its result, and a first question its answer, where there are such.
    is_checked: bool,
    is_asked: bool,
    /// Whether its checks are at a time of their own.
    is_spread: bool,
}

/// Time that another has for a check beyond its time-out before this server makes it.
const SHARE_GRACE: Duration = Duration::from_millis(500);

impl Watcher {
    /// Checks until the checker drops its end or nobody takes the updates.
    pub(super) async fn run(mut self, first_check: Instant) {
        let mut plan = Plan {
            running: None,
            next_check: self.wants_checks().then_some(first_check),
            share: self.join(),
            asking: None,
            next_question: self.asks_agent().then_some(first_check),
            is_checked: !self.wants_checks(),
            is_asked: !self.asks_agent(),
            is_spread: false,
        };
        let mut reported = self.agent.over(self.machine.health());
        loop {
            let timer = self.timer(&plan);
            tokio::select! {
                biased;
                changed = self.orders.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.take_orders(&mut plan);
                }
                tls = self.connects_failed.next() => self.machine.connects_failed(tls, Instant::now()),
                made = next_result(&mut plan.running) => {
                    let turn = plan.running.take().and_then(|running| running.turn);
                    match turn {
                        Some(turn) => turn.done(made),
                        None => self.take_result(made, &mut plan),
                    }
                }
                made = next_shared(&mut plan.share) => self.take_result(made, &mut plan),
                answer = next_answer(&mut plan.asking) => {
                    (plan.asking, plan.is_asked) = (None, true);
                    match answer {
                        Ok(answer) => self.agent.heard(&answer, Instant::now()),
                        Err(why) => self.agent.failed(&why),
                    }
                    self.said.set(&self.agent);
                }
                () = until(timer) => self.begin_what_is_due(&mut plan, Instant::now()),
            }
            if self.report(&mut reported).await.is_err() {
                return;
            }
            if plan.is_checked && plan.is_asked {
                self.had_result
                    .send_if_modified(|had| !std::mem::replace(had, true));
            }
        }
    }

    fn wants_checks(&self) -> bool {
        self.orders.borrow().settings.check.is_some()
    }

    fn asks_agent(&self) -> bool {
        self.orders.borrow().agent.is_some()
    }

    fn join(&self) -> Option<Share> {
        let terms = self.orders.borrow().shared()?;
        Some(self.shares.join(terms))
    }

    /// When something is due.
    fn timer(&self, plan: &Plan) -> Option<Instant> {
        let check = plan.next_check.filter(|_| plan.running.is_none());
        let question = plan.next_question.filter(|_| plan.asking.is_none());
        [check, question, self.machine.wake_at()]
            .into_iter()
            .flatten()
            .min()
    }

    fn take_orders(&mut self, plan: &mut Plan) {
        let orders = self.orders.borrow_and_update().clone();
        let now = Instant::now();
        let had_check = plan.next_check.is_some();
        self.machine.reconfigure(orders.settings.clone(), now);
        // a check is never put off by a change, or many reloads in a row would put it off for ever
        plan.next_check = match self.after(now) {
            Some(next) if had_check => plan.next_check.map(|planned| planned.min(next)),
            Some(_) => Some(now),
            None => None,
        };
        let terms = orders.shared();
        if plan.share.as_ref().map(Share::terms) != terms.as_ref() {
            plan.share = terms.map(|terms| self.shares.join(terms));
            // its result would go to those that it was made for
            if plan
                .running
                .as_ref()
                .is_some_and(|running| running.turn.is_some())
            {
                plan.running = None;
                plan.next_check = plan.next_check.map(|_| now);
            }
        }
        match (&orders.agent, plan.next_question) {
            (None, _) => {
                self.agent = Agent::default();
                self.said.set(&self.agent);
                (plan.asking, plan.next_question, plan.is_asked) = (None, None, true);
            }
            (Some(_), None) => plan.next_question = Some(now),
            (Some((_, agent)), Some(next)) => plan.next_question = Some(next.min(now + agent.interval)),
        }
        if plan.next_check.is_none() {
            (plan.running, plan.is_checked) = (None, true);
        }
    }

    fn take_result(&mut self, made: Made, plan: &mut Plan) {
        plan.is_checked = true;
        let (outcome, reason) = match &made.result {
            CheckResult::Passed => (CheckOutcome::Passed, None),
            CheckResult::Failed(why) => (CheckOutcome::Failed, Some(Arc::clone(why))),
            CheckResult::NotMade(why) => (CheckOutcome::NotMade, Some(Arc::clone(why))),
        };
        self.machine.health().checks.add(CheckRecord {
            at: SystemTime::now() - made.took,
            took: made.took,
            outcome,
            reason,
        });
        self.machine.checked(made.result, Instant::now());
        plan.next_check = match std::mem::replace(&mut plan.is_spread, true) {
            true => self.after(made.started),
            false => self.within_an_interval(Instant::now()),
        };
    }

    fn begin_what_is_due(&mut self, plan: &mut Plan, now: Instant) {
        self.machine.time_passed(now);
        if plan.running.is_none() && plan.next_check.is_some_and(|next| next <= now) {
            match plan.share.as_ref().map(Share::turn) {
                // another makes it, and its result comes
                Some(None) => plan.next_check = self.timeout().map(|timeout| now + timeout + SHARE_GRACE),
                turn => {
                    plan.running = self.new_check().map(|check| Running {
                        check,
                        started: now,
                        turn: turn.flatten(),
                    });
                }
            }
        }
        if plan.asking.is_none() && plan.next_question.is_some_and(|next| next <= now) {
            let random = self.random.next_u64();
            let orders = self.orders.borrow();
            let agent = orders.agent.as_ref();
            plan.next_question = agent.map(|(_, agent)| now + with_jitter(agent.interval, random));
            plan.asking = agent.map(|(addr, agent)| self.question(*addr, orders.agent_way(), agent.clone()));
        }
    }

    fn timeout(&self) -> Option<Duration> {
        let orders = self.orders.borrow();
        orders.settings.check.as_ref().map(|check| check.timeout)
    }

    /// The next check of the present orders; `None` if they want none.
    fn new_check(&mut self) -> Option<Pin<Box<dyn Future<Output = CheckResult> + Send>>> {
        let orders = self.orders.borrow();
        let settings = orders.settings.check.as_ref()?;
        let limit = settings.timeout;
        let addr = orders.target;
        let dialogue = Dialogue::of(&settings.check, addr, self.random.next_u64());
        if let config::Check::Exec(exec) = &settings.check {
            // the runner bounds how many run at once
            return Some(Box::pin(exec::check(addr, exec.clone(), self.runner.clone())));
        }
        let way = orders.way.clone();
        let (connects, sockets) = (Arc::clone(&self.connects), self.sockets.clone());
        Some(Box::pin(async move {
            // never closed
            let _turn = connects.acquire().await;
            // room for it is taken when its turn has come: thousands may wait
            Box::pin(connect::check(addr, way, dialogue, sockets.as_deref(), limit)).await
        }))
    }

    fn question(&self, addr: ServerAddr, way: connect::Way, agent: config::AgentCheck) -> Question {
        let (questions, sockets) = (Arc::clone(&self.questions), self.sockets.clone());
        Box::pin(async move {
            // never closed
            let _turn = questions.acquire().await;
            Box::pin(ask::ask(addr, way, agent, sockets.as_deref())).await
        })
    }

    /// When the check after one that was started at `started` is due.
    fn after(&mut self, started: Instant) -> Option<Instant> {
        let random = self.random.next_u64();
        let pause = self.machine.next_check(random)?;
        Some((started + pause).max(Instant::now()))
    }

    /// When the second check is due: the first of all servers come together, at the start, and the others spread over the
    /// interval.
    fn within_an_interval(&mut self, now: Instant) -> Option<Instant> {
        let pause = self.machine.next_check(self.random.next_u64())?;
        let nanoseconds = u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX);
        Some(now + Duration::from_nanos(below(self.random.next_u64(), nanoseconds)))
    }

    /// Tells what is not as it was reported last.
    async fn report(&self, reported: &mut Health) -> Result<(), mpsc::error::SendError<HealthUpdate>> {
        let health = self.agent.over(self.machine.health());
        if health == *reported {
            return Ok(());
        }
        let before = std::mem::replace(reported, health.clone());
        let update = HealthUpdate {
            key: self.key.clone(),
            addr: self.addr,
            task: self.id,
            changed: health.state != before.state,
            health,
        };
        self.updates.send(update).await
    }
}

async fn next_result(running: &mut Option<Running>) -> Made {
    match running {
        Some(running) => {
            let result = (&mut running.check).await;
            Made {
                result,
                started: running.started,
                took: running.started.elapsed(),
            }
        }
        None => pending().await,
    }
}

async fn next_shared(share: &mut Option<Share>) -> Made {
    match share {
        Some(share) => share.next().await,
        None => pending().await,
    }
}

async fn next_answer(asking: &mut Option<Question>) -> Result<Vec<u8>, String> {
    match asking {
        Some(asking) => asking.await,
        None => pending().await,
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time.into()).await,
        None => pending().await,
    }
}
