//! What the control loop does with its state: each of these returns at once.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    os::{fd::OwnedFd, unix::net::UnixListener},
    sync::Arc,
    time::{Instant, SystemTime},
};

use super::{
    Control, listening,
    logging::Which,
    notify::not_kept,
    plane::listeners::kept_as,
    reload::machine::Trigger,
    state::Published,
    watch::{Debounce, FileWatch},
};
use crate::{
    admin::{AdminCommand, BindError, SocketFile},
    base::{ListenerId, TerminationReason},
    privilege::{Changed, LOOK, What},
    proxy::Select,
    snapshot::ServerCounts,
};

impl Control {
    /// Serves the control socket, or warns that there is none.
    pub fn serve_admin(&mut self, socket: Result<Option<(UnixListener, SocketFile)>, BindError>) {
        let served = match socket {
            Ok(None) => return,
            Ok(Some((listener, file))) => (self.endpoints.serve_control(listener))
                .map(|served| (Some(file), served))
                .map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match served {
            Ok(served) => self.admin = Some(served),
            Err(error) => tracing::warn!(
                event = "admin_unavailable",
                "{error}; control socket disabled: `convey status`, `reload` and `server` will not work"
            ),
        }
    }

    /// Has systemd keep new listeners over a restart.
    pub(super) fn keep(&self, added: &BTreeMap<ListenerId, Vec<OwnedFd>>) {
        let named = added.iter().map(|(id, sockets)| {
            (
                kept_as(*id),
                sockets.get(..id.own_sockets(sockets.len())).unwrap_or_default(),
            )
        });
        if let Err(error) = self.notify.keep(named) {
            not_kept(&error);
        }
    }

    /// Accepts on new listeners.
    pub(super) fn listen(&mut self, added: BTreeMap<ListenerId, Vec<OwnedFd>>) {
        listening::say(self.state.snapshot(), added.keys().copied());
        for (id, sockets) in added {
            self.listeners.insert(id, id.own_sockets(sockets.len()));
            self.workers.listen(id, sockets);
        }
        let (room, sockets) = (self.notify.store(), self.listeners.sockets());
        if room > 0 && sockets > room {
            tracing::warn!(
                event = "listener_not_kept",
                "systemd keeps {room} of {sockets} listening sockets over a restart: the others will refuse connections \
                 meanwhile; raise FileDescriptorStoreMax= and Environment=FDSTORE= (systemctl edit convey)"
            );
        }
    }

    /// Has files that lines about connections go to opened, beside the control loop.
    pub(super) fn open_logs(&self, which: Which) {
        tokio::spawn(self.log.open_files(which));
    }

    /// Has the file of a listener at a path removed, now that nobody is accepted there any more.
    pub(super) fn release_socket(&self, id: ListenerId) {
        if let Some(path) = id.socket() {
            self.broker.release_socket(path);
        }
    }

    /// What watches the file from now on, if the configuration in effect says so.
    pub(super) fn take_watch(&mut self, watched: Result<FileWatch, String>) {
        match watched {
            _ if !self.state.config().global.watch_config => self.watcher = None,
            Ok(watcher) => {
                self.watcher = Some(watcher);
                self.has_watch_failed = false;
            }
            // the old one is better than none
            Err(error) if !std::mem::replace(&mut self.has_watch_failed, true) => tracing::warn!(
                event = "watch_failed",
                "cannot watch {} for changes: {error}; they are detected within {} s",
                self.config_path.display(),
                LOOK.as_secs()
            ),
            Err(_) => {}
        }
    }

    /// Has sockets ready that the configuration in effect needs and that only the broker can make, and no others.
    pub fn keep_sockets(&mut self) {
        let config = self.state.config();
        let of_checks = config.check_sockets();
        self.workers
            .keep_sockets(config.connection_sockets(), of_checks.len());
        self.sockets.keep_for_checks(&of_checks);
    }

    /// Puts a snapshot of what is known now in effect, and does what follows from it.
    pub fn publish(&mut self) {
        let Published { built, to_close } = self.state.publish(Instant::now());
        if built.concerns_packets {
            self.packets.snapshot_changed();
        }
        // what it tells is in effect
        self.publish_status();
        self.hooks.published(&built, &self.state.config().hooks);
        // whoever waits for room looks again: a limit may be higher, a server may be back
        built.wake_queues();
        if !to_close.is_empty() {
            let servers = Select::Servers(Arc::new(to_close));
            drop(self.workers.close(&servers, TerminationReason::ServerDown));
        }
        self.tell_status();
    }

    /// What `systemctl status` shows.
    pub fn status_line(&self) -> String {
        if let Some(stopping) = &self.stopping {
            return stopping.status_line(self.workers.open_connections());
        }
        let ServerCounts {
            servers, eligible, ..
        } = self.state.snapshot().counts;
        let mut line = match self.state.config().frontends.len() {
            0 => "idle, no frontends configured".to_owned(),
            frontends => format!("{frontends} frontend(s), {eligible} of {servers} server(s) eligible"),
        };
        match self.state.backends_down() {
            0 => {}
            1 => line.push_str("; 1 backend is down"),
            down => {
                let _ = write!(line, "; {down} backends are down");
            }
        }
        let view = self.packets.view();
        let waiting: Vec<&str> = [view.waiting.as_str(), self.addresses.waiting()]
            .into_iter()
            .filter(|names| !names.is_empty())
            .collect();
        if !waiting.is_empty() {
            line.push_str("; waiting for the address of ");
            line.push_str(&waiting.join(", "));
        }
        if let Some(failed) = self.reload.last_error() {
            line.push_str("; last reload failed: ");
            line.push_str(&in_one_line(&failed.message));
        }
        line
    }

    /// The file, or something near it, may have changed.
    pub(super) fn file_changed(&mut self) {
        if self.state.config().global.watch_config {
            self.ask_reload(Trigger::FileChange, None);
        }
    }

    /// The broker has noticed something.
    pub(super) fn broker_noticed(&mut self, changed: &Changed, file_change: &mut Debounce) {
        if changed.files.contains(&What::Config) {
            file_change.noticed(Instant::now());
        }
        self.discovery_files_changed(changed.files.iter());
        let is_beside = |what: &What| {
            matches!(
                what,
                What::NetworkList(_) | What::TlsFile(_) | What::CertificateDir(_) | What::TokensFile(_)
            )
        };
        if changed.files.iter().any(is_beside) && self.state.config().global.watch_config {
            self.ask_reload(Trigger::BesideChange, None);
        }
        if changed.rules {
            tracing::debug!(
                event = "rules_noticed",
                "the firewall was changed: checking the rules"
            );
            // nobody waits for the end of it
            drop(self.packets.check_rules());
        }
    }

    /// The packet modes run otherwise than before.
    pub(super) fn packets_changed(&mut self) {
        self.publish_status();
        self.tell_status();
    }

    /// This host has other addresses than before.
    pub(super) fn addresses_changed(&mut self) {
        self.addresses.update();
        self.publish_status();
        self.tell_status();
    }

    /// Changes the keys of TLS tickets if it is time, unless they are shared ones.
    pub(super) fn turn_ticket_keys(&mut self) {
        if self.ticket_keys.turn(SystemTime::now()) {
            self.use_ticket_keys();
        }
    }

    /// Has tickets made with our own keys, unless there are shared ones; they are kept where a frontend makes any.
    pub(super) fn use_ticket_keys(&mut self) {
        let config = self.state.config();
        if config.global.ticket_keys_file.is_some() {
            return;
        }
        self.tls.tickets().replace(self.ticket_keys.keys());
        let are_used = config.frontends.values().any(|frontend| frontend.tls.is_some());
        if let Some(keep) = are_used.then(|| self.ticket_keys.keep()).flatten() {
            // nobody waits for the disk
            drop(tokio::task::spawn_blocking(keep));
        }
    }

    /// Tells systemd how it goes, if that is not what it was told last.
    pub(super) fn tell_status(&self) {
        if self.ready {
            self.notify.status(&self.status_line());
        }
    }

    pub(super) fn handle_command(&mut self, command: AdminCommand) {
        // a reply that nobody waits for any more is no error
        match command {
            AdminCommand::Reload { cut, by, reply } => {
                let trigger = if cut {
                    Trigger::CutRequest
                } else {
                    Trigger::Request
                };
                self.ask_reload(trigger, Some((by, reply)));
            }
            AdminCommand::Backend {
                backend,
                request,
                by,
                reply,
            } => {
                let _ = reply.send(self.override_backend(&backend, request, &by));
            }
            AdminCommand::ClearOverrides { by, reply } => {
                let _ = reply.send(self.clear_overrides(&by));
            }
            AdminCommand::CountCut { config, reply } => self.tell_cut(&config, reply),
            AdminCommand::WriteConfig {
                text,
                replaces,
                expected,
                reply,
            } => self.write_config(text, replaces, &expected, reply),
            AdminCommand::AddServer {
                backend,
                server,
                by,
                reply,
            } => {
                let _ = reply.send(self.add_server(&backend, &server, &by));
            }
            AdminCommand::RemoveServer {
                backend,
                server,
                by,
                reply,
            } => {
                let _ = reply.send(self.remove_server(&backend, &server, &by));
            }
            AdminCommand::Renew { name, reply } => {
                let _ = reply.send(self.renew_certificates(name.as_deref()));
            }
            AdminCommand::Server {
                backend,
                server,
                request,
                by,
                reply,
            } => {
                let _ = reply.send(self.override_server(&backend, &server, request, &by));
            }
        }
    }
}

/// The first finding of what an operator is told, with its place if it has one, as `systemctl status` shows it.
fn in_one_line(error: &str) -> String {
    let mut lines = error.lines();
    let first = lines.next().unwrap_or_default();
    let place = lines
        .next()
        .and_then(|line| line.trim_start().strip_prefix("--> "));
    place.map_or_else(|| first.to_owned(), |place| format!("{place}: {first}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_line_says_where_a_configuration_is_wrong() {
        let error = "error: `x` has no port\n --> /etc/convey/convey.toml:2:15\n  |\n2 | listen_addr = \"x\"";
        assert_eq!(
            in_one_line(error),
            "/etc/convey/convey.toml:2:15: error: `x` has no port"
        );
        assert_eq!(in_one_line("port 80 is taken\nby somebody"), "port 80 is taken");
    }
}
