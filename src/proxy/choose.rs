//! Choosing a server for a connection: the backend's algorithm among the servers that have room, and the queue for
//! those who find none.

use std::{
    cell::RefCell,
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    pin::pin,
    sync::Arc,
    time::Instant,
};

use tokio::time::timeout_at;

use super::Shared;
use crate::{
    balance::{Pick, PickState, hash::SplitMix64},
    base::{BackendName, ClientAddr, FrontendName, ListenAddr, TerminationReason},
    snapshot::{BackendView, ServerView, live::Slots},
};

/// Backends whose rounds a thread remembers; those of removed backends are forgotten with the rest when it is full.
const MAX_ROUNDS: usize = 4_096;

thread_local! {
    /// This thread's place in each backend's round, with the balancer generation that it belongs to.
    static ROUNDS: RefCell<HashMap<BackendName, (u64, PickState)>> = RefCell::default();
    /// This thread's random numbers for balancing; nothing secret hangs on them.
    static RANDOM: RefCell<SplitMix64> = RefCell::new(SplitMix64::new(RandomState::new().hash_one(0_u8)));
}

/// A server that was chosen, with a connection slot on it that is given back on drop.
#[derive(Debug)]
pub struct Chosen {
    /// The backend as it was at the choice.
    pub backend: Arc<BackendView>,
    /// Index of the server in it.
    pub index: usize,
}

impl Chosen {
    /// The server.
    #[must_use]
    pub fn server(&self) -> &ServerView {
        &self.backend.servers[self.index]
    }
}

impl Drop for Chosen {
    fn drop(&mut self) {
        self.server().live.slots.release();
        if self.backend.live.queue.used() > 0 {
            self.backend.live.server_freed.notify_one();
        }
    }
}

/// Who wants a server.
#[derive(Debug, Clone, Copy)]
pub struct Flow {
    /// The client.
    pub client: ClientAddr,
    /// The address that it connected to.
    pub listen: ListenAddr,
}

/// Why no server was chosen at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nothing {
    /// None is up, or all were tried.
    NoneUp,
    /// Those that are up have no room.
    AllFull,
}

/// Chooses a server that is not in `tried`; waits in the backend's queue while all have as many connections as they
/// may. The backend is looked up anew after each wait, for a reload may have changed it.
///
/// # Errors
/// The reason with which the connection ends.
pub async fn choose(
    shared: &Shared,
    frontend: &FrontendName,
    backend: &Arc<BackendView>,
    flow: Flow,
    tried: &[String],
) -> Result<Chosen, TerminationReason> {
    match try_choose(backend, flow, tried) {
        Ok(chosen) => Ok(chosen),
        Err(Nothing::NoneUp) => Err(TerminationReason::NoServer),
        Err(Nothing::AllFull) => wait_for_room(shared, frontend, backend, flow, tried).await,
    }
}

async fn wait_for_room(
    shared: &Shared,
    frontend: &FrontendName,
    backend: &Arc<BackendView>,
    flow: Flow,
    tried: &[String],
) -> Result<Chosen, TerminationReason> {
    if !backend.live.queue.try_take(Some(backend.config.max_queue)) {
        return Err(TerminationReason::QueueFull);
    }
    let _place = QueuePlace(&backend.live.queue);
    let deadline = tokio::time::Instant::from_std(Instant::now() + backend.config.queue_timeout);
    loop {
        let current = current_backend(shared, frontend, backend);
        let mut freed = pin!(current.live.server_freed.notified());
        // registered before looking, or a slot freed in between would go unnoticed
        freed.as_mut().enable();
        if !Arc::ptr_eq(&current, &current_backend(shared, frontend, backend)) {
            continue;
        }
        match try_choose(&current, flow, tried) {
            Ok(chosen) => return Ok(chosen),
            Err(Nothing::NoneUp) => return Err(TerminationReason::NoServer),
            Err(Nothing::AllFull) => {}
        }
        if timeout_at(deadline, freed).await.is_err() {
            return Err(TerminationReason::QueueTimeout);
        }
    }
}

/// The backend that a frontend sends to now; the one it had when it is gone.
fn current_backend(shared: &Shared, frontend: &FrontendName, had: &Arc<BackendView>) -> Arc<BackendView> {
    let snapshot = shared.snapshot.load();
    let view = snapshot.frontends.get(frontend).map_or(had, |view| &view.backend);
    Arc::clone(view)
}

struct QueuePlace<'a>(&'a Slots);

impl Drop for QueuePlace<'_> {
    fn drop(&mut self) {
        self.0.release();
    }
}

fn try_choose(backend: &Arc<BackendView>, flow: Flow, tried: &[String]) -> Result<Chosen, Nothing> {
    let servers = &backend.servers;
    let untried = |i: usize| tried.is_empty() || !tried.iter().any(|t| t == servers[i].name.as_str());
    let has_room = |i: usize| {
        servers[i]
            .max_connections
            .is_none_or(|limit| servers[i].live.slots.used() < limit)
    };
    let usable = |i: usize| untried(i) && has_room(i);
    let load = |i: usize| servers[i].live.slots.used();
    // another thread may take the last slot between the choice and the claim: then choose again
    for _ in 0..=servers.len() {
        let pick = Pick {
            client_hash: backend.balancer.client_hash(flow.client.0.ip()),
            flow_hash: backend.balancer.flow_hash(flow.client.0, flow.listen.0),
            random: random(),
            load: &load,
            usable: &usable,
        };
        let Some(index) = with_round(backend, |state| backend.balancer.pick(state, &pick)) else {
            break;
        };
        if servers[index].live.slots.try_take(servers[index].max_connections) {
            return Ok(Chosen {
                backend: Arc::clone(backend),
                index,
            });
        }
    }
    let any_up = (0..servers.len()).any(|i| servers[i].effective_weight > 0 && untried(i));
    Err(if any_up { Nothing::AllFull } else { Nothing::NoneUp })
}

/// Whether a server that is up was not tried yet.
#[must_use]
pub fn another_is_up(backend: &BackendView, tried: &[String]) -> bool {
    backend
        .servers
        .iter()
        .any(|s| s.effective_weight > 0 && !tried.iter().any(|t| t == s.name.as_str()))
}

fn with_round<R>(backend: &BackendView, choose: impl FnOnce(&mut PickState) -> R) -> R {
    ROUNDS.with_borrow_mut(|rounds| {
        if !rounds.contains_key(backend.config.name.as_str()) {
            if rounds.len() >= MAX_ROUNDS {
                rounds.clear();
            }
            rounds.insert(
                backend.config.name.clone(),
                (backend.balancer_generation, PickState::seeded(random())),
            );
        }
        match rounds.get_mut(backend.config.name.as_str()) {
            Some((generation, state)) => {
                if *generation != backend.balancer_generation {
                    *generation = backend.balancer_generation;
                    *state = PickState::seeded(random());
                }
                choose(state)
            }
            None => choose(&mut PickState::seeded(random())),
        }
    })
}

fn random() -> u64 {
    RANDOM.with_borrow_mut(SplitMix64::next_u64)
}
