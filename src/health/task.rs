//! The task that watches one server.

use std::{future::pending, pin::Pin, sync::Arc, time::Instant};

use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::sleep_until,
};

use super::{
    ConnectsFailed, HealthUpdate, Orders, TaskId,
    connect::{self, CheckSockets},
    exec,
    machine::{CheckResult, Machine},
    probe::Dialogue,
};
use crate::{
    balance::hash::SplitMix64,
    base::{ServerAddr, ServerKey},
    client::runner::Runner,
    config,
    snapshot::Health,
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
    pub sockets: Option<Arc<dyn CheckSockets>>,
    pub runner: Option<Runner>,
    pub random: SplitMix64,
}

/// A check under way.
type Check = Pin<Box<dyn Future<Output = CheckResult> + Send>>;

impl Watcher {
    /// Checks until the checker drops its end or nobody takes the updates.
    pub(super) async fn run(mut self, first_check: Instant) {
        let mut running: Option<Check> = None;
        let mut started = first_check;
        let mut next_check = self.wants_checks().then_some(first_check);
        loop {
            let before = self.machine.health().clone();
            let timer = if running.is_some() {
                self.machine.wake_at()
            } else {
                [next_check, self.machine.wake_at()].into_iter().flatten().min()
            };
            let mut is_result = false;
            tokio::select! {
                biased;
                changed = self.orders.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let settings = self.orders.borrow_and_update().settings.clone();
                    let had_check = next_check.is_some();
                    self.machine.reconfigure(settings, Instant::now());
                    // a check is never put off by a change, or many reloads in a row would put it off for ever
                    next_check = match self.after(Instant::now()) {
                        Some(next) if had_check => next_check.map(|planned| planned.min(next)),
                        Some(_) => Some(Instant::now()),
                        None => None,
                    };
                    if next_check.is_none() {
                        running = None;
                        is_result = true;
                    }
                }
                tls = self.connects_failed.next() => self.machine.connects_failed(tls, Instant::now()),
                result = poll_check(&mut running) => {
                    running = None;
                    is_result = true;
                    self.machine.checked(result, Instant::now());
                    next_check = self.after(started);
                }
                () = until(timer) => {
                    let now = Instant::now();
                    self.machine.time_passed(now);
                    if running.is_none() && next_check.is_some_and(|next| next <= now) {
                        started = now;
                        running = self.new_check();
                    }
                }
            }
            if self.report(&before).await.is_err() {
                return;
            }
            if is_result {
                self.had_result
                    .send_if_modified(|had| !std::mem::replace(had, true));
            }
        }
    }

    fn wants_checks(&self) -> bool {
        self.orders.borrow().settings.check.is_some()
    }

    /// The next check of the present orders; `None` if they want none.
    fn new_check(&mut self) -> Option<Check> {
        let orders = self.orders.borrow();
        let settings = orders.settings.check.as_ref()?;
        let limit = settings.timeout;
        let addr = self.addr.at_port(settings.port);
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
            connect::check(addr, way, dialogue, sockets.as_deref(), limit).await
        }))
    }

    /// When the check after one that was started at `started` is due.
    fn after(&mut self, started: Instant) -> Option<Instant> {
        let random = self.random.next_u64();
        let pause = self.machine.next_check(random)?;
        Some((started + pause).max(Instant::now()))
    }

    async fn report(&self, before: &Health) -> Result<(), mpsc::error::SendError<HealthUpdate>> {
        let health = self.machine.health();
        if health == before {
            return Ok(());
        }
        let update = HealthUpdate {
            key: self.key.clone(),
            addr: self.addr,
            task: self.id,
            health: health.clone(),
            changed: health.state != before.state,
        };
        self.updates.send(update).await
    }
}

async fn poll_check(running: &mut Option<Check>) -> CheckResult {
    match running {
        Some(check) => check.await,
        None => pending().await,
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time.into()).await,
        None => pending().await,
    }
}
