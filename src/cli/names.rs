//! `convey names`, for completions: what can be named.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    path::Path,
};

use super::{
    args::{DaemonArgs, ModeArgs, NameKind, NamesArgs},
    client::Client,
    outcome::{CommandResult, Failure},
    target,
    text::natural_order,
};
use crate::{admin::views::Status, base::exit};

/// Everything that has a name.
#[derive(Debug, Default)]
struct Names {
    frontends: BTreeSet<String>,
    /// Servers by backend.
    backends: BTreeMap<String, BTreeSet<String>>,
}

/// Prints names, a line each: of the running convey, else of the configuration. Says nothing where there are none: whoever
/// presses a key wants no error.
pub fn run(args: &NamesArgs, config: Option<&Path>) -> CommandResult {
    let names = running(&args.target, config).or_else(|_| configured(config));
    let mut out = std::io::stdout().lock();
    for name in names.unwrap_or_default().of(args.kind) {
        writeln!(out, "{name}")?;
    }
    out.flush()?;
    Ok(exit::OK)
}

fn running(target: &DaemonArgs, config: Option<&Path>) -> Result<Names, Failure> {
    let socket = target::socket_path(target.socket.as_deref(), config)?;
    let status: Status = Client::new(socket)?.get("/v1/status")?.parse()?;
    Ok(Names {
        frontends: status.frontends.keys().map(ToString::to_string).collect(),
        backends: (status.backends.iter())
            .map(|(name, backend)| {
                let servers = backend.servers.keys().map(ToString::to_string);
                (name.to_string(), servers.collect())
            })
            .collect(),
    })
}

fn configured(config: Option<&Path>) -> Result<Names, Failure> {
    let config = target::load(config, ModeArgs::default())?.config;
    Ok(Names {
        frontends: config.frontends.keys().map(ToString::to_string).collect(),
        backends: (config.backends.iter())
            .map(|(name, backend)| {
                let servers = backend.servers.keys().map(ToString::to_string);
                (name.to_string(), servers.collect())
            })
            .collect(),
    })
}

impl Names {
    fn of(&self, kind: NameKind) -> Vec<String> {
        let frontends = || self.frontends.iter().cloned();
        let backends = || self.backends.keys().cloned();
        let pairs = || {
            let each = |(backend, servers): (&String, &BTreeSet<String>)| {
                let pair = |server: &String| format!("{backend}/{server}");
                servers.iter().map(pair).collect::<Vec<_>>()
            };
            self.backends.iter().flat_map(each)
        };
        let names: BTreeSet<String> = match kind {
            NameKind::Frontends => frontends().collect(),
            NameKind::Backends => backends().collect(),
            NameKind::Servers => self.backends.values().flatten().cloned().collect(),
            NameKind::Pairs => pairs().collect(),
            NameKind::Any => frontends().chain(backends()).chain(pairs()).collect(),
        };
        let mut names: Vec<String> = names.into_iter().collect();
        names.sort_by(|one, other| natural_order(one, other));
        names
    }
}
