//! What the control loop owns: all state that changes slowly, and what is done with it.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    os::{fd::OwnedFd, unix::net::UnixListener},
    path::PathBuf,
    sync::Arc,
    time::Instant,
};

use tokio::sync::mpsc;

use super::{
    Fatal,
    logging::Logging,
    notify::{Notifier, not_kept},
    plane::{
        listeners::{Listeners, Predecessors, kept_as},
        packets::Packets,
        stats::{Stats, bind_stats, serve_stats},
    },
    reload::{Reload, machine::Trigger},
    run::Inboxes,
    saved::SavedOverrides,
    scripts::Scripts,
    state::{Published, State},
    status::Board,
    stop::Stopping,
    watch::{self, FileWatch},
};
use crate::{
    admin::{AdminThread, BindError, Command, HttpListener, SocketFile},
    base::{Endpoint, TerminationReason, exit},
    config::{self, Config},
    privilege::{Client, LOOK},
    proxy::{Select, Workers},
    snapshot::ServerCounts,
};

/// All state of the control thread.
pub struct Control {
    pub(super) config_path: PathBuf,
    pub(super) options: config::Options,
    /// Configuration, pools, health and the snapshot in effect.
    pub(super) state: State,
    /// The configuration that the process was started with.
    pub(super) startup_config: Config,
    pub(super) config_generation: u64,
    pub(super) broker: Client,
    pub(super) workers: Arc<Workers>,
    pub(super) listeners: Listeners,
    /// Until the start has taken what it needs of them.
    pub(super) predecessors: Predecessors,
    pub(super) packets: Packets,
    pub(super) scripts: Scripts,
    /// The overrides that outlive the process.
    pub(super) saved: SavedOverrides,
    pub(super) notify: Notifier,
    pub(super) log: Arc<Logging>,
    /// What the endpoints answer from.
    pub(super) board: Board,
    /// Serves the endpoints.
    pub(super) endpoints: AdminThread,
    /// The file is given up when the end begins.
    pub(super) admin: Option<(Option<SocketFile>, HttpListener)>,
    pub(super) stats: Stats,
    pub(super) watcher: Option<FileWatch>,
    /// Whether the last try to watch has failed, which is said once.
    pub(super) has_watch_failed: bool,
    /// Given to each new watcher.
    pub(super) file_changes: mpsc::Sender<()>,
    pub(super) reload: Reload,
    /// Settings that wait for a restart.
    pub(super) needs_restart: Vec<String>,
    pub(super) stopping: Option<Stopping>,
    pub(super) ready: bool,
}

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
                "{error}; running without the control socket, so `convey status` and the like do not work"
            ),
        }
    }

    /// Binds everything, waits for the first checks, starts to accept, and says that it is ready.
    pub async fn go_live(&mut self, inboxes: &mut Inboxes) -> Result<(), Fatal> {
        let bind_failed = |e: &dyn std::fmt::Display| Fatal::new(exit::OS_ERROR, e);
        let mut predecessors = std::mem::take(&mut self.predecessors);
        let missing = self.listeners.missing(self.state.config());
        let prepared = missing
            .bind(&self.broker, self.workers.count(), &mut predecessors)
            .await
            .map_err(|e| bind_failed(&e))?;
        // before they are kept anew: one name may have had sockets of both kinds
        self.notify.forget(predecessors.end());
        // clients come to them from now on, and what follows takes time and may fail
        self.keep(&prepared.added);
        let stats = bind_stats(self.stats.missing(self.state.config()), &self.broker)
            .await
            .map_err(|e| bind_failed(&e))?;
        let config = Arc::new(self.state.config().clone());
        // rules come before packets
        let armed = self
            .packets
            .arm(Arc::clone(&config), Arc::new(self.state.pools().clone()))
            .await
            .map_err(|e| bind_failed(&e))?;
        self.state.start_checks();
        self.first_round(&mut inboxes.health).await;
        self.publish();
        self.listen(prepared.added);
        self.packets.commit(armed, config);
        self.scripts.write(self.state.config(), self.state.pools());
        let stats = serve_stats(stats, &self.endpoints).map_err(|e| bind_failed(&e))?;
        self.stats.swap(stats);
        self.ready = true;
        self.publish_status();
        self.notify.ready(&self.status_line());
        tracing::info!(
            event = "ready",
            "ready: {}{}",
            self.status_line(),
            if self.state.config().frontends.is_empty() {
                "; add a [frontends.NAME] to the configuration and reload"
            } else {
                ""
            }
        );
        Ok(())
    }

    /// Has systemd keep new listeners over a restart.
    pub(super) fn keep(&self, added: &BTreeMap<Endpoint, Vec<OwnedFd>>) {
        let named = added
            .iter()
            .map(|(endpoint, sockets)| (kept_as(*endpoint), sockets.as_slice()));
        if let Err(error) = self.notify.keep(named) {
            not_kept(&error);
        }
    }

    /// Accepts on new listeners.
    pub(super) fn listen(&mut self, added: BTreeMap<Endpoint, Vec<OwnedFd>>) {
        for (endpoint, sockets) in added {
            self.listeners.insert(endpoint, sockets.len());
            self.workers.listen(endpoint, sockets);
        }
        let (room, sockets) = (self.notify.store(), self.listeners.sockets());
        if room > 0 && sockets > room {
            tracing::warn!(
                event = "listener_not_kept",
                "systemd keeps {room} of {sockets} listening sockets over a restart, which will refuse connections: raise \
                 FileDescriptorStoreMax= and Environment=FDSTORE= (systemctl edit convey)"
            );
        }
    }

    /// Watches the file anew, for its directories may be others now, or no longer if the configuration in effect says so.
    pub(super) fn watch_file(&mut self) {
        if !self.state.config().global.watch_config {
            self.watcher = None;
            return;
        }
        match watch::watch(&self.config_path, self.file_changes.clone()) {
            Ok(watcher) => {
                self.watcher = Some(watcher);
                self.has_watch_failed = false;
            }
            // the old one is better than none
            Err(error) if !std::mem::replace(&mut self.has_watch_failed, true) => tracing::warn!(
                event = "watch_failed",
                "cannot watch {} for changes: {error}; they are noticed within {} s",
                self.config_path.display(),
                LOOK.as_secs()
            ),
            Err(_) => {}
        }
    }

    /// Puts a snapshot of what is known now in effect, and does what follows from it.
    pub fn publish(&mut self) {
        let Published { built, to_close } = self.state.publish(Instant::now());
        self.publish_status();
        if built.concerns_packets {
            self.packets.snapshot_changed();
        }
        // whoever waits for room looks again: a limit may be higher, a server may be back
        built.wake_queues();
        if !to_close.is_empty() {
            let servers = Select::Servers(Arc::new(to_close));
            self.workers.close(&servers, TerminationReason::ServerDown);
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
        if !view.waiting.is_empty() {
            line.push_str("; waiting for the address of ");
            line.push_str(&view.waiting);
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

    /// The packet modes run otherwise than before.
    pub(super) fn packets_changed(&mut self) {
        self.publish_status();
        self.tell_status();
    }

    /// Tells systemd how it goes, if that is not what it was told last.
    pub(super) fn tell_status(&self) {
        if self.ready {
            self.notify.status(&self.status_line());
        }
    }

    pub(super) fn obey(&mut self, command: Command) {
        // a reply that nobody waits for any more is no error
        match command {
            Command::Reload { reply } => self.ask_reload(Trigger::Request, Some(reply)),
            Command::Server {
                backend,
                server,
                request,
                reply,
            } => {
                let _ = reply.send(self.override_server(&backend, &server, request));
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
