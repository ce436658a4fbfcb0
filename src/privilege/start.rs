//! Forking the two children, before any thread exists: the broker, then the runner.

use std::{
    collections::BTreeSet,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use super::{
    BrokerError, Channel, KernelOps, Parser, Policy, Target, broker,
    files::Files,
    packets::PacketSockets,
    rules_news::RulesNews,
    runner::{self, Link, RunnerError},
    socket_files::SocketFiles,
    write::Writes,
};
use crate::{
    base::Protocol,
    config::{Options, Source},
    sys::{fdpass, ids, process},
};

/// What the children are made of.
pub struct Start<'a> {
    /// Makes a configuration of its bytes: [`crate::config::load`].
    pub parse: Parser,
    /// The configuration file.
    pub path: &'a Path,
    /// Its content.
    pub source: &'a Source,
    /// What the command line adds to it.
    pub options: Options,
    /// Who they become: some user if and only if started as root, from [`super::resolve_target`].
    pub target: Option<&'a Target>,
    /// Does the broker's work for the packet modes.
    pub kernel: Box<dyn KernelOps>,
    /// Ports that the daemon has listeners of already.
    pub bound: BTreeSet<(Protocol, u16)>,
    /// What an earlier process has left to the broker, by the names under which the service manager kept it. Nobody else has
    /// it once the broker is there.
    pub kept: Vec<(String, OwnedFd)>,
    /// Whether somebody keeps listening sockets for the process after this one, so that those at paths keep their files.
    pub keeps_sockets: bool,
    /// Files and directories that no command may open, besides the configuration and the keys that it names.
    pub hidden: Vec<PathBuf>,
}

/// The children, by the daemon's ends of what they are asked through.
#[derive(Debug)]
pub struct Children {
    /// The broker.
    pub broker: Channel,
    /// The runner.
    pub runner: OwnedFd,
}

/// Why there are no children.
#[derive(Debug, thiserror::Error)]
pub enum ForkError {
    /// Root has to say who to become.
    #[error("started as root, but no user to switch to")]
    NoTarget,
    /// The configuration does not parse: no policy.
    #[error("the configuration is not valid")]
    Config,
    /// A system call failed.
    #[error("{0}: {1}")]
    Step(&'static str, io::Error),
    /// No child was made.
    #[error(transparent)]
    Fork(#[from] process::ForkError),
    /// The broker could not confine itself.
    #[error("start the privileged broker: {0}")]
    Broker(#[from] BrokerError),
    /// There is no runner.
    #[error(transparent)]
    Runner(#[from] RunnerError),
}

impl Start<'_> {
    /// Forks both; returns in the daemon only, when both have confined themselves. Must be called before any thread exists.
    ///
    /// # Errors
    /// The process already has threads, the configuration is not valid, or a step of the start failed.
    pub fn fork(self) -> Result<Children, ForkError> {
        if ids::must_switch() && self.target.is_none() {
            return Err(ForkError::NoTarget);
        }
        let loaded = (self.parse)(self.source, self.options).map_err(|_| ForkError::Config)?;
        let path = std::path::absolute(self.path)
            .map_err(|error| ForkError::Step("find the configuration file", error))?;
        let mut hidden = self.hidden;
        hidden.push(path.clone());
        let pair = || fdpass::pair().map_err(|error| ForkError::Step("make a socketpair", error));
        let ((ours, theirs), (to_runner, to_broker)) = (pair()?, pair()?);

        let keeps_rules = is_under_systemd(|name| std::env::var(name).ok(), std::process::id());
        let daemon = std::process::id();
        let config = loaded.config.clone();
        let mut child = broker::Broker {
            // links in the path are followed at each reading, so that swapping one is a new configuration
            files: Files::new(path, &loaded.config),
            name: self.source.name.clone(),
            options: self.options,
            parse: self.parse,
            writes: Writes::new(loaded.config.admin.allow_config_writes),
            policy: Policy::new(loaded.config),
            adopted: None,
            bound: self.bound,
            sockets: SocketFiles::default(),
            packets: PacketSockets::new(self.kernel, daemon),
            rules: RulesNews::default(),
            keeps_rules,
            keeps_sockets: self.keeps_sockets,
            runner: None,
            daemon: None,
        };
        let (target, told) = (self.target, hidden.clone());
        let (names, kept): (Vec<String>, Vec<OwnedFd>) = self.kept.into_iter().unzip();
        let broker = process::fork_child_with([theirs, to_runner], kept, |[socket, to_runner], kept| {
            child.runner = Some(Link::new(to_runner, told, &config));
            child.inherit(names.into_iter().zip(kept).collect());
            child.run(&socket, target, daemon)
        })?;
        let broker_id = broker.as_raw().unsigned_abs();
        let broker = Channel::of_child(ours, broker_id, self.source.name.clone(), keeps_rules)?;
        let runner = runner::fork(target, &config, hidden, to_broker, broker_id)?;
        Ok(Children { broker, runner })
    }
}

/// Whether systemd started this very process as a service that it watches, not just one of its ancestors.
fn is_under_systemd(environment: impl Fn(&str) -> Option<String>, pid: u32) -> bool {
    let main_pid = environment("SYSTEMD_EXEC_PID");
    environment("INVOCATION_ID").is_some()
        && environment("NOTIFY_SOCKET").is_some()
        && main_pid.is_none_or(|main_pid| main_pid == pid.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_is_told_from_a_shell_that_it_started() {
        let under = |set: &'static [(&str, &str)]| {
            let get = move |name: &str| {
                let found = set.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            is_under_systemd(get, 7)
        };
        assert!(under(&[
            ("INVOCATION_ID", "x"),
            ("NOTIFY_SOCKET", "@x"),
            ("SYSTEMD_EXEC_PID", "7")
        ]));
        assert!(under(&[("INVOCATION_ID", "x"), ("NOTIFY_SOCKET", "@x")]));
        assert!(!under(&[
            ("INVOCATION_ID", "x"),
            ("NOTIFY_SOCKET", "@x"),
            ("SYSTEMD_EXEC_PID", "6")
        ]));
        assert!(!under(&[("INVOCATION_ID", "x")]) && !under(&[("NOTIFY_SOCKET", "@x")]) && !under(&[]));
    }
}
