//! Checks of servers that are not in effect yet: a reload waits for what they find.

use std::collections::HashMap;

use super::{HealthUpdate, Task};
use crate::{
    base::{ServerAddr, ServerKey, ServerState},
    snapshot::Health,
};

/// The running checks of such servers. Dropping it ends those that nobody has taken over.
#[derive(Debug, Default)]
pub struct Trial(HashMap<ServerKey, Tried>);

#[derive(Debug)]
struct Tried {
    task: Task,
    health: Health,
    /// Whether a check has found something.
    has_news: bool,
}

impl Trial {
    pub(super) fn add(&mut self, key: ServerKey, task: Task, health: Health) {
        let has_news = false;
        self.0.insert(
            key,
            Tried {
                task,
                health,
                has_news,
            },
        );
    }

    pub(super) fn take(&mut self, key: &ServerKey, addr: ServerAddr) -> Option<(Task, Health)> {
        let tried = self.0.remove(key).filter(|tried| tried.task.addr == addr)?;
        Some((tried.task, tried.health))
    }

    /// Takes an update if it is about one of its servers: the state before it.
    pub fn note(&mut self, update: &HealthUpdate) -> Option<ServerState> {
        let tried = self.0.get_mut(&update.key)?;
        if tried.task.id != update.task {
            return None;
        }
        tried.has_news = true;
        let before = std::mem::replace(&mut tried.health, update.health.clone());
        Some(before.state)
    }

    /// What is known of a server that is tried out.
    #[must_use]
    pub fn health(&self, key: &ServerKey) -> Option<&Health> {
        self.0.get(key).map(|tried| &tried.health)
    }

    /// The task of one of its servers.
    #[cfg(test)]
    pub(crate) fn task(&self, key: &ServerKey) -> Option<super::TaskId> {
        self.0.get(key).map(|tried| tried.task.id)
    }

    /// What checks have found.
    pub fn findings(&self) -> impl Iterator<Item = (&ServerKey, ServerAddr, &Health)> {
        let found = (self.0.iter())
            .filter(|(_, tried)| tried.has_news && tried.health.state != ServerState::Checking);
        found.map(|(key, tried)| (key, tried.task.addr, &tried.health))
    }
}
