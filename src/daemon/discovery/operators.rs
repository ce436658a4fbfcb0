//! Servers that operators add and remove at run time, where a backend's source is the admin API.

use std::{sync::Arc, time::Instant};

use axum::http::StatusCode;

use super::{Control, state::judge};
use crate::{
    admin::{
        lookup,
        views::{AddedServer, NewServer, Problem},
    },
    base::{BackendName, ServerKey},
    config::Server,
    discovery::{
        Reply,
        answer::{self, Answer, Wanted},
    },
    sys::interfaces,
};

impl Control {
    /// Adds a server; one of the same name is another afterwards.
    ///
    /// # Errors
    /// There is no such backend, its servers are not named by operators, or it may not have this one.
    pub(in crate::daemon) fn add_server(
        &mut self,
        backend: &str,
        server: &NewServer,
        by: &str,
    ) -> Result<AddedServer, Problem> {
        let (name, mut servers) = self.of_operators(backend)?;
        let wanted = Wanted {
            name: server.name.as_deref(),
            addr: &server.addr,
            weight: server.weight.map(Into::into),
            priority: server.priority.map(Into::into),
            max_connections: server.max_connections.map(Into::into),
            sni: server.sni.as_deref(),
        };
        let new = answer::of_wanted(&wanted)
            .map_err(|error| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()))?;
        let (named, addr) = (new.name.clone(), new.addr);
        if self.is_of_file(&name, &new) {
            return Err(conflict(format!(
                "server {name}/{named} or its address is in the configuration file already"
            )));
        }
        if let Some(other) = servers
            .iter()
            .find(|other| other.addr == new.addr && other.name != new.name)
        {
            return Err(conflict(format!("server {name}/{} has that address", other.name)));
        }
        servers.retain(|other| other.name != new.name);
        let rules = self.state.config().server_rules(backend);
        let most = rules.map_or(0, |rules| rules.max_servers());
        if servers.len() >= most {
            return Err(Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                format!(
                    "backend {name} has {} added servers, as many as it may (max_servers)",
                    servers.len()
                ),
            ));
        }
        if lookup::find_server(self.state.snapshot(), backend, named.as_str()).is_err() {
            self.state.forget_absent_override(&ServerKey {
                backend: name.clone(),
                server: named.clone(),
            });
        }
        servers.push(new);
        servers.sort_by(|a, b| a.name.cmp(&b.name));
        let pending = self.answer_for(&name, servers)?;
        tracing::info!(
            event = "server_added",
            backend = %name,
            server = %named,
            by,
            "operator: server {name}/{named} ({}) is added",
            addr
        );
        Ok(AddedServer {
            backend: name,
            server: named,
            pending,
        })
    }

    /// Removes a server that was added so; its connections go on.
    ///
    /// # Errors
    /// There is no such backend or server, or it was not added so.
    pub(in crate::daemon) fn remove_server(
        &mut self,
        backend: &str,
        server: &str,
        by: &str,
    ) -> Result<AddedServer, Problem> {
        let (name, mut servers) = self.of_operators(backend)?;
        let Some(at) = servers.iter().position(|added| added.name.as_str() == server) else {
            lookup::find_server(self.state.snapshot(), backend, server)?;
            return Err(conflict(format!(
                "server {name}/{server} is one of the configuration file: remove it there"
            )));
        };
        let removed = servers.remove(at).name;
        let pending = self.answer_for(&name, servers)?;
        tracing::info!(
            event = "server_removed",
            backend = %name,
            server = %removed,
            by,
            "operator: server {name}/{removed} is removed"
        );
        Ok(AddedServer {
            backend: name,
            server: removed,
            pending,
        })
    }

    /// A backend whose servers operators name, and those that they have named.
    fn of_operators(&self, backend: &str) -> Result<(BackendName, Vec<Server>), Problem> {
        let view = lookup::find_backend(self.state.snapshot(), backend)?;
        let name = view.config.name.clone();
        let settings = view.config.discovery.as_ref();
        if settings.is_none_or(|settings| settings.source.is_asked()) {
            return Err(conflict(format!(
                "backend {name} takes no servers at run time: give it [backends.{name}.discovery] kind = \"api\", and reload"
            )));
        }
        if !self.reload.is_idle() || self.discovery.arming.is_some() {
            return Err(Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "a reload or another change is under way: try again",
            ));
        }
        let servers = self.state.pools().discovered(backend);
        Ok((name, servers.map(|servers| servers.to_vec()).unwrap_or_default()))
    }

    fn is_of_file(&self, backend: &BackendName, server: &Server) -> bool {
        let of_file = self.state.config().backends.get(backend);
        of_file.is_some_and(|backend| {
            let mut servers = backend.servers.values();
            servers.any(|other| other.name == server.name || other.addr == server.addr)
        })
    }

    /// Puts the servers of a backend in effect as if a source had named them; whether that takes a moment.
    fn answer_for(&mut self, backend: &BackendName, servers: Vec<Server>) -> Result<bool, Problem> {
        let reply = Reply {
            result: Ok(Answer {
                servers,
                ..Answer::default()
            }),
            ttl: None,
            host: Arc::new(interfaces::own_addresses()),
            at: Instant::now(),
        };
        let before = self.state.pools().discovered(backend.as_str()).cloned();
        let judged = judge(self.state.config(), backend, &reply, before.as_deref());
        if let Some(judged) = judged
            && judged.left_out.count > 0
        {
            return Err(Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                format!("backend {backend} may not have it: {}", judged.left_out),
            ));
        }
        self.discovery.waiting.insert(backend.clone(), reply);
        self.take_answers();
        // not in the next window: whoever asks next finds it
        self.publish();
        Ok(self.discovery.arming.is_some())
    }
}

fn conflict(why: String) -> Problem {
    Problem::new(StatusCode::CONFLICT, why)
}
