//! What differs between a backend before and after, as events.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    base::{BackendName, ChangeEvent, ServerAddr, ServerName, ServerState},
    snapshot::{BackendView, ServerView},
};

/// Something that has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What.
    pub event: ChangeEvent,
    /// To which backend, or whose server.
    pub backend: BackendName,
    /// To which server.
    pub server: Option<(ServerName, ServerAddr)>,
    /// Why, for people.
    pub reason: Option<Arc<str>>,
}

/// The events between two views of one backend; `None`: it was not there.
pub fn between(before: Option<&BackendView>, after: Option<&BackendView>) -> Vec<Event> {
    let of = |view: &BackendView, event| Event {
        event,
        backend: view.config.name.clone(),
        server: None,
        reason: None,
    };
    match (before, after) {
        (None, None) => Vec::new(),
        (Some(before), None) => vec![of(before, ChangeEvent::BackendRemoved)],
        (None, Some(after)) => {
            let is_down = is_known(after) && after.counts.eligible == 0;
            let down = is_down.then(|| of(after, ChangeEvent::BackendDown));
            [of(after, ChangeEvent::BackendAdded)]
                .into_iter()
                .chain(down)
                .collect()
        }
        (Some(before), Some(after)) => {
            let mut events = servers(before, after);
            match (is_known(before), before.counts.eligible, after.counts.eligible) {
                (true, 0, 1..) => events.push(of(after, ChangeEvent::BackendUp)),
                (_, 1.., 0) => events.push(of(after, ChangeEvent::BackendDown)),
                (false, 0, 0) if is_known(after) => events.push(of(after, ChangeEvent::BackendDown)),
                _ => {}
            }
            events
        }
    }
}

/// Whether the first checks have found anything out.
fn is_known(view: &BackendView) -> bool {
    view.servers.is_empty()
        || view
            .servers
            .iter()
            .any(|server| server.state != ServerState::Checking)
}

fn servers(before: &BackendView, after: &BackendView) -> Vec<Event> {
    let name = &after.config.name;
    let was: BTreeMap<&ServerName, &ServerView> = before.servers.iter().map(|s| (&s.name, s)).collect();
    let mut events = Vec::new();
    for server in &before.servers {
        // at another address it is another server
        if after
            .server(server.name.as_str())
            .is_none_or(|now| now.addr != server.addr)
        {
            events.push(of_server(name, server, ChangeEvent::ServerRemoved));
        }
    }
    for server in &after.servers {
        match was.get(&server.name).filter(|was| was.addr == server.addr) {
            None => events.push(of_server(name, server, ChangeEvent::ServerAdded)),
            Some(was) => {
                let event = of_state(was.state, server.state);
                events.extend(event.map(|event| of_server(name, server, event)));
            }
        }
    }
    events
}

fn of_server(backend: &BackendName, server: &ServerView, event: ChangeEvent) -> Event {
    let is_down = event == ChangeEvent::ServerDown;
    Event {
        event,
        backend: backend.clone(),
        server: Some((server.name.clone(), server.addr)),
        reason: server.state_reason.clone().filter(|_| is_down),
    }
}

/// What a change of state is called. That a server's first check has passed is no news.
fn of_state(before: ServerState, after: ServerState) -> Option<ChangeEvent> {
    match (before, after) {
        (before, after) if before == after => None,
        (ServerState::Checking, ServerState::Up) | (_, ServerState::Checking) => None,
        (_, ServerState::Up) => Some(ChangeEvent::ServerUp),
        (_, ServerState::Down) => Some(ChangeEvent::ServerDown),
        (_, ServerState::Draining) => Some(ChangeEvent::ServerDraining),
        (_, ServerState::Maintenance) => Some(ChangeEvent::ServerMaintenance),
    }
}
