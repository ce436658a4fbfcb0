//! A configuration that a reload has read.

use std::sync::Arc;

use super::texts::broken;
use crate::{
    access::NetworkLists,
    admin::views::ReloadFailed,
    config::{self, Config, Diff, Here, Loaded, Severity, Source},
    daemon::{
        discovery::{First, first_answers},
        lists,
        tls::{self, Known, Prepared},
    },
    discovery::Reader,
    pools::Pools,
    privilege::Client,
    sys::interfaces,
};

/// A configuration that is to take effect.
#[derive(Debug)]
pub struct New {
    pub config: Arc<Config>,
    pub lists: NetworkLists,
    pub tls: Prepared,
    /// What sources that it adds or changes have answered.
    pub first: First,
    pub diff: Diff,
    /// For a terminal; empty without any.
    pub warnings: String,
    /// For the log.
    pub warning_lines: Vec<String>,
}

/// Parses and resolves a file, and compares it with what runs.
///
/// # Errors
/// What is wrong with it.
pub fn load(source: &Source, options: config::Options, before: &Config) -> Result<New, ReloadFailed> {
    let here = Here {
        addresses: interfaces::own_addresses(),
        severity: Severity::Error,
    };
    let Loaded {
        mut config,
        warnings: found,
    } = config::load_here(source, options, Some(&here)).map_err(|findings| broken(findings, source))?;
    let warnings = match found.as_slice() {
        [] => String::new(),
        some => config::render(some, source, false).trim_end().to_owned(),
    };
    let warning_lines = found.iter().map(config::in_one_line).collect();
    config.keep(before);
    let diff = config::diff(before, &config);
    Ok(New {
        config: Arc::new(config),
        lists: NetworkLists::new(),
        tls: Prepared::default(),
        first: First::default(),
        diff,
        warnings,
        warning_lines,
    })
}

/// What runs now, as far as what is read depends on it.
pub struct Running {
    pub config: Config,
    pub lists: NetworkLists,
    pub known: Known,
    pub pools: Pools,
    /// What reads what sources say, for the first answers of servers.
    pub reader: Arc<dyn Reader>,
}

/// With the files that the new configuration names, and the first answers of its sources of servers: these fail no reload.
///
/// # Errors
/// One cannot be read, or cannot be used.
pub async fn with_files(mut new: New, broker: &Client, running: Running) -> Result<New, ReloadFailed> {
    let Running {
        config,
        lists: before,
        known,
        pools,
        reader,
    } = running;
    new.lists = lists::read_all(broker, &new.config, &before).await?;
    new.diff.changes.extend(lists::changes(&before, &new.lists));
    new.tls = tls::read_all(broker, &new.config, known).await?;
    new.diff.changes.append(&mut new.tls.changes);
    new.first = first_answers(&new.config, Some(&config), &pools, reader).await;
    new.tls.warnings.extend(new.first.warnings());
    for warning in &new.tls.warnings {
        new.warnings += &format!(
            "{}warning: {warning}",
            if new.warnings.is_empty() { "" } else { "\n" }
        );
    }
    new.warning_lines.append(&mut new.tls.warnings);
    Ok(new)
}
