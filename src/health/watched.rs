//! How a server is watched, and what is remembered of one that is not.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::{ConnectsFailed, Orders, TaskId, agent::Agent};
use crate::base::ServerAddr;

/// How a server is watched.
#[derive(Debug)]
pub(super) enum Watched {
    By(Task),
    /// In maintenance, not at all: with what its agent said last.
    Not(Option<LastWords>),
}

/// The checker's end of a server's task, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct Task {
    pub id: TaskId,
    pub addr: ServerAddr,
    pub orders: watch::Sender<Orders>,
    pub connects_failed: Arc<ConnectsFailed>,
    pub had_result: watch::Receiver<bool>,
    pub said: Said,
}

/// What an agent said last, as the task that asks it leaves it for whoever comes after it.
#[derive(Debug, Clone, Default)]
pub(super) struct Said(Arc<Mutex<Agent>>);

/// What an agent said last, and where it was asked.
#[derive(Debug)]
pub(super) struct LastWords {
    asked: ServerAddr,
    agent: Agent,
}

impl Watched {
    /// The task, if there is one.
    pub const fn task(&self) -> Option<&Task> {
        match self {
            Self::By(task) => Some(task),
            Self::Not(_) => None,
        }
    }

    /// The same when it is watched no longer.
    pub fn not(self) -> Self {
        Self::Not(match self {
            Self::By(task) => {
                let asked = task.orders.borrow().agent.as_ref().map(|(asked, _)| *asked);
                let agent = task.said.get();
                asked.map(|asked| LastWords { asked, agent })
            }
            Self::Not(words) => words,
        })
    }

    /// What the agent that these orders are about has said; nothing if it is another than before.
    pub fn agent(&self, orders: &Orders) -> Agent {
        let asked = orders.agent.as_ref().map(|(asked, _)| *asked);
        match self {
            Self::Not(Some(words)) if asked == Some(words.asked) => words.agent.clone(),
            Self::Not(_) | Self::By(_) => Agent::default(),
        }
    }
}

impl Task {
    /// Tells it what to do from now on.
    pub fn order(&self, orders: Orders) {
        self.orders.send_if_modified(|old| {
            let is_new = *old != orders;
            *old = orders;
            is_new
        });
    }
}

impl Said {
    /// Takes what it has said.
    pub fn set(&self, agent: &Agent) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone_from(agent);
    }

    fn get(&self) -> Agent {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
