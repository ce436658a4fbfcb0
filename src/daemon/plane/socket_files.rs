//! Unix sockets that are listened at, as the daemon has them: the broker makes and removes their files.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd as _, OwnedFd},
};

use crate::{
    base::{ListenerId, SocketPath, SocketRights},
    config::Config,
    privilege::{BrokerError, Client, ListenerRef},
    sys::listener,
};

/// Paths of unix sockets that were made for a configuration that is not in effect yet; dropping it has the broker remove them.
#[derive(Debug)]
pub struct NewFiles {
    broker: Client,
    paths: Vec<SocketPath>,
}

impl NewFiles {
    /// None yet.
    pub fn new(broker: &Client) -> Self {
        Self {
            broker: broker.clone(),
            paths: Vec::new(),
        }
    }

    /// The socket at a path for every worker: a predecessor's if the broker goes on with it, else a new one.
    ///
    /// # Errors
    /// The broker cannot make it, or no descriptor is left.
    pub async fn sockets(
        &mut self,
        path: SocketPath,
        reference: ListenerRef,
        before: Option<OwnedFd>,
        workers: usize,
    ) -> Result<Vec<OwnedFd>, BrokerError> {
        let taken = match before {
            Some(socket) => taken_over(&self.broker, &reference, socket).await,
            None => None,
        };
        let socket = match taken {
            // if the start fails, the next one finds it as this one has
            Some(socket) => socket,
            None => {
                // before it is asked for: whoever gives up waiting must know of it
                self.paths.push(path);
                self.broker.bind(reference).await?
            }
        };
        shared(socket, workers).map_err(|source| BrokerError::Failed {
            step: format!("share the socket at {path} among the workers"),
            source,
        })
    }

    /// They stay: the configuration is in effect.
    pub fn keep(mut self) {
        self.paths.clear();
    }
}

impl Drop for NewFiles {
    fn drop(&mut self) {
        for path in self.paths.drain(..) {
            self.broker.release_socket(path);
        }
    }
}

/// One socket for every worker: at a path there is only one.
fn shared(socket: OwnedFd, workers: usize) -> std::io::Result<Vec<OwnedFd>> {
    let copies = (1..workers).map(|_| socket.try_clone());
    let mut sockets = copies.collect::<std::io::Result<Vec<_>>>()?;
    sockets.push(socket);
    Ok(sockets)
}

/// The unix socket of an earlier process, if the broker goes on with it; else it is ended.
async fn taken_over(broker: &Client, reference: &ListenerRef, socket: OwnedFd) -> Option<OwnedFd> {
    let other = socket.try_clone().ok()?;
    match broker.take_over_socket(reference.clone(), socket).await {
        Ok(socket) => Some(socket),
        Err(error) => {
            tracing::warn!(event = "listener_not_taken_over", "{error}: it is opened anew");
            listener::end(other.as_fd());
            None
        }
    }
}

/// Unix sockets that stay from one configuration to the next and whose `socket_mode` or `socket_group` is another.
pub fn with_other_rights(before: &Config, after: &Config) -> Vec<ListenerRef> {
    let rights: BTreeMap<SocketPath, &SocketRights> = before
        .frontends
        .values()
        .flat_map(|frontend| {
            let paths = frontend.sockets.iter().copied();
            paths.map(|path| (path, &frontend.socket_rights))
        })
        .collect();
    let differs =
        |path: &SocketPath, now: &SocketRights| rights.get(path).is_some_and(|before| *before != now);
    after
        .frontends
        .values()
        .flat_map(|frontend| {
            let now = &frontend.socket_rights;
            let changed = frontend.sockets.iter().filter(move |path| differs(path, now));
            changed.map(|path| ListenerRef::frontend(&frontend.name, ListenerId::Unix(*path)))
        })
        .collect()
}

/// Has the broker give them those.
pub async fn set_rights(broker: &Client, listeners: Vec<ListenerRef>) {
    for listener in listeners {
        if let Err(error) = broker.socket_rights(listener).await {
            tracing::warn!(event = "socket_rights", "{error}; they are as before");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Options, Source};

    fn load(frontends: &str) -> Config {
        let source = Source {
            name: "test.toml".to_owned(),
            bytes: format!("{frontends}\n[backends.b]\nservers.s = {{ addr = \"10.1.0.2:80\" }}\n").into(),
        };
        config::load(&source, Options::default()).unwrap().config
    }

    #[test]
    fn rights_are_set_anew_where_they_differ_whichever_frontend_has_the_socket() {
        let one = |name: &str, path: &str, rights: &str| {
            format!("[frontends.{name}]\nlisten_addr = \"unix:/run/{path}\"\nbackend = \"b\"\n{rights}\n")
        };
        let before =
            load(&(one("a", "a", "") + &one("b", "b", "socket_group = \"www-data\"") + &one("c", "c", "")));
        let after = load(
            &(one("a", "c", "socket_mode = \"0600\"")
                + &one("b", "b", "socket_group = \"www-data\"")
                + &one("d", "a", "")
                + &one("e", "new", "socket_mode = \"0666\"")),
        );
        let changed = with_other_rights(&before, &after);
        let path = ListenerId::Unix(SocketPath::new("/run/c").unwrap());
        let [ListenerRef::Frontend { name, listener }] = changed.as_slice() else {
            panic!("{changed:?}");
        };
        assert_eq!((name.as_str(), *listener), ("a", path));
    }
}
